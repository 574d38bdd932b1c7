"use strict";
// Search, sorting, and links into the page.
(() => {
  const $ = (id) => document.getElementById(id);

  // ---- tables and search ----
  const filters = [...document.querySelectorAll("input[data-filter]")].map((input) => {
      const items = input.dataset.filter, count = document.querySelector(`output[for="${input.id}"]`), run = () => {
        const wanted = input.value.toLowerCase(), all = [...document.querySelectorAll(items)];
        for (const item of all) item.hidden = !item.dataset.find.toLowerCase().includes(wanted);
        count.textContent = wanted ? `${all.filter((item) => !item.hidden).length} of ${all.length}` : "";
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

  // ---- deep links: #features-3, #features-3/c17; the graph follows those to its blocks ----
  function follow() {
    const [id, channel] = location.hash.slice(1).replace(/%20/g, " ").split("/c"), target = id && $(id);
    if (!target) return;
    if (target.hidden) filters.forEach((filter) => filter.clear());
    target.scrollIntoView({ block: target.tagName === "TR" ? "center" : "start" });
    if (channel !== undefined) window.markChannel(id, channel);
  }
  window.addEventListener("hashchange", follow);

  // The graph follows the page's colours until its reader chooses others.
  const graph = document.querySelector(".onnxviz-graph"), dark = window.matchMedia("(prefers-color-scheme: dark)");
  const themed = () => {
    const theme = dark.matches ? "dark" : "light";
    if (!graph) return;
    if (!graph.viewer) { graph.dataset.theme = theme; return; }
    graph.viewer.theme(theme);
    graph.querySelector('select[aria-label="Colours"]').value = theme;
  };
  dark.addEventListener("change", themed);
  themed();

  // What is sticky stands below the header, whose height depends on the width.
  const header = document.querySelector("header");
  const resized = () => document.documentElement.style.setProperty("--header", header.offsetHeight + "px");
  window.addEventListener("resize", resized);
  resized();
  follow();
})();
