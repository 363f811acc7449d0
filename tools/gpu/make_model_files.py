#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Model files of the true layout and size with random weights, written at memory speed: what an end-to-end run needs on a
machine that has no models.

    tools/gpu/make_model_files.py DIR [--only flux,sdxl] [--threads N]

DIR becomes a models folder: diffusion_models/flux1-dev (bf16, 23.8 GB), text_encoders/t5xxl_fp16 (f16, 9.5 GB) and clip_l,
vae/ae; checkpoints/sd_xl_base_1.0 (f16, 6.9 GB). T5's vocabulary is the house model's; CLIP's is atelier's own. numpy is
all it needs. DIR on /dev/shm is as good as files in the page cache.
Weights are normal, scaled by fan-in, so that a whole run stays finite; a tensor repeats a few million draws.
"""
import argparse
import concurrent.futures
import json
import os
import shutil
import struct
import sys
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.join(HERE, "..", "..")
sys.path[:0] = [HERE, os.path.join(TREE, "tools", "test")]
import sdxl_shapes  # noqa: E402
import sparse_models as sparse  # noqa: E402

PERIOD = 4194301  # prime: rows of no width repeat in step
PIECE = 64 << 20


class Blocks:
    """PERIOD values as bytes for each (dtype, scale, shift), made when first asked for."""

    def __init__(self):
        self.normal = np.random.default_rng(7).standard_normal(PERIOD, dtype=np.float32)
        self.made = {}

    def get(self, dtype, scale, shift):
        key = (dtype, scale, shift)
        if key not in self.made:
            v = self.normal * np.float32(scale) + np.float32(shift)
            if dtype == "BF16":
                bits = v.view(np.uint32)
                v = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
            elif dtype == "F16":
                v = v.astype(np.float16)
            self.made[key] = memoryview(v.tobytes())
        return self.made[key]


def kind(name, shape):
    """(scale, shift) of a tensor: norms about 1, biases and other vectors small, the rest by fan-in."""
    if len(shape) < 2:
        return (0.02, 1.0 if name.endswith(("weight", "scale")) else 0.0)
    if "embedding" in name or name.startswith(("shared", "encoder.embed_tokens")):
        return (0.02, 0.0)
    return (round(0.7 / float(np.prod(shape[1:])) ** 0.5, 6), 0.0)


def write_piece(fd, block, begin, end, at):
    """File bytes [begin, end) of a tensor whose first byte is at `at`."""
    while begin < end:
        offset = (begin - at) % len(block)
        n = min(len(block) - offset, end - begin)
        begin += os.pwrite(fd, block[offset:offset + n], begin)


def write(pool, blocks, path, shapes, dtype):
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = sparse.count(shape) * sparse.SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o644)
    os.pwrite(fd, struct.pack("<Q", len(text)) + text, 0)
    os.ftruncate(fd, 8 + len(text) + offset)
    jobs = []
    for name, h in header.items():
        begin, end = (8 + len(text) + o for o in h["data_offsets"])
        block = blocks.get(dtype, *kind(name, h["shape"]))
        jobs += [pool.submit(write_piece, fd, block, b, min(b + PIECE, end), begin) for b in range(begin, end, PIECE)]
    for job in jobs:
        job.result()
    os.close(fd)
    return 8 + len(text) + offset


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("dir")
    a.add_argument("--only", default="flux,sdxl")
    a.add_argument("--threads", type=int, default=min(16, os.cpu_count() or 1))
    o = a.parse_args()
    files = []
    if "flux" in o.only.split(","):
        files += [(name, shapes(), dtype) for name, shapes, dtype in sparse.FILES]
        house = os.path.join(TREE, "models", "text_encoders", "house_t5")
        shutil.copytree(house, os.path.join(o.dir, "text_encoders", "t5xxl_fp16"), dirs_exist_ok=True)
    if "sdxl" in o.only.split(","):
        shapes = sdxl_shapes.sdxl(sparse.clip_l(), sparse.flux_vae())
        files.append(("checkpoints/sd_xl_base_1.0.safetensors", shapes, "F16"))
    blocks = Blocks()
    with concurrent.futures.ThreadPoolExecutor(o.threads) as pool:
        for name, shapes, dtype in files:
            start = time.perf_counter()
            size = write(pool, blocks, os.path.join(o.dir, name), shapes, dtype)
            took = time.perf_counter() - start
            print("%-44s %5d tensors %6.2f GB in %5.1f s" % (name, len(shapes), size / 1e9, took), flush=True)
            blocks.made.clear()


if __name__ == "__main__":
    main()
