// The view of one or several explanations: a file, a notebook cell and the app all show this module.
//
// Either side is a panel that shows a number per group (grid cell or word) and reports which groups the user picked. With
// nothing picked it shows sums over everything on the other side; what is picked on one side decides what the other shows,
// and with both picked the status line has the number of that pair.

const make = (tag, parent, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  if (parent) parent.appendChild(node);
  return node;
};
const minus = (text) => text.replace("-", "−");
const signed = (v, digits = 4) => (v < 0 ? "−" : "+") + Math.abs(v).toFixed(digits);
const tiny = (v) => v === 0 ? "0" : Math.abs(v) >= 0.001 ? v.toFixed(4) : minus(v.toExponential(1));
const largest = (values) => values.reduce((m, v) => Math.max(m, Math.abs(v)), 0) || 1;
const sum = (values) => values.reduce((a, b) => a + b, 0);
const clamp = (v, low, high) => Math.max(low, Math.min(high, v));
const css = ([r, g, b, a]) => `rgba(${Math.round(r)},${Math.round(g)},${Math.round(b)},${a.toFixed(3)})`;
const escaped = (text) => text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd").replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
const stroke = (picked) => picked.map((v) => v.toFixed(0)).join(", ");

/** Little-endian float32 in base64, as Python wrote them. */
export function floats(packed) {
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0)), seen = new DataView(bytes.buffer);
  return Float64Array.from({ length: bytes.length / 4 }, (_, i) => seen.getFloat32(4 * i, true));
}

/** Colour and opacity of a share in −1 … 1: hue by sign, opacity by size. */
function tint(scale, share, most) {
  return [...(share < 0 ? scale.negative : scale.positive), most * Math.abs(share) ** 0.85];
}

const paperOf = (node) => getComputedStyle(node).getPropertyValue("--paper-rgb").split(",").map(Number);

// Black or white, whichever reads better on the colour as it lies on the page.
function ink(paper, colour) {
  const mixed = [0, 1, 2].map((i) => (1 - colour[3]) * paper[i] + colour[3] * colour[i]);
  const linear = mixed.map((v) => { const c = v / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
  const light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return (light + 0.05) / 0.05 > 1.05 / (light + 0.05) ? "#000" : "#fff";
}

/** Maps for those who show many pictures at once: `map` sums a case's matrix over picked words, `paint` colours a canvas. */
export const heat = {
  map(shown, picked) {
    const m = floats(shown.matrix), rows = shown.left.groups, columns = shown.right.groups, values = new Float64Array(rows);
    for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) if (!picked.size || picked.has(j)) values[i] += m[i * columns + j];
    return { values, sum: sum(values), limit: largest(values) };
  },
  // In the picture's proportions; bilinear between the cells' centres, as Interactions.heatmap does.
  paint(canvas, side, shown, limit, scale, strength = 0.82, smooth = true) {
    const [rows, columns] = side.grid, [W, H] = side.size, [fx0, fy0, fx1, fy1] = side.frame;
    const cw = (fx1 - fx0) / columns, ch = (fy1 - fy0) / rows;
    const shrink = Math.min(1, 448 / W, 2048 / H);
    const w = canvas.width = Math.max(1, Math.round(W * shrink)), h = canvas.height = Math.max(1, Math.round(H * shrink));
    const context = canvas.getContext("2d"), pixels = context.createImageData(w, h), out = pixels.data;
    const table = new Uint8ClampedArray(4 * 513);
    for (let i = 0; i < 513; i++) { const c = tint(scale, i / 256 - 1, strength); table.set([c[0], c[1], c[2], 255 * c[3]], 4 * i); }
    const xs = new Int32Array(w), xt = new Float64Array(w);
    for (let x = 0; x < w; x++) {
      const u = ((x + 0.5) * W / w - fx0) / cw;
      xs[x] = u < 0 || u > columns ? -9 : smooth ? Math.floor(u - 0.5) : Math.min(columns - 1, Math.floor(u));
      xt[x] = u - 0.5 - Math.floor(u - 0.5);
    }
    for (let y = 0; y < h; y++) {
      const v = ((y + 0.5) * H / h - fy0) / ch;
      if (v < 0 || v > rows) continue;
      const r = smooth ? Math.floor(v - 0.5) : Math.min(rows - 1, Math.floor(v)), t = v - 0.5 - Math.floor(v - 0.5);
      const up = clamp(r, 0, rows - 1) * columns, down = smooth ? clamp(r + 1, 0, rows - 1) * columns : up;
      for (let x = 0; x < w; x++) {
        const c = xs[x];
        if (c === -9) continue;
        let value;
        if (smooth) {
          const a = c < 0 ? 0 : c, b = c + 1 > columns - 1 ? columns - 1 : c + 1, s = xt[x];
          value = (1 - t) * ((1 - s) * shown[up + a] + s * shown[up + b]) + t * ((1 - s) * shown[down + a] + s * shown[down + b]);
        } else value = shown[up + c];
        const from = 4 * Math.round(256 * clamp(value / limit, -1, 1) + 256), to = 4 * (y * w + x);
        out[to] = table[from]; out[to + 1] = table[from + 1]; out[to + 2] = table[from + 2]; out[to + 3] = table[from + 3];
      }
    }
    context.putImageData(pixels, 0, 0);
  },
};

/**
 * Show `data` (see secondsight.visual.page) in `root`. `options.onChange(state)` hears every change; the returned object
 * has `state()`, `set({case, reading, left, right})`, `picture("svg" | "png")` and `destroy()`.
 */
export function view(root, data, options = {}) {
  // What belongs to a case goes with it.
  let listeners = new AbortController(), own = null;
  const on = (node, names, f) => names.split(" ").forEach((name) => node.addEventListener(name, f, { signal: (own || listeners).signal }));
  const look = { scale: data.scales[0], strength: 0.82, smooth: true };
  const cases = data.cases.map((one) => ({ ...one, matrix: floats(one.matrix), alone: [floats(one.alone[0]), floats(one.alone[1])], groups: [one.left.groups, one.right.groups] }));
  let which = data.shown || 0, reading = "interactions", panels = [], now = null;

  root.classList.add("ss");
  root.textContent = "";
  const status = make("p", root, "ss-status"), tools = make("div", root, "ss-tools"), stage = make("div", root, "ss-stage");
  status.setAttribute("role", "status");
  const spoken = make("span", root, "ss-spoken");
  spoken.setAttribute("aria-live", "polite");
  const tip = make("div", root, "ss-tip");
  tip.hidden = true;
  const card = make("section", root, "ss-sum"), foot = make("p", root, "ss-foot");
  card.setAttribute("aria-label", "The four terms");
  const redraw = [];
  toolbar();
  on(root, "keydown", (event) => { if (event.key === "Escape") { hint(null); clear(); } });
  open(which, cases[which].start);

  function open(index, start) {
    which = index; now = cases[index];
    if (own) own.abort();
    own = new AbortController();
    stage.textContent = "";
    panels = [now.left, now.right].map((side) => panelOf(side, stage));
    panels.forEach((panel) => panel.onChange(show));
    stage.classList.toggle("ss-even", pictured(now.left) && pictured(now.right));
    const matrix = now.left.kind === "text" && now.right.kind === "text" ? matrixPanel(stage) : null;
    redraw[0] = () => matrix && matrix.draw();
    panels.forEach((panel, i) => panel.set(start ? start[i] : null));
    summary();
    foot.textContent = now.note;
    // Without this the first picture would wait for a click.
    show();
  }

  function toolbar() {
    if (cases.length > 1) choice("Caption", cases.map((one) => one.name), which, (i) => {
      // What was picked on the left stays where the next case has the same left side; words differ.
      const left = JSON.stringify(cases[i].left) === JSON.stringify(now.left) ? panels[0].get() : null;
      open(i, [left, null]);
    });
    choice("Show", ["interactions", "each side alone"], 0, (i) => { reading = i ? "alone" : "interactions"; show(); });
    const colours = make("label", tools, "ss-tool", "Colours ");
    const select = make("select", colours);
    data.scales.forEach((scale) => { make("option", select, "", scale.name); });
    on(select, "change", () => { look.scale = data.scales[select.selectedIndex]; show(); summary(); });
    const soft = make("label", tools, "ss-tool"), smooth = make("input", soft);
    Object.assign(smooth, { type: "checkbox", checked: true });
    soft.append(" smooth");
    on(smooth, "change", () => { look.smooth = smooth.checked; show(); });
    const veil = make("label", tools, "ss-tool", "overlay "), slider = make("input", veil);
    Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.02, value: look.strength });
    on(slider, "input", () => { look.strength = Number(slider.value); show(); });
    const files = make("span", tools, "ss-tool ss-files");
    for (const kind of ["png", "svg"]) {
      const button = make("button", files, "ss-button", kind.toUpperCase());
      button.type = "button";
      button.title = `save what is shown as ${kind.toUpperCase()}`;
      on(button, "click", async () => {
        const link = make("a");
        link.href = URL.createObjectURL(await picture(kind));
        link.download = `explanation.${kind}`;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      });
    }
    if (!cases.some((one) => [one.left, one.right].some(pictured))) { soft.hidden = veil.hidden = true; }
  }
  function pictured(side) { return side.kind === "image" || side.kind === "joined" && side.parts.some(pictured); }

  function mark(label, i) {
    const group = [...tools.querySelectorAll("[role=radiogroup]")].find((one) => one.getAttribute("aria-label") === label);
    if (group) group.querySelectorAll("input")[i].checked = true;
  }

  // Radio buttons in a row: one tab stop, arrows move.
  function choice(label, names, chosen, f) {
    const group = make("div", tools, "ss-tool ss-choice"), own = `ss-${label}-${Math.random().toString(36).slice(2)}`;
    group.setAttribute("role", "radiogroup");
    group.setAttribute("aria-label", label);
    names.forEach((name, i) => {
      const button = make("label", group), input = make("input", button);
      Object.assign(input, { type: "radio", name: own, checked: i === chosen });
      make("span", button, "", name).title = name;
      on(input, "change", () => f(i));
    });
  }

  // Sums of the matrix over one side's weights (null: everything), per group of the other.
  function across(side, weights) {
    const [rows, columns] = now.groups, m = now.matrix;
    const out = new Float64Array(side ? rows : columns);
    for (let i = 0; i < rows; i++) {
      const w = side ? 1 : weights ? weights[i] : 1;
      if (!w) continue;
      for (let j = 0; j < columns; j++) {
        if (side) out[i] += (weights ? weights[j] : 1) * m[i * columns + j]; else out[j] += w * m[i * columns + j];
      }
    }
    return out;
  }
  function chosen(values, weights) { return weights ? values.reduce((total, v, i) => total + v * weights[i], 0) : sum(values); }

  function state() {
    const weights = panels.map((panel) => panel.weights());
    const left = across(1, weights[1]), value = chosen(left, weights[0]);
    const alone = now.alone.map((values, i) => chosen(values, weights[i]));
    return { case: which, reading, left: panels[0].get(), right: panels[1].get(), value, alone };
  }

  function show() {
    const weights = panels.map((panel) => panel.weights()), seen = state();
    panels[0].colour(reading === "alone" ? now.alone[0] : across(1, weights[1]));
    panels[1].colour(reading === "alone" ? now.alone[1] : across(0, weights[0]));
    redraw.forEach((f) => f());
    say(seen, weights);
    if (options.onChange) options.onChange(seen);
  }

  function say(seen, weights) {
    const strong = (text) => make("b", status, "", text), any = weights.some(Boolean);
    status.textContent = "";
    const named = panels.map((panel, i) => weights[i] ? panel.name() : panel.all);
    if (reading === "alone") {
      panels.forEach((_, i) => {
        status.append(i ? "; " : "");
        strong(named[i]); status.append(" alone: "); strong(signed(seen.alone[i]));
      });
      status.append(`, of a ${now.called} of ${minus(now.similarity.toFixed(4))}. `);
    } else {
      status.append("Interaction of ");
      const names = any && !(weights[0] && weights[1]) ? named.filter((_, i) => weights[i]) : named;
      !any && names[0] === names[1] ? strong("everything on both sides") : names.forEach((name, i) => { status.append(i ? " with " : ""); strong(name); });
      status.append(": "); strong(signed(seen.value));
      status.append(` of a ${now.called} of ${minus(now.similarity.toFixed(4))}. `);
    }
    if (any) { const button = make("button", status, "ss-button", "clear (Esc)"); button.type = "button"; on(button, "click", () => { clear(); (stage.querySelector("[tabindex='0']") || root).focus(); }); }
    else make("span", status, "ss-hint", [...new Set(panels.map((p) => p.hint))].join(" "));
  }
  function clear() { panels.forEach((panel) => panel.set(null)); show(); }

  // A small box beside the pointer or the focused thing.
  function hint(text, x, y) {
    tip.hidden = text === null;
    if (text === null) return;
    tip.textContent = text;
    const base = root.getBoundingClientRect();
    tip.style.left = `${clamp(x - base.left + 12, 0, base.width - tip.offsetWidth)}px`;
    tip.style.top = `${y - base.top + 16}px`;
  }

  function panelOf(side, parent) { return ({ image: imagePanel, text: textPanel, joined: joinedPanel })[side.kind](side, parent); }

  // Several inputs on one side, each with its sign: groups are counted through, colours share one scale.
  function joinedPanel(side, parent) {
    const place = make("div", parent, "ss-joined");
    let first = 0, listener = () => {};
    const parts = side.parts.map((own) => {
      const holder = make("div", place, `ss-part ss-part-${own.kind}`);
      make("span", holder, "ss-sign", own.sign > 0 ? "+" : "−").title = own.sign > 0 ? "adds to the margin" : "is subtracted";
      const part = { panel: panelOf(own, make("div", holder)), first, size: own.groups, sign: own.sign };
      first += own.groups;
      part.panel.onChange(() => listener());
      return part;
    });
    const picked = () => parts.filter((part) => part.panel.get() !== null);
    return {
      hint: parts[0].panel.hint,
      all: parts[0].panel.all,
      weights: () => {
        if (!picked().length) return null;
        const out = new Float64Array(first);
        picked().forEach((part) => out.set(part.panel.weights(), part.first));
        return out;
      },
      get: () => picked().length ? parts.map((part) => part.panel.get()) : null,
      set: (selection) => parts.forEach((part, i) => part.panel.set(selection ? selection[i] : null)),
      colour: (values) => {
        const limit = largest(values);
        parts.forEach((part) => part.panel.colour(values.slice(part.first, part.first + part.size), limit));
      },
      name: () => picked().map((part) => `${part.sign > 0 ? "+" : "−"}${part.panel.name()}`).join(" and "),
      onChange: (f) => { listener = f; },
      draw: (x, y, width) => {
        const wide = side.parts.filter((own) => own.kind === "image").length, out = [];
        let tall = 0, at = x, below = 0;
        parts.forEach((part, i) => {
          const image = side.parts[i].kind === "image", own = image ? (width - 12 * (wide - 1)) / wide : width;
          const made = part.panel.draw(image ? at : x, image ? y : y + tall + below, own, part.sign);
          out.push(made.svg);
          if (image) { at += own + 12; tall = Math.max(tall, made.height); } else below += made.height;
        });
        return { svg: out.join(""), height: tall + below };
      },
    };
  }

  function imagePanel(side, parent) {
    const [rows, columns] = side.grid, [W, H] = side.size, [fx0, fy0, fx1, fy1] = side.frame;
    const cw = (fx1 - fx0) / columns, ch = (fy1 - fy0) / rows;
    const holder = make("div", parent, "ss-picture"), photo = make("div", holder, "ss-photo");
    const image = make("img", photo), canvas = make("canvas", photo), cell = make("div", photo, "ss-cell"), box = make("div", photo, "ss-box");
    photo.style.setProperty("--ratio", W / H);
    image.src = data.pictures[side.source]; image.alt = ""; image.draggable = false;
    photo.tabIndex = 0;
    photo.setAttribute("role", "application");
    photo.setAttribute("aria-label", `${side.alt}. Arrow keys move over the ${side.seconds === undefined ? "picture" : "sound"}, with Shift they size the box, Enter sets one, Escape removes it.`);
    // What the model does not see (cropped away) is greyed.
    [[0, 0, fx0, H], [fx1, 0, W, H], [fx0, 0, fx1, fy0], [fx0, fy1, fx1, H]].forEach((part) => {
      const [x0, y0, x1, y1] = part.map((v, i) => clamp(v, 0, i % 2 ? H : W));
      if (x1 - x0 >= 1 && y1 - y0 >= 1) lay(make("div", photo, "ss-unseen"), [x0, y0, x1, y1]);
    });
    const scale = make("div", holder, "ss-scale"), low = make("span", scale), ramp = make("canvas", scale, "ss-ramp"), high = make("span", scale);
    ramp.width = 128; ramp.height = 1;
    let shown = new Float64Array(rows * columns), limit = 1, area = null, cursor = null, listener = () => {};

    function lay(node, [x0, y0, x1, y1]) {
      Object.assign(node.style, { left: `${100 * x0 / W}%`, top: `${100 * y0 / H}%`, width: `${100 * (x1 - x0) / W}%`, height: `${100 * (y1 - y0) / H}%` });
    }
    function paint() {
      heat.paint(canvas, side, shown, limit, look.scale, look.strength, look.smooth);
      photo.classList.toggle("ss-lit", look.strength > 0.02);
      const bar = ramp.getContext("2d");
      bar.clearRect(0, 0, 128, 1);
      for (let x = 0; x < 128; x++) { bar.fillStyle = css(tint(look.scale, x / 63.5 - 1, 1)); bar.fillRect(x, 0, 1, 1); }
      low.textContent = "−" + tiny(limit); high.textContent = "+" + tiny(limit);
    }
    // Cells by the share of their area that lies in the box: the same rule as Interactions.box.
    function weights() {
      if (!area) return null;
      const out = new Float64Array(rows * columns);
      for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
        const x = fx0 + c * cw, y = fy0 + r * ch;
        out[r * columns + c] = Math.max(0, Math.min(area[2], x + cw) - Math.max(area[0], x)) * Math.max(0, Math.min(area[3], y + ch) - Math.max(area[1], y)) / (cw * ch);
      }
      return out;
    }
    function frame() {
      box.hidden = !area;
      if (area) lay(box, area);
    }
    function set(selection) { area = selection ? selection.slice() : null; frame(); }

    // Pointer: edges and corners size the box, its inside moves it, anywhere else begins a new one.
    let grip = null;
    const at = (event) => {
      const r = photo.getBoundingClientRect();
      return [clamp((event.clientX - r.left) / r.width * W, 0, W), clamp((event.clientY - r.top) / r.height * H, 0, H), W / r.width];
    };
    function gripAt([x, y, pixel], coarse) {
      if (!area) return null;
      const near = Math.min((coarse ? 18 : 9) * pixel, Math.max(4 * pixel, (area[2] - area[0]) / 3), Math.max(4 * pixel, (area[3] - area[1]) / 3));
      if (x < area[0] - near || x > area[2] + near || y < area[1] - near || y > area[3] + near) return null;
      const across = Math.abs(x - area[0]) <= near ? -1 : Math.abs(x - area[2]) <= near ? 1 : 0;
      const down = Math.abs(y - area[1]) <= near ? -1 : Math.abs(y - area[3]) <= near ? 1 : 0;
      return { across, down, from: [x, y], start: area.slice() };
    }
    const cursors = (g) => !g ? "crosshair" : !g.across && !g.down ? "move" : !g.down ? "ew-resize" : !g.across ? "ns-resize" : g.across === g.down ? "nwse-resize" : "nesw-resize";
    on(photo, "pointerdown", (event) => {
      if (event.button) return;
      photo.setPointerCapture(event.pointerId);
      const place = at(event);
      grip = { ...(gripAt(place, event.pointerType === "touch") || { fresh: true, from: place, start: area && area.slice() }), moved: false };
    });
    on(photo, "pointermove", (event) => {
      const place = at(event), [x, y] = place;
      if (!grip) { photo.style.cursor = cursors(gripAt(place)); point(event, x, y); return; }
      const dx = x - grip.from[0], dy = y - grip.from[1];
      if (!grip.moved && Math.abs(dx) + Math.abs(dy) < 4 * place[2]) return;
      grip.moved = true;
      if (grip.fresh) area = [Math.min(grip.from[0], x), Math.min(grip.from[1], y), Math.max(grip.from[0], x), Math.max(grip.from[1], y)];
      else if (!grip.across && !grip.down) area = shifted(grip.start, dx, dy);
      else area = sized(grip.start, grip.across, grip.down, dx, dy);
      hint(null); cell.hidden = true;
      frame();
      live();
    });
    // Colours follow the box while it moves, once a frame.
    let waiting = false;
    function live() {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; listener(); });
    }
    on(photo, "pointerup", () => {
      if (!grip) return;
      const { moved, fresh } = grip;
      grip = null;
      // A click beside the box removes it, a click inside leaves it.
      if (!moved && fresh) area = null;
      if (area && (area[2] - area[0] < W / 200 || area[3] - area[1] < H / 200)) area = null;
      frame();
      listener();
    });
    on(photo, "pointercancel", () => { if (grip) { area = grip.start; grip = null; frame(); listener(); } });
    on(photo, "pointerleave", () => { hint(null); cell.hidden = true; });
    function point(event, x, y) {
      const c = Math.floor((x - fx0) / cw), r = Math.floor((y - fy0) / ch);
      if (c < 0 || r < 0 || c >= columns || r >= rows) { hint(null); cell.hidden = true; return; }
      lay(cell, [fx0 + c * cw, fy0 + r * ch, fx0 + (c + 1) * cw, fy0 + (r + 1) * ch]);
      cell.hidden = false;
      hint(`row ${r + 1}, column ${c + 1}: ${signed(shown[r * columns + c], 5)}`, event.clientX, event.clientY);
    }
    const shifted = (b, dx, dy) => { dx = clamp(dx, -b[0], W - b[2]); dy = clamp(dy, -b[1], H - b[3]); return [b[0] + dx, b[1] + dy, b[2] + dx, b[3] + dy]; };
    function sized(b, across, down, dx, dy) {
      const out = b.slice();
      if (across) out[across < 0 ? 0 : 2] = clamp(out[across < 0 ? 0 : 2] + dx, 0, W);
      if (down) out[down < 0 ? 1 : 3] = clamp(out[down < 0 ? 1 : 3] + dy, 0, H);
      return [Math.min(out[0], out[2]), Math.min(out[1], out[3]), Math.max(out[0], out[2]), Math.max(out[1], out[3])];
    }
    // Keys: a cell cursor without a box; Enter makes the cell a box, arrows then move it, Shift sizes it.
    const cellBox = ([c, r]) => [Math.max(0, fx0 + c * cw), Math.max(0, fy0 + r * ch), Math.min(W, fx0 + (c + 1) * cw), Math.min(H, fy0 + (r + 1) * ch)];
    on(photo, "keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!step && !["Enter", " ", "Delete", "Backspace"].includes(event.key)) return;
      event.preventDefault();
      if (event.key === "Delete" || event.key === "Backspace") { set(null); listener(); return; }
      if (!step) { if (!area) { cursor = cursor || [columns >> 1, rows >> 1]; area = cellBox(cursor); cell.hidden = true; hint(null); } else set(null); frame(); listener(); return; }
      const [dx, dy] = step;
      if (area) {
        const b = area;
        area = event.shiftKey ? [b[0], b[1], clamp(b[2] + dx * cw, b[0] + cw / 2, W), clamp(b[3] + dy * ch, b[1] + ch / 2, H)] : shifted(b, dx * cw, dy * ch);
        frame(); listener(); return;
      }
      cursor = cursor ? [clamp(cursor[0] + dx, 0, columns - 1), clamp(cursor[1] + dy, 0, rows - 1)] : [columns >> 1, rows >> 1];
      lay(cell, cellBox(cursor));
      cell.hidden = false;
      const r = cell.getBoundingClientRect();
      hint(`row ${cursor[1] + 1}, column ${cursor[0] + 1}: ${signed(shown[cursor[1] * columns + cursor[0]], 5)}`, r.right, r.bottom);
      spoken.textContent = tip.textContent;
    });
    on(photo, "blur", () => { cell.hidden = true; hint(null); spoken.textContent = ""; });
    cell.hidden = true;
    frame();
    return {
      hint: "Drag a box on a picture to see what it matched.",
      all: side.seconds === undefined ? "the whole image" : "the whole sound",
      weights, set,
      get: () => area && area.slice(),
      colour: (values, end) => { shown = values; limit = end || largest(values); paint(); },
      name: () => side.seconds ? `${(area[0] / W * side.seconds).toFixed(2)}–${(area[2] / W * side.seconds).toFixed(2)} s` : `the box ${stroke(area)}`,
      onChange: (f) => { listener = f; },
      draw: (x, y, width, sign) => {
        const height = width * H / W, k = width / W;
        const dim = look.strength > 0.02 ? ` filter="url(#ss-fade)"` : "";
        let svg = `<image href="${data.pictures[side.source]}" x="${x}" y="${y}" width="${width}" height="${height}" preserveAspectRatio="none"${dim}/>`;
        svg += `<image href="${canvas.toDataURL()}" x="${x}" y="${y}" width="${width}" height="${height}" preserveAspectRatio="none"/>`;
        if (area) svg += `<rect x="${x + area[0] * k}" y="${y + area[1] * k}" width="${(area[2] - area[0]) * k}" height="${(area[3] - area[1]) * k}" fill="none" stroke="#ffd400" stroke-width="2.5"/>`;
        if (sign) svg += `<text x="${x + 8}" y="${y + 24}" font-size="22" font-weight="bold" fill="#fff" stroke="#000" stroke-width="3" paint-order="stroke">${sign > 0 ? "+" : "−"}</text>`;
        const bar = y + height + 8;
        svg += `<image href="${ramp.toDataURL()}" x="${x + 70}" y="${bar}" width="140" height="9" preserveAspectRatio="none"/>`;
        svg += `<text x="${x + 64}" y="${bar + 9}" font-size="11" text-anchor="end" fill="#555">${low.textContent}</text><text x="${x + 216}" y="${bar + 9}" font-size="11" fill="#555">${high.textContent}</text>`;
        return { svg, height: height + 28 };
      },
    };
  }

  function textPanel(side, parent) {
    const line = make("p", parent, "ss-text");
    line.setAttribute("role", "group");
    line.setAttribute("aria-label", "Words. Arrow keys move, Enter picks, with Shift several.");
    let listener = () => {}, picked = new Set(), anchor = null, dragging = false, ranging = false, place = 0, shown = null, limit = 1;
    const words = side.words.map((word, index) => {
      if (side.text !== null) line.append(side.text.slice(place, word.start)); else if (index) line.append(" ");
      place = word.end;
      const button = make("button", line, "ss-word" + (word.cut && !word.shared ? " ss-cut" : ""), word.text);
      button.type = "button";
      button.disabled = word.cut;
      button.tabIndex = -1;
      if (word.cut) button.title = word.shared ? "part of a neighbour's token" : "cut off: the caption is longer than the model's context";
      button.dataset.index = index;
      return button;
    });
    if (side.text !== null) line.append(side.text.slice(place));
    const open = side.words.map((w, i) => i).filter((i) => !side.words[i].cut);
    if (open.length) words[open[0]].tabIndex = 0;
    const mark = () => words.forEach((w, i) => { w.classList.toggle("ss-on", picked.has(i)); w.setAttribute("aria-pressed", picked.has(i)); });
    const indices = () => [...picked].sort((a, b) => a - b);
    const range = (a, b) => { picked = new Set(open.filter((i) => i >= Math.min(a, b) && i <= Math.max(a, b))); };
    const under = (event) => {
      const node = document.elementFromPoint(event.clientX, event.clientY);
      const inner = node && node.shadowRoot ? node.shadowRoot.elementFromPoint(event.clientX, event.clientY) : node;
      return inner && line.contains(inner) && inner.dataset.index !== undefined ? Number(inner.dataset.index) : null;
    };
    function choose(index, adding) {
      if (side.words[index].cut) return;
      const alone = picked.size === 1 && picked.has(index);
      if (adding) { if (!picked.delete(index)) picked.add(index); } else picked = new Set(alone ? [] : [index]);
    }
    const report = () => { mark(); listener(); };
    on(line, "pointerdown", (event) => {
      const index = under(event);
      if (event.button || index === null) return;
      anchor = index; dragging = true; ranging = false; hint(null);
      if (event.shiftKey && picked.size) range(Math.min(...picked, index), Math.max(...picked, index));
      else choose(index, event.ctrlKey || event.metaKey || event.shiftKey);
      mark();
    });
    on(window, "pointermove", (event) => {
      if (!dragging) return;
      const index = under(event);
      // A hand that trembles on one word picks no range.
      if (index === null || index === anchor && !ranging) return;
      ranging = true;
      range(anchor, index); mark();
    });
    on(window, "pointerup", () => { if (dragging) { dragging = false; report(); } });
    on(window, "pointercancel", () => { if (dragging) { dragging = false; report(); } });
    // Pointers and keys are handled below; other clicks come from assistive technology.
    on(line, "click", (event) => {
      if (event.detail !== 0 || event.target.dataset.index === undefined) return;
      choose(Number(event.target.dataset.index), true);
      report();
    });
    on(line, "keydown", (event) => {
      if (event.target.dataset.index === undefined) return;
      const index = Number(event.target.dataset.index);
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(index, event.shiftKey); report(); return; }
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const next = open[clamp(open.indexOf(index) + step, 0, open.length - 1)];
      words.forEach((w, i) => { w.tabIndex = i === next ? 0 : -1; });
      words[next].focus();
      if (event.shiftKey) { range(anchor === null || !picked.size ? index : anchor, next); if (anchor === null) anchor = index; report(); } else anchor = next;
    });
    const about = (i) => `${side.words[i].text}: ${signed(shown[i], 5)}`;
    on(line, "pointerover focusin", (event) => {
      const node = event.target.closest("[data-index]");
      if (!node || !shown || node.disabled) return;
      // Fingers cover what they touch, and a click's focus tells nothing new.
      if (event.pointerType === "touch" || event.type === "focusin" && !node.matches(":focus-visible")) return;
      const r = node.getBoundingClientRect();
      hint(about(Number(node.dataset.index)), event.clientX || r.left, r.bottom - 8);
    });
    on(line, "pointerout focusout", () => hint(null));
    return {
      hint: "Click or drag over words to see where they matched.",
      all: "all words",
      weights: () => picked.size ? Float64Array.from(side.words, (_, i) => picked.has(i) ? 1 : 0) : null,
      get: () => picked.size ? indices() : null,
      set: (selection) => { picked = new Set(selection || []); mark(); },
      colour: (values, end) => {
        shown = values; limit = end || largest(values);
        const paper = paperOf(line);
        words.forEach((word, i) => {
          if (side.words[i].cut) return;
          const colour = tint(look.scale, clamp(values[i] / limit, -1, 1), 0.8);
          word.style.background = css(colour);
          word.style.color = ink(paper, colour);
          word.setAttribute("aria-label", `${side.words[i].text} ${signed(values[i])}`);
        });
      },
      name: () => "“" + indices().map((i) => side.words[i].text).join(" ") + "”",
      onChange: (f) => { listener = f; },
      draw: (x, y, width, sign) => {
        const context = make("canvas").getContext("2d"), out = [];
        context.font = "20px system-ui, sans-serif";
        let left = x, top = y + 8;
        if (sign) { out.push(`<text x="${x}" y="${top + 21}" font-size="20" fill="#555">${sign > 0 ? "+" : "−"}</text>`); left += 22; }
        side.words.forEach((word, i) => {
          const wide = context.measureText(word.text).width + 10;
          if (left + wide > x + width && left > x) { left = x; top += 38; }
          const [r, g, b, a] = word.cut ? [0, 0, 0, 0] : tint(look.scale, clamp(shown[i] / limit, -1, 1), 0.8);
          const frame = picked.has(i) ? ` stroke="#b58900" stroke-width="2.5"` : "";
          const dark = 0.3 * (255 + a * (r - 255)) + 0.6 * (255 + a * (g - 255)) + 0.1 * (255 + a * (b - 255)) < 125;
          out.push(`<rect x="${left}" y="${top}" width="${wide}" height="30" rx="6" fill="rgb(${r},${g},${b})" fill-opacity="${a.toFixed(3)}"${frame}/>`);
          out.push(`<text x="${left + 5}" y="${top + 21}" font-size="20" fill="${dark ? "#fff" : "#111"}" textLength="${wide - 10}" lengthAdjust="spacingAndGlyphs">${escaped(word.text)}</text>`);
          left += wide + 8;
        });
        return { svg: out.join(""), height: top + 38 - y };
      },
    };
  }

  // Two texts also as a table: a row a left word, a column a right one; a click picks the pair.
  function matrixPanel(parent) {
    const holder = make("div", parent, "ss-matrix"), table = make("table", holder), [rows, columns] = now.groups;
    holder.tabIndex = 0;
    holder.setAttribute("role", "region");
    make("caption", table, "", "Interaction of every pair of words");
    const head = make("tr", make("thead", table)), body = make("tbody", table);
    make("td", head);
    now.right.words.forEach((word) => { make("th", head, "", word.text).scope = "col"; });
    const cells = now.left.words.map((word, i) => {
      const row = make("tr", body);
      make("th", row, "", word.text).scope = "row";
      return now.right.words.map((other, j) => {
        const cell = make("td", row), value = now.matrix[i * columns + j];
        const short = Math.abs(value).toFixed(3);
        cell.textContent = (value < 0 && Number(short) ? "−" : "") + short.replace(/^0/, "");
        cell.title = `${word.text} × ${other.text}: ${signed(value, 5)}`;
        if (!word.cut && !other.cut) on(cell, "click", () => { panels[0].set([i]); panels[1].set([j]); show(); });
        return cell;
      });
    });
    const limit = largest(now.matrix);
    return {
      draw: () => {
        const weights = panels.map((panel) => panel.weights()), paper = paperOf(table);
        for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) {
          const colour = tint(look.scale, clamp(now.matrix[i * columns + j] / limit, -1, 1), 0.85), cell = cells[i][j];
          cell.style.background = css(colour);
          cell.style.color = ink(paper, colour);
          cell.classList.toggle("ss-on", Boolean(weights[0] && weights[1] && weights[0][i] && weights[1][j]));
        }
      },
    };
  }

  // From nothing to the similarity: every bar begins where the one above ended.
  function summary() {
    card.textContent = "";
    const table = make("table", card), ends = [0];
    now.terms.forEach((term) => ends.push(ends[ends.length - 1] + term[1]));
    const low = Math.min(...ends), span = Math.max(...ends) - low || 1;
    const row = (name, value, from, to, className) => {
      const line = make("tr", table, className);
      make("th", line, "", name).scope = "row";
      make("td", line, "ss-num", value);
      const cell = make("td", line, "ss-bar");
      if (from === null) return cell;
      const bar = make("i", cell);
      const zero = make("s", cell);
      zero.style.left = `${100 * -low / span}%`;
      Object.assign(bar.style, { left: `${100 * (Math.min(from, to) - low) / span}%`, width: `${100 * Math.abs(to - from) / span}%`, background: css(tint(look.scale, to < from ? -1 : 1, 0.85)) });
      return cell;
    };
    now.terms.forEach(([name, value], i) => {
      row(name, signed(value), ends[i], ends[i + 1]);
      if (name !== "interaction" || Math.abs(now.hidden) < 5e-5) return;
      row("of it shown on the two sides", signed(value - now.hidden), ends[i], ends[i + 1] - now.hidden, "ss-part-of");
      row("of it in special positions", signed(now.hidden), ends[i + 1] - now.hidden, ends[i + 1], "ss-part-of");
    });
    const total = row(now.called, signed(now.similarity), null, null, "ss-total");
    make("small", total, "", `the four terms add up to it within ${minus(now.error.toExponential(1))}`);
  }

  // What is seen, as one drawing of its own; words stay text in the SVG.
  async function picture(kind) {
    const width = 720, margin = 20, inner = width - 2 * margin, out = [];
    const context = make("canvas").getContext("2d"), said = [...status.childNodes].filter((n) => n.nodeType === 3 || n.tagName === "B").map((n) => n.textContent).join("").trim();
    context.font = "14px system-ui, sans-serif";
    let y = margin + 12, line = "";
    for (const word of said.split(" ")) {
      if (context.measureText(`${line} ${word}`).width > inner) { out.push(`<text x="${margin}" y="${y}" font-size="14" fill="#111">${escaped(line)}</text>`); y += 19; line = word; } else line = line ? `${line} ${word}` : word;
    }
    out.push(`<text x="${margin}" y="${y}" font-size="14" fill="#111">${escaped(line)}</text>`);
    y += 12;
    panels.forEach((panel) => { const made = panel.draw(margin, y, inner); out.push(made.svg); y += made.height + 4; });
    const parts = now.terms.map(([name, value], i) => `${value < 0 ? "−" : i ? "+" : ""} ${Math.abs(value).toFixed(4)} ${name}`).join(" ").trim();
    out.push(`<text x="${margin}" y="${y + 18}" font-size="12" fill="#555">${escaped(`${now.called} ${minus(now.similarity.toFixed(4))} = ${parts}, error ${minus(now.error.toExponential(1))}`)}</text>`);
    const height = Math.ceil(y + 34);
    const fade = `<filter id="ss-fade" color-interpolation-filters="sRGB"><feColorMatrix type="saturate" values="0"/><feComponentTransfer>${["R", "G", "B"].map((c) => `<feFunc${c} type="linear" slope="0.86" intercept="0.13"/>`).join("")}</feComponentTransfer></filter>`;
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif"><defs>${fade}</defs><rect width="100%" height="100%" fill="#fff"/>${out.join("")}</svg>`;
    const blob = new Blob([svg], { type: "image/svg+xml" });
    if (kind === "svg") return blob;
    const image = new Image(), source = URL.createObjectURL(blob);
    image.src = source;
    await image.decode();
    const canvas = make("canvas");
    canvas.width = 2 * width; canvas.height = 2 * height;
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    URL.revokeObjectURL(source);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  }

  function set(wanted) {
    if (wanted.reading) { reading = wanted.reading; mark("Show", reading === "alone" ? 1 : 0); }
    if (wanted.case !== undefined) mark("Caption", wanted.case);
    if (wanted.case !== undefined && wanted.case !== which) open(wanted.case, [wanted.left || null, wanted.right || null]);
    else { ["left", "right"].forEach((side, i) => { if (wanted[side] !== undefined) panels[i].set(wanted[side]); }); show(); }
  }
  return { state, set, picture, destroy: () => { listeners.abort(); if (own) own.abort(); root.textContent = ""; root.classList.remove("ss"); } };
}

/** The same in a notebook, as anywidget asks for it: what is picked goes to Python and comes from it. */
export default {
  render({ model, el }) {
    // Python's wishes come first; then what is picked here is told back, but not what Python just asked for.
    let own = true; // no echo of what Python asked for while it is being done
    const shown = view(el, model.get("data"), {
      onChange: (seen) => {
        if (own) return;
        own = true;
        model.set("state", seen);
        model.save_changes();
        own = false;
      },
    });
    const tell = () => { own = true; model.set("state", shown.state()); model.save_changes(); own = false; };
    const follow = (wanted) => { own = true; if (wanted && Object.keys(wanted).length) shown.set(wanted); own = false; tell(); };
    follow(model.get("state"));
    model.on("change:state", () => { if (!own) follow(model.get("state")); });
    return () => shown.destroy();
  },
};
