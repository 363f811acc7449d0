# SPDX-License-Identifier: Apache-2.0
"""KL autoencoders with random weights in the original (LDM/BFL) key layout, and their outputs from diffusers'
AutoencoderKL (keys converted), a plain derivation in float64, and ComfyUI's module."""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from case import Random


@dataclass
class Config:
    ch: int = 32
    mult: tuple = (1, 2)
    blocks: int = 2
    z: int = 16
    quant: bool = False           # quant_conv and post_quant_conv, as SD has; Flux has none


def weights(cfg, seed):
    """conv_in of both halves is small, so that GroupNorm's epsilon of 1e-6 shows."""
    r, sd, top = Random(seed), {}, len(cfg.mult) - 1

    def res(p, i, o):
        r.norm(sd, p + ".norm1", i)
        r.conv(sd, p + ".conv1", o, i, 3, gain=1.4)
        r.norm(sd, p + ".norm2", o)
        r.conv(sd, p + ".conv2", o, o, 3, gain=1.4)
        if i != o:
            r.conv(sd, p + ".nin_shortcut", o, i, 1)

    def mid(p, c):
        res(p + ".block_1", c, c)
        r.norm(sd, p + ".attn_1.norm", c)
        for n, g in (("q", 1.5), ("k", 1.5), ("v", 1.5), ("proj_out", 1.5)):
            r.conv(sd, f"{p}.attn_1.{n}", c, c, 1, gain=g)
        res(p + ".block_2", c, c)

    r.conv(sd, "encoder.conv_in", cfg.ch, 3, 3, gain=0.01)
    c = cfg.ch
    for i, m in enumerate(cfg.mult):
        for j in range(cfg.blocks):
            res(f"encoder.down.{i}.block.{j}", c, cfg.ch * m)
            c = cfg.ch * m
        if i != top:
            r.conv(sd, f"encoder.down.{i}.downsample.conv", c, c, 3)
    mid("encoder.mid", c)
    r.norm(sd, "encoder.norm_out", c)
    r.conv(sd, "encoder.conv_out", 2 * cfg.z, c, 3, gain=1.5)
    if cfg.quant:
        r.conv(sd, "quant_conv", 2 * cfg.z, 2 * cfg.z, 1)
        r.conv(sd, "post_quant_conv", cfg.z, cfg.z, 1)
    r.conv(sd, "decoder.conv_in", c, cfg.z, 3, gain=0.01)
    mid("decoder.mid", c)
    for i in range(top, -1, -1):
        for j in range(cfg.blocks + 1):
            res(f"decoder.up.{i}.block.{j}", c, cfg.ch * cfg.mult[i])
            c = cfg.ch * cfg.mult[i]
        if i:
            r.conv(sd, f"decoder.up.{i}.upsample.conv", c, c, 3)
    r.norm(sd, "decoder.norm_out", c)
    r.conv(sd, "decoder.conv_out", 3, c, 3)
    return {k: v.float() for k, v in sd.items()}


def image(batch, height, width, seed):
    """Pixels in [-1,1]."""
    return Random(seed).normal("image", (batch, 3, height, width), 0.6).clamp(-1, 1).float()


def latent(cfg, batch, height, width, seed):
    return Random(seed).normal("latent", (batch, cfg.z, height, width)).float()


# ------------------------------------------------------------------ source 1: plain derivation

class Plain:
    def __init__(self, sd, cfg, dtype=torch.float64, eps=1e-6):
        self.w = {k: v.to(dtype) for k, v in sd.items()}
        self.cfg, self.dtype, self.eps = cfg, dtype, eps

    def conv(self, name, x, **kw):
        return F.conv2d(x, self.w[name + ".weight"], self.w[name + ".bias"], **kw)

    def norm(self, name, x):
        b, c, h, w = x.shape
        g = x.reshape(b, 32, -1)
        m = g.mean(-1, keepdim=True)
        v = (g - m).pow(2).mean(-1, keepdim=True)
        x = ((g - m) / torch.sqrt(v + self.eps)).reshape(b, c, h, w)
        return x * self.w[name + ".weight"][:, None, None] + self.w[name + ".bias"][:, None, None]

    def res(self, p, x):
        h = self.conv(p + ".conv1", F.silu(self.norm(p + ".norm1", x)), padding=1)
        h = self.conv(p + ".conv2", F.silu(self.norm(p + ".norm2", h)), padding=1)
        if p + ".nin_shortcut.weight" in self.w:
            x = self.conv(p + ".nin_shortcut", x)
        return x + h

    def mid(self, p, x):
        x = self.res(p + ".block_1", x)
        b, c, h, w = x.shape
        n = self.norm(p + ".attn_1.norm", x)
        q, k, v = (self.conv(f"{p}.attn_1.{i}", n).reshape(b, c, h * w) for i in "qkv")
        a = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(c), -1)
        x = x + self.conv(p + ".attn_1.proj_out", (v @ a.transpose(1, 2)).reshape(b, c, h, w))
        return self.res(p + ".block_2", x)

    def encode(self, x):
        h = self.conv("encoder.conv_in", x.to(self.dtype), padding=1)
        for i in range(len(self.cfg.mult)):
            for j in range(self.cfg.blocks):
                h = self.res(f"encoder.down.{i}.block.{j}", h)
            if i + 1 < len(self.cfg.mult):
                h = F.pad(h, (0, 1, 0, 1))            # one zero column right, one zero row below
                h = self.conv(f"encoder.down.{i}.downsample.conv", h, stride=2)
        h = self.mid("encoder.mid", h)
        h = self.conv("encoder.conv_out", F.silu(self.norm("encoder.norm_out", h)), padding=1)
        if self.cfg.quant:
            h = self.conv("quant_conv", h)
        return h[:, :self.cfg.z]                      # mean; the other half is log variance

    def decode(self, z):
        z = z.to(self.dtype)
        if self.cfg.quant:
            z = self.conv("post_quant_conv", z)
        h = self.mid("decoder.mid", self.conv("decoder.conv_in", z, padding=1))
        for i in range(len(self.cfg.mult) - 1, -1, -1):
            for j in range(self.cfg.blocks + 1):
                h = self.res(f"decoder.up.{i}.block.{j}", h)
            if i:
                h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
                h = self.conv(f"decoder.up.{i}.upsample.conv", h, padding=1)
        return self.conv("decoder.conv_out", F.silu(self.norm("decoder.norm_out", h)), padding=1)


def plain(sd, cfg, what, x, **knobs):
    return {"out": getattr(Plain(sd, cfg, **knobs), what)(x)}


# ------------------------------------------------------------------ source 2: diffusers

def to_diffusers(sd, cfg):
    """LDM keys -> diffusers keys: up levels count from the other end, attention is linear instead of 1x1 conv."""
    top, out = len(cfg.mult) - 1, {}
    for k, v in sd.items():
        p = k.split(".")
        if p[0] in ("encoder", "decoder"):
            if p[1] in ("down", "up"):
                level = int(p[2]) if p[1] == "down" else top - int(p[2])
                if p[3] == "block":
                    p[1:5] = [p[1] + "_blocks", str(level), "resnets", p[4]]
                else:
                    p[1:4] = [p[1] + "_blocks", str(level), p[3] + "rs.0"]   # downsamplers, upsamplers
            elif p[1] == "mid":
                if p[2] == "attn_1":
                    names = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
                    p[1:4] = ["mid_block", "attentions", "0", names[p[3]]]
                    v = v.flatten(1) if v.ndim == 4 else v
                else:
                    p[1:3] = ["mid_block", "resnets", str(int(p[2][-1]) - 1)]
            elif p[1] == "norm_out":
                p[1] = "conv_norm_out"
        out[".".join(p).replace("nin_shortcut", "conv_shortcut")] = v
    return out


def by_diffusers(sd, cfg, what, x, dtype=torch.float64):
    from diffusers import AutoencoderKL
    n = len(cfg.mult)
    with torch.device("meta"):
        m = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n,
            block_out_channels=tuple(cfg.ch * i for i in cfg.mult), layers_per_block=cfg.blocks,
            latent_channels=cfg.z, norm_num_groups=32, use_quant_conv=cfg.quant, use_post_quant_conv=cfg.quant)
    m.load_state_dict({k: v.to(dtype) for k, v in to_diffusers(sd, cfg).items()}, strict=True, assign=True)
    m.eval()
    x = x.to(dtype)
    return {"out": m.encode(x).latent_dist.mean if what == "encode" else m.decode(x).sample}


# ------------------------------------------------------------------ source 3: ComfyUI's module

def by_comfyui(sd, cfg, what, x, dtype=torch.float32):
    from comfy.ldm.models.autoencoder import AutoencoderKL, AutoencodingEngine
    dd = {"double_z": True, "z_channels": cfg.z, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": cfg.ch,
          "ch_mult": list(cfg.mult), "num_res_blocks": cfg.blocks, "attn_resolutions": [], "dropout": 0.0}
    part = "comfy.ldm.modules.diffusionmodules.model."
    if cfg.quant:
        m = AutoencoderKL(ddconfig=dd, embed_dim=cfg.z)
    else:
        m = AutoencodingEngine(
            regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
            encoder_config={"target": part + "Encoder", "params": dd},
            decoder_config={"target": part + "Decoder", "params": dd})
    m.load_state_dict({k: v.to(dtype) for k, v in sd.items()}, strict=True)
    return {"out": getattr(m.to(dtype).eval(), what)(x.to(dtype)).float()}


def sources(sd, cfg, what, x, comfyui):
    r = {"diffusers": by_diffusers(sd, cfg, what, x), "plain": plain(sd, cfg, what, x)}
    if comfyui:
        r["comfyui"] = by_comfyui(sd, cfg, what, x)
    return r
