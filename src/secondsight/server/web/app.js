// The app around the view: sends questions to the server, shows progress, gives every explanation a link.
import { $, element, fillSelect, quoted, request, showProblem, sleep } from "/basics.js";
import { showFolder } from "/search.js";
import { view } from "/view.js";

const state = {
  about: null, // GET /api/about
  images: { left: null, right: null }, // {image: base64} or {example: name}
  reading: Promise.resolve(), // ends when the files that were chosen are read
  job: null, // id of the one that is computed
  submission: 0, // counts submitted questions: only the last one may change the page
  requested: null, // id of the explanation that should be open
  opened: null, // id of the one that is
  view: null,
};

// Inputs

function pairKind() {
  return document.querySelector("input[name=kind]:checked").value;
}

function arrangeInputs() {
  const kind = pairKind();
  $("drop-left").hidden = kind === "texts";
  $("drop-right").hidden = kind !== "photos";
  $("text-field").hidden = kind !== "texts";
  $("captions").hidden = $("more").hidden = kind === "photos";
}

function addCaption(text = "") {
  const row = element("div", { className: "caption" }), label = element("label"), input = element("textarea", { value: text, rows: 1 });
  const first = $("captions").children.length === 0;
  label.append(first ? "Caption" : "Another caption", input);
  row.append(label);
  if (!first) {
    const remove = element("button", { type: "button", className: "ss-button", textContent: "×" });
    remove.setAttribute("aria-label", "remove this caption");
    remove.addEventListener("click", () => {
      row.remove();
      $("more").disabled = false;
    });
    row.append(remove);
  }
  $("captions").append(row);
  $("more").disabled = state.about !== null && $("captions").children.length >= state.about.limits.captions;
  return input;
}

function setImage(side, source, input, name = "") {
  state.images[side] = input;
  const area = $(`drop-${side}`), image = area.querySelector("img"), file = area.querySelector(".file");
  image.hidden = !source;
  area.querySelector(".hint").hidden = Boolean(source);
  file.textContent = name;
  file.hidden = !name;
  if (source) image.src = source;
}

// Chosen files are looked at before they are sent. TIFF files are read by the server, and by few browsers.
async function checkPhotograph(file, url) {
  if (file.type === "image/tiff") return;
  const image = element("img", { src: url });
  await image.decode().catch(() => {
    throw new Error(`${file.name} is not a photograph that can be read: use JPEG, PNG or WebP`);
  });
}

// Files are read one after the other, so that the last one chosen stays; a question waits until they are read.
function takeFile(side, file) {
  if (!file) return;
  state.reading = state.reading.then(() => readFile(side, file)).catch((problem) => showProblem($("problem"), problem));
}

async function readFile(side, file) {
  await state.ready;
  const largest = Math.floor((state.about.limits.body * 3) / 4); // base64 takes four bytes for three
  if (file.size > largest) {
    throw new Error(`${file.name} is larger than this server takes (${Math.floor(largest / 2 ** 20)} MB): choose a smaller one`);
  }
  $("problem").hidden = true;
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read: choose it again`));
    reader.readAsDataURL(file);
  });
  await checkPhotograph(file, url);
  setImage(side, url, { image: url.slice(url.indexOf(",") + 1) }, file.name);
}

function listenForFiles(side) {
  const area = $(`drop-${side}`), input = $(`file-${side}`);
  input.addEventListener("change", () => {
    takeFile(side, input.files[0]);
    input.value = "";
  });
  area.addEventListener("dragover", (event) => {
    event.preventDefault();
    area.classList.add("over");
  });
  area.addEventListener("dragleave", () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    takeFile(side, event.dataTransfer.files[0]);
  });
}

document.querySelectorAll("input[name=kind]").forEach((input) => input.addEventListener("change", arrangeInputs));
$("more").addEventListener("click", () => addCaption().focus());
listenForFiles("left");
listenForFiles("right");
document.addEventListener("paste", (event) => {
  const image = [...event.clipboardData.files].find((file) => file.type.startsWith("image/"));
  if (!image) return;
  event.preventDefault();
  takeFile(pairKind() === "photos" && state.images.left ? "right" : "left", image);
});

// Explaining

function readLayer() {
  const layer = $("layer").value.trim().replace("−", "-");
  if (!layer) return {};
  const named = layer === "input" || layer === "output";
  if (!named && !/^-?\d+$/.test(layer)) throw new Error(`layer “${layer}” is neither a number nor “input”`);
  return { layer: named ? layer : Number(layer) };
}

function readLeft() {
  if (pairKind() !== "texts") {
    if (!state.images.left) throw new Error("choose a photo first");
    return state.images.left;
  }
  if (!$("text").value.trim()) throw new Error("type the first text");
  return { text: $("text").value };
}

function readRight() {
  if (pairKind() === "photos") {
    if (!state.images.right) throw new Error("choose the second photo");
    if (!state.images.right.image) throw new Error("choose the second photo from a file");
    return { other_image: state.images.right.image };
  }
  const captions = [...$("captions").querySelectorAll("textarea")].map((input) => input.value.trim()).filter(Boolean);
  if (!captions.length) throw new Error(pairKind() === "texts" ? "type the second text" : "type a caption");
  return { captions };
}

function readQuestion() {
  const settings = { model: $("model").value, method: $("method").value, truncate: $("truncate").checked, wait: false, watch: true };
  return { ...settings, ...readLayer(), ...readLeft(), ...readRight() };
}

function describeProgress(job) {
  const left = job.remaining === null ? "" : job.remaining < 1 ? ", almost done" : `, about ${Math.ceil(job.remaining)} s left`;
  if (job.state === "waiting") return `waiting, ${job.before} before you${left}`;
  return job.remaining === null ? `${job.stage}, ${job.seconds.toFixed(1)} s` : `${job.stage}${left}`;
}

// Without an estimate the bar only moves. An estimate that was too short lets it stop before the end.
function showProgress(job) {
  document.body.classList.add("busy");
  $("bar").hidden = $("cancel").hidden = false;
  $("progress").textContent = describeProgress(job);
  if (job.remaining === null) $("bar").removeAttribute("value");
  else $("bar").value = Math.min(0.97, job.seconds / (job.seconds + job.remaining || 1));
}

function leave(id) {
  if (id) fetch(`/api/jobs/${id}`, { method: "DELETE", keepalive: true }).catch(() => {});
  if (state.job === id) state.job = null;
}

function finish(text) {
  $("progress").textContent = text;
  $("explain").disabled = false;
  $("bar").hidden = $("cancel").hidden = true;
  document.body.classList.remove("busy");
}

// Whatever arrives later belongs to no submission.
function cancel() {
  state.submission++;
  leave(state.job);
  finish("");
  $("explain").focus();
}

async function follow(job, submission) {
  state.job = job.id;
  for (let wait = 60; job.state === "waiting" || job.state === "running"; wait = 250) {
    showProgress(job);
    await sleep(wait);
    if (submission === state.submission) job = await request(`/api/jobs/${job.id}`);
    if (submission !== state.submission) return null;
  }
  state.job = null;
  if (job.state === "failed") throw new Error(job.error);
  return job;
}

async function explain(readAll = readQuestion, replaces = false) {
  const submission = ++state.submission, started = performance.now();
  leave(state.job);
  $("problem").hidden = true;
  $("progress").textContent = "";
  $("explain").disabled = true;
  try {
    await state.ready;
    await state.reading;
    const submitted = await request("/api/explain", readAll());
    if (submission !== state.submission) return leave(submitted.id);
    const job = await follow(submitted, submission);
    if (job === null || submission !== state.submission) return;
    finish(submitted.state === "done" ? "from memory" : `done in ${((performance.now() - started) / 1000).toFixed(1)} s`);
    if (location.hash === `#/e/${job.id}`) await open(job.id);
    else if (replaces) location.replace(`#/e/${job.id}`);
    else location.hash = `#/e/${job.id}`;
  } catch (problem) {
    if (submission !== state.submission) return;
    finish("");
    showProblem($("problem"), problem);
    $("problem").scrollIntoView({ block: "nearest" });
  }
}

async function open(id) {
  state.requested = id;
  const data = await request(`/api/explanations/${encodeURIComponent(id)}/view`);
  if (state.requested !== id) return;
  if (state.view) state.view.destroy();
  $("view").hidden = false;
  state.view = view($("view"), data, { measure: (shown) => measure(id, shown) });
  state.opened = id;
  $("download").href = `/api/explanations/${encodeURIComponent(id)}/page`;
  $("warnings").textContent = data.warnings.length ? ` · ${data.warnings.join("; ")}` : "";
  describe(data.question);
}

// The similarity without what is picked, encoded anew.
async function measure(id, { case: index, left, right }) {
  const address = `/api/explanations/${encodeURIComponent(id)}/without`;
  return (await request(address, { case: index, left, right })).measured;
}

// Without leave to copy, the address is shown and selected.
async function copyLink() {
  const address = new URL(`#/e/${state.opened}`, location.href).href;
  try {
    await navigator.clipboard.writeText(address);
    $("copied").textContent = "copied";
  } catch {
    $("copied").textContent = "copy this address:";
    $("address").hidden = false;
    $("address").value = address;
    $("address").select();
  }
}

function forgetCopy() {
  $("copied").textContent = "";
  $("address").hidden = true;
}

// Who opens a link has not asked: the page says what was asked, and of which model.
function describe({ model, captions, example }) {
  const texts = quoted(captions);
  const question = captions.length > 1 ? `Does ${texts} fit better?` : texts ? `How well does ${texts} fit?` : "Two photos.";
  $("asked").textContent = `${question} Explained by the ${model} model.`;
  document.title = texts ? `${texts} · secondsight` : "secondsight";
  const card = (state.about.examples[model] || []).find((one) => one.name === example && one.captions[0] === captions[0]);
  $("why").hidden = !card || !card.why;
  $("why").textContent = card ? card.why : "";
  if (example && !state.images.left) fillForm(`/api/examples/${example}`, { example }, captions);
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  explain();
});

// A caption is mostly one line, so Enter explains it; with Shift, or pasted, it may have several.
$("captions").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("form").requestSubmit();
});

// Examples: those of the model that is chosen, so that no other model explains them.

function fillForm(source, input, captions) {
  document.querySelector("input[name=kind][value=photo]").checked = true;
  arrangeInputs();
  setImage("left", source, input);
  $("captions").textContent = "";
  captions.forEach((caption) => addCaption(caption));
}

function exampleCard(example) {
  const card = element("button", { type: "button" }), image = element("img", { src: `/api/examples/${example.name}`, alt: "" });
  card.append(image, element("span", { textContent: example.captions[0] }));
  if (!example.right) {
    card.className = "wrong";
    card.append(element("span", { className: "mark", textContent: "the model is wrong here, see why" }));
  }
  card.addEventListener("click", () => {
    fillForm(`/api/examples/${example.name}`, { example: example.name }, example.captions);
    const { name, captions, word } = example;
    explain(() => ({ example: name, captions, model: $("model").value, wait: false, watch: true, ...(word && { select: word }) }));
  });
  return card;
}

function showExamples() {
  const examples = state.about.examples[$("model").value] || [];
  if (!examples.length && !state.images.left) {
    // A model of texts, as far as its name tells.
    document.querySelector("input[name=kind][value=texts]").checked = true;
    arrangeInputs();
  }
  $("cards").replaceChildren(...examples.map(exampleCard));
  const unchecked = examples.some((example) => !example.checked);
  const sentence = `Click an example; it is explained by the ${$("model").value} model.`;
  $("about-examples").textContent = examples.length
    ? unchecked ? `${sentence} Nobody has checked what this model makes of them.` : sentence
    : "";
}

// A hit of the search opens as a full explanation; one step back leads to the hits.

document.addEventListener("explain-photo", ({ detail }) => {
  // The folder belongs to the first model.
  $("model").selectedIndex = 0;
  fillForm(`/api/photos/${detail.photo}`, { photo: detail.photo }, [detail.caption]);
  location.hash = "#/";
  explain(readQuestion, true);
});

// Addresses: #/ and #/e/ID, #/search?q=…&rank=…

async function navigate() {
  const [path, parameters] = location.hash.split("?"), [, place, id] = path.split("/");
  const section = place === "search" ? place : "ask", shown = place === "e" && Boolean(id);
  for (const name of ["ask", "search"]) $(name).hidden = name !== section;
  $("welcome").hidden = shown;
  $("missing").hidden = true;
  forgetCopy();
  $("shown").hidden = $("view").hidden = !shown || state.opened !== id;
  document.querySelectorAll("nav a").forEach((link) => {
    const current = link.getAttribute("href") === (section === "ask" ? "#/" : `#/${section}`);
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  if (section === "search") await showFolder(new URLSearchParams(parameters));
  if (!shown) {
    document.title = "secondsight";
    state.requested = null;
  } else if (state.opened !== id) await openShared(id);
}

async function openShared(id) {
  $("problem").hidden = true;
  try {
    await open(id);
    $("shown").hidden = false;
    scrollTo(0, 0);
  } catch (problem) {
    $("welcome").hidden = false;
    showProblem($("missing"), problem);
    scrollTo(0, 0);
  }
}

function describeMethod() {
  $("method-line").textContent = state.about.methods[$("method").value];
}

async function start() {
  addCaption();
  arrangeInputs();
  state.about = await request("/api/about");
  const { models, methods } = state.about;
  fillSelect($("model"), models.map((name) => [name, name]), models[0]);
  fillSelect($("method"), Object.entries(methods), "grounded");
  $("models").hidden = models.length < 2;
  $("model").addEventListener("change", showExamples);
  $("method").addEventListener("change", describeMethod);
  describeMethod();
  showExamples();
}

// A tab that is closed ends its job.
addEventListener("pagehide", () => leave(state.job));
$("cancel").addEventListener("click", cancel);
$("permalink").addEventListener("click", copyLink);

// Actions before the server has answered wait for `ready`; if it does not answer, the page says so.
state.ready = start();
addEventListener("hashchange", () => state.ready.then(navigate, () => {}));
state.ready.then(navigate).catch((problem) => showProblem($("problem"), problem));
