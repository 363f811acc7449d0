// SPDX-License-Identifier: Apache-2.0
// form.js - the simple form: a wish, a model, and what suits it; kept for the next visit.
import { $, button, field, make, number, redraw, row, select, sign } from "./dom.js";
import { choices, companion, models, shapes, sized, suits, textToImage } from "./workflow.js";

const numbers = ["width", "height", "steps", "seed", "cfg", "count"];
const kept = JSON.parse(localStorage.atelier ?? "{}");
let info = {};

const form = () => $("form");
const split = (value) => [value.split("/", 1)[0], value.replace(/^[^/]*\//, "")];
const any = () => Math.floor(Math.random() * 2 ** 32);

// What must follow the model: its encoders and VAE, and what it likes where `fresh`.
function follow(fresh) {
  const f = form(), [kind, name] = split(f.model.value), like = suits(kind, name);
  for (const part of f.querySelectorAll("[data-unet]")) part.hidden = kind !== "unet";
  for (const part of f.querySelectorAll("[data-plain]")) part.hidden = Boolean(like.distilled);
  if (kind === "unet") {
    f.clip1.value = companion(choices(info, "DualCLIPLoader", "clip_name1"), name, /clip/i) ?? "";
    f.clip2.value = companion(choices(info, "DualCLIPLoader", "clip_name2"), name, /t5/i) ?? "";
    f.vae.value = companion(choices(info, "VAELoader", "vae_name"), name, /vae|^ae/i) ?? "";
  }
  if (fresh) {
    for (const key of ["steps", "cfg", "sampler", "scheduler"]) f[key].value = like[key];
    reshape("square");
  }
  nameShape();
}

function reshape(shape) {
  if (!shapes[shape]) return;
  const f = form();
  [f.width.value, f.height.value] = sized(suits(...split(f.model.value)).side, shapes[shape]);
}
function nameShape() {
  const f = form(), { side } = suits(...split(f.model.value));
  f.shape.value = Object.keys(shapes).find((s) => sized(side, shapes[s]).join() === [f.width.value, f.height.value].join()) ?? "own";
}

function loraRow(names, { name, strength }) {
  const line = make("div", { className: "row lora" },
    select("", names, name, { "aria-label": "LoRA", className: "wide" }),
    number("", strength, { min: -10, max: 10, step: 0.05, "aria-label": "strength of the LoRA" }),
    sign("✕", "take this LoRA away", () => { line.remove(); $("more-loras").focus(); }));
  return line;
}
const loras = () => [...form().querySelectorAll(".lora")].map((line) => ({
  name: line.querySelector("select").value, strength: Number(line.querySelector("input").value) }));

function loraPart() {
  const names = choices(info, "LoraLoader", "lora_name");
  if (!names.length) return make("p", { className: "hint loras" }, "LoRAs: there is none in models/loras.");
  const list = make("div", {}, ...(kept.loras ?? []).filter((l) => names.includes(l.name)).map((l) => loraRow(names, l)));
  const unused = () => names.find((n) => !loras().some((l) => l.name === n)) ?? names[0];
  const add = button("Add a LoRA", () => { list.append(loraRow(names, { name: unused(), strength: 1 })); list.lastChild.querySelector("select").focus(); },
    { id: "more-loras", className: "quiet" });
  return make("div", { className: "loras" }, list, add);
}

function advanced(v) {
  return make("details", { open: Boolean(kept.open), ontoggle: (e) => { kept.open = e.target.open; } }, make("summary", {}, "More"),
    make("div", { "data-plain": "" }, field("What not to draw", make("textarea", { name: "negative", value: v.negative, rows: 2 }))),
    row(field("Guidance", number("cfg", v.cfg, { min: 0, max: 100, step: 0.1 })),
      field("Pictures", number("count", v.count, { min: 1, max: 64 }))),
    row(field("Sampler", select("sampler", choices(info, "KSampler", "sampler_name"), v.sampler)),
      field("Scheduler", select("scheduler", choices(info, "KSampler", "scheduler"), v.scheduler))),
    make("div", { "data-unet": "" },
      field("Text encoder", select("clip1", choices(info, "DualCLIPLoader", "clip_name1"))),
      field("Second text encoder", select("clip2", choices(info, "DualCLIPLoader", "clip_name2"))),
      field("VAE", select("vae", choices(info, "VAELoader", "vae_name")))));
}

// Fills #fields; returns a complaint, or nothing.
export function simpleForm(objectInfo) {
  info = objectInfo;
  const all = models(info);
  if (!all.length) {
    redraw($("fields"));
    return "The server knows no model yet: put one into models/checkpoints or models/diffusion_models, and load this page again.";
  }
  const keys = all.map((m) => `${m.kind}/${m.name}`), chosen = keys.includes(kept.model) ? kept.model : keys[0];
  const fresh = chosen !== kept.model || !kept.width;
  const v = { text: "a big red house on the left and a small yellow star on the right, snowy hills at dusk", negative: "",
    steps: 20, seed: any(), cfg: 2, count: 1, width: 512, height: 512, then: "new", ...kept };
  const side = { min: 16, max: 16384, step: 8, oninput: nameShape };
  redraw($("fields"),
    field("Prompt", make("textarea", { name: "text", value: v.text, required: true, rows: 4 })),
    field("Model", make("select", { name: "model", onchange: () => follow(true) },
      ...all.map((m, i) => make("option", { value: keys[i], selected: keys[i] === chosen }, m.name)))),
    loraPart(),
    row(field("Shape", select("shape", [...Object.keys(shapes), "own"], "own", { onchange: (e) => reshape(e.target.value) }), "wide"),
      field("Width", number("width", v.width, side)), field("Height", number("height", v.height, side))),
    row(field("Steps", number("steps", v.steps, { min: 1, max: 1000 })),
      field("Seed", number("seed", v.seed, { min: 0, max: Number.MAX_SAFE_INTEGER }), "wide"),
      field("Next seed", select("then", ["new", "+ 1", "same"], v.then))),
    advanced(v));
  follow(fresh);
}

// The workflow of what the form says; the form goes on to the next seed.
export function simpleGraph() {
  const wish = Object.fromEntries(new FormData(form()));
  for (const key of numbers) wish[key] = Number(wish[key]);
  wish.loras = loras();
  const { clip1, clip2, vae, shape, ...keep } = wish;
  Object.assign(kept, keep);
  kept.seed = form().seed.value = { same: wish.seed, "+ 1": wish.seed + 1 }[wish.then] ?? any();
  localStorage.atelier = JSON.stringify(kept);
  const [kind, model] = split(wish.model);
  return textToImage({ ...wish, kind, model });
}
