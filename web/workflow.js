// SPDX-License-Identifier: Apache-2.0
// workflow.js - from a few wishes to a workflow, and from a dropped file to a workflow.
import { convert, readJson } from "./api.js";

const node = (class_type, inputs, title) => ({ class_type, inputs, ...(title && { _meta: { title } }) });

export function choices(info, classType, input) {
  const spec = info[classType]?.input;
  const row = spec?.required?.[input] ?? spec?.optional?.[input];
  if (!row) return [];
  return Array.isArray(row[0]) ? row[0] : row[1]?.options ?? [];
}

// Every model that a picture can begin with: checkpoints bring their encoders, diffusion models do not.
export function models(info) {
  return [
    ...choices(info, "UNETLoader", "unet_name").map((name) => ({ kind: "unet", name })),
    ...choices(info, "CheckpointLoaderSimple", "ckpt_name").map((name) => ({ kind: "checkpoint", name })),
  ];
}

// What suits a model, told by its name. distilled: guidance is an input of the network, nothing is drawn twice.
const families = [
  [/^house/, { side: 256, steps: 20, cfg: 2, sampler: "euler", scheduler: "simple" }],
  [/schnell/, { side: 1024, steps: 4, cfg: 3.5, distilled: true, sampler: "euler", scheduler: "simple" }],
  [/flux/, { side: 1024, steps: 20, cfg: 3.5, distilled: true, sampler: "euler", scheduler: "simple" }],
  [/turbo|lightning|lcm|hyper/, { side: 1024, steps: 6, cfg: 1, sampler: "euler", scheduler: "sgm_uniform" }],
  [/xl|pony|illustrious|animagine|ssd-?1b|vega/, { side: 1024, steps: 25, cfg: 6, sampler: "dpmpp_2m", scheduler: "karras" }],
  [/768|v?2[-_.]1/, { side: 768, steps: 25, cfg: 7, sampler: "dpmpp_2m", scheduler: "karras" }],
  [/./, { side: 512, steps: 25, cfg: 7, sampler: "dpmpp_2m", scheduler: "karras" }],
];
export function suits(kind, name) {
  const file = name.toLowerCase().replace(/^.*[/\\]/, "");
  const [, found] = families.find(([pattern]) => pattern.test(file)) ?? families.at(-1);
  return kind === "unet" && found === families.at(-1)[1] ? families[2][1] : found;
}

export const shapes = { "square": 1, "portrait 2:3": 2 / 3, "landscape 3:2": 3 / 2, "tall 9:16": 9 / 16, "wide 16:9": 16 / 9 };
// As many pixels as a square of that side, in steps that every VAE takes.
export function sized(side, ratio) {
  const step = side > 400 ? 64 : 16, near = (v) => Math.max(step, Math.round(v / step) * step);
  return [near(side * Math.sqrt(ratio)), near(side / Math.sqrt(ratio))];
}

// Of several files the one that belongs to the model by its name, else the first that fits the pattern.
export function companion(names, model, pattern) {
  const stem = model.replace(/\.[^.]*$/, "").toLowerCase();
  const fitting = names.filter((name) => pattern.test(name));
  return fitting.find((name) => name.toLowerCase().startsWith(stem)) ??
    fitting.find((name) => name.toLowerCase().startsWith(stem.split(/[_.-]/)[0])) ?? fitting[0] ?? names[0];
}

export function textToImage(w) {
  const graph = {}, distilled = suits(w.kind, w.model).distilled;
  let model, clip, vae, positive = ["4", 0];
  if (w.kind === "checkpoint") {
    graph[1] = node("CheckpointLoaderSimple", { ckpt_name: w.model });
    [model, clip, vae] = [["1", 0], ["1", 1], ["1", 2]];
  } else {
    graph[1] = node("UNETLoader", { unet_name: w.model, weight_dtype: "default" });
    graph[2] = node("DualCLIPLoader", { clip_name1: w.clip1, clip_name2: w.clip2, type: "flux", device: "default" });
    graph[3] = node("VAELoader", { vae_name: w.vae });
    [model, clip, vae] = [["1", 0], ["2", 0], ["3", 0]];
  }
  (w.loras ?? []).forEach(({ name, strength }, i) => {
    const id = String(20 + i);
    graph[id] = node("LoraLoader", { model, clip, lora_name: name, strength_model: strength, strength_clip: strength });
    [model, clip] = [[id, 0], [id, 1]];
  });
  graph[4] = node("CLIPTextEncode", { text: w.text, clip }, "prompt");
  graph[5] = node("CLIPTextEncode", { text: distilled ? "" : w.negative, clip }, "negative");
  if (distilled) {
    graph[10] = node("FluxGuidance", { conditioning: ["4", 0], guidance: w.cfg });
    positive = ["10", 0];
  }
  graph[6] = node(w.kind === "checkpoint" ? "EmptyLatentImage" : "EmptySD3LatentImage",
    { width: w.width, height: w.height, batch_size: w.count });
  graph[7] = node("KSampler", { model, seed: w.seed, steps: w.steps, cfg: distilled ? 1 : w.cfg, sampler_name: w.sampler,
    scheduler: w.scheduler, positive, negative: ["5", 0], latent_image: ["6", 0], denoise: 1 }, "sampler");
  graph[8] = node("VAEDecode", { samples: ["7", 0], vae });
  graph[9] = node("SaveImage", { images: ["8", 0], filename_prefix: "atelier" });
  return graph;
}

// What a workflow is about, in a line and in a few words.
export function about(prompt) {
  const nodes = Object.values(prompt), text = (n) => typeof n.inputs?.text === "string" && n.inputs.text.trim();
  const wish = nodes.find((n) => text(n) && n._meta?.title === "prompt") ?? nodes.find(text);
  const k = nodes.find((n) => n.inputs?.steps !== undefined)?.inputs ?? {};
  const size = nodes.find((n) => typeof n.inputs?.width === "number")?.inputs;
  const seed = nodes.map((n) => n.inputs?.seed ?? n.inputs?.noise_seed).find((v) => v !== undefined && typeof v !== "object");
  const facts = { size: size && `${size.width} × ${size.height}`, steps: k.steps && `${k.steps} steps`, seed: seed !== undefined && `seed ${seed}` };
  return { text: wish ? text(wish) : nodes.map((n) => n.class_type).slice(0, 4).join(", "), ...facts,
    facts: Object.values(facts).filter(Boolean).join(" · ") };
}

// The tEXt chunks of a PNG.
function texts(buffer) {
  const view = new DataView(buffer), found = {}, latin = new TextDecoder("latin1");
  for (let at = 8; at + 12 <= buffer.byteLength;) {
    const n = view.getUint32(at), kind = latin.decode(new Uint8Array(buffer, at + 4, 4));
    if (at + 12 + n > buffer.byteLength) break;
    if (kind === "tEXt") {
      const [key, ...rest] = latin.decode(new Uint8Array(buffer, at + 8, n)).split("\0");
      found[key] = rest.join("\0");
    }
    at += 12 + n;
  }
  return found;
}

// A workflow in the API's form from a file: a PNG that carries one, or JSON in the API's or the editor's form.
export async function fromFile(file) {
  const buffer = await file.arrayBuffer();
  const png = buffer.byteLength > 8 && new DataView(buffer).getUint32(0) === 0x89504e47;
  const inside = png ? texts(buffer) : null;
  const text = png ? inside.prompt ?? inside.workflow : new TextDecoder().decode(buffer);
  if (!text) throw new Error(`${file.name} carries no workflow`);
  let value;
  try { value = readJson(text); } catch { throw new Error(`${file.name} is neither a picture with a workflow nor a workflow`); }
  let graph = value?.prompt ?? value;
  if (Array.isArray(graph?.nodes)) graph = await convert(text);
  if (!graph || typeof graph !== "object" || !Object.keys(graph).length || !Object.values(graph).every((n) => n?.class_type))
    throw new Error(`${file.name} is no workflow`);
  return graph;
}
