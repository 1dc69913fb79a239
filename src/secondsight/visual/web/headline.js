// What a reader reads first, in plain words: what matches best, where, and its worth. Nothing here knows the page.

import { hasPicture, minus, scores, signed, sum, total } from "./state.js";

const ROWS = ["top", "", "bottom"];
const COLUMNS = ["left", "", "right"];
const third = (share) => Math.min(2, Math.floor(3 * share));

/** The ninth of a picture in which a cell's middle lies; of a sound the third of its time. */
function ninthOf({ grid, frame, size, seconds }, cell, which) {
  const [row, column] = [Math.floor(cell / grid[1]), cell % grid[1]];
  const across = third((frame[0] + ((column + 0.5) * (frame[2] - frame[0])) / grid[1]) / size[0]);
  if (seconds !== undefined) return `in the ${["first", "second", "last"][across]} third of the ${which}sound`;
  const down = third((frame[1] + ((row + 0.5) * (frame[3] - frame[1])) / grid[0]) / size[1]);
  return `in the ${[ROWS[down], COLUMNS[across]].filter(Boolean).join(" ") || "middle"} of the ${which}picture`;
}

/** What has a name on a side, as {name, where, groups}: its words, and the ninths of its pictures. */
function places(side, which, first = 0) {
  if (side.kind === "joined") {
    let start = first;
    return side.parts.flatMap((part) => {
      const named = places(part, which, start);
      start += part.groups;
      const other = part.sign > 0 ? "" : ` (of the ${part.kind === "text" ? "second text" : "second picture"})`;
      return named.map((place) => ({ ...place, name: place.name + other, where: place.where + other }));
    });
  }
  if (side.kind === "text") {
    const name = (word) => `“${word.text}”`;
    return side.words.map((word, i) => ({ name: name(word), where: `through ${name(word)}`, groups: [first + i] }));
  }
  const ninths = new Map();
  for (let cell = 0; cell < side.groups; cell++) {
    const where = ninthOf(side, cell, which);
    if (!ninths.has(where)) ninths.set(where, { name: where.replace("in the", "the"), where, groups: [] });
    ninths.get(where).groups.push(first + cell);
  }
  return [...ninths.values()];
}

/** The word, or the ninth with the cell, that goes furthest in the direction of `sign`; null where none does. */
function strongest(shown, side, values, sign) {
  const sides = [shown.left, shown.right];
  const which = sides.every(hasPicture) ? ["left ", "right "][side] : "";
  let [best, most] = [null, 0];
  for (const place of places(sides[side], which)) {
    const value = Math.max(...place.groups.map((i) => sign * values[i]));
    if (value > most) [best, most] = [place, value];
  }
  return best;
}

const weightsOf = (groups, count) => Float64Array.from({ length: count }, (_, i) => (groups.includes(i) ? 1 : 0));
const mostOf = (place) => (place ? `, most of all ${place.where}` : "");
/** What is smaller is written as 0.0000 and has no direction. */
const isNothing = (value) => Math.abs(value) < 5e-5;
const capital = (text) => text[0].toUpperCase() + text.slice(1);

/** Whether a picture and a text have less than the base, which is there without the content of either. */
export function isUnmatched({ left, right, called, similarity, terms, order }) {
  const pictured = left.kind === "image" && left.seconds === undefined && right.kind === "text";
  // Maps of first order have no base.
  return order !== 1 && pictured && called === "similarity" && similarity < terms[0][1];
}

/** Which of two sides of a margin fits better, by their names (files) or by their texts where these are short. */
function verdictOn({ left, right, similarity }) {
  const fits = `fits ${similarity < 0 ? "worse" : "better"} than`;
  const names = (left.parts || []).map((part) => part.name);
  if (names.length === 2 && left.parts[0].sign > 0 && names.every(Boolean)) return `${names[0]} ${fits} ${names[1]}. `;
  const texts = (right.parts || []).map((part) => part.text || "");
  const short = texts.length === 2 && right.parts[0].sign > 0 && texts.every((text) => text && text.length <= 40);
  const [first, second] = short ? texts.map((text) => `“${text}”`) : ["the first", "the second"];
  return `${capital(first)} ${fits} ${second}. `;
}

/** What stands out, as one sentence; `names` say what is picked on either side, `weights` are null where nothing is. */
export function titleLine(shown, reading, weights, names) {
  const sides = [shown.left, shown.right];
  const number = `the ${shown.called}`;
  if (reading === "alone") return "What each side does by itself, whatever stands on the other side.";
  if (!weights[0] && !weights[1]) {
    // Where the view begins with the answer, the title need not repeat it.
    const verdict = shown.called === "margin" && !shown.answered ? verdictOn(shown) : "";
    const best = strongest(shown, 1, scores(shown, 1, null), 1);
    const nothing = shown.called === "margin" ? "No word raises" : "Nothing matches: all of it lowers";
    if (!best) return `${verdict}${nothing} ${number}.`;
    const where = strongest(shown, 0, scores(shown, 0, weightsOf(best.groups, shown.groups[1])), 1);
    if (isUnmatched(shown)) return `The model sees no match here; closest is ${best.name}${mostOf(where)}.`;
    const does = shown.called === "similarity" ? "matches best" : `raises ${number} most`;
    return `${verdict}${capital(best.name)} ${does}${mostOf(where)}.`;
  }
  const value = total(scores(shown, 0, weights[1]), weights[0]);
  const does = `${isNothing(value) ? "neither raises nor lowers" : value < 0 ? "lowers" : "raises"} ${number}`;
  if (weights[0] && weights[1]) {
    const pictured = sides.map(hasPicture);
    const words = pictured[0] && !pictured[1] ? [names[1], names[0]] : names;
    return `${capital(words.join(pictured[0] === pictured[1] ? " with " : " in "))} ${does}.`;
  }
  const picked = weights[0] ? 0 : 1;
  if (isNothing(value)) return `${capital(names[picked])} ${does}.`;
  const where = strongest(shown, 1 - picked, scores(shown, 1 - picked, weights[picked]), value < 0 ? -1 : 1);
  return `${capital(names[picked])} ${does}${mostOf(where)}.`;
}

/** The effect of a side by itself as its line of the table has it, positions without a place included. */
export const aloneTerm = (shown, side) => shown.terms[1 + side][1];

function aloneParts(shown, weights, names) {
  return names.flatMap((name, side) => {
    const whole = aloneTerm(shown, side);
    const seen = total(shown.alone[side], weights[side]);
    const parts = [[`${side ? "; " : ""}${name} alone: `, false], [signed(weights[side] ? seen : whole), true]];
    if (weights[side]) parts.push([` of ${signed(whole)}`, false]);
    else if (!isNothing(whole - seen)) {
      parts.push([`, ${signed(whole - seen)} of it in special positions`, false]);
    }
    return parts;
  });
}

const kindOf = (side) => (hasPicture(side) ? (side.seconds === undefined ? "picture" : "sound") : "text");

/** What all parts together come to, as words that follow its number. */
function wholeLine(shown, whole) {
  const [left, right] = [shown.left, shown.right].map(kindOf);
  const caption = (kind) => (kind === "text" ? "caption" : kind);
  const pair = left === right ? `the two ${left}s` : `the ${caption(left)} and the ${caption(right)}`;
  const common = whole < 0 ? `by which ${pair} disagree` : `that ${pair} have in common`;
  const special = isNothing(shown.hidden) ? "" : ", special positions aside";
  return (shown.called === "similarity" ? common : `by which both sides change the ${shown.called}`) + special;
}

/** How what is larger than its whole fits into it. */
const balance = (value, others) => `${others} ${value < 0 ? "make up for some of it" : "take some of it away"}`;

/** What is picked on one side as a part of the whole, which it may exceed. */
function shareParts(shown, side, name, now, whole) {
  const opposed = !isNothing(now) && now < 0 !== whole < 0;
  const exceeds = !opposed && Math.abs(now) > Math.abs(whole) + 5e-5;
  const others = kindOf([shown.left, shown.right][side]) === "text" ? "other words" : "other places";
  return [
    [`${capital(name)} counts `, false], [signed(now), true],
    [opposed ? ", against the " : " of the ", false], [signed(whole), true],
    [` ${wholeLine(shown, whole)}${exceeds ? `; ${balance(now, others)}` : ""}.`, false],
  ];
}

/** What the title is worth, as [text, is it a number]; `all` say what everything is on either side. */
export function detailLine(shown, reading, weights, names, all) {
  const whole = minus(shown.similarity.toFixed(4));
  if (reading === "alone") {
    const parts = aloneParts(shown, weights, names.map((name, i) => (weights[i] ? name : all[i])));
    return [...parts, [`, of a ${shown.called} of ${whole}.`, false]];
  }
  if (!weights[0] && !weights[1]) {
    const without = sum(shown.terms.slice(0, 3).map(([, value]) => value));
    const lead = shown.called === "similarity" ? "The model gives them a similarity of " : `The ${shown.called} is `;
    if (shown.order === 1) return [[lead, false], [whole, true], [", to which this map does not add up.", false]];
    return [
      [lead, false], [whole, true],
      ["; without what they have in common it would be ", false], [minus(without.toFixed(4)), true], [".", false],
    ];
  }
  const value = (left, right) => total(scores(shown, 0, right), left);
  const now = value(...weights);
  const last = [` The ${shown.called} is ${whole}.`, false];
  if (!weights[0] || !weights[1]) {
    const side = weights[0] ? 0 : 1;
    return [...shareParts(shown, side, names[side], now, value(null, null)), last];
  }
  const wider = [value(weights[0], null), value(null, weights[1])];
  const compared = `${names[0]} with ${all[1]}: ${signed(wider[0])}; ${names[1]} with ${all[0]}: ${signed(wider[1])}.`;
  const exceeds = wider.some((sum) => (now < 0 ? sum > now : sum < now));
  return [
    ["Together they count ", false], [signed(now), true],
    [`. For comparison, ${compared}${exceeds ? ` There ${balance(now, "other parts")}.` : ""}`, false],
    last,
  ];
}
