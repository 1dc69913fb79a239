// Colours of values, and maps as pixels. Nothing here knows the page.

import { clamp } from "./state.js";

export const css = ([r, g, b, a]) => `rgba(${Math.round(r)},${Math.round(g)},${Math.round(b)},${a.toFixed(3)})`;

/** Colour and opacity of a share in −1 … 1: hue by sign, opacity by size. */
export function tint(scale, share, strongest) {
  return [...(share < 0 ? scale.negative : scale.positive), strongest * Math.abs(share) ** 0.85];
}

/** Black or white, whichever reads better on the colour as it lies on the paper. */
export function ink(paper, colour) {
  const mixed = [0, 1, 2].map((i) => (1 - colour[3]) * paper[i] + colour[3] * colour[i]);
  const linear = mixed.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  const light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return (light + 0.05) / 0.05 > 1.05 / (light + 0.05) ? "#000" : "#fff";
}

/** The size in which a map of an image is painted: the picture's proportions, no more pixels than a screen shows. */
export function mapSize([width, height]) {
  const shrink = Math.min(1, 448 / width, 2048 / height);
  return [Math.max(1, Math.round(width * shrink)), Math.max(1, Math.round(height * shrink))];
}

/** Between which cells every pixel of an axis lies, and how far from the first; −1 outside the cells. */
function neighbours(pixels, length, start, cell, cells, smooth) {
  const first = new Int32Array(pixels);
  const second = new Int32Array(pixels);
  const share = new Float64Array(pixels);
  for (let i = 0; i < pixels; i++) {
    const place = (((i + 0.5) * length) / pixels - start) / cell;
    const before = smooth ? Math.floor(place - 0.5) : Math.min(cells - 1, Math.floor(place));
    const outside = place < 0 || place > cells;
    first[i] = outside ? -1 : clamp(before, 0, cells - 1);
    second[i] = smooth ? clamp(before + 1, 0, cells - 1) : first[i];
    share[i] = smooth ? place - 0.5 - before : 0;
  }
  return { first, second, share };
}

function colourTable(scale, strength) {
  const table = new Uint8ClampedArray(4 * 513);
  for (let i = 0; i < 513; i++) {
    const [r, g, b, opacity] = tint(scale, i / 256 - 1, strength);
    table.set([r, g, b, 255 * opacity], 4 * i);
  }
  return table;
}

/** RGBA of a map in a picture's proportions; bilinear between the cells' centres, as `Interactions.heatmap` does. */
export function mapPixels(side, values, limit, { scale, strength, smooth }) {
  const [rows, columns] = side.grid;
  const [x0, y0, x1, y1] = side.frame;
  const [width, height] = mapSize(side.size);
  const across = neighbours(width, side.size[0], x0, (x1 - x0) / columns, columns, smooth);
  const down = neighbours(height, side.size[1], y0, (y1 - y0) / rows, rows, smooth);
  const table = colourTable(scale, strength);
  const out = new Uint8ClampedArray(4 * width * height);
  for (let y = 0; y < height; y++) {
    if (down.first[y] < 0) continue;
    const upper = down.first[y] * columns;
    const lower = down.second[y] * columns;
    const t = down.share[y];
    for (let x = 0; x < width; x++) {
      const left = across.first[x];
      if (left < 0) continue;
      const right = across.second[x];
      const s = across.share[x];
      const above = (1 - s) * values[upper + left] + s * values[upper + right];
      const below = (1 - s) * values[lower + left] + s * values[lower + right];
      const value = (1 - t) * above + t * below;
      const from = 4 * Math.round(256 * clamp(value / limit, -1, 1) + 256);
      const to = 4 * (y * width + x);
      for (let channel = 0; channel < 4; channel++) out[to + channel] = table[from + channel];
    }
  }
  return out;
}
