// What is seen, as one drawing of its own; words stay text in the SVG.

import { escaped, make } from "./dom.js";
import { equation } from "./state.js";

const WIDTH = 720;
const MARGIN = 20;

/** Text in lines that fit the width, as SVG from `y` on; also where the last line stands. */
function drawLines(text, y) {
  const context = make("canvas").getContext("2d");
  context.font = "14px system-ui, sans-serif";
  const lines = [""];
  for (const word of text.split(" ")) {
    const last = lines[lines.length - 1];
    if (context.measureText(`${last} ${word}`).width > WIDTH - 2 * MARGIN) lines.push(word);
    else lines[lines.length - 1] = last ? `${last} ${word}` : word;
  }
  const place = (i) => y + 19 * i;
  const svg = lines.map((line, i) => drawText(line, place(i), 14, "#111")).join("");
  return { svg, y: place(lines.length - 1) };
}

function drawText(text, y, size, colour) {
  return `<text x="${MARGIN}" y="${y}" font-size="${size}" fill="${colour}">${escaped(text)}</text>`;
}

/** The filter that makes photographs grey, so that their own colours are no values. */
function fadeFilter() {
  const channel = (name) => `<feFunc${name} type="linear" slope="0.86" intercept="0.13"/>`;
  const lighter = `<feComponentTransfer>${["R", "G", "B"].map(channel).join("")}</feComponentTransfer>`;
  const grey = '<feColorMatrix type="saturate" values="0"/>';
  return `<filter id="ss-fade" color-interpolation-filters="sRGB">${grey}${lighter}</filter>`;
}

/** The status line, both panels and the sum of the terms as an SVG: {svg, width, height}. */
function drawView(status, panels, shown) {
  const lines = drawLines(status, MARGIN + 12);
  const out = [lines.svg];
  let y = lines.y + 12;
  for (const panel of panels) {
    const { svg, height } = panel.draw(MARGIN, y, WIDTH - 2 * MARGIN);
    out.push(svg);
    y += height + 4;
  }
  out.push(drawText(equation(shown), y + 18, 12, "#555"));
  const height = Math.ceil(y + 34);
  const size = `width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}"`;
  const root = `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="system-ui, sans-serif">`;
  const paper = '<rect width="100%" height="100%" fill="#fff"/>';
  return { svg: `${root}<defs>${fadeFilter()}</defs>${paper}${out.join("")}</svg>`, height };
}

/** The view as a file of kind "svg" or "png". */
export async function drawingFile(kind, status, panels, shown) {
  const { svg, height } = drawView(status, panels, shown);
  const blob = new Blob([svg], { type: "image/svg+xml" });
  if (kind === "svg") return blob;
  const image = new Image();
  const source = URL.createObjectURL(blob);
  image.src = source;
  await image.decode();
  const canvas = make("canvas");
  // Browsers paint no higher canvas.
  const scale = Math.min(2, 16000 / height);
  Object.assign(canvas, { width: scale * WIDTH, height: scale * height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(source);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
