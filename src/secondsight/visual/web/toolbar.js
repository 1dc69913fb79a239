// The controls above the panels.

import { make, makeButton } from "./dom.js";
import { hasPicture } from "./state.js";

/** Radio buttons in a row: one tab stop, arrows move. */
function makeChoice(parent, label, names, index, ui, choose) {
  const group = make("div", parent, "ss-tool ss-choice");
  const id = `ss-${label}-${Math.random().toString(36).slice(2)}`;
  group.setAttribute("role", "radiogroup");
  group.setAttribute("aria-label", label);
  return names.map((name, i) => {
    const button = make("label", group);
    const input = make("input", button);
    Object.assign(input, { type: "radio", name: id, checked: i === index });
    Object.assign(make("span", button, "", name), { title: name, dir: "auto" });
    ui.listen(input, "change", () => choose(i));
    return input;
  });
}

function makeInput(parent, properties, ui, event, change) {
  const input = make("input", parent);
  Object.assign(input, properties);
  ui.listen(input, event, () => change(input));
  return input;
}

/** A place for controls: as wide as there is room, on a phone folded so that picture and words come first. */
function buildFold(parent, ui) {
  const fold = make("details", parent, "ss-fold");
  make("summary", fold, "", "View");
  const narrow = matchMedia("(max-width: 30rem)");
  const follow = () => { fold.open = !narrow.matches; };
  ui.listen(narrow, "change", follow);
  follow();
  return make("div", fold, "ss-tools");
}

/** How colours are shown, `view.refresh` follows every change; gives the inputs that only maps need. */
function buildLook(parent, view) {
  const { ui, data } = view;
  const colours = make("label", parent, "ss-tool", "Colours ");
  const select = make("select", colours);
  data.scales.forEach((scale) => make("option", select, "", scale.name));
  ui.listen(select, "change", () => {
    ui.look.scale = data.scales[select.selectedIndex];
    view.refresh();
    view.showTerms();
  });
  const smooth = make("label", parent, "ss-tool");
  const smoothing = makeInput(smooth, { type: "checkbox", checked: true }, ui, "change", (input) => {
    ui.look.smooth = input.checked;
    view.refresh();
  });
  smooth.append(" smooth");
  const veil = make("label", parent, "ss-tool", "overlay ");
  const range = { type: "range", min: 0, max: 1, step: 0.02, value: ui.look.strength };
  const strength = makeInput(veil, range, ui, "input", (input) => {
    ui.look.strength = Number(input.value);
    view.refresh();
  });
  const pictured = data.cases.some((shown) => hasPicture(shown.left) || hasPicture(shown.right));
  smooth.hidden = veil.hidden = !pictured;
  return [smoothing, strength];
}

function buildFiles(parent, view) {
  const files = make("span", parent, "ss-tool ss-files");
  for (const kind of ["png", "svg"]) {
    const button = makeButton(files, kind.toUpperCase());
    button.title = `save what is shown as ${kind.toUpperCase()}`;
    view.ui.listen(button, "click", async () => {
      const link = make("a");
      link.href = URL.createObjectURL(await view.picture(kind));
      link.download = `explanation.${kind}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }
}

/** Build the controls; gives the inputs that follow the view. */
export function buildToolbar(parent, view) {
  const { ui, cases, index } = view;
  const names = cases.map((shown) => shown.name);
  const caseInputs = cases.length > 1 ? makeChoice(parent, "Caption", names, index, ui, (i) => view.chooseCase(i)) : [];
  const readings = ["together", "each side alone"];
  const readingInputs = makeChoice(parent, "Show", readings, 0, ui, (i) => view.read(i ? "alone" : "interactions"));
  const fold = buildFold(parent, ui);
  const mapInputs = buildLook(fold, view);
  buildFiles(fold, view);
  return { caseInputs, readingInputs, mapInputs };
}
