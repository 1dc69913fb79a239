// The view of one or several explanations: a file, a notebook cell and the app all show this component.
//
// Either side is a panel that shows a number per group (grid cell or word) and reports which groups the reader picks.
// With nothing picked it shows sums over everything on the other side; what is picked on one side decides what the
// other shows, and with both picked the status line has the number of that pair.

import { answerLine, rankNumbers, ranking } from "./answer.js";
import { make, makeButton, nameSymbols, typesElsewhere, writeSentence } from "./dom.js";
import { drawingFile } from "./drawing.js";
import { detailLine, titleLine } from "./headline.js";
import { makePanel } from "./joined.js";
import { clamp, hasPicture, isolateQuotes, pictureRatio, readCase, scores, totals } from "./state.js";
import { WordTable, showTerms } from "./tables.js";
import { buildToolbar } from "./toolbar.js";
import { Without } from "./without.js";

class View {
  constructor(root, data, { onChange, measure }) {
    Object.assign(this, { root, data, onChange, measure, cases: data.cases.map(readCase), index: data.shown || 0 });
    this.reading = "interactions";
    this.explained = new Set();
    this.listeners = new AbortController();
    this.ui = {
      data,
      look: { scale: data.scales[0], strength: 0.82, smooth: true },
      listen: (node, names, f) => this.listen(node, names, f),
      tip: (text, x, y) => this.tip(text, x, y),
      // Sentences change while a box is drawn; the picture must not move under the pointer.
      hold: (held) => { this.status.style.height = held ? `${this.status.offsetHeight}px` : ""; },
      // Smoothing and strength of the map mean nothing where no map is to be seen.
      switched: () => {
        const plain = !this.stage.querySelector(".ss-photo:not(.ss-plain)");
        this.controls.mapInputs.forEach((input) => { input.disabled = plain && this.ui.mapped; });
      },
      speak: (text) => { this.spoken.textContent = text; },
    };
    this.cases.forEach(({ left, right }) => [left, right].forEach(nameSymbols));
    this.ranked = ranking(data);
    this.cases.forEach((shown) => { shown.answered = this.ranked.length > 0; });
    this.build();
    if (this.ranked.length) this.showAnswer();
    this.controls = buildToolbar(this.tools, this);
    // On the document: a reader who has clicked beside the view, or nowhere yet, presses Escape as well.
    this.listen(document, "keydown", (event) => {
      if (event.key !== "Escape" || typesElsewhere(event, root)) return;
      this.tip(null);
      this.clear();
    });
    this.open(this.index, this.cases[this.index].start);
  }

  build() {
    const { root } = this;
    root.classList.add("ss");
    root.textContent = "";
    this.answer = make("div", root, "ss-answer");
    this.answer.hidden = true;
    this.warning = make("p", root, "ss-warning");
    this.status = make("p", root, "ss-status");
    this.tools = make("div", root, "ss-tools");
    this.stage = make("div", root, "ss-stage");
    this.without = new Without(root, this, this.measure);
    this.status.setAttribute("role", "status");
    this.spoken = make("span", root, "ss-spoken");
    this.spoken.setAttribute("aria-live", "polite");
    this.tooltip = make("div", root, "ss-tip");
    this.tooltip.hidden = true;
    this.card = make("section", root, "ss-sum");
    this.card.setAttribute("aria-label", "The four terms");
    this.more = make("div", root, "ss-more");
    this.foot = make("p", root, "ss-foot");
  }

  /** Which text the model prefers; of more than two all of them, with bars. */
  showAnswer() {
    const { answer, ranked } = this;
    Object.assign(answer, { hidden: false, dir: "ltr" });
    writeSentence(make("p", answer, "ss-title"), answerLine(ranked));
    if (ranked.length === 2) return;
    const low = Math.min(0, ranked[ranked.length - 1].similarity);
    const width = Math.max(0, ranked[0].similarity) - low || 1;
    const table = make("table", answer, "ss-ranks");
    const numbers = rankNumbers(ranked);
    ranked.forEach(({ name, similarity }, i) => {
      const row = make("tr", table);
      Object.assign(make("th", row, "", name), { scope: "row", dir: "auto" });
      make("td", row, "", numbers[i]);
      Object.assign(make("i", make("td", row, "ss-rank")).style, {
        marginLeft: `${(100 * (Math.min(0, similarity) - low)) / width}%`,
        width: `${(100 * Math.abs(similarity)) / width}%`,
      });
    });
  }

  /** Listen until the view ends or, where it belongs to a case, until another is opened. */
  listen(node, names, f) {
    const { signal } = this.caseListeners || this.listeners;
    names.split(" ").forEach((name) => node.addEventListener(name, f, { signal }));
  }

  /** A small box beside the pointer or the focused thing. */
  tip(text, x, y) {
    this.tooltip.hidden = text === null;
    if (text === null) return;
    this.tooltip.textContent = text;
    const { left, top, width } = this.root.getBoundingClientRect();
    this.tooltip.style.left = `${clamp(x - left + 12, 0, width - this.tooltip.offsetWidth)}px`;
    this.tooltip.style.top = `${y - top + 16}px`;
  }

  open(index, start) {
    this.index = index;
    this.shown = this.cases[index];
    if (this.caseListeners) this.caseListeners.abort();
    this.caseListeners = new AbortController();
    this.stage.textContent = "";
    const { left, right } = this.shown;
    this.ui.words = [left, right].some((side) => !hasPicture(side));
    this.ui.mapped = hasPicture(left) || hasPicture(right);
    this.panels = [left, right].map((side) => makePanel(side, make("div", this.stage), this.ui));
    this.panels.forEach((panel) => { panel.changed = () => this.refresh(); });
    const long = left.passages && right.passages;
    this.stage.classList.toggle("ss-texts", !hasPicture(left) && !hasPicture(right) && !long);
    this.stage.classList.toggle("ss-even", Boolean((hasPicture(left) && hasPicture(right)) || long));
    this.stage.classList.toggle("ss-wide", pictureRatio(left) > 2.5 && !hasPicture(right));
    this.stage.classList.toggle("ss-tall", pictureRatio(left) < 0.6 && !hasPicture(right));
    const texts = left.kind === "text" && right.kind === "text";
    this.table = texts ? new WordTable(this.shown, this.stage, this.ui, (i, j) => this.pickPair(i, j)) : null;
    this.panels.forEach((panel, i) => panel.set(start ? start[i] : null));
    this.showTerms();
    this.ui.switched();
    this.warning.textContent = this.shown.warning || "";
    this.warning.hidden = !this.shown.warning;
    // Escaped where it was written, in Python.
    this.more.innerHTML = this.shown.details || "";
    this.foot.textContent = this.shown.note;
    // Without this the first picture would wait for a click.
    this.refresh();
  }

  /** Another case; what was picked on the left stays where it has the same left side, words differ. */
  chooseCase(index) {
    const same = JSON.stringify(this.cases[index].left) === JSON.stringify(this.shown.left);
    this.open(index, [same ? this.panels[0].get() : null, null]);
  }

  read(reading) {
    this.reading = reading;
    this.refresh();
  }

  pickPair(i, j) {
    this.panels[0].set([i]);
    this.panels[1].set([j]);
    this.refresh();
  }

  clear() {
    this.panels.forEach((panel) => panel.set(null));
    this.refresh();
  }

  weights() { return this.panels.map((panel) => panel.weights()); }

  state() {
    const [left, right] = this.panels.map((panel) => panel.get());
    return { case: this.index, reading: this.reading, left, right, ...totals(this.shown, this.weights()) };
  }

  refresh() {
    const weights = this.weights();
    const state = this.state();
    this.panels.forEach((panel, side) => {
      const alone = this.reading === "alone";
      panel.colour(alone ? this.shown.alone[side] : scores(this.shown, side, weights[1 - side]));
    });
    if (this.table) this.table.colour(weights);
    this.showStatus(weights);
    if (this.onChange) this.onChange(state);
  }

  showStatus(weights) {
    const picked = weights.map(Boolean);
    const all = this.panels.map((panel) => panel.all);
    const names = this.panels.map((panel, i) => (picked[i] ? panel.describe() : panel.all));
    this.without.show(weights, names);
    this.status.textContent = "";
    const title = make("strong", this.status, "ss-title");
    title.dir = this.status.dir = "ltr";
    writeSentence(title, titleLine(this.shown, this.reading, weights, names));
    this.status.append(" ");
    for (const [text, strong] of detailLine(this.shown, this.reading, weights, names, all)) {
      if (strong) make("b", this.status, "", text);
      else writeSentence(this.status, text);
    }
    this.status.append(" ");
    if (!picked.some(Boolean)) return;
    const button = makeButton(this.status, "clear");
    make("span", button, "ss-key", " (Esc)");
    this.listen(button, "click", () => {
      this.clear();
      (this.stage.querySelector("[tabindex='0']") || this.root).focus();
    });
  }

  showTerms() { showTerms(this.card, this.shown, this.ui.look.scale, this.explained); }

  picture(kind) {
    const sentence = [...this.status.childNodes].filter((node) => node.tagName !== "BUTTON");
    const answer = this.ranked.length ? `${answerLine(this.ranked)} ` : "";
    const status = answer + sentence.map((node) => node.textContent).join("").trim();
    return drawingFile(kind, isolateQuotes(status), this.panels, this.shown);
  }

  set({ case: index, reading, left, right }) {
    const { caseInputs, readingInputs } = this.controls;
    if (reading) {
      this.reading = reading;
      readingInputs[reading === "alone" ? 1 : 0].checked = true;
    }
    if (index !== undefined && caseInputs.length) caseInputs[index].checked = true;
    if (index !== undefined && index !== this.index) {
      this.open(index, [left || null, right || null]);
      return;
    }
    [left, right].forEach((selection, i) => { if (selection !== undefined) this.panels[i].set(selection); });
    this.refresh();
  }

  destroy() {
    this.listeners.abort();
    this.caseListeners.abort();
    this.root.textContent = "";
    this.root.classList.remove("ss");
  }
}

/**
 * Show `data` (see secondsight.visual.page) in `root`. `options.onChange(state)` hears every change;
 * `options.measure(state)` promises the similarity without what is picked. The result has `state()`,
 * `set({case, reading, left, right})`, `picture("svg" | "png")` and `destroy()`.
 */
export function view(root, data, options = {}) {
  return new View(root, data, options);
}

/** The same in a notebook, as anywidget asks for it: what is picked goes to Python and comes from it. */
export default {
  render({ model, el }) {
    // What Python asks for is done first and not told back to it; afterwards every pick is.
    let following = true;
    const tell = (state) => {
      following = true;
      model.set("state", state);
      model.save_changes();
      following = false;
    };
    const shown = view(el, model.get("data"), { onChange: (state) => { if (!following) tell(state); } });
    const follow = (selection) => {
      following = true;
      if (selection && Object.keys(selection).length) shown.set(selection);
      tell(shown.state());
    };
    follow(model.get("state"));
    model.on("change:state", () => { if (!following) follow(model.get("state")); });
    return () => shown.destroy();
  },
};
