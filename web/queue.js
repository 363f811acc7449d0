// SPDX-License-Identifier: Apache-2.0
// queue.js - what runs and what waits: progress, another order, cancelling.
import * as api from "./api.js";
import { $, duration, make, redraw, sign } from "./dom.js";
import { about } from "./workflow.js";

const MOST = 50; // of the waiting ones are shown
let jobs = { running: [], pending: [], waiting: 0 }, steps = null, dragged = null, asked = null;

export const running = () => jobs.running[0]?.[1] ?? null;

const at = (id) => jobs.pending.findIndex((j) => j[1] === id);
async function act(promise) {
  try { await promise; } catch { /* it began, or ended, meanwhile: the list will show it */ }
  return drawQueue();
}
const before = (i) => jobs.pending[i]?.[1] ?? null;

function dragging(id) {
  return { draggable: true,
    ondragstart: (e) => { dragged = id; e.dataTransfer.effectAllowed = "move"; e.dataTransfer.setData("text/plain", id); },
    ondragend: () => { dragged = null; },
    ondragover: (e) => { if (dragged && dragged !== id) { e.preventDefault(); e.stopPropagation(); } },
    ondrop: (e) => {
      if (!dragged || dragged === id) return;
      e.preventDefault();
      e.stopPropagation();
      act(api.move(dragged, at(dragged) < at(id) ? before(at(id) + 1) : id));
    } };
}

function waiting([, id, prompt], i) {
  const { text, size, steps: many } = about(prompt), last = i === jobs.pending.length - 1;
  return make("li", dragging(id),
    make("div", { className: "what" }, make("span", { title: text }, text), make("small", {}, [size, many].filter(Boolean).join(" · "))),
    sign("↑", "earlier", () => act(api.move(id, before(i - 1))), { "data-key": "up" + id, disabled: i === 0 }),
    sign("↓", "later", () => act(api.move(id, before(i + 2))), { "data-key": "down" + id, disabled: last }),
    sign("✕", "remove from the queue", () => act(api.remove(id)), { "data-key": "drop" + id }));
}

function runs([, id, prompt]) {
  const { text } = about(prompt);
  return make("li", { className: "runs", "aria-current": "true" },
    make("div", { className: "what" }, make("span", { title: text }, text), make("small", { id: "pace" }, pace()),
      make("progress", { id: "progress", max: steps?.max ?? 1, value: steps?.value ?? 0, "aria-label": "progress of the running picture" })),
    sign("■", "stop the running picture", () => act(api.interrupt(id)), { id: "interrupt", "data-key": "stop" + id }));
}

function pace() {
  if (!steps) return "begins …";
  const seconds = (performance.now() - steps.since) / 1000, done = steps.value - steps.first;
  const rate = done > 0 && seconds > 0.2 ? done / seconds : 0, left = rate ? (steps.max - steps.value) / rate : 0;
  return `${steps.value} of ${steps.max}` + (rate ? ` · ${rate >= 1 ? rate.toFixed(1) + " it/s" : (1 / rate).toFixed(1) + " s/it"}` : "") +
    (left >= 1 ? ` · ${duration(left)} left` : "");
}

// A step of the running job. Steps of another node begin a new count.
export function setProgress({ node, value, max }) {
  if (!steps || steps.node !== node || value < steps.value) steps = { node, first: value, since: performance.now() };
  Object.assign(steps, { value, max });
  if (!$("progress")) return;
  $("progress").max = max;
  $("progress").value = value;
  $("pace").textContent = pace();
}
export function endProgress() { steps = null; }
export const share = () => (steps?.max ? steps.value / steps.max : 0);

// At most one question under way, and one after it: a long queue may change often.
export function drawQueue() {
  if (asked) return asked.again ??= asked.then(() => drawQueue());
  asked = api.queue(MOST).then(show).finally(() => { asked = null; });
  return asked;
}

function show(q) {
  jobs = { running: q.queue_running, pending: q.queue_pending, waiting: q.pending_total ?? q.queue_pending.length };
  const hidden = jobs.waiting - jobs.pending.length;
  redraw($("jobs"), ...jobs.running.map(runs), ...jobs.pending.map(waiting),
    ...(hidden > 0 ? [make("li", { className: "rest" }, `and ${hidden} more`)] : []));
  $("clear").hidden = jobs.waiting < 2;
  $("state").textContent = jobs.running.length ? (jobs.waiting ? `drawing, ${jobs.waiting} waiting` : "drawing") : "ready";
  $("state").className = jobs.running.length ? "busy" : "";
}
