// Which of several texts the model prefers, with all similarities. Nothing here knows the page.

import { isUnmatched } from "./headline.js";
import { minus } from "./state.js";

/** The cases between which the model decides, the best first, as {name, similarity, unmatched}. */
export function ranking({ cases, alternatives }) {
  const ranked = (alternatives || []).map((i) => cases[i]);
  return ranked.sort((a, b) => b.similarity - a.similarity).map((shown) => (
    { name: shown.name, similarity: shown.similarity, unmatched: isUnmatched(shown) }
  ));
}

/** So many digits that the best two differ; null where four do not tell them apart. */
function digitsFor([best, next]) {
  const digits = [2, 3, 4].find((n) => best.similarity.toFixed(n) !== next.similarity.toFixed(n));
  return digits === undefined ? null : digits;
}

/** Numbers of a ranking as they are written. */
export function rankNumbers(ranked) {
  const digits = digitsFor(ranked) || 4;
  return ranked.map(({ similarity }) => minus(similarity.toFixed(digits).replace(/^-(?=[0.]+$)/, "")));
}

/** The answer as one sentence. */
export function answerLine(ranked) {
  const numbers = rankNumbers(ranked);
  const [best, next] = ranked.map(({ name }, i) => `“${name}” (${numbers[i]})`);
  const two = ranked.length === 2;
  if (ranked[0].unmatched) {
    const closer = two ? `${best} is closer than ${next}` : `${best} is closest`;
    return `The model sees no match with ${two ? "either" : "any of these"}; ${closer}.`;
  }
  if (digitsFor(ranked) === null) return `The model does not prefer either: ${best}, ${next}.`;
  return two ? `The model prefers ${best} to ${next}.` : `Of ${ranked.length} texts the model prefers ${best}.`;
}
