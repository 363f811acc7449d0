# SPDX-License-Identifier: Apache-2.0
"""UNets and their text encoders at published widths, f16 weights, made on demand (17 GB in all, the largest needs 11 GB
of memory; --only NAME,NAME takes some):

    sd15, inpaint, ip2p, sd21     320 channels x (1,2,4,4)
    sdxl, ssd1b, vega             320 x (1,2,4)
    refiner                       384 x (1,2,4,4)
    clip_g, clip_h                32 x 1280, 24 x 1024

The expected outputs are ComfyUI's in f32, whose table of models must know every file; diffusers agrees where two
networks in f32 fit into memory. Then: for d in DIR/*; do atelier verify $d; done
"""
import os

import torch

import clip
import unet
from case import agree, healthy, write_case, write_model
from unet import Config

SD = dict(channels=320, mult=(1, 2, 4, 4), res=(2, 2, 2, 2), depth=(1, 1, 1, 1, 1, 1, 0, 0), full=True,
          depth_out=(1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0), context=768)
XL = dict(channels=320, mult=(1, 2, 4), res=(2, 2, 2), context=2048, linear=True, adm=2816, full=True)
UNETS = {
    "sd15": (Config(**SD), (64, 64)),
    "inpaint": (Config(**SD, extra_in=5), (32, 32)),
    "ip2p": (Config(**SD, extra_in=4), (24, 40)),
    "sd21": (Config(**{**SD, "context": 1024, "linear": True}), (48, 48)),
    "sdxl": (Config(**XL, depth=(0, 0, 2, 2, 10, 10), middle=10, depth_out=(0, 0, 0, 2, 2, 2, 10, 10, 10)), (32, 32)),
    "ssd1b": (Config(**XL, depth=(0, 0, 2, 2, 4, 4), middle=-1, depth_out=(0, 0, 0, 1, 1, 2, 10, 4, 4)), (32, 32)),
    "vega": (Config(**XL, depth=(0, 0, 1, 1, 2, 2), middle=-1, depth_out=(0, 0, 0, 1, 1, 1, 2, 2, 2)), (32, 32)),
    "refiner": (Config(channels=384, mult=(1, 2, 4, 4), res=(2, 2, 2, 2), depth=(0, 0, 4, 4, 4, 4, 0, 0), middle=4,
                       depth_out=(0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0), context=1280, linear=True, adm=2560, full=True), (32, 32)),
}
CLIPS = {"clip_g": clip.Config(width=1280, layers=32, mlp=5120, vocab=49408, act="gelu", projected=True),
         "clip_h": clip.Config(width=1024, layers=24, mlp=4096, vocab=49408, act="gelu", projected=True)}


def make_unet(root, name, comfyui):
    cfg, (h, w) = UNETS[name]
    sd = unet.weights(cfg, 700 + len(name), torch.float16)
    folder = name + "_full"
    write_model(os.path.join(root, folder, "model.safetensors"), {"model.diffusion_model." + k: v for k, v in sd.items()})
    inp = unet.inputs(cfg, 1, 1, h, w, 77, [731.0])
    r = {"comfyui": unet.by_comfyui(sd, cfg, inp)} if comfyui else {}
    if not comfyui or name in ("sd15", "sd21", "inpaint", "ip2p"):
        r["diffusers"] = unet.by_diffusers(sd, cfg, inp, torch.float32)
    agree(folder, r, 2e-5)
    expected = next(iter(r.values()))
    healthy(folder, expected)
    write_case(root, folder, "denoiser", "model.safetensors", inp, {"out": expected["out"].float()}, rtol=2e-4)


def make_clip(root, name):
    cfg = CLIPS[name]
    sd = {k: v.half() for k, v in clip.weights(cfg, 720).items()}
    folder = name + "_full"
    write_model(os.path.join(root, folder, "model.safetensors"), sd)
    tokens = torch.cat([clip.prompt(cfg, 12, 1), clip.prompt(cfg, 75, 2)])
    tokens[0, 14:] = 0
    how = {"layer": -2, "final_norm": name == "clip_h"}
    expected = clip.by_transformers({k: v.float() for k, v in sd.items()}, cfg, tokens, **how)
    healthy(folder, expected)
    write_case(root, folder, "text_encoder", "model.safetensors", {"tokens": tokens}, expected, {"kind": name, **how})


def make(root, options):
    for name in options.only.split(",") if options.only else [*UNETS, *CLIPS]:
        print(name, flush=True)
        if name in UNETS:
            make_unet(root, name, bool(options.comfyui))
        else:
            make_clip(root, name)
