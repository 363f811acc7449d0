#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Jobs a minute of `atelier serve`, with several jobs waiting: side by side on the devices, and one after the other over all.

    tools/gpu/lanes.py --atelier bin/atelier --models DIR [--checkpoint NAME] [--jobs 16] -- --devices cuda:0,cuda:1

Each way is one server: some jobs that are not counted (a minute's rest would end the lanes' engines), then all jobs
at once. The house model draws, or a checkpoint in SDXL's shape at 1024 x 1024. Pictures of the ways are compared by
their bytes' content: in 16 bits two devices that share a picture round otherwise than one, so the last line counts.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def workflow(o, seed, prefix):
    if not o.checkpoint:
        with open(os.path.join(HERE, "../../examples/house.json"), encoding="utf-8") as f:
            w = json.load(f)
        w["7"]["inputs"].update(seed=seed, steps=o.steps)
        w["9"]["inputs"]["filename_prefix"] = "%s%d" % (prefix, seed)
        return w
    return {"1": node("CheckpointLoaderSimple", ckpt_name=o.checkpoint),
            "4": node("CLIPTextEncode", text="a red house", clip=["1", 1]),
            "5": node("CLIPTextEncode", text="blue", clip=["1", 1]),
            "6": node("EmptyLatentImage", width=1024, height=1024, batch_size=1),
            "7": node("KSampler", model=["1", 0], seed=seed, steps=o.steps, cfg=5.0, sampler_name="euler",
                      scheduler="normal", positive=["4", 0], negative=["5", 0], latent_image=["6", 0], denoise=1.0),
            "8": node("VAEDecode", samples=["7", 0], vae=["1", 2]),
            "9": node("SaveImage", images=["8", 0], filename_prefix="%s%d" % (prefix, seed))}


class Server:
    def __init__(self, o, flags, folder):
        self.folder = folder
        self.process = subprocess.Popen(
            [o.atelier, "serve", "--port", "0", "--models", o.models, "--disable-metadata", "--no-persist",
             "--base-directory", folder, "--user-directory", os.path.join(folder, "user"), *flags],
            stdout=subprocess.PIPE, stderr=open(os.path.join(folder, "log"), "wb"), text=True, cwd=folder)
        line = self.process.stdout.readline()
        if "//" not in line:
            with open(os.path.join(folder, "log"), encoding="utf-8", errors="replace") as f:
                sys.exit("the server did not start: " + f.read()[-2000:])
        self.url = line.split()[-1].strip()

    def ask(self, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=60) as r:
            return json.load(r)

    def draw(self, prompts):
        """Seconds until all have ended, and the ids."""
        began = time.monotonic()
        ids = [self.ask("/prompt", {"prompt": p})["prompt_id"] for p in prompts]
        while self.ask("/prompt")["exec_info"]["queue_remaining"]:
            time.sleep(0.01)
        took = time.monotonic() - began
        history = self.ask("/history")
        bad = [history[i]["status"] for i in ids if history[i]["status"]["status_str"] != "success"]
        if bad:
            print("FAIL %d jobs of %d: %s" % (len(bad), len(ids), json.dumps(bad[0])[:800]))
        return took

    def pictures(self, prefix):
        out = os.path.join(self.folder, "output")
        found = {}
        for name in os.listdir(out):
            if name.startswith(prefix):
                with open(os.path.join(out, name), "rb") as f:
                    found[name] = f.read()
        return found


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--atelier", required=True)
    a.add_argument("--models", required=True)
    a.add_argument("--checkpoint")
    a.add_argument("--jobs", type=int, default=16)
    a.add_argument("--steps", type=int, default=20)
    a.add_argument("--log", action="store_true", help="show what the servers said")
    a.add_argument("flags", nargs="*")
    o = a.parse_args()
    o.atelier, o.models = os.path.abspath(o.atelier), os.path.abspath(o.models)
    drawn = []
    for name, more in (("together", ["--lanes", "1"]), ("side by side", []), ("side by side, one device a job",
                                                                             ["--parallel", "none"])):
        with tempfile.TemporaryDirectory() as folder:
            s = Server(o, o.flags + more, folder)
            alone = [s.draw([workflow(o, 9000 + i, "alone")]) for i in range(3)]
            s.draw([workflow(o, 8000 + i, "warm") for i in range(6)])
            took = s.draw([workflow(o, i, "job") for i in range(o.jobs)])
            drawn.append(s.pictures("job"))
            print("%-32s %6.1f jobs a minute (%d in %.2f s); one alone %.3f s" %
                  (name, 60 * o.jobs / took, o.jobs, took, min(alone)), flush=True)
            s.process.terminate()
            s.process.wait(30)
            if o.log:
                with open(os.path.join(folder, "log"), encoding="utf-8", errors="replace") as f:
                    print("".join(l for l in f if "JOB-ENDED" not in l and "accepted" not in l)[-3000:])
    for i, name in ((1, "side by side"), (2, "one device a job")):
        same = sum(drawn[0].get(k) == v for k, v in drawn[i].items())
        print("%s: %d of %d pictures byte-equal to those drawn together" % (name, same, len(drawn[i])))
    same = sum(drawn[1].get(k) == v for k, v in drawn[2].items())
    print("the two ways of lanes: %d of %d byte-equal" % (same, len(drawn[2])))
    return 0 if all(len(d) == o.jobs for d in drawn) else 1


if __name__ == "__main__":
    sys.exit(main())
