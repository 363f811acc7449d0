#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A step of Flux.1 dev, 1024 x 1024 with 512 text tokens, as ComfyUI's modules do it: times as JSON lines.

    tools/gpu/peer_flux.py --comfyui DIR [--variants eager,compiled,graphs,fp8_fast,fp8_row,fp8_row_compiled] [--runs N]

eager, compiled      bf16; compiled is torch.compile of the whole forward, as ComfyUI's TorchCompileModel node asks for
graphs               compiled and replayed as a CUDA graph
fp8_fast             weight_dtype fp8_e4m3fn_fast: weights and inputs in e4m3 without scales (ComfyUI's own operation)
fp8_fast_compiled    the same, compiled
fp8_row              the better fp8 that torch can do: a scale per row of the weights and per token of the input
fp8_row_compiled     the same, compiled: the fastest peer
"""
import torch

import peer_base as base

VARIANTS = ("eager", "compiled", "graphs", "fp8_fast", "fp8_fast_compiled", "fp8_row", "fp8_row_compiled",
            "fp8_row_graphs")
DEV = dict(in_channels=16, out_channels=16, vec_in_dim=768, context_in_dim=4096, hidden_size=3072, mlp_ratio=4.0,
           num_heads=24, depth=19, depth_single_blocks=38, axes_dim=[16, 56, 56], theta=10000, patch_size=2,
           qkv_bias=True, guidance_embed=True)
TINY = {**DEV, "vec_in_dim": 32, "context_in_dim": 64, "hidden_size": 256, "num_heads": 2, "depth": 2,
        "depth_single_blocks": 2}
E4M3 = torch.float8_e4m3fn


class RowLinear(torch.nn.Module):
    """y = x W^T with W in e4m3 by rows and x in e4m3 by tokens, sums in f32, bf16 out."""

    def __init__(self, linear):
        super().__init__()
        w = linear.weight
        scale = w.abs().amax(dim=1, keepdim=True).float() / 448.0
        self.register_buffer("weight", (w.float() / scale).to(E4M3))
        self.register_buffer("scale", scale.t().contiguous())
        self.register_buffer("bias", linear.bias.data)

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        scale = rows.abs().amax(dim=1, keepdim=True).float().clamp_min(1e-12) / 448.0
        packed = (rows.float() / scale).to(E4M3)
        y = torch._scaled_mm(packed, self.weight.t(), scale_a=scale, scale_b=self.scale, bias=self.bias,
                             out_dtype=torch.bfloat16, use_fast_accum=True)
        return y.reshape(*x.shape[:-1], -1)


def by_rows(model):
    """The wide layers of the blocks; embeddings, modulation and the last layer stay bf16, as the field does it."""
    for stack in (model.double_blocks, model.single_blocks):
        for path, layer in list(stack.named_modules()):
            if isinstance(layer, torch.nn.Linear) and "mod" not in path:
                parent = stack.get_submodule(path.rpartition(".")[0])
                setattr(parent, path.rpartition(".")[2], RowLinear(layer))
    return model


def build(o, variant):
    import comfy.ldm.flux.model
    import comfy.ops
    fast = variant.startswith("fp8_fast")
    operations = comfy.ops.fp8_ops if fast else comfy.ops.disable_weight_init
    model = comfy.ldm.flux.model.Flux(dtype=E4M3 if fast else torch.bfloat16, device=o.device, operations=operations,
                                      **(TINY if o.tiny else DEV))
    base.fill(model)
    if variant.startswith("fp8_row"):
        by_rows(model)
        base.forget()
    return model


def inputs(o):
    side, tokens, config = (8, 16, TINY) if o.tiny else (128, 512, DEV)

    def draw(*shape):
        return torch.randn(*shape, device=o.device, dtype=torch.bfloat16)

    return dict(x=draw(1, 16, side, side), timestep=torch.tensor([0.7], device=o.device, dtype=torch.bfloat16),
                context=draw(1, tokens, config["context_in_dim"]), y=draw(1, config["vec_in_dim"]),
                guidance=torch.tensor([3.5], device=o.device, dtype=torch.bfloat16))


def main():
    o = base.arguments(__doc__, VARIANTS)
    version = base.enable(o)
    given = inputs(o)
    for variant in o.variants:
        model = build(o, variant)
        call = base.by_name(variant, model)
        row = {"peer": "ComfyUI " + version, "work": "flux1-dev step", "variant": variant}
        base.measure(o, row, lambda: call(**given))
        del model, call
        base.forget()


if __name__ == "__main__":
    main()
