# SPDX-License-Identifier: Apache-2.0
"""The committed ControlNet cases. ComfyUI's modules are the source for most of them, so they are only
written with --comfyui."""
import os

import torch

import control_flux
import flux
from case import Random, agree, healthy, write_case, write_model


def thin(out, keep):
    """Repeated residuals are compared at a few places; files stay small."""
    return {k: out[k].float().clone() for k in keep}


def flux_case(root, name, kind, cfg, seed, hint, keep, type_=None, modes=0, size=(6, 4), batch=1):
    channels = hint.shape[1] if kind == "instantx" else 16
    sd = {k: v.bfloat16() for k, v in control_flux.weights(cfg, kind, seed, channels, modes).items()}
    file = control_flux.published(sd, cfg, kind)
    inp = flux.inputs(cfg, seed + 7, batch, *size, 7, [0.62, 0.3][:batch], [3.5, 2.0][:batch])
    inp["hint"] = hint
    results = {"comfyui": control_flux.by_comfyui(file, cfg, kind, inp, type_, channels, modes)}
    if kind == "instantx" and not modes:
        results["diffusers"] = control_flux.by_diffusers(file, cfg, inp, channels)
    agree(name, results)
    want = thin(results["comfyui"], keep)
    healthy(name, want)
    write_model(os.path.join(root, name, "model.safetensors"), file)
    write_case(root, name, "controlnet", "model.safetensors", inp, want,
               {} if type_ is None else {"type": type_})


def make_flux(root):
    r = Random(5)
    cfg = flux.Config(hidden=32, depth=2, single=1, context=24, vec=16)
    latent = r.normal("latent", (1, 17, 7, 5)).float()
    # 17 channels: the inpainting net. Odd sides wrap around, in x and in the hint.
    flux_case(root, "control_flux_instantx", "instantx", cfg, 301, latent,
              ["doubles.0", "doubles.9", "doubles.10", "doubles.18", "singles.37"], size=(7, 5))
    small = flux.Config(hidden=32, depth=1, single=1, context=24, vec=16, guidance=False)
    flux_case(root, "control_flux_union", "instantx", small, 302, latent[:, :16, :6, :4].clone(),
              ["doubles.18", "singles.0"], type_=3, modes=5, batch=2)
    picture = torch.rand((1, 3, 48, 32), generator=torch.Generator().manual_seed(3))
    flux_case(root, "control_flux_xlabs", "xlabs", flux.Config(hidden=32, depth=2, single=0, context=24, vec=16),
              303, picture, ["doubles.0", "doubles.1", "doubles.17", "doubles.18"])
    flux_case(root, "control_flux_mistoline", "mistoline", small, 304, picture, ["doubles.3", "singles.5"])


def make(root, comfyui):
    if not comfyui:
        print("  ControlNets are written with --comfyui only")
        return
    make_flux(root)
