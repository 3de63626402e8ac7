/** The last figures of each class of an evaluated set, a column for each run. */

import { fetchJson } from "./data.js";
import { choice, element, figure, text } from "./dom.js";
import { swatch } from "./runs.js";
import * as state from "./state.js";
import { sortableTable } from "./table.js";

/** The table of section `id`: its element, and how to bring it up to date. */
export function classTable(id) {
  const controls = element("div", { className: "controls" });
  const table = element("div", { className: "scrolled classes", tabIndex: 0 });
  const remark = element("p", { className: "remark", role: "status" });
  const holder = element("div", { className: "perclass", hidden: true }, controls, table, remark);
  let loaded = "";
  let answer = null;

  async function update({ data, originals, runs, shown }) {
    holder.hidden = !data.per_class.length;
    if (holder.hidden) return;
    const chosen = state.get(`class.${id}`);
    const measure = data.per_class.includes(chosen) ? chosen : data.per_class[0];
    const key = `${measure} ${data.version}`;
    const draw = () => drawClasses({ id, answer, originals, runs, shown, table });
    if (key === loaded) return draw();
    loaded = key;
    setControls(controls, id, measure, data.per_class);
    try {
      answer = await fetchJson("classes", { set: data.set, measure });
      if (key === loaded) draw();
    } catch (error) {
      loaded = "";
      remark.textContent = error.message;
    }
  }

  return { element: holder, update };
}

function setControls(controls, id, measure, measures) {
  const options = measures.map((one) => [one, one]);
  controls.replaceChildren(
    measures.length > 1
      ? choice("per class", options, measure, (value) => state.set(`class.${id}`, value))
      : element("span", {}, `per class: ${measure}`),
    element("span", { className: "remark" }, "last evaluation"),
  );
}

/** The mean of a run's figures over the classes that it has. */
function mean(classes, id) {
  const values = Object.values(classes).map((ofRun) => ofRun[id]).filter(Number.isFinite);
  return values.reduce((sum, value) => sum + value, 0) / Math.max(values.length, 1);
}

function drawClasses({ id, answer, originals, runs, shown, table }) {
  if (!answer) return;
  const own = runs.filter((run) => shown.has(run.id) && run.id in answer.steps);
  own.sort((a, b) => mean(answer.classes, b.id) - mean(answer.classes, a.id)); // the best run first
  const rows = Object.entries(answer.classes).map(([name, values]) => {
    return { name: originals[name] ?? name, values };
  });
  const columns = [
    { name: "class", head: "class", isText: true, value: (row) => row.name, show: (row) => text(row.name) },
    ...own.map((run) => ({
      name: run.id,
      head: element("span", { className: "runcell" }, swatch(run), text(`${run.group} ${run.label}`)),
      title: `${run.folder}, step ${answer.steps[run.id]}`,
      value: (row) => row.values[run.id],
      show: (row) => figure(row.values[run.id]),
    })),
  ];
  const sort = (value) => state.set(`classes.${id}`, value, "class");
  const focused = table.contains(document.activeElement) ? document.activeElement.dataset.column : null;
  table.replaceChildren(sortableTable(columns, rows, state.get(`classes.${id}`, "class"), sort));
  if (focused) table.querySelector(`button[data-column="${CSS.escape(focused)}"]`)?.focus();
}
