"use strict";
// The architecture's links and zoom, search, sorting, and links into the page.
(() => {
  const $ = (id) => document.getElementById(id);
  const blocks = JSON.parse($("data").textContent).blocks;
  const clamp = (v, low, high) => Math.max(low, Math.min(high, v));

  // ---- architecture ----
  const diagram = document.querySelector(".diagram"), svg = diagram && diagram.querySelector("svg");
  if (svg) {
    const width = svg.width.baseVal.value, height = svg.height.baseVal.value;
    let scale = 1;
    const zoom = (to) => { // keeps what is in the middle there
      const next = clamp(to, 0.02, 4), [w, h] = [diagram.clientWidth / 2, diagram.clientHeight / 2];
      const [x, y] = [(diagram.scrollLeft + w) * (next / scale) - w, (diagram.scrollTop + h) * (next / scale) - h];
      scale = next;
      svg.setAttribute("width", width * scale); svg.setAttribute("height", height * scale);
      diagram.scrollTo(x, y);
      $("diagram-scale").textContent = `${Math.round(100 * scale)} %`;
    };
    const fit = () => Math.min(1, (diagram.clientWidth - 2) / width);
    const to = { in: () => scale * 1.25, out: () => scale / 1.25, full: () => 1, fit };
    $("diagram-controls").addEventListener("click", (event) => {
      const wanted = to[event.target.dataset.zoom];
      if (wanted) zoom(wanted());
    });
    for (const group of svg.querySelectorAll("g[id]")) if (Object.hasOwn(blocks, group.id)) {
      group.classList.add("linked"); group.setAttribute("tabindex", "0"); group.setAttribute("role", "link");
      const go = () => { location.hash = blocks[group.id]; };
      group.addEventListener("click", go);
      group.addEventListener("keydown", (event) => { if (event.key === "Enter") go(); });
    }
  }

  // ---- tables and search ----
  const filters = [["find-layer", "#features .layer", "found-layers"], ["find-tensor", "#tensor-table tbody tr", "found-tensors"]]
    .filter(([id]) => $(id)).map(([id, items, count]) => {
      const input = $(id), run = () => {
        const wanted = input.value.toLowerCase(), all = [...document.querySelectorAll(items)];
        for (const item of all) item.hidden = !item.dataset.find.toLowerCase().includes(wanted);
        $(count).textContent = wanted ? `${all.filter((item) => !item.hidden).length} of ${all.length}` : "";
      };
      input.addEventListener("input", run);
      return { clear: () => { input.value = ""; run(); } };
    });

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.addEventListener("click", () => {
      const numeric = head.hasAttribute("data-number"), sorted = head.getAttribute("aria-sort");
      const up = sorted ? sorted === "descending" : !numeric; // names from A, numbers from the largest
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => {
        const text = row.cells[column] ? row.cells[column].textContent : "";
        return !numeric ? text : /\d/.test(text) ? Number(text.replace(/−/g, "-")) : NaN;
      };
      const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
      const missing = (value) => Number.isNaN(value) ? 1 : 0; // last, whichever way
      rows.sort(([a], [b]) => missing(a) - missing(b) || (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    }));
  }

  // ---- deep links: #features-3, #features-3/c17, #node-… ----
  function follow() {
    const [id, channel] = location.hash.slice(1).split("/c"), target = id && $(id);
    if (!target) return;
    if (target.hidden) filters.forEach((filter) => filter.clear());
    if (target instanceof SVGElement) target.scrollIntoView({ block: "center", inline: "center" });
    else target.scrollIntoView({ block: target.tagName === "TR" ? "center" : "start" });
    if (channel !== undefined) window.markChannel(id, channel);
  }
  window.addEventListener("hashchange", follow);

  // What is sticky stands below the header, whose height depends on the width.
  const header = document.querySelector("header");
  const resized = () => document.documentElement.style.setProperty("--header", header.offsetHeight + "px");
  window.addEventListener("resize", resized);
  resized();
  follow();
})();
