// Search: the answer contains every map, so picking words needs no further request.
import { $, element, request, showProblem } from "/basics.js";
import { mapOf, paintMap } from "/view.js";

let poll = null; // asks how far the folder is

function describeFolder(photos) {
  if (photos === null) return "No folder was given. Start the app with: secondsight serve --photos FOLDER";
  if (photos.trouble) return `after ${photos.done} of ${photos.all} photographs the work ${photos.trouble}`;
  if (photos.done < photos.all) return `${photos.done} of ${photos.all} photographs are ready`;
  const skipped = photos.skipped.length;
  return `${photos.all - skipped} photographs${skipped ? `; ${skipped} could not be read` : ""}`;
}

export async function showFolder() {
  const { photos } = await request("/api/about");
  $("query-form").hidden = photos === null || photos.done === 0;
  $("folder").textContent = describeFolder(photos);
  clearTimeout(poll);
  const unfinished = photos !== null && photos.done < photos.all && !photos.trouble;
  if (unfinished && !$("search").hidden) poll = setTimeout(showFolder, 1000);
}

async function search() {
  $("query-problem").hidden = true;
  $("search-button").disabled = true;
  try {
    if (!$("query").value.trim()) throw new Error("type what to look for");
    showHits((await request("/api/search", { query: $("query").value })).hits);
  } catch (problem) {
    showProblem($("query-problem"), problem);
  } finally {
    $("search-button").disabled = false;
  }
}

function hitCard(hit) {
  const card = element("figure", { className: "hit lit" }), frame = element("div"), canvas = element("canvas");
  card.style.margin = "0";
  frame.append(element("img", { src: `/api/photos/${hit.photo}`, alt: hit.name }), canvas);
  const name = element("p", { textContent: `${hit.similarity.toFixed(3)} ${hit.name}` });
  const value = element("p", { className: "values" });
  card.append(frame, name, value);
  return { card, canvas, value, pair: hit.view.cases[0], scale: hit.view.scales[0] };
}

function drawHits(cards, words, picked) {
  const maps = cards.map((card) => mapOf(card.pair, picked));
  const selection = picked.size ? [...picked].sort((a, b) => a - b).map((j) => words[j].text).join(" ") : "all words";
  // One limit for all, so that colours can be compared between photographs.
  const limit = Math.max(...maps.map((map) => map.limit)) || 1;
  cards.forEach((card, i) => {
    const look = { scale: card.scale, strength: 0.82, smooth: true };
    paintMap(card.canvas, card.pair.left, maps[i].values, limit, look);
    card.value.textContent = `${selection}: ${maps[i].sum < 0 ? "−" : "+"}${Math.abs(maps[i].sum).toFixed(4)}`;
  });
}

function wordButton(word, toggle) {
  const button = element("button", { type: "button", textContent: word.text, disabled: word.cut });
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => button.setAttribute("aria-pressed", String(toggle())));
  return button;
}

function showHits(hits) {
  $("hits").textContent = $("query-words").textContent = "";
  if (!hits.length) return;
  const words = hits[0].view.cases[0].right.words, picked = new Set(), cards = hits.map(hitCard);
  $("hits").append(...cards.map((card) => card.card));
  const toggle = (j) => {
    if (!picked.delete(j)) picked.add(j);
    drawHits(cards, words, picked);
    return picked.has(j);
  };
  $("query-words").append(...words.map((word, j) => wordButton(word, () => toggle(j))));
  drawHits(cards, words, picked);
}

$("query-form").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
