#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""POST /prompt of atelier serve beside ComfyUI's, on this machine in one run.

    tools/bench/serve_rate.py [--atelier build/release/bin/atelier] [--comfyui CHECKOUT --python VENV/bin/python]

Both servers start on the CPU with folders of their own, in turn (A B A B ...), and take the same job: EmptyImage 64x64
into PreviewImage, which both answer from their caches after the first (--differ: a colour and a title of its own in each body, so that
each is read, checked and run). The generator (http_load.c, one thread) posts
over keep-alive connections, one request in flight on each, for --seconds; jobs run meanwhile, as they do in life, and
the queue is then waited for: "ended_well" must be "accepted". Told: accepted a second, p50 and p99 of the answer, jobs
run a second, the server's CPU time a job (accepted and run: what other programs on the machine change least), time from the start to the first answer, resident memory when idle and after. ComfyUI is brought by whoever runs this (a checkout and a Python with its requirements).
"""
import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

# --differ: the generator puts another number here in each body; the colour is one of 24 bits.
NUMBER = "10000001"
JOB = {"1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
       "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def family(pid):
    """A process and those that it started."""
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid), encoding="ascii") as f:
            return [pid] + [p for child in f.read().split() for p in family(int(child))]
    except OSError:
        return []


def resident(pid):
    """MiB of a server and its children, shared pages divided among those who share them."""
    total = 0
    for p in family(pid):
        with open("/proc/%d/smaps_rollup" % p, encoding="ascii") as f:
            total += sum(int(line.split()[1]) for line in f if line.startswith("Pss:"))
    return total / 1024


def cpu_seconds(pid):
    """Of a server and its children."""
    total = 0
    for p in family(pid):
        with open("/proc/%d/stat" % p, encoding="ascii") as f:
            total += sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


class Server:
    def __init__(self, command, cwd):
        self.port = free_port()
        self.dir = tempfile.mkdtemp(prefix="serve-rate-")
        command = [a.format(dir=self.dir, port=self.port) for a in command]
        for name in ("models", "input", "output", "temp", "user"):
            os.mkdir(os.path.join(self.dir, name))
        with open(os.path.join(self.dir, "log"), "wb") as log:
            start = time.monotonic()
            self.process = subprocess.Popen(command, cwd=cwd or self.dir, stdout=log, stderr=log)
        while True:
            try:
                self.get("/prompt")
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() - start > 180:
                    with open(os.path.join(self.dir, "log"), encoding="utf-8", errors="replace") as f:
                        raise RuntimeError("no answer: " + f.read()[-2000:])
                time.sleep(0.001)
        self.started = time.monotonic() - start
        time.sleep(0.5)
        self.idle = resident(self.process.pid)

    def get(self, path):
        with urllib.request.urlopen("http://127.0.0.1:%d%s" % (self.port, path), timeout=120) as answer:
            return json.load(answer)

    def waiting(self):
        return self.get("/prompt")["exec_info"]["queue_remaining"]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def build_generator(folder):
    """http_load.c beside this file, compiled."""
    out = os.path.join(folder, "http_load")
    subprocess.run(["cc", "-O2", "-o", out, os.path.join(os.path.dirname(os.path.abspath(__file__)), "http_load.c")], check=True)
    return out


def ended(server):
    """Jobs that came to a good end, as the server itself counts them (ComfyUI: its history, 10,000 at most)."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % server.port, timeout=120) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith('atelier_jobs_ended_total{outcome="success"}'):
                    return int(line.split()[-1])
    except urllib.error.HTTPError:
        pass
    return len(server.get("/history"))


def differing():
    """The same job with a colour and a title of its own in each body."""
    job = json.loads(json.dumps(JOB))
    job["1"]["inputs"]["color"] = int(NUMBER)
    job["2"]["_meta"] = {"title": "picture " + NUMBER}
    return job


def load(server, generator, connections, args):
    body = os.path.join(server.dir, "body.json")
    with open(body, "w", encoding="ascii") as f:
        json.dump({"prompt": differing() if args.differ else JOB, "client_id": "rate"}, f)
    spent = cpu_seconds(server.process.pid)
    out = subprocess.run([generator, str(server.port), "/prompt", body, str(connections), str(args.seconds)] + [NUMBER] * args.differ,
                         check=True, stdout=subprocess.PIPE)
    told = json.loads(out.stdout)
    begun = time.perf_counter()
    left = server.waiting()
    grown = resident(server.process.pid)
    while server.waiting():  # every accepted job is run
        if time.perf_counter() - begun > 300:
            raise RuntimeError("the queue does not get empty")
        time.sleep(0.05)
    spent = cpu_seconds(server.process.pid) - spent
    alone = left / (time.perf_counter() - begun)
    n, run = told["accepted"], ended(server)
    if told["different"] != n or told["failed"]:
        raise RuntimeError("answers that are none: %r" % told)
    return {"accepted_per_s": n / told["seconds"], "p50_ms": told["p50_ms"], "p99_ms": told["p99_ms"],
            "max_ms": told["max_ms"], "refused": told["refused"], "accepted": n, "ended_well": run,
            "run_per_s_meanwhile": (n - left) / told["seconds"], "run_per_s_after": alone,
            "cpu_us_a_job": spent / n * 1e6, "generator_cores": told["generator_cpu_s"] / told["seconds"],
            "start_ms": server.started * 1e3, "idle_mib": server.idle, "after_mib": grown}


def compare(sides, generator, connections, args):
    results = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, (command, cwd) in sides.items():
            server = Server(command, cwd)
            try:
                results[name].append(load(server, generator, connections, args))
            finally:
                server.stop()
            print(connections, name, json.dumps({k: round(v, 2) for k, v in results[name][-1].items()}), flush=True)
    middle = {name: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for name, rows in results.items()}
    for name, row in middle.items():
        print("%d connections, median" % connections, name, json.dumps({k: round(v, 2) for k, v in row.items()}))
    if "comfyui" in middle:
        print("%d connections: accepted a second: %.1f times; p99: %.1f times shorter; run meanwhile: %.1f times; CPU a job: 1/%.1f" % (
            connections, *(middle[a][k] / middle[b][k] for a, b, k in (
                ("atelier", "comfyui", "accepted_per_s"), ("comfyui", "atelier", "p99_ms"),
                ("atelier", "comfyui", "run_per_s_meanwhile"), ("comfyui", "atelier", "cpu_us_a_job")))))


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--atelier", default=os.path.join(here, "..", "..", "build", "release", "bin", "atelier"))
    parser.add_argument("--comfyui", help="a ComfyUI checkout")
    parser.add_argument("--python", default="python3", help="with ComfyUI's requirements")
    parser.add_argument("--connections", type=int, action="append", help="several: one after the other (default 16 and 64)")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--differ", action="store_true", help="each prompt differs from all others, and is run")
    parser.add_argument("--flag", action="append", default=[], help="one more for atelier serve")
    args = parser.parse_args()
    sides = {"atelier": ([os.path.abspath(args.atelier), "serve", "--port", "{port}", "--device", "cpu",
                          "--base-directory", "{dir}", "--user-directory", "{dir}/user", "--max-queue", "1000000"] + args.flag, None)}
    if args.comfyui:
        sides["comfyui"] = ([args.python, "main.py", "--cpu", "--port", "{port}", "--base-directory", "{dir}",
                             "--disable-all-custom-nodes", "--disable-api-nodes", "--database-url", "sqlite:///:memory:"],
                            args.comfyui)
    with tempfile.TemporaryDirectory(prefix="serve-rate-") as folder:
        generator = build_generator(folder)
        for connections in args.connections or [16, 64]:
            compare(sides, generator, connections, args)


if __name__ == "__main__":
    main()
