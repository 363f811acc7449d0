# SPDX-License-Identifier: Apache-2.0
"""Flux's variants for editing, by ComfyUI's own module (without --comfyui nothing is written): reference latents in
its three methods, what Fill and the control models read beside x, no guidance, and blocks left out."""
import os

import torch

import flux
from case import Random, healthy, write_case, write_model
from flux_cases import DEV, TINY, f32

SHARED = "../flux_dev/model.safetensors"


def references(seed, sizes, batch=1):
    r = Random(seed)
    return [r.normal(f"ref.{i}", (batch, 16, h, w)).float() for i, (h, w) in enumerate(sizes)]


def by_comfyui(sd, cfg, inp, extra=0, refs=None, method=None, guidance=True, skip=()):
    import comfy.ldm.flux.model
    import comfy.ops
    m = comfy.ldm.flux.model.Flux(
        image_model="flux", in_channels=16 + extra, out_channels=16, vec_in_dim=cfg.vec, context_in_dim=cfg.context,
        hidden_size=cfg.hidden, mlp_ratio=4.0, num_heads=cfg.heads, depth=cfg.depth, depth_single_blocks=cfg.single,
        axes_dim=cfg.axes, theta=10000, patch_size=2, qkv_bias=True, guidance_embed=cfg.guidance, dtype=torch.float32,
        device="cpu", operations=comfy.ops.disable_weight_init)
    m.load_state_dict({k: v.float() for k, v in sd.items()}, strict=True)
    x = torch.cat([inp["x"], inp["concat"]], 1) if extra else inp["x"]
    more = {"ref_latents_method": method} if method else {}
    replace = {b: (lambda args, _: args) for b in skip}
    return {"out": m(x, inp["timestep"], inp["context"], inp["y"], inp["guidance"] if guidance else None,
                     ref_latents=refs, transformer_options={"patches_replace": {"dit": replace}}, **more).float()}


def case(root, name, model, sd, cfg, inp, options=None, **how):
    expected = by_comfyui(f32(sd), cfg, inp, **how)
    healthy(name, expected)
    for i, r in enumerate(how.get("refs") or ()):
        inp[f"ref.{i}"] = r
    write_case(root, name, "denoiser", model, inp, expected, options)


def make(root, comfyui):
    if not comfyui:
        return
    sd = {k: v.bfloat16() for k, v in flux.weights(DEV, 101).items()}  # as flux_dev

    def base(batch=1, h=8, w=6):
        return flux.inputs(DEV, 21, batch, h, w, 9, [0.61] * batch, [3.5] * batch)

    sizes = [(6, 8), (10, 4), (7, 5)]
    plain = by_comfyui(f32(sd), DEV, base())["out"]
    for method in ("offset", "index", "uxo"):
        case(root, "flux_refs_" + method, SHARED, sd, DEV, base(), {"ref_method": method},
             refs=references(22, sizes), method=method)
    case(root, "flux_refs_odd", SHARED, sd, DEV, base(2, 7, 9), refs=references(23, [(5, 9)], 2))
    case(root, "flux_no_guidance", SHARED, sd, DEV, base(), {"no_guidance": True}, guidance=False)
    case(root, "flux_skip", SHARED, sd, DEV, base(), {"skip_double": 1, "skip_single": 0},
         skip=(("double_block", 1), ("single_block", 0)))
    assert (by_comfyui(f32(sd), DEV, base(), guidance=False)["out"] - plain).abs().max() > 1e-2

    for name, extra, seed in (("flux_fill", 80, 24), ("flux_canny", 16, 25)):
        wide = {k: v for k, v in flux.weights(TINY, seed).items()}
        r = Random(seed)
        r.linear(wide, "img_in", TINY.hidden, (16 + extra) * 4, gain=0.5)
        wide = {k: v.bfloat16() for k, v in wide.items()}
        write_model(os.path.join(root, name, "model.safetensors"), wide)
        inp = flux.inputs(TINY, seed, 2, 6, 5, 7, [0.6, 0.6], [3.5, 3.5])
        inp["concat"] = Random(seed + 1).normal("concat", (2, extra, 6, 5)).float()
        case(root, name, "model.safetensors", wide, TINY, inp, extra=extra)
