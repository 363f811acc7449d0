// SPDX-License-Identifier: Apache-2.0
// workflow.js - from a few wishes to a workflow, and from a dropped file to a workflow.

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

// Of several files the one that belongs to the model by its name, else the first that fits the pattern.
export function companion(names, model, pattern) {
  const stem = model.replace(/\.[^.]*$/, "").toLowerCase();
  const fitting = names.filter((name) => pattern.test(name));
  return fitting.find((name) => name.toLowerCase().startsWith(stem)) ??
    fitting.find((name) => name.toLowerCase().startsWith(stem.split(/[_.-]/)[0])) ?? fitting[0] ?? names[0];
}

export function textToImage(w) {
  const graph = {};
  let model, clip, vae;
  if (w.kind === "checkpoint") {
    graph[1] = node("CheckpointLoaderSimple", { ckpt_name: w.model });
    [model, clip, vae] = [["1", 0], ["1", 1], ["1", 2]];
  } else {
    graph[1] = node("UNETLoader", { unet_name: w.model, weight_dtype: "default" });
    graph[2] = node("DualCLIPLoader", { clip_name1: w.clip1, clip_name2: w.clip2, type: "flux", device: "default" });
    graph[3] = node("VAELoader", { vae_name: w.vae });
    [model, clip, vae] = [["1", 0], ["2", 0], ["3", 0]];
  }
  if (w.lora) {
    graph[10] = node("LoraLoader", { model, clip, lora_name: w.lora, strength_model: w.loraStrength, strength_clip: w.loraStrength });
    [model, clip] = [["10", 0], ["10", 1]];
  }
  graph[4] = node("CLIPTextEncode", { text: w.text, clip }, "prompt");
  graph[5] = node("CLIPTextEncode", { text: w.negative, clip }, "negative");
  graph[6] = node(w.kind === "checkpoint" ? "EmptyLatentImage" : "EmptySD3LatentImage",
    { width: w.width, height: w.height, batch_size: w.count });
  graph[7] = node("KSampler", { model, seed: w.seed, steps: w.steps, cfg: w.cfg, sampler_name: w.sampler, scheduler: w.scheduler,
    positive: ["4", 0], negative: ["5", 0], latent_image: ["6", 0], denoise: 1 }, "sampler");
  graph[8] = node("VAEDecode", { samples: ["7", 0], vae });
  graph[9] = node("SaveImage", { images: ["8", 0], filename_prefix: "atelier" });
  return graph;
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

// An API workflow from a file: a PNG that carries one, or JSON.
export async function fromFile(file) {
  const buffer = await file.arrayBuffer();
  const png = buffer.byteLength > 8 && new DataView(buffer).getUint32(0) === 0x89504e47;
  const text = png ? texts(buffer).prompt : new TextDecoder().decode(buffer);
  if (!text) throw new Error(`${file.name} carries no workflow`);
  const value = JSON.parse(text), graph = value.prompt ?? value;
  if (Array.isArray(graph.nodes))
    throw new Error(`${file.name} is in the editor's format: save it with "Export (API)", or run it with atelier run`);
  if (!Object.values(graph).every((n) => n?.class_type)) throw new Error(`${file.name} is no workflow`);
  return graph;
}
