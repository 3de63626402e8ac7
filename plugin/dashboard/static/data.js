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
