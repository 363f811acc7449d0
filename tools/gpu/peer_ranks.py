#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A step of Flux.1 dev on several GPUs as diffusers does it (Ulysses, ring): times as JSON lines.

    tools/gpu/peer_ranks.py --diffusers WHEEL_OR_DIR [--variants one,ulysses,ring,...] [--size N] [--runs N] [--ranks N]

one, ulysses, ring                     eager, attention by cuDNN; ring with torch's native attention where cuDNN is refused
one_compiled, ulysses_compiled, ...    torch.compile of the whole transformer (a minute or two)

Idea: diffusers' own transformer and hooks, one process a GPU over NCCL, random weights of the true shape. What it imports
for downloads and files alone (huggingface_hub, requests, ...) is replaced by nothing where it is missing, so that the wheel of diffusers
is all that a bare machine with PyTorch needs: pip download diffusers==0.36.0 --no-deps.
Easy to get wrong: NVLink multicast stays off (NCCL_NVLS_ENABLE=0); a rank that fails must end the others.
"""
import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import socket
import statistics
import sys
import tempfile
import time
import types
import zipfile

import torch

VARIANTS = ("one", "ulysses", "ring", "one_compiled", "ulysses_compiled", "ring_compiled")
UNUSED = ("huggingface_hub", "safetensors", "requests", "regex", "PIL", "importlib_metadata", "yaml", "tqdm", "httpx",
          "transformers", "accelerate", "peft")
DEV = dict(num_layers=19, num_single_layers=38, attention_head_dim=128, num_attention_heads=24, joint_attention_dim=4096,
           pooled_projection_dim=768, guidance_embeds=True, axes_dims_rope=(16, 56, 56))
TINY = {**DEV, "num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "joint_attention_dim": 64,
        "pooled_projection_dim": 32}


class Nothing(type):
    """A class that has every attribute and does nothing; as a decorator it gives back what it is put on."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing(name, (), {})

    def __call__(cls, *args, **_):
        return args[0] if args and callable(args[0]) and not isinstance(args[0], Nothing) else type.__call__(cls)

    def __or__(cls, _):
        return cls

    __ror__ = __or__


class Blank(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in self.names else None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__path__, module.__version__ = [], "1.0"
        module.HF_HOME = module.HF_HUB_CACHE = tempfile.gettempdir()

        def attribute(name):
            if name.startswith("__"):
                raise AttributeError(name)
            return Nothing(name, (Exception,) if name.endswith("Error") else (), {})

        module.__getattr__ = attribute
        return module

    def exec_module(self, module):
        pass


def enable(place):
    """Make `import diffusers` work from a wheel or a folder."""
    sys.path.insert(0, place)
    sys.meta_path.insert(0, Blank({n for n in UNUSED if n == "transformers" or importlib.util.find_spec(n) is None}))
    import diffusers
    return diffusers


@torch.no_grad()
def build(o, variant, device):
    import diffusers
    config = TINY if o.tiny else DEV
    with torch.device("meta"):
        model = diffusers.FluxTransformer2DModel(**config).to(torch.bfloat16)
    model = model.to_empty(device=device).eval()
    torch.manual_seed(1)
    for p in model.parameters():
        p.normal_(0, 0.02)
    if device.type == "cuda":
        model.set_attention_backend("_native_cudnn")
    kind = variant.split("_")[0]
    if kind != "one":
        model.enable_parallelism(config=diffusers.ContextParallelConfig(**{kind + "_degree": o.ranks}))
    return torch.compile(model) if variant.endswith("_compiled") else model


def inputs(o, device):
    side, text = (4, 16) if o.tiny else (o.size // 16, 512)
    config = TINY if o.tiny else DEV

    def draw(*shape):
        return torch.randn(*shape, device=device, dtype=torch.bfloat16)

    ids = torch.zeros(side * side, 3, device=device)
    ids[:, 1] = torch.arange(side, device=device).repeat_interleave(side)
    ids[:, 2] = torch.arange(side, device=device).repeat(side)
    return dict(hidden_states=draw(1, side * side, 64), encoder_hidden_states=draw(1, text, config["joint_attention_dim"]),
                pooled_projections=draw(1, config["pooled_projection_dim"]), img_ids=ids,
                timestep=torch.tensor([0.7], device=device, dtype=torch.bfloat16),
                guidance=torch.tensor([3.5], device=device), txt_ids=torch.zeros(text, 3, device=device),
                return_dict=False)


def clock(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def measure(o, variant, device):
    began = clock(device)
    model, given = build(o, variant, device), inputs(o, device)
    for _ in range(4):
        model(**given)
    ready = clock(device)
    times = []
    for _ in range(o.runs):
        start = clock(device)
        model(**given)
        times.append((clock(device) - start) * 1e3)
    return dict(peer="diffusers", variant=variant, size=o.size, ranks=1 if variant.startswith("one") else o.ranks,
                step_ms=round(statistics.median(times), 2), least_ms=round(min(times), 2), ready_s=round(ready - began, 1))


def rank_main(rank, o, variant):
    os.environ.update(NCCL_NVLS_ENABLE="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(o.port), RANK=str(rank),
                      WORLD_SIZE=str(o.ranks), LOCAL_RANK=str(rank))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    enable(o.diffusers)
    several = not variant.startswith("one")
    if several:
        torch.distributed.init_process_group("nccl" if cuda else "gloo", rank=rank, world_size=o.ranks)
    row = measure(o, variant, device)
    if rank == 0:
        print(json.dumps(row), flush=True)
    if several:
        torch.distributed.destroy_process_group()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--diffusers", required=True)
    a.add_argument("--variants", default="one,ulysses,ring")
    a.add_argument("--size", type=int, default=1024)
    a.add_argument("--runs", type=int, default=15)
    a.add_argument("--ranks", type=int, default=2)
    a.add_argument("--tiny", action="store_true", help="a narrow model and a small picture: does the program run at all?")
    o = a.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        if os.path.isfile(o.diffusers):
            zipfile.ZipFile(o.diffusers).extractall(folder)
            o.diffusers = folder
        for variant in o.variants.split(","):
            if variant not in VARIANTS:
                a.error("%s: known are %s" % (variant, ", ".join(VARIANTS)))
            o.port = free_port()
            try:
                torch.multiprocessing.spawn(rank_main, (o, variant), 1 if variant.startswith("one") else o.ranks)
            except Exception as e:  # the next variant may still run
                print(json.dumps(dict(peer="diffusers", variant=variant, failed=str(e).strip().splitlines()[-1][:300])), flush=True)
                wrong += 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
