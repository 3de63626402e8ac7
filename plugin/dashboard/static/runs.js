/** The list of runs: switched on and off, filtered by text. */

import { element, text } from "./dom.js";
import * as state from "./state.js";
import { cssColour, emphasizing, lineSample, runDash, runStyle } from "./theme.js";

/** Runs of an overview, with the label and the line that they have everywhere. */
export function described(overview) {
  const byGroup = new Map();
  return overview.runs.map((run, index) => {
    const place = `${run.dataset}/${run.group}`;
    const inGroup = byGroup.get(place) ?? 0;
    byGroup.set(place, inGroup + 1);
    const twins = overview.runs.filter(
      (other) => other.backbone === run.backbone && `${other.dataset}/${other.group}` === place,
    );
    const label = twins.length > 1 ? `${run.backbone} ${run.short}`.trim() : run.backbone;
    return { ...run, place, label, style: runStyle(index), dash: runDash(inGroup) };
  });
}

function off() {
  return new Set(state.get("off").split(",").filter(Boolean));
}

/** Whether every word of the filter is in what is known about `run`, and it ended where that is asked. */
function isFound(run) {
  const params = Object.entries(run.params).map(([name, value]) => `${name}=${value}`);
  const known = [run.dataset, run.group, run.backbone, run.folder, ...params].join(" ").toLowerCase();
  const isAmong = state.get("only") !== "finished" || run.status === "FINISHED";
  return isAmong && state.get("filter").toLowerCase().split(/\s+/).every((word) => known.includes(word));
}

/** Ids of the runs that are drawn. */
export function shownIds(runs) {
  const hidden = off();
  return new Set(runs.filter((run) => !hidden.has(run.id) && isFound(run)).map((run) => run.id));
}

function turn(ids, on) {
  const hidden = off();
  for (const id of ids) on ? hidden.delete(id) : hidden.add(id);
  state.set("off", [...hidden].sort().join(","));
}

/** The list in `parent`; returns how to draw it again. */
export function runList(parent) {
  return (runs) => {
    const focused = parent.contains(document.activeElement) ? document.activeElement.id : "";
    const hidden = off();
    const found = runs.filter(isFound);
    const groups = Map.groupBy(found, (run) => run.place);
    parent.replaceChildren(...[...groups].map(([place, own]) => group(place, own, hidden, runs)));
    if (runs.length && !found.length) {
      const ended = state.get("only") === "finished" ? " that is finished" : "";
      parent.append(element("p", { className: "remark" }, `No run${ended} has all these words.`));
    }
    if (focused) document.getElementById(focused)?.focus();
  };
}

function group(place, own, hidden, runs) {
  const ids = own.map((run) => run.id);
  const on = own.filter((run) => !hidden.has(run.id)).length;
  const box = checkbox(`group ${place}`, on > 0, (checked) => turn(ids, checked));
  box.indeterminate = on > 0 && on < own.length;
  const several = new Set(runs.map((run) => run.dataset)).size > 1;
  const heading = element("label", { className: "group" }, box, text(own[0].group));
  if (several) heading.append(text(own[0].dataset, { className: "remark" }));
  const others = runs.map((run) => run.id);
  return element("section", {}, heading, ...own.map((run) => row(run, hidden, others)));
}

function row(run, hidden, others) {
  const box = checkbox(`run ${run.id}`, !hidden.has(run.id), (on) => turn([run.id], on));
  const facts = Object.entries(run.params).map(([name, value]) => `${name}: ${value}`);
  const status = run.status.toLowerCase();
  const title = [run.folder, status || "status not known", `last step ${run.last_step ?? "none yet"}`, ...facts].join("\n");
  const only = element("button", { className: "only", title: "Show this run alone" }, "only");
  only.setAttribute("aria-label", `Show ${run.label} alone`);
  only.onclick = () => state.set("off", others.filter((id) => id !== run.id).sort().join(","));
  const dash = element("span", { title: "its line in charts of losses" });
  dash.append(lineSample(cssColour("--ink"), run.dash));
  const lines = [dash, swatch(run)];
  const label = element("label", { title }, box, ...lines, text(run.label, { title }));
  if (run.status !== "FINISHED") label.append(element("span", { className: "remark" }, status));
  if (run.last_step === null) label.append(element("span", { className: "remark" }, "no points yet"));
  return emphasizing(element("div", { className: "run" }, label, only), run.id);
}

/** The colour of a run in charts of one split. */
export function swatch(run) {
  const { color, dash } = run.style;
  const title = "its colour in charts of metrics";
  return element("span", { className: `swatch ${dash}`, style: `--run: ${color}`, title });
}

function checkbox(id, checked, onchange) {
  const box = element("input", { type: "checkbox", id, checked });
  box.onchange = () => onchange(box.checked);
  return box;
}
