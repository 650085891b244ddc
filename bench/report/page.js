"use strict";

const NARROW = 600; // pixels of a figure, below which it has fewer labels

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Sets what paths such as "yaxis.range" name.
function change(layout, paths) {
  for (const [path, value] of Object.entries(paths ?? {})) {
    const names = path.split(".");
    const last = names.pop();
    names.reduce((part, name) => (part[name] ??= {}), layout)[last] = value;
  }
}

// The layout as the page needs it now: its colours, and what is different where it is narrow.
function dressed(layout, width) {
  layout.font.color = color("--ink");
  for (const [name, axis] of Object.entries(layout)) {
    if (/^[xy]axis/.test(name)) Object.assign(axis, { gridcolor: color("--grid"), linecolor: color("--axis") });
  }
  for (const note of layout.annotations ?? []) note.font.color = color("--muted");
  if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false; // a finger scrolls the page
  if (width < NARROW) change(layout, layout.meta.narrow);
  return layout;
}

// Figures that share a legend: each is drawn from the JSON beside it. A selector shows the traces of one choice, the
// legend's buttons take traces away in all figures.
for (const group of document.querySelectorAll(".group")) {
  const legend = group.querySelector(".legend");
  const figures = [...group.querySelectorAll("figure")];
  const off = new Set();

  const drawing = (figure) => {
    const found = JSON.parse(figure.querySelector("script").textContent);
    const choice = figure.querySelector("select")?.value;
    if (choice !== undefined) found.data = found.data.filter(({ meta }) => meta === undefined || meta === choice);
    if (choice !== undefined && found.layout.meta.choices) {
      delete found.layout.yaxis.range; // of the first choice
      change(found.layout, found.layout.meta.choices[choice]);
    }
    found.layout.uirevision = choice ?? "all"; // what was zoomed stays so until another choice
    return found;
  };

  const draw = () => {
    const shown = new Map();
    for (const figure of figures) {
      const { data, layout } = drawing(figure);
      for (const trace of data) {
        if (trace.legendgroup === undefined) continue;
        const entry = shown.get(trace.legendgroup) ?? { names: new Set(), trace };
        entry.names.add(trace.name);
        shown.set(trace.legendgroup, entry);
        trace.visible = !off.has(trace.legendgroup);
      }
      const chart = figure.querySelector(".chart");
      const config = { responsive: true, displayModeBar: false };
      Plotly.react(chart, data, dressed(layout, chart.clientWidth), config);
    }
    const rank = ({ trace }) => trace.legendrank ?? 1000;
    const entries = [...shown].sort(([, a], [, b]) => rank(a) - rank(b));
    legend?.replaceChildren(...entries.map(([key, { names, trace }]) => {
      const button = document.createElement("button");
      const sample = document.createElement("i");
      sample.style.borderTopColor = trace.line.color;
      sample.style.borderTopStyle = { dash: "dashed", dot: "dotted" }[trace.line.dash] ?? "solid";
      sample.style.borderTopWidth = `${trace.line.width}px`;
      button.setAttribute("aria-pressed", String(!off.has(key)));
      button.dataset.key = key;
      button.append(sample, [...names].join(", "));
      button.addEventListener("click", () => {
        if (!off.delete(key)) off.add(key);
        draw();
        [...legend.children].find((other) => other.dataset.key === key)?.focus();
      });
      return button;
    }));
  };

  for (const select of group.querySelectorAll("select")) select.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  matchMedia("(orientation: portrait)").addEventListener("change", draw);
  draw();
}

// Sorts a table by a column: numbers where all that is there are numbers. Rows without a value stay last.
for (const table of document.querySelectorAll("table.rows")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const found = [...body.rows].map((row) => {
      const cell = row.cells[column];
      return { row, value: cell.dataset.v ?? cell.textContent };
    });
    const numeric = found.every(({ value }) => !Number.isNaN(Number(value)));
    found.sort(({ value: x }, { value: y }) => {
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = numeric ? Number(x) - Number(y) : x.localeCompare(y);
      return down ? -order : order;
    });
    body.append(...found.map(({ row }) => row));
  }));
}

// Shows the rows of a table that have all the words: as a whole cell where there is one, in a cell otherwise.
for (const filter of document.querySelectorAll(".filter")) {
  const input = filter.querySelector("input");
  const told = filter.querySelector("output");
  const rows = [...filter.parentElement.querySelector("table.rows").tBodies[0].rows];
  const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent.toLowerCase().replace(" ", "")));
  const apply = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = words.map((word) => {
      const whole = texts.some((cells) => cells.includes(word));
      return (cells) => (whole ? cells.includes(word) : cells.some((cell) => cell.includes(word)));
    });
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !fits.every((fit) => fit(texts[i]));
      shown += !row.hidden;
    });
    const all = `${rows.length} ${rows.length === 1 ? "row" : "rows"}`;
    told.textContent = shown === rows.length ? all : `${shown} of ${all}`;
  };
  input.addEventListener("input", apply);
  apply();
}
