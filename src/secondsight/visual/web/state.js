// The numbers behind the view: what is selected on either side decides scores, totals and sentences. Nothing here knows
// the page, so that it can be tested without a browser.

export const minus = (text) => text.replace("-", "−");
export const signed = (value, digits = 4) =>
  (value <= -0.5 / 10 ** digits ? "−" : "+") + Math.abs(value).toFixed(digits);
export const tiny = (value) =>
  value === 0 ? "0" : Math.abs(value) >= 0.001 ? value.toFixed(4) : minus(value.toExponential(1));
export const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
export const sum = (values) => values.reduce((a, b) => a + b, 0);
export const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
export const hasPicture = (side) => side.kind === "image" || (side.kind === "joined" && side.parts.some(hasPicture));

/** Width over height of a side's single picture; NaN where it has none. */
export const pictureRatio = (side) => (side.kind === "image" ? side.size[0] / side.size[1] : NaN);

const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

/** Whether a text runs from right to left: its first letter decides, as in HTML's dir="auto"; null without letters. */
export function runsLeft(text) {
  const letter = /\p{L}/u.exec(text || "");
  return letter && RIGHT_TO_LEFT.test(letter[0]);
}

/** A sentence with its quotes isolated where letters run from right to left, for drawings, which know no elements. */
export const isolateQuotes = (text) =>
  RIGHT_TO_LEFT.test(text) ? text.replace(/“([^”]*)”/g, "“\u2068$1\u2069”") : text;

/** Little-endian float32 in base64, as Python writes them. */
export function floats(packed) {
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const values = new DataView(bytes.buffer);
  return Float64Array.from({ length: bytes.length / 4 }, (_, i) => values.getFloat32(4 * i, true));
}

/** A case of the page's data with its numbers unpacked. */
export function readCase(data) {
  return {
    ...data,
    matrix: floats(data.matrix),
    alone: data.alone.map(floats),
    carried: data.carried.map(floats),
    groups: [data.left.groups, data.right.groups],
  };
}

/** The score of every group of a side (0: left, 1: right): sums over the other side's weights, null for everything. */
export function scores({ matrix, groups: [rows, columns] }, side, weights) {
  const out = new Float64Array(side ? columns : rows);
  for (let i = 0; i < rows; i++) {
    const rowWeight = side && weights ? weights[i] : 1;
    if (!rowWeight) continue;
    for (let j = 0; j < columns; j++) {
      const value = matrix[i * columns + j];
      if (side) out[j] += rowWeight * value;
      else out[i] += (weights ? weights[j] : 1) * value;
    }
  }
  return out;
}

/** The sum of values under weights, of all of them where weights are null. */
export const total = (values, weights) =>
  weights ? values.reduce((result, value, i) => result + value * weights[i], 0) : sum(values);

/** A case's map over the left side for a set of picked words (none: all), for callers that show many maps at once. */
export function mapOf(data, picked) {
  const columns = data.right.groups;
  const weights = picked.size ? Float64Array.from({ length: columns }, (_, j) => (picked.has(j) ? 1 : 0)) : null;
  const values = scores({ matrix: floats(data.matrix), groups: [data.left.groups, columns] }, 0, weights);
  return { values, sum: sum(values), limit: largest(values) };
}

/** The numbers for a selection: the interaction of the pair, and each side's own effect. */
export function totals(shown, weights) {
  return {
    value: total(scores(shown, 0, weights[1]), weights[0]),
    alone: shown.alone.map((values, i) => total(values, weights[i])),
  };
}

/** The similarity that is predicted without what is picked on either side; null where nothing is, and by maps alone. */
export function predictWithout(shown, weights) {
  if (shown.order === 1 || (!weights[0] && !weights[1])) return null;
  const lost = weights.map((side, i) => (side ? total(shown.carried[i], side) : 0));
  // What two picked parts share is lost once.
  const shared = weights[0] && weights[1] ? totals(shown, weights).value : 0;
  return shown.similarity - lost[0] - lost[1] + shared;
}

/** The weights of all groups of several inputs on one side; null where nothing is picked on any of them. */
export function joinWeights(parts) {
  if (parts.every((part) => part.weights === null)) return null;
  const each = parts.map(({ weights, groups }) => (weights ? [...weights] : Array(groups).fill(0)));
  return Float64Array.from(each.flat());
}

/** Words for a title: of many the first and the last. */
export const brief = (words) => (
  words.length < 13 ? words.join(" ") : `${words.slice(0, 5).join(" ")} … ${words.slice(-4).join(" ")}`
);

/** Indices of the words from one to another that can be picked. */
export const wordRange = (open, a, b) => open.filter((i) => i >= Math.min(a, b) && i <= Math.max(a, b));

/** The picked words after a click on one of them: alone, or in addition to those that are picked. */
export function pickWord(picked, index, adding) {
  if (!adding) return new Set(picked.size === 1 && picked.has(index) ? [] : [index]);
  const result = new Set(picked);
  if (!result.delete(index)) result.add(index);
  return result;
}

/** From nothing to the similarity: bars that begin where the one above ended, as shares of the whole width. */
export function waterfall({ terms, hidden, alone }) {
  // The effects of positions that have no place on a side: start and end marks, a token for the whole picture.
  const unseen = [0, ...alone.map((values, side) => terms[1 + side][1] - sum(values)), hidden];
  const ends = [0];
  terms.forEach(([, value]) => ends.push(ends[ends.length - 1] + value));
  // What is shown of a term may reach further than the term.
  const reached = [...ends, ...terms.map((_, i) => ends[i + 1] - unseen[i])];
  const low = Math.min(...reached);
  const width = Math.max(...reached) - low || 1;
  const bar = (name, value, from, to, detail = false) => ({
    name,
    value,
    detail,
    start: (Math.min(from, to) - low) / width,
    length: Math.abs(to - from) / width,
    falls: to < from,
  });
  const bars = terms.flatMap(([name, value], i) => {
    const whole = bar(name, value, ends[i], ends[i + 1]);
    const rest = unseen[i];
    if (Math.abs(rest) < 5e-5) return [whole];
    const middle = ends[i + 1] - rest;
    return [
      whole,
      bar(i < 3 ? "of it shown" : "of it shown on the two sides", value - rest, ends[i], middle, true),
      bar("of it in special positions", rest, middle, ends[i + 1], true),
    ];
  });
  return { bars, zero: -low / width };
}

/** The similarity as the sum of its terms, in words for a drawing. */
export function equation({ called, similarity, terms, error }) {
  const parts = terms.map(
    ([name, value], i) => `${value < 0 ? "−" : i ? "+" : ""} ${Math.abs(value).toFixed(4)} ${name}`,
  );
  const right = parts.join(" ").trim();
  return `${called} ${minus(similarity.toFixed(4))} = ${right}, error ${minus(error.toExponential(1))}`;
}
