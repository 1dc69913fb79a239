// Search: the answer contains every map, so picking words needs no further request.
import { $, element, request, showProblem } from "/basics.js";
import { Legend, mapOf, paintMap, view } from "/view.js";

const state = {
  poll: null, // asks how far the folder is
  parameters: new URLSearchParams(), // q and rank of the address
  followed: null, // the parameters that the page shows, as text
  asked: null, // {query, rank} of the hits on the page
  picked: [], // the cards to compare, at most two
  submission: 0, // counts searches and comparisons: only the last one may change the page
  view: null, // of the comparison
};

function describeFolder(photos) {
  if (photos === null) return "No folder was given. Start the app with: secondsight serve --photos FOLDER";
  if (photos.trouble) return `after ${photos.done} of ${photos.all} photographs the work ${photos.trouble}`;
  if (photos.done < photos.all) return `${photos.done} of ${photos.all} photographs are ready`;
  const skipped = photos.skipped.length;
  return `${photos.all - skipped} photographs${skipped ? `; ${skipped} could not be read` : ""}`;
}

export async function showFolder(parameters = state.parameters) {
  state.parameters = parameters;
  const { photos } = await request("/api/about");
  $("folder-notice").hidden = !photos?.notice;
  $("folder-notice").textContent = photos?.notice ?? "";
  $("query-form").hidden = photos === null || photos.done === 0;
  $("folder").textContent = describeFolder(photos);
  clearTimeout(state.poll);
  const unfinished = photos !== null && photos.done < photos.all && !photos.trouble;
  if (unfinished && !$("search").hidden) state.poll = setTimeout(() => showFolder(), 1000);
  if (!$("query-form").hidden) followAddress();
}

// What the address asks is in the form and answered: after a reload, a step back, or for who was sent it.
function followAddress() {
  if (state.followed === String(state.parameters)) return;
  state.followed = String(state.parameters);
  $("query").value = state.parameters.get("q") ?? "";
  const ranks = [...document.querySelectorAll("input[name=rank]")];
  (ranks.find((input) => input.value === state.parameters.get("rank")) ?? ranks[0]).checked = true;
  $("query-problem").hidden = true;
  if ($("query").value.trim()) search();
  else clearHits();
}

function ask() {
  const query = $("query").value;
  if (!query.trim()) {
    if (location.hash !== "#/search") history.pushState(null, "", "#/search");
    state.parameters = new URLSearchParams();
    state.followed = "";
    clearHits();
    showProblem($("query-problem"), new Error("type what to look for"));
    return;
  }
  const address = `#/search?${new URLSearchParams({ q: query, rank: rankedBy() })}`;
  if (location.hash === address) search();
  else location.hash = address;
}

function clearHits() {
  state.submission++;
  state.asked = null;
  closeComparison();
  showHits([]);
}

function rankedBy() {
  return document.querySelector("input[name=rank]:checked").value;
}

function signed(value, digits = 4) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
}

async function search() {
  const submission = ++state.submission;
  $("query-problem").hidden = true;
  $("search-button").disabled = true;
  try {
    const asked = { query: $("query").value, rank: rankedBy() };
    const answer = await request("/api/search", asked);
    if (submission !== state.submission) return;
    state.asked = asked;
    closeComparison();
    showHits(answer.hits);
  } catch (problem) {
    if (submission !== state.submission) return;
    clearHits();
    showProblem($("query-problem"), problem);
  } finally {
    $("search-button").disabled = false;
  }
}

function hitCard(hit) {
  const card = element("figure", { className: "hit lit" }), frame = element("div"), canvas = element("canvas");
  card.style.margin = "0";
  frame.addEventListener("click", () => explainPhoto(hit));
  frame.append(element("img", { src: `/api/photos/${hit.photo}`, alt: hit.name }), canvas);
  const name = element("p", { className: "name" }), score = element("strong", { className: "score", textContent: signed(hit.score) });
  name.append(score, ` ${hit.name}`);
  const value = element("p", { className: "values picked" });
  const entry = { card, canvas, value, hit, pair: hit.view.cases[0], scale: hit.view.scales[0] };
  card.append(frame, name, ...closeness(hit), value, actions(entry));
  return entry;
}

// The score is the number that ranks; below it what it comes from, and whether the photograph is a hub.
function closeness({ similarity, usual }) {
  const lines = [];
  if (usual && state.asked.rank === "above-usual") {
    lines.push(element("p", { className: "values", textContent: `similarity ${signed(similarity)}, usually ${signed(usual.similarity)}` }));
  }
  if (usual?.hub) {
    const text = `close to most captions (rank ${usual.rank} of ${usual.entries})`;
    lines.push(element("p", { className: "hub", textContent: text }));
  }
  return lines;
}

function explainPhoto({ photo }) {
  document.dispatchEvent(new CustomEvent("explain-photo", { detail: { photo, caption: state.asked.query } }));
}

function actions(entry) {
  const row = element("p", { className: "actions" });
  const explain = element("button", { type: "button", className: "ss-button", textContent: "Explain" });
  explain.setAttribute("aria-label", `explain ${entry.hit.name}`);
  explain.addEventListener("click", () => explainPhoto(entry.hit));
  entry.pick = element("button", { type: "button", className: "ss-button", textContent: "Compare" });
  entry.pick.setAttribute("aria-label", `compare ${entry.hit.name}`);
  entry.pick.setAttribute("aria-pressed", "false");
  entry.pick.addEventListener("click", () => pickToCompare(entry));
  row.append(explain, entry.pick);
  return row;
}

// Comparing: the second card that is picked asks; a third takes the place of the first.

function pickToCompare(card) {
  const again = state.picked.includes(card);
  state.picked = again ? state.picked.filter((other) => other !== card) : [...state.picked.slice(-1), card];
  document.querySelectorAll(".hit .actions [aria-pressed]").forEach((button) => {
    button.setAttribute("aria-pressed", String(state.picked.some((other) => other.pick === button)));
  });
  if (state.picked.length === 2) compare();
  else hideComparison(state.picked.length ? "Choose a second photograph to compare with." : "");
}

async function compare() {
  const submission = ++state.submission;
  const [first, second] = state.picked.map((card) => card.hit.photo);
  hideComparison("Comparing …");
  try {
    const answer = await request("/api/search/compare", { ...state.asked, first, second });
    if (submission === state.submission) showComparison(answer);
  } catch (problem) {
    if (submission === state.submission) hideComparison(problem.message);
  }
}

function closeComparison() {
  state.picked = [];
  hideComparison("");
}

function hideComparison(text) {
  if (state.view) state.view.destroy();
  state.view = null;
  $("comparison").replaceChildren(element("p", { className: "soft", textContent: text }));
  $("comparison").hidden = !text;
}

function showComparison(answer) {
  hideComparison("");
  const box = $("comparison"), mount = element("div");
  const close = element("button", { type: "button", className: "ss-button", textContent: "Close the comparison" });
  close.addEventListener("click", () => {
    state.picked.forEach((card) => card.pick.setAttribute("aria-pressed", "false"));
    closeComparison();
  });
  const tables = element("div", { className: "leads" }), details = element("details", { className: "parts" });
  tables.append(partsTable("By word", answer.by_word, answer.lead));
  tables.append(...answer.names.map((name, i) => regionsTable(name, answer.by_region.filter((part) => part.entry === i))));
  const elsewhere = answer.by_region.filter((part) => part.entry === null).reduce((sum, part) => sum + part.value, 0);
  const rest = `The regions of both photographs, and ${signed(elsewhere)} that is in neither, are together ${signed(answer.lead)}.`;
  tables.append(element("p", { className: "soft rest", textContent: rest }));
  box.replaceChildren(element("h3", { textContent: "Why one leads the other" }), element("p", { id: "lead", textContent: `${withMinus(answer.sentence)}.` }), close, mount, details);
  details.append(element("summary", { textContent: "By word and by region" }), tables);
  box.hidden = false;
  state.view = view(mount, answer.view);
  mount.querySelectorAll(".ss-part").forEach((part, i) => part.lastElementChild.prepend(element("p", { className: "name", textContent: answer.names[i] })));
  box.scrollIntoView({ block: "start" });
}

function withMinus(sentence) {
  return sentence.replaceAll(/ -(?=\d\.\d{4}\b)/g, " −");
}

// What the ninths of a picture add to the lead; those of the one behind count negatively.
function regionsTable(name, parts) {
  const table = element("table", { className: "regions" });
  const sum = parts.reduce((total, part) => total + part.value, 0);
  table.createCaption().textContent = `By region of ${name}: ${signed(sum)}`;
  for (let first = 0; first < 9; first += 3) {
    const row = table.insertRow();
    for (const part of parts.slice(first, first + 3)) {
      const cell = row.insertCell();
      cell.textContent = signed(part.value);
      cell.title = part.name;
    }
  }
  return table;
}

function partsTable(title, parts, sum) {
  const table = element("table", { className: "fields" });
  table.createCaption().textContent = title;
  const add = (name, value) => {
    const row = table.insertRow(), head = element("th", { scope: "row", textContent: name });
    row.append(head);
    row.insertCell().textContent = signed(value);
  };
  parts.filter((part) => Math.abs(part.value) >= 5e-5).forEach((part) => add(part.name, part.value));
  add("together", sum);
  table.rows[table.rows.length - 1].className = "sum";
  return table;
}

function buildLegend(scale) {
  $("hits-legend").replaceChildren();
  $("hits").classList.remove("plain");
  const listen = (node, name, f) => node.addEventListener(name, f);
  const legend = new Legend($("hits-legend"), { look: { scale }, listen });
  legend.addSwitch(["show colours", "back to the maps"], (plain) => $("hits").classList.toggle("plain", plain));
  return legend;
}

function drawHits(cards, words, picked, legend) {
  const maps = cards.map((card) => mapOf(card.pair, picked));
  const selection = picked.size ? [...picked].sort((a, b) => a - b).map((j) => words[j].text).join(" ") : "all words";
  // One limit for all, so that colours can be compared between photographs.
  const limit = Math.max(...maps.map((map) => map.limit)) || 1;
  legend.show(limit);
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
  $("hits").textContent = $("query-words").textContent = $("hits-legend").textContent = "";
  if (!hits.length) return;
  const words = hits[0].view.cases[0].right.words, picked = new Set(), cards = hits.map(hitCard);
  const legend = buildLegend(cards[0].scale);
  $("hits").append(...cards.map((card) => card.card));
  const toggle = (j) => {
    if (!picked.delete(j)) picked.add(j);
    drawHits(cards, words, picked, legend);
    return picked.has(j);
  };
  $("query-words").append(...words.map((word, j) => wordButton(word, () => toggle(j))));
  drawHits(cards, words, picked, legend);
}

document.querySelectorAll("input[name=rank]").forEach((input) =>
  input.addEventListener("change", () => {
    if (state.asked) ask();
  }),
);
$("query-form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
