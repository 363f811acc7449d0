# SPDX-License-Identifier: Apache-2.0
"""The committed Flux cases: geometry, weight formats, and the checkpoint form."""
import os

import torch

import flux
from case import agree, healthy, rel_err, sensitive, write_case, write_model

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
DEV = flux.Config()
SCHNELL = flux.Config(depth=1, single=1, guidance=False)
SMALL = flux.Config(depth=1, single=1)
TINY = flux.Config(hidden=32, depth=1, single=1)          # one head


def f32(sd):
    return {k: v.float() for k, v in sd.items()}


def scaled_fp8(sd, marker_dtype):
    """ComfyUI's scaled fp8: every 2-D weight is fp8 with a scalar `scale_weight`, the rest stays bf16, and a
    tensor named scaled_fp8 marks the file (2 elements: no fp8 matmul). Returns (file, dequantised weights in f32)."""
    top = torch.finfo(marker_dtype).max
    stored, value = {}, {}
    for k, v in sd.items():
        if v.ndim == 2:
            scale = (v.abs().max() / top).float()
            stored[k] = (v / scale).clamp(-top, top).to(marker_dtype)
            stored[k[:-len("weight")] + "scale_weight"] = scale
            stored[k[:-len("weight")] + "scale_input"] = torch.tensor(3.0)   # for fp8 matmul only
            value[k] = stored[k].float() * scale
        else:
            stored[k] = v.bfloat16()
            value[k] = stored[k].float()
    stored["scaled_fp8"] = torch.zeros(2, dtype=marker_dtype)
    return stored, value


def case(root, name, model, sd, cfg, inp, comfyui, rtol=1e-4, dtype="f32", note=None):
    r = flux.sources(f32(sd), cfg, inp, comfyui)
    agree(name, r)
    expected = {"out": r["diffusers"]["out"].float()}
    healthy(name, expected)
    if dtype != "f32" and comfyui:
        low = flux.by_comfyui(f32(sd), cfg, inp, {"bf16": torch.bfloat16, "f16": torch.float16}[dtype])
        e = rel_err(low["out"], expected["out"])
        print(f"  {name}: ComfyUI in {dtype} is within {e:.1e}, rtol {rtol}")
        assert e < rtol
    write_case(root, name, "denoiser", model, inp, expected, note, rtol, dtype)


def make(root, comfyui):
    def model(name):
        return os.path.join(root, name, "model.safetensors")

    # Geometry, on one model. Its weights are bf16 as in the published files.
    sd = {k: v.bfloat16() for k, v in flux.weights(DEV, 101).items()}
    write_model(model("flux_dev"), sd)
    base = flux.inputs(DEV, 1, 1, 8, 6, 11, [0.73], [3.5])
    sensitive("flux_dev", f32(sd), lambda s: flux.plain(s, DEV, base))
    shared = "../flux_dev/model.safetensors"
    case(root, "flux_dev", "model.safetensors", sd, DEV, base, comfyui)
    case(root, "flux_dev_odd", shared, sd, DEV, flux.inputs(DEV, 2, 1, 7, 11, 5, [1.0], [1.0]), comfyui)
    case(root, "flux_dev_batch", shared, sd, DEV,
         flux.inputs(DEV, 3, 3, 4, 10, 8, [0.05, 0.5, 0.98], [2.0, 3.5, 4.5]), comfyui)
    case(root, "flux_dev_bf16", shared, sd, DEV, base, comfyui, 2e-2, "bf16")
    case(root, "flux_dev_f16", shared, sd, DEV, base, comfyui, 4e-3, "f16")
    case(root, "flux_dev_long", shared, sd, DEV, flux.inputs(DEV, 4, 1, 30, 26, 70, [0.31], [3.5]), comfyui)

    # No guidance_in: schnell. Batch 2, non-square.
    sd = {k: v.bfloat16() for k, v in flux.weights(SCHNELL, 102).items()}
    write_model(model("flux_schnell"), sd)
    inp = flux.inputs(SCHNELL, 5, 2, 6, 10, 9, [1.0, 0.25], None)
    sensitive("flux_schnell", f32(sd), lambda s: flux.plain(s, SCHNELL, inp))
    case(root, "flux_schnell", "model.safetensors", sd, SCHNELL, inp, comfyui)

    # A full checkpoint in f32: the denoiser under model.diffusion_model., beside parts of other models.
    sd = flux.weights(TINY, 103)
    full = {"model.diffusion_model." + k: v for k, v in sd.items()}
    full["vae.decoder.conv_out.bias"] = torch.full((3,), 7.0)
    full["text_encoders.clip_l.transformer.text_model.final_layer_norm.weight"] = torch.full((128,), 7.0)
    full["text_encoders.t5xxl.transformer.encoder.final_layer_norm.weight"] = torch.full((64,), 7.0)
    full["text_encoders.clip_l.logit_scale"] = torch.tensor(4.6055)
    write_model(model("flux_checkpoint"), full)
    inp = flux.inputs(TINY, 6, 1, 6, 6, 7, [0.6], [3.5])
    case(root, "flux_checkpoint", "model.safetensors", sd, TINY, inp, comfyui)

    # Weight formats; the expected output is computed in float64 from the values that the file holds.
    sd = {k: v.half() for k, v in flux.weights(TINY, 104).items()}
    write_model(model("flux_w_f16"), sd)
    case(root, "flux_w_f16", "model.safetensors", sd, TINY, flux.inputs(TINY, 7, 1, 6, 6, 7, [0.6], [3.5]), comfyui)

    inp = flux.inputs(SMALL, 8, 1, 6, 8, 7, [0.6], [3.5])
    stored, value = scaled_fp8(flux.weights(SMALL, 105), E4M3)
    write_model(model("flux_w_scaled"), stored)
    case(root, "flux_w_scaled", "model.safetensors", value, SMALL, inp, comfyui)

    inp = flux.inputs(TINY, 9, 1, 8, 4, 6, [0.4], [3.5])
    base = flux.weights(TINY, 106)
    sd = {k: v.to(E4M3) for k, v in base.items()}                                   # every tensor, as flux1-dev-fp8
    write_model(model("flux_w_e4m3"), sd)
    case(root, "flux_w_e4m3", "model.safetensors", sd, TINY, inp, comfyui)
    sd = {k: v.to(E5M2) if v.ndim == 2 else v.bfloat16() for k, v in base.items()}  # only the matrices
    write_model(model("flux_w_e5m2"), sd)
    case(root, "flux_w_e5m2", "model.safetensors", sd, TINY, inp, comfyui)
