/** The confusion matrices of the runs that are shown, at the chosen step. */

import { fetchJson, plotly } from "./data.js";
import { element, text } from "./dom.js";
import { inTurn, layout, plain } from "./plot.js";
import { swatch } from "./runs.js";
import { cssColour, SPLITS } from "./theme.js";

const MOST = 4; // matrices
const COUNTED = 12; // classes whose counts are written into the matrix
const CONFIG = { displayModeBar: false };

/** The matrices: their element, and how to bring them up to date. */
export function confusionMatrices() {
  const grid = element("div", { className: "side" });
  const remark = element("p", { className: "remark", role: "status" });
  const holder = element("div", { className: "matrices" }, grid, remark);
  const made = new Map();

  /** Ask for the matrices and draw them; `isLate()` tells whether another call came meanwhile. */
  async function update({ set, step, runs }, isLate) {
    const shown = runs.slice(0, MOST);
    const several = runs.length > 1;
    const asked = shown.map((run) => fetchJson("confusion", { set, step, run: run.id }).catch(() => null));
    const found = await Promise.all(asked);
    const drawing = await plotly();
    if (isLate()) return;
    const known = shown.flatMap((run, index) => (found[index] ? [[run, found[index]]] : []));
    for (const [run] of known) if (!made.has(run.id)) made.set(run.id, matrix(drawing));
    grid.replaceChildren(...known.map(([run]) => made.get(run.id).element));
    for (const [run, one] of known) made.get(run.id).draw(run, one, several);
    remark.textContent = remarks(runs.length, known.map(([, one]) => one.note));
  }

  return { element: holder, update };
}

function matrix(drawing) {
  const plot = element("div", { className: "graph", role: "img" });
  const caption = element("figcaption");
  const made = element("figure", {}, caption, plot);
  function draw(run, { step, names, confusion }, several) {
    const whose = several ? [swatch(run), text(`${run.group} ${run.label}`)] : [];
    const when = element("span", { className: "remark" }, `step ${step.toLocaleString("en")}`);
    caption.replaceChildren(...whose, when);
    plot.setAttribute("aria-label", `confusion matrix of ${run.group} ${run.label} at step ${step}`);
    return inTurn(() => drawing.react(plot, [trace(names, confusion)], axes(names), CONFIG));
  }
  return { element: made, draw };
}

function trace(names, confusion) {
  const shares = confusion.map((row) => {
    const sum = row.reduce((a, b) => a + b, 0);
    return row.map((count) => (sum ? count / sum : null));
  });
  return {
    type: "heatmap",
    z: shares,
    zmin: 0,
    zmax: 1,
    text: confusion,
    texttemplate: names.length <= COUNTED ? "%{text}" : "",
    colorscale: [[0, cssColour("--card")], [1, SPLITS.test]],
    showscale: false,
    xgap: 1,
    ygap: 1,
    hovertemplate: "true %{y}<br>predicted %{x}<br>%{text} (%{z:.1%} of the row)<extra></extra>",
  };
}

/** Classes by place, so that two of one name stay apart. */
function axes(names) {
  const shown = names.length <= 40;
  const ticks = {
    tickvals: names.map((_, place) => place),
    ticktext: names.map((name) => plain(name.length > 16 ? `${name.slice(0, 15)}…` : name)),
    showticklabels: shown,
    fixedrange: true,
    showgrid: false,
  };
  const predicted = { ...ticks, title: { text: "predicted", standoff: 4 } };
  const truth = { ...ticks, title: { text: "true", standoff: 4 }, autorange: "reversed" };
  return { ...layout(predicted, truth), dragmode: false };
}

function remarks(runs, notes) {
  if (!notes.length) return "";
  const said = ["Rows are true classes; colour is the share of the row."];
  const [, note] = notes[0].split("; ");
  if (note) said.push(notes.length > 1 ? "Each matrix is at the confidence of its best F1." : `T${note.slice(1)}.`);
  if (runs > MOST) said.push(`Matrices of the first ${MOST} of ${runs} runs; switch others off to see more.`);
  return said.join(" ");
}
