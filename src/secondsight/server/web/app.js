// The app around the view: asks the server, shows progress, keeps every explanation under a link of its own.
import { view, heat } from "/view.js";

const $ = (id) => document.getElementById(id);
const state = { about: null, shown: null, asked: 0, images: { left: null, right: null }, taking: Promise.resolve() };

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try { answer = await fetch(path, options); } catch { throw new Error("the server does not answer: is it still running?"); }
  const found = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) throw new Error(found.error);
  return found;
}

function fail(node, problem) { node.hidden = false; node.textContent = problem.message; }

// Inputs

function kind() { return document.querySelector("input[name=kind]:checked").value; }
function arrange() {
  const now = kind();
  $("drop-left").hidden = now === "texts";
  $("drop-right").hidden = now !== "photos";
  $("text-field").hidden = now !== "texts";
  $("captions").hidden = $("more").hidden = now === "photos";
}
document.querySelectorAll("input[name=kind]").forEach((input) => input.addEventListener("change", arrange));

function addCaption(text = "") {
  const row = document.createElement("div"), number = $("captions").children.length + 1;
  row.className = "caption";
  const label = document.createElement("label"), input = document.createElement("input");
  label.append(number === 1 ? "Caption" : "Another caption", input);
  input.value = text;
  row.append(label);
  if (number > 1) {
    const button = document.createElement("button");
    button.type = "button"; button.className = "ss-button"; button.textContent = "×";
    button.setAttribute("aria-label", "remove this caption");
    button.addEventListener("click", () => { row.remove(); $("more").disabled = false; });
    row.append(button);
  }
  $("captions").append(row);
  $("more").disabled = state.about !== null && $("captions").children.length >= state.about.limits.captions;
  return input;
}
$("more").addEventListener("click", () => addCaption().focus());

function setImage(side, source, chosen) {
  state.images[side] = chosen;
  const place = $(`drop-${side}`), image = place.querySelector("img");
  image.hidden = !source;
  place.querySelector("span").hidden = Boolean(source);
  if (source) image.src = source;
}
// One after the other, so that the photo that was chosen last stays; a question waits for the one that is still being read.
function take(side, file) {
  if (file) state.taking = state.taking.then(() => read(side, file)).catch((problem) => fail($("problem"), problem));
}
async function read(side, file) {
  await state.ready;
  if (file.size * 4 / 3 > state.about.limits.body) throw new Error(`${file.name} is larger than this server takes (${Math.floor(state.about.limits.body * 3 / 4 / 2 ** 20)} MB): choose a smaller one`);
  $("problem").hidden = true;
  const packed = await new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error(`${file.name} cannot be read: choose it again`));
    reader.readAsDataURL(file);
  });
  setImage(side, packed, { image: packed.slice(packed.indexOf(",") + 1) });
}
for (const side of ["left", "right"]) {
  const place = $(`drop-${side}`), file = $(`file-${side}`);
  file.addEventListener("change", () => { take(side, file.files[0]); file.value = ""; });
  place.addEventListener("dragover", (event) => { event.preventDefault(); place.classList.add("over"); });
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => { event.preventDefault(); place.classList.remove("over"); take(side, event.dataTransfer.files[0]); });
}
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) { event.preventDefault(); take(kind() === "photos" && state.images.left ? "right" : "left", file); }
});

function question() {
  const now = kind(), captions = [...$("captions").querySelectorAll("input")].map((input) => input.value.trim()).filter(Boolean);
  const asked = { model: $("model").value, method: $("method").value, truncate: $("truncate").checked, wait: false };
  const layer = $("layer").value.trim().replace("−", "-");
  if (layer) {
    if (layer !== "input" && !/^-?\d+$/.test(layer)) throw new Error(`layer “${layer}” is neither a number nor “input”`);
    asked.layer = layer === "input" ? layer : Number(layer);
  }
  if (now === "texts") {
    if (!$("text").value.trim()) throw new Error("type the first text");
    asked.text = $("text").value;
  } else {
    if (!state.images.left) throw new Error("choose a photo first");
    Object.assign(asked, state.images.left);
  }
  if (now === "photos") {
    if (!state.images.right) throw new Error("choose the second photo");
    if (!state.images.right.image) throw new Error("choose the second photo from a file");
    asked.other_image = state.images.right.image;
  } else {
    if (!captions.length) throw new Error(now === "texts" ? "type the second text" : "type a caption");
    asked.captions = captions;
  }
  return asked;
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const own = ++state.asked;
  $("problem").hidden = true;
  $("progress").textContent = "";
  $("go").disabled = true;
  try {
    await state.ready;
    await state.taking;
    let job = await ask("/api/explain", question());
    while (job.state === "waiting" || job.state === "running") {
      $("progress").textContent = job.state === "waiting" ? `waiting, ${job.before} before you` : `${job.stage}, ${job.seconds.toFixed(1)} s`;
      await new Promise((done) => setTimeout(done, 250));
      job = await ask(`/api/jobs/${job.id}`);
      if (own !== state.asked) return;
    }
    if (job.state === "failed") throw new Error(job.error);
    $("progress").textContent = `done in ${job.seconds.toFixed(1)} s`;
    location.hash = `#/e/${job.id}`;
  } catch (problem) { $("progress").textContent = ""; fail($("problem"), problem); } finally { if (own === state.asked) $("go").disabled = false; }
});

async function open(id) {
  state.wanted = id;
  const shown = await ask(`/api/explanations/${encodeURIComponent(id)}/view`);
  if (state.wanted !== id) return;
  if (state.shown) state.shown.destroy();
  state.shown = view($("view"), shown);
  state.id = id;
  $("links").hidden = false;
  $("own").href = `#/e/${id}`;
  $("keep").href = `/api/explanations/${encodeURIComponent(id)}/page`;
  $("warned").textContent = shown.warnings.length ? ` · ${shown.warnings.join("; ")}` : "";
}

// Examples

function gallery() {
  if ($("cards").children.length) return;
  for (const example of state.about.examples) {
    const card = document.createElement("button"), image = document.createElement("img"), text = document.createElement("span");
    card.type = "button";
    image.src = `/api/examples/${example.name}`; image.alt = "";
    text.textContent = example.captions[0];
    card.append(image, text);
    card.addEventListener("click", () => {
      document.querySelector("input[name=kind][value=photo]").checked = true;
      arrange();
      setImage("left", image.src, { example: example.name });
      $("captions").textContent = "";
      example.captions.forEach((caption) => addCaption(caption));
      location.hash = "#/";
      $("form").requestSubmit();
    });
    $("cards").append(card);
  }
}

// Search: the answer has every map; picking words needs no more from the server.

let found = null;
async function folder() {
  const photos = (state.about = await ask("/api/about")).photos;
  $("query-form").hidden = photos === null || photos.done === 0;
  $("folder").textContent = photos === null ? "No folder was given. Start the app with: secondsight serve --photos FOLDER"
    : photos.trouble ? `after ${photos.done} of ${photos.all} photographs the work ${photos.trouble}` : photos.done < photos.all ? `${photos.done} of ${photos.all} photographs are ready` : `${photos.all - photos.skipped.length} photographs${photos.skipped.length ? `; ${photos.skipped.length} could not be read` : ""}`;
  clearTimeout(state.poll);
  if (photos !== null && photos.done < photos.all && !photos.trouble && !$("search").hidden) state.poll = setTimeout(folder, 1000);
}
$("query-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("query-problem").hidden = true;
  if (!$("query").value.trim()) { fail($("query-problem"), new Error("type what to look for")); return; }
  $("find").disabled = true;
  try { found = await ask("/api/search", { query: $("query").value }); results(); } catch (problem) { fail($("query-problem"), problem); } finally { $("find").disabled = false; }
});
function results() {
  $("hits").textContent = $("query-words").textContent = "";
  if (!found.hits.length) return;
  const words = found.hits[0].view.cases[0].right.words, picked = new Set();
  const hits = found.hits.map((hit) => {
    const card = document.createElement("figure"), holder = document.createElement("div"), image = document.createElement("img"), canvas = document.createElement("canvas");
    card.className = "hit lit"; card.style.margin = "0";
    image.src = `/api/photos/${hit.photo}`; image.alt = hit.name;
    holder.append(image, canvas);
    const name = document.createElement("p"), value = document.createElement("p");
    name.textContent = `${hit.similarity.toFixed(3)} ${hit.name}`; value.className = "values";
    card.append(holder, name, value);
    $("hits").append(card);
    return { shown: hit.view.cases[0], canvas, value };
  });
  const draw = () => {
    const maps = hits.map((hit) => heat.map(hit.shown, picked));
    // One scale for all, so that colours can be compared between photographs.
    const limit = Math.max(...maps.map((map) => map.limit)) || 1;
    hits.forEach((hit, i) => {
      heat.paint(hit.canvas, hit.shown.left, maps[i].values, limit, found.hits[i].view.scales[0]);
      const named = picked.size ? [...picked].sort((a, b) => a - b).map((j) => words[j].text).join(" ") : "all words";
      hit.value.textContent = `${named}: ${maps[i].sum < 0 ? "−" : "+"}${Math.abs(maps[i].sum).toFixed(4)}`;
    });
  };
  words.forEach((word, j) => {
    const button = document.createElement("button");
    button.type = "button"; button.textContent = word.text; button.disabled = word.cut;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => { if (!picked.delete(j)) picked.add(j); button.setAttribute("aria-pressed", String(picked.has(j))); draw(); });
    $("query-words").append(button);
  });
  draw();
}

// Places

async function go() {
  const [, place, id] = location.hash.split("/"), where = place === "gallery" || place === "search" ? place : "ask";
  for (const name of ["ask", "gallery", "search"]) $(name).hidden = name !== where;
  document.querySelectorAll("nav a").forEach((link) => {
    const own = link.getAttribute("href");
    if (own === (where === "ask" ? "#/" : `#/${where}`)) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  });
  if (where === "gallery") gallery();
  if (where === "search") await folder();
  if (place === "e" && id && state.id !== id) {
    try { await open(id); } catch (problem) { fail($("problem"), problem); }
  }
}
addEventListener("hashchange", () => state.ready.then(go, () => {}));

async function start() {
  addCaption();
  arrange();
  state.about = await ask("/api/about");
  const fill = (select, names, chosen) => names.forEach(([name, title]) => { const option = new Option(name, name, name === chosen, name === chosen); option.title = title; select.add(option); });
  fill($("model"), state.about.models.map((name) => [name, name]), state.about.models[0]);
  fill($("method"), Object.entries(state.about.methods), "integrated-jacobian");
}
// What strangers do before the server has answered waits for it; where it does not answer, that is said.
state.ready = start();
state.ready.then(go).catch((problem) => fail($("problem"), problem));
