# SPDX-License-Identifier: Apache-2.0
"""Adapter files with random tensors, and what ComfyUI's own patcher makes of a model with them."""
import math

import torch

from case import Random


class Maker:
    """Fills an adapter file: one method per kind, `x` is a layer's name in the file."""

    def __init__(self, seed):
        self.r, self.sd = Random(seed), {}

    def put(self, name, shape, std):
        self.sd[name] = self.r.normal(name, shape, std).float()

    def alpha(self, x, value):
        if value is not None:
            self.sd[x + ".alpha"] = torch.tensor(float(value))

    def dora(self, x, shape, by_row):
        s = [shape[0]] + [1] * (len(shape) - 1) if by_row else [1, shape[1]] + [1] * (len(shape) - 2)
        name = x + ".dora_scale"
        self.sd[name] = (1 + self.r.normal(name, s, 0.3)).abs().float()

    def lora(self, x, shape, rank, up=".lora_up.weight", down=".lora_down.weight", alpha=None, mid=False, dora=None):
        out, inp = shape[0], shape[1]
        rest = tuple(shape[2:])
        one = (1,) * len(rest)
        self.put(x + up, (out, rank) + one, 0.5)
        if mid:
            self.put(x + down, (rank, inp) + one, 0.2)
            self.put(x + ".lora_mid.weight", (rank, rank) + rest, 0.3)
        else:
            self.put(x + down, (rank, inp) + rest, 0.2)
        self.alpha(x, alpha)
        if dora is not None:
            self.dora(x, shape, dora)

    def loha(self, x, shape, rank, alpha=None, core=False, dora=None):
        out, inp, rest = shape[0], shape[1], tuple(shape[2:])
        for n in ("1", "2"):
            if core:
                self.put(f"{x}.hada_w{n}_a", (rank, out), 0.5)
                self.put(f"{x}.hada_w{n}_b", (rank, inp), 0.5)
                self.put(f"{x}.hada_t{n}", (rank, rank) + rest, 0.5)
            else:
                self.put(f"{x}.hada_w{n}_a", (out, rank), 0.5)
                self.put(f"{x}.hada_w{n}_b", (rank, inp * math.prod(rest)), 0.5)
        self.alpha(x, alpha)
        if dora is not None:
            self.dora(x, shape, dora)

    def lokr(self, x, shape, rank, split=4, w1=True, w2=True, core=False, alpha=None):
        """w1 and w2: whole tensors, else products of rank `rank`."""
        out, inp, rest = shape[0], shape[1], tuple(shape[2:])
        a, b, c, d = split, split, out // split, inp // split
        if w1:
            self.put(x + ".lokr_w1", (a, b), 0.4)
        else:
            self.put(x + ".lokr_w1_a", (a, rank), 0.5)
            self.put(x + ".lokr_w1_b", (rank, b), 0.5)
        if w2:
            self.put(x + ".lokr_w2", (c, d) + rest, 0.4)
        elif core:
            self.put(x + ".lokr_w2_a", (rank, c), 0.5)
            self.put(x + ".lokr_w2_b", (rank, d), 0.5)
            self.put(x + ".lokr_t2", (rank, rank) + rest, 0.5)
        else:
            self.put(x + ".lokr_w2_a", (c, rank), 0.5)
            self.put(x + ".lokr_w2_b", (rank, d * math.prod(rest)), 0.5)
        self.alpha(x, alpha)

    def glora(self, x, shape, rank, old=False, alpha=None):
        out, inp, rest = shape[0], shape[1], tuple(shape[2:])
        one = (1,) * len(rest)
        if old:
            self.put(x + ".a1.weight", (rank, inp), 0.3)
            self.put(x + ".a2.weight", (inp, rank), 0.3)
            self.put(x + ".b1.weight", (rank, inp), 0.3)
            self.put(x + ".b2.weight", (out, rank), 0.3)
        else:
            self.put(x + ".a1.weight", (inp, rank) + one, 0.3)
            self.put(x + ".a2.weight", (rank, inp) + one, 0.3)
            self.put(x + ".b1.weight", (out, rank) + one, 0.3)
            self.put(x + ".b2.weight", (rank, inp) + rest, 0.3)
        self.alpha(x, alpha)

    def oft(self, x, shape, block, alpha=None, rescale=False):
        self.put(x + ".oft_blocks", (shape[0] // block, block, block), 0.2)
        if rescale:
            self.put(x + ".rescale", (shape[0],) + (1,) * (len(shape) - 1), 0.2)
        self.alpha(x, alpha)

    def boft(self, x, shape, block, stages, alpha, rescale=False):
        self.put(x + ".oft_blocks", (stages, shape[0] // block, block, block), 0.2)
        if rescale:
            name = x + ".rescale"
            self.sd[name] = (1 + self.r.normal(name, (shape[0],) + (1,) * (len(shape) - 1), 0.1)).float()
        self.alpha(x, alpha)

    def whole(self, x, suffix, shape, std=0.2):
        self.put(x + suffix, shape, std)


class Weights(torch.nn.Module):
    """A module whose state_dict has these keys: all that ComfyUI's patcher asks of a model."""

    def __init__(self, sd):
        super().__init__()
        self.device = torch.device("cpu")
        for k, v in sd.items():
            m = self
            *path, leaf = k.split(".")
            for p in path:
                if p not in m._modules:
                    m.add_module(p, torch.nn.Module())
                m = m._modules[p]
            m.register_parameter(leaf, torch.nn.Parameter(v, requires_grad=False))


def denoiser_keys(sd, kind, unet_config):
    """ComfyUI's map from adapter names to `diffusion_model.` keys. kind: the model class it asks for."""
    import comfy.lora
    import comfy.model_base
    base = getattr(comfy.model_base, kind)
    m = base.__new__(base)
    torch.nn.Module.__init__(m)
    w = Weights({"diffusion_model." + k: v for k, v in sd.items()})
    for name, child in w.named_children():
        m.add_module(name, child)
    m.model_config = type("Config", (), {"unet_config": unet_config})()
    m.device = torch.device("cpu")
    return m, comfy.lora.model_lora_keys_unet(m, {})


def encoder_keys(sd):
    """The same for text encoders: sd has "clip_l.transformer." and so on before its keys."""
    import comfy.lora
    w = Weights(sd)
    return w, comfy.lora.model_lora_keys_clip(w, {})


def kron(a, b):
    return torch.kron(a.contiguous(), b.contiguous())


def patched(model, key_map, loras):
    """{key: weight} of what `loras` [(file tensors, strength)] change, by ComfyUI's ModelPatcher."""
    import comfy.lora
    import comfy.lora_convert
    import comfy.model_patcher
    import comfy.weight_adapter.lokr
    # torch 2.13's kron refuses what einsum leaves strided, and ComfyUI then leaves the layer out.
    comfy.weight_adapter.lokr.torch = type("Torch", (), {"__getattr__": lambda _, n: kron if n == "kron" else getattr(torch, n)})()
    cpu = torch.device("cpu")
    p = comfy.model_patcher.ModelPatcher(model, cpu, cpu)
    for sd, strength in loras:
        p.add_patches(comfy.lora.load_lora(comfy.lora_convert.convert_lora(dict(sd)), key_map), strength)
    state, out = model.state_dict(), {}
    for key, patches in p.patches.items():
        w = comfy.lora.calculate_weight(patches, state[key].float().clone(), key)
        out[key] = w.to(torch.bfloat16 if state[key].dtype.itemsize == 1 else state[key].dtype)
    return out
