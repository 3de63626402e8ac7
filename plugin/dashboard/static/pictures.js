/** Pictures of test images, truth beside prediction, those of all runs side by side. */

import { choice, element, text } from "./dom.js";
import { swatch } from "./runs.js";
import * as state from "./state.js";

/** The pictures of section `id`: their element, and how to bring them up to date. */
export function pictureGrid(id) {
  const controls = element("div", { className: "controls" });
  const rows = element("div", { className: "pictures" });
  const holder = element("div", {}, controls, rows);
  const made = new Map(); // kept, so that a picture that stays is not loaded again

  function update({ data, images, step, runs, originals }) {
    holder.hidden = !data.images.length;
    const asked = state.get(`image.${id}`);
    const one = data.images.includes(asked) ? asked : "";
    setControls(controls, id, data.images, one, originals);
    rows.classList.toggle("large", one !== "" || data.images.length === 1);
    const shown = one ? [one] : data.images;
    rows.replaceChildren(...shown.map((image) => {
      const figures = runs.map((run) => {
        const key = `${image}/${run.id}`;
        if (!made.has(key)) made.set(key, figure());
        const at = images[image]?.[run.id]?.findLast((other) => other <= step);
        return made.get(key)({ set: data.set, image, run, at, step, several: runs.length > 1 });
      });
      const side = element("div", { className: "side" }, ...figures);
      return element("section", { className: "picture" }, heading(image, originals), side);
    }));
  }

  return { element: holder, update };
}

function setControls(controls, id, images, chosen, originals) {
  const key = JSON.stringify([chosen, images]);
  if (controls.dataset.key === key) return;
  controls.dataset.key = key;
  const isFocused = controls.contains(document.activeElement);
  const options = [["", "all images"], ...images.map((image) => [image, originals[image] ?? image])];
  controls.replaceChildren(
    choice("pictures of", options, chosen, (value) => state.set(`image.${id}`, value)),
    element("span", { className: "remark" }, "truth on the left, prediction on the right; a dashed box is an error"),
  );
  if (isFocused) controls.querySelector("select").focus();
}

function heading(image, originals) {
  const made = element("h3", {}, text(originals[image] ?? image));
  if (image.startsWith("worst ")) {
    made.append(element("span", { className: "remark" }, " of each run's own evaluation"));
  }
  return made;
}

/** A picture with its run; returns how to show another. */
function figure() {
  const picture = element("img", { loading: "lazy", decoding: "async" });
  const link = element("a", { target: "_blank", rel: "noopener", title: "Open at its own size" }, picture);
  const caption = element("figcaption");
  const made = element("figure", {}, link, caption);
  return ({ set, image, run, at, step, several }) => {
    link.hidden = at === undefined;
    if (at !== undefined) {
      const query = new URLSearchParams({ run: run.id, set, image, step: at });
      const address = `./picture?${query}`;
      if (picture.getAttribute("src") !== address) {
        picture.src = address;
        link.href = address;
      }
      picture.alt = `truth and prediction of image ${image}, ${run.group} ${run.label}, step ${at}`;
    }
    const when = at === undefined ? `no picture up to step ${step}` : `step ${at.toLocaleString("en")}`;
    const whose = several ? [swatch(run), text(`${run.group} ${run.label}`)] : [];
    caption.replaceChildren(...whose, element("span", { className: "remark" }, when));
    return made;
  };
}
