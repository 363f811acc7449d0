# SPDX-License-Identifier: Apache-2.0
"""The committed UNet cases. Levels with 32 channels have one channel per group, so that a bias before a norm
cancels there; every case but the smallest has a level with more."""
import os

import torch

import unet
from case import agree, healthy, sensitive, write_case, write_model
from unet import Config

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
SD15 = Config(mult=(1, 2), res=(2, 1), depth=(1, 1, 0), depth_out=(1, 1, 1, 0, 0))
SD15_SMALL = Config(res=(2, 1), depth=(1, 1, 0), depth_out=(1, 1, 1, 0, 0))
INPAINT = Config(res=(1, 1), depth=(1, 0), depth_out=(1, 1, 0, 0), extra_in=5)
IP2P = Config(res=(1, 1), depth=(1, 0), depth_out=(1, 1, 0, 0), extra_in=4)
SD2 = Config(mult=(1, 2), res=(1, 1), depth=(0, 1), depth_out=(0, 0, 1, 1), context=40, linear=True)
SDXL = Config(mult=(1, 2), res=(1, 1), depth=(0, 2), middle=2, depth_out=(0, 0, 2, 2), context=40, linear=True, adm=96)
SSD1B = Config(mult=(1, 2), res=(1, 1), depth=(0, 2), middle=-1, depth_out=(0, 0, 1, 2), context=40, linear=True, adm=96)
KOALA = Config(mult=(1, 4), res=(1, 1), depth=(0, 1), middle=-2, depth_out=(0, 0, 0, 0), context=40, linear=True, adm=96)
REFINER = Config(mult=(1, 1, 2), res=(1, 1, 1), depth=(0, 0, 0), middle=2, depth_out=(0,) * 6, context=40, linear=True, adm=64)


def case(root, name, model, sd, cfg, inp, comfyui, rtol=1e-4, dtype="f32"):
    r = unet.sources(sd, cfg, inp, comfyui)
    agree(name, r)
    expected = {"out": r["diffusers"]["out"].float()}
    healthy(name, expected)
    write_case(root, name, "denoiser", model, inp, expected, None, rtol, dtype)


def hidden(sd):
    """Tensors that cannot show: what is added to a channel just before a norm with one channel per group, and what
    the first transformer's norm takes from a bias that is kept small."""
    wide = {k.rsplit(".", 2)[0] for k, v in sd.items() if k.endswith("out_layers.0.weight") and v.numel() > 32}
    gone = [k for k in sd if ("emb_layers" in k or k.endswith("in_layers.2.bias")) and k.rsplit(".", 3)[0] not in wide]
    last = max(k for k in sd if k.startswith("output_blocks.")).split(".")[1]
    gone += [k for k in sd if k.startswith(f"output_blocks.{last}.") and k.endswith("bias")
             and any(n in k for n in ("out_layers.3", "skip_connection", "proj_out", "ff.net.2"))]
    return gone + ["input_blocks.1.0.out_layers.3.bias"] + ([] if wide else ["time_embed", "label_emb"])


def make_one(root, name, cfg, seed, dtype, shapes, comfyui, label=None):
    """The file of `name` in `dtype`, and one case per entry of shapes {suffix: (b, h, w, text, timesteps)}.
    label: the file is in diffusers' layout and calls label_emb so."""
    stored = {k: v.to(dtype) for k, v in unet.weights(cfg, seed).items()}
    sd = {k: v.float() for k, v in stored.items()}
    write_model(os.path.join(root, name, "model.safetensors"), unet.to_diffusers(stored, cfg, label) if label else stored)
    for suffix, (b, h, w, text, steps) in shapes.items():
        inp = unet.inputs(cfg, seed + 1, b, h, w, text, steps)
        if not suffix:
            net = unet.diffusers_net(cfg, torch.float32)
            sensitive(name, sd, lambda s: unet.by_diffusers(s, cfg, inp, torch.float32, net), skip=hidden(sd))
        case(root, name + suffix, f"../{name}/model.safetensors" if suffix else "model.safetensors", sd, cfg, inp, comfyui)


def make(root, comfyui):
    make_one(root, "unet_sd15", SD15, 601, torch.float16,
             {"": (2, 8, 6, 7, [601.25, 17.0]), "_odd": (1, 13, 9, 5, [999.0])}, comfyui)
    make_one(root, "unet_sd15_diffusers", SD15_SMALL, 603, torch.bfloat16, {"": (1, 6, 8, 5, [321.5])}, comfyui, "class_embedding")
    make_one(root, "unet_sd15_inpaint", INPAINT, 605, E4M3, {"": (1, 6, 4, 5, [3.0])}, comfyui)
    make_one(root, "unet_ip2p", IP2P, 607, E5M2, {"": (2, 4, 6, 5, [700.0, 450.5])}, comfyui)
    make_one(root, "unet_sd2", SD2, 609, E4M3, {"": (1, 6, 10, 6, [840.0])}, comfyui)
    make_one(root, "unet_sdxl", SDXL, 611, E4M3, {"": (2, 8, 6, 7, [500.5, 12.0]), "_odd": (1, 7, 11, 3, [41.0])}, comfyui)
    make_one(root, "unet_ssd1b_diffusers", SSD1B, 613, E4M3, {"": (1, 8, 6, 7, [77.0])}, comfyui, "add_embedding")
    make_one(root, "unet_koala", KOALA, 615, E4M3, {"": (1, 6, 8, 9, [950.0])}, comfyui)
