#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long after POST /interrupt the house model's job has ended, in its sampler and in its VAE, on the CPU.

    tools/bench/cancel.py [--atelier build/release/bin/atelier] [--side 1024] [--tries 12]

The interrupt comes at a random moment of the stage (the same seed each time); told are the median and the longest.
"""
import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, program, folder):
        self.port = free_port()
        self.process = subprocess.Popen(
            [program, "serve", "--port", str(self.port), "--device", "cpu", "--base-directory", folder, "--user-directory",
             os.path.join(folder, "user"), "--models", os.path.join(ROOT, "models")], stderr=subprocess.DEVNULL)
        while True:
            try:
                urllib.request.urlopen("http://127.0.0.1:%d/ready" % self.port, timeout=5)
                return
            except OSError:
                if self.process.poll() is not None:
                    raise
                time.sleep(0.02)

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen("http://127.0.0.1:%d%s" % (self.port, path), data, timeout=300) as answer:
            return json.loads(answer.read() or b"null")

    def entry(self, job):
        return self.ask("/history/" + job).get(job)


def job(side, stage, seed):
    with open(os.path.join(ROOT, "examples", "house.json"), encoding="utf-8") as f:
        g = json.load(f)
    g["6"]["inputs"].update(width=side, height=side)
    g["7"]["inputs"].update(steps=4, seed=seed)
    if stage == "vae":  # of an empty latent, each time a little wider: nothing comes from the cache
        g["6"]["inputs"]["width"] += 16 * seed
        g["8"]["inputs"]["samples"] = ["6", 0]
    return g


def wait(server, prompt_id):
    while True:
        entry = server.entry(prompt_id)
        if entry:
            return entry
        time.sleep(0.002)


def tries(server, side, stage, count):
    chance, times = random.Random(1), []
    # the whole job first: how long each stage takes
    whole = server.ask("/prompt", {"prompt": job(side, stage, 0)})["prompt_id"]
    wait(server, whole)
    cost = server.ask("/usage/" + whole)["stages"]
    for i in range(count):
        one = server.ask("/prompt", {"prompt": job(side, stage, i + 1)})["prompt_id"]
        time.sleep(0.05 + 0.9 * cost[stage] * chance.random())
        begun = time.monotonic()
        server.ask("/interrupt", {})
        entry = wait(server, one)
        if entry["status"]["status_str"] == "error":  # else it was too late
            times.append(time.monotonic() - begun)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--atelier", default=os.path.join(ROOT, "build", "release", "bin", "atelier"))
    parser.add_argument("--stage", action="append", choices=("sampling", "vae"))
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--tries", type=int, default=12)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cancel-") as folder:
        server = Server(os.path.abspath(args.atelier), folder)
        try:
            for stage in args.stage or ("sampling", "vae"):
                t = tries(server, args.side, stage, args.tries)
                print("%s %d: %d interrupted, median %.0f ms, longest %.0f ms" % (
                    stage, args.side, len(t), statistics.median(t) * 1e3, max(t) * 1e3), flush=True)
        finally:
            server.process.terminate()
            server.process.wait(60)


if __name__ == "__main__":
    main()
