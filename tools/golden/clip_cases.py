# SPDX-License-Identifier: Apache-2.0
"""The committed CLIP text encoder cases."""
import os

import torch

import clip
from case import agree, healthy, sensitive, write_case, write_model

CONFIG = clip.Config()
# Bare files are told apart by their depth, so these have that of the published ones.
BIG_G = clip.Config(width=64, layers=32, mlp=96, vocab=256, act="gelu", projected=True)
BIG_H = clip.Config(width=64, layers=24, mlp=96, vocab=256, act="gelu", projected=True)
OPEN_G = clip.Config(layers=2, act="gelu", vocab=256, projected=True)
OPEN_H = clip.Config(layers=3, act="gelu", vocab=256, projected=True)


def case(root, name, model, sd, tokens, comfyui, rtol=1e-4, dtype="f32", cfg=CONFIG, kind="clip_l", **how):
    r = clip.sources(sd, cfg, tokens, comfyui, **how)
    agree(name, r)
    expected = {k: v.float() for k, v in r["transformers"].items()}
    healthy(name, expected)
    options = {"kind": kind, "layer": how.get("layer", -1), "final_norm": how.get("final_norm", True)}
    write_case(root, name, "text_encoder", model, {"tokens": tokens}, expected, options, rtol, dtype)


def make(root, comfyui):
    stored = {k: v.half() for k, v in clip.weights(CONFIG, 201).items()}     # f16, as clip_l.safetensors
    write_model(os.path.join(root, "clip_l", "model.safetensors"), stored)
    sd = {k: v.float() for k, v in stored.items()}
    # A short prompt, a full one (75 words), an empty one, and one that is padded with 0 instead of EOS.
    rows = [clip.prompt(CONFIG, 9, 1), clip.prompt(CONFIG, 75, 2), clip.prompt(CONFIG, 0, 3), clip.prompt(CONFIG, 20, 4)]
    rows[3][0, 22:] = 0
    tokens = torch.cat(rows)
    # The bias of k adds the same amount to every logit of a query, so softmax removes it.
    sensitive("clip_l", sd, lambda s: clip.plain(s, CONFIG, tokens), skip=("k_proj.bias",))
    shared = "../clip_l/model.safetensors"
    case(root, "clip_l", "model.safetensors", sd, tokens, comfyui)
    case(root, "clip_l_skip2", shared, sd, tokens[:1], comfyui, layer=-2)
    case(root, "clip_l_skip2_raw", shared, sd, tokens[:1], comfyui, layer=-2, final_norm=False)
    case(root, "clip_l_skip3", shared, sd, tokens[3:], comfyui, layer=-3)
    case(root, "clip_l_last_raw", shared, sd, tokens[:1], comfyui, layer=-1, final_norm=False)
    make_projected(root, comfyui)


def make_projected(root, comfyui):
    """CLIP-G (SDXL) and CLIP-H (SD2): exact GELU, text_projection, penultimate layer; padding with 0."""
    for kind, cfg, dtype, prefix in (("clip_g", BIG_G, torch.float8_e4m3fn, None), ("clip_h", BIG_H, torch.float8_e4m3fn, None),
                                     ("clip_g", OPEN_G, torch.float16, "conditioner.embedders.1.model."),
                                     ("clip_h", OPEN_H, torch.float16, "cond_stage_model.model.")):
        name = kind + ("_open" if prefix else "")
        stored = {k: v.to(dtype) for k, v in clip.weights(cfg, 210 + cfg.layers).items()}
        sd = {k: v.float() for k, v in stored.items()}
        if prefix:
            stored = {prefix + k: v for k, v in clip.to_open_clip(stored, cfg).items()}
        write_model(os.path.join(root, name, "model.safetensors"), stored)
        tokens = torch.cat([clip.prompt(cfg, 11, 5), clip.prompt(cfg, 75, 6)])
        tokens[0, 13:] = 0
        sensitive(name, sd, lambda s, cfg=cfg, t=tokens: clip.plain(s, cfg, t, dtype=torch.float32),
                  floor=2e-5 if cfg.layers > 20 else 1.2e-4, skip=("k_proj.bias",))
        case(root, name, "model.safetensors", sd, tokens, comfyui, cfg=cfg, kind=kind)
        raw = kind == "clip_g"
        case(root, name + "_skip2", f"../{name}/model.safetensors", sd, tokens[:1], comfyui, cfg=cfg, kind=kind,
             layer=-2, final_norm=not raw)
