# SPDX-License-Identifier: Apache-2.0
"""What the peer_*.py programs share: a ComfyUI checkout made importable, random weights, times, JSON lines.

Idea: a peer is measured as its users run it (its own modules, its own attention), on weights of the true shape drawn from
N(0, 0.02), in the run that measures us, so that a ratio is a ratio of one machine.
Easy to get wrong: weights of zeros time faster than real ones; a model run once more after compilation may compile once
more (the second shape, the first recording), so warm-up goes on until a step costs what the step before it did.
"""
import argparse
import gc
import json
import statistics
import sys
import time
import types

import torch


def arguments(description, variants):
    a = argparse.ArgumentParser(description=description)
    a.add_argument("--comfyui", required=True, metavar="DIR", help="folder that holds ComfyUI's package comfy")
    a.add_argument("--variants", default=",".join(variants), help="some of: " + ",".join(variants))
    a.add_argument("--device", default="cuda")
    a.add_argument("--runs", type=int, default=30, help="timed runs after warm-up")
    a.add_argument("--wait", action="store_true",
                   help="after warm-up print a line and wait for one on standard input (tools/gpu/peers_together.py)")
    a.add_argument("--tiny", action="store_true", help="narrow models and small pictures: does the program run at all?")
    o = a.parse_args()
    o.variants = o.variants.split(",")
    for v in o.variants:
        if v not in variants:
            a.error("%s: known are %s" % (v, ",".join(variants)))
    return o


def meminfo():
    """psutil.virtual_memory() where psutil is missing."""
    rows = dict(line.split(":") for line in open("/proc/meminfo"))
    kib = {k: int(v.split()[0]) * 1024 for k, v in rows.items()}
    return types.SimpleNamespace(total=kib["MemTotal"], available=kib["MemAvailable"])


def enable(o):
    """Make `import comfy` work. Returns ComfyUI's version."""
    sys.path.insert(0, o.comfyui)
    try:
        import psutil  # noqa: F401
    except ImportError:
        sys.modules["psutil"] = types.SimpleNamespace(virtual_memory=meminfo)
    argv, sys.argv = sys.argv, [sys.argv[0]] + (["--cpu"] if o.device == "cpu" else [])
    import comfy.options
    comfy.options.enable_args_parsing()
    import comfy.model_management  # noqa: F401  (reads sys.argv)
    sys.argv = argv
    import comfyui_version
    return comfyui_version.__version__


@torch.no_grad()
def fill(module, seed=0):
    """Every parameter from N(0, 0.02); scales of norms around 1."""
    torch.manual_seed(seed)
    for name, p in module.named_parameters():
        shift = 1.0 if p.ndim == 1 and name.endswith(("weight", "scale")) else 0.0
        draft = torch.empty(p.shape, dtype=torch.bfloat16 if p.dtype.itemsize < 2 else p.dtype, device=p.device)
        p.copy_(draft.normal_(shift, 0.02))
    return module.eval().requires_grad_(False)


def seconds(o, call):
    """One call, by device events on a GPU."""
    if o.device == "cpu":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3


def measure(o, row, call):
    """Warm up, time, print one JSON line. A peer that fails is a line too."""
    with torch.inference_mode():
        start = time.perf_counter()
        try:
            last = seconds(o, call)
            first = time.perf_counter() - start
            for _ in range(8):
                before, last = last, seconds(o, call)
                if abs(before - last) < 0.03 * last:
                    break
            if o.wait:
                print(json.dumps({"ready": row["variant"]}), flush=True)
                sys.stdin.readline()
                call()
            times = [seconds(o, call) for _ in range(o.runs)]
        except Exception as e:  # noqa: BLE001 (a measurement goes on to the next peer)
            print(json.dumps({**row, "error": "%s: %s" % (type(e).__name__, str(e)[:300])}), flush=True)
            return
    chip = torch.cuda.get_device_name() if o.device != "cpu" else "cpu"
    print(json.dumps({**row, "ms": round(1e3 * statistics.median(times), 3), "min_ms": round(1e3 * min(times), 3),
                      "first_s": round(first, 2), "runs": o.runs, "torch": torch.__version__, "chip": chip}), flush=True)


def by_name(variant, call):
    """call itself, compiled (_compiled), or compiled and replayed as a CUDA graph (_graphs)."""
    if variant.endswith("compiled"):
        return torch.compile(call, dynamic=False)
    if variant.endswith("graphs"):
        return torch.compile(call, dynamic=False, mode="reduce-overhead")
    return call


def forget():
    """Between peers: compiled code and memory of the last one."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
