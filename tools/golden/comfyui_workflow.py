#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whole workflows in the real ComfyUI and in atelier, on the same random models at published widths: the pictures
must agree to 45 dB.

    pip install -r ~/ComfyUI/requirements.txt
    tools/golden/comfyui_workflow.py --comfyui ~/ComfyUI --atelier build/release/bin/atelier --dir /tmp/whole [--only NAME,...]

ComfyUI runs in this process, its execution.py on its nodes.py, with --cpu --force-fp32; atelier runs with --dtype f32.
Models are made on first use into DIR/models (sd15 4 GB, xl 5 GB, their LoRAs and ControlNet up to 1.5 GB more).
Random networks do not draw: a short way from little noise keeps the picture between black and white."""
import argparse
import json
import os
import subprocess
import sys
import time

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
WIDTH = HEIGHT = 256
PROMPT = "a (red:1.3) fox by the [calm] sea, ((bright)) sky \\(wide\\), oil painting"
NEGATIVE = "blurry, (low quality:1.4)"


# --- models -------------------------------------------------------------------------------------------
def with_prefix(prefix, sd):
    return {prefix + k: v.float() for k, v in sd.items()}


def a_vae(seed):
    import vae
    sd = vae.weights(vae.Config(ch=128, mult=(1, 2, 4, 4), z=4, quant=True), seed)
    for k in sd:        # between black and white, and not grey
        if k.startswith("decoder.conv_out"):
            sd[k] = sd[k] * 0.6
    return with_prefix("first_stage_model.", sd)


def a_unet(cfg, seed):
    import unet
    sd = unet.weights(cfg, seed, torch.float16)
    return with_prefix("model.diffusion_model.", {k: v * 0.5 if k.startswith("out.2") else v for k, v in sd.items()})


def clip_l(seed):
    import clip
    return clip.weights(clip.Config(width=768, layers=12, mlp=3072, vocab=49408), seed)


def make_sd15(path):
    from case import write_model
    from unet_full import UNETS
    write_model(path, {**a_unet(UNETS["sd15"][0], 801), **with_prefix("cond_stage_model.transformer.", clip_l(802)), **a_vae(803)})


def make_xl(path):
    """SDXL's encoders and latents around the smallest of its networks (Segmind Vega)."""
    import clip
    from case import write_model
    from unet_full import CLIPS, UNETS
    g = clip.to_open_clip(clip.weights(CLIPS["clip_g"], 805), CLIPS["clip_g"])
    write_model(path, {**a_unet(UNETS["vega"][0], 804), **with_prefix("conditioner.embedders.1.model.", g), **a_vae(807),
                       **with_prefix("conditioner.embedders.0.transformer.", clip_l(806))})


def make_lora(path):
    """kohya's names, rank 8, every attention and feed-forward of the UNet and of CLIP."""
    import unet
    from case import Random, write_model
    from safetensors import safe_open
    from unet_full import UNETS
    cfg = UNETS["sd15"][0]
    r, sd, names = Random(808), {}, unet.module_names(cfg, "class_embedding")
    prefix, shapes = "model.diffusion_model.", {}
    with safe_open(os.path.join(os.path.dirname(os.path.dirname(path)), "checkpoints/sd15.safetensors"), "pt") as f:
        for k in f.keys():
            s = f.get_slice(k).get_shape()
            if k.startswith(prefix) and ".transformer_blocks." in k and k.endswith("weight") and len(s) == 2:
                shapes[k[len(prefix):]] = s
    layers = {}
    for k, s in shapes.items():
        head, tail = k.removesuffix(".weight").split(".transformer_blocks.")
        layers["lora_unet_" + f"{names[head]}.transformer_blocks.{tail}".replace(".", "_")] = s
    for i in range(12):
        p = f"lora_te_text_model_encoder_layers_{i}_"
        layers.update({p + f"self_attn_{n}_proj": (768, 768) for n in ("q", "k", "v", "out")})
        layers.update({p + "mlp_fc1": (3072, 768), p + "mlp_fc2": (768, 3072)})
    for name, (out, inp) in layers.items():
        sd[name + ".lora_down.weight"] = r.normal(name + "d", (8, inp), inp ** -0.5).float()
        sd[name + ".lora_up.weight"] = r.normal(name + "u", (out, 8), 0.2).float()
        sd[name + ".alpha"] = torch.tensor(4.0)
    write_model(path, sd)


def make_control(path):
    import control_ldm
    from case import write_model
    from unet_full import UNETS
    control_ldm.HINT = (16, 16, 32, 32, 96, 96, 256)    # as published; the golden cases are narrower
    sd = control_ldm.weights(UNETS["sd15"][0], 809)
    write_model(path, {"control_model." + k: v.float() for k, v in sd.items()})


MODELS = {"checkpoints/sd15.safetensors": make_sd15, "checkpoints/xl.safetensors": make_xl,
          "loras/sd15.safetensors": make_lora, "controlnet/sd15.safetensors": make_control}


# --- workflows ----------------------------------------------------------------------------------------
def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def usual(checkpoint, **sampler):
    return {
        "m": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "p": node("CLIPTextEncode", text=PROMPT, clip=["m", 1]),
        "n": node("CLIPTextEncode", text=NEGATIVE, clip=["m", 1]),
        "e": node("EmptyLatentImage", width=WIDTH, height=HEIGHT, batch_size=1),
        "k": node("KSampler", **{**dict(model=["m", 0], seed=20240, steps=4, cfg=5.0, sampler_name="euler", scheduler="normal",
                                        positive=["p", 0], negative=["n", 0], latent_image=["e", 0], denoise=0.3), **sampler}),
        "v": node("VAEDecode", samples=["k", 0], vae=["m", 2]),
        "s": node("SaveImage", images=["v", 0], filename_prefix="picture"),
    }


def sd15(**sampler):
    return usual("sd15.safetensors", **sampler)


def lora():
    w = sd15(model=["l", 0])
    w["l"] = node("LoraLoader", model=["m", 0], clip=["m", 1], lora_name="sd15.safetensors", strength_model=0.8, strength_clip=0.6)
    w["p"]["inputs"]["clip"] = w["n"]["inputs"]["clip"] = ["l", 1]
    return w


def control():
    w = sd15(positive=["c", 0], negative=["c", 1])
    w["i"] = node("LoadImage", image="hint.png")
    w["cn"] = node("ControlNetLoader", control_net_name="sd15.safetensors")
    w["c"] = node("ControlNetApplyAdvanced", positive=["p", 0], negative=["n", 0], control_net=["cn", 0], image=["i", 0],
                  strength=0.7, start_percent=0.0, end_percent=1.0, vae=["m", 2])
    return w


def image():
    w = sd15(latent_image=["ve", 0], denoise=0.4, sampler_name="dpmpp_2m", scheduler="karras")
    w["i"] = node("LoadImage", image="hint.png")
    w["ve"] = node("VAEEncode", pixels=["i", 0], vae=["m", 2])
    return w


def skip():
    w = sd15(model=["f", 0])
    w["c"] = node("CLIPSetLastLayer", clip=["m", 1], stop_at_clip_layer=-2)
    w["f"] = node("FreeU_V2", model=["m", 0], b1=1.2, b2=1.3, s1=0.9, s2=0.6)
    w["p"]["inputs"]["clip"] = w["n"]["inputs"]["clip"] = ["c", 0]
    return w


WORKFLOWS = {
    "sd15": sd15(),
    "sd15_ancestral": sd15(sampler_name="euler_ancestral", scheduler="karras", steps=5),
    "sd15_image": image(),
    "sd15_skip": skip(),
    "sd15_lora": lora(),
    "sd15_control": control(),
    "xl": usual("xl.safetensors"),
}
NEEDS = {"sd15_lora": ["loras/sd15.safetensors"], "sd15_control": ["controlnet/sd15.safetensors"]}


# --- running ------------------------------------------------------------------------------------------
class Server:
    """What ComfyUI's executor asks of its web server when nobody listens."""
    client_id = None
    last_node_id = None

    def send_sync(self, *message):
        pass


def start_comfyui(folder, base):
    sys.path.insert(0, folder)
    argv, sys.argv = sys.argv, [sys.argv[0], "--cpu", "--force-fp32"]
    import comfy.options
    comfy.options.enable_args_parsing()
    import execution
    import folder_paths
    import nodes
    import asyncio
    sys.argv = argv
    asyncio.run(nodes.init_builtin_extra_nodes())
    for kind in ("checkpoints", "loras", "controlnet"):
        folder_paths.add_model_folder_path(kind, os.path.join(base, "models", kind))
    folder_paths.set_output_directory(os.path.join(base, "comfyui"))
    folder_paths.set_input_directory(os.path.join(base, "input"))
    return execution.PromptExecutor(Server(), cache_type=execution.CacheType.CLASSIC)


def newest(folder):
    files = [os.path.join(folder, f) for f in os.listdir(folder) if f.endswith(".png")]
    return max(files, key=os.path.getmtime)


def by_comfyui(executor, workflow, base):
    executor.execute(workflow, "prompt", {}, ["s"])
    if not executor.success:
        raise RuntimeError([d for e, d in executor.status_messages if e == "execution_error"])
    return newest(os.path.join(base, "comfyui"))


def by_atelier(binary, workflow, base):
    path = os.path.join(base, "workflow.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(workflow, f)
    subprocess.run([binary, "run", "--dtype", "f32", "--progress", "none", "--base-directory", base,
                    "--output-directory", os.path.join(base, "atelier"), path], check=True, stdout=subprocess.DEVNULL)
    return newest(os.path.join(base, "atelier"))


def compare(a, b):
    """(PSNR in dB, largest difference, standard deviation of the picture) of two PNGs, on 0..255."""
    import numpy
    from PIL import Image
    x, y = (numpy.asarray(Image.open(p).convert("RGB")).astype("float64") for p in (a, b))
    assert x.shape == y.shape, (x.shape, y.shape)
    mse = ((x - y) ** 2).mean()
    return (10 * numpy.log10(255 ** 2 / mse) if mse else float("inf")), abs(x - y).max(), x.std()


def prepare(base, names):
    import numpy
    from PIL import Image
    for d in ("input", "comfyui", "atelier"):
        os.makedirs(os.path.join(base, d), exist_ok=True)
    y, x = numpy.mgrid[0:HEIGHT, 0:WIDTH]
    hint = numpy.stack([x % 256, y % 256, (x * y) // 256 % 256], -1).astype("uint8")
    Image.fromarray(hint).save(os.path.join(base, "input", "hint.png"))
    for name in names:
        checkpoint = "checkpoints/" + WORKFLOWS[name]["m"]["inputs"]["ckpt_name"]
        for model in [checkpoint, *NEEDS.get(name, [])]:
            path = os.path.join(base, "models", model)
            if not os.path.exists(path):
                print(f"making {model}", flush=True)
                MODELS[model](path + ".part")
                os.rename(path + ".part", path)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--comfyui", required=True, metavar="DIR")
    a.add_argument("--atelier", required=True, metavar="BIN")
    a.add_argument("--dir", required=True, help="models and pictures go here")
    a.add_argument("--only", help="comma list of " + ",".join(WORKFLOWS))
    a.add_argument("--threads", type=int, default=2)
    o = a.parse_args()
    sys.path.insert(0, HERE)
    torch.set_num_threads(o.threads)
    torch.set_grad_enabled(False)
    base, failed = os.path.abspath(o.dir), 0
    names = o.only.split(",") if o.only else list(WORKFLOWS)
    prepare(base, names)
    executor = start_comfyui(os.path.abspath(o.comfyui), base)
    for name in names:
        t = [time.time()]
        theirs = by_comfyui(executor, WORKFLOWS[name], base)
        t.append(time.time())
        ours = by_atelier(o.atelier, WORKFLOWS[name], base)
        t.append(time.time())
        psnr, most, spread = compare(theirs, ours)
        good = psnr >= 45 and spread > 8
        failed += not good
        print(f"{'PASS' if good else 'FAIL'} {name}: {psnr:.1f} dB, at most {most:.0f} of 255, spread {spread:.0f}; "
              f"ComfyUI {t[1] - t[0]:.1f} s, atelier {t[2] - t[1]:.1f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
