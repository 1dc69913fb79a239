// The panel of a picture or a sound's spectrogram: a map over it, and a box that the reader drags or moves by keys.

import {
  boxBetween, boxName, boxWeights, cellAt, cellBox, draggedBox, gripAt, gripCursor, grownBox, insidePicture, isTiny,
  movedBox, cellSize, unseenBoxes,
} from "./boxes.js";
import { make, paintMap } from "./dom.js";
import { Legend } from "./legend.js";
import { clamp, largest, signed } from "./state.js";

const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class ImagePanel {
  constructor(side, parent, ui) {
    Object.assign(this, { side, ui, box: null, cursor: null, drag: null, waiting: false, plain: false });
    this.source = ui.data.pictures[side.source];
    this.all = side.seconds === undefined ? "the whole image" : "the whole sound";
    this.values = new Float64Array(side.groups);
    this.changed = () => {};
    const holder = make("div", parent, "ss-picture");
    this.buildPhoto(make("div", holder, "ss-photo"));
    this.buildLegend(holder);
    this.listen();
    this.cell.hidden = true;
    this.showBox();
  }

  buildPhoto(photo) {
    const { side } = this;
    const image = make("img", photo);
    Object.assign(image, { src: this.source, alt: "", draggable: false });
    this.photo = photo;
    this.canvas = make("canvas", photo);
    this.cell = make("div", photo, "ss-cell");
    this.frame = make("div", photo, "ss-box");
    photo.style.setProperty("--ratio", side.size[0] / side.size[1]);
    photo.tabIndex = 0;
    photo.setAttribute("role", "application");
    const subject = side.seconds === undefined ? "picture" : "sound";
    const keys = `Arrow keys move over the ${subject}, with Shift they size the box`;
    photo.setAttribute("aria-label", `${side.alt}. ${keys}, Enter sets one, Escape removes it.`);
    unseenBoxes(side).forEach((box) => this.place(make("div", photo, "ss-unseen"), box));
  }

  buildLegend(holder) {
    const { side, ui } = this;
    this.legend = new Legend(holder, ui);
    const { note } = this.legend;
    note.append("Drag a box to see which words it matched. ".replace("words", ui.words ? "words" : "parts"));
    if (side.seconds === undefined) {
      note.append("The photograph is grey so that its own colours are not taken for values. ");
      this.legend.addSwitch(["show its colours", "back to the map"], (plain) => {
        this.plain = plain;
        this.photo.classList.toggle("ss-plain", plain);
        ui.switched();
      });
    }
    if (unseenBoxes(side).length) note.append(" The veiled margins are cropped away: the model does not see them.");
    const [width, height] = side.size;
    if (width > 12 * height || height > 12 * width) {
      note.append(` Drawn stretched, to be seen at all: it is ${width} × ${height} pixels.`);
    }
  }

  /** Put a node of the photo where a box of the picture is. */
  place(node, [x0, y0, x1, y1]) {
    const [width, height] = this.side.size;
    Object.assign(node.style, {
      left: `${(100 * x0) / width}%`,
      top: `${(100 * y0) / height}%`,
      width: `${(100 * (x1 - x0)) / width}%`,
      height: `${(100 * (y1 - y0)) / height}%`,
    });
  }

  showBox() {
    this.frame.hidden = !this.box;
    if (this.box) this.place(this.frame, this.box);
  }

  hideCell() {
    this.cell.hidden = true;
    this.ui.tip(null);
  }

  // What every panel can do

  weights() { return this.box && boxWeights(this.side, this.box); }
  get() { return this.box && this.box.slice(); }
  describe() { return boxName(this.side, this.box); }

  set(box) {
    this.box = box ? box.slice() : null;
    this.showBox();
  }

  colour(values, limit) {
    const { look } = this.ui;
    this.values = values;
    const end = limit || largest(values);
    paintMap(this.canvas, this.side, values, end, look);
    this.photo.classList.toggle("ss-lit", look.strength > 0.02);
    this.legend.show(end);
  }

  draw(x, y, width, sign) {
    const scale = width / this.side.size[0];
    const height = (width * this.side.size[1]) / this.side.size[0];
    const area = `x="${x}" y="${y}" width="${width}" height="${height}" preserveAspectRatio="none"`;
    const fade = this.ui.look.strength > 0.02 && !this.plain ? ' filter="url(#ss-fade)"' : "";
    const out = [`<image href="${this.source}" ${area}${fade}/>`];
    if (!this.plain) out.push(`<image href="${this.canvas.toDataURL()}" ${area}/>`);
    if (this.box) {
      const [x0, y0, x1, y1] = this.box.map((v) => v * scale);
      const size = `x="${x + x0}" y="${y + y0}" width="${x1 - x0}" height="${y1 - y0}"`;
      out.push(`<rect ${size} fill="none" stroke="#ffd400" stroke-width="2.5"/>`);
    }
    if (sign) {
      const style = 'font-size="22" font-weight="bold" fill="#fff" stroke="#000" stroke-width="3" paint-order="stroke"';
      out.push(`<text x="${x + 8}" y="${y + 24}" ${style}>${sign > 0 ? "+" : "−"}</text>`);
    }
    out.push(this.legend.draw(x, y + height + 8));
    return { svg: out.join(""), height: height + 28 };
  }

  // Pointer: edges and corners size the box, its inside moves it, anywhere else begins a new one ------------------

  listen() {
    const { photo, ui } = this;
    ui.listen(photo, "pointerdown", (event) => this.pointerDown(event));
    ui.listen(photo, "pointermove", (event) => this.pointerMove(event));
    ui.listen(photo, "pointerup", () => this.pointerUp());
    ui.listen(photo, "pointercancel", () => this.pointerCancel());
    ui.listen(photo, "pointerleave", () => this.hideCell());
    ui.listen(photo, "keydown", (event) => this.keyDown(event));
    ui.listen(photo, "blur", () => {
      this.hideCell();
      ui.speak("");
    });
  }

  /** The event's place in pixels of the picture, and how many of them are one of the screen: the most, if stretched. */
  pointOf(event) {
    const [width, height] = this.side.size;
    const { left, top, width: wide, height: tall } = this.photo.getBoundingClientRect();
    const x = clamp(((event.clientX - left) / wide) * width, 0, width);
    const y = clamp(((event.clientY - top) / tall) * height, 0, height);
    return { point: [x, y], pixel: Math.max(width / wide, height / tall) };
  }

  pointerDown(event) {
    if (event.button) return;
    this.photo.setPointerCapture(event.pointerId);
    this.ui.hold(true);
    const { point, pixel } = this.pointOf(event);
    const grip = gripAt(this.box, point, pixel, event.pointerType === "touch" ? 18 : 9);
    this.drag = { grip, from: point, start: this.get(), moved: false };
  }

  pointerMove(event) {
    const { point, pixel } = this.pointOf(event);
    if (!this.drag) {
      this.photo.style.cursor = gripCursor(gripAt(this.box, point, pixel, 9));
      this.hover(event, point);
      return;
    }
    const { grip, from, start } = this.drag;
    const [dx, dy] = [point[0] - from[0], point[1] - from[1]];
    if (!this.drag.moved && Math.abs(dx) + Math.abs(dy) < 4 * pixel) return;
    this.drag.moved = true;
    if (!grip) this.box = boxBetween(from, point);
    else if (!grip.across && !grip.down) this.box = movedBox(this.side.size, start, dx, dy);
    else this.box = draggedBox(this.side.size, start, grip, dx, dy);
    this.hideCell();
    this.showBox();
    this.reportSoon();
  }

  /** Colours follow the box while it moves, once a frame. */
  reportSoon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.changed();
    });
  }

  pointerUp() {
    if (!this.drag) return;
    this.ui.hold(false);
    const { moved, grip } = this.drag;
    this.drag = null;
    // A click beside the box removes it, a click inside leaves it.
    if (!moved && !grip) this.box = null;
    if (this.box && isTiny(this.side.size, this.box)) this.box = null;
    this.showBox();
    this.changed();
  }

  pointerCancel() {
    if (!this.drag) return;
    this.ui.hold(false);
    this.box = this.drag.start;
    this.drag = null;
    this.showBox();
    this.changed();
  }

  hover(event, [x, y]) {
    const cell = cellAt(this.side, x, y);
    if (!cell) return this.hideCell();
    this.place(this.cell, cellBox(this.side, cell));
    this.cell.hidden = false;
    this.ui.tip(this.cellText(cell), event.clientX, event.clientY);
  }

  cellText([column, row]) {
    return `row ${row + 1}, column ${column + 1}: ${signed(this.values[row * this.side.grid[1] + column], 5)}`;
  }

  // Keys: a cell cursor without a box; Enter makes the cell a box, arrows then move it, Shift sizes it ------------

  keyDown(event) {
    const step = KEYS[event.key];
    if (!step && !["Enter", " ", "Delete", "Backspace"].includes(event.key)) return;
    event.preventDefault();
    if (!step) this.toggleBox(event.key === "Enter" || event.key === " ");
    else if (this.box) this.stepBox(step, event.shiftKey);
    else this.stepCursor(step);
  }

  middle() {
    const [rows, columns] = this.side.grid;
    return [columns >> 1, rows >> 1];
  }

  toggleBox(set) {
    if (set && !this.box) {
      this.cursor = this.cursor || this.middle();
      this.box = insidePicture(this.side.size, cellBox(this.side, this.cursor));
      this.hideCell();
    } else this.box = null;
    this.showBox();
    this.changed();
  }

  stepBox(step, sizes) {
    const [width, height] = cellSize(this.side);
    this.box = sizes
      ? grownBox(this.side, this.box, step)
      : movedBox(this.side.size, this.box, step[0] * width, step[1] * height);
    this.showBox();
    this.changed();
  }

  stepCursor([dx, dy]) {
    const [rows, columns] = this.side.grid;
    this.cursor = this.cursor
      ? [clamp(this.cursor[0] + dx, 0, columns - 1), clamp(this.cursor[1] + dy, 0, rows - 1)]
      : this.middle();
    this.place(this.cell, insidePicture(this.side.size, cellBox(this.side, this.cursor)));
    this.cell.hidden = false;
    const { right, bottom } = this.cell.getBoundingClientRect();
    const text = this.cellText(this.cursor);
    this.ui.tip(text, right, bottom);
    this.ui.speak(text);
  }
}
