#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Several compiled peers in the time of the slowest: torch.compile takes a minute or more on one core each, so all compile at
once, each in a process of its own, and then are timed one after the other, alone on the GPU.

    tools/gpu/peers_together.py --comfyui DIR flux:compiled flux:fp8_row_compiled unet:sdxl_nhwc_compiled parts:t5_compiled

Prints what peer_flux.py, peer_unet.py and peer_parts.py print. All models are in the GPU's memory together (60 GB for those
above).
"""
import argparse
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def start(o, peer):
    script, variant = peer.split(":")
    command = [sys.executable, os.path.join(HERE, "peer_%s.py" % script), "--comfyui", o.comfyui, "--variants", variant,
               "--device", o.device, "--wait"] + (["--tiny"] if o.tiny else [])
    # A few compiler processes for each: they share the machine's cores.
    env = {"TORCHINDUCTOR_COMPILE_THREADS": "4", **os.environ}
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line(process):
    """The next JSON line, "" when there is none; what else a library prints is passed over."""
    for text in process.stdout:
        if text.startswith("{"):
            return text
    return ""


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--comfyui", required=True)
    a.add_argument("--device", default="cuda")
    a.add_argument("--tiny", action="store_true")
    a.add_argument("peers", nargs="+")
    o = a.parse_args()
    running = [(peer, start(o, peer)) for peer in o.peers]
    first = [line(p) for _, p in running]
    bad = 0
    for (peer, p), text in zip(running, first):
        if '"ready"' in text:
            p.stdin.write("go\n")
            p.stdin.flush()
            text = line(p)
        print(text.rstrip() if text else '{"variant": "%s", "error": "ended without a line"}' % peer, flush=True)
        p.stdin.close()
        p.wait()
        bad += '"ms"' not in text
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
