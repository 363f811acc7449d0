// SPDX-License-Identifier: Apache-2.0
// app.js - the page: a form, the picture that is being made, the queue, the gallery.
// Idea: the form is made from what the server says of its nodes; a loaded workflow gets a form of all its inputs.
import * as api from "./api.js";
import { $, gib, make, redraw } from "./dom.js";
import { simpleForm, simpleGraph } from "./form.js";
import { drawGallery, older } from "./gallery.js";
import { markWrong, nodesForm } from "./nodes.js";
import { drawQueue, endProgress, running, setProgress, share } from "./queue.js";
import { about, fromFile } from "./workflow.js";

let info = {}, loaded = null, shown = null, previewUrl = null;
let chosen = false; // a person looks at a picture of the gallery: nothing takes its place until the next is asked for

const report = (text) => { $("fault").textContent = text ?? ""; };
const quietly = (promise) => promise?.catch?.(() => {}); // the socket's state tells that the server is away
const later = (f, ms) => { let timer; return () => { clearTimeout(timer); timer = setTimeout(() => quietly(f()), ms); }; };

// --- the stage -----------------------------------------------------------------------------------------
function show(src, alt, picture = null) {
  shown = picture;
  Object.assign($("picture"), { src, alt, hidden: false });
  $("nothing").hidden = true;
  $("caption").textContent = picture ? about(picture.prompt).text : "";
  $("facts").textContent = picture ? [about(picture.prompt).facts, picture.file.filename].filter(Boolean).join(" · ") : "";
  $("deeds").hidden = !picture;
  if (!picture) return;
  $("save").href = $("full").href = src;
  $("save").download = picture.file.filename;
}

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const bring = (id) => $(id).scrollIntoView({ behavior: calm.matches ? "auto" : "smooth", block: "nearest" });

function open(picture) {
  chosen = true;
  show(api.viewUrl(picture.file), about(picture.prompt).text, picture);
  bring("stage");
}

function saveWorkflow() {
  const url = URL.createObjectURL(new Blob([JSON.stringify(shown.prompt, null, 2)], { type: "application/json" }));
  make("a", { href: url, download: shown.file.filename.replace(/\.[^.]*$/, "") + ".json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// --- forms ---------------------------------------------------------------------------------------------
function edit(graph, name) {
  report();
  loaded = graph;
  $("origin").textContent = name;
  nodesForm($("fields"), info, loaded);
  $("loaded").hidden = false;
}
function simple() {
  loaded = null;
  $("loaded").hidden = true;
  report(simpleForm(info));
}
async function load(file) {
  report();
  try { edit(await fromFile(file), file.name); } catch (e) { report(e.message); }
}

function faults(e) {
  const nodes = Object.values(e.value?.node_errors ?? {}).flatMap((n) => n.errors.map((x) => `${n.class_type}: ${x.message}: ${x.details}`));
  return [e.message, ...nodes].join("\n");
}

async function draw(event) {
  event?.preventDefault();
  report();
  chosen = false;
  try {
    await api.submit(loaded ?? simpleGraph());
    markWrong($("fields"));
    bring("stage");
    await drawQueue();
  } catch (e) {
    report(faults(e));
    markWrong($("fields"), e.value?.node_errors);
  }
}

// --- devices -------------------------------------------------------------------------------------------
const meter = (name, part, text) => make("span", { className: "meter" }, make("span", {}, name),
  make("meter", { value: part, max: 1, "aria-label": `${name}: ${text}` }), make("span", {}, text));

function device(d) {
  const used = d.total - d.free, facts = [d.watts !== null && `${Math.round(d.watts)} W`, d.celsius !== null && `${Math.round(d.celsius)} °C`];
  return make("li", { title: d.description }, make("b", {}, d.name),
    d.busy !== null && meter("load", d.busy, `${Math.round(100 * d.busy)} %`),
    meter("memory", d.total ? used / d.total : 0, `${gib(used)} of ${gib(d.total)} GiB`),
    facts.some(Boolean) && make("span", {}, facts.filter(Boolean).join(" · ")));
}
async function drawDevices() {
  const { devices } = await api.devices();
  redraw($("devices"), ...devices.map(device));
}
let tick = 0;
setInterval(() => { if (!document.hidden && (running() || tick++ % 5 === 0)) quietly(drawDevices()); }, 2000);

// --- messages ------------------------------------------------------------------------------------------
const title = () => { document.title = running() ? `${Math.round(100 * share())} % · atelier` : "atelier"; };
const queueSoon = later(drawQueue, 60), gallerySoon = later(() => drawGallery(open), 200);

const heard = {
  open: () => Promise.all([drawQueue(), drawGallery(open), drawDevices()].map(quietly)),
  closed: () => { $("state").textContent = "the server is away; trying again …"; $("state").className = "away"; },
  status: () => { queueSoon(); gallerySoon(); }, // somebody else's pictures too
  execution_start: () => { endProgress(); queueSoon(); },
  progress: (data) => { setProgress(data); title(); },
  preview: ({ blob }) => {
    if (chosen) return;
    if (previewUrl) URL.revokeObjectURL(previewUrl);
    show(previewUrl = URL.createObjectURL(blob), "what there is of the picture so far");
  },
  executed: ({ output }) => {
    const file = output?.images?.[0];
    if (file && !chosen) show(api.viewUrl(file), "the finished picture");
  },
  executing: async ({ node, prompt_id }) => {
    if (node !== null) return;
    endProgress();
    title();
    const made = (await drawGallery(open)).find((p) => p.id === prompt_id);
    if (made) {
      if (!chosen) show(api.viewUrl(made.file), about(made.prompt).text, made);
      $("news").textContent = "the picture is finished";
    }
    await Promise.all([drawQueue(), drawDevices()]);
  },
  execution_error: ({ node_type, exception_message }) => report(`${node_type}: ${exception_message}`.trim()),
  execution_interrupted: () => { $("news").textContent = "the picture was stopped"; },
};

// --- what a person does ----------------------------------------------------------------------------------
$("form").addEventListener("submit", draw);
$("simple").addEventListener("click", simple);
$("edit").addEventListener("click", () => { edit(structuredClone(shown.prompt), shown.file.filename); bring("form"); });
$("workflow").addEventListener("click", saveWorkflow);
$("clear").addEventListener("click", () => quietly(api.clear().then(drawQueue)));
$("older").addEventListener("click", () => quietly(older(open)));
$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => $("file").files[0] && load($("file").files[0]));
addEventListener("keydown", (e) => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) $("form").requestSubmit(); });
const carries = (e) => [...(e.dataTransfer?.types ?? [])].includes("Files");
addEventListener("dragover", (e) => { if (carries(e)) { e.preventDefault(); document.body.classList.add("over"); } });
addEventListener("dragleave", (e) => { if (!e.relatedTarget) document.body.classList.remove("over"); });
addEventListener("drop", (e) => {
  e.preventDefault();
  document.body.classList.remove("over");
  if (e.dataTransfer.files[0]) load(e.dataTransfer.files[0]);
});

const themes = ["light dark", "light", "dark"], themeNames = ["as the system", "light", "dark"];
function setTheme(i) {
  document.documentElement.style.colorScheme = themes[i];
  $("theme").title = `colours: ${themeNames[i]}`;
  $("theme").setAttribute("aria-label", $("theme").title);
  localStorage.theme = i;
}
setTheme(Number(localStorage.theme ?? 0) % 3);
$("theme").addEventListener("click", () => setTheme((Number(localStorage.theme) + 1) % 3));

try {
  info = await api.objectInfo();
  simple();
} catch (e) { report(e.message); }
api.listen((type, data) => quietly(Promise.resolve(heard[type]?.(data))));
