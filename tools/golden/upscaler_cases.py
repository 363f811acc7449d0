# SPDX-License-Identifier: Apache-2.0
"""The committed upscaler cases: the layouts of keys, stacked pixels, and tiles."""
import os

import torch
import upscaler
from case import Random, agree, healthy, sensitive, write_case, write_model


def case(root, name, model, sd, network, scale, shape, seed, comfyui, tile=512, overlap=32):
    image = Random(seed).normal("image", shape, 0.25, 0.5).clamp(0, 1).float()
    x = image.double().permute(0, 3, 1, 2)
    wide = {k: v.double() for k, v in sd.items()}

    def sources(weights):
        return upscaler.tiled(x, lambda t: network(weights, t), tile, overlap, scale).permute(0, 2, 3, 1)

    results = {"plain": {"out": sources(wide)}}
    if comfyui:
        import comfy.utils
        results["comfyui"] = {"out": comfy.utils.tiled_scale(
            x, lambda t: network(wide, t), tile, tile, overlap, scale).permute(0, 2, 3, 1)}
    agree(name, results)
    expected = {"out": results["plain"]["out"].float()}
    healthy(name, expected)
    if model == "model.safetensors":
        sensitive(name, wide, lambda s: {"out": sources(s)}, floor=2.4e-5)
    inside = ((expected["out"] > 0) & (expected["out"] < 1)).float().mean().item()
    assert inside > 0.6, f"{name}: only {inside:.2f} of the values are not clamped"
    write_case(root, name, "upscaler", model, {"image": image}, expected, {"tile": tile, "overlap": overlap},
               rtol=2e-5)


def make(root, comfyui):
    x4 = {k: v.half() for k, v in upscaler.rrdb_weights(801, blocks=2).items()}
    write_model(os.path.join(root, "upscaler_rrdb", "model.safetensors"), x4)
    case(root, "upscaler_rrdb", "model.safetensors", x4, upscaler.rrdb, 4, (2, 7, 9, 3), 1, comfyui)
    # 28 x 23 in tiles of 16: two rows and two columns, the last ones smaller.
    case(root, "upscaler_rrdb_tiles", "../upscaler_rrdb/model.safetensors", x4, upscaler.rrdb, 4, (1, 23, 28, 3), 2,
         comfyui, 16, 4)
    x2 = {k: v.half() for k, v in upscaler.rrdb_weights(802, stack=2).items()}
    write_model(os.path.join(root, "upscaler_rrdb_x2", "model.safetensors"),
                {"params_ema." + k: v for k, v in x2.items()})
    case(root, "upscaler_rrdb_x2", "model.safetensors", x2, upscaler.rrdb, 2, (1, 7, 9, 3), 3, comfyui)
    for ups in (0, 1, 3):
        sd = {k: v.half() for k, v in upscaler.rrdb_weights(810 + ups, ups=ups).items()}
        name = f"upscaler_numbered_x{2 ** ups}"
        write_model(os.path.join(root, name, "model.safetensors"), upscaler.numbered(sd, ups))
        case(root, name, "model.safetensors", sd, upscaler.rrdb, 2 ** ups, (1, 6, 5, 3), 4 + ups, comfyui)
    sd = {k: v.half() for k, v in upscaler.rrdb_weights(820).items()}
    write_model(os.path.join(root, "upscaler_trunk", "model.safetensors"), upscaler.trunk(sd))
    case(root, "upscaler_trunk", "model.safetensors", sd, upscaler.rrdb, 4, (1, 5, 6, 3), 9, comfyui)
    for scale, convs in ((4, 4), (1, 2)):
        sd = {k: v.half() for k, v in upscaler.srvgg_weights(830 + scale, scale=scale, convs=convs).items()}
        name = f"upscaler_compact_x{scale}"
        write_model(os.path.join(root, name, "model.safetensors"), sd)
        case(root, name, "model.safetensors", sd, upscaler.srvgg, scale, (1, 8, 7, 3), 10 + scale, comfyui)
    # As torch.save wrote them: a dictionary in a dictionary.
    torch.save({"params": sd}, os.path.join(root, "upscaler_compact_x1", "model.pth"))
    write_case(root, "upscaler_compact_pth", "upscaler", "../upscaler_compact_x1/model.pth",
               {"image": torch.zeros(1, 8, 7, 3)}, {"out": upscaler.srvgg(
                   {k: v.double() for k, v in sd.items()}, torch.zeros(1, 3, 8, 7).double()).permute(0, 2, 3, 1).float()})
