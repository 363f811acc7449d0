# SPDX-License-Identifier: Apache-2.0
"""The committed VAE cases."""
import os

import vae
from case import agree, healthy, sensitive, write_case, write_model

FLUX = vae.Config()
SD = vae.Config(mult=(1, 1), z=4, quant=True)


def case(root, name, model, sd, cfg, what, x, comfyui, rtol=1e-4, dtype="f32"):
    r = vae.sources(sd, cfg, what, x, comfyui)
    agree(name, r)
    expected = {k: v.float() for k, v in r["diffusers"].items()}
    healthy(name, expected)
    write_case(root, name, "vae_" + what, model, {"x": x}, expected, {}, rtol, dtype)


def check(name, sd, cfg, what, x):
    """With 32 channels each of the 32 groups is one channel, so a bias before a norm cancels."""
    other = {"encode": ("decoder", "post_quant"), "decode": ("encoder", "quant_conv.")}[what]
    mine = {k: v for k, v in sd.items() if not k.startswith(other) and not k.endswith("attn_1.k.bias")
            and not (k.endswith("bias") and v.numel() == 32 and "norm" not in k)}
    sensitive(name, mine, lambda s: vae.plain({**sd, **s}, cfg, what, x))


def make(root, comfyui):
    stored = {k: v.half() for k, v in vae.weights(FLUX, 401).items()}
    write_model(os.path.join(root, "vae_flux_decode", "model.safetensors"), stored)
    sd = {k: v.float() for k, v in stored.items()}
    z, x = vae.latent(FLUX, 2, 6, 5, 1), vae.image(1, 14, 12, 2)
    check("vae_flux_decode", sd, FLUX, "decode", z)
    check("vae_flux_encode", sd, FLUX, "encode", x)
    case(root, "vae_flux_decode", "model.safetensors", sd, FLUX, "decode", z, comfyui)
    case(root, "vae_flux_encode", "../vae_flux_decode/model.safetensors", sd, FLUX, "encode", x, comfyui)

    # SD style: 4 latent channels and the two 1x1 convolutions, in the layout of diffusers.
    sd = {k: v.half().float() for k, v in vae.weights(SD, 402).items()}
    stored = {k: v.half() for k, v in vae.to_diffusers(sd, SD).items()}
    write_model(os.path.join(root, "vae_sd_decode", "model.safetensors"), stored)
    z, x = vae.latent(SD, 1, 5, 8, 3), vae.image(2, 12, 16, 4)
    check("vae_sd_decode", sd, SD, "decode", z)
    check("vae_sd_encode", sd, SD, "encode", x)
    case(root, "vae_sd_decode", "model.safetensors", sd, SD, "decode", z, comfyui)
    case(root, "vae_sd_encode", "../vae_sd_decode/model.safetensors", sd, SD, "encode", x, comfyui)

