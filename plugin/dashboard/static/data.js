/** What the server says. */

/** The answer of `route` to `query`; a list is repeated. Rejects with the server's words. */
export async function fetchJson(route, query = {}, signal = undefined) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) if (one !== null && one !== undefined) search.append(name, one);
  }
  const answer = await fetch(`./${route}?${search}`, { signal });
  if (!answer.ok) throw new Error(`${route}: ${await answer.text()}`);
  return answer.json();
}

const AT_ONCE = 2; // more would only make the first wait for the last: the server shares its time
const waiting = [];
let running = 0;

/** The answer of `ask`, which begins when earlier ones have ended. */
export async function inLine(ask) {
  if (running >= AT_ONCE) await new Promise((resolve) => waiting.push(resolve));
  running += 1;
  try {
    return await ask();
  } finally {
    running -= 1;
    waiting.shift()?.();
  }
}

let drawing;

/** Plotly, loaded once. Rejects where the package is absent. */
export function plotly() {
  drawing ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "./plotly.js";
    script.onload = () => resolve(window.Plotly);
    script.onerror = async () => reject(new Error(await (await fetch("./plotly.js")).text()));
    document.head.append(script);
  });
  return drawing;
}
