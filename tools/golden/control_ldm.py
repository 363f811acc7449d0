# SPDX-License-Identifier: Apache-2.0
"""ControlNets for Stable Diffusion with random weights in the original layout and in diffusers', and their
residuals from ComfyUI's module and from diffusers'. The hint's convolutions are narrower than the published
ones, whose 400,000 weights would be most of a case."""
import torch
from torch import nn

import unet
from case import Random

HINT = (8, 8, 12, 12, 16, 16, 24)                     # outputs of all convolutions but the last
STRIDES = (1, 1, 2, 1, 2, 1, 2, 1)


def weights(cfg, seed, hint=3):
    """The input half and the middle of a UNet, the hint's convolutions and the zero convolutions (here not zero)."""
    r = Random(seed + 3)
    sd = {k: v for k, v in unet.weights(cfg, seed).items() if not k.startswith(("output_blocks", "out."))}
    inputs, middle, _ = unet.layout(cfg)
    for i, (_, _, _, out, _, _) in enumerate(inputs):
        r.conv(sd, f"zero_convs.{i}.0", out, out, 1)
    r.conv(sd, "middle_block_out.0", middle, middle, 1)
    widths = (hint, *HINT, cfg.channels)
    for i in range(8):
        r.conv(sd, f"input_hint_block.{2 * i}", widths[i + 1], widths[i], 3, gain=1.6)
    return {k: v.float() for k, v in sd.items()}


def union_weights(cfg, seed, types):
    """What a union net has besides."""
    r, sd, d = Random(seed + 4), {}, cfg.channels
    sd["task_embedding"] = r.normal("task", (types, d))
    r.linear(sd, "spatial_ch_projs", d, d)
    p = "transformer_layes.0."
    sd[p + "attn.in_proj_weight"] = r.normal("qkv.weight", (3 * d, d), d ** -0.5)
    sd[p + "attn.in_proj_bias"] = r.normal("qkv.bias", (3 * d,), 0.4)
    r.linear(sd, p + "attn.out_proj", d, d)
    r.norm(sd, p + "ln_1", d)
    r.norm(sd, p + "ln_2", d)
    r.linear(sd, p + "mlp.c_fc", 4 * d, d)
    r.linear(sd, p + "mlp.c_proj", d, 4 * d)
    r.linear(sd, "control_add_embedding.linear_1", 4 * d, 256 * types)
    r.linear(sd, "control_add_embedding.linear_2", 4 * d, 4 * d)
    return {k: v.float() for k, v in sd.items()}


def to_diffusers(sd, cfg, label="class_embedding"):
    """Union keys are the same in both layouts."""
    out, net = {}, {}
    for k, v in sd.items():
        part = k.split(".")
        if part[0] == "zero_convs":
            out[f"controlnet_down_blocks.{part[1]}.{part[3]}"] = v
        elif part[0] == "middle_block_out":
            out[f"controlnet_mid_block.{part[2]}"] = v
        elif part[0] == "input_hint_block":
            i = int(part[1]) // 2
            name = "conv_in" if i == 0 else "conv_out" if i == 7 else f"blocks.{i - 1}"
            out[f"controlnet_cond_embedding.{name}.{part[2]}"] = v
        elif part[0] in ("task_embedding", "spatial_ch_projs", "transformer_layes", "control_add_embedding"):
            out[k] = v
        else:
            net[k] = v
    out.update(unet.to_diffusers(net, cfg, label))
    return out


def named(skips, middle):
    r = {f"skip.{i}": t for i, t in enumerate(skips)}
    r["middle"] = middle
    return {k: t.permute(0, 2, 3, 1) for k, t in r.items()}


class AddEmbedding(nn.Module):
    """ComfyUI's class of that name is local to a constructor that fixes the width 320."""

    def __init__(self, types, out):
        super().__init__()
        self.types = types
        self.linear_1, self.linear_2 = nn.Linear(256 * types, out), nn.Linear(out, out)

    def forward(self, control_type, dtype, device):
        from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
        told = torch.zeros(self.types)
        told[control_type] = 1.0
        t = timestep_embedding(told, 256).reshape(1, -1).to(dtype)
        return self.linear_2(torch.nn.functional.silu(self.linear_1(t)))


def by_comfyui(sd, cfg, seed, inp, hint=3, type_=None):
    import comfy.cldm.cldm as cldm
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential
    ops = comfy.ops.disable_weight_init
    c = unet.comfy_config(unet.weights(cfg, seed))
    c.pop("out_channels")
    c.update(dtype=torch.float32, device="cpu", operations=ops, hint_channels=hint)
    net = cldm.ControlNet(**c).eval()
    layers, widths = [], (hint, *HINT, cfg.channels)
    for i in range(8):
        layers += [nn.Conv2d(widths[i], widths[i + 1], 3, padding=1, stride=STRIDES[i]), nn.SiLU()]
    net.input_hint_block = TimestepEmbedSequential(*layers[:-1])
    extra = {}
    if "task_embedding" in sd:
        d, types = cfg.channels, sd["task_embedding"].shape[0]
        net.num_control_type = types
        net.task_embedding = nn.Parameter(torch.empty(types, d))
        net.transformer_layes = nn.Sequential(cldm.ResBlockUnionControlnet(d, 8, operations=ops))
        net.spatial_ch_projs = nn.Linear(d, d)
        net.control_add_embedding = AddEmbedding(types, 4 * d)
        extra["control_type"] = [] if type_ is None else [type_]
    net.load_state_dict({k.replace(".in_proj_", ".in_proj."): v.float() for k, v in sd.items()})
    y = inp["y"] if cfg.adm else None
    out = net(inp["x"], inp["hint"], inp["timestep"], inp["context"], y=y, **extra)
    return named(out["output"], out["middle"][0])


def by_diffusers(sd, cfg, inp, hint=3, type_=None):
    import diffusers
    widths = [m * cfg.channels for m in cfg.mult]
    rows, depth = [], list(cfg.depth)
    for n in cfg.res:
        rows.append([depth.pop(0) for _ in range(n)])
    middle = "UNetMidBlock2D" if cfg.middle == -1 else "UNetMidBlock2DCrossAttn"
    types = sd["task_embedding"].shape[0] if "task_embedding" in sd else 0
    kind, extra, more = diffusers.ControlNetModel, {}, {"mid_block_type": middle}
    if types:
        kind = diffusers.ControlNetUnionModel
        more = dict(num_control_type=types, num_trans_channel=cfg.channels, num_trans_head=8, num_trans_layer=1,
                    num_proj_channel=cfg.channels, addition_time_embed_dim=256)
        told = torch.zeros(inp["x"].shape[0], types)
        told[:, type_] = 1.0
        extra = dict(control_type=told, control_type_idx=[type_])
    net = kind(
        in_channels=cfg.latent, conditioning_channels=hint, block_out_channels=widths, layers_per_block=cfg.res[0],
        down_block_types=["CrossAttnDownBlock2D" if r[0] else "DownBlock2D" for r in rows],
        cross_attention_dim=cfg.context, transformer_layers_per_block=[r[0] or max(cfg.middle, 1) for r in rows],
        attention_head_dim=[cfg.heads(w) for w in widths], use_linear_projection=cfg.linear,
        class_embed_type="projection" if cfg.adm else None, projection_class_embeddings_input_dim=cfg.adm or None,
        conditioning_embedding_out_channels=HINT[::2], **more).double().eval()
    net.load_state_dict({k: v.double() for k, v in to_diffusers(sd, cfg).items()})
    h = inp["hint"].double().expand(inp["x"].shape[0], -1, -1, -1)
    skips, middle = net(inp["x"].double(), inp["timestep"], inp["context"].double(), [h] if types else h,
                        conditioning_scale=[1.0] if types else 1.0,
                        class_labels=inp["y"].double() if cfg.adm else None, return_dict=False, **extra)
    return {k: t.float() for k, t in named(skips, middle).items()}


def low_rank(base, sd, seed, rank=2):
    """A control-LoRA whose ControlNet is `sd` where the base has no such weight, and base + up * down elsewhere:
    (the file, the ControlNet's weights)."""
    r, file, full = Random(seed), {"lora_controlnet": torch.zeros(1)}, {}
    for k, v in sd.items():
        if k not in base:
            file[k] = full[k] = v
        elif v.ndim > 1:
            stem, n = k[:-len(".weight")], v[0].numel()
            up = r.normal(k + "up", (v.shape[0], rank), 0.5).half()
            down = r.normal(k + "down", (rank, n), n ** -0.5).half()
            file[stem + ".up"] = up.reshape(-1, rank, *[1] * (v.ndim - 2))
            file[stem + ".down"] = down.reshape(rank, *v.shape[1:])
            full[k] = base[k].float() + (up.float() @ down.float()).reshape(v.shape)
        else:
            file[k] = full[k] = v        # biases and norms lie in the file as they are
    return file, full
