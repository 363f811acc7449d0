# SPDX-License-Identifier: Apache-2.0
"""Latent-diffusion UNets (Stable Diffusion 1, 2, XL and its relatives) with random weights in the original key
layout (input_blocks, middle_block, output_blocks), the same in the layout of diffusers, and their outputs from
diffusers' UNet2DConditionModel and ComfyUI's UNetModel, whose sizes come from ComfyUI's own detection."""
import math
from dataclasses import dataclass

import torch

from case import Random


@dataclass
class Config:
    """As comfy.model_detection names them; `depth` and `depth_out` are flat lists, one entry per residual block."""
    channels: int = 32                      # model_channels
    mult: tuple = (1, 1)
    res: tuple = (2, 2)                     # residual blocks per level
    depth: tuple = (1, 1, 0, 0)             # transformer blocks, input half
    middle: int = 1                         # -1: one residual block alone, -2: no middle at all
    depth_out: tuple = (1, 1, 1, 0, 0, 0)   # output half, in the order of level 0 first (ComfyUI pops it)
    context: int = 24
    linear: bool = False                    # SD2 and SDXL: linear proj_in, heads of 64; SD1: 1x1 convolutions, 8 heads
    adm: int = 0                            # width of y, 0: none
    extra_in: int = 0                       # channels behind the latent: 5 for inpainting, 4 for instruct-pix2pix
    latent: int = 4
    full: bool = False                      # published widths

    def heads(self, width):
        return width // 64 if self.linear else 8


def layout(cfg):
    """The blocks of both halves: (kind, key of the block, input width, output width, transformer depth, extra).
    extra: for output blocks True when an upsampler follows."""
    inputs, outputs, skips = [("conv", "input_blocks.0", cfg.latent + cfg.extra_in, cfg.channels, 0, None)], [], [cfg.channels]
    ch, depth, n = cfg.channels, list(cfg.depth), 1
    for level, m in enumerate(cfg.mult):
        for _ in range(cfg.res[level]):
            inputs.append(("res", f"input_blocks.{n}", ch, m * cfg.channels, depth.pop(0), None))
            ch = m * cfg.channels
            skips.append(ch)
            n += 1
        if level + 1 < len(cfg.mult):
            inputs.append(("down", f"input_blocks.{n}", ch, ch, 0, None))
            skips.append(ch)
            n += 1
    middle, depth, n = ch, list(cfg.depth_out), 0
    for level, m in reversed(list(enumerate(cfg.mult))):
        for i in range(cfg.res[level] + 1):
            up = level > 0 and i == cfg.res[level]
            outputs.append(("res", f"output_blocks.{n}", ch + skips.pop(), m * cfg.channels, depth.pop(), up))
            ch = m * cfg.channels
            n += 1
    return inputs, middle, outputs


def res_weights(r, sd, p, inp, out, emb):
    r.norm(sd, p + ".in_layers.0", inp)
    r.conv(sd, p + ".in_layers.2", out, inp, 3, gain=1.3)
    r.linear(sd, p + ".emb_layers.1", out, emb, gain=0.8)
    r.norm(sd, p + ".out_layers.0", out)
    r.conv(sd, p + ".out_layers.3", out, out, 3)
    if inp != out:
        r.conv(sd, p + ".skip_connection", out, inp, 1)


def transformer_weights(r, sd, p, d, depth, cfg):
    r.norm(sd, p + ".norm", d)
    for n in ("proj_in", "proj_out"):
        r.linear(sd, f"{p}.{n}", d, d) if cfg.linear else r.conv(sd, f"{p}.{n}", d, d, 1)
    for i in range(depth):
        q = f"{p}.transformer_blocks.{i}"
        for a, width in (("attn1", d), ("attn2", cfg.context)):
            r.linear(sd, f"{q}.{a}.to_q", d, d, bias=False, gain=1.6)
            r.linear(sd, f"{q}.{a}.to_k", d, width, bias=False, gain=1.6)
            r.linear(sd, f"{q}.{a}.to_v", d, width, bias=False, gain=1.3)
            r.linear(sd, f"{q}.{a}.to_out.0", d, d)
        r.linear(sd, f"{q}.ff.net.0.proj", 8 * d, d)
        r.linear(sd, f"{q}.ff.net.2", d, 4 * d)
        for n in ("norm1", "norm2", "norm3"):
            r.norm(sd, f"{q}.{n}", d)


class Stored(dict):
    """Tensors in `dtype` from the moment they are made: a full network in float64 would not fit."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def __setitem__(self, key, value):
        super().__setitem__(key, value.to(self.dtype))


def weights(cfg, seed, dtype=torch.float32):
    r, sd, emb = Random(seed), Stored(torch.float64 if dtype == torch.float32 else dtype), 4 * cfg.channels
    inputs, middle, outputs = layout(cfg)
    r.linear(sd, "time_embed.0", emb, cfg.channels)
    r.linear(sd, "time_embed.2", emb, emb)
    if cfg.adm:
        r.linear(sd, "label_emb.0.0", emb, cfg.adm)
        r.linear(sd, "label_emb.0.2", emb, emb)
    for kind, p, inp, out, depth, up in inputs + outputs:
        if kind == "conv":
            r.conv(sd, p + ".0", out, inp, 3)
        elif kind == "down":
            r.conv(sd, p + ".0.op", out, inp, 3)
        else:
            res_weights(r, sd, p + ".0", inp, out, emb)
            if depth:
                transformer_weights(r, sd, p + ".1", out, depth, cfg)
            if up:
                r.conv(sd, f"{p}.{2 if depth else 1}.conv", out, out, 3)
    if cfg.middle >= -1:
        res_weights(r, sd, "middle_block.0", middle, middle, emb)
    if cfg.middle >= 0:
        transformer_weights(r, sd, "middle_block.1", middle, cfg.middle, cfg)
        res_weights(r, sd, "middle_block.2", middle, middle, emb)
    r.norm(sd, "out.0", cfg.channels)
    r.conv(sd, "out.2", cfg.latent, cfg.channels, 3)
    quiet = [] if cfg.full else ["input_blocks.0.0"]
    if not cfg.full:    # the first of each kind of norm sees small numbers, so that its epsilon shows
        first = next(p for kind, p, _, _, depth, _ in inputs if depth)
        quiet += [first + ".0.out_layers.3", first + ".0.skip_connection", first + ".1.proj_in"]
    for k in sd:
        if k.rsplit(".", 1)[0] in quiet:
            sd[k] *= 0.02
    return {k: v.to(dtype) for k, v in sd.items()}


RES = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
       "out_layers.3": "conv2", "skip_connection": "conv_shortcut"}


def module_names(cfg, label):
    """Original module name -> diffusers' (residual blocks, transformers and samplers as prefixes). `label` is
    diffusers' word for label_emb: add_embedding for SDXL, class_embedding elsewhere."""
    m = {"input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
         "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
         "label_emb.0.0": label + ".linear_1", "label_emb.0.2": label + ".linear_2",
         "middle_block.0": "mid_block.resnets.0", "middle_block.1": "mid_block.attentions.0",
         "middle_block.2": "mid_block.resnets.1"}
    n = 1
    for level, count in enumerate(cfg.res):
        for i in range(count):
            m[f"input_blocks.{n}.0"] = f"down_blocks.{level}.resnets.{i}"
            m[f"input_blocks.{n}.1"] = f"down_blocks.{level}.attentions.{i}"
            n += 1
        m[f"input_blocks.{n}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
        n += 1
    n, depth = 0, list(cfg.depth_out)
    for level, count in enumerate(reversed(cfg.res)):
        for i in range(count + 1):
            m[f"output_blocks.{n}.0"] = f"up_blocks.{level}.resnets.{i}"
            if depth.pop():
                m[f"output_blocks.{n}.1"] = f"up_blocks.{level}.attentions.{i}"
                m[f"output_blocks.{n}.2"] = f"up_blocks.{level}.upsamplers.0"
            else:
                m[f"output_blocks.{n}.1"] = f"up_blocks.{level}.upsamplers.0"
            n += 1
    return m


def to_diffusers(sd, cfg, label="class_embedding"):
    m, out = module_names(cfg, label), {}
    for key, v in sd.items():
        parts = key.split(".")
        cut = max(i for i in range(len(parts)) if ".".join(parts[:i]) in m)
        head, tail = ".".join(parts[:cut]), ".".join(parts[cut:])
        for a, b in RES.items():
            if ".resnets." in m[head] and tail.startswith(a + "."):
                tail = b + tail[len(a):]
        out[f"{m[head]}.{tail}"] = v
    return out


def diffusers_net(cfg, dtype=torch.float64):
    from diffusers import UNet2DConditionModel
    widths = [m * cfg.channels for m in cfg.mult]
    rows, depth = [], list(cfg.depth)
    for n in cfg.res:
        rows.append([depth.pop(0) for _ in range(n)])
    down = [r[0] for r in rows]
    up, depth = [], list(cfg.depth_out)
    for n in reversed(cfg.res):
        up.append([depth.pop() for _ in range(n + 1)])
    # The middle takes its depth from the last level's row, which a level without transformers does not use.
    rows = [[d or max(cfg.middle, 1) for d in r] for r in rows]
    return UNet2DConditionModel(
        in_channels=cfg.latent + cfg.extra_in, out_channels=cfg.latent, block_out_channels=widths,
        layers_per_block=list(cfg.res), cross_attention_dim=cfg.context, use_linear_projection=cfg.linear,
        down_block_types=["CrossAttnDownBlock2D" if r else "DownBlock2D" for r in down],
        up_block_types=["CrossAttnUpBlock2D" if r[0] else "UpBlock2D" for r in up],
        mid_block_type={-1: "UNetMidBlock2D", -2: None}.get(cfg.middle, "UNetMidBlock2DCrossAttn"),
        transformer_layers_per_block=[r[0] if len(set(r)) == 1 else r for r in rows],
        reverse_transformer_layers_per_block=[[d or 1 for d in r] for r in up],
        attention_head_dim=[cfg.heads(w) for w in widths],
        class_embed_type="projection" if cfg.adm else None,
        projection_class_embeddings_input_dim=cfg.adm or None).to(dtype).eval()


def by_diffusers(sd, cfg, inp, dtype=torch.float64, net=None):
    net = net or diffusers_net(cfg, dtype)
    net.load_state_dict({k: v.to(dtype) for k, v in to_diffusers(sd, cfg).items()})
    x = inp["x"] if "concat" not in inp else torch.cat([inp["x"], inp["concat"]], 1)
    y = inp["y"].to(dtype) if cfg.adm else None
    return {"out": net(x.to(dtype), inp["timestep"], inp["context"].to(dtype), class_labels=y).sample}


def comfy_config(sd, prefix=""):
    """ComfyUI's own reading of the file; what it looks up by the published widths is added for other widths."""
    import comfy.model_detection
    import comfy.supported_models
    found = comfy.model_detection.model_config_from_unet(sd, prefix)
    if found:
        return {**found.unet_config, "dtype": None}
    c = comfy.model_detection.detect_unet_config(sd, prefix)
    kind = comfy.supported_models.SD20 if c["use_linear_in_transformer"] else comfy.supported_models.SD15
    return {**c, "num_heads": -1, "num_head_channels": -1, **kind.unet_extra_config}


def comfy_net(sd, cfg, dtype=torch.float32):
    import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
    import comfy.ops
    c = comfy_config(sd)
    same = {"num_res_blocks": list(cfg.res), "channel_mult": list(cfg.mult), "transformer_depth": list(cfg.depth),
            "transformer_depth_output": list(cfg.depth_out), "transformer_depth_middle": cfg.middle,
            "in_channels": cfg.latent + cfg.extra_in, "model_channels": cfg.channels, "context_dim": cfg.context,
            "use_linear_in_transformer": cfg.linear, "adm_in_channels": cfg.adm or None}
    for k, v in same.items():
        assert c[k] == v, f"detection: {k} is {c[k]}, the file was made with {v}"
    # Weights stay as small as they are; manual_cast computes in the dtype of x.
    c.update(dtype=torch.float16 if cfg.full else dtype, device="cpu", operations=comfy.ops.manual_cast)
    net = openaimodel.UNetModel(**c).eval()
    net.load_state_dict({k: v.to(c["dtype"]) for k, v in sd.items()})
    return net


def by_comfyui(sd, cfg, inp, dtype=torch.float32, options=None, control=None):
    net = comfy_net(sd, cfg, dtype)
    x = inp["x"] if "concat" not in inp else torch.cat([inp["x"], inp["concat"]], 1)
    y = inp["y"].to(dtype) if cfg.adm else None
    return {"out": net(x.to(dtype), inp["timestep"].float(), context=inp["context"].to(dtype), y=y,
                       control=control, transformer_options=options or {})}


def sources(sd, cfg, inp, comfyui):
    r = {"diffusers": by_diffusers(sd, cfg, inp)}
    if comfyui:
        r["comfyui"] = by_comfyui(sd, cfg, inp)
    return r


def inputs(cfg, seed, b, h, w, text, timestep):
    g = torch.Generator().manual_seed(seed)
    d = {"x": torch.randn(b, cfg.latent, h, w, generator=g), "timestep": torch.tensor(timestep),
         "context": torch.randn(b, text, cfg.context, generator=g)}
    if cfg.extra_in:
        d["concat"] = torch.randn(b, cfg.extra_in, h, w, generator=g)
    if cfg.adm:
        d["y"] = torch.randn(b, cfg.adm, generator=g)
    return d


def count(cfg):
    return sum(math.prod(v.shape) for v in weights(cfg, 1).values())
