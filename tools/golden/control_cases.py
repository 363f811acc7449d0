# SPDX-License-Identifier: Apache-2.0
"""The committed ControlNet cases. ComfyUI's modules are the source for most of them, so they are only
written with --comfyui."""
import os

import torch

import control_flux
import control_ldm
import control_t2i
import flux
import unet
from case import Random, agree, healthy, rel_err, write_case, write_model


E4M3 = torch.float8_e4m3fn


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


def picture(seed, b, c, h, w):
    return torch.rand((b, c, h, w), generator=torch.Generator().manual_seed(seed))


def ldm_case(root, name, model, sd, cfg, seed, inp, options=None, with_diffusers=True, **how):
    """`sd`: the ControlNet that the file at `model` amounts to."""
    results = {"comfyui": control_ldm.by_comfyui(sd, cfg, seed, inp, **how)}
    if with_diffusers:
        results["diffusers"] = control_ldm.by_diffusers(sd, cfg, inp, **how)
    agree(name, results)
    want = {k: v.float().contiguous() for k, v in results["comfyui"].items()}
    healthy(name, want)
    write_case(root, name, "controlnet", model, inp, want, options)


def make_ldm(root):
    def path(name):
        return os.path.join(root, name, "model.safetensors")

    # Weights are fp8, so that cases stay small. The original layout as published, under control_model.; one hint for a batch of two; an odd side.
    small = unet.Config(mult=(1, 1), res=(1, 1), depth=(1, 0), depth_out=(1, 1, 0, 0))
    sd = {k: v.to(E4M3) for k, v in control_ldm.weights(small, 401).items()}
    inp = unet.inputs(small, 402, 2, 5, 6, 7, [601.0, 17.0])
    inp["hint"] = picture(403, 1, 3, 40, 48)
    write_model(path("control_sd15"), {"control_model." + k: v for k, v in sd.items()})
    ldm_case(root, "control_sd15", "model.safetensors", {k: v.float() for k, v in sd.items()}, small, 401,
             {**inp}, with_diffusers=True)

    # diffusers' layout, a vector input, heads of 64, no transformer on the first level.
    xl = unet.Config(mult=(1, 2), res=(1, 1), depth=(0, 1), middle=-1, depth_out=(0, 0, 1, 1), context=40, linear=True,
                     adm=96)
    sd = {k: v.to(E4M3) for k, v in control_ldm.weights(xl, 411).items()}
    inp = unet.inputs(xl, 412, 1, 4, 6, 5, [333.25])
    inp["hint"] = picture(413, 1, 3, 32, 48)
    write_model(path("control_sdxl_diffusers"), control_ldm.to_diffusers(sd, xl, "add_embedding"))
    ldm_case(root, "control_sdxl_diffusers", "model.safetensors", {k: v.float() for k, v in sd.items()}, xl, 411, inp)

    # A union net, told a kind and not told one.
    both = {**control_ldm.weights(small, 421), **control_ldm.union_weights(small, 421, 2)}
    sd = {k: v.to(E4M3) for k, v in both.items()}
    inp = unet.inputs(small, 422, 1, 4, 4, 5, [800.0])
    inp["hint"] = picture(423, 1, 3, 32, 32)
    write_model(path("control_union"), control_ldm.to_diffusers(sd, small))
    full = {k: v.float() for k, v in sd.items()}
    ldm_case(root, "control_union", "model.safetensors", full, small, 421, inp, {"type": 1}, type_=1)
    ldm_case(root, "control_union_auto", "../control_union/model.safetensors", full, small, 421, inp,
             with_diffusers=False)

    # Low rank, and a difference, over the same small UNet.
    base = {k: v.to(E4M3) for k, v in unet.weights(small, 431).items()}
    write_model(os.path.join(root, "control_lora", "base.safetensors"), base)
    file, full = control_ldm.low_rank(base, {k: v.to(E4M3) for k, v in control_ldm.weights(small, 431).items()}, 432)
    write_model(path("control_lora"), file)
    inp = unet.inputs(small, 433, 1, 4, 6, 5, [450.0])
    inp["hint"] = picture(434, 1, 3, 32, 48)
    # Sums over fp8 are kept in bf16.
    full = {k: v.float() if k in file else v.bfloat16().float() for k, v in full.items()}
    ldm_case(root, "control_lora", "model.safetensors", full, small, 431, inp, {"base": "base.safetensors"})
    sd = {k: (v * (0.1 if k in base else 1)).to(E4M3) for k, v in control_ldm.weights(small, 441).items()}
    full = {k: (v.float() + base[k].float()).bfloat16().float() if k in base else v.float() for k, v in sd.items()}
    write_model(path("control_difference"), {"difference": torch.zeros(1),
                                             **{"control_model." + k: v for k, v in sd.items()}})
    ldm_case(root, "control_difference", "model.safetensors", full, small, 431, inp,
             {"add_to": "../control_lora/base.safetensors"})


def t2i_case(root, name, kind, channels, cin, seed, hint, diffusers=False):
    net = control_t2i.net_of(kind, channels, cin)
    sd = {k: v.half() for k, v in control_t2i.weights(net, seed).items()}
    results = {"comfyui": control_t2i.by_comfyui(net, sd, hint)}
    if diffusers:
        results["diffusers"] = control_t2i.by_diffusers(sd, channels, cin, hint)
    agree(name, results)
    want = {k: v.float().contiguous() for k, v in results["comfyui"].items()}
    healthy(name, want)
    write_model(os.path.join(root, name, "model.safetensors"), control_t2i.to_diffusers(sd) if diffusers else sd)
    inp = {"x": torch.zeros(1, 4, 1, 1), "timestep": torch.zeros(1), "context": torch.zeros(1, 1, 1), "hint": hint}
    write_case(root, name, "controlnet", "model.safetensors", inp, want)


def make_t2i(root):
    t2i_case(root, "control_t2i", "pool", (8, 16, 32, 32), 64, 451, picture(452, 1, 1, 40, 56))
    t2i_case(root, "control_t2i_conv", "conv", (8, 16, 32, 32), 64, 453, picture(454, 1, 1, 40, 56))
    t2i_case(root, "control_t2i_diffusers", "pool", (8, 16, 32, 32), 192, 455, picture(456, 2, 3, 64, 128), True)
    t2i_case(root, "control_t2i_light", "light", (32, 32, 64, 64), 192, 457, picture(458, 1, 3, 40, 64))
    t2i_case(root, "control_t2i_xl", "pool", (8, 16, 32, 32), 256, 459, picture(460, 1, 1, 80, 48))


def steered(name, plain, with_control, inp, residuals, root, model, least=0.1):
    """A denoiser's case with residuals (named by place, as the denoiser gets them) added."""
    healthy(name, with_control)
    assert rel_err(with_control["out"], plain["out"]) > least, f"{name}: the residuals hardly matter"
    write_case(root, name, "denoiser", model, {**inp, **{k: v.contiguous() for k, v in residuals.items()}},
               {"out": with_control["out"].float()})


def make_steered(root):
    """What denoisers do with residuals: by ComfyUI's own, on models that other cases have."""
    from safetensors.torch import load_file
    r = Random(701)
    # Flux: a residual for each double block but one, shorter than the picture's tokens, and one single block's.
    cfg = flux.Config(hidden=64, depth=2, single=3)
    sd = {k: v.float() for k, v in load_file(os.path.join(root, "flux_dev", "model.safetensors")).items()}
    inp = flux.inputs(cfg, 702, 2, 6, 7, 5, [0.4, 0.9], [3.5, 2.0])
    res = {"doubles.0": r.normal("d", (2, 12, 64), 2.0).float(), "singles.1": r.normal("s", (1, 10, 64), 2.0).float()}
    steered("control_into_flux", flux.by_comfyui(sd, cfg, inp),
            flux.by_comfyui(sd, cfg, inp, control={"input": [res["doubles.0"], None],
                                                   "output": [None, res["singles.1"]]}),
            inp, res, root, "../flux_dev/model.safetensors")
    # UNet: after two input blocks, into two skips, one of them of batch 1, and after the middle.
    import unet_cases
    cfg = unet_cases.SD15
    sd = {k: v.float() for k, v in load_file(os.path.join(root, "unet_sd15", "model.safetensors")).items()}
    inp = unet.inputs(cfg, 704, 2, 4, 6, 5, [500.0, 20.0])
    res = {"input.1": r.normal("i1", (2, 4, 6, 32)), "input.3": r.normal("i3", (1, 2, 3, 32)),
           "skip.2": r.normal("s2", (2, 4, 6, 32), 2.0), "skip.4": r.normal("s4", (1, 2, 3, 64), 2.0),
           "middle": r.normal("m", (2, 2, 3, 64), 2.0)}
    res = {k: v.float() for k, v in res.items()}

    def listed(name, n):
        got = [res.get(f"{name}.{i}") for i in range(n)]
        return [None if t is None else t.permute(0, 3, 1, 2) for t in got]
    # ComfyUI takes both lists from their ends: inputs are given backwards.
    control = {"input": listed("input", 5)[::-1], "output": listed("skip", 5),
               "middle": [res["middle"].permute(0, 3, 1, 2)]}
    steered("control_into_unet", unet.by_comfyui(sd, cfg, inp), unet.by_comfyui(sd, cfg, inp, control=control), inp,
            res, root, "../unet_sd15/model.safetensors")


def make_biased(root):
    """Two style models put behind a text with attention biases: the mask by ComfyUI's node, used by its Flux."""
    import comfy.utils
    import nodes
    from safetensors.torch import load_file
    r, cfg = Random(711), flux.Config(hidden=64, depth=2, single=3)
    sd = {k: v.float() for k, v in load_file(os.path.join(root, "flux_dev", "model.safetensors")).items()}
    inp = flux.inputs(cfg, 712, 1, 5, 6, 4, [0.6], [3.5])

    class Style:
        def __init__(self, tokens):
            self.tokens = tokens

        def get_cond(self, _):
            return self.tokens.clone()

    cond = [[inp["context"], {}]]
    for tokens, strength in ((3, 0.3), (2, 2.5)):
        style = Style(r.normal(f"style {tokens}", (1, tokens, cfg.context)).float())
        cond, = nodes.StyleModelApply().apply_stylemodel(cond, style, None, strength, "attn_bias")
    mask = cond[0][1]["attention_mask"]
    plain = {**inp, "context": cond[0][0]}
    wide = comfy.utils.upscale_dit_mask(mask, cond[0][1]["attention_mask_img_shape"], (3, 3))
    want = flux.by_comfyui(sd, cfg, plain, mask=wide.float())
    steered("style_bias", flux.by_comfyui(sd, cfg, plain), want, plain, {"attn_bias": mask.float()}, root,
            "../flux_dev/model.safetensors", 0.02)


def make(root, comfyui):
    if not comfyui:
        print("  ControlNets are written with --comfyui only")
        return
    make_flux(root)
    make_ldm(root)
    make_t2i(root)
    make_steered(root)
    make_biased(root)
