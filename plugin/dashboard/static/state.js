/**
 * The state of the page: texts by name, kept in the address of TensorBoard's page as
 * `#boxscore&p.boxscore.<name>=<text>`, TensorBoard's own form for plug-ins. A link restores it.
 */

const TAB = "boxscore";
const PREFIX = `p.${TAB}.`;
const values = new Map();
const listeners = new Set();

/** TensorBoard's window, or this one where the page stands alone. */
export function host() {
  try {
    void window.parent.location.hash;
    return window.parent;
  } catch {
    return window;
  }
}

function read() {
  const found = new Map();
  for (const piece of host().location.hash.slice(1).split("&")) {
    const [name, value, ...more] = piece.split("=");
    if (value === undefined || more.length) continue;
    try {
      const plain = decodeURIComponent(name);
      if (plain.startsWith(PREFIX)) found.set(plain.slice(PREFIX.length), decodeURIComponent(value));
    } catch {
      // a link that was cut off: its other parts are restored
    }
  }
  return found;
}

function isShown() {
  const hash = host().location.hash.slice(1);
  return host() === window || hash.split("&")[0] === TAB;
}

/** Put the state into the address, unless another tab is shown. */
export function write() {
  if (!isShown()) return;
  const pieces = [...values].map(
    ([name, value]) => `${encodeURIComponent(PREFIX + name)}=${encodeURIComponent(value)}`,
  );
  const { history, location } = host();
  const address = new URL(location.href);
  address.hash = [TAB, ...pieces].join("&");
  if (address.href !== location.href) history.replaceState(history.state, "", address.href);
}

/** Read the address, now and whenever it is changed by hand. */
export function start() {
  for (const [name, value] of read()) values.set(name, value);
  host().addEventListener("hashchange", () => {
    const found = read();
    if (!isShown() || !found.size) return write();
    values.clear();
    for (const [name, value] of found) values.set(name, value);
    for (const listener of listeners) listener(null);
  });
  write();
}

/** The text called `name`. */
export function get(name, otherwise = "") {
  return values.get(name) ?? otherwise;
}

/** Keep `value`, or forget `name` where it is `otherwise`, and tell who listens. */
export function set(name, value, otherwise = "") {
  if (get(name, otherwise) === value) return;
  if (value === otherwise) values.delete(name);
  else values.set(name, value);
  write();
  for (const listener of listeners) listener(name);
}

/** Call `listener` with the name of what changed, or null for all; returns how to end that. */
export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
