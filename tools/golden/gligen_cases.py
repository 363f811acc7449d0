# SPDX-License-Identifier: Apache-2.0
"""GLIGEN over the small UNet of unet_sd15: ComfyUI's own modules, with a narrower position net."""
import os

import torch
from torch import nn

import unet
import unet_cases
from case import Random, healthy, rel_err, write_case, write_model

E4M3, TEXT, INSIDE = torch.float8_e4m3fn, 768, 16


def net_of(gligen, widths):
    """Modules of these widths; the position net's hidden 512 would be most of the file."""
    modules = [gligen.GatedSelfAttentionDense(w, TEXT, 8, w // 8) for w in widths]
    net = gligen.PositionNet(TEXT, TEXT)
    net.linears = nn.Sequential(nn.Linear(TEXT + net.position_dim, INSIDE), nn.SiLU(), nn.Linear(INSIDE, INSIDE),
                                nn.SiLU(), nn.Linear(INSIDE, TEXT))
    return gligen.Gligen(modules, net, TEXT)


def make(root, comfyui):
    if not comfyui:
        print("  GLIGEN is written with --comfyui only")
        return
    from comfy import gligen
    from safetensors.torch import load_file
    cfg = unet_cases.SD15
    inputs, middle, outputs = unet.layout(cfg)
    # Where the UNet's transformers are, in the order of its forward.
    places = [(p + ".1", w) for kind, p, _, w, depth, _ in inputs if kind == "res" and depth]
    places += [("middle_block.1", middle)] + [(p + ".1", w) for _, p, _, w, depth, _ in outputs if depth]
    net, r, file = net_of(gligen, [w for _, w in places]), Random(801), {}
    for k, v in net.state_dict().items():
        std = 1.3 * v.shape[1] ** -0.5 if v.ndim == 2 else 0.3
        mean = 1.0 if "norm" in k and k.endswith("weight") else 0.8 if "alpha" in k else 0.0
        w = r.normal(k, v.shape, std, mean).float().to(E4M3)
        v.copy_(w.float())
        part = k.split(".")
        if part[0] == "module_list":
            k = f"{places[int(part[1])][0]}.transformer_blocks.0.fuser.{'.'.join(part[2:])}"
        file[k] = w
    sd = {k: v.float() for k, v in load_file(os.path.join(root, "unet_sd15", "model.safetensors")).items()}
    inp = unet.inputs(cfg, 802, 2, 6, 8, 5, [700.0, 40.0])
    text, boxes = r.normal("text", (2, TEXT)).float(), [[3, 4, 1, 2], [6, 2, 0, 6]]
    patch = net.set_position(inp["x"].shape, [(text[i:i + 1], *b) for i, b in enumerate(boxes)], "cpu")
    plain = unet.by_comfyui(sd, cfg, inp)["out"]
    want = unet.by_comfyui(sd, cfg, inp, options={"patches": {"middle_patch": [patch]}})
    healthy("gligen", want)
    assert rel_err(want["out"], plain) > 0.1, "gligen: the boxes hardly matter"
    write_model(os.path.join(root, "gligen", "model.safetensors"), file)
    write_case(root, "gligen", "gligen", "model.safetensors", {**inp, "text": text}, {"out": want["out"].float()},
               {"base": "../unet_sd15/model.safetensors", "boxes": boxes})
