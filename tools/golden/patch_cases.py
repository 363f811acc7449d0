# SPDX-License-Identifier: Apache-2.0
"""What ComfyUI's model-patch nodes do to a sampling run of the tiny SD1 network (unet_sd15): the latents of three
Euler steps, by ComfyUI's own nodes, samplers and random numbers. Needs --comfyui; without it nothing is written.

The folder has no case.json: tests/nodes/model_patch_test.c runs the same workflows and compares."""
import os

import torch

import unet
from case import rel_err, save
from unet_cases import SD15

# name: (latent height, width, [(module of comfy_extras, class, inputs)])
FREEU = ("nodes_freelunch", "FreeU", {"b1": 1.3, "b2": 1.4, "s1": 0.7, "s2": 0.3})
FREEU_V2 = ("nodes_freelunch", "FreeU_V2", {"b1": 1.3, "b2": 1.6, "s1": 0.9, "s2": 0.2})
PAG = ("nodes_pag", "PerturbedAttentionGuidance", {"scale": 3.0})
SAG = ("nodes_sag", "SelfAttentionGuidance", {"scale": 0.75, "blur_sigma": 2.0})
TOME = ("nodes_tomesd", "TomePatchModel", {"ratio": 0.5})


def tile(**more):
    return ("nodes_hypertile", "HyperTile", {"tile_size": 32, "swap_size": 4, "max_depth": 0, "scale_depth": False, **more})


def shrink(**more):
    return ("nodes_model_downscale", "PatchModelAddDownscale", {
        "block_number": 2, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 1.0, "downscale_after_skip": True,
        "downscale_method": "bicubic", "upscale_method": "bislerp", **more})


def times(which, **more):
    return ("nodes_attention_multiply", which, more)


CASES = {
    "plain": (12, 16, []),
    "freeu": (12, 16, [FREEU]),
    "freeu_v2": (11, 9, [FREEU_V2]),
    "hypertile": (12, 16, [tile()]),
    "hypertile_deep": (16, 16, [tile(max_depth=1, swap_size=9)]),
    "hypertile_scaled": (16, 8, [tile(max_depth=1, scale_depth=True)]),
    "tome": (12, 16, [TOME]),
    "tome_odd": (11, 9, [("nodes_tomesd", "TomePatchModel", {"ratio": 0.9})]),
    "pag": (12, 16, [PAG]),
    "sag": (12, 16, [SAG]),
    "sag_wide": (9, 14, [SAG]),
    "shrink": (12, 16, [shrink()]),
    "shrink_before": (12, 16, [shrink(downscale_after_skip=False, downscale_factor=1.5, block_number=1,
                                      downscale_method="area", upscale_method="bilinear")]),
    "shrink_late": (12, 16, [shrink(start_percent=0.3, end_percent=0.7, downscale_method="nearest-exact",
                                    upscale_method="bicubic")]),
    "self_times": (8, 8, [times("UNetSelfAttentionMultiply", q=1.2, k=0.9, v=1.1, out=0.8)]),
    "cross_times": (8, 8, [times("UNetCrossAttentionMultiply", q=0.5, k=1.5, v=1.25, out=1.5)]),
    "time_times": (8, 8, [times("UNetTemporalAttentionMultiply", self_structural=0.5, self_temporal=9.0,
                                cross_structural=1.5, cross_temporal=9.0)]),
    "together": (12, 16, [FREEU_V2, tile(), TOME, PAG]),
}
# The network is random, so the latents grow: nobody asks them to be of order one.
STEPS, CFG, SEED = 3, 5.0, 42


def hypernets(folder):
    """Two files of torch.save for the widths of unet_sd15: the plain kind, and one with norms and another activation."""
    g = torch.Generator().manual_seed(9)

    def nets(widths, norms):
        out = {}
        for d in widths:
            out[d] = []
            for _ in range(2):
                sd, sizes = {}, (d, 2 * d, d)
                for i in range(2):
                    name = f"linear.{2 * i if norms else i}"
                    sd[name + ".weight"] = torch.randn(sizes[i + 1], sizes[i], generator=g) / sizes[i] ** 0.5
                    sd[name + ".bias"] = torch.randn(sizes[i + 1], generator=g) * 0.1
                    if norms:
                        sd[f"linear.{2 * i + 1}.weight"] = 1 + torch.randn(sizes[i + 1], generator=g) * 0.1
                        sd[f"linear.{2 * i + 1}.bias"] = torch.randn(sizes[i + 1], generator=g) * 0.1
                out[d].append(sd)
        return out

    torch.save({**nets((24, 32), False), "activation_func": "relu", "name": "tiny", "layer_structure": [1, 2, 1]},
               os.path.join(folder, "hyper_relu.pt"))
    torch.save({**nets((24,), True), "activation_func": "mish", "is_layer_norm": True, "activate_output": False},
               os.path.join(folder, "hyper_mish.pt"))
    layer = {"linear.0.weight": torch.ones(5, 7), "linear.0.bias": torch.ones(5)}       # of no width
    torch.save({24: [layer, layer]}, os.path.join(folder, "hyper_bad.pt"))


def with_hypernet(model, path, strength):
    from comfy_extras.nodes_hypernetwork import load_hypernetwork_patch
    model, patch = model.clone(), load_hypernetwork_patch(path, strength)
    model.set_model_attn1_patch(patch)
    model.set_model_attn2_patch(patch)
    return model


def patcher(sd, stored=torch.float16):
    """A ComfyUI MODEL of these weights, which stay f16 and are computed with in f32, as atelier does."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models
    config = comfy.supported_models.SD15({k: v for k, v in unet.comfy_config(sd).items() if k != "dtype"})
    config.set_inference_dtype(stored, torch.float32)
    model = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.EPS, device="cpu")
    model.load_model_weights(dict(sd))
    return comfy.model_patcher.ModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))


def patched(model, nodes):
    import importlib
    for module, name, inputs in nodes:
        node = getattr(importlib.import_module("comfy_extras." + module), name)
        run = node.execute if hasattr(node, "execute") else node().patch
        out = run(model=model, **inputs)
        model = out[0] if isinstance(out, tuple) else out.args[0]
    return model


def sample(model, text, h, w):
    import comfy.sample
    latent = torch.zeros(1, 4, h, w)
    noise = comfy.sample.prepare_noise(latent, SEED)
    return comfy.sample.sample(model, noise, STEPS, CFG, "euler", "normal", [[text["positive"], {}]], [[text["negative"], {}]],
                               latent, disable_pbar=True, seed=SEED)


def make(root, comfyui):
    if not comfyui:
        print("  only ComfyUI can say what its patches do: --comfyui DIR")
        return
    sd = {k: v.half() for k, v in unet.weights(SD15, 601).items()}
    g = torch.Generator().manual_seed(5)
    text = {k: torch.randn(1, 7, SD15.context, generator=g) for k in ("positive", "negative")}
    model, out = patcher(sd), {}
    folder = os.path.join(root, "unet_patches")
    os.makedirs(folder, exist_ok=True)
    for name, (h, w, nodes) in CASES.items():
        out[name] = sample(patched(model, nodes), text, h, w)
        plain = sample(model, text, h, w)
        e = rel_err(out[name], plain)
        print(f"  {name}: {e:.2e} from the unpatched run")
        assert name == "plain" or e > 1e-2, f"{name} hardly does anything"
    hypernets(folder)
    whole = patcher({k: v.float() for k, v in sd.items()}, torch.float32)   # ComfyUI gives a hypernetwork the file's dtype
    for kind, strength in (("relu", 0.8), ("mish", -1.5)):
        out["hyper_" + kind] = sample(with_hypernet(whole, os.path.join(folder, f"hyper_{kind}.pt"), strength), text, 8, 8)
    save({**out, **text}, os.path.join(folder, "expected.safetensors"))
