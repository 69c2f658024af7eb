/* The few things every view does to the page. Text only ever goes in as text: all that is pushed is hostile. */

/**
 * Make an element.
 *
 * @param {string} tag its name
 * @param {Object} attributes functions are listeners, by the name of their event; null and false are left out
 * @param {...(Node|string)} children what is in it
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** The element of that id, which the page has. */
export const at = (id) => document.getElementById(id);

/** Have an element say `text`; touches nothing where it does already. */
export function say(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Set or take away an attribute; touches nothing where it is so already. */
export function mark(element, name, value) {
  if (value === null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value);
  }
}

/** Show an element, or keep it from being shown. */
export const reveal = (element, shown) => mark(element, "hidden", shown ? null : "");

const rows = new WeakMap();

/**
 * Have `parent` hold one element per item, in their order. Elements stay those of their items, and with them the focus.
 *
 * @param {Element} parent holds nothing else
 * @param {Array} items what is to be seen
 * @param {function(*): *} keyOf tells items apart
 * @param {function(*): Element} create makes an item's element
 * @param {function(Element, *): void} update has it show the item
 */
export function list(parent, items, keyOf, create, update) {
  const before = rows.get(parent) ?? new Map();
  const now = new Map(items.map((item) => [keyOf(item), null]));
  // First what goes, so that what stays need not be moved, which would take the focus from it.
  for (const [key, element] of before) if (!now.has(key)) element.remove();
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const element = before.get(key) ?? create(item);
    now.set(key, element);
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  rows.set(parent, now);
}
