#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The house model's held-out prompts drawn in one process, with any flags of `atelier run`.

    tools/gpu/house_pictures.py --atelier BIN --out DIR [--count N] [-- --device cuda:0 --dtype bf16]

Writes DIR/001_00001_.png and on, one for each prompt of tests/house/prompts.json, for `house_test --judge` to judge. One
workflow holds all of them: the loaders once, everything else once for each prompt. Prints the seconds of a picture.
"""
import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time

TREE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def titled(workflow, title):
    return next(i for i, n in workflow.items() if n.get("_meta", {}).get("title") == title)


def many(workflow, prompts):
    once = {i for i, n in workflow.items() if "Loader" in n["class_type"]}
    text, sampler = titled(workflow, "prompt"), titled(workflow, "sampler")
    out = {i: workflow[i] for i in once}
    for k, prompt in enumerate(prompts, 1):
        for i, node in workflow.items():
            if i in once:
                continue
            node = copy.deepcopy(node)
            for key, value in node["inputs"].items():
                if isinstance(value, list) and value[0] in workflow and value[0] not in once:
                    node["inputs"][key] = ["%s_%d" % (value[0], k), value[1]]
            if i == text:
                node["inputs"]["text"] = prompt["prompt"]
            if i == sampler:
                node["inputs"]["seed"] = prompt["seed"]
            if node["class_type"] == "SaveImage":
                node["inputs"]["filename_prefix"] = "%03d" % k
            out["%s_%d" % (i, k)] = node
    return out


def main():
    own, flags = sys.argv[1:], []
    if "--" in own:
        own, flags = own[:own.index("--")], own[own.index("--") + 1:]
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--atelier", required=True)
    a.add_argument("--out", required=True)
    a.add_argument("--count", type=int, default=100)
    o = a.parse_args(own)
    with open(os.path.join(TREE, "examples", "house.json")) as f:
        workflow = json.load(f)
    with open(os.path.join(TREE, "tests", "house", "prompts.json")) as f:
        prompts = json.load(f)[:o.count]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump(many(workflow, prompts), f)
        f.flush()
        start = time.perf_counter()
        done = subprocess.run([o.atelier, "run", f.name, "--models", os.path.join(TREE, "models"), "--output", o.out,
                               "--progress", "none", *flags], stdout=subprocess.DEVNULL)
    print("%s: %d pictures, %.3f s each" % (" ".join(flags) or "cpu", len(prompts),
                                            (time.perf_counter() - start) / len(prompts)))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
