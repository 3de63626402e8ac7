/** What all drawings of Plotly share. */

import { cssColour } from "./theme.js";

let turn = Promise.resolve();

/** Draw after the drawings that came before, so that each is seen as soon as it is there. */
export function inTurn(draw) {
  const drawn = turn.then(draw);
  turn = drawn.catch(() => {}).then(() => new Promise((resolve) => setTimeout(resolve)));
  return drawn;
}

/** Plotly reads some HTML in its texts: a name shows as it is. */
export function plain(words) {
  return words.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** A layout on the page's ground, with what the axes have besides. */
export function layout(xaxis, yaxis) {
  const grid = { gridcolor: cssColour("--line"), zeroline: false, automargin: true };
  return {
    autosize: true,
    margin: { l: 8, r: 12, t: 6, b: 8 },
    showlegend: false,
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    font: { family: "Roboto, system-ui, sans-serif", size: 11, color: cssColour("--ink") },
    modebar: { bgcolor: "transparent", color: cssColour("--faint"), activecolor: cssColour("--ink") },
    hoverlabel: { namelength: -1, bgcolor: cssColour("--card"), font: { size: 11 } },
    xaxis: { ...grid, ...xaxis },
    yaxis: { ...grid, ...yaxis },
  };
}
