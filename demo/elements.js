// Building elements: text is only ever set as text, so that nothing in a visitor's file becomes markup.

/**
 * @param {string} tag
 * @param {Record<string, string | boolean>} [attributes]
 * @param {...(Node | string)} children
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** @param {string} id */
export function part(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

const whole = new Intl.NumberFormat("en");
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });

/** @param {number} value */
export const count = (value) => whole.format(value);

/** @param {number} value */
export const figure = (value) => fine.format(value);

/**
 * @param {number} amount
 * @param {string} noun
 */
export const plural = (amount, noun) => `${count(amount)} ${noun}${amount === 1 ? "" : "s"}`;

/** @param {string} instant */
export const clockTime = (instant) => new Date(instant).toLocaleTimeString("en-GB");

/** @param {string} instant */
export const dayAndTime = (instant) =>
  new Date(instant).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
