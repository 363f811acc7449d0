# SPDX-License-Identifier: Apache-2.0
"""The tiny autoencoder: diffusers' AutoencoderTiny under the names that ComfyUI gives its two files. Fewer channels
than the published 64; ComfyUI's own class has no others, so its forward is written out here as the second source."""
import os

import torch
import torch.nn.functional as F

from case import Random, agree, healthy, sensitive, write_case, write_model

WIDTH, Z, SCALE, SHIFT = 8, 4, 0.75, 0.125
DECODER = {1: "first", 7: "conv", 12: "conv", 17: "conv", 19: "last"}
DECODER.update({i: "block" for i in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18)})
ENCODER = {0: "first", 2: "conv", 6: "conv", 10: "conv", 14: "last"}
ENCODER.update({i: "block" for i in (1, 3, 4, 5, 7, 8, 9, 11, 12, 13)})


def weights(seed):
    r, sd = Random(seed), {}
    for half, steps, first, last in (("taesd_decoder", DECODER, Z, 3), ("taesd_encoder", ENCODER, 3, Z)):
        for i, kind in steps.items():
            p = f"{half}.{i}"
            if kind == "block":
                for j in (0, 2, 4):
                    r.conv(sd, f"{p}.conv.{j}", WIDTH, WIDTH, 3, gain=1.2)
            else:
                r.conv(sd, p, last if kind == "last" else WIDTH, first if kind == "first" else WIDTH, 3, gain=1.3)
                if kind == "conv":
                    del sd[p + ".bias"]
    sd["vae_scale"], sd["vae_shift"] = torch.tensor(SCALE).double(), torch.tensor(SHIFT).double()
    return sd


def conv(sd, p, x, stride=1):
    return F.conv2d(x, sd[p + ".weight"], sd.get(p + ".bias"), stride, 1)


def plain(sd, what, x):
    half, steps = ("taesd_decoder", DECODER) if what == "decode" else ("taesd_encoder", ENCODER)
    if what == "decode":
        x = torch.tanh((x - sd["vae_shift"]) * sd["vae_scale"] / 3) * 3
    else:
        x = x * 0.5 + 0.5
    for i in sorted(steps):
        p = f"{half}.{i}"
        if steps[i] == "block":
            h = conv(sd, p + ".conv.0", x).relu()
            h = conv(sd, p + ".conv.2", h).relu()
            x = (conv(sd, p + ".conv.4", h) + x).relu()
        elif steps[i] == "conv":
            x = conv(sd, p, F.interpolate(x, scale_factor=2)) if what == "decode" else conv(sd, p, x, 2)
        else:
            x = conv(sd, p, x)
            if what == "decode" and steps[i] == "first":
                x = x.relu()
    return {"out": x * 2 - 1 if what == "decode" else x / sd["vae_scale"] + sd["vae_shift"]}


def by_diffusers(sd, what, x):
    from diffusers import AutoencoderTiny
    net = AutoencoderTiny(encoder_block_out_channels=(WIDTH,) * 4, decoder_block_out_channels=(WIDTH,) * 4)
    named = {}
    for k, v in sd.items():
        half, _, rest = k.partition(".")
        n, _, tail = rest.partition(".")
        if half.startswith("taesd_"):
            named[f"{half[6:]}.layers.{int(n) - (half == 'taesd_decoder')}.{tail}"] = v
    net.double().load_state_dict(named)
    if what == "decode":
        return {"out": net.decoder((x - sd["vae_shift"]) * sd["vae_scale"])}
    return {"out": net.encoder(x) / sd["vae_scale"] + sd["vae_shift"]}


def make(root, comfyui):
    stored = {k: v.half() for k, v in weights(731).items()}
    stored["vae_scale"], stored["vae_shift"] = torch.tensor(SCALE), torch.tensor(SHIFT)
    sd = {k: v.double() for k, v in stored.items()}
    write_model(os.path.join(root, "vae_tiny_decode", "model.safetensors"), stored)
    g = torch.Generator().manual_seed(5)
    for what, x in (("decode", torch.randn(2, Z, 5, 3, generator=g)), ("encode", torch.rand(1, 3, 24, 16, generator=g) * 2 - 1)):
        name = "vae_tiny_" + what
        mine = {k: v for k, v in sd.items() if k.startswith("taesd_" + what[:2])}
        sensitive(name, mine, lambda s, what=what, x=x: plain({**sd, **s}, what, x.double()))
        r = {"diffusers": by_diffusers(sd, what, x.double()), "plain": plain(sd, what, x.double())}
        agree(name, r)
        expected = {"out": r["diffusers"]["out"].float()}
        healthy(name, expected)
        model = "model.safetensors" if what == "decode" else "../vae_tiny_decode/model.safetensors"
        write_case(root, name, "vae_" + what, model, {"x": x}, expected, {})
