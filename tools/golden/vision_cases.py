# SPDX-License-Identifier: Apache-2.0
"""The committed cases of picture encoders and style models: few channels, the published depths' keys. Sources:
transformers for the encoders, ComfyUI's modules for all; ComfyUI's preprocessing (a few lines over torch) is
repeated here."""
import os

import torch

from case import Random, agree, healthy, write_case, write_model

E4M3 = torch.float8_e4m3fn
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def config(kind, width, layers, size, patch):
    act = {"l": "quick_gelu", "h": "gelu", "siglip": "gelu_pytorch_tanh"}[kind]
    c = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers, "num_attention_heads": 16,
         "image_size": size, "patch_size": patch, "num_channels": 3, "hidden_act": act, "layer_norm_eps": 1e-5,
         "model_type": "siglip_vision_model" if kind == "siglip" else "clip_vision_model"}
    return c if kind == "siglip" else {**c, "projection_dim": 24}


def weights(c, seed):
    r, sd, w = Random(seed), {}, c["hidden_size"]
    siglip = c["model_type"] == "siglip_vision_model"
    e = "vision_model.embeddings."
    n = (c["image_size"] // c["patch_size"]) ** 2
    fan = 3 * c["patch_size"] ** 2
    sd[e + "patch_embedding.weight"] = r.normal("patch", (w, 3, c["patch_size"], c["patch_size"]), 0.02 * fan ** -0.5)
    if siglip:
        sd[e + "patch_embedding.bias"] = r.normal("bias", (w,), 0.02)
    else:
        sd[e + "class_embedding"] = r.normal("class", (w,), 0.02)
        r.norm(sd, "vision_model.pre_layrnorm", w)
        sd["visual_projection.weight"] = r.normal("projection", (c["projection_dim"], w), w ** -0.5)
    sd[e + "position_embedding.weight"] = r.normal("positions", (n + (not siglip), w), 0.02)
    for i in range(c["num_hidden_layers"]):
        p = f"vision_model.encoder.layers.{i}."
        for name in ("q_proj", "k_proj"):
            r.linear(sd, p + "self_attn." + name, w, w, gain=1.6)
        for name in ("v_proj", "out_proj"):
            r.linear(sd, p + "self_attn." + name, w, w, gain=0.5)
        r.linear(sd, p + "mlp.fc1", 2 * w, w)
        r.linear(sd, p + "mlp.fc2", w, 2 * w, gain=0.5)
        r.norm(sd, p + "layer_norm1", w)
        r.norm(sd, p + "layer_norm2", w)
    r.norm(sd, "vision_model.post_layernorm", w)
    return sd


def preprocess(image, size, crop, mean, std):
    x = image.movedim(-1, 1)
    if tuple(x.shape[2:]) != (size, size):
        by = size / min(x.shape[2:])
        to = (round(by * x.shape[2]), round(by * x.shape[3])) if crop else (size, size)
        x = torch.nn.functional.interpolate(x, size=to, mode="bicubic", antialias=True)
        top, left = (to[0] - size) // 2, (to[1] - size) // 2
        x = x[:, :, top:top + size, left:left + size]
    x = (255.0 * x).clamp(0, 255).round() / 255.0
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def by_comfyui(sd, c, image, crop):
    import comfy.clip_model
    import comfy.clip_vision
    import comfy.ops
    siglip = c["model_type"] == "siglip_vision_model"
    norm = ([0.5] * 3, [0.5] * 3) if siglip else (MEAN, STD)
    pixels = comfy.clip_vision.clip_preprocess(image, c["image_size"], *norm, crop)
    net = comfy.clip_model.CLIPVisionModelProjection(c, torch.float32, "cpu", comfy.ops.manual_cast)
    net.load_state_dict(sd)
    last, between, embeds, _ = net(pixel_values=pixels, intermediate_output="all" if siglip else -2)
    return {"last": last, "penultimate": between[:, -2] if siglip else between, "embeds": embeds}


def by_transformers(sd, c, image, crop):
    """CLIP's norm after the last layer is not part of `last_hidden_state` in ComfyUI; SigLIP's epsilon is 1e-6 in
    transformers and 1e-5 there, so that one is set."""
    import transformers
    siglip = c["model_type"] == "siglip_vision_model"
    own = {k: v for k, v in c.items() if k != "model_type"}
    if siglip:
        net = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**own, vision_use_head=False))
    else:
        net = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**own))
    net = net.double().eval()
    net.load_state_dict({k: v.double() for k, v in sd.items()}, strict=not siglip)
    norm = ([0.5] * 3, [0.5] * 3) if siglip else (MEAN, STD)
    out = net(pixel_values=preprocess(image, c["image_size"], crop, *norm).double(), output_hidden_states=True)
    hidden = out.hidden_states
    last = out.last_hidden_state if siglip else hidden[-1]
    return {"last": last.float(), "penultimate": hidden[-2].float(),
            "embeds": last.float() if siglip else out.image_embeds.float()}


def to_open_clip(sd, layers):
    names = {"embeddings.class_embedding": "class_embedding", "embeddings.patch_embedding.weight": "conv1.weight",
             "embeddings.position_embedding.weight": "positional_embedding", "pre_layrnorm.": "ln_pre.",
             "post_layernorm.": "ln_post."}
    out = {"proj": sd["visual_projection.weight"].float().T.to(sd["visual_projection.weight"].dtype)}
    for k, v in sd.items():
        k = k.removeprefix("vision_model.")
        for a, b in names.items():
            if k.startswith(a):
                out[b + k[len(a):]] = v
    for i in range(layers):
        p, q = f"vision_model.encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for end in ("weight", "bias"):
            qkv = [sd[f"{p}self_attn.{n}_proj.{end}"].float() for n in "qkv"]
            out[f"{q}attn.in_proj_{end}"] = torch.cat(qkv).to(sd[f"{p}self_attn.q_proj.{end}"].dtype)
            for a, b in (("self_attn.out_proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
                         ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2")):
                out[f"{q}{b}.{end}"] = sd[f"{p}{a}.{end}"]
    return {"visual." + k: v.contiguous() for k, v in out.items()}


def encoder_case(root, name, c, seed, image, crop, comfyui, open_clip=False):
    stored = {k: v.float().to(E4M3) for k, v in weights(c, seed).items()}
    sd = {k: v.float() for k, v in stored.items()}
    r = {"transformers": by_transformers(sd, c, image, crop)}
    if comfyui:
        r["comfyui"] = by_comfyui(sd, c, image, crop)
    agree(name, r)
    want = r["transformers"]
    if c["model_type"] == "siglip_vision_model":
        want.pop("embeds")                       # the same as `last`
    healthy(name, want)
    file = to_open_clip(stored, c["num_hidden_layers"]) if open_clip else stored
    write_model(os.path.join(root, name, "model.safetensors"), file)
    write_case(root, name, "clip_vision", "model.safetensors", {"image": image}, want,
               {"crop": "center" if crop else "none"})


def picture(seed, b, h, w):
    return torch.rand((b, h, w, 3), generator=torch.Generator().manual_seed(seed))


def style_cases(root):
    from comfy.ldm.flux.redux import ReduxImageEncoder
    from comfy.t2i_adapter.adapter import StyleAdapter
    r = Random(551)
    for name, net, seen in (("style_redux", ReduxImageEncoder(48, 40), r.normal("a", (2, 9, 48))),
                            ("style_t2i", StyleAdapter(width=64, context_dim=40, num_head=8, n_layes=2, num_token=8),
                             r.normal("b", (2, 5, 64)))):
        sd = {}
        for k, v in net.state_dict().items():
            std = v.shape[-1] ** -0.5 if v.ndim == 2 else 1.0 if k == "style_embedding" else 0.3
            mean = 1.0 if ".ln_" in k and k.endswith("weight") or k in ("ln_pre.weight", "ln_post.weight") else 0.0
            sd[k] = r.normal(name + k, v.shape, std, mean).half()
        net.load_state_dict({k: v.float() for k, v in sd.items()})
        want = {"tokens": net.float()(seen.float())}
        healthy(name, want)
        write_model(os.path.join(root, name, "model.safetensors"), sd)
        write_case(root, name, "style_model", "model.safetensors", {"seen": seen.float()}, want)


def make(root, comfyui):
    # 224 pixels of 14: a wide picture made larger and cropped, a tall one squeezed.
    encoder_case(root, "clip_vision_l", config("l", 32, 23, 224, 14), 501, picture(502, 1, 30, 41), True, comfyui)
    encoder_case(root, "clip_vision_h", config("h", 16, 31, 224, 14), 503, picture(504, 2, 70, 50), False, comfyui, True)
    # 384 pixels: six are left over; the picture is larger, so it is made smaller.
    encoder_case(root, "clip_vision_siglip", config("siglip", 16, 23, 384, 14), 505, picture(506, 1, 12, 9), True, comfyui)
    if comfyui:
        style_cases(root)
    else:
        print("  style models are written with --comfyui only")
