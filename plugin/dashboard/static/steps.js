/** The choice of an evaluation by its step. */

import { element, inRest } from "./dom.js";
import * as state from "./state.js";

/** The choice of section `id`: its element, and `update(steps)`. Without a choice it is the last. */
export function stepChoice(id) {
  const name = `step.${id}`;
  const slider = element("input", { type: "range", min: 0, step: 1, ariaLabel: "Step" });
  const output = element("output");
  const earlier = element("button", { title: "the evaluation before" }, "◀");
  const later = element("button", { title: "the evaluation after" }, "▶");
  const holder = element("div", { className: "controls steps" },
    element("span", {}, "step"), earlier, slider, later, output);
  let steps = [];
  const keep = inRest(() => state.set(name, chosen()));

  /** The chosen step, empty for the last so that the page follows the training. */
  function chosen() {
    const place = Number(slider.value);
    return place === steps.length - 1 ? "" : `${steps[place]}`;
  }

  function show() {
    const place = Number(slider.value);
    const step = steps[place]?.toLocaleString("en") ?? "–";
    output.value = `${step} (evaluation ${place + 1} of ${steps.length})`;
    slider.setAttribute("aria-valuetext", `step ${output.value}`);
    earlier.disabled = place === 0;
    later.disabled = place >= steps.length - 1;
  }

  function move(by) {
    slider.value = Number(slider.value) + by;
    show();
    state.set(name, chosen());
  }

  slider.oninput = () => {
    show();
    keep();
  };
  earlier.onclick = () => move(-1);
  later.onclick = () => move(1);

  /** Show these steps; returns the one of the address, or the last before it. */
  function update(found) {
    steps = found;
    const asked = state.get(name);
    const place = asked === "" ? steps.length - 1 : steps.findLastIndex((step) => step <= Number(asked));
    slider.max = Math.max(steps.length - 1, 0);
    slider.value = Math.max(place, 0);
    show();
    return steps[slider.value];
  }

  return { element: holder, update };
}
