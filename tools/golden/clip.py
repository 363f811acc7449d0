# SPDX-License-Identifier: Apache-2.0
"""CLIP text encoders with random weights in the transformers/ComfyUI key layout (text_model.*; CLIP-L without
text_projection, as clip_l.safetensors) and in OpenCLIP's, and their outputs from transformers, a plain float64
derivation, and ComfyUI's module."""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from case import Random


@dataclass
class Config:
    width: int = 128
    layers: int = 3
    mlp: int = 192
    vocab: int = 512
    positions: int = 77
    act: str = "quick_gelu"                 # CLIP-G and -H: gelu
    projected: bool = False                 # has text_projection: CLIP-G and -H

    @property
    def heads(self):
        return self.width // 64

    @property
    def eos(self):
        return self.vocab - 1


def weights(cfg, seed):
    """Embeddings are small, as CLIP's are (std 0.02), so that LayerNorm's epsilon of 1e-5 shows."""
    r, sd, p = Random(seed), {}, "text_model."
    for k, n in (("token", cfg.vocab), ("position", cfg.positions)):
        key = f"{p}embeddings.{k}_embedding.weight"
        sd[key] = r.normal(key, (n, cfg.width), 0.02)
    for i in range(cfg.layers):
        q = f"{p}encoder.layers.{i}."
        r.norm(sd, q + "layer_norm1", cfg.width)
        for n in ("q_proj", "k_proj", "v_proj", "out_proj"):
            r.linear(sd, f"{q}self_attn.{n}", cfg.width, cfg.width, gain=1.2)
        r.norm(sd, q + "layer_norm2", cfg.width)
        r.linear(sd, q + "mlp.fc1", cfg.mlp, cfg.width, gain=1.2)
        r.linear(sd, q + "mlp.fc2", cfg.width, cfg.mlp, gain=1.2)
        sd[q + "mlp.fc2.weight"] *= 1.5
    r.norm(sd, p + "final_layer_norm", cfg.width)
    if cfg.projected:
        r.linear(sd, "text_projection", cfg.width, cfg.width, bias=False)
    return {k: v.float() for k, v in sd.items()}


OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}


def to_open_clip(sd, cfg):
    """OpenCLIP's layout, as in the checkpoints of SD2 and SDXL: q, k and v in one, the projection transposed."""
    e = "text_model.embeddings."
    out = {"token_embedding.weight": sd[e + "token_embedding.weight"],
           "positional_embedding": sd[e + "position_embedding.weight"],
           "text_projection": sd["text_projection.weight"].T.contiguous(),
           "logit_scale": torch.tensor(4.6)}
    for t in ("weight", "bias"):
        out["ln_final." + t] = sd["text_model.final_layer_norm." + t]
        for i in range(cfg.layers):
            a, b = f"text_model.encoder.layers.{i}.", f"transformer.resblocks.{i}."
            out[f"{b}attn.in_proj_{t}"] = torch.cat([sd[f"{a}self_attn.{n}_proj.{t}"] for n in "qkv"])
            for k, v in OPEN_CLIP.items():
                out[f"{b}{v}.{t}"] = sd[f"{a}{k}.{t}"]
    return out


def prompt(cfg, words, seed):
    """[1,77]: BOS, words, EOS, and EOS again as padding. BOS is the second last id, EOS the last."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, cfg.vocab - 2, (words,), generator=g).tolist()
    row = [cfg.vocab - 2] + ids + [cfg.eos] * (cfg.positions - 1 - words)
    return torch.tensor([row], dtype=torch.int32)


def finish(hidden, pooled, projected=None):
    r = {"hidden": hidden, "pooled": pooled}
    return r if projected is None else {**r, "pooled_projected": projected}


def plain(sd, cfg, tokens, layer=-1, final_norm=True, dtype=torch.float64, eps=1e-5):
    """hidden: after encoder layer `layer` (-1 is the last), through the final LayerNorm if final_norm.
    pooled: the last layer through the final LayerNorm, at the first EOS, unprojected."""
    w = {k.removeprefix("text_model."): v.to(dtype) for k, v in sd.items()}

    def ln(name, x):
        m = x.mean(-1, keepdim=True)
        v = (x - m).pow(2).mean(-1, keepdim=True)
        return (x - m) / torch.sqrt(v + eps) * w[name + ".weight"] + w[name + ".bias"]

    def lin(name, x):
        return F.linear(x, w[name + ".weight"], w[name + ".bias"])

    tokens = tokens.long()
    b, t = tokens.shape
    x = w["embeddings.token_embedding.weight"][tokens] + w["embeddings.position_embedding.weight"][:t]
    future = torch.ones(t, t, dtype=torch.bool).triu(1)
    states = []
    for i in range(cfg.layers):
        p = f"encoder.layers.{i}."
        h = ln(p + "layer_norm1", x)
        q, k, v = (lin(f"{p}self_attn.{n}_proj", h).reshape(b, t, cfg.heads, -1).transpose(1, 2) for n in "qkv")
        s = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        a = torch.softmax(s.masked_fill(future, -math.inf), -1) @ v
        x = x + lin(p + "self_attn.out_proj", a.transpose(1, 2).flatten(-2))
        h = lin(p + "mlp.fc1", ln(p + "layer_norm2", x))
        h = h * torch.sigmoid(1.702 * h) if cfg.act == "quick_gelu" else F.gelu(h)
        x = x + lin(p + "mlp.fc2", h)
        states.append(x)
    last = ln("final_layer_norm", x)
    hidden = states[layer]
    if final_norm:
        hidden = ln("final_layer_norm", hidden)
    first = (tokens == cfg.eos).int().argmax(-1)
    pooled = last[torch.arange(b), first]
    return finish(hidden, pooled, pooled @ w["text_projection.weight"].T if cfg.projected else None)


def by_transformers(sd, cfg, tokens, layer=-1, final_norm=True, dtype=torch.float32):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
    m = (CLIPTextModelWithProjection if cfg.projected else CLIPTextModel)(CLIPTextConfig(
        vocab_size=cfg.vocab, hidden_size=cfg.width, intermediate_size=cfg.mlp, num_hidden_layers=cfg.layers,
        num_attention_heads=cfg.heads, max_position_embeddings=cfg.positions, hidden_act=cfg.act,
        layer_norm_eps=1e-5, projection_dim=cfg.width, eos_token_id=cfg.eos, bos_token_id=cfg.eos - 1, pad_token_id=cfg.eos,
        attn_implementation="eager")).to(dtype).eval()
    missing = m.load_state_dict({k: v.to(dtype) for k, v in sd.items()}, strict=False)
    assert not missing.unexpected_keys and all("position_ids" in k for k in missing.missing_keys), missing
    o = m(tokens.long(), output_hidden_states=True)
    hidden = o.hidden_states[cfg.layers + 1 + layer]
    if final_norm:
        hidden = m.text_model.final_layer_norm(hidden)
        if layer == -1:
            assert torch.equal(hidden, o.last_hidden_state)
    if not cfg.projected:
        return finish(hidden, o.pooler_output)
    pooled = m.text_model(tokens.long()).pooler_output
    return finish(hidden, pooled, o.text_embeds)


def by_comfyui(sd, cfg, tokens, layer=-1, final_norm=True, dtype=torch.float32):
    import comfy.clip_model
    import comfy.ops
    m = comfy.clip_model.CLIPTextModel(
        {"num_hidden_layers": cfg.layers, "hidden_size": cfg.width, "num_attention_heads": cfg.heads,
         "intermediate_size": cfg.mlp, "hidden_act": cfg.act, "max_position_embeddings": cfg.positions,
         "eos_token_id": cfg.eos}, dtype, "cpu", comfy.ops.manual_cast)
    emb = m.text_model.embeddings.token_embedding
    emb.weight = torch.nn.Parameter(emb.weight.new_zeros(cfg.vocab, cfg.width))
    m.load_state_dict({k: v.to(dtype) for k, v in sd.items()}, strict=False)
    _, hidden, projected, pooled = m(tokens.long(), intermediate_output=layer, final_layer_norm_intermediate=final_norm)
    return finish(hidden, pooled, projected if cfg.projected else None)


def sources(sd, cfg, tokens, comfyui, **how):
    r = {"transformers": by_transformers(sd, cfg, tokens, **how), "plain": plain(sd, cfg, tokens, **how)}
    if comfyui:
        r["comfyui"] = by_comfyui(sd, cfg, tokens, **how)
    return r
