# SPDX-License-Identifier: Apache-2.0
"""T5 v1.1 encoders with random weights in the real key layout, and their outputs from transformers, a plain
float64 derivation, and ComfyUI's module."""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from case import Random


@dataclass
class Config:
    width: int = 64
    layers: int = 2
    heads: int = 4
    d_kv: int = 16
    ff: int = 128
    vocab: int = 256


def weights(cfg, seed):
    """Embeddings have std 0.01, so that the RMS norm's epsilon of 1e-6 shows. Attention is not scaled by
    1/sqrt(d), so q and k are kept small; the position bias is large enough to matter."""
    r, sd, inner = Random(seed), {}, cfg.heads * cfg.d_kv
    sd["shared.weight"] = r.normal("shared.weight", (cfg.vocab, cfg.width), 0.01)
    sd["encoder.embed_tokens.weight"] = sd["shared.weight"].clone()
    soft = cfg.d_kv ** -0.25
    for i in range(cfg.layers):
        p = f"encoder.block.{i}.layer."
        for n in ("q", "k"):
            r.linear(sd, f"{p}0.SelfAttention.{n}", inner, cfg.width, bias=False, gain=soft)
        r.linear(sd, p + "0.SelfAttention.v", inner, cfg.width, bias=False)
        r.linear(sd, p + "0.SelfAttention.o", cfg.width, inner, bias=False, gain=1.5)
        if i == 0:
            key = p + "0.SelfAttention.relative_attention_bias.weight"
            sd[key] = r.normal(key, (32, cfg.heads), 1.0)
        r.norm(sd, p + "0.layer_norm", cfg.width, bias=False)
        r.linear(sd, p + "1.DenseReluDense.wi_0", cfg.ff, cfg.width, bias=False, gain=1.3)
        r.linear(sd, p + "1.DenseReluDense.wi_1", cfg.ff, cfg.width, bias=False)
        r.linear(sd, p + "1.DenseReluDense.wo", cfg.width, cfg.ff, bias=False, gain=1.5)
        r.norm(sd, p + "1.layer_norm", cfg.width, bias=False)
    r.norm(sd, "encoder.final_layer_norm", cfg.width, bias=False)
    return {k: v.float() for k, v in sd.items()}


def prompt(cfg, words, length, seed):
    """[1,length]: words, EOS (id 1), then padding (id 0), which is attended to."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, cfg.vocab, (words,), generator=g).tolist()
    return torch.tensor([ids + [1] + [0] * (length - words - 1)], dtype=torch.int32)


def bucket(d):
    """Bucket of a distance key - query: 16 for each direction, 8 exact, 8 logarithmic up to 128."""
    n, side = abs(d), 16 if d > 0 else 0
    if n < 8:
        return side + n
    return side + min(15, 8 + int(math.log(n / 8) / math.log(128 / 8) * 8 + 1e-9))


def plain(sd, cfg, tokens, dtype=torch.float64, eps=1e-6):
    w = {k.removeprefix("encoder."): v.to(dtype) for k, v in sd.items()}

    def rms(name, x):
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps) * w[name + ".weight"]

    tokens = tokens.long()
    b, t = tokens.shape
    x = w["shared.weight"][tokens]
    table = torch.tensor([[bucket(k - q) for k in range(t)] for q in range(t)])
    bias = w["block.0.layer.0.SelfAttention.relative_attention_bias.weight"][table].permute(2, 0, 1)
    for i in range(cfg.layers):
        p = f"block.{i}.layer."
        h = rms(p + "0.layer_norm", x)
        q, k, v = (F.linear(h, w[f"{p}0.SelfAttention.{n}.weight"]).reshape(b, t, cfg.heads, -1).transpose(1, 2)
                   for n in "qkv")
        a = torch.softmax(q @ k.transpose(-1, -2) + bias, -1) @ v
        x = x + F.linear(a.transpose(1, 2).flatten(-2), w[p + "0.SelfAttention.o.weight"])
        h, p = rms(p + "1.layer_norm", x), p + "1.DenseReluDense."
        h = F.gelu(F.linear(h, w[p + "wi_0.weight"]), approximate="tanh") * F.linear(h, w[p + "wi_1.weight"])
        x = x + F.linear(h, w[p + "wo.weight"])
    return {"hidden": rms("final_layer_norm", x)}


def by_transformers(sd, cfg, tokens, dtype=torch.float64):
    from transformers import T5Config, T5EncoderModel
    with torch.device("meta"):
        m = T5EncoderModel(T5Config(
            vocab_size=cfg.vocab, d_model=cfg.width, d_kv=cfg.d_kv, d_ff=cfg.ff, num_layers=cfg.layers,
            num_heads=cfg.heads, feed_forward_proj="gated-gelu", relative_attention_num_buckets=32,
            relative_attention_max_distance=128, layer_norm_epsilon=1e-6, is_encoder_decoder=False, use_cache=False))
    m.load_state_dict({k: v.to(dtype) for k, v in sd.items()}, strict=True, assign=True)
    return {"hidden": m.eval()(tokens.long()).last_hidden_state}


def by_comfyui(sd, cfg, tokens, dtype=torch.float32):
    import comfy.ops
    import comfy.text_encoders.t5 as t5
    m = t5.T5({"num_layers": cfg.layers, "d_model": cfg.width, "d_kv": cfg.d_kv, "num_heads": cfg.heads,
               "d_ff": cfg.ff, "dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True, "model_type": "t5",
               "vocab_size": cfg.vocab}, dtype, "cpu", comfy.ops.manual_cast)
    m.load_state_dict({k: v.to(dtype) for k, v in sd.items()}, strict=False)
    return {"hidden": m(tokens.long(), None)[0]}


def sources(sd, cfg, tokens, comfyui):
    r = {"transformers": by_transformers(sd, cfg, tokens), "plain": plain(sd, cfg, tokens)}
    if comfyui:
        r["comfyui"] = by_comfyui(sd, cfg, tokens)
    return r
