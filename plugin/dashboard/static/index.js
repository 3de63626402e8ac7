/**
 * The page: controls above, runs on the left, sections of the views. TensorBoard calls `render`.
 *
 * A view is a module in VIEWS. Its `sections(overview)` lists `{id, rank, title, remark, data, open}`;
 * `open(body, id)` builds a section once and returns what brings it up to date.
 */

import { fetchJson, plotly } from "./data.js";
import { element, inRest } from "./dom.js";
import * as evaluations from "./evaluations.js";
import * as losses from "./losses.js";
import * as metrics from "./metrics.js";
import { described, runList, shownIds } from "./runs.js";
import * as state from "./state.js";
import { follow } from "./theme.js";

const VIEWS = [metrics, losses, evaluations];
const EVERY = 10_000; // milliseconds between two looks at the log folder

export async function render() {
  document.documentElement.lang = "en";
  document.head.append(element("link", { rel: "stylesheet", href: "./static/style.css" }));
  state.start();
  plotly().catch(() => {}); // each chart tells it
  const page = buildPage();
  document.body.append(page.controls, page.body);
  page.readControls();
  state.listen((name) => {
    if (name === null) page.readControls(); // another link
    page.draw();
  });
  follow(page.draw);
  await page.load();
  window.addEventListener("resize", state.write); // also when the tab is shown again
  setInterval(() => {
    if (page.isLive() && window.innerHeight && !document.hidden) page.load();
  }, EVERY);
}

function buildPage() {
  const list = element("div", { className: "list" });
  const remark = element("p", { className: "remark", role: "status" }, "Reading the log folder …");
  const main = element("main");
  const drawList = runList(list);
  const opened = new Map();
  let overview = null;

  const draw = () => {
    if (!overview) return;
    const runs = described(overview);
    const shown = shownIds(runs);
    drawList(runs);
    remark.textContent = remarks(overview);
    const sections = VIEWS.flatMap((view) => view.sections(overview)).sort((a, b) => a.rank - b.rank);
    drawSections(main, opened, sections, { overview, runs, shown });
  };

  let seen = "";
  const load = async () => {
    try {
      const found = await fetchJson("overview");
      const text = JSON.stringify(found);
      if (text === seen) return;
      [seen, overview] = [text, found];
      draw();
    } catch (error) {
      seen = "";
      remark.textContent = `${error.message}. TensorBoard does not answer; the page tries again.`;
    }
  };

  const { controls, readControls, isLive } = buildControls();
  const aside = element("aside", { ariaLabel: "Runs" }, list);
  const content = element("div", { className: "content" }, remark, main);
  const body = element("div", { className: "page" }, aside, content);
  return { controls, body, draw, load, readControls, isLive };
}

function buildControls() {
  const filter = element("input", { type: "search", ariaLabel: "Filter runs" });
  filter.placeholder = "filter runs: FCOS, learning_rate=0.01 …";
  filter.oninput = inRest(() => state.set("filter", filter.value));
  const smoothing = element("input", { type: "range", min: 0, max: 0.99, step: 0.01 });
  smoothing.ariaLabel = "Smoothing";
  const weight = element("output");
  const smoothe = inRest(() => state.set("smoothing", smoothing.value, "0"));
  smoothing.oninput = () => {
    weight.value = Number(smoothing.value).toFixed(2);
    smoothe();
  };
  const log = element("input", { type: "checkbox" });
  log.onchange = () => state.set("scale", log.checked ? "log" : "linear", "linear");
  const live = element("input", { type: "checkbox" });
  live.onchange = () => state.set("live", live.checked ? "on" : "off", "on");
  const finished = element("input", { type: "checkbox" });
  finished.onchange = () => state.set("only", finished.checked ? "finished" : "");
  const all = element("button", { title: "Switch every run on, forget the filter" }, "all runs");
  all.onclick = () => {
    for (const name of ["off", "only", "filter"]) state.set(name, "");
    readControls();
  };
  const keys = "a chart: drag to zoom, double-click to reset; keys + − ← → 0";
  const controls = element(
    "header",
    {},
    filter,
    element("label", { title: "Leave out runs that are running, failed or were killed" }, finished, "only finished"),
    all,
    element("label", { title: "Weight of the past in a moving average" }, "smoothing ", smoothing, weight),
    element("label", {}, log, "losses on a log scale"),
    element("label", { title: "Look at the log folder every ten seconds" }, live, "live"),
    element("span", { className: "remark keys" }, keys),
  );
  const readControls = () => {
    filter.value = state.get("filter");
    finished.checked = state.get("only") === "finished";
    smoothing.value = state.get("smoothing", "0");
    weight.value = Number(smoothing.value).toFixed(2);
    log.checked = state.get("scale", "linear") === "log";
    live.checked = state.get("live", "on") === "on";
  };
  return { controls, readControls, isLive: () => live.checked };
}

function drawSections(main, opened, sections, context) {
  for (const [id, { details }] of opened) {
    if (!sections.some((section) => section.id === id)) {
      details.remove();
      opened.delete(id);
    }
  }
  sections.forEach((section, index) => {
    if (!opened.has(section.id)) opened.set(section.id, buildSection(section));
    const { details, update } = opened.get(section.id);
    if (main.children[index] !== details) main.insertBefore(details, main.children[index] ?? null);
    details.open = state.get(`closed.${section.id}`) === "";
    details.hidden = !section.data.runs.some((id) => context.shown.has(id));
    if (details.open && !details.hidden) update({ data: section.data, ...context });
  });
}

function buildSection({ id, title, remark, open }) {
  const body = element("div", { className: "body" });
  const heading = element("h2", { dir: "auto" }, title);
  const summary = element("summary", {}, heading, element("span", { className: "remark" }, remark));
  const details = element("details", { className: "section", open: true }, summary, body);
  details.ontoggle = () => state.set(`closed.${id}`, details.open ? "" : "yes");
  return { details, update: open(body, id) };
}

function remarks({ runs, groups, sets, foreign }) {
  const said = [];
  if (!runs.length && !foreign.tags) {
    said.push("This log folder is empty. The page fills when a training that boxscore watches begins.");
  } else if (!runs.length) {
    said.push("No training in this log folder was watched by boxscore.");
  } else if (!groups.length && !sets.length) {
    said.push("These runs have no points yet.");
  }
  if (foreign.tags) {
    const count = `${foreign.tags} in ${foreign.runs} of TensorBoard's runs`;
    said.push(`Curves that boxscore did not name are left to the other tabs: ${count}.`);
  }
  return said.join(" ");
}
