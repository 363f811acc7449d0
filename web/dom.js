// SPDX-License-Identifier: Apache-2.0
// dom.js - making elements: a tag, its properties or attributes, its children.

export const $ = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined) continue;
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (key in e && key !== "list") e[key] = value;
    else e.setAttribute(key, value);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined && c !== false));
  return e;
}

export const field = (label, control, className = "") => make("label", { className }, make("span", {}, label), control);
export const row = (...parts) => make("div", { className: "row" }, ...parts);
const option = (v, chosen) => make("option", { value: v, selected: v === chosen }, String(v));
export const select = (name, list, chosen, more = {}) => make("select", { name, ...more }, ...list.map((v) => option(v, chosen)));
export const number = (name, value, more = {}) => make("input", { name, type: "number", value, required: true, ...more });
export const button = (text, onclick, more = {}) => make("button", { type: "button", onclick, ...more }, text);
// A small button that shows a sign and says what it does.
export const sign = (glyph, says, onclick, more = {}) =>
  button(glyph, onclick, { className: "sign", title: says, "aria-label": says, ...more });

// New children; what had the focus has it again if it is still there (elements are told apart by data-key).
export function redraw(parent, ...children) {
  const key = parent.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  parent.replaceChildren(...children);
  if (key) [...parent.querySelectorAll("[data-key]")].find((e) => e.dataset.key === key)?.focus();
}

export const gib = (n) => (n / 2 ** 30).toFixed(n < 10 * 2 ** 30 ? 1 : 0);
export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  return s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
}
