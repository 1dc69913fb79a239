// The passages of a long text: the strongest are listed with coloured words, and the first is marked in the text.

import { make, makeButton } from "./dom.js";
import { signed, sum, wordRange } from "./state.js";

const LISTED = 5;

export class Passages {
  /** Beside a text panel, which picks a passage that is chosen from the list. */
  constructor(panel, parent) {
    const { side, open } = panel;
    const ends = [...side.passages.slice(1), side.words.length];
    const words = side.passages.map((first, i) => wordRange(open, first, ends[i] - 1));
    Object.assign(this, { panel, words });
    make("p", parent, "ss-hint ss-note", "The strongest sentences; click to pick one:");
    const list = make("ol", parent, "ss-listed");
    this.buttons = words.filter((part) => part.length).slice(0, LISTED).map((_, place) => {
      const button = makeButton(make("li", list), "");
      panel.ui.listen(button, "click", () => {
        panel.set(words[this.order[place]]);
        panel.reveal(words[this.order[place]][0]);
        panel.changed();
      });
      return button;
    });
  }

  /** The words of the passage that a word is in. */
  around(index) { return this.words.find((part) => part.includes(index)); }

  /** List what goes furthest in the direction of the whole, as colours stand in the text. */
  show(values) {
    const worths = this.words.map((part) => sum(part.map((i) => values[i])));
    const sign = sum(worths) < 0 ? -1 : 1;
    const read = [...worths.keys()].filter((i) => this.words[i].length);
    this.order = read.sort((a, b) => sign * (worths[b] - worths[a]));
    this.buttons.forEach((button, place) => {
      button.textContent = "";
      make("b", button, "", signed(worths[this.order[place]])).after(" ");
      for (const node of this.panel.passages[this.order[place]].childNodes) {
        const copy = make("span", button, "", node.textContent);
        if (node.style) copy.style.cssText = node.style.cssText;
      }
    });
    const strongest = this.order[0];
    this.panel.passages.forEach((passage, i) => passage.classList.toggle("ss-best", i === strongest));
    return this.words[strongest];
  }
}
