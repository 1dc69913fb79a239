// What the colours of a panel mean, at the panel: a ramp with its ends, and which colour raises and which lowers.

import { css, tint } from "./colours.js";
import { escaped, make, makeButton } from "./dom.js";
import { tiny } from "./state.js";

export class Legend {
  constructor(parent, ui) {
    this.ui = ui;
    this.line = make("div", parent, "ss-scale");
    this.lowers = make("span", this.line);
    this.ramp = make("canvas", this.line, "ss-ramp");
    this.raises = make("span", this.line);
    this.note = make("p", parent, "ss-hint ss-note");
    Object.assign(this.ramp, { width: 128, height: 1 });
    this.ramp.setAttribute("aria-hidden", "true");
  }

  /** The ramp and its ends, in the chosen palette. */
  show(limit) {
    const { scale } = this.ui.look;
    const [positive, negative] = scale.name.split(" and ");
    const bar = this.ramp.getContext("2d");
    bar.clearRect(0, 0, 128, 1);
    for (let x = 0; x < 128; x++) {
      bar.fillStyle = css(tint(scale, x / 63.5 - 1, 1));
      bar.fillRect(x, 0, 1, 1);
    }
    this.lowers.textContent = `${negative} lowers −${tiny(limit)}`;
    this.raises.textContent = `+${tiny(limit)} ${positive} raises`;
  }

  /** The same in a drawing, as SVG 9 pixels high. */
  draw(x, y) {
    const context = make("canvas").getContext("2d");
    context.font = "11px system-ui, sans-serif";
    const [low, high] = [this.lowers.textContent, this.raises.textContent];
    const start = x + context.measureText(low).width + 8;
    const text = `y="${y + 9}" font-size="11" fill="#555"`;
    const ramp = `x="${start}" y="${y}" width="140" height="9" preserveAspectRatio="none"`;
    return (
      `<text x="${x}" ${text}>${escaped(low)}</text><image href="${this.ramp.toDataURL()}" ${ramp}/>` +
      `<text x="${start + 148}" ${text}>${escaped(high)}</text>`
    );
  }

  hide() { this.line.hidden = this.note.hidden = true; }

  /** A button in the note that switches something on and off; `change` gets whether it is on. */
  addSwitch([off, on], change) {
    const button = makeButton(this.note, off);
    button.setAttribute("aria-pressed", "false");
    this.ui.listen(button, "click", () => {
      const pressed = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", pressed);
      button.textContent = pressed ? on : off;
      change(pressed);
    });
    return button;
  }
}
