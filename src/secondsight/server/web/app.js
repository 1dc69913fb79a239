// The app around the view: sends questions to the server, shows progress, gives every explanation a link.
import { $, element, request, showProblem, sleep } from "/basics.js";
import { showFolder } from "/search.js";
import { view } from "/view.js";

const state = {
  about: null, // GET /api/about
  images: { left: null, right: null }, // {image: base64} or {example: name}
  reading: Promise.resolve(), // ends when the files that were chosen are read
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
  const row = element("div", { className: "caption" }), label = element("label"), input = element("input", { value: text });
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

function setImage(side, source, input) {
  state.images[side] = input;
  const area = $(`drop-${side}`), image = area.querySelector("img");
  image.hidden = !source;
  area.querySelector("span").hidden = Boolean(source);
  if (source) image.src = source;
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
  setImage(side, url, { image: url.slice(url.indexOf(",") + 1) });
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
  if (layer !== "input" && !/^-?\d+$/.test(layer)) throw new Error(`layer “${layer}” is neither a number nor “input”`);
  return { layer: layer === "input" ? layer : Number(layer) };
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
  const captions = [...$("captions").querySelectorAll("input")].map((input) => input.value.trim()).filter(Boolean);
  if (!captions.length) throw new Error(pairKind() === "texts" ? "type the second text" : "type a caption");
  return { captions };
}

function readQuestion() {
  const settings = { model: $("model").value, method: $("method").value, truncate: $("truncate").checked, wait: false };
  return { ...settings, ...readLayer(), ...readLeft(), ...readRight() };
}

function describeProgress(job) {
  return job.state === "waiting" ? `waiting, ${job.before} before you` : `${job.stage}, ${job.seconds.toFixed(1)} s`;
}

async function explain() {
  const submission = ++state.submission;
  $("problem").hidden = true;
  $("progress").textContent = "";
  $("explain").disabled = true;
  try {
    await state.ready;
    await state.reading;
    let job = await request("/api/explain", readQuestion());
    while (job.state === "waiting" || job.state === "running") {
      $("progress").textContent = describeProgress(job);
      await sleep(250);
      job = await request(`/api/jobs/${job.id}`);
      if (submission !== state.submission) return;
    }
    if (job.state === "failed") throw new Error(job.error);
    $("progress").textContent = `done in ${job.seconds.toFixed(1)} s`;
    location.hash = `#/e/${job.id}`;
  } catch (problem) {
    $("progress").textContent = "";
    showProblem($("problem"), problem);
  } finally {
    if (submission === state.submission) $("explain").disabled = false;
  }
}

async function open(id) {
  state.requested = id;
  const data = await request(`/api/explanations/${encodeURIComponent(id)}/view`);
  if (state.requested !== id) return;
  if (state.view) state.view.destroy();
  state.view = view($("view"), data);
  state.opened = id;
  $("links").hidden = false;
  $("permalink").href = `#/e/${id}`;
  $("download").href = `/api/explanations/${encodeURIComponent(id)}/page`;
  $("warnings").textContent = data.warnings.length ? ` · ${data.warnings.join("; ")}` : "";
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  explain();
});

// Examples

function showExamples() {
  if ($("cards").children.length) return;
  for (const example of state.about.examples) {
    const card = element("button", { type: "button" });
    const image = element("img", { src: `/api/examples/${example.name}`, alt: "" });
    card.append(image, element("span", { textContent: example.captions[0] }));
    card.addEventListener("click", () => {
      document.querySelector("input[name=kind][value=photo]").checked = true;
      arrangeInputs();
      setImage("left", image.src, { example: example.name });
      $("captions").textContent = "";
      example.captions.forEach((caption) => addCaption(caption));
      location.hash = "#/";
      $("form").requestSubmit();
    });
    $("cards").append(card);
  }
}

// A hit of the search opens as a full explanation.

document.addEventListener("explain-photo", ({ detail }) => {
  document.querySelector("input[name=kind][value=photo]").checked = true;
  arrangeInputs();
  // The folder belongs to the first model.
  $("model").selectedIndex = 0;
  setImage("left", `/api/photos/${detail.photo}`, { photo: detail.photo });
  $("captions").textContent = "";
  addCaption(detail.caption);
  location.hash = "#/";
  $("form").requestSubmit();
});

// Addresses: #/ and #/e/ID, #/gallery, #/search

async function navigate() {
  const [, place, id] = location.hash.split("/");
  const section = place === "gallery" || place === "search" ? place : "ask";
  for (const name of ["ask", "gallery", "search"]) $(name).hidden = name !== section;
  document.querySelectorAll("nav a").forEach((link) => {
    const current = link.getAttribute("href") === (section === "ask" ? "#/" : `#/${section}`);
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  if (section === "gallery") showExamples();
  if (section === "search") await showFolder();
  if (place === "e" && id && state.opened !== id) {
    await open(id).catch((problem) => showProblem($("problem"), problem));
  }
}

function fillSelect(select, options, preselected) {
  for (const [name, title] of options) {
    const option = new Option(name, name, name === preselected, name === preselected);
    option.title = title;
    select.add(option);
  }
}

async function start() {
  addCaption();
  arrangeInputs();
  state.about = await request("/api/about");
  fillSelect($("model"), state.about.models.map((name) => [name, name]), state.about.models[0]);
  fillSelect($("method"), Object.entries(state.about.methods), "grounded");
}

// Actions before the server has answered wait for `ready`; if it does not answer, the page says so.
state.ready = start();
addEventListener("hashchange", () => state.ready.then(navigate, () => {}));
state.ready.then(navigate).catch((problem) => showProblem($("problem"), problem));
