# SPDX-License-Identifier: Apache-2.0
"""PhotoMaker, small: ComfyUI's module with a narrow picture encoder and MLPs; a second time by transformers' encoder
and torch in float64."""
import os

import torch

import vision_cases
from case import Random, agree, healthy, rel_err, write_case, write_model

E4M3 = torch.float8_e4m3fn
FIRST, SECOND, INSIDE = 128, 64, 64             # together as wide as the text of tests/nodes' small CLIPs
TEXT, PLACE = FIRST + SECOND, 2
CONFIG = {**vision_cases.config("l", 32, 2, 224, 14), "projection_dim": FIRST}


def weights(seed):
    sd, r = vision_cases.weights(CONFIG, seed), Random(seed + 1)
    # The class token begins alike for every picture; here it is soon moved by what it sees.
    for k in sd:
        if k.endswith(("v_proj.weight", "out_proj.weight")):
            sd[k] = sd[k] * 3
    sd["visual_projection_2.weight"] = r.normal("second", (SECOND, 32), 32 ** -0.5)
    for name, inp in (("mlp1", 2 * TEXT), ("mlp2", TEXT)):
        p = f"fuse_module.{name}."
        r.norm(sd, p + "layernorm", inp)
        r.linear(sd, p + "fc1", INSIDE, inp, gain=1.5)
        r.linear(sd, p + "fc2", TEXT, INSIDE, gain=1.5)
    r.norm(sd, "fuse_module.layer_norm", TEXT)
    return sd


def small_module(sd):
    """ComfyUI's PhotoMakerIDEncoder with these widths."""
    import comfy.ops
    from comfy_extras import nodes_photomaker as m
    m.VISION_CONFIG_DICT = CONFIG
    net, ops = m.PhotoMakerIDEncoder(), comfy.ops.manual_cast
    net.visual_projection_2 = ops.Linear(32, SECOND, bias=False)
    net.fuse_module = m.FuseModule(TEXT, ops)
    net.fuse_module.mlp1 = m.MLP(2 * TEXT, TEXT, INSIDE, use_residual=False, operations=ops)
    net.fuse_module.mlp2 = m.MLP(TEXT, TEXT, INSIDE, use_residual=True, operations=ops)
    net = net.float()
    net.load_state_dict(sd)
    return net


def by_comfyui(sd, image, text):
    import comfy.clip_vision
    mask = torch.zeros((1, text.shape[1]), dtype=torch.bool)
    mask[0, PLACE] = True
    pixels = comfy.clip_vision.clip_preprocess(image).float()
    return small_module(sd)(pixels[None], text.clone(), mask)


def by_torch(sd, image, text):
    import transformers
    f = torch.nn.functional
    sd = {k: v.double() for k, v in sd.items()}
    own = {k: v for k, v in CONFIG.items() if k != "model_type"}
    net = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**own)).double().eval()
    net.load_state_dict({k: v for k, v in sd.items() if k.startswith(("vision_model.", "visual_projection.weight"))})
    pixels = vision_cases.preprocess(image, 224, True, vision_cases.MEAN, vision_cases.STD).double()
    seen = net.vision_model(pixels).pooler_output

    def norm(x, p):
        return f.layer_norm(x, x.shape[-1:], sd[p + ".weight"], sd[p + ".bias"])

    def mlp(x, p):
        h = f.gelu(f.linear(norm(x, p + ".layernorm"), sd[p + ".fc1.weight"], sd[p + ".fc1.bias"]))
        return f.linear(h, sd[p + ".fc2.weight"], sd[p + ".fc2.bias"])

    token = text[:, PLACE].double()
    who = [seen @ sd["visual_projection.weight"].T, seen @ sd["visual_projection_2.weight"].T]
    x = mlp(torch.cat([token] + who, dim=-1), "fuse_module.mlp1") + token
    x = norm(mlp(x, "fuse_module.mlp2") + x, "fuse_module.layer_norm")
    out = text.clone()
    out[:, PLACE] = x.float()
    return out


def make(root, comfyui):
    stored = {k: v.float().to(E4M3) for k, v in weights(901).items()}
    sd = {k: v.float() for k, v in stored.items()}
    image, text = vision_cases.picture(903, 1, 30, 41), Random(904).normal("text", (1, 5, TEXT)).float()
    r = {"torch": {"all": by_torch(sd, image, text)}}
    if comfyui:
        r["comfyui"] = {"all": by_comfyui(sd, image, text)}
    for v in r.values():
        v["token"] = v["all"][:, PLACE:PLACE + 1].clone()
    agree("photomaker", r)
    want = r["torch"]
    healthy("photomaker", want)
    other = by_torch(sd, vision_cases.picture(905, 1, 30, 41) * 0.5, text)
    moved = rel_err(other[:, PLACE], want["token"][:, 0])
    print(f"  photomaker: another picture moves the token by {moved:.1e}")
    assert moved > 0.02, "photomaker: the picture hardly matters"
    write_model(os.path.join(root, "photomaker", "model.safetensors"), {"id_encoder." + k: v for k, v in stored.items()})
    write_case(root, "photomaker", "photomaker", "model.safetensors", {"image": image, "text": text}, want,
               {"place": PLACE})
