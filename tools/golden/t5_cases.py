# SPDX-License-Identifier: Apache-2.0
"""The committed T5 encoder cases."""
import os

import torch

import t5
from case import agree, healthy, sensitive, write_case, write_model
from flux_cases import scaled_fp8

CONFIG = t5.Config()


def case(root, name, model, sd, tokens, comfyui, rtol=1e-4, dtype="f32"):
    r = t5.sources({k: v.float() for k, v in sd.items()}, CONFIG, tokens, comfyui)
    agree(name, r)
    expected = {k: v.float() for k, v in r["transformers"].items()}
    healthy(name, expected)
    write_case(root, name, "text_encoder", model, {"tokens": tokens}, expected, {"kind": "t5"}, rtol, dtype)


def scaled(sd):
    """Only the linear layers are scaled fp8: the embedding and the position bias are not."""
    linear = {k: v for k, v in sd.items() if v.ndim == 2 and "relative" not in k and not k.endswith(("shared.weight", "tokens.weight"))}
    rest = {k: v.half() for k, v in sd.items() if k not in linear}
    stored, value = scaled_fp8(linear, torch.float8_e4m3fn)
    stored = {k: v for k, v in stored.items() if not k.endswith("scale_input")}
    stored["scaled_fp8"] = torch.zeros(0, dtype=torch.float8_e4m3fn)         # 0 elements, as t5xxl_fp8_e4m3fn_scaled
    return {**stored, **rest}, {**value, **rest}


def make(root, comfyui):
    sd = t5.weights(CONFIG, 301)
    write_model(os.path.join(root, "t5", "model.safetensors"), sd)
    tokens = torch.cat([t5.prompt(CONFIG, n, 24, n) for n in (9, 23, 0)])
    sensitive("t5", sd, lambda s: t5.plain(s, CONFIG, tokens), skip=("embed_tokens",))
    case(root, "t5", "model.safetensors", sd, tokens, comfyui)
    # Longer than 128, so that the last logarithmic bucket is used in both directions.
    case(root, "t5_long", "../t5/model.safetensors", sd, t5.prompt(CONFIG, 180, 256, 5), comfyui)

    small = {k: v for k, v in sd.items() if k != "encoder.embed_tokens.weight"}
    fp8 = {k: v.to(torch.float8_e4m3fn) for k, v in small.items()}           # every tensor, as t5xxl_fp8_e4m3fn
    write_model(os.path.join(root, "t5_w_e4m3", "model.safetensors"), fp8)
    case(root, "t5_w_e4m3", "model.safetensors", with_tokens(fp8), tokens, comfyui)
    stored, value = scaled(small)
    write_model(os.path.join(root, "t5_w_scaled", "model.safetensors"), stored)
    case(root, "t5_w_scaled", "model.safetensors", with_tokens(value), tokens, comfyui)


def with_tokens(sd):
    return {**sd, "encoder.embed_tokens.weight": sd["shared.weight"]}
