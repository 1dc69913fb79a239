// Small helpers for the page.

import { mapPixels, mapSize } from "./colours.js";

export function make(tag, parent, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  if (parent) parent.appendChild(node);
  return node;
}

export function makeButton(parent, text) {
  const button = make("button", parent, "ss-button", text);
  button.type = "button";
  return button;
}

/** Append a sentence; what it quotes is isolated, so that words from right to left leave the sentence its direction. */
export function writeSentence(parent, text) {
  text.split(/“([^”]*)”/).forEach((part, i) => {
    if (i % 2 === 0) return parent.append(part);
    parent.append("“");
    make("bdi", parent, "", part);
    return parent.append("”");
  });
}

/** Whether a key belongs to a field in which the reader types, outside the view. */
export function typesElsewhere(event, root) {
  const node = event.composedPath()[0];
  const fields = "input, textarea, select, [contenteditable], dialog";
  return !root.contains(node) && node instanceof Element && Boolean(node.closest(fields));
}

function pixelsOf(character) {
  const canvas = make("canvas");
  canvas.width = canvas.height = 24;
  const context = canvas.getContext("2d");
  context.font = "16px system-ui, sans-serif";
  context.fillText(character, 2, 18);
  return canvas.toDataURL();
}

/** Symbols without a glyph, which fonts draw as they draw what nobody has, get their names as the word's text. */
export function nameSymbols(side) {
  if (side.parts) side.parts.forEach(nameSymbols);
  for (const word of side.words || []) {
    const missing = (word.symbols || []).filter(([symbol]) => pixelsOf(symbol) === pixelsOf("\u{10fffd}"));
    word.named = word.named || missing.length > 0;
    missing.forEach(([symbol, name]) => { word.text = word.text.replace(symbol, `[${name}]`); });
  }
}

/** The colour of the page below a node. */
export const paperOf = (node) =>
  getComputedStyle(node).getPropertyValue("--paper-rgb").split(",").map(Number);

/** Text as SVG holds it: characters that XML does not know are replaced, those that it uses itself are escaped. */
export function escaped(text) {
  const names = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  const printable = text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd");
  return printable.replace(/[&<>"]/g, (character) => names[character]);
}

/** Paint a map onto a canvas, which gets the proportions of the side's picture. */
export function paintMap(canvas, side, values, limit, look) {
  [canvas.width, canvas.height] = mapSize(side.size);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  pixels.data.set(mapPixels(side, values, limit, look));
  context.putImageData(pixels, 0, 0);
}
