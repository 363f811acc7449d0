#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What stands around the steps, as ComfyUI's modules do it: the VAE at 1024 x 1024 and T5-XXL over 512 tokens, bf16.

    tools/gpu/peer_parts.py --comfyui DIR [--variants vae_decode,vae_encode,t5,...] [--runs N]

The VAE is Flux.1's (16 channels); SDXL's differs in its first layer alone. T5 is given embeddings in bf16: ComfyUI hands
it f32, which is slower.
"""
import torch

import peer_base as base

VARIANTS = ("vae_decode", "vae_encode", "vae_decode_compiled", "t5", "t5_compiled")
VAE = dict(double_z=True, z_channels=16, resolution=256, in_channels=3, out_ch=3, ch=128, ch_mult=[1, 2, 4, 4],
           num_res_blocks=2, attn_resolutions=[], dropout=0.0)
T5 = dict(d_ff=10240, d_kv=64, d_model=4096, dense_act_fn="gelu_pytorch_tanh", is_gated_act=True, model_type="t5",
          num_heads=64, num_layers=24, vocab_size=32128)


def vae(o, decode):
    from comfy.ldm.models.autoencoder import AutoencodingEngine
    config = {**VAE, "ch": 32} if o.tiny else VAE
    side = 64 if o.tiny else 1024
    part = "comfy.ldm.modules.diffusionmodules.model."
    m = AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
        encoder_config={"target": part + "Encoder", "params": config},
        decoder_config={"target": part + "Decoder", "params": config})
    m = base.fill(m.to(o.device, torch.bfloat16))
    shape = (1, 16, side // 8, side // 8) if decode else (1, 3, side, side)
    x = torch.randn(shape, device=o.device, dtype=torch.bfloat16)
    return (m.decode if decode else m.encode), x


def t5(o):
    import comfy.ops
    import comfy.text_encoders.t5
    config = {**T5, "d_model": 128, "d_ff": 256, "num_heads": 2, "num_layers": 2} if o.tiny else T5
    m = base.fill(comfy.text_encoders.t5.T5(config, torch.bfloat16, o.device, comfy.ops.disable_weight_init))
    x = torch.randn(1, 512, config["d_model"], device=o.device, dtype=torch.bfloat16)

    def run(embeds):
        # The blocks add to what they are given: a copy, as a caller would hand in a fresh one.
        return m(None, None, embeds=embeds.clone(), dtype=torch.bfloat16)

    return run, x


def main():
    o = base.arguments(__doc__, VARIANTS)
    version = base.enable(o)
    for variant in o.variants:
        call, x = t5(o) if variant.startswith("t5") else vae(o, "decode" in variant)
        call = base.by_name(variant, call)
        base.measure(o, {"peer": "ComfyUI " + version, "work": "1024 x 1024, 512 tokens", "variant": variant},
                     lambda: call(x))
        del call
        base.forget()


if __name__ == "__main__":
    main()
