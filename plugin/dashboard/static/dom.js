/** Elements of the page. Texts of users go in through textContent alone. */

/**
 * An element with properties, attributes (`aria-…`, `data-…`, `style`) and children.
 * @param {string} tag
 * @param {Object<string, *>} properties `onclick`, `className`, `title` and the like
 * @param {...(Node|string|null)} children
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "style") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** A user's text: its own direction of writing, whole on hover. */
export function text(words, properties = {}) {
  return element("bdi", { title: words, ...properties }, words);
}

/** A measure's name, which may break after its underscores. */
export function measureName(name) {
  const parts = name.split(/(?<=_)/);
  return element("span", { translate: false }, ...parts.flatMap((part) => [part, element("wbr")]));
}

/** A choice among `options`, pairs of value and label. */
export function choice(label, options, chosen, onchange) {
  const select = element("select", { onchange: () => onchange(select.value) });
  for (const [value, shown] of options) {
    select.append(element("option", { value, selected: value === chosen }, shown));
  }
  return element("label", {}, `${label} `, select);
}

/** A number with three significant decimals; a dash where it is undefined. */
export function figure(value) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) < 10 ? value.toFixed(3) : Number(value.toPrecision(5)).toString();
}

/** `act`, once its last call is 150 ms ago: neither server nor address is asked at each key. */
export function inRest(act) {
  let waiting;
  return () => {
    clearTimeout(waiting);
    waiting = setTimeout(act, 150);
  };
}

/** Call `act` once `made` comes into sight; returns whether it did. */
export function whenSeen(made, act) {
  let isSeen = false;
  const watch = new IntersectionObserver(
    ([entry]) => {
      if (!entry.isIntersecting) return;
      isSeen = true;
      watch.disconnect();
      act();
    },
    { rootMargin: "150px" },
  );
  watch.observe(made);
  return () => isSeen;
}
