/** Metrics: a section for each evaluated set, with leaderboard, chart and classes. */

import { Chart } from "./chart.js";
import { classTable } from "./classes.js";
import { fetchJson } from "./data.js";
import { choice, element, figure, measureName, text } from "./dom.js";
import { swatch } from "./runs.js";
import * as state from "./state.js";
import { sortableTable } from "./table.js";
import { emphasizing } from "./theme.js";

const FIRST = ["box_AP", "mask_AP", "IoU"];

/** The sections of an overview; the sets of test splits come first. */
export function sections(overview) {
  return overview.sets.map((set) => {
    const dataset = overview.originals[set.dataset] ?? set.dataset;
    return {
      id: `metrics ${set.set}`,
      rank: set.split === "train" ? 3 : 0,
      title: `Metrics on ${dataset}-${set.split} ${set.fingerprint}`,
      remark: "comparable between all runs here: the same images and ground truth",
      data: set,
      open,
    };
  });
}

/** Build a section in `body`; returns how to bring it up to date. */
function open(body, id) {
  const controls = element("div", { className: "controls" });
  const board = element("div", { className: "scrolled board", tabIndex: 0 });
  const remark = element("p", { className: "remark", role: "status" });
  const chart = new Chart(id, "run");
  const classes = classTable(id);
  const below = element("div", { className: "beside" }, chart.element, classes.element);
  body.append(controls, board, remark, below);
  let loaded = "";
  let rows = [];
  return async ({ data, overview, runs, shown }) => {
    const measures = Object.keys(data.metrics);
    const chosen = state.get(`by.${id}`);
    const by = [chosen, ...FIRST, ...measures].find((one) => measures.includes(one));
    const own = runs.filter((run) => data.runs.includes(run.id));
    const draw = () => drawBoard({ id, by, measures, rows, overview, own, shown, board });
    const definition = `${overview.measures[by].definition} ${overview.measures[by].better} is better.`;
    setControls(controls, id, by, measures);
    const { metrics, version } = data;
    chart.update({ measure: by, definition, tag: metrics[by], version, runs: own, shown });
    classes.update({ data, originals: overview.originals, runs: own, shown });
    const key = `${by} ${data.version}`;
    if (key === loaded) return draw();
    loaded = key;
    try {
      rows = (await fetchJson("leaderboard", { set: data.set, by })).rows;
      if (key === loaded) draw();
    } catch (error) {
      loaded = "";
      remark.textContent = error.message;
    }
  };
}

function setControls(controls, id, by, measures) {
  const at = state.get(`at.${id}`, "last");
  const key = [by, at, ...measures].join();
  if (controls.dataset.key === key) return;
  controls.dataset.key = key;
  const focused = [...controls.querySelectorAll("select")].indexOf(document.activeElement);
  const metrics = measures.map((one) => [one, one]);
  const evaluations = [["last", "the last evaluation"], ["best", `the evaluation with the best ${by}`]];
  controls.replaceChildren(
    choice("rank by", metrics, by, (value) => state.set(`by.${id}`, value)),
    choice("figures of", evaluations, at, (value) => state.set(`at.${id}`, value, "last")),
  );
  controls.querySelectorAll("select")[focused]?.focus();
}

function drawBoard({ id, by, measures, rows, overview, own, shown, board }) {
  const known = new Map(own.map((run) => [run.id, run]));
  const listed = rows
    .filter((row) => known.has(row.run) && shown.has(row.run))
    .map((row, index) => ({ ...row, rank: index + 1, of: known.get(row.run) }));
  const at = state.get(`at.${id}`, "last") === "best" ? "at_best" : "at_last";
  const sorted = state.get(`sort.${id}`);
  const focused = board.contains(document.activeElement) ? document.activeElement.dataset.column : null;
  const several = new Set(own.map((run) => run.dataset)).size > 1;
  const others = measures.filter((one) => one !== by);
  const columns = [
    {
      name: "rank",
      head: "#",
      title: `rank by the best ${by}`,
      lower: true,
      value: (row) => row.rank,
      show: (row) => `${row.rank}`,
    },
    {
      name: "run",
      head: "run",
      isText: true,
      value: (row) => `${row.of.group} ${row.of.label}`,
      show: (row) => runCell(row.of, several),
    },
    number("best", element("span", {}, "best ", measureName(by)), by, (row) => row.best),
    {
      name: "step",
      head: "at step",
      title: `step of the best ${by}`,
      lower: true,
      value: (row) => row.best_step,
      show: (row) => row.best_step?.toLocaleString("en") ?? "–",
    },
    number("last", "last", by, (row) => row.last),
    ...others.map((one) => number(one, measureName(one), one, (row) => row[at][one])),
  ];
  board.replaceChildren(sortableTable(columns, listed, sorted, (value) => state.set(`sort.${id}`, value)));
  if (focused) board.querySelector(`button[data-column="${CSS.escape(focused)}"]`)?.focus();

  function number(name, head, measure, value) {
    const { definition, better } = overview.measures[measure];
    const title = `${definition} ${better} is better.`;
    const lower = better === "lower";
    return { name, head, title, lower, value, show: (row) => figure(value(row)), marksBest: true };
  }
}

function runCell(run, several) {
  const name = `${run.group} ${run.label}${several ? ` (${run.dataset})` : ""}`;
  return emphasizing(
    element("span", { className: "runcell" }, swatch(run), text(name, { title: run.folder })), run.id,
  );
}
