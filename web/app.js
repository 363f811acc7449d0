// SPDX-License-Identifier: Apache-2.0
// app.js - the page: a form, the picture that is being made, the queue, the gallery.
// Idea: the form is made from what the server says of its nodes; a loaded workflow gets a form of all its inputs.
import * as api from "./api.js";
import { choices, companion, fromFile, models, textToImage } from "./workflow.js";

const $ = (id) => document.getElementById(id);
let info = {}, loaded = null, running = null, previewUrl = null;

function make(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (key in e && key !== "list") e[key] = value;
    else e.setAttribute(key, value);
  }
  e.append(...children);
  return e;
}

const field = (label, control) => make("label", {}, label, control);
const options = (list, chosen) => list.map((v) => make("option", { value: v, selected: v === chosen }, String(v)));
const select = (name, list, chosen, more = {}) => make("select", { name, ...more }, ...options(list, chosen));
const number = (name, value, more = {}) => make("input", { name, type: "number", value, required: true, ...more });
const report = (text) => { $("fault").textContent = text ?? ""; };

// --- the simple form ---------------------------------------------------------------------------------
const kept = JSON.parse(localStorage.atelier ?? "{}");

function companions(form) {
  const [kind, name] = [form.model.value.split("/", 1)[0], form.model.value.replace(/^[^/]*\//, "")];
  for (const part of form.querySelectorAll("[data-unet]")) part.hidden = kind !== "unet";
  if (kind !== "unet") return;
  form.clip1.value = companion(choices(info, "DualCLIPLoader", "clip_name1"), name, /clip/i) ?? "";
  form.clip2.value = companion(choices(info, "DualCLIPLoader", "clip_name2"), name, /t5/i) ?? "";
  form.vae.value = companion(choices(info, "VAELoader", "vae_name"), name, /vae|^ae/i) ?? "";
}

function simpleForm() {
  const all = models(info), known = (list, v) => (list.includes(v) ? v : list[0]);
  const keys = all.map((m) => `${m.kind}/${m.name}`);
  const model = make("select", { name: "model", onchange: () => companions($("form")) },
    ...all.map((m) => make("option", { value: `${m.kind}/${m.name}`, selected: `${m.kind}/${m.name}` === kept.model }, m.name)));
  const house = known(keys, kept.model)?.includes("house");
  const side = kept.width ? {} : { width: house ? 256 : 1024, height: house ? 256 : 1024 };
  const v = { text: "a big red house on the left and a small yellow star on the right, snowy hills at dusk", negative: "",
    steps: 20, seed: 1, cfg: house ? 2 : 4, count: 1, ...side, ...kept };
  $("fields").replaceChildren(
    field("Prompt", make("textarea", { name: "text", value: v.text, required: true })),
    field("Model", model),
    make("div", { className: "row" }, field("Width", number("width", v.width, { min: 16, max: 16384, step: 8 })),
      field("Height", number("height", v.height, { min: 16, max: 16384, step: 8 }))),
    make("div", { className: "row" }, field("Steps", number("steps", v.steps, { min: 1, max: 1000 })),
      field("Pictures", number("count", v.count, { min: 1, max: 64 }))),
    make("div", { className: "row" }, field("Seed", number("seed", v.seed, { min: 0, max: Number.MAX_SAFE_INTEGER })),
      make("label", {}, "Next seed", select("then", ["the same", "one more", "any"], v.then ?? "one more"))),
    make("details", {}, make("summary", {}, "More"),
      field("What not to draw", make("textarea", { name: "negative", value: v.negative })),
      make("div", { className: "row" }, field("Guidance", number("cfg", v.cfg, { min: 0, max: 100, step: 0.1 })),
        field("Sampler", select("sampler", choices(info, "KSampler", "sampler_name"), v.sampler ?? "euler")),
        field("Scheduler", select("scheduler", choices(info, "KSampler", "scheduler"), v.scheduler ?? "simple"))),
      make("div", { className: "row" }, field("LoRA", select("lora", ["", ...choices(info, "LoraLoader", "lora_name")], v.lora ?? "")),
        field("Strength", number("loraStrength", v.loraStrength ?? 1, { min: -10, max: 10, step: 0.05 }))),
      make("div", { "data-unet": "" },
        field("Text encoder", select("clip1", choices(info, "DualCLIPLoader", "clip_name1"))),
        field("Second text encoder", select("clip2", choices(info, "DualCLIPLoader", "clip_name2"))),
        field("VAE", select("vae", choices(info, "VAELoader", "vae_name"))))));
  if (all.length) companions($("form"));
  else report("The server knows no model: put one into models/checkpoints or models/diffusion_models.");
  $("simple").hidden = true;
}

function simpleGraph() {
  const wish = Object.fromEntries(new FormData($("form")));
  for (const key of ["width", "height", "steps", "seed", "cfg", "count", "loraStrength"]) wish[key] = Number(wish[key]);
  const { clip1, clip2, vae, ...keep } = wish;
  Object.assign(kept, keep);
  const step = { "the same": kept.seed, "one more": kept.seed + 1, any: Math.floor(Math.random() * 2 ** 48) }[wish.then];
  kept.seed = step;
  localStorage.atelier = JSON.stringify(kept);
  $("form").seed.value = step;
  const [kind] = wish.model.split("/", 1);
  return textToImage({ ...wish, kind, model: wish.model.slice(kind.length + 1) });
}

// --- a loaded workflow: every literal input of every node --------------------------------------------
function control(id, name, value, row) {
  const list = Array.isArray(row?.[0]) ? row[0] : row?.[1]?.options, o = row?.[1] ?? {};
  const set = (read) => ({ target }) => { loaded[id].inputs[name] = read(target); };
  if (list) return select("", list.includes(value) ? list : [value, ...list], value, { onchange: set((t) => t.value) });
  if (typeof value === "boolean") return make("input", { type: "checkbox", checked: value, onchange: set((t) => t.checked) });
  if (typeof value === "number")
    return number("", value, { step: row?.[0] === "FLOAT" ? "any" : 1, min: o.min ?? "", max: o.max ?? "", onchange: set((t) => Number(t.value)) });
  if (o.multiline) return make("textarea", { value, onchange: set((t) => t.value) });
  return make("input", { type: "text", value, onchange: set((t) => t.value) });
}

function loadedForm() {
  const groups = Object.entries(loaded).map(([id, n]) => {
    const spec = info[n.class_type]?.input ?? {}, rows = { ...spec.required, ...spec.optional };
    const literals = Object.entries(n.inputs ?? {}).filter(([, v]) => v === null || typeof v !== "object");
    if (!literals.length) return null;
    return make("fieldset", {}, make("legend", {}, `${n._meta?.title ?? info[n.class_type]?.display_name ?? n.class_type} (${id})`),
      ...literals.map(([name, value]) => field(name, control(id, name, value, rows[name]))));
  });
  $("fields").replaceChildren(...groups.filter(Boolean));
  $("simple").hidden = false;
}

async function open(file) {
  report();
  try {
    loaded = await fromFile(file);
    loadedForm();
  } catch (e) { report(e.message); }
}

// --- queue, gallery, devices -------------------------------------------------------------------------
const wishOf = (prompt) => Object.values(prompt).find((n) => n.class_type === "CLIPTextEncode")?.inputs.text;

async function drawQueue() {
  const q = await api.queue();
  running = q.queue_running[0]?.[1] ?? null;
  const row = ([, id, prompt], isRunning) => make("li", {},
    make("span", { title: wishOf(prompt) ?? id }, (isRunning ? "▸ " : "") + (wishOf(prompt) ?? id)),
    ...(isRunning ? [] : [make("button", { type: "button", className: "small", ariaLabel: "remove from the queue",
      onclick: () => api.remove(id).then(drawQueue) }, "✕")]));
  $("jobs").replaceChildren(...q.queue_running.map((j) => row(j, true)), ...q.queue_pending.map((j) => row(j, false)));
  $("interrupt").hidden = !running;
  $("state").textContent = running ? `drawing, ${q.queue_pending.length} waiting` : "ready";
}

function show(src, alt, caption) {
  $("picture").src = src;
  $("picture").alt = alt;
  $("picture").hidden = false;
  $("caption").textContent = caption;
}

async function drawGallery() {
  const entries = Object.values(await api.history(60)).reverse();
  const pictures = entries.flatMap((e) => Object.values(e.outputs).flatMap((o) => o.images ?? []).map((file) => ({ file, prompt: e.prompt[2] })));
  $("gallery").replaceChildren(...pictures.map(({ file, prompt }) => {
    const text = wishOf(prompt) ?? file.filename;
    return make("li", {}, make("button", { type: "button", title: text, onclick: () => {
      show(api.viewUrl(file), text, file.filename);
      loaded = structuredClone(prompt);
      loadedForm();
      scrollTo({ top: 0, behavior: "smooth" });
    } }, make("img", { src: api.viewUrl(file, true), alt: text, loading: "lazy" })));
  }));
}

async function drawDevices() {
  const gib = (n) => (n / 2 ** 30).toFixed(1), { devices } = await api.systemStats();
  $("devices").replaceChildren(...devices.map((d) =>
    make("li", {}, `${d.name}: ${gib(d.vram_total - d.vram_free)} of ${gib(d.vram_total)} GiB`)));
}

// --- messages ----------------------------------------------------------------------------------------
const heard = {
  open: () => refresh(),
  closed: () => { $("state").textContent = "the server is away; trying again …"; },
  status: () => drawQueue(),
  progress: ({ value, max }) => { $("progress").hidden = false; $("progress").max = max; $("progress").value = value; },
  preview: ({ blob }) => {
    if (previewUrl) URL.revokeObjectURL(previewUrl);
    show(previewUrl = URL.createObjectURL(blob), "preview", "");
  },
  executed: ({ output }) => {
    const file = output?.images?.[0];
    if (file) show(api.viewUrl(file), "the finished picture", file.filename);
  },
  executing: ({ node }) => {
    if (node === null) { $("progress").hidden = true; drawGallery(); drawDevices(); }
  },
  execution_error: ({ node_type, exception_message }) => report(`${node_type}: ${exception_message}`),
};

const quietly = (promise) => promise?.catch?.(() => {}); // the socket's state tells that the server is away
const refresh = () => Promise.all([drawQueue(), drawGallery(), drawDevices()].map(quietly));

function faults(e) {
  const nodes = Object.values(e.value?.node_errors ?? {}).flatMap((n) => n.errors.map((x) => `${n.class_type}: ${x.message}: ${x.details}`));
  return [e.message, ...nodes].join("\n");
}

async function draw(event) {
  event?.preventDefault();
  report();
  try {
    const graph = loaded ?? simpleGraph();
    await api.submit(graph, {});
  } catch (e) { report(faults(e)); }
}

$("form").addEventListener("submit", draw);
$("interrupt").addEventListener("click", () => running && api.interrupt(running));
$("simple").addEventListener("click", () => { loaded = null; report(); simpleForm(); });
addEventListener("keydown", (e) => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) $("form").requestSubmit(); });
addEventListener("dragover", (e) => { e.preventDefault(); $("form").classList.add("over"); });
addEventListener("dragleave", () => $("form").classList.remove("over"));
addEventListener("drop", (e) => {
  e.preventDefault();
  $("form").classList.remove("over");
  if (e.dataTransfer.files[0]) open(e.dataTransfer.files[0]);
});
document.querySelector(".hint").append(" ", make("button", { type: "button", className: "small", onclick: () => $("file").click() }, "Choose a file"));
$("file").addEventListener("change", () => $("file").files[0] && open($("file").files[0]));

try {
  info = await api.objectInfo();
  simpleForm();
} catch (e) { report(e.message); }
api.listen((type, data) => quietly(Promise.resolve(heard[type]?.(data))));
