#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A step with CFG (both prompts in one batch of 2) of SDXL at 1024 x 1024 or SD1.5 at 512 x 512, as ComfyUI's modules do
it, in fp16: times as JSON lines.

    tools/gpu/peer_unet.py --comfyui DIR [--variants sdxl,sdxl_nhwc,sdxl_compiled,...] [--runs N]

_nhwc is torch's channels_last memory format for weights and input; _compiled is torch.compile of the whole forward, _graphs the
same replayed as a CUDA graph.
"""
import torch

import peer_base as base

COMMON = dict(image_size=32, in_channels=4, out_channels=4, model_channels=320, use_spatial_transformer=True, legacy=False,
              dtype=torch.float16)
SDXL = dict(COMMON, num_res_blocks=[2, 2, 2], channel_mult=[1, 2, 4], transformer_depth=[0, 0, 2, 2, 10, 10],
            transformer_depth_middle=10, transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10], num_head_channels=64,
            context_dim=2048, use_linear_in_transformer=True, adm_in_channels=2816, num_classes="sequential")
SD15 = dict(COMMON, num_res_blocks=[2, 2, 2, 2], channel_mult=[1, 2, 4, 4], transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
            transformer_depth_middle=1, transformer_depth_output=[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], num_heads=8,
            context_dim=768, use_linear_in_transformer=False)
VARIANTS = [name + how for name in ("sdxl", "sd15") for how in ("", "_nhwc", "_compiled", "_nhwc_compiled", "_nhwc_graphs")]


def narrow(config):
    levels = len(config["channel_mult"])
    depth = [min(d, 1) for d in config["transformer_depth"][1::2]]
    return {**config, "model_channels": 64, "num_res_blocks": [1] * levels, "transformer_depth": depth,
            "transformer_depth_output": [d for d in depth for _ in (0, 1)], "transformer_depth_middle": 1,
            "context_dim": 64}


def build(o, config):
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    import comfy.ops
    return base.fill(UNetModel(device=o.device, operations=comfy.ops.disable_weight_init, **config))


def inputs(o, config, side, nhwc):
    kind = dict(device=o.device, dtype=config["dtype"])
    x = torch.randn(2, 4, side, side, **kind)
    given = dict(x=x.to(memory_format=torch.channels_last) if nhwc else x, timesteps=torch.full((2,), 700.0, **kind),
                 context=torch.randn(2, 77, config["context_dim"], **kind))
    if "adm_in_channels" in config:
        given["y"] = torch.randn(2, config["adm_in_channels"], **kind)
    return given


def main():
    o = base.arguments(__doc__, VARIANTS)
    version = base.enable(o)
    for variant in o.variants:
        config, side = (SDXL, 128) if variant.startswith("sdxl") else (SD15, 64)
        if o.tiny:
            config, side = narrow(config), 16
        model = build(o, config)
        if "nhwc" in variant:
            model = model.to(memory_format=torch.channels_last)
        given = inputs(o, config, side, "nhwc" in variant)
        call = base.by_name(variant, model)
        base.measure(o, {"peer": "ComfyUI " + version, "work": "step with CFG", "variant": variant}, lambda: call(**given))
        del model, call
        base.forget()


if __name__ == "__main__":
    main()
