# SPDX-License-Identifier: Apache-2.0
"""Flux.1 denoisers with random weights in the BFL key layout, and their outputs from three sources:
diffusers' FluxTransformer2DModel (keys converted), a plain float64 derivation written from the paper
and the key layout, and, where a ComfyUI checkout is given, ComfyUI's own module.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from case import Random


@dataclass
class Config:
    hidden: int = 64
    head_dim: int = 32
    depth: int = 2
    single: int = 3
    context: int = 40
    vec: int = 24
    guidance: bool = True
    channels: int = 16

    @property
    def heads(self):
        return self.hidden // self.head_dim

    @property
    def axes(self):
        h = self.head_dim
        return [h // 8, 7 * h // 16, 7 * h // 16]


def weights(cfg, seed):
    """Random weights. The first normalisations see small inputs (variance near 1e-4) and small queries
    and keys, so that a wrong epsilon shows; gates and modulations are far from zero."""
    r, sd, h = Random(seed), {}, cfg.hidden
    r.linear(sd, "img_in", h, cfg.channels * 4, gain=0.01)
    r.linear(sd, "txt_in", h, cfg.context, gain=0.01)
    for e, n in (("time_in", 256), ("vector_in", cfg.vec), ("guidance_in", 256)):
        if e != "guidance_in" or cfg.guidance:
            r.linear(sd, e + ".in_layer", h, n, gain=1.5)
            r.linear(sd, e + ".out_layer", h, h, gain=1.5)
    for i in range(cfg.depth):
        for s in ("img", "txt"):
            p = f"double_blocks.{i}.{s}_"
            r.linear(sd, p + "mod.lin", 6 * h, h)
            r.linear(sd, p + "attn.qkv", 3 * h, h)
            if i == 0:
                sd[p + "attn.qkv.weight"][:2 * h] *= 0.01
                sd[p + "attn.qkv.bias"][:2 * h] *= 0.01
            for n in ("query", "key"):
                key = f"{p}attn.norm.{n}_norm.scale"
                sd[key] = r.normal(key, (cfg.head_dim,), 0.3, 1.2)
            r.linear(sd, p + "attn.proj", h, h, gain=1.5)
            r.linear(sd, p + "mlp.0", 4 * h, h)
            r.linear(sd, p + "mlp.2", h, 4 * h, gain=1.5)
    for i in range(cfg.single):
        p = f"single_blocks.{i}."
        r.linear(sd, p + "modulation.lin", 3 * h, h)
        r.linear(sd, p + "linear1", 7 * h, h)
        r.linear(sd, p + "linear2", h, 5 * h, gain=1.5)
        for n in ("query", "key"):
            key = f"{p}norm.{n}_norm.scale"
            sd[key] = r.normal(key, (cfg.head_dim,), 0.3, 1.2)
    r.linear(sd, "final_layer.adaLN_modulation.1", 2 * h, h)
    r.linear(sd, "final_layer.linear", cfg.channels * 4, h)
    return {k: v.float() for k, v in sd.items()}


def inputs(cfg, seed, batch, height, width, tokens, sigma, guidance):
    r = Random(seed)
    x = {
        "x": r.normal("x", (batch, cfg.channels, height, width)),
        "timestep": torch.tensor(sigma),
        "context": r.normal("context", (batch, tokens, cfg.context)),
        "y": r.normal("y", (batch, cfg.vec)),
    }
    if cfg.guidance:
        x["guidance"] = torch.tensor(guidance)
    return {k: v.float() for k, v in x.items()}


# ------------------------------------------------------------------ shared geometry

def to_tokens(x):
    """[B,C,H,W] -> [B,H/2*W/2,C*4], channel slowest; odd sides wrap around (circular padding)."""
    b, c, h, w = x.shape
    x = torch.cat([x, x[:, :, :1]], 2) if h % 2 else x
    x = torch.cat([x, x[:, :, :, :1]], 3) if w % 2 else x
    h2, w2 = x.shape[2] // 2, x.shape[3] // 2
    x = x.reshape(b, c, h2, 2, w2, 2).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(b, h2 * w2, c * 4), h2, w2


def to_image(t, c, h2, w2, h, w):
    b = t.shape[0]
    x = t.reshape(b, h2, w2, c, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(b, c, h2 * 2, w2 * 2)[:, :, :h, :w]


def position_ids(tokens, h2, w2):
    """[T+N,3]: text at (0,0,0), image at (0,row,column)."""
    ids = torch.zeros(tokens + h2 * w2, 3)
    grid = torch.arange(h2 * w2)
    ids[tokens:, 1] = (grid // w2).float()
    ids[tokens:, 2] = (grid % w2).float()
    return ids


# ------------------------------------------------------------------ source 1: plain derivation

def sinusoid(t):
    """Time embedding of 256: cosines first; frequencies and angles are float32 as in every source."""
    freqs = torch.exp(-math.log(10000.0) * torch.arange(128, dtype=torch.float32) / 128)
    a = (1000.0 * t.float())[:, None] * freqs[None]
    return torch.cat([a.cos(), a.sin()], -1)


class Plain:
    """The forward pass in float64, written for reading. eps, text_first and act are knobs for mutation tests."""

    def __init__(self, sd, cfg, dtype=torch.float64, eps=1e-6):
        self.w = {k: v.to(dtype) for k, v in sd.items()}
        self.cfg, self.dtype, self.eps = cfg, dtype, eps

    def lin(self, name, x):
        return F.linear(x, self.w[name + ".weight"], self.w[name + ".bias"])

    def embed(self, name, x):
        return self.lin(name + ".out_layer", F.silu(self.lin(name + ".in_layer", x)))

    def ln(self, x):
        m = x.mean(-1, keepdim=True)
        v = (x - m).pow(2).mean(-1, keepdim=True)
        return (x - m) / torch.sqrt(v + self.eps)

    def rms(self, x, scale):
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * scale

    def mod(self, name, vec, n):
        return self.lin(name, F.silu(vec))[:, None].chunk(n, -1)

    def rope_angles(self, ids):
        parts = []
        for axis, dim in enumerate(self.cfg.axes):
            omega = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
            parts.append(ids[:, axis:axis + 1].double() * omega)
        return torch.cat(parts, -1)

    def rotate(self, x, angle):
        """Neighbouring channels (2j, 2j+1) form the pair that is rotated."""
        c, s = angle.cos().to(self.dtype), angle.sin().to(self.dtype)
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * c - b * s, a * s + b * c], -1).flatten(-2)

    def heads(self, qkv, norm):
        b, n, _ = qkv.shape
        q, k, v = qkv.reshape(b, n, 3, self.cfg.heads, self.cfg.head_dim).permute(2, 0, 3, 1, 4)
        return self.rms(q, self.w[norm + ".query_norm.scale"]), self.rms(k, self.w[norm + ".key_norm.scale"]), v

    def attend(self, q, k, v, angle):
        q, k = self.rotate(q, angle), self.rotate(k, angle)
        p = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(self.cfg.head_dim), -1)
        return (p @ v).transpose(1, 2).flatten(-2)

    def double(self, i, img, txt, vec, angle):
        p, state = f"double_blocks.{i}.", {}
        for s, x in (("txt", txt), ("img", img)):
            m = self.mod(f"{p}{s}_mod.lin", vec, 6)
            h = self.ln(x) * (1 + m[1]) + m[0]
            state[s] = (m, self.heads(self.lin(f"{p}{s}_attn.qkv", h), f"{p}{s}_attn.norm"))
        q, k, v = (torch.cat([state["txt"][1][j], state["img"][1][j]], 2) for j in range(3))
        att = self.attend(q, k, v, angle)
        out = []
        for s, x, a in (("img", img, att[:, txt.shape[1]:]), ("txt", txt, att[:, :txt.shape[1]])):
            m = state[s][0]
            x = x + m[2] * self.lin(f"{p}{s}_attn.proj", a)
            h = self.lin(f"{p}{s}_mlp.0", self.ln(x) * (1 + m[4]) + m[3])
            out.append(x + m[5] * self.lin(f"{p}{s}_mlp.2", F.gelu(h, approximate="tanh")))
        return out

    def single(self, i, x, vec, angle):
        p, h = f"single_blocks.{i}.", self.cfg.hidden
        m = self.mod(p + "modulation.lin", vec, 3)
        y = self.lin(p + "linear1", self.ln(x) * (1 + m[1]) + m[0])
        q, k, v = self.heads(y[..., :3 * h], p + "norm")
        y = torch.cat([self.attend(q, k, v, angle), F.gelu(y[..., 3 * h:], approximate="tanh")], -1)
        return x + m[2] * self.lin(p + "linear2", y)

    def __call__(self, x, timestep, context, y, guidance=None):
        c = self.cfg
        t, h2, w2 = to_tokens(x.to(self.dtype))
        angle = self.rope_angles(position_ids(context.shape[1], h2, w2))
        img, txt = self.lin("img_in", t), self.lin("txt_in", context.to(self.dtype))
        vec = self.embed("time_in", sinusoid(timestep).to(self.dtype)) + self.embed("vector_in", y.to(self.dtype))
        if c.guidance:
            vec = vec + self.embed("guidance_in", sinusoid(guidance).to(self.dtype))
        for i in range(c.depth):
            img, txt = self.double(i, img, txt, vec, angle)
        z = torch.cat([txt, img], 1)
        for i in range(c.single):
            z = self.single(i, z, vec, angle)
        z = z[:, txt.shape[1]:]
        shift, scale = self.mod("final_layer.adaLN_modulation.1", vec, 2)
        z = self.lin("final_layer.linear", self.ln(z) * (1 + scale) + shift)
        return {"out": to_image(z, c.channels, h2, w2, x.shape[2], x.shape[3])}


def plain(sd, cfg, inp, dtype=torch.float64, **knobs):
    return Plain(sd, cfg, dtype, **knobs)(**inp)


# ------------------------------------------------------------------ source 2: diffusers

def to_diffusers(sd, cfg):
    """BFL keys -> diffusers keys: qkv is split, linear1 is split, the final (shift, scale) is swapped."""
    out, h = {}, cfg.hidden
    def move(src, dst, part=slice(None)):
        for e in ("weight", "bias"):
            out[f"{dst}.{e}"] = sd[f"{src}.{e}"][part]
    move("img_in", "x_embedder")
    move("txt_in", "context_embedder")
    for src, dst in (("time_in", "timestep_embedder"), ("vector_in", "text_embedder"), ("guidance_in", "guidance_embedder")):
        if src + ".in_layer.weight" in sd:
            move(src + ".in_layer", f"time_text_embed.{dst}.linear_1")
            move(src + ".out_layer", f"time_text_embed.{dst}.linear_2")
    for i in range(cfg.depth):
        p, q = f"double_blocks.{i}.", f"transformer_blocks.{i}."
        move(p + "img_mod.lin", q + "norm1.linear")
        move(p + "txt_mod.lin", q + "norm1_context.linear")
        for j, (a, b) in enumerate((("to_q", "add_q_proj"), ("to_k", "add_k_proj"), ("to_v", "add_v_proj"))):
            part = slice(j * h, (j + 1) * h)
            move(p + "img_attn.qkv", q + "attn." + a, part)
            move(p + "txt_attn.qkv", q + "attn." + b, part)
        for n, m in (("query", "q"), ("key", "k")):
            out[f"{q}attn.norm_{m}.weight"] = sd[f"{p}img_attn.norm.{n}_norm.scale"]
            out[f"{q}attn.norm_added_{m}.weight"] = sd[f"{p}txt_attn.norm.{n}_norm.scale"]
        move(p + "img_attn.proj", q + "attn.to_out.0")
        move(p + "txt_attn.proj", q + "attn.to_add_out")
        move(p + "img_mlp.0", q + "ff.net.0.proj")
        move(p + "img_mlp.2", q + "ff.net.2")
        move(p + "txt_mlp.0", q + "ff_context.net.0.proj")
        move(p + "txt_mlp.2", q + "ff_context.net.2")
    for i in range(cfg.single):
        p, q = f"single_blocks.{i}.", f"single_transformer_blocks.{i}."
        move(p + "modulation.lin", q + "norm.linear")
        for j, a in enumerate(("to_q", "to_k", "to_v")):
            move(p + "linear1", q + "attn." + a, slice(j * h, (j + 1) * h))
        move(p + "linear1", q + "proj_mlp", slice(3 * h, None))
        move(p + "linear2", q + "proj_out")
        for n, m in (("query", "q"), ("key", "k")):
            out[f"{q}attn.norm_{m}.weight"] = sd[f"{p}norm.{n}_norm.scale"]
    for e in ("weight", "bias"):
        shift, scale = sd[f"final_layer.adaLN_modulation.1.{e}"].chunk(2)
        out[f"norm_out.linear.{e}"] = torch.cat([scale, shift])
    move("final_layer.linear", "proj_out")
    return out


def by_diffusers(sd, cfg, inp, dtype=torch.float64):
    from diffusers import FluxTransformer2DModel
    with torch.device("meta"):
        m = FluxTransformer2DModel(
            patch_size=1, in_channels=cfg.channels * 4, num_layers=cfg.depth, num_single_layers=cfg.single,
            attention_head_dim=cfg.head_dim, num_attention_heads=cfg.heads, joint_attention_dim=cfg.context,
            pooled_projection_dim=cfg.vec, guidance_embeds=cfg.guidance, axes_dims_rope=tuple(cfg.axes))
    m.load_state_dict({k: v.to(dtype) for k, v in to_diffusers(sd, cfg).items()}, strict=True, assign=True)
    m.eval()
    x = inp["x"]
    t, h2, w2 = to_tokens(x.to(dtype))
    n = inp["context"].shape[1]
    ids = position_ids(n, h2, w2)
    with torch.no_grad():
        z = m(hidden_states=t, encoder_hidden_states=inp["context"].to(dtype), pooled_projections=inp["y"].to(dtype),
              timestep=inp["timestep"], guidance=inp.get("guidance"), txt_ids=ids[:n], img_ids=ids[n:],
              return_dict=False)[0]
    return {"out": to_image(z, cfg.channels, h2, w2, x.shape[2], x.shape[3])}


# ------------------------------------------------------------------ source 3: ComfyUI's module

def by_comfyui(sd, cfg, inp, dtype=torch.float32, control=None, mask=None):
    import comfy.ldm.flux.model as flux
    import comfy.ops
    m = flux.Flux(image_model="flux", in_channels=cfg.channels, out_channels=cfg.channels, vec_in_dim=cfg.vec,
                  context_in_dim=cfg.context, hidden_size=cfg.hidden, mlp_ratio=4.0, num_heads=cfg.heads,
                  depth=cfg.depth, depth_single_blocks=cfg.single, axes_dim=cfg.axes, theta=10000, patch_size=2,
                  qkv_bias=True, guidance_embed=cfg.guidance, dtype=dtype, device="cpu",
                  operations=comfy.ops.disable_weight_init)
    m.load_state_dict({k: v.to(dtype) for k, v in sd.items()}, strict=True)
    with torch.no_grad():
        out = m(inp["x"].to(dtype), inp["timestep"], inp["context"].to(dtype), inp["y"].to(dtype), inp.get("guidance"),
                control=control, attention_mask=mask)
    return {"out": out.float()}


def sources(sd, cfg, inp, comfyui):
    r = {"diffusers": by_diffusers(sd, cfg, inp), "plain": plain(sd, cfg, inp)}
    if comfyui:
        r["comfyui"] = by_comfyui(sd, cfg, inp)
    return r
