/** A table that is sorted by any of its columns. */

import { element } from "./dom.js";

/**
 * @typedef {Object} Column
 * @property {string} name unique, kept in links
 * @property {Node|string} head
 * @property {string} [title] on hover
 * @property {boolean} [isText] sorted as text, aligned to the left
 * @property {boolean} [lower] whether less is better
 * @property {(row: *) => (number|string|null)} value what is sorted by
 * @property {(row: *) => (Node|string)} show
 * @property {boolean} [marksBest] whether the best value is bold
 */

/**
 * @param {Column[]} columns
 * @param {*[]} rows in the order that holds without sorting
 * @param {string} sorted a column's name, with `-` before it for falling order; or empty
 * @param {(sorted: string) => void} onsort
 */
export function sortableTable(columns, rows, sorted, onsort) {
  const falling = sorted.startsWith("-");
  const by = columns.find((column) => column.name === sorted.replace(/^-/, ""));
  const shown = by ? [...rows].sort((a, b) => compare(by.value(a), by.value(b), falling)) : rows;
  const best = columns.map((column) => bestOf(column, rows));
  return element(
    "table",
    {},
    element("thead", {}, element("tr", {}, ...columns.map((one) => head(one, by, falling, onsort)))),
    element("tbody", {}, ...shown.map((row) => element("tr", {}, ...columns.map((column, index) =>
      cell(column, row, best[index]),
    )))),
  );
}

function cell(column, row, best) {
  const isBest = best !== null && column.value(row) === best;
  const className = [column.isText ? "text" : "number", isBest ? "best" : ""].join(" ").trim();
  return element("td", { className }, column.show(row));
}

function head(column, by, falling, onsort) {
  const isBy = column === by;
  const first = column.isText || column.lower ? column.name : `-${column.name}`;
  const second = column.isText || column.lower ? `-${column.name}` : column.name;
  const isFirst = isBy && (falling ? `-${column.name}` : column.name) === first;
  const button = element("button", { title: column.title ?? "" }, column.head);
  button.dataset.column = column.name;
  button.onclick = () => onsort(isFirst ? second : first);
  const made = element("th", { scope: "col", className: column.isText ? "text" : "number" }, button);
  if (isBy) {
    made.setAttribute("aria-sort", falling ? "descending" : "ascending");
    button.append(falling ? " ↓" : " ↑");
  }
  return made;
}

function bestOf(column, rows) {
  if (!column.marksBest || rows.length < 2) return null;
  const values = rows.map(column.value).filter((value) => value !== null && value !== undefined);
  if (!values.length) return null;
  return column.lower ? Math.min(...values) : Math.max(...values);
}

/** Undefined values come last in either order. */
function compare(a, b, falling) {
  const [isVoid, isOtherVoid] = [a, b].map((value) => value === null || value === undefined);
  if (isVoid || isOtherVoid) return isVoid - isOtherVoid;
  const order = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  return falling ? -order : order;
}
