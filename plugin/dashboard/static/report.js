/** Draws a run's report from the facts in the page. Names are text, never markup. */

const facts = JSON.parse(document.getElementById("facts").textContent);
const page = document.getElementById("page");
const COLOURS = { train: "#ff7f0e", test: "#1f77b4" };

function element(name, text = "", parent = page) {
  const made = document.createElement(name);
  made.textContent = text;
  parent.append(made);
  return made;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function number(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(4))) : value ?? "";
}

function draw(parent, title, traces, axes = {}) {
  const box = element("div", "", parent);
  box.className = "chart";
  const ink = colour("--ink");
  const axis = { gridcolor: colour("--line"), zeroline: false, automargin: true };
  const layout = {
    title: { text: "", font: { size: 13 } },
    font: { color: ink, size: 11 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 44, r: 12, t: 30, b: 34 },
    xaxis: { ...axis, title: { text: axes.x ?? "step" }, range: axes.range },
    yaxis: { ...axis, title: { text: axes.y ?? "" }, range: axes.range },
    hovermode: axes.range ? "closest" : "x unified",
    showlegend: traces.length > 1,
    legend: { orientation: "h", x: 1, xanchor: "right", y: 1.16 },
    annotations: [
      { text: escaped(title), showarrow: false, x: 0, xref: "paper", y: 1.16, yref: "paper", font: { size: 13 } },
    ],
  };
  Plotly.newPlot(box, traces, layout, { displaylogo: false, responsive: true, displayModeBar: false });
  return box;
}

/** Plotly reads its texts as markup. */
function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function charts(title, note, list) {
  if (!list.length) return;
  element("h2", title);
  element("p", note).className = "soft";
  const grid = element("div");
  grid.className = "grid";
  for (const chart of list) {
    const traces = chart.curves.map((curve) => ({
      name: escaped(curve.split),
      x: curve.steps,
      y: curve.values,
      mode: curve.steps.length > 60 ? "lines" : "lines+markers",
      marker: { size: 4 },
      line: { color: COLOURS[curve.split] ?? COLOURS.test, dash: curve.split in COLOURS ? "solid" : "dash" },
    }));
    draw(grid, chart.measure, traces).title = chart.definition;
  }
}

/** A table that a click on a column's name sorts. */
function table(columns, rows, parent = page) {
  const scroll = element("div", "", parent);
  scroll.className = "scroll";
  const made = element("table", "", scroll);
  const head = element("tr", "", element("thead", "", made));
  const body = element("tbody", "", made);
  const fill = (list) => {
    body.replaceChildren();
    for (const row of list) {
      const line = element("tr", "", body);
      for (const cell of row) {
        const made = element("td", number(cell?.text ?? cell), line);
        if (cell?.title) made.title = cell.title;
      }
    }
  };
  columns.forEach((column, place) => {
    let falling = false;
    element("th", column, head).onclick = () => {
      falling = !falling;
      const key = (row) => row[place]?.text ?? row[place] ?? -Infinity;
      const order = (a, b) => (key(a) < key(b) ? 1 : key(a) > key(b) ? -1 : 0);
      fill([...rows].sort((a, b) => (falling ? order(a, b) : order(b, a))));
    };
  });
  fill(rows);
}

function header() {
  element("h1", facts.name);
  element("p", `${facts.task} on ${facts.dataset}, ${facts.status}`).className = "soft";
  element("p", `Losses compare with runs of ${facts.group} only. `
    + `Metrics compare with runs evaluated on ${facts.sets.join(", ") || "the same set"}.`);
  if (facts.remarks.length) {
    const list = element("ul");
    for (const remark of facts.remarks) element("li", remark, list);
  }
}

function figures() {
  if (!facts.figures.length) return;
  element("h2", "Figures");
  table(
    ["measure", "evaluated set", "last", "step", "best", "step"],
    facts.figures.map((row) => [
      { text: row.measure, title: row.definition }, row.set, row.last[1], row.last[0], row.best[1], row.best[0],
    ]),
  );
}

function classes() {
  for (const [split, { columns, data }] of Object.entries(facts.tables)) {
    element("h2", `Classes, ${split}`);
    table(columns, data);
  }
}

function curves() {
  for (const [split, found] of Object.entries(facts.curves)) {
    element("h2", `Precision and recall, ${split}`);
    element("p", found.note).className = "soft";
    const grid = element("div");
    grid.className = "grid pictures";
    const traces = found.classes.map((one) => ({
      name: escaped(one.name || "all classes"), x: one.recall, y: one.precision, mode: "lines",
      line: { width: one.name ? 1.5 : 3 },
    }));
    draw(grid, "precision over recall", traces, { x: "recall", y: "precision", range: [0, 1.02] }).style.height = "380px";
    if (found.confusion) confusion(grid, found);
  }
}

function confusion(grid, { confusion: rows, names }) {
  const shares = rows.map((row) => {
    const sum = row.reduce((a, b) => a + b, 0);
    return row.map((count) => (sum ? count / sum : null));
  });
  const labels = names.map(escaped);
  const map = {
    type: "heatmap", x: labels, y: labels, z: shares, customdata: rows, colorscale: "Blues", reversescale: true,
    zmin: 0, zmax: 1, hovertemplate: "true %{y}<br>predicted %{x}<br>%{customdata} (%{z:.1%})<extra></extra>",
  };
  const box = draw(grid, "true class (rows), predicted class", [map], { x: "predicted", y: "true" });
  box.style.height = "380px";
  Plotly.relayout(box, { "yaxis.autorange": "reversed", "xaxis.type": "category", "yaxis.type": "category" });
}

function pictures() {
  if (!facts.pictures.length) return;
  element("h2", "Pictures");
  element("p", "Truth on the left, prediction on the right; dashed boxes are errors.").className = "soft";
  const grid = element("div");
  grid.className = "grid pictures";
  for (const picture of facts.pictures) {
    const figure = element("figure", "", grid);
    const image = element("img", "", figure);
    image.src = picture.source;
    image.alt = picture.name;
    element("figcaption", `${picture.name}, step ${picture.step}`, figure).className = "soft";
  }
}

function settings() {
  element("h2", "Settings");
  table(["param", "value"], Object.entries(facts.params));
}

header();
charts("Losses", `They share a chart with runs of ${facts.group} only.`, facts.losses);
figures();
pictures();
curves();
classes();
charts("Metrics over steps", "By evaluated set.", facts.metrics);
settings();
