// SPDX-License-Identifier: Apache-2.0
// nodes.js - the form of a loaded workflow: every input of every node that is no link.
// Idea: the workflow is the state; a control writes into it as soon as it is changed.
import { button, field, make, number, redraw, select } from "./dom.js";
import { upload } from "./api.js";

const isWhole = (text) => /^-?\d+$/.test(text);

function pictureControl(list, value, set, more) {
  const choice = select("", list.includes(value) ? list : [value, ...list], value, { onchange: (e) => set(e.target.value), ...more });
  const file = make("input", { type: "file", accept: "image/*", hidden: true, onchange: async () => {
    if (!file.files[0]) return;
    const { name, subfolder } = await upload(file.files[0]), path = subfolder ? `${subfolder}/${name}` : name;
    choice.prepend(make("option", { value: path }, path));
    set(choice.value = path);
  } });
  return make("span", { className: "row" }, choice, file, button("Another file", () => file.click(), { className: "quiet" }));
}

function control(row, value, set, more) {
  const list = Array.isArray(row?.[0]) ? row[0] : row?.[1]?.options, o = row?.[1] ?? {};
  if (list && o.image_upload) return pictureControl(list, value, set, more);
  if (list) return select("", list.includes(value) ? list : [value, ...list], value, { onchange: (e) => set(e.target.value), ...more });
  if (typeof value === "boolean")
    return make("input", { type: "checkbox", checked: value, onchange: (e) => set(e.target.checked), ...more });
  const limits = { min: o.min ?? "", max: o.max ?? "" };
  if (row?.[0] === "INT" && typeof value === "string" && isWhole(value)) // more digits than a number here holds
    return make("input", { type: "text", inputMode: "numeric", pattern: "-?[0-9]+", value, onchange: (e) => set(e.target.value), ...more });
  if (typeof value === "number")
    return number("", value, { step: row?.[0] === "INT" ? 1 : "any", ...limits, onchange: (e) => set(Number(e.target.value)), ...more });
  const text = { value: value ?? "", onchange: (e) => set(e.target.value), ...more };
  return o.multiline ? make("textarea", { rows: 3, ...text }) : make("input", { type: "text", ...text });
}

const literal = ([, v]) => v === null || typeof v !== "object";

// Fills `place` with a form of the workflow.
export function nodesForm(place, info, graph) {
  const groups = Object.entries(graph).map(([id, n]) => {
    const about = info[n.class_type], rows = { ...about?.input?.required, ...about?.input?.optional };
    const inputs = Object.entries(n.inputs ?? {}).filter(literal);
    if (!inputs.length && about) return null;
    const title = n._meta?.title ?? about?.display_name ?? n.class_type;
    return make("fieldset", { "data-node": id },
      make("legend", {}, `${title} (${id})`),
      !about && make("p", { className: "wrong" }, `The server has no node ${n.class_type}.`),
      ...inputs.map(([name, value]) => field(name,
        control(rows[name], value, (v) => { n.inputs[name] = v; }, { "data-input": `${id}.${name}`, title: rows[name]?.[1]?.tooltip ?? "" }))));
  });
  redraw(place, ...groups.filter(Boolean));
}

// Marks what the server refused: {"7": {"errors": [{"extra_info": {"input_name": "steps"}}]}}.
export function markWrong(place, errors = {}) {
  for (const e of place.querySelectorAll("[aria-invalid]")) e.removeAttribute("aria-invalid");
  const names = Object.entries(errors).flatMap(([id, n]) => n.errors.map((x) => `${id}.${x.extra_info?.input_name}`));
  const wrong = [...place.querySelectorAll("[data-input]")].filter((e) => names.includes(e.dataset.input));
  for (const e of wrong) e.setAttribute("aria-invalid", "true");
  wrong[0]?.focus();
}
