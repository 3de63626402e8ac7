/** Losses: a section for each group, because they compare within one alone. */

import { Chart } from "./chart.js";
import { element, text } from "./dom.js";
import * as state from "./state.js";
import { cssColour, lineSample, SPLITS } from "./theme.js";

const NAMED = 6; // runs in the legend: there are as many dashes

/** The sections of an overview. */
export function sections(overview) {
  const several = new Set(overview.groups.map((group) => group.dataset)).size > 1;
  return overview.groups.map((group) => ({
    id: `losses ${group.dataset}/${group.group}`,
    rank: 1,
    title: `Losses of ${group.group}${several ? ` on ${group.dataset}` : ""}`,
    remark: "comparable only within this section",
    data: group,
    open,
  }));
}

/** Build a section in `body`; returns how to bring it up to date. */
function open(body) {
  const legend = element("p", { className: "legend" });
  const charts = element("div", { className: "charts" });
  const native = element("div", { className: "charts" });
  const parts = element("details", { className: "native" },
    element("summary", {}, "Parts under the framework's own names"), native);
  body.append(legend, charts, parts);
  const drawn = new Map();
  return ({ data, overview, runs, shown }) => {
    const own = runs.filter((run) => data.runs.includes(run.id));
    legend.replaceChildren(...legendOf(own.filter((run) => shown.has(run.id))));
    parts.hidden = !Object.keys(data.native).length;
    for (const [place, tags] of [[charts, data.losses], [native, data.native]]) {
      for (const [measure, tag] of Object.entries(tags)) {
        const id = `${data.dataset}/${tag}`;
        if (!drawn.has(id)) {
          drawn.set(id, new Chart(id, "split"));
          place.append(drawn.get(id).element);
        }
        const definition = overview.measures[measure]?.definition ?? "";
        drawn.get(id).update({ measure, definition, tag, version: data.version, runs: own, shown });
      }
    }
  };
}

function legendOf(runs) {
  const splits = Object.entries(SPLITS).map(([split, color]) =>
    element("span", {}, lineSample(color, "solid"), split),
  );
  const ink = cssColour("--ink");
  const named = runs.length > 1 ? runs.slice(0, NAMED) : [];
  const shown = named.map((run) => element("span", {}, lineSample(ink, run.dash), text(run.label)));
  if (runs.length > NAMED) {
    shown.push(element("span", {}, `and ${runs.length - NAMED} more, told apart by the pointer`));
  }
  const scale = state.get("scale") === "log" ? [element("span", {}, "log scale")] : [];
  return [...splits, ...shown, ...scale];
}
