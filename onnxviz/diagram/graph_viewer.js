"use strict";
// The graph on a page: moving about, opening groups, search, and what is known of a block.
window.onnxvizGraph = (() => {
  const { Graph } = window.OnnxvizLayout;
  const clamp = (v, low, high) => Math.max(low, Math.min(high, v));
  const MOST = 64; // tensors in a list of the panel
  const KEYS = [
    ["drag, wheel, two fingers", "move"], ["Ctrl + wheel, pinch, + −", "zoom"], ["0", "fit"], ["/", "search"],
    ["↑ ↓", "to what feeds it, to what it feeds"], ["← →", "to its neighbours"], ["Enter, double click", "open or close a group"],
    ["A, D", "all it depends on, all that depends on it"], ["E, C", "open, close everything"], ["Esc", "clear"],
  ];

  async function unpacked(element) {
    const bytes = Uint8Array.from(atob(element.textContent.trim()), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  function made(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value); else element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }
  // A name keeps its own direction, whatever it holds.
  const named = (text) => made("bdi", {}, text);

  class Viewer {
    constructor(root, data, details, options) {
      this.root = root; this.details = details; this.options = options;
      this.graph = new Graph(data);
      this.view = { x: 0, y: 0, scale: 1 };
      this.state = { theme: root.dataset.theme || "light", selected: -1, hover: -1, traced: null, found: new Set() };
      this.build();
      this.painter = new window.OnnxvizPainter(this.graph, this.canvas);
      this.painter.later = () => this.later();
      this.listen();
      this.breadcrumbs(-1);
      this.start();
      this.draw();
      new ResizeObserver(() => this.later()).observe(this.canvas);
      this.follow();
    }

    build() {
      const button = (text, title, run) => made("button", { type: "button", title, onclick: () => { run(); this.canvas.focus(); } }, text);
      this.search = made("input", { type: "search", placeholder: "Search: name, op:Conv, shape:64×56, attr:stride", "aria-label": "Search the graph" });
      this.count = made("output", { class: "graph-count" });
      this.results = made("ul", { class: "graph-results", hidden: "" });
      this.crumbs = made("nav", { class: "graph-crumbs", "aria-label": "Where the selected block lies" });
      this.canvas = made("canvas", { tabindex: "0", role: "application", "aria-label": "The graph: arrow keys move from block to block" });
      this.map = made("canvas", { class: "graph-map", "aria-hidden": "true" });
      this.tip = made("div", { class: "graph-tip", hidden: "" });
      this.panel = made("aside", { class: "graph-panel", hidden: "", "aria-label": "About the selected block" });
      this.help = made("div", { class: "graph-help", hidden: "" }, made("table", {}, ...KEYS.map(([key, what]) => made("tr", {}, made("th", {}, key), made("td", {}, what)))));
      const themes = made("select", { title: "Colours", "aria-label": "Colours", onchange: () => this.theme(themes.value) },
        ...Object.keys(this.graph.colours).map((name) => made("option", this.state.theme === name ? { selected: "" } : {}, name)));
      const grouped = this.graph.levels.size > 1;
      this.root.append(
        made("div", { class: "graph-bar" }, made("div", { class: "graph-search" }, this.search, this.count, this.results),
          button("Fit", "Show everything (0)", () => this.fit()), button("−", "Zoom out", () => this.zoom(1 / 1.3)), button("+", "Zoom in", () => this.zoom(1.3)),
          ...(grouped ? [button("Open all", "Open every group (E)", () => this.all(true)), button("Close all", "Close every group (C)", () => this.all(false))] : []),
          themes, button("?", "Keys", () => { this.help.hidden = !this.help.hidden; })),
        this.crumbs,
        this.stage = made("div", { class: "graph-stage" }, this.canvas, this.map, this.legend(), this.tip, this.help, this.panel));
      this.root.dataset.theme = this.state.theme;
    }

    legend() {
      const given = this.root.querySelector(".graph-legend");
      if (given) { given.remove(); return given; }
      const used = this.graph.kinds.filter((kind) => kind[4]);
      this.swatches = used.map(([title, fill, stroke]) => [made("i"), title, fill, stroke]);
      return made("div", { class: "graph-legend" }, ...this.swatches.map(([swatch, title]) => made("span", {}, swatch, title)));
    }

    theme(name) {
      this.state.theme = this.root.dataset.theme = name;
      this.later();
    }

    // ---- view ----
    start() {
      const { width, height } = this.graph.root, w = this.canvas.clientWidth, h = this.canvas.clientHeight;
      const scale = clamp(Math.min((w - 40) / width, (h - 40) / height), 0.75, 1.2);
      this.view = { scale, x: width / 2 - w / scale / 2, y: Math.min(-20 / scale, height / 2 - h / scale / 2) };
      if (height * scale > h) this.view.y = -20 / scale;
      this.focusWide();
    }
    // A graph that is far wider than the window is shown where its first block stands.
    focusWide() {
      const { root } = this.graph, w = this.canvas.clientWidth / this.view.scale;
      const { role } = this.graph.boxes, row = root.rows.find((boxes) => boxes.some((i) => role[root.members[i]] < 2)) || root.rows[0];
      if (root.width > w && row) this.view.x = root.cx[row[row.length >> 1]] - w / 2;
    }
    fit(rect = [0, 0, this.graph.root.width, this.graph.root.height]) {
      const [w, h] = this.room();
      const scale = clamp(Math.min((w - 40) / Math.max(rect[2], 1), (h - 40) / Math.max(rect[3], 1)), 1e-4, 1.6);
      this.view = { scale, x: rect[0] + rect[2] / 2 - w / scale / 2, y: rect[1] + rect[3] / 2 - h / scale / 2 };
      this.later();
    }
    // Width and height of what the panel leaves free: it stands at the right, in a narrow window below.
    room() {
      const { clientWidth: w, clientHeight: h } = this.canvas;
      if (this.panel.hidden) return [w, h];
      return this.panel.offsetWidth >= w - 1 ? [w, h - this.panel.offsetHeight] : [w - this.panel.offsetWidth, h];
    }
    narrow() { return this.canvas.clientWidth < 600; }
    zoom(factor, px = this.canvas.clientWidth / 2, py = this.canvas.clientHeight / 2) {
      const scale = clamp(this.view.scale * factor, 1e-4, 6);
      this.view.x += px / this.view.scale - px / scale; this.view.y += py / this.view.scale - py / scale;
      this.view.scale = scale;
      this.later();
    }
    pan(dx, dy) { this.view.x += dx / this.view.scale; this.view.y += dy / this.view.scale; this.later(); }
    later() { if (!this.waiting) this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.draw(); }); }
    draw() {
      this.painter.draw(this.view, this.state);
      this.minimap();
      if (this.swatches) for (const [swatch, , fill, stroke] of this.swatches) {
        swatch.style.background = this.painter.colour(fill); swatch.style.borderColor = this.painter.colour(stroke);
      }
      if (!this.shown) { this.shown = true; performance.mark("onnxviz-first-picture"); this.root.dataset.drawn = "yes"; }
    }
    minimap() {
      const { root } = this.graph;
      this.map.hidden = !root.members.length;
      if (this.map.hidden) return;
      const most = [150, 190], ratio = window.devicePixelRatio || 1;
      const whole = Math.min(most[0] / root.width, most[1] / root.height);
      const sx = Math.max(whole, 44 / root.width), sy = Math.max(whole, 44 / root.height); // a long one is drawn wider than it is
      const w = Math.min(most[0], root.width * sx), h = Math.min(most[1], root.height * sy), c = this.map.getContext("2d");
      const key = [this.state.theme, root.width, root.height, this.graph.closed.size, ratio].join(" ");
      this.mapScale = [w / root.width, h / root.height];
      if (this.mapKey !== key) {
        this.mapKey = key;
        this.picture = new OffscreenCanvas(Math.ceil(w * ratio), Math.ceil(h * ratio));
        const p = this.picture.getContext("2d");
        p.scale(ratio, ratio); p.fillStyle = this.painter.paper("paper"); p.fillRect(0, 0, w, h);
        this.miniature(root, p);
      }
      if (this.map.width !== this.picture.width || this.map.height !== this.picture.height) { this.map.width = this.picture.width; this.map.height = this.picture.height; }
      this.map.style.width = `${w}px`; this.map.style.height = `${h}px`;
      c.setTransform(1, 0, 0, 1, 0, 0); c.drawImage(this.picture, 0, 0); c.scale(ratio, ratio);
      const [kx, ky] = this.mapScale;
      c.strokeStyle = this.painter.paper("mark"); c.lineWidth = 1.5;
      const x = clamp(this.view.x * kx, 0, w), y = clamp(this.view.y * ky, 0, h);
      const right = clamp((this.view.x + this.canvas.clientWidth / this.view.scale) * kx, 0, w);
      const bottom = clamp((this.view.y + this.canvas.clientHeight / this.view.scale) * ky, 0, h);
      c.strokeRect(x + 0.75, y + 0.75, Math.max(right - x - 1.5, 3), Math.max(bottom - y - 1.5, 3));
    }
    miniature(level, p) {
      const [kx, ky] = this.mapScale;
      let last = -1;
      for (let r = 0; r < level.rows.length; r++) {
        const y = Math.floor((level.oy + level.top[r]) * ky);
        if (y === last && (level.bottom[r] - level.top[r]) * ky < 0.5) continue;
        last = y;
        for (const i of level.rows[r]) {
          if (i >= level.count) continue;
          const inner = level.open.get(i), element = level.members[i];
          const w = Math.max(level.bw[i] * kx, 1), h = Math.max(level.bh[i] * ky, 1);
          p.fillStyle = inner ? this.painter.paper("frame") : this.painter.fill(element);
          p.fillRect((level.ox + level.cx[i]) * kx - w / 2, (level.oy + level.cy[i]) * ky - h / 2, w, h);
          if (inner) this.miniature(inner, p);
        }
      }
    }

    // ---- pointer and keys ----
    world(event) {
      const box = this.canvas.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
      return [this.view.x + px / this.view.scale, this.view.y + py / this.view.scale, px, py];
    }
    under(event) { const [x, y] = this.world(event); return this.graph.at(x, y); }
    listen() {
      const { canvas } = this, fingers = new Map();
      let moved = false;
      canvas.addEventListener("pointerdown", (event) => {
        canvas.setPointerCapture(event.pointerId); fingers.set(event.pointerId, event); moved = false; this.tip.hidden = true;
      });
      canvas.addEventListener("pointermove", (event) => {
        const before = fingers.get(event.pointerId);
        if (!before) { this.point(event); return; }
        const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
        if (!moved && Math.hypot(dx, dy) < 3) return;
        moved = true;
        if (fingers.size === 2) {
          const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
          const span = (finger) => Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY);
          const [, , px, py] = this.world(other);
          this.zoom(span(event) / Math.max(span(before), 1), px, py);
        } else this.pan(-dx, -dy);
        fingers.set(event.pointerId, event);
      });
      const up = (event) => {
        if (fingers.delete(event.pointerId) && !moved && event.type === "pointerup") this.click(event);
      };
      canvas.addEventListener("pointerup", up); canvas.addEventListener("pointercancel", up);
      canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; if (this.state.hover >= 0) { this.state.hover = -1; this.later(); } });
      canvas.addEventListener("dblclick", (event) => { const hit = this.under(event); if (hit) this.toggle(hit.element); });
      canvas.addEventListener("wheel", (event) => {
        const zooms = event.ctrlKey || event.metaKey;
        if (this.options.embedded && !zooms) return; // the page scrolls on
        event.preventDefault();
        const unit = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
        const [, , px, py] = this.world(event);
        if (zooms) this.zoom(Math.exp(-clamp(event.deltaY * unit, -200, 200) / 250), px, py);
        else this.pan(event.shiftKey ? event.deltaY * unit : event.deltaX * unit, event.shiftKey ? 0 : event.deltaY * unit);
      }, { passive: false });
      this.map.addEventListener("pointerdown", (event) => { this.map.setPointerCapture(event.pointerId); this.jump(event); });
      this.map.addEventListener("pointermove", (event) => { if (event.buttons) this.jump(event); });
      (this.options.embedded ? this.root : document).addEventListener("keydown", (event) => this.key(event));
      this.search.addEventListener("input", () => this.find());
      this.search.addEventListener("keydown", (event) => this.choose(event));
      this.search.addEventListener("focus", () => { if (this.search.value) this.find(); });
      this.root.addEventListener("pointerdown", (event) => { if (!event.target.closest(".graph-search")) this.results.hidden = true; });
      // A button that was pressed goes with what the panel showed; keys go on to the graph.
      for (const part of [this.panel, this.crumbs])
        part.addEventListener("click", (event) => { if (event.target.closest("button")) this.canvas.focus({ preventScroll: true }); });
      window.addEventListener("hashchange", () => this.follow());
      document.addEventListener("click", (event) => { // a link that is followed again changes no address
        const link = event.target.closest && event.target.closest("a[href^='#']");
        if (link && link.getAttribute("href") === location.hash) this.follow();
      });
    }
    jump(event) {
      const box = this.map.getBoundingClientRect(), [kx, ky] = this.mapScale;
      this.view.x = (event.clientX - box.left) / kx - this.canvas.clientWidth / this.view.scale / 2;
      this.view.y = (event.clientY - box.top) / ky - this.canvas.clientHeight / this.view.scale / 2;
      this.later();
    }
    point(event) {
      const [x, y, px, py] = this.world(event), hit = this.graph.at(x, y), element = hit ? hit.element : -1;
      this.canvas.style.cursor = hit ? "pointer" : "grab";
      if (element !== this.state.hover) { this.state.hover = element; this.later(); }
      this.tip.hidden = !hit;
      if (!hit) return;
      const { boxes } = this.graph, lines = [boxes.head[element] + (boxes.note[element] ? ` · ${boxes.note[element]}` : ""), boxes.name[element], ...boxes.lines[element]];
      this.tip.replaceChildren(...[...new Set(lines.filter(Boolean))].map((line) => made("div", {}, named(line))));
      const room = this.canvas.clientWidth - this.tip.offsetWidth - 8;
      this.tip.style.left = `${Math.max(4, Math.min(px + 14, room))}px`; this.tip.style.top = `${py + 18}px`;
    }
    click(event) {
      const hit = this.under(event);
      this.canvas.focus();
      if (hit && hit.sign) this.toggle(hit.element); else this.select(hit ? hit.element : -1, hit && this.narrow());
    }
    key(event) {
      if (event.target === this.search || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
      const chosen = this.state.selected, step = 60, onGraph = event.target === this.canvas || event.target === document.body;
      const keys = {
        "/": () => this.search.focus(), "+": () => this.zoom(1.3), "=": () => this.zoom(1.3), "-": () => this.zoom(1 / 1.3), 0: () => this.fit(),
        e: () => this.all(true), c: () => this.all(false), "?": () => { this.help.hidden = !this.help.hidden; },
        a: () => chosen >= 0 && this.trace(false), d: () => chosen >= 0 && this.trace(true),
        Escape: () => this.clear(),
        Enter: () => { if (onGraph && chosen >= 0) this.toggle(chosen); else return false; },
        ArrowUp: () => chosen >= 0 ? this.walk(-1) : this.pan(0, -step), ArrowDown: () => chosen >= 0 ? this.walk(1) : this.pan(0, step),
        ArrowLeft: () => chosen >= 0 ? this.beside(-1) : this.pan(-step, 0), ArrowRight: () => chosen >= 0 ? this.beside(1) : this.pan(step, 0),
      };
      const run = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!onGraph && event.key.startsWith("Arrow")) return;
      if (run && run() !== false) event.preventDefault();
    }
    walk(way) {
      const { graph } = this, [x] = graph.rect(this.state.selected), seen = new Set();
      // Where a wire leads in the end: into open groups and out of them.
      const along = (level, i, tensor) => {
        const [from, to] = way > 0 ? [level.s, level.t] : [level.t, level.s], found = [];
        for (let k = 0; k < from.length; k++) if (from[k] === i && (tensor === undefined || level.v[k] === tensor)) found.push(...resolved(level, to[k], level.v[k]));
        return found;
      };
      const resolved = (level, i, tensor) => {
        const key = `${level.owner} ${i} ${tensor}`;
        if (seen.has(key)) return [];
        seen.add(key);
        if (i >= level.count) { const around = graph.home(level.owner); return along(around, around.position.get(level.owner), tensor); }
        const inner = level.open.get(i), gate = inner && (way > 0 ? inner.gate : inner.leave).get(tensor);
        return gate === undefined ? [level.members[i]] : along(inner, gate, tensor);
      };
      const level = graph.home(this.state.selected), found = along(level, level.position.get(this.state.selected));
      found.sort((a, b) => Math.abs(graph.rect(a)[0] - x) - Math.abs(graph.rect(b)[0] - x));
      if (found.length) this.select(found[0], true);
    }
    beside(way) {
      const level = this.graph.home(this.state.selected), i = level.position.get(this.state.selected);
      const row = level.rows[level.rank[i]].filter((k) => k < level.count), next = row[row.indexOf(i) + way];
      if (next !== undefined) this.select(level.members[next], true);
    }
    toggle(element) {
      if (!this.graph.levels.has(element) || element < 0) return;
      const before = this.graph.rect(element);
      this.graph.toggle(element);
      const after = this.graph.rect(element);
      if (before && after) { // what was clicked stays where it was
        this.view.x += after[0] + after[2] / 2 - before[0] - before[2] / 2; this.view.y += after[1] - before[1];
      }
      this.select(element);
    }
    all(open) {
      const kept = this.state.selected;
      this.graph.all(open);
      if (kept >= 0) this.select(open ? kept : this.graph.visible(kept), true); else { this.start(); this.later(); }
    }
    clear() {
      this.state.traced = null; this.state.found = new Set(); this.search.value = ""; this.count.textContent = ""; this.results.hidden = true; this.help.hidden = true;
      this.select(-1);
    }
    trace(forward) {
      const seen = this.graph.trace(this.state.selected, forward);
      this.state.traced = seen;
      let nodes = 0;
      seen.forEach((mark, element) => { if (mark && !this.graph.levels.has(element)) nodes++; });
      this.count.textContent = `${nodes.toLocaleString("en")} ${forward ? "depend on it" : "lead to it"}`;
      this.later();
    }

    // ---- selection ----
    select(element, centre = false) {
      this.state.selected = element;
      this.breadcrumbs(element);
      this.describe(element);
      if (element >= 0 && centre) this.centre(element);
      if (!this.options.embedded) history.replaceState(null, "", element >= 0 ? `#${this.graph.boxes.id[element]}` : location.pathname + location.search);
      this.later();
    }
    centre(element) {
      this.graph.reveal(element);
      const [x, y, w, h] = this.graph.rect(element), [cw, ch] = this.room();
      const scale = this.view.scale = Math.max(this.view.scale, 0.75);
      if (x < this.view.x + 20 / scale || x + w > this.view.x + (cw - 20) / scale) this.view.x = x + w / 2 - cw / scale / 2;
      if (y < this.view.y + 30 / scale || y + Math.min(h, ch / scale / 2) > this.view.y + (ch - 30) / scale)
        this.view.y = h * scale > ch ? y - 40 / scale : y + h / 2 - ch / scale / 2;
    }
    follow() {
      let id = "";
      try { id = decodeURIComponent(location.hash.slice(1)); } catch { return; }
      const element = this.graph.byId.get(id);
      if (element === undefined) return;
      if (this.options.embedded) this.root.scrollIntoView({ block: "center" });
      if (element !== this.state.selected) this.select(element, true);
    }
    breadcrumbs(element) {
      const { boxes } = this.graph, crumb = (text, run) => made("button", { type: "button", onclick: run }, named(text));
      const parts = [crumb(this.root.dataset.title || "graph", () => this.fit())];
      if (element >= 0) for (const part of this.graph.path(element))
        parts.push(" › ", crumb(boxes.head[part], () => { this.graph.reveal(part); this.fit(this.graph.rect(part)); this.select(part); }));
      this.crumbs.replaceChildren(...parts);
    }
    producers() {
      if (!this.makers) {
        this.makers = new Map();
        this.details.forEach((d, element) => { for (const tensor of d[6]) if (!this.makers.has(tensor)) this.makers.set(tensor, element); });
      }
      return this.makers;
    }
    describe(element) {
      this.panel.hidden = element < 0;
      if (element < 0) return;
      if (!this.details) { this.panel.replaceChildren(made("p", {}, "…")); return; }
      const { boxes, tensors } = this.graph, [op, domain, parameters, source, attributes, ins, outs, weights, notes, roles] = this.details[element];
      const row = (key, ...value) => made("tr", {}, made("th", {}, named(key)), made("td", {}, ...value));
      const section = (title, rows) => rows.length ? [made("h3", {}, title), made("table", {}, ...rows)] : [];
      const tensor = (index, role) => {
        const maker = this.producers().get(index), known = [made("div", { class: "graph-shape" }, tensors.text[index] || "type unknown")];
        const name = named(tensors.name[index]);
        const leads = maker !== undefined && maker !== element;
        if (role) known.unshift(made("span", { class: "graph-role" }, named(role), " "));
        known.splice(role ? 1 : 0, 0, leads ? made("button", { type: "button", title: "Go to what makes it", onclick: () => this.select(maker, true) }, name) : name);
        return made("li", {}, ...known);
      };
      const list = (title, values, roles = []) => values.length ? [made("h3", {}, title),
        made("ul", {}, ...values.slice(0, MOST).map((index, k) => tensor(index, roles[k])), ...(values.length > MOST ? [made("li", {}, `and ${(values.length - MOST).toLocaleString("en")} more`)] : []))] : [];
      const group = this.graph.levels.has(element), action = (text, title, run) => made("button", { type: "button", title, onclick: run }, text);
      const facts = [];
      if (boxes.name[element]) facts.push(row("name", named(boxes.name[element])));
      if (domain) facts.push(row("domain", named(domain)));
      if (parameters) facts.push(row("parameters", parameters.toLocaleString("en")));
      if (source) facts.push(row("from", named(source)));
      this.panel.replaceChildren(
        made("button", { type: "button", class: "graph-close", title: "Close (Esc)", onclick: () => this.select(-1) }, "×"),
        made("h2", {}, named(op || boxes.head[element])),
        made("p", { class: "graph-actions" },
          ...(group ? [action(this.graph.closed.has(element) ? "Open" : "Close", "Enter", () => this.toggle(element))] : []),
          action("What it depends on", "A", () => this.trace(false)), action("What depends on it", "D", () => this.trace(true)),
          made("a", { href: `#${boxes.id[element]}`, title: "A link to this block" }, "link")),
        ...(this.options.links && Object.hasOwn(this.options.links, boxes.id[element])
          ? [made("p", {}, made("a", { class: "graph-values", href: `#${this.options.links[boxes.id[element]]}` }, "Show its values ↓"))] : []),
        ...(this.options.views && Object.hasOwn(this.options.views, boxes.id[element])
          ? [made("p", {}, ...this.options.views[boxes.id[element]].map(([what, id]) => made("a", { class: "graph-view", href: `#${id}` }, what)))] : []),
        made("table", {}, ...facts),
        ...notes.map((note) => made("p", {}, named(note))),
        ...section("Attributes", attributes.map(([key, value]) => row(key, named(value)))),
        ...list("Inputs", ins, roles),
        ...section("Weights", weights.map(([name, what, said]) => row(name, what, ...(said ? [made("div", { class: "graph-shape" }, said)] : [])))),
        ...list(op ? "Outputs" : "Tensor", outs));
      this.panel.scrollTop = 0;
    }

    // ---- search ----
    haystack() {
      if (this.texts) return this.texts;
      const { boxes, tensors } = this.graph, join = (list) => list.join("\n").toLowerCase();
      this.texts = boxes.id.map((_, element) => {
        const [op, , , source, attributes, , outs, weights, notes] = this.details[element];
        const field = {
          op: join([op]), name: join([boxes.name[element], boxes.head[element], source, ...outs.map((i) => tensors.name[i]), ...weights.map((w) => w[0])]),
          attr: join(attributes.map(([key, value]) => `${key}=${value}`)), shape: join([...outs.map((i) => tensors.text[i]), ...weights.map((w) => w[1])]),
        };
        if (this.graph.levels.has(element) && !op) return { ...field, op: "", any: field.name }; // what it holds is found by itself
        return { ...field, any: join([field.op, field.name, field.attr, field.shape, ...boxes.lines[element], ...notes]) };
      });
      return this.texts;
    }
    find() {
      const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
      this.state.found = new Set(); this.hits = [];
      if (!words.length || !this.details) { this.count.textContent = ""; this.results.hidden = true; this.later(); return; }
      const tests = words.map((word) => {
        const [, field, rest] = /^(?:(op|name|attr|shape):)?(.*)$/.exec(word);
        const wanted = rest, sizes = rest.replace(/[x*,](?=[\d?]|$)/g, "×");
        if (field === "shape") return (text) => text.shape.includes(wanted) || text.shape.includes(sizes);
        return field === "op" ? (text) => text.op.startsWith(wanted) : (text) => text[field || "any"].includes(wanted);
      });
      this.haystack().forEach((text, element) => { if (tests.every((test) => test(text))) this.hits.push(element); });
      for (const element of this.hits) this.state.found.add(this.graph.visible(element));
      this.count.textContent = `${this.hits.length.toLocaleString("en")} found`;
      this.at = -1;
      const { boxes } = this.graph;
      this.results.replaceChildren(...this.hits.slice(0, 100).map((element) => made("li", { onclick: () => this.take(this.hits.indexOf(element)) },
        made("b", {}, named(boxes.head[element])), " ", named(boxes.name[element] || boxes.lines[element][0] || ""))));
      this.results.hidden = !this.hits.length;
      this.later();
    }
    take(position) {
      if (!this.hits || !this.hits.length) return;
      this.at = (position + this.hits.length) % this.hits.length;
      [...this.results.children].forEach((item, k) => item.classList.toggle("current", k === this.at));
      if (this.results.children[this.at]) this.results.children[this.at].scrollIntoView({ block: "nearest" });
      this.count.textContent = `${this.at + 1} of ${this.hits.length.toLocaleString("en")}`;
      this.select(this.hits[this.at], true);
      this.state.found = new Set(this.hits.map((element) => this.graph.visible(element)));
    }
    choose(event) {
      if (event.key === "Escape") { this.clear(); this.canvas.focus(); }
      else if (event.key === "Enter") this.take(this.at + (event.shiftKey ? -1 : 1));
      else if (event.key === "ArrowDown") this.take(this.at + 1);
      else if (event.key === "ArrowUp") this.take(this.at - 1);
      else return;
      event.preventDefault(); event.stopPropagation();
    }
  }

  async function mount(root, options = {}) {
    const part = (name) => document.getElementById(root.dataset[name]);
    try {
      const data = await unpacked(part("graph"));
      // Where on the page a block's values are shown: JSON with an address a block.
      if (root.dataset.links) ({ blocks: options.links, views: options.views } = JSON.parse(part("links").textContent));
      const viewer = new Viewer(root, data, null, options);
      // What a click shows comes after the first picture.
      requestAnimationFrame(() => setTimeout(async () => {
        viewer.details = await unpacked(part("details"));
        if (viewer.state.selected >= 0) viewer.describe(viewer.state.selected);
        if (viewer.search.value) viewer.find();
        root.dataset.ready = "yes";
      }));
      return viewer;
    } catch (error) {
      root.append(made("p", { class: "graph-error" }, `The graph cannot be shown: ${error.message}. It needs a browser of 2023 or later.`));
      return null;
    }
  }
  return { mount };
})();
for (const root of document.querySelectorAll(".onnxviz-graph"))
  window.onnxvizGraph.mount(root, { embedded: "embedded" in root.dataset }).then((viewer) => { root.viewer = viewer; });
