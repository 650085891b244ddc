"use strict";

// Draws each figure from the JSON beside it; a selector shows the traces of one choice.
for (const figure of document.querySelectorAll("figure")) {
  const source = figure.querySelector("script");
  const chart = figure.querySelector(".chart");
  const drawing = JSON.parse(source.textContent);
  Plotly.newPlot(chart, drawing.data, drawing.layout, JSON.parse(source.dataset.config));
  const select = figure.querySelector("select");
  if (select) {
    select.addEventListener("change", () => {
      const visible = drawing.data.map((trace) => trace.meta === undefined || trace.meta === select.value);
      Plotly.restyle(chart, { visible });
    });
  }
}

// Sorts a table by a column: numbers where all that is there are numbers. Rows without a value stay last.
for (const table of document.querySelectorAll("table.rows")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.v;
    const rows = [...body.rows];
    const numeric = rows.every((row) => value(row) === "" || !Number.isNaN(Number(value(row))));
    rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = numeric ? Number(x) - Number(y) : x.localeCompare(y);
      return down ? -order : order;
    });
    body.append(...rows);
  }));
}
