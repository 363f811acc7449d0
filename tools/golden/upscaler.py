# SPDX-License-Identifier: Apache-2.0
"""ESRGAN (RRDB) and the compact SRVGG network in plain torch, from the papers and the keys of published files,
and a plain derivation of ComfyUI's tiling. Everything in float64."""
import torch
import torch.nn.functional as F

from case import Random


def rrdb_weights(seed, channels=3, width=8, growth=4, blocks=1, ups=2, stack=1):
    """Under Real-ESRGAN's keys."""
    r, sd = Random(seed), {}
    r.conv(sd, "conv_first", width, channels * stack * stack, 3, gain=1.5)
    for b in range(blocks):
        for d in (1, 2, 3):
            for c in range(1, 6):
                r.conv(sd, f"body.{b}.rdb{d}.conv{c}", width if c == 5 else growth, width + (c - 1) * growth, 3,
                       gain=8.0 if c == 5 else 2.0, bias_std=0.6)
    r.conv(sd, "conv_body", width, width, 3, gain=3.0)
    for i in range(ups):
        r.conv(sd, f"conv_up{i + 1}", width, width, 3, gain=1.4)
    r.conv(sd, "conv_hr", width, width, 3, gain=1.4)
    r.conv(sd, "conv_last", channels, width, 3, gain=0.35)
    sd["conv_last.bias"] = sd["conv_last.bias"] * 0.3 + 0.5
    # Scaled so that most of the result lies in 0..1.
    x = torch.rand(1, channels, 12, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    spread = (rrdb(sd, x, clamp=False) - 0.5).abs().mean()
    sd["conv_last.weight"] = sd["conv_last.weight"] * (0.25 / spread)
    return sd


def numbered(sd, ups):
    """The same under the first ESRGAN's keys."""
    blocks = max(int(k.split(".")[1]) for k in sd if k.startswith("body.")) + 1
    names = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}", "conv_hr": f"model.{3 * ups + 2}",
             "conv_last": f"model.{3 * ups + 4}"}
    names.update({f"conv_up{i + 1}": f"model.{3 * i + 3}" for i in range(ups)})
    out = {}
    for k, v in sd.items():
        base, kind = k.rsplit(".", 1)
        if base.startswith("body."):
            _, b, d, c = base.split(".")
            base = f"model.1.sub.{b}.{d.upper()}.{c}.0"
        else:
            base = names[base]
        out[f"{base}.{kind}"] = v
    return out


def trunk(sd):
    """The same under the keys in between (BSRGAN, early Real-ESRGAN forks)."""
    names = {"conv_body": "trunk_conv", "conv_hr": "HRconv", "conv_up1": "upconv1", "conv_up2": "upconv2"}
    out = {}
    for k, v in sd.items():
        base, kind = k.rsplit(".", 1)
        if base.startswith("body."):
            base = base.replace("body.", "RRDB_trunk.").replace("rdb", "RDB")
        out[f"{names.get(base, base)}.{kind}"] = v
    return out


def rrdb(sd, x, clamp=True):
    """x [b, c, h, w] -> clamped [b, c, h * s, w * s]."""
    def conv(name, v):
        return F.conv2d(v, sd[name + ".weight"], sd[name + ".bias"], padding=1)

    channels = sd["conv_last.weight"].shape[0]
    stack = int((sd["conv_first.weight"].shape[1] // channels) ** 0.5)
    blocks = max(int(k.split(".")[1]) for k in sd if k.startswith("body.")) + 1
    ups = sum(k.startswith("conv_up") and k.endswith("weight") for k in sd)
    h, w = x.shape[2:]
    x = F.pad(x, (0, -w % stack, 0, -h % stack), "reflect")
    first = conv("conv_first", F.pixel_unshuffle(x, stack))
    v = first
    for b in range(blocks):
        inner = v
        for d in (1, 2, 3):
            seen = [inner]
            for c in range(1, 5):
                seen.append(F.leaky_relu(conv(f"body.{b}.rdb{d}.conv{c}", torch.cat(seen, 1)), 0.2))
            inner = inner + 0.2 * conv(f"body.{b}.rdb{d}.conv5", torch.cat(seen, 1))
        v = v + 0.2 * inner
    v = first + conv("conv_body", v)
    for i in range(ups):
        v = F.leaky_relu(conv(f"conv_up{i + 1}", F.interpolate(v, scale_factor=2, mode="nearest")), 0.2)
    v = conv("conv_last", F.leaky_relu(conv("conv_hr", v), 0.2))
    scale = 2 ** ups // stack
    v = v[:, :, :h * scale, :w * scale]
    return v.clamp(0, 1) if clamp else v


def srvgg_weights(seed, channels=3, width=8, convs=4, scale=4):
    r, sd = Random(seed), {}
    r.conv(sd, "body.0", width, channels, 3, gain=1.4)
    for i in range(convs):
        sd[f"body.{2 * i + 1}.weight"] = r.normal(f"slope{i}", (width,), 0.4, 0.3)
        last = i == convs - 1
        r.conv(sd, f"body.{2 * i + 2}", channels * scale * scale if last else width, width, 3, gain=0.3 if last else 1.4)
    return sd


def srvgg(sd, x):
    last = max(int(k.split(".")[1]) for k in sd)
    v = x
    for i in range(0, last + 1, 2):
        v = F.conv2d(v, sd[f"body.{i}.weight"], sd[f"body.{i}.bias"], padding=1)
        if i < last:
            v = F.prelu(v, sd[f"body.{i + 1}.weight"])
    scale = int((v.shape[1] // x.shape[1]) ** 0.5)
    v = F.pixel_shuffle(v, scale) + F.interpolate(x, scale_factor=scale, mode="nearest")
    return v.clamp(0, 1)


def tiled(x, network, tile, overlap, scale):
    """Overlapping tiles with linear ramps of overlap * scale on all sides, weighted mean."""
    b, c, h, w = x.shape
    total = torch.zeros(b, c, h * scale, w * scale, dtype=x.dtype)
    weight = torch.zeros_like(total)

    def starts(n):
        return range(0, n - overlap, tile - overlap) if n > tile else [0]

    def ramp(n):
        r = torch.ones(n, dtype=x.dtype)
        f = overlap * scale
        if f < n:
            up = (torch.arange(f, dtype=x.dtype) + 1) / f
            r[:f] *= up
            r[n - f:] *= up.flip(0)
        return r

    for y in starts(h):
        for z in starts(w):
            part = network(x[:, :, y:y + tile, z:z + tile])
            m = ramp(part.shape[2])[:, None] * ramp(part.shape[3])[None]
            where = (..., slice(y * scale, y * scale + part.shape[2]), slice(z * scale, z * scale + part.shape[3]))
            total[where] += part * m
            weight[where] += m
    return total / weight
