// The two tables: every pair of words of two texts, and the terms that add up to the similarity.

import { css, ink, tint } from "./colours.js";
import { make, makeButton, paperOf } from "./dom.js";
import { clamp, largest, minus, signed, waterfall } from "./state.js";

const SHOWN = 24;

/** The words of a side that a table shows: of a long text those with the largest values, in reading order. */
function tableWords({ matrix, groups: [rows, columns] }, side) {
  const indices = [...Array(side ? columns : rows).keys()];
  if (indices.length < 2 * SHOWN) return indices;
  const most = new Float64Array(indices.length);
  matrix.forEach((value, k) => {
    const i = side ? k % columns : Math.floor(k / columns);
    most[i] = Math.max(most[i], Math.abs(value));
  });
  // Words that were cut off have no values.
  const strongest = indices.sort((a, b) => most[b] - most[a]).slice(0, SHOWN).filter((i) => most[i]);
  return strongest.sort((a, b) => a - b);
}

/** Two texts as a table: a row a left word, a column a right one; a click picks the pair. */
export class WordTable {
  constructor(shown, parent, ui, pick) {
    const holder = make("div", parent, "ss-matrix");
    Object.assign(this, { shown, ui, table: make("table", holder), limit: largest(shown.matrix) });
    holder.tabIndex = 0;
    holder.setAttribute("role", "region");
    const [rows, columns] = [0, 1].map((side) => tableWords(shown, side));
    const cut = [rows, columns].map((words, side) => {
      const all = shown.groups[side];
      const text = side ? "second" : "first";
      return words.length < all && `the ${words.length} strongest of ${all} words of the ${text} text`;
    }).filter(Boolean);
    const pairs = cut.length ? `pairs of words: ${cut.join(", ")}` : "every pair of words";
    make("caption", this.table, "", `Interaction of ${pairs}`);
    const head = make("tr", make("thead", this.table));
    const body = make("tbody", this.table);
    make("td", head);
    columns.forEach((j) => { make("th", head, "", shown.right.words[j].text).scope = "col"; });
    this.cells = rows.flatMap((i) => {
      const row = make("tr", body);
      make("th", row, "", shown.left.words[i].text).scope = "row";
      return columns.map((j) => [i, j, this.buildCell(row, i, j, pick)]);
    });
  }

  value(i, j) { return this.shown.matrix[i * this.shown.groups[1] + j]; }

  buildCell(row, i, j, pick) {
    const [left, right] = [this.shown.left.words[i], this.shown.right.words[j]];
    const value = this.value(i, j);
    const short = Math.abs(value).toFixed(3);
    const cell = make("td", row, "", (value < 0 && Number(short) ? "−" : "") + short.replace(/^0/, ""));
    cell.title = `${left.text} × ${right.text}: ${signed(value, 5)}`;
    if (!left.cut && !right.cut) this.ui.listen(cell, "click", () => pick(i, j));
    return cell;
  }

  /** Colour the cells; those of a picked pair are framed. */
  colour([rows, columns]) {
    const paper = paperOf(this.table);
    this.cells.forEach(([i, j, cell]) => {
      const colour = tint(this.ui.look.scale, clamp(this.value(i, j) / this.limit, -1, 1), 0.85);
      cell.style.background = css(colour);
      cell.style.color = ink(paper, colour);
      cell.classList.toggle("ss-on", Boolean(rows && columns && rows[i] && columns[j]));
    });
  }
}

/** A button at a term's name that opens, in a row below, what the term is; `open` remembers which are. */
function explainTerm(head, row, name, shown, open) {
  const key = row.rowIndex;
  const button = makeButton(head, "?");
  button.classList.add("ss-what");
  button.setAttribute("aria-label", `What is “${name}”?`);
  const text = make("td", row, "", shown.meanings[name]);
  text.colSpan = 3;
  const follow = () => {
    row.hidden = !open.has(key);
    button.setAttribute("aria-expanded", open.has(key));
  };
  button.addEventListener("click", () => {
    if (!open.delete(key)) open.add(key);
    follow();
  });
  follow();
}

/** From nothing to the similarity: every bar begins where the one above ended. */
export function showTerms(card, shown, scale, open) {
  card.textContent = "";
  const table = make("table", card);
  make("caption", table, "", `How the ${shown.called} comes about`);
  const { bars, zero } = waterfall(shown);
  const row = (name, value, className) => {
    const line = make("tr", table, className);
    const head = make("th", line, "", `${name} `);
    head.scope = "row";
    make("td", line, "ss-num", value);
    const cell = make("td", line, "ss-bar");
    if (shown.meanings[name]) explainTerm(head, make("tr", table, "ss-meaning"), name, shown, open);
    return cell;
  };
  for (const { name, value, detail, start, length, falls } of bars) {
    const cell = row(name, signed(value), detail ? "ss-part-of" : "");
    const background = css(tint(scale, falls ? -1 : 1, 0.85));
    Object.assign(make("i", cell).style, { left: `${100 * start}%`, width: `${100 * length}%`, background });
    make("s", cell).style.left = `${100 * zero}%`;
  }
  make("small", row(shown.called, signed(shown.similarity), "ss-total"), "", "the sum of the lines above");
  make("small", row("error", minus(shown.error.toExponential(1)), ""), "", "what the sum misses");
}
