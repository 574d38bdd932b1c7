"use strict";
// Feature maps and weights: colours the atlases (8-bit values, see report/atlas.py) and reads values back.
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const luts = Object.fromEntries(Object.entries(data.luts).map(([name, text]) => [name, bytes(text)]));
  const lutOf = (atlas) => luts[atlas.signed ? data.diverging : data.sequential];
  const scaleSelect = $("scale"), zooms = [...document.querySelectorAll("input[data-zoom]")], probe = $("probe");
  const GAP = 3, FONT = "sans-serif", fed = document.querySelector("img.fed");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const ink = () => (dark.matches && !printing ? "#aab4c0" : "#566070");
  const format = (v) => (v === null ? "not finite" : Number(v.toPrecision(4)).toString().replace("-", "−"));
  const clamp = (v, low, high) => Math.max(low, Math.min(high, v));

  let printing = false;

  // ---- pictures ----
  const loaded = new Map(); // id -> {levels, width}
  let selected = { id: "", tile: -1 };

  async function load(id) {
    if (loaded.has(id)) return loaded.get(id);
    const image = new Image();
    image.src = "data:image/png;base64," + data.atlases[id].png;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = image.width; canvas.height = image.height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, image.width, image.height).data;
    const entry = { levels: new Uint8Array(image.width * image.height), width: image.width };
    for (let i = 0; i < entry.levels.length; i++) entry.levels[i] = pixels[4 * i];
    loaded.set(id, entry);
    if (data.atlases[id].over && fed) await fed.decode();
    return entry;
  }

  const ownScale = (canvas) => canvas.dataset.kind === "grid" && scaleSelect && scaleSelect.value === "tile";

  function limits(atlas, tile, own) {
    const [low, high] = atlas.ranges[tile];
    if (!own || low === null) return atlas.scale;
    const top = atlas.signed ? Math.max(-low, high) || 1 : high || 1;
    return [atlas.signed ? -top : 0, top];
  }

  // How large the tiles are drawn, and how many stand in a row.
  function layout(canvas, atlas) {
    const kind = canvas.dataset.kind, size = zooms.length ? Number(zooms[0].value) : 3, [tw, th] = atlas.tile;
    const count = atlas.labels.length, room = Math.max(180, canvas.closest(".sides, .layer").clientWidth - 116);
    const wraps = ["grid", "heads", "filters"].includes(kind);
    const label = kind === "heads" ? (atlas.lines ? 25 : 13) : kind !== "grid" ? 0 : ownScale(canvas) ? 25 : 13;
    let sx, sy;
    if (wraps || kind === "kernels") {
      const want = kind === "grid" ? 18 * size + 18 : kind === "heads" ? 34 * size + 26 : 9 * size + 7;
      sx = sy = (wraps ? want : Math.min(want, room / atlas.columns - GAP)) / Math.max(tw, th);
    } else if (kind === "vector") {
      [sx, sy] = [Math.min(8 * size, room / tw), 8 * size];
    } else {
      [sx, sy] = [Math.min(5 * size, room / tw, 220 * size / tw), Math.min(5 * size, 80 * size / th)];
      if (kind === "matrix") { // square cells, unless that makes a thread
        const side = Math.min(sx, sy);
        [sx, sy] = [Math.max(side, Math.min(sx, 40 / tw)), Math.max(side, Math.min(sy, 40 / th))];
      }
    }
    const cellW = Math.max(3, Math.round(tw * sx)), cellH = Math.max(3, Math.round(th * sy));
    const stepX = cellW + (count > 1 ? GAP : 0), stepY = cellH + (count > 1 ? GAP : 0) + label;
    const columns = wraps ? clamp(Math.floor(room / stepX), 1, count) : atlas.columns;
    return { cellW, cellH, stepX, stepY, columns, label, width: columns * stepX + 2, height: Math.ceil(count / columns) * stepY + 2 };
  }

  const place = (at, tile) => [(tile % at.columns) * at.stepX + 1, Math.floor(tile / at.columns) * at.stepY + 1];

  function paper(canvas, width, height) { // a context in CSS pixels, sharp on dense screens
    const dense = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * dense); canvas.height = Math.round(height * dense);
    const context = canvas.getContext("2d");
    context.scale(dense, dense);
    context.imageSmoothingEnabled = false;
    return context;
  }

  function measure(canvas) {
    const at = (canvas.layout = layout(canvas, data.atlases[canvas.dataset.atlas]));
    const key = document.querySelector(`canvas[data-key="${canvas.dataset.atlas}"]`);
    key.hidden = keyless(canvas);
    key.style.width = "84px"; key.style.height = clamp(at.height, 46, 106) + "px";
    canvas.style.width = at.width + "px"; canvas.style.height = at.height + "px";
    return at;
  }

  // Whether a tile lies over the picture that was fed: in one colour, opaque where its value is largest.
  function isOver(canvas, atlas, tile) {
    const all = document.querySelector(`input[data-over="${canvas.closest("section").id}"]`);
    return Boolean(fed && atlas.over && (tile < atlas.over || (all && all.checked)));
  }

  const keyless = (canvas) => {
    const atlas = data.atlases[canvas.dataset.atlas];
    return ownScale(canvas) || (atlas.over && atlas.labels.every((label, tile) => isOver(canvas, atlas, tile)));
  };

  function tileImage(sheet, atlas, tile, own, over, brush) {
    const [tw, th] = atlas.tile, [low, high] = atlas.ranges[tile], [bottom, top] = limits(atlas, tile, own);
    const image = brush.createImageData(tw, th), lut = lutOf(atlas), peak = Math.max(-low, high);
    const left = (tile % atlas.columns) * tw, upper = Math.floor(tile / atlas.columns) * th;
    for (let y = 0; y < th; y++) for (let x = 0; x < tw; x++) {
      const level = sheet.levels[(upper + y) * sheet.width + left + x], at = 4 * (y * tw + x);
      if (level === 0 && over) continue; // no cell lies here, or its value is not finite
      if (level === 0) { // not finite: hatched
        image.data.set((x + y) % 4 < 2 ? [60, 60, 60, 255] : [255, 200, 60, 255], at);
        continue;
      }
      const value = low + ((level - 1) / 254) * (high - low);
      if (over) {
        image.data.set([...(value < 0 ? [40, 110, 255] : [255, 90, 31]), 217 * clamp(peak > 0 ? Math.abs(value) / peak : 0, 0, 1)], at);
        continue;
      }
      const entry = 3 * clamp(Math.round(((value - bottom) / (top - bottom)) * 255), 0, 255);
      image.data.set([lut[entry], lut[entry + 1], lut[entry + 2], 255], at);
    }
    return image;
  }

  const draw = async (canvas) => paint(canvas, await load(canvas.dataset.atlas));

  function paint(canvas, sheet) {
    const id = canvas.dataset.atlas, atlas = data.atlases[id];
    const at = measure(canvas), own = ownScale(canvas), context = paper(canvas, at.width, at.height);
    const scratch = document.createElement("canvas");
    [scratch.width, scratch.height] = atlas.tile;
    const brush = scratch.getContext("2d");
    context.fillStyle = ink();
    atlas.labels.forEach((label, tile) => {
      const [low, high] = atlas.ranges[tile], [px, py] = place(at, tile), over = isOver(canvas, atlas, tile);
      if (over) {
        context.filter = "grayscale(1)"; context.drawImage(fed, px, py, at.cellW, at.cellH); context.filter = "none";
      }
      brush.putImageData(tileImage(sheet, atlas, tile, own, over, brush), 0, 0);
      context.drawImage(scratch, px, py, at.cellW, at.cellH);
      context.strokeStyle = "#b4bcc6"; context.lineWidth = 1; context.strokeRect(px - 0.5, py - 0.5, at.cellW + 1, at.cellH + 1);
      if (low !== null && low === high && canvas.dataset.kind === "grid") { // constant: no picture to be read
        context.strokeStyle = "#9aa4b0"; context.beginPath();
        context.moveTo(px, py); context.lineTo(px + at.cellW, py + at.cellH); context.stroke();
      }
      if (at.label) {
        context.font = "10px " + FONT;
        const opaque = over ? `opaque: ${low === null ? "not finite" : format(-low > high ? low : high)}` : "";
        context.fillText(over && !atlas.lines ? `${label} · ${opaque}` : label, px, py + at.cellH + 10, at.cellW);
        context.font = "9px " + FONT;
        if (atlas.lines) context.fillText(opaque, px, py + at.cellH + 21, at.cellW);
        if (own) context.fillText(low === null ? "not finite" : `${format(low)} … ${format(high)}`, px, py + at.cellH + 21, at.cellW);
      }
    });
    if (atlas.marks) drawMarks(context, atlas, at);
    if (selected.id === id && selected.tile >= 0) {
      const [px, py] = place(at, selected.tile);
      context.strokeStyle = "#d9480f"; context.lineWidth = 3; context.strokeRect(px + 1.5, py + 1.5, at.cellW - 3, at.cellH - 3);
    }
    if (!keyless(canvas)) drawKey(document.querySelector(`canvas[data-key="${id}"]`), atlas, clamp(at.height, 46, 106));
  }

  function drawMarks(context, atlas, at) { // positions that survive; -1 - position where it is one of equals
    const [tw, th] = atlas.tile, wide = at.cellW / tw, high = at.cellH / th, radius = Math.min(wide, high) / 3.6;
    if (radius < 0.6) return; // too small to be told apart: larger with the slider
    context.lineWidth = Math.min(1, radius / 2);
    atlas.marks.forEach((marks, tile) => {
      const [px, py] = place(at, tile);
      for (const mark of marks) {
        const index = mark < 0 ? -1 - mark : mark, x = index % tw, y = Math.floor(index / tw);
        context.beginPath();
        context.arc(px + (x + 0.5) * wide, py + (y + 0.5) * high, radius, 0, 7);
        context.strokeStyle = mark < 0 ? "#fff" : "#222"; context.fillStyle = "#ff7a45";
        if (mark >= 0) context.fill();
        context.stroke();
      }
    });
  }

  function drawKey(key, atlas, height) {
    const context = paper(key, 84, height), lut = lutOf(atlas), length = height - 12;
    for (let y = 0; y < length; y++) {
      const entry = 3 * Math.round((1 - y / (length - 1)) * 255);
      context.fillStyle = `rgb(${lut[entry]},${lut[entry + 1]},${lut[entry + 2]})`;
      context.fillRect(2, 6 + y, 14, 1);
    }
    context.strokeStyle = "#9aa4b0"; context.strokeRect(2, 6, 14, length);
    context.fillStyle = ink(); context.font = "11px " + FONT;
    context.fillText(format(atlas.scale[1]), 21, 11, 62);
    context.fillText(format(atlas.scale[0]), 21, height - 3, 62);
    if (atlas.signed) context.fillText("0", 21, height / 2 + 4);
  }

  // ---- reading values ----
  function valueText(canvas, tile, x, y) {
    const atlas = data.atlases[canvas.dataset.atlas], kind = canvas.dataset.kind, sheet = loaded.get(canvas.dataset.atlas);
    const [tw, th] = atlas.tile, [low, high] = atlas.ranges[tile];
    const left = (tile % atlas.columns) * tw, upper = Math.floor(tile / atlas.columns) * th;
    const level = sheet.levels[(upper + y) * sheet.width + left + x];
    const value = format(level === 0 ? null : low + ((level - 1) / 254) * (high - low));
    const [left0, top0] = atlas.origin || [0, 0];
    const column = left0 + Math.floor((x * atlas.of[0]) / tw), row = top0 + Math.floor((y * atlas.of[1]) / th);
    const about = atlas.of[0] > tw || atlas.of[1] > th ? "≈" : "=";
    const noun = atlas.noun ?? "channel ";
    const where = atlas.tokens ? `${atlas.labels[tile]}: ${atlas.tokens[0][row]} → ${atlas.tokens[1][column]}`
      : kind === "grid" || kind === "heads" ? `${noun}${atlas.labels[tile]} [${row}, ${column}]`
      : kind === "vector" ? `value ${column}`
      : kind === "image" ? `channel ${row}, position ${column}`
      : kind === "matrix" ? `${atlas.axes[1]} ${row}, ${atlas.axes[0]} ${column}`
      : `${atlas.labels[tile]} [${row}, ${column}]`;
    return `${where} ${about} ${value}`;
  }

  function show(text, left, top) {
    probe.textContent = text; probe.hidden = false;
    probe.style.left = clamp(left + 14, 4, document.documentElement.clientWidth - probe.offsetWidth - 6) + "px";
    probe.style.top = clamp(top + 18, 4, window.innerHeight - probe.offsetHeight - 6) + "px";
  }

  function hit(canvas, event) { // which tile, and which of its values, the pointer is at
    const at = canvas.layout, atlas = data.atlases[canvas.dataset.atlas], box = canvas.getBoundingClientRect();
    const px = event.clientX - box.left - 1, py = event.clientY - box.top - 1;
    const column = Math.floor(px / at.stepX), row = Math.floor(py / at.stepY), tile = row * at.columns + column;
    const x = Math.floor(((px - column * at.stepX) * atlas.tile[0]) / at.cellW);
    const y = Math.floor(((py - row * at.stepY) * atlas.tile[1]) / at.cellH);
    const inside = column >= 0 && column < at.columns && tile >= 0 && tile < atlas.labels.length && x >= 0 && y >= 0;
    return inside && x < atlas.tile[0] && y < atlas.tile[1] && loaded.has(canvas.dataset.atlas) ? { tile, x, y } : null;
  }

  function step(canvas, event) { // arrow keys move value by value, and on to the next tile
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || [0, 0];
    if ((!dx && !dy && event.key !== "Enter") || !loaded.has(canvas.dataset.atlas)) return;
    event.preventDefault();
    const atlas = data.atlases[canvas.dataset.atlas], at = canvas.layout, [tw, th] = atlas.tile;
    const now = canvas.cursor || (canvas.cursor = { tile: 0, x: -dx, y: -dy });
    if (event.key === "Enter") return mark(canvas, now.tile);
    let tile = now.tile, x = now.x + dx, y = now.y + dy;
    if (x < 0) [tile, x] = [tile - 1, tw - 1];
    else if (x >= tw) [tile, x] = [tile + 1, 0];
    if (y < 0) [tile, y] = [tile - at.columns, th - 1];
    else if (y >= th) [tile, y] = [tile + at.columns, 0];
    if (tile >= 0 && tile < atlas.labels.length) Object.assign(now, { tile, x, y });
    const box = canvas.getBoundingClientRect(), [px, py] = place(at, now.tile);
    show(valueText(canvas, now.tile, now.x, now.y), box.left + px + ((now.x + 0.5) * at.cellW) / tw, box.top + py + ((now.y + 0.5) * at.cellH) / th);
  }

  function mark(canvas, tile) { // a channel gets a link of its own
    if (canvas.dataset.kind !== "grid" && canvas.dataset.kind !== "heads") return;
    const id = canvas.dataset.atlas, before = document.querySelector(`canvas[data-atlas="${selected.id}"]`);
    selected = { id, tile };
    history.replaceState(null, "", `#${id}/c${data.atlases[id].labels[tile]}`);
    if (before) draw(before);
    draw(canvas);
  }

  const canvases = [...document.querySelectorAll("canvas[data-atlas]")], visible = new Set();
  const watcher = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
    visible[isIntersecting ? "add" : "delete"](target);
    if (isIntersecting) draw(target);
    else if (!printing) target.width = target.height = 0; // long pages would hold gigabytes of pixels
  }), { rootMargin: "500px" });
  for (const canvas of canvases) {
    measure(canvas); watcher.observe(canvas);
    canvas.addEventListener("pointermove", (event) => {
      const at = hit(canvas, event);
      if (at) show(valueText(canvas, at.tile, at.x, at.y), event.clientX, event.clientY); else probe.hidden = true;
    });
    for (const gone of ["pointerleave", "blur"]) canvas.addEventListener(gone, () => { probe.hidden = true; });
    canvas.addEventListener("keydown", (event) => step(canvas, event));
    canvas.addEventListener("click", (event) => { const at = hit(canvas, event); if (at) mark(canvas, at.tile); });
  }
  const redraw = () => { canvases.forEach(measure); visible.forEach(draw); };
  if (scaleSelect) scaleSelect.addEventListener("input", redraw);
  for (const control of document.querySelectorAll("input[data-over]")) control.addEventListener("input", redraw);
  for (const control of zooms) control.addEventListener("input", () => {
    zooms.forEach((other) => { other.value = control.value; });
    redraw();
  });
  dark.addEventListener("change", redraw);
  window.addEventListener("resize", redraw);
  // A print does not wait for pictures to be decoded, so they all are, once there is time.
  window.addEventListener("load", async () => { for (const canvas of canvases) await load(canvas.dataset.atlas); });
  window.addEventListener("beforeprint", () => {
    printing = true;
    for (const canvas of canvases) if (loaded.has(canvas.dataset.atlas)) paint(canvas, loaded.get(canvas.dataset.atlas));
  });
  window.addEventListener("afterprint", () => { printing = false; });

  // What links.js calls for a link to a channel.
  window.markChannel = (id, channel) => {
    const canvas = document.querySelector(`canvas[data-atlas="${id}"]`);
    const tile = canvas ? data.atlases[id].labels.indexOf(channel) : -1;
    if (tile >= 0) mark(canvas, tile);
  };
})();
