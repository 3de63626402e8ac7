/** Evaluations: a section for each evaluated set, with one choice of the step for all that it shows. */

import { confusionMatrices } from "./confusion.js";
import { fetchJson } from "./data.js";
import { element, whenSeen } from "./dom.js";
import { pictureGrid } from "./pictures.js";
import { precisionChart } from "./precision.js";
import * as state from "./state.js";
import { stepChoice } from "./steps.js";

/** The sections of an overview. */
export function sections(overview) {
  return overview.evaluations.map((one) => {
    const dataset = overview.originals[one.dataset] ?? one.dataset;
    return {
      id: `evaluations ${one.set}`,
      rank: one.split === "train" ? 4 : 2,
      title: `Evaluations on ${dataset}-${one.split} ${one.fingerprint}, step by step`,
      remark: "the same images in every run",
      data: one,
      open,
    };
  });
}

/** Build a section in `body`; returns how to bring it up to date. */
function open(body, id) {
  const choice = stepChoice(id);
  const pictures = pictureGrid(id);
  const [precision, confusion] = [precisionChart(id), confusionMatrices()];
  const curves = element("div", { className: "curves" }, precision.element, confusion.element);
  const remark = element("p", { className: "remark", role: "status" });
  body.append(choice.element, remark, curves, pictures.element);
  let wanted = null;
  let loaded = 0;
  let found = null;
  let drawn = "";

  async function refresh() {
    if (!isSeen()) return;
    if (wanted.data.version !== loaded) {
      loaded = wanted.data.version;
      try {
        found = await fetchJson("evaluations", { set: wanted.data.set });
        remark.textContent = "";
      } catch (error) {
        loaded = 0;
        remark.textContent = error.message;
      }
    }
    if (found) draw(wanted, found);
  }

  function draw({ data, overview, runs, shown }, { steps, images }) {
    const step = choice.update(steps);
    const own = runs.filter((run) => data.runs.includes(run.id) && shown.has(run.id));
    pictures.update({ data, images, step, runs: own, originals: overview.originals });
    curves.hidden = !data.curves || !own.length;
    const look = [state.get(`class.${id}`), document.documentElement.dataset.theme];
    const key = JSON.stringify([data.version, step, own.map((run) => run.id), ...look]);
    if (curves.hidden || key === drawn) return;
    drawn = key;
    const isLate = () => key !== drawn;
    for (const part of [precision, confusion]) part.update({ set: data.set, step, runs: own }, isLate);
  }

  const isSeen = whenSeen(body, refresh);
  return (context) => {
    wanted = context;
    return refresh();
  };
}
