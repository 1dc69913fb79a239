"use strict";
// One explanation, two sides. Each side is a panel that shows a number per group (grid cell or word) and reports which
// groups the user picked; picking in one colours the other by the sums of the attribution matrix.
function secondsight(root, data) {
  const RED = [197, 32, 38], BLUE = [33, 89, 187];
  const make = (tag, parent, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    if (parent) parent.appendChild(node);
    return node;
  };
  const signed = (v, digits = 4) => (v < 0 ? "−" : "+") + Math.abs(v).toFixed(digits);
  const tiny = (v) => v === 0 ? "0" : Math.abs(v) >= 0.001 ? v.toFixed(4) : v.toExponential(1).replace("-", "−");
  const paint = (v, limit, most) => {
    const share = Math.max(-1, Math.min(1, v / limit));
    return [...(share < 0 ? BLUE : RED), most * Math.abs(share) ** 0.85];
  };
  const css = ([r, g, b, a]) => `rgba(${r},${g},${b},${a.toFixed(3)})`;
  const largest = (values) => values.reduce((m, v) => Math.max(m, Math.abs(v)), 0) || 1;

  root.classList.add("ss");
  const status = make("p", root, "ss-status");
  status.setAttribute("aria-live", "polite");
  const panelOf = (side, parent) => ({ image: imagePanel, text: textPanel, joined: joinedPanel })[side.kind](side, parent);
  const panels = [data.left, data.right].map((side) => panelOf(side, root));
  summary();
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") clear(); });
  panels.forEach((panel, which) => panel.onPick((picked) => {
    panels[1 - which].pick([]);
    picked.length ? show(which, picked) : clear();
  }));
  const start = data.start;
  if (start && start.length) { panels[1].pick(start); show(1, start); } else clear();

  // Sums of the matrix over the picked groups of one side, per group of the other.
  function across(which, picked) {
    const shares = picked.map((p) => Array.isArray(p) ? p : [p, 1]);
    if (which === 1) return data.matrix.map((row) => shares.reduce((sum, [j, share]) => sum + share * row[j], 0));
    const out = new Array(data.right.groups).fill(0);
    shares.forEach(([i, share]) => data.matrix[i].forEach((v, j) => { out[j] += share * v; }));
    return out;
  }
  function show(which, picked) {
    const values = across(which, picked), sum = values.reduce((a, b) => a + b, 0);
    panels[1 - which].colour(values);
    panels[which].colour(null);
    say(panels[which].name(picked), sum);
  }
  function clear() {
    panels.forEach((panel) => panel.pick([]));
    const all = (n) => Array.from({ length: n }, (_, i) => i);
    const left = across(1, all(data.right.groups));
    panels[0].colour(left);
    panels[1].colour(across(0, all(data.left.groups)));
    say(panels[0].all === panels[1].all ? "everything on both sides" : panels.map((p) => p.all).join(" and "), left.reduce((a, b) => a + b, 0), true);
  }
  function say(name, sum, everything) {
    status.textContent = "";
    status.append("Interaction of ", Object.assign(document.createElement("b"), { textContent: name }), ": ");
    status.append(Object.assign(document.createElement("b"), { textContent: signed(sum) }), ` of a ${data.called} of ${data.similarity.toFixed(4)}. `);
    if (everything) make("span", status, "ss-hint", [...new Set(panels.map((p) => p.hint))].join(" "));
    else { const button = make("button", status, "ss-clear", "clear (Esc)"); button.type = "button"; button.onclick = clear; }
  }

  // Several inputs on one side, each with its sign: groups are counted through, colours share one scale.
  function joinedPanel(side, parent) {
    const place = make("div", parent, "ss-joined");
    let first = 0, listener = () => {};
    const parts = side.parts.map((own) => {
      const holder = make("div", place, `ss-part ss-part-${own.kind}`);
      make("span", holder, "ss-sign", own.sign > 0 ? "+" : "−").title = own.sign > 0 ? "adds to the margin" : "is subtracted";
      const part = { panel: panelOf(own, make("div", holder)), first, last: first + own.groups };
      first += own.groups;
      return part;
    });
    const at = (p) => Array.isArray(p) ? p[0] : p;
    const within = (picked, part) => picked.filter((p) => at(p) >= part.first && at(p) < part.last).map((p) => Array.isArray(p) ? [p[0] - part.first, p[1]] : p - part.first);
    parts.forEach((part) => part.panel.onPick((picked) => {
      parts.forEach((other) => { if (other !== part) other.panel.pick([]); });
      listener(picked.map((p) => Array.isArray(p) ? [p[0] + part.first, p[1]] : p + part.first));
    }));
    return {
      hint: parts[0].panel.hint,
      all: parts[0].panel.all,
      colour: (values) => {
        const limit = values && largest(values);
        parts.forEach((part) => part.panel.colour(values && values.slice(part.first, part.last), limit));
      },
      pick: (picked) => parts.forEach((part) => part.panel.pick(within(picked, part))),
      name: (picked) => parts.filter((part) => within(picked, part).length).map((part) => part.panel.name(within(picked, part))).join(" and "),
      onPick: (f) => { listener = f; },
    };
  }

  function imagePanel(side, parent) {
    const [rows, columns] = side.grid, [W, H] = side.size, [fx0, fy0, fx1, fy1] = side.frame;
    const photo = make("div", parent, "ss-photo"), image = make("img", photo), canvas = make("canvas", photo), box = make("div", photo, "ss-box");
    photo.style.setProperty("--ratio", W / H);
    image.src = side.source; image.alt = side.alt; image.draggable = false;
    // What the model does not see (cropped away) is greyed.
    [[0, 0, fx0, H], [fx1, 0, W, H], [fx0, 0, fx1, fy0], [fx0, fy1, fx1, H]].forEach(([x0, y0, x1, y1]) => {
      if (x1 - x0 < 1 || y1 - y0 < 1) return;
      const veil = make("div", photo, "ss-unseen");
      Object.assign(veil.style, { left: `${100 * x0 / W}%`, top: `${100 * y0 / H}%`, width: `${100 * (x1 - x0) / W}%`, height: `${100 * (y1 - y0) / H}%` });
    });
    const scale = make("div", parent, "ss-scale");
    const low = make("span", scale), ramp = make("canvas", scale, "ss-ramp"), high = make("span", scale);
    const label = make("label", scale, "", "overlay"), slider = make("input", label);
    Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.02, value: 0.82 });
    let shown = null, end = 0, listener = () => {};
    const draw = () => {
      const most = Number(slider.value), bar = ramp.getContext("2d");
      ramp.width = 128; ramp.height = 1;
      for (let x = 0; x < 128; x++) { bar.fillStyle = css(paint(x / 63.5 - 1, 1, 1)); bar.fillRect(x, 0, 1, 1); }
      photo.classList.toggle("ss-lit", shown !== null && most > 0.02);
      const w = canvas.width = Math.min(W, 640), h = canvas.height = Math.max(1, Math.round(w * H / W));
      if (!shown) { low.textContent = high.textContent = ""; return; }
      const limit = end || largest(shown), pixels = canvas.getContext("2d").createImageData(w, h);
      low.textContent = "−" + tiny(limit); high.textContent = "+" + tiny(limit);
      const at = (r, c) => shown[Math.max(0, Math.min(rows - 1, r)) * columns + Math.max(0, Math.min(columns - 1, c))];
      for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
        const X = (x + 0.5) * W / w, Y = (y + 0.5) * H / h;
        if (X < fx0 || X > fx1 || Y < fy0 || Y > fy1) continue;
        const u = (X - fx0) / (fx1 - fx0) * columns - 0.5, v = (Y - fy0) / (fy1 - fy0) * rows - 0.5;
        const c = Math.floor(u), r = Math.floor(v), s = u - c, t = v - r;
        const value = (1 - t) * ((1 - s) * at(r, c) + s * at(r, c + 1)) + t * ((1 - s) * at(r + 1, c) + s * at(r + 1, c + 1));
        const [red, green, blue, alpha] = paint(value, limit, most), o = 4 * (y * w + x);
        pixels.data[o] = red; pixels.data[o + 1] = green; pixels.data[o + 2] = blue; pixels.data[o + 3] = 255 * alpha;
      }
      canvas.getContext("2d").putImageData(pixels, 0, 0);
    };
    slider.oninput = draw;
    let from = null, area = null;
    const place = (event) => {
      const r = photo.getBoundingClientRect();
      return [Math.max(0, Math.min(W, (event.clientX - r.left) / r.width * W)), Math.max(0, Math.min(H, (event.clientY - r.top) / r.height * H))];
    };
    const frame = () => {
      box.style.display = area ? "block" : "none";
      if (area) Object.assign(box.style, { left: `${100 * area[0] / W}%`, top: `${100 * area[1] / H}%`, width: `${100 * (area[2] - area[0]) / W}%`, height: `${100 * (area[3] - area[1]) / H}%` });
    };
    // Cells by the share of their area that lies in the box: the same rule as Interactions.box.
    const cells = () => {
      const out = [], cw = (fx1 - fx0) / columns, ch = (fy1 - fy0) / rows;
      for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
        const x = fx0 + c * cw, y = fy0 + r * ch;
        const share = Math.max(0, Math.min(area[2], x + cw) - Math.max(area[0], x)) * Math.max(0, Math.min(area[3], y + ch) - Math.max(area[1], y)) / (cw * ch);
        if (share > 0) out.push([r * columns + c, share]);
      }
      return out;
    };
    // The box around cells that were picked from outside.
    const around = (picked) => {
      const cw = (fx1 - fx0) / columns, ch = (fy1 - fy0) / rows, at = picked.map((p) => Array.isArray(p) ? p[0] : p);
      const cs = at.map((i) => i % columns), rs = at.map((i) => Math.floor(i / columns));
      return [fx0 + Math.min(...cs) * cw, fy0 + Math.min(...rs) * ch, fx0 + (Math.max(...cs) + 1) * cw, fy0 + (Math.max(...rs) + 1) * ch];
    };
    if (side.box) area = side.box;
    photo.addEventListener("pointerdown", (event) => { if (event.button) return; photo.setPointerCapture(event.pointerId); from = place(event); });
    photo.addEventListener("pointermove", (event) => {
      if (!from) return;
      const to = place(event);
      area = [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])];
      frame();
    });
    const finish = () => {
      if (!from) return;
      from = null;
      const large = area && area[2] - area[0] > W / 100 && area[3] - area[1] > H / 100;
      if (!large) area = null;
      frame();
      listener(area ? cells() : []);
    };
    photo.addEventListener("pointerup", finish);
    photo.addEventListener("pointercancel", () => { from = area = null; frame(); });
    return {
      hint: "Drag a box on a picture to see what it matched.",
      all: side.seconds === undefined ? "the whole image" : "the whole sound",
      colour: (values, limit) => { shown = values; end = limit; draw(); },
      pick: (picked) => { if (!picked.length) area = null; else area = area || around(picked); frame(); },
      name: () => side.seconds ? `${(area[0] / W * side.seconds).toFixed(2)}–${(area[2] / W * side.seconds).toFixed(2)} s` : `the box ${area.map(Math.round).join(", ")}`,
      onPick: (f) => { listener = f; },
    };
  }

  function textPanel(side, parent) {
    const line = make("p", parent, "ss-text");
    let listener = () => {}, picked = new Set(), anchor = null, dragging = false, place = 0;
    const words = side.words.map((word, index) => {
      if (side.text !== null) line.append(side.text.slice(place, word.start)); else if (index) line.append(" ");
      place = word.end;
      const button = make("button", line, "ss-word" + (word.cut ? " ss-cut" : ""), word.text);
      button.type = "button";
      button.disabled = word.cut;
      if (word.cut) button.title = "cut off: the caption is longer than the model's context";
      button.dataset.index = index;
      return button;
    });
    if (side.text !== null) line.append(side.text.slice(place));
    const mark = () => words.forEach((w, i) => { w.classList.toggle("ss-on", picked.has(i)); w.setAttribute("aria-pressed", picked.has(i)); });
    const range = (a, b) => { for (let i = Math.min(a, b); i <= Math.max(a, b); i++) if (!side.words[i].cut) picked.add(i); };
    const under = (event) => { const node = document.elementFromPoint(event.clientX, event.clientY); return node && line.contains(node) && node.dataset.index !== undefined ? Number(node.dataset.index) : null; };
    const choose = (index, adding) => {
      if (side.words[index].cut) return;
      const alone = picked.size === 1 && picked.has(index);
      if (adding) { if (picked.has(index)) picked.delete(index); else picked.add(index); }
      else { picked = new Set(alone ? [] : [index]); }
    };
    const report = () => { mark(); listener([...picked].sort((a, b) => a - b)); };
    line.addEventListener("pointerdown", (event) => {
      const index = under(event);
      if (event.button || index === null) return;
      anchor = index; dragging = true;
      choose(index, event.shiftKey || event.ctrlKey || event.metaKey);
      mark();
    });
    window.addEventListener("pointermove", (event) => {
      if (!dragging) return;
      const index = under(event);
      if (index === null || index === anchor && picked.size < 2) return;
      picked = new Set(); range(anchor, index); mark();
    });
    window.addEventListener("pointerup", () => { if (dragging) { dragging = false; report(); } });
    window.addEventListener("pointercancel", () => { dragging = false; });
    line.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " " || event.target.dataset.index === undefined) return;
      event.preventDefault();
      choose(Number(event.target.dataset.index), event.shiftKey);
      report();
    });
    return {
      hint: "Click or drag over words to see where they matched.",
      all: "all words",
      colour: (values, end) => {
        const limit = end || (values ? largest(values) : 1);
        words.forEach((word, i) => {
          const ink = values && !side.words[i].cut ? paint(values[i], limit, 0.8) : null;
          word.style.background = ink ? css(ink) : "";
          word.style.color = ink && ink[3] > 0.55 ? "#fff" : "";
          if (!side.words[i].cut) word.title = values ? `${side.words[i].text}: ${signed(values[i])}` : "";
        });
      },
      pick: (indices) => { picked = new Set(indices); mark(); },
      name: (indices) => "“" + indices.map((i) => side.words[i].text).join(" ") + "”",
      onPick: (f) => { listener = f; },
    };
  }

  function summary() {
    const card = make("section", root, "ss-sum"), table = make("table", card), limit = largest(data.terms.map((t) => t[1]));
    data.terms.forEach(([name, value]) => {
      const row = make("tr", table);
      make("th", row, "", name).scope = "row";
      make("td", row, "ss-num", signed(value));
      const bar = make("i", make("td", row, "ss-bar"));
      const share = 50 * Math.abs(value) / limit;
      Object.assign(bar.style, { left: `${value < 0 ? 50 - share : 50}%`, width: `${share}%`, background: css(paint(value, 1e-12, 0.85)) });
    });
    const total = make("tr", table, "ss-total");
    make("th", total, "", data.called).scope = "row";
    make("td", total, "ss-num", signed(data.similarity));
    make("small", make("td", total, "ss-bar"), "", `the four terms add up to it within ${data.error.toExponential(1).replace("-", "−")}`);
    make("p", root, "ss-foot", data.note);
  }
}
