/** Precision over recall of a class, a curve for each run, at the chosen step. */

import { fetchJson, plotly } from "./data.js";
import { choice, element } from "./dom.js";
import { inTurn, layout, plain } from "./plot.js";
import * as state from "./state.js";

const ALL = "all classes"; // what the curve without a class's name is called
const CONFIG = { displayModeBar: false };
const SHARE = { range: [0, 1.02], dtick: 0.2, fixedrange: true };

/** The chart of section `id`: its element, and how to bring it up to date. */
export function precisionChart(id) {
  const controls = element("div", { className: "controls" });
  const plot = element("div", { className: "graph", role: "img" });
  const remark = element("p", { className: "remark", role: "status" });
  const holder = element("figure", { className: "precision" }, controls, plot, remark);

  /** Ask for the curves and draw them; `isLate()` tells whether another call came meanwhile. */
  async function update({ set, step, runs }, isLate) {
    const name = state.get(`class.${id}`);
    try {
      const found = await fetchJson("precision", { set, step, class: name, run: runs.map((run) => run.id) });
      const drawing = await plotly();
      if (isLate()) return;
      setControls(controls, id, found.classes, name);
      await inTurn(() => drawing.react(plot, traces(found.curves, runs), axes(), CONFIG));
      plot.setAttribute("aria-label", `precision over recall of ${name || ALL}`);
      remark.textContent = remarks(found.curves, runs, name);
    } catch (error) {
      remark.textContent = error.message;
    }
  }

  return { element: holder, update };
}

function setControls(controls, id, classes, chosen) {
  const key = JSON.stringify([chosen, classes]);
  if (controls.dataset.key === key) return;
  controls.dataset.key = key;
  const isFocused = controls.contains(document.activeElement);
  const names = [...new Set(["", ...classes, chosen])];
  const options = names.map((name) => [name, name || ALL]);
  const label = "precision over recall of";
  controls.replaceChildren(choice(label, options, chosen, (value) => state.set(`class.${id}`, value)));
  if (isFocused) controls.querySelector("select").focus();
}

function traces(curves, runs) {
  const byRun = new Map(curves.map((curve) => [curve.run, curve]));
  return runs.filter((run) => byRun.has(run.id)).map((run) => {
    const curve = byRun.get(run.id);
    const at = curve.step.toLocaleString("en");
    return {
      x: curve.recall,
      y: curve.precision,
      name: plain(`${run.group} ${run.label}, step ${at}`),
      mode: "lines",
      line: { ...run.style, width: 1.8 },
      hovertemplate: "precision %{y:.3f} at recall %{x:.3f}<extra>%{fullData.name}</extra>",
    };
  });
}

function axes() {
  const recall = { ...SHARE, title: { text: "recall", standoff: 4 } };
  const precision = { ...SHARE, title: { text: "precision", standoff: 4 } };
  return { ...layout(recall, precision), hovermode: "closest", dragmode: false };
}

function remarks(curves, runs, name) {
  const without = runs.filter((run) => !curves.some((curve) => curve.run === run.id));
  const absent = without.map((run) => `${run.group} ${run.label} has no curve of ${name || ALL} up to here.`);
  const [note] = curves.map((curve) => curve.note.split(";")[0]);
  return [note && `${note}.`, ...absent].filter(Boolean).join(" ");
}
