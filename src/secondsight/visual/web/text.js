// The panel of a text: coloured words that the reader picks by pointer or by keys.

import { css, ink, tint } from "./colours.js";
import { escaped, make, paperOf } from "./dom.js";
import { Legend } from "./legend.js";
import { clamp, largest, pickWord, runsLeft, signed, wordRange } from "./state.js";

const TOO_LONG = "cut off: the caption is longer than the model's context";
const STEPS = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };

export class TextPanel {
  all = "all words";

  constructor(side, parent, ui) {
    Object.assign(this, { side, ui, picked: new Set(), anchor: null, drag: null, values: null, limit: 1 });
    this.changed = () => {};
    this.line = make("p", parent, "ss-text");
    this.line.setAttribute("role", "group");
    this.line.setAttribute("aria-label", "Words. Arrow keys move, Enter picks, with Shift several.");
    // Words of other scripts stand in the order in which they are read.
    this.line.dir = "auto";
    this.backwards = Boolean(runsLeft(side.text));
    this.buildWords();
    this.legend = new Legend(parent, ui);
    const wider = "A word’s colour sums over the whole map, so its scale is wider than the map’s.";
    this.legend.note.textContent = `Click or drag over words to see where they matched. ${ui.mapped ? wider : ""}`;
    this.open = side.words.map((_, i) => i).filter((i) => !side.words[i].cut);
    if (this.open.length) this.words[this.open[0]].tabIndex = 0;
    this.listenToPointer();
    this.listenToKeys();
    this.listenToHovering();
  }

  buildWords() {
    const { side, line } = this;
    let place = 0;
    this.words = side.words.map((word, index) => {
      if (side.text !== null) line.append(side.text.slice(place, word.start));
      else if (index) line.append(" ");
      place = word.end;
      const runs = runsLeft(word.text);
      // A button counts as no letter, so marks around it say how its word runs.
      const holder = runs === null ? line : make("span", line, runs ? "ss-runs-left" : "ss-runs-right");
      const button = make("button", holder, "ss-word" + (word.cut && !word.shared ? " ss-cut" : ""), word.text);
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
  describe() { return `“${this.indices().map((i) => this.side.words[i].text).join(" ")}”`; }

  set(indices) {
    this.picked = new Set(indices || []);
    this.mark();
  }

  colour(values, limit) {
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
  }

  colourOf(i) { return tint(this.ui.look.scale, clamp(this.values[i] / this.limit, -1, 1), 0.8); }

  draw(x, y, width, sign) {
    const context = make("canvas").getContext("2d");
    const out = [];
    context.font = "20px system-ui, sans-serif";
    let [left, top] = [x, y + 8];
    if (sign) {
      out.push(`<text x="${x}" y="${top + 21}" font-size="20" fill="#555">${sign > 0 ? "+" : "−"}</text>`);
      left += 22;
    }
    this.side.words.forEach((word, i) => {
      const wide = context.measureText(word.text).width + 10;
      if (left + wide > x + width && left > x) [left, top] = [x, top + 38];
      out.push(this.drawWord(i, this.backwards ? 2 * x + width - left - wide : left, top, wide));
      left += wide + 8;
    });
    if (this.legend.line.hidden) return { svg: out.join(""), height: top + 38 - y };
    return { svg: out.join("") + this.legend.draw(x, top + 40), height: top + 60 - y };
  }

  drawWord(i, left, top, width) {
    const { text, cut } = this.side.words[i];
    const [r, g, b, a] = cut ? [0, 0, 0, 0] : this.colourOf(i);
    const frame = this.picked.has(i) ? ' stroke="#b58900" stroke-width="2.5"' : "";
    const onWhite = (channel) => 255 + a * (channel - 255);
    const lightness = 0.3 * onWhite(r) + 0.6 * onWhite(g) + 0.1 * onWhite(b);
    const fill = `fill="rgb(${r},${g},${b})" fill-opacity="${a.toFixed(3)}"`;
    const letters = `font-size="20" fill="${lightness < 125 ? "#fff" : "#111"}" textLength="${width - 10}"`;
    return (
      `<rect x="${left}" y="${top}" width="${width}" height="30" rx="6" ${fill}${frame}/>` +
      `<text x="${left + 5}" y="${top + 21}" ${letters} lengthAdjust="spacingAndGlyphs">${escaped(text)}</text>`
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
