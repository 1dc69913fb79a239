// What is left without what is picked: as the explanation predicts it and, where somebody can encode, as measured.

import { make, makeButton, writeSentence } from "./dom.js";
import { minus, predictWithout, signed } from "./state.js";

export class Without {
  /** `measure(state)`, if there is one, takes the picked parts out and promises the similarity that is left. */
  constructor(parent, view, measure) {
    Object.assign(this, { view, measure, picks: 0 });
    this.line = make("p", parent, "ss-without");
    this.line.setAttribute("role", "status");
  }

  show(weights, names) {
    const { view, line } = this;
    const predicted = predictWithout(view.shown, weights);
    this.picks++;
    this.strike(false);
    line.textContent = "";
    line.hidden = predicted === null;
    if (predicted === null) return;
    const { called, similarity } = view.shown;
    const picked = names.filter((_, i) => weights[i]).join(" and ");
    const number = (value) => `${minus(value.toFixed(4))} (${signed(value - similarity)})`;
    writeSentence(line, `Without ${picked} the ${called} would be `);
    make("b", line, "", number(predicted));
    line.append(" by this explanation.");
    if (!this.measure || called !== "similarity") return;
    const button = makeButton(line, "take it out and measure");
    view.listen(button, "click", () => this.check(button, number));
  }

  async check(button, number) {
    const { picks, view, line } = this;
    button.disabled = true;
    this.strike(true);
    let answer;
    try {
      answer = number(await this.measure(view.state()));
    } catch (problem) {
      answer = problem.message;
    }
    // Something else may have been picked meanwhile.
    if (picks !== this.picks) return;
    button.remove();
    line.append(" Measured: ");
    make("b", line, "", answer);
  }

  strike(out) { this.view.stage.classList.toggle("ss-out", out); }
}
