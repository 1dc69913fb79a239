// Several inputs on one side, each with its sign: groups are counted through, colours share one scale.

import { make } from "./dom.js";
import { ImagePanel } from "./image.js";
import { joinWeights, largest } from "./state.js";
import { TextPanel } from "./text.js";

export class JoinedPanel {
  constructor(side, parent, ui) {
    const holder = make("div", parent, "ss-joined");
    let first = 0;
    this.changed = () => {};
    this.parts = side.parts.map((input) => {
      const place = make("div", holder, `ss-part ss-part-${input.kind}`);
      const sign = make("span", place, "ss-sign", input.sign > 0 ? "+" : "−");
      sign.title = input.sign > 0 ? "adds to the margin" : "is subtracted";
      const panel = makePanel(input, make("div", place), ui);
      panel.changed = () => this.changed();
      first += input.groups;
      return { input, panel, sign: input.sign, start: first - input.groups, end: first };
    });
    // One legend is enough for texts, which share their scale.
    this.parts.slice(0, -1).forEach(({ panel, input }) => { if (input.kind === "text") panel.legend.hide(); });
    this.all = this.parts[0].panel.all;
  }

  picked() { return this.parts.filter(({ panel }) => panel.get() !== null); }
  get() { return this.picked().length ? this.parts.map(({ panel }) => panel.get()) : null; }
  set(selection) { this.parts.forEach(({ panel }, i) => panel.set(selection ? selection[i] : null)); }
  weights() {
    return joinWeights(this.parts.map(({ panel, input }) => ({ weights: panel.weights(), groups: input.groups })));
  }

  describe() {
    return this.picked().map(({ panel, sign }) => `${sign > 0 ? "+" : "−"}${panel.describe()}`).join(" and ");
  }

  colour(values) {
    const limit = largest(values);
    this.parts.forEach(({ panel, start, end }) => panel.colour(values.slice(start, end), limit));
  }

  /** Pictures beside one another, texts below. */
  draw(x, y, width) {
    const pictures = this.parts.filter(({ input }) => input.kind === "image").length;
    const share = (width - 12 * (pictures - 1)) / pictures;
    const out = [];
    let [tallest, left, below] = [0, x, 0];
    this.parts.forEach(({ panel, input, sign }) => {
      const image = input.kind === "image";
      const drawing = image ? panel.draw(left, y, share, sign) : panel.draw(x, y + tallest + below, width, sign);
      out.push(drawing.svg);
      if (image) {
        left += share + 12;
        tallest = Math.max(tallest, drawing.height);
      } else below += drawing.height;
    });
    return { svg: out.join(""), height: tallest + below };
  }
}

/** The panel for one side of a case. */
export function makePanel(side, parent, ui) {
  return new { image: ImagePanel, text: TextPanel, joined: JoinedPanel }[side.kind](side, parent, ui);
}
