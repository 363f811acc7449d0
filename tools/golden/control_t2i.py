# SPDX-License-Identifier: Apache-2.0
"""T2I adapters with random weights and few channels, and what ComfyUI's and diffusers' modules make of a hint."""
import torch

from case import Random


def weights(net, seed):
    r = Random(seed)
    sd = {}
    for k, v in net.state_dict().items():
        fan = v[0].numel() if v.ndim > 1 else 1
        sd[k] = r.normal(k, v.shape, 1.2 * fan ** -0.5 if v.ndim > 1 else 0.2).float()
    return sd


def net_of(kind, channels, cin):
    from comfy.t2i_adapter import adapter
    if kind == "light":
        return adapter.Adapter_light(cin=cin, channels=list(channels), nums_rb=4)
    return adapter.Adapter(cin=cin, channels=list(channels), nums_rb=2, ksize=1, sk=True, use_conv=kind == "conv",
                           xl=cin in (256, 768))


def by_comfyui(net, sd, hint):
    net.load_state_dict({k: v.float() for k, v in sd.items()})
    out, r = net(hint), {}
    # The UNet takes both lists from their ends.
    for i, t in enumerate(reversed(out["input"])):
        if t is not None:
            r[f"input.{i}"] = t.permute(0, 2, 3, 1)
    for t in out.get("middle", []):
        r["middle"] = t.permute(0, 2, 3, 1)
    return r


def to_diffusers(sd):
    """A full adapter under diffusers' names."""
    out = {}
    for k, v in sd.items():
        part = k.split(".")
        if part[0] != "body":
            out["adapter." + k] = v
            continue
        level, block, rest = int(part[1]) // 2, int(part[1]) % 2, ".".join(part[2:])
        where = "" if rest.startswith("in_conv") else f"resnets.{block}."
        out[f"adapter.body.{level}.{where}{rest}"] = v
    return out


def by_diffusers(sd, channels, cin, hint):
    """Only for sides that halve evenly: diffusers pools odd ones in another way."""
    from diffusers import T2IAdapter
    net = T2IAdapter(in_channels=cin // 64, channels=list(channels), num_res_blocks=2, downscale_factor=8).eval()
    net.load_state_dict({k: v.float() for k, v in to_diffusers(sd).items()})
    return {f"input.{3 * i + 2}": t.permute(0, 2, 3, 1) for i, t in enumerate(net(hint))}
