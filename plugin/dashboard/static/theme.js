/** Colours, and TensorBoard's dark mode. */

import { host } from "./state.js";

export const SPLITS = { train: "#ff7f0e", test: "#1f77b4" };

/** Of runs: told apart by colour-blind people, none like train's or test's, on light and dark. */
const RUNS = ["#1b8a3f", "#cc6677", "#9b59b6", "#8a8a12", "#2a9d8f", "#a65628", "#7f7f7f", "#e7298a"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const PATTERNS = {
  solid: "", dash: "6 3", dot: "2 2", dashdot: "6 2 2 2", longdash: "10 3", longdashdot: "10 2 2 2",
};

/** The colour of a split's curves; further test sets are blue too. */
export function splitColour(split) {
  return split === "train" ? SPLITS.train : SPLITS.test;
}

/** Colour and dash of the run at `index`: in charts of one split colour tells runs apart. */
export function runStyle(index) {
  const round = Math.floor(index / RUNS.length);
  return { color: RUNS[index % RUNS.length], dash: DASHES[round % DASHES.length] };
}

/** The dash of the run at `index` of its group, where colour tells the split. */
export function runDash(index) {
  return DASHES[index % DASHES.length];
}

/** A piece of a line as a legend shows it. */
export function lineSample(color, dash) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", "sample");
  svg.setAttribute("viewBox", "0 0 28 8");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(space, "line");
  const places = { x1: 0, x2: 28, y1: 4, y2: 4, stroke: color, "stroke-width": 2 };
  places["stroke-dasharray"] = PATTERNS[dash];
  for (const [name, value] of Object.entries(places)) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

const preferred = window.matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  if (host() === window) return preferred.matches;
  return host().document.body.classList.contains("dark-mode");
}

/** Follow TensorBoard's dark mode, or the system's where the page stands alone. */
export function follow(onchange) {
  const apply = () => {
    const theme = isDark() ? "dark" : "light";
    if (document.documentElement.dataset.theme === theme) return;
    document.documentElement.dataset.theme = theme;
    onchange();
  };
  preferred.addEventListener("change", apply);
  if (host() !== window) {
    new MutationObserver(apply).observe(host().document.body, { attributeFilter: ["class"] });
  }
  apply();
}

/** A colour of style.css. */
export function cssColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

const emphasis = document.createElement("style");

/** Fade every curve but those of a run, by its id; with null none. */
export function emphasize(run) {
  if (!emphasis.isConnected) document.head.append(emphasis);
  emphasis.textContent = run
    ? `.plot .scatterlayer .trace:not([class*="trace${CSS.escape(run)}"]) { opacity: 0.15 !important; }`
    : "";
}

/** Emphasize `run` while the pointer is on `made`. */
export function emphasizing(made, run) {
  made.onmouseenter = () => emphasize(run);
  made.onmouseleave = () => emphasize(null);
  return made;
}
