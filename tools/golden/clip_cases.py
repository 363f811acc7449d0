# SPDX-License-Identifier: Apache-2.0
"""The committed CLIP text encoder cases."""
import os

import torch

import clip
from case import agree, healthy, sensitive, write_case, write_model

CONFIG = clip.Config()


def case(root, name, model, sd, tokens, comfyui, rtol=1e-4, dtype="f32", **how):
    r = clip.sources(sd, CONFIG, tokens, comfyui, **how)
    agree(name, r)
    expected = {k: v.float() for k, v in r["transformers"].items()}
    healthy(name, expected)
    options = {"kind": "clip_l", "layer": how.get("layer", -1), "final_norm": how.get("final_norm", True)}
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
