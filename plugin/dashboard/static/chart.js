/** A chart of one measure: curves over steps, drawn by Plotly when it comes into sight. */

import { fetchJson, inLine, plotly } from "./data.js";
import { element, measureName } from "./dom.js";
import { inTurn, layout, plain } from "./plot.js";
import * as state from "./state.js";
import { emphasize, splitColour } from "./theme.js";

const FEW = 8; // curves whose values are shown together under the pointer
const MARKED = 100; // points of a test curve that are drawn as dots
const CONFIG = {
  displaylogo: false,
  doubleClick: "reset",
  modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
};

const inSight = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) entry.target.chart.look(entry.isIntersecting);
  },
  { rootMargin: "150px" },
);
const sized = new ResizeObserver((entries) => {
  for (const entry of entries) entry.target.chart.fit(entry.contentRect.width);
});

export class Chart {
  #wanted = null;
  #loaded = "";
  #curves = [];
  #isSeen = false;
  #width = 0;
  #abort = null;
  #listens = false;

  /**
   * @param {string} id unique, kept in links
   * @param {"split"|"run"} colour what the colour of a curve means
   */
  constructor(id, colour) {
    this.id = id;
    this.colour = colour;
    this.title = element("figcaption");
    this.plot = element("div", { className: "plot", tabIndex: 0, role: "img" });
    this.remark = element("p", { className: "remark", role: "status" });
    this.element = element("figure", {}, this.title, this.plot, this.remark);
    this.plot.onkeydown = (event) => this.#key(event);
    this.plot.chart = this;
    inSight.observe(this.plot);
    sized.observe(this.plot);
  }

  /**
   * @param {{measure: string, definition: string, tag: string, version: number, runs: Object[],
   *   shown: Set<string>}} wanted the runs that may be in this chart, and the ids of those drawn
   */
  update(wanted) {
    if (this.#wanted?.measure !== wanted.measure) {
      this.title.replaceChildren(measureName(wanted.measure));
      this.title.title = wanted.definition;
      this.plot.setAttribute("aria-label", `${wanted.measure} over steps. ${wanted.definition}`);
    }
    this.#wanted = wanted;
    this.#refresh();
  }

  /** End it. */
  remove() {
    inSight.unobserve(this.plot);
    sized.unobserve(this.plot);
    this.#abort?.abort();
    window.Plotly?.purge(this.plot);
    this.element.remove();
  }

  look(isSeen) {
    this.#isSeen = isSeen;
    this.#refresh();
  }

  fit(width) {
    if (width && this.#width && width !== this.#width) window.Plotly?.Plots.resize(this.plot);
    this.#width = width || this.#width;
  }

  get #zoom() {
    return state.get(`zoom.${this.id}`).split(",").map(Number);
  }

  #setZoom(range) {
    state.set(`zoom.${this.id}`, range ? range.map((step) => Math.round(step)).join(",") : "");
  }

  async #refresh() {
    if (!this.#isSeen || !this.#wanted) return;
    const { tag, version, runs, shown } = this.#wanted;
    const own = runs.filter((run) => shown.has(run.id)).map((run) => run.id);
    const [first, last] = this.#zoom;
    const query = { tag, smoothing: state.get("smoothing", "0") };
    if (own.length < runs.length) query.run = own;
    if (last !== undefined) Object.assign(query, { first, last });
    const key = JSON.stringify([query, version]);
    if (key === this.#loaded) return inTurn(() => this.#draw());
    this.#loaded = key;
    this.#abort?.abort();
    this.#abort = new AbortController();
    try {
      this.#curves = own.length ? await this.#fetch(query, this.#abort.signal) : [];
      await inTurn(() => this.#draw());
    } catch (error) {
      if (error.name === "AbortError") return;
      this.#loaded = "";
      this.remark.textContent = error.message;
    }
  }

  async #fetch(query, signal) {
    const { curves } = await inLine(() => fetchJson("curves", query, signal));
    return curves;
  }

  async #draw() {
    const drawing = await plotly();
    const runs = new Map(this.#wanted.runs.map((run) => [run.id, run]));
    const curves = this.#curves.filter(({ run }) => runs.has(run) && this.#wanted.shown.has(run));
    const traces = curves.flatMap((curve) =>
      this.#traces(curve, runs.get(curve.run), curves.length <= FEW),
    );
    await drawing.react(this.plot, traces, this.#layout(curves), CONFIG);
    this.#listen();
    this.remark.textContent = this.#remarks(curves, runs);
  }

  #traces(curve, run, isTogether) {
    const isSplit = this.colour === "split";
    const line = isSplit ? { color: splitColour(curve.split), dash: run.dash } : { ...run.style };
    const name = isSplit ? `${run.label} · ${curve.split}` : `${run.group} ${run.label}`;
    const points = curve.steps.length; // one alone makes no line
    const isMarked = points === 1 || (curve.split !== "train" && points <= MARKED);
    const main = {
      x: curve.steps,
      y: curve.smoothed ?? curve.values,
      name: plain(name),
      mode: isMarked ? "lines+markers" : "lines",
      line: { ...line, width: isTogether ? 1.8 : 1.2 },
      marker: { size: 4, color: line.color },
      hovertemplate: "%{y:.5~g} at step %{x}<extra>%{fullData.name}</extra>",
      meta: { run: curve.run, split: curve.split },
      uid: `${curve.run}-${curve.split}`,
    };
    if (!curve.smoothed) return [main];
    const uid = `${main.uid}-faint`;
    const faint = { ...main, uid, y: curve.values, mode: "lines", opacity: 0.25, hoverinfo: "skip" };
    delete faint.hovertemplate;
    return [faint, main];
  }

  #layout(curves) {
    const type = this.colour === "split" ? state.get("scale", "linear") : "linear";
    const [first, last] = this.#zoom;
    const range = last === undefined ? { autorange: true } : { range: [first, last], autorange: false };
    const steps = {
      ...range,
      title: { text: "step", standoff: 4 },
      hoverformat: "d",
      exponentformat: "none",
      unifiedhovertitle: { text: " " }, // each curve tells its own step
    };
    return {
      ...layout(steps, { type, fixedrange: true, autorange: true }),
      hovermode: curves.length > FEW ? "closest" : "x unified",
      dragmode: "zoom",
    };
  }

  #remarks(curves, runs) {
    if (!curves.length) return "No run that is switched on has this measure.";
    return curves
      .filter((curve) => curve.first_nan !== null)
      .map((curve) => [runs.get(curve.run).label, curve.split, curve.first_nan])
      .map(([label, split, step]) => `${label} ${split}: not finite at step ${step}.`)
      .join(" ");
  }

  #listen() {
    if (this.#listens) return;
    this.#listens = true;
    this.plot.on("plotly_relayout", (change) => this.#zoomed(change));
    this.plot.on("plotly_hover", ({ points }) => points.length === 1 && emphasize(points[0].data.meta.run));
    this.plot.on("plotly_unhover", () => emphasize(null));
  }

  #zoomed(change) {
    if (change["xaxis.autorange"]) this.#setZoom(null);
    const range = change["xaxis.range"] ?? [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    if (range[1] !== undefined) this.#setZoom(range);
  }

  #key(event) {
    const [low, high] = this.plot.layout?.xaxis?.range ?? [];
    if (high === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    const width = high - low;
    const moves = {
      "+": [low + width / 4, high - width / 4],
      "-": [Math.max(low - width / 2, 0), high + width / 2],
      ArrowLeft: [low - width / 4, high - width / 4],
      ArrowRight: [low + width / 4, high + width / 4],
      0: null,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.#setZoom(moves[event.key]);
  }
}
