// Boxes on a picture, x0, y0, x1, y1 in its own pixels. Nothing here knows the page.

import { clamp } from "./state.js";

/** Width and height of a cell. */
export function cellSize({ grid: [rows, columns], frame: [x0, y0, x1, y1] }) {
  return [(x1 - x0) / columns, (y1 - y0) / rows];
}

/** The box of the cell in a column and row, which may reach beyond the picture. */
export function cellBox(side, [column, row]) {
  const [width, height] = cellSize(side);
  const [x0, y0] = side.frame;
  return [x0 + column * width, y0 + row * height, x0 + (column + 1) * width, y0 + (row + 1) * height];
}

/** [column, row] of the cell at a point, null where there is none. */
export function cellAt(side, x, y) {
  const [width, height] = cellSize(side);
  const column = Math.floor((x - side.frame[0]) / width);
  const row = Math.floor((y - side.frame[1]) / height);
  return column < 0 || row < 0 || column >= side.grid[1] || row >= side.grid[0] ? null : [column, row];
}

/** A box cut to the picture. */
export const insidePicture = ([width, height], box) => box.map((v, i) => clamp(v, 0, i % 2 ? height : width));

/** Cells by the share of their area that lies in the box: the same rule as `Interactions.box`. */
export function boxWeights(side, box) {
  const [rows, columns] = side.grid;
  const [width, height] = cellSize(side);
  const out = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const [x0, y0] = cellBox(side, [column, row]);
      const across = Math.max(0, Math.min(box[2], x0 + width) - Math.max(box[0], x0));
      const down = Math.max(0, Math.min(box[3], y0 + height) - Math.max(box[1], y0));
      out[row * columns + column] = (across * down) / (width * height);
    }
  }
  return out;
}

/** The parts of a picture that the model does not see, because they are cropped away. */
export function unseenBoxes({ size: [width, height], frame: [x0, y0, x1, y1] }) {
  const around = [[0, 0, x0, height], [x1, 0, width, height], [x0, 0, x1, y0], [x0, y1, x1, height]];
  return around
    .map((box) => insidePicture([width, height], box))
    .filter(([left, top, right, bottom]) => right - left >= 1 && bottom - top >= 1);
}

export const boxBetween = ([ax, ay], [bx, by]) => [
  Math.min(ax, bx),
  Math.min(ay, by),
  Math.max(ax, bx),
  Math.max(ay, by),
];

export function movedBox([width, height], box, dx, dy) {
  const x = clamp(dx, -box[0], width - box[2]);
  const y = clamp(dy, -box[1], height - box[3]);
  return [box[0] + x, box[1] + y, box[2] + x, box[3] + y];
}

/** A box with one edge or corner dragged: `across` and `down` say which (−1: left or upper, 1: right or lower). */
export function draggedBox([width, height], box, { across, down }, dx, dy) {
  const out = box.slice();
  const column = across < 0 ? 0 : 2;
  const row = down < 0 ? 1 : 3;
  if (across) out[column] = clamp(out[column] + dx, 0, width);
  if (down) out[row] = clamp(out[row] + dy, 0, height);
  return boxBetween([out[0], out[1]], [out[2], out[3]]);
}

/** A box whose right lower corner moves by cells, never smaller than half a cell. */
export function grownBox(side, box, [dx, dy]) {
  const [width, height] = cellSize(side);
  return [
    box[0],
    box[1],
    clamp(box[2] + dx * width, box[0] + width / 2, side.size[0]),
    clamp(box[3] + dy * height, box[1] + height / 2, side.size[1]),
  ];
}

/** Whether a box is too small to have been meant. */
export const isTiny = ([width, height], box) => box[2] - box[0] < width / 200 || box[3] - box[1] < height / 200;

/** The edge, corner or inside of a box at a point, null beside it; `reach` is how near an edge must be. */
export function gripAt(box, [x, y], pixel, reach) {
  if (!box) return null;
  const [width, height] = [box[2] - box[0], box[3] - box[1]];
  const near = Math.min(reach * pixel, Math.max(4 * pixel, width / 3), Math.max(4 * pixel, height / 3));
  if (x < box[0] - near || x > box[2] + near || y < box[1] - near || y > box[3] + near) return null;
  const edge = (v, low, high) => (Math.abs(v - low) <= near ? -1 : Math.abs(v - high) <= near ? 1 : 0);
  return { across: edge(x, box[0], box[2]), down: edge(y, box[1], box[3]) };
}

/** The pointer's shape over a grip. */
export function gripCursor(grip) {
  if (!grip) return "crosshair";
  if (!grip.across && !grip.down) return "move";
  if (!grip.down) return "ew-resize";
  if (!grip.across) return "ns-resize";
  return grip.across === grip.down ? "nwse-resize" : "nesw-resize";
}

/** The name of a box, or of the stretch of a sound. */
export function boxName({ seconds, size: [width] }, box) {
  const [left, top, right, bottom] = box.map((v) => v.toFixed(0));
  if (!seconds) return `the box ${left}–${right} × ${top}–${bottom}`;
  return `the sound of ${((box[0] / width) * seconds).toFixed(2)}–${((box[2] / width) * seconds).toFixed(2)} s`;
}
