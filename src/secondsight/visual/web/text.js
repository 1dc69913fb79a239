// The panel of a text: coloured words that the reader picks by pointer or by keys.

import { css, ink, tint } from "./colours.js";
import { escaped, make, paperOf } from "./dom.js";
import { Legend } from "./legend.js";
import { Passages } from "./passages.js";
import { brief, clamp, largest, pickWord, runsLeft, signed, wordRange } from "./state.js";

const TOO_LONG = "cut off: the caption is longer than the model's context";
const STEPS = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };

export class TextPanel {
  all = "all words";

  constructor(side, parent, ui) {
    Object.assign(this, { side, ui, picked: new Set(), anchor: null, drag: null, values: null, limit: 1 });
    this.changed = () => {};
    const place = side.passages && make("div", parent);
    this.line = make("p", parent, `ss-text${place ? " ss-long" : ""}`);
    this.line.setAttribute("role", "group");
    this.line.setAttribute("aria-label", "Words. Arrow keys move, Enter picks, with Shift several.");
    // Words of other scripts stand in the order in which they are read.
    this.line.dir = "auto";
    this.backwards = Boolean(runsLeft(side.text));
    this.buildWords();
    this.legend = new Legend(parent, ui);
    const wider = "A word’s colour sums over the whole map, so its scale is wider than the map’s.";
    this.legend.note.textContent = `Click or drag over words to see where they matched.${ui.mapped ? ` ${wider}` : ""}`;
    if (place) this.legend.note.append(" A double click picks a sentence.");
    this.open = side.words.map((_, i) => i).filter((i) => !side.words[i].cut);
    if (this.open.length) this.words[this.open[0]].tabIndex = 0;
    if (place) this.listed = new Passages(this, place);
    this.listenToPointer();
    this.listenToKeys();
    this.listenToHovering();
  }

  buildWords() {
    const { side, line } = this;
    let place = 0;
    let passage = line;
    this.passages = [];
    const starts = new Set(side.passages);
    this.words = side.words.map((word, index) => {
      const gap = side.text === null ? " ".repeat(index && 1) : side.text.slice(place, word.start);
      (starts.has(index) ? line : passage).append(gap);
      if (starts.has(index)) this.passages.push(passage = make("span", line));
      place = word.end;
      const runs = side.passages ? null : runsLeft(word.text);
      // A button counts as no letter, so marks around it say how its word runs.
      const holder = runs === null ? passage : make("span", passage, runs ? "ss-runs-left" : "ss-runs-right");
      // Lines of a paragraph may not break between a word and its full stop, as they do between buttons.
      const tag = side.passages ? "span" : "button";
      const button = make(tag, holder, "ss-word" + (word.cut && !word.shared ? " ss-cut" : ""), word.text);
      if (side.passages) button.setAttribute("role", "button");
      Object.assign(button, { type: "button", disabled: word.cut, tabIndex: -1 });
      if (word.cut) button.title = word.shared ? "part of a neighbour's token" : TOO_LONG;
      button.dataset.index = index;
      button.classList.toggle("ss-named", Boolean(word.named));
      if (word.symbols) button.title = word.symbols.map(([, name]) => name).join(", ");
      return button;
    });
    if (side.text !== null) line.append(side.text.slice(place));
  }

  // What every panel can do

  weights() {
    return this.picked.size ? Float64Array.from(this.side.words, (_, i) => (this.picked.has(i) ? 1 : 0)) : null;
  }

  indices() { return [...this.picked].sort((a, b) => a - b); }
  get() { return this.picked.size ? this.indices() : null; }
  describe() { return `“${brief(this.indices().map((i) => this.side.words[i].text))}”`; }

  set(indices) {
    this.picked = new Set(indices || []);
    this.mark();
  }

  colour(values, limit) {
    const turned = this.values && values.some((value, i) => value !== this.values[i]);
    this.values = values;
    this.limit = limit || largest(values);
    this.legend.show(this.limit);
    const paper = paperOf(this.line);
    this.words.forEach((word, i) => {
      if (this.side.words[i].cut) return;
      const colour = this.colourOf(i);
      word.style.background = css(colour);
      word.style.color = ink(paper, colour);
      word.setAttribute("aria-label", `${this.side.words[i].text} ${signed(values[i])}`);
    });
    const strongest = this.listed && this.listed.show(values);
    if (turned && strongest) this.reveal(strongest[0]);
  }

  /** Scroll a long text, and nothing around it, to a word. */
  reveal(index) {
    const { top } = this.line.getBoundingClientRect();
    this.line.scrollTop += this.words[index].getBoundingClientRect().top - top - this.line.clientHeight / 3;
  }

  colourOf(i) { return tint(this.ui.look.scale, clamp(this.values[i] / this.limit, -1, 1), 0.8); }

  draw(x, y, width, sign) {
    const context = make("canvas").getContext("2d");
    const out = [];
    // A long text is smaller and keeps its line breaks.
    const scale = this.listed ? 0.65 : 1;
    context.font = `${20 * scale}px system-ui, sans-serif`;
    let [left, top, place] = [x, y + 8, 0];
    if (sign) {
      out.push(`<text x="${x}" y="${top + 21}" font-size="20" fill="#555">${sign > 0 ? "+" : "−"}</text>`);
      left += 22;
    }
    this.side.words.forEach((word, i) => {
      const gap = (this.listed && this.side.text || " ").slice(place, word.start);
      const wide = context.measureText(word.text).width + 10 * scale;
      const breaks = gap.includes("\n");
      if (i && this.listed && !gap) left -= 8 * scale;
      if (breaks || (left + wide > x + width && left > x && gap)) {
        [left, top] = [x, top + 38 * scale * (/\n\s*\n/.test(gap) ? 1.5 : 1)];
      }
      place = word.end;
      out.push(this.drawWord(i, this.backwards ? 2 * x + width - left - wide : left, top, wide, scale));
      left += wide + 8 * scale;
    });
    if (this.legend.line.hidden) return { svg: out.join(""), height: top + 38 - y };
    return { svg: out.join("") + this.legend.draw(x, top + 40), height: top + 60 - y };
  }

  drawWord(i, left, top, width, scale) {
    const { text, cut } = this.side.words[i];
    const [r, g, b, a] = cut ? [0, 0, 0, 0] : this.colourOf(i);
    const frame = this.picked.has(i) ? ' stroke="#b58900" stroke-width="2.5"' : "";
    const onWhite = (channel) => 255 + a * (channel - 255);
    const lightness = 0.3 * onWhite(r) + 0.6 * onWhite(g) + 0.1 * onWhite(b);
    const fill = `fill="rgb(${r},${g},${b})" fill-opacity="${a.toFixed(3)}"`;
    const size = `font-size="${20 * scale}" textLength="${width - 10 * scale}"`;
    const letters = `${size} fill="${lightness < 125 ? "#fff" : "#111"}"`;
    const place = `x="${left + 5 * scale}" y="${top + 21 * scale}"`;
    return (
      `<rect x="${left}" y="${top}" width="${width}" height="${30 * scale}" rx="${6 * scale}" ${fill}${frame}/>` +
      `<text ${place} ${letters} lengthAdjust="spacingAndGlyphs">${escaped(text)}</text>`
    );
  }

  // Picking

  mark() {
    this.words.forEach((word, i) => {
      word.classList.toggle("ss-on", this.picked.has(i));
      word.setAttribute("aria-pressed", this.picked.has(i));
    });
  }

  pick(index, adding) {
    if (!this.side.words[index].cut) this.picked = pickWord(this.picked, index, adding);
  }

  pickRange(a, b) { this.picked = new Set(wordRange(this.open, a, b)); }

  report() {
    this.mark();
    this.changed();
  }

  /** The index of the word under the pointer, also within a shadow root; null beside the words. */
  wordUnder(event) {
    const outer = document.elementFromPoint(event.clientX, event.clientY);
    const shadow = outer && outer.shadowRoot;
    const node = shadow ? shadow.elementFromPoint(event.clientX, event.clientY) : outer;
    return node && this.line.contains(node) && node.dataset.index !== undefined ? Number(node.dataset.index) : null;
  }

  listenToPointer() {
    const { line, ui } = this;
    ui.listen(line, "pointerdown", (event) => this.pointerDown(event));
    ui.listen(window, "pointermove", (event) => this.pointerMove(event));
    ui.listen(window, "pointerup pointercancel", () => {
      if (this.drag) this.report();
      this.drag = null;
    });
    ui.listen(line, "dblclick", (event) => {
      const index = this.wordUnder(event);
      if (index === null || !this.listed) return;
      this.picked = new Set(this.listed.around(index));
      this.report();
    });
    // Pointers and keys are handled elsewhere; these clicks come from assistive technology.
    ui.listen(line, "click", (event) => {
      if (event.detail !== 0 || event.target.dataset.index === undefined) return;
      this.pick(Number(event.target.dataset.index), true);
      this.report();
    });
  }

  pointerDown(event) {
    const index = this.wordUnder(event);
    if (event.button || index === null) return;
    this.anchor = index;
    this.drag = { ranging: false };
    this.ui.tip(null);
    const range = [...this.picked, index];
    if (event.shiftKey && this.picked.size) this.pickRange(Math.min(...range), Math.max(...range));
    else this.pick(index, event.ctrlKey || event.metaKey || event.shiftKey);
    this.mark();
  }

  pointerMove(event) {
    if (!this.drag) return;
    const index = this.wordUnder(event);
    // A hand that trembles on one word picks no range.
    if (index === null || (index === this.anchor && !this.drag.ranging)) return;
    this.drag.ranging = true;
    this.pickRange(this.anchor, index);
    this.mark();
  }

  listenToKeys() {
    this.ui.listen(this.line, "keydown", (event) => {
      if (event.target.dataset.index === undefined) return;
      const index = Number(event.target.dataset.index);
      const picks = event.key === "Enter" || event.key === " ";
      if (!picks && STEPS[event.key] === undefined) return;
      event.preventDefault();
      const turn = this.backwards && event.key.startsWith("Arrow") ? -1 : 1;
      if (!picks) return this.step(index, turn * STEPS[event.key], event.shiftKey);
      this.pick(index, event.shiftKey);
      this.report();
    });
  }

  step(index, step, ranging) {
    const next = this.open[clamp(this.open.indexOf(index) + step, 0, this.open.length - 1)];
    this.words.forEach((word, i) => { word.tabIndex = i === next ? 0 : -1; });
    this.words[next].focus();
    if (!ranging) {
      this.anchor = next;
      return;
    }
    this.pickRange(this.anchor === null || !this.picked.size ? index : this.anchor, next);
    if (this.anchor === null) this.anchor = index;
    this.report();
  }

  listenToHovering() {
    const { line, ui } = this;
    ui.listen(line, "pointerover focusin", (event) => {
      const node = event.target.closest("[data-index]");
      if (!node || !this.values || node.disabled) return;
      // Fingers cover what they touch, and a click's focus tells nothing new.
      const silent = event.pointerType === "touch" || (event.type === "focusin" && !node.matches(":focus-visible"));
      if (silent) return;
      const index = Number(node.dataset.index);
      const { left, bottom } = node.getBoundingClientRect();
      const text = `${this.side.words[index].text}: ${signed(this.values[index], 5)}`;
      ui.tip(text, event.clientX || left, bottom - 8);
    });
    ui.listen(line, "pointerout focusout", () => ui.tip(null));
  }
}
