#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every way to share a picture among 1, 2, 4, 8 ... GPUs of this machine, beside its forecast and diffusers' ways, in one run.

    tools/gpu/many_ranks.py --atelier build/release/bin/atelier [--out DIR] [--ranks 8] [--diffusers WHEEL] [--limit S] [--only NAME,...]
    tools/gpu/many_ranks.py --atelier ... --cpu 2       the same commands on threads of the CPU and tiny nets: do the flags hold?

Idea: `bench --parallel all` measures each plan of a number of devices beside its forecast (`plan --like h200-xN` says what it was here);
each command has a limit of its own, its log stays in DIR, and what came of it is one table with what was wanted.
Measured: Flux.1 dev at 1024 x 1024 and 2048 x 2048 in bf16 and fp8, SDXL with CFG, a VAE's decoding of 4096 x 4096, and pictures an hour
where each GPU draws its own (64 pictures in a row of steps). Peers: tools/gpu/peer_ranks.py where a diffusers wheel is given.
About 12 minutes on 8 GPUs without peers.
"""
import argparse
import json
import os
import subprocess
import sys
import time

# name, flags of bench; ways: by --parallel all
FLUX = ["--arch", "flux1-dev"]
WORKS = [("flux 1024 bf16", FLUX + ["--dtype", "bf16"], ["--steps", "12"]),
         ("flux 2048 bf16", FLUX + ["--dtype", "bf16", "--size", "2048"], ["--steps", "5"]),
         ("flux 1024 fp8", FLUX + ["--dtype", "fp8"], ["--steps", "12"]),
         ("flux 2048 fp8", FLUX + ["--dtype", "fp8", "--size", "2048"], ["--steps", "5"]),
         ("sdxl cfg", ["--arch", "sdxl", "--dtype", "fp16", "--weights", "f16", "--batch", "2"], ["--steps", "20"])]
DECODE = ["--arch", "flux-vae", "--dtype", "bf16", "--size", "4096", "--steps", "3"]
# work, ranks: milliseconds at most, or times as fast as one GPU at least
WANTED = {("flux 1024 bf16", 4): ("ms", 33.0), ("flux 1024 bf16", 8): ("times", 5.8), ("flux 2048 bf16", 4): ("ms", 170.0),
          ("flux 1024 bf16", 2): ("ms", 60.0), ("flux 2048 bf16", 2): ("ms", 330.0), ("sdxl cfg", 2): ("times", 1.9),
          ("sdxl cfg", 4): ("times", 3.0)}
TINY = ["--double", "1", "--single", "1", "--dtype", "f32", "--size", "64", "--text-tokens", "16", "--steps", "1"]


class Run:
    def __init__(self, o):
        self.o, self.rows, self.notes = o, [], []
        os.makedirs(o.out, exist_ok=True)

    def device(self, n):
        return ",".join(["cpu"] * n) if self.o.cpu else ",".join(f"cuda:{i}" for i in range(n))

    def command(self, name, argv, limit):
        """The output of a command; None where it failed or took too long. Its log stays."""
        path = os.path.join(self.o.out, name.replace(" ", "_") + ".txt")
        began = time.time()
        with open(path, "w", encoding="utf-8") as log:
            log.write(" ".join(argv) + "\n")
            log.flush()
            try:
                r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=log, text=True, timeout=limit, check=False)
            except subprocess.TimeoutExpired:
                self.notes.append(f"{name}: not done in {limit} s")
                return None
            log.write(r.stdout)
        print(f"{name}: {time.time() - began:.0f} s, status {r.returncode}", flush=True)
        if r.returncode:
            self.notes.append(f"{name}: status {r.returncode}, see {path}")
            return None
        return r.stdout

    def ways(self, name, flags, extra, n):
        argv = [self.o.atelier, "bench", "--devices", self.device(n), "--parallel", "all", "--json", *flags, *extra]
        if self.o.cpu:
            flags = [f for f in flags if f not in ("--dtype", "bf16", "fp8", "fp16", "--size", "2048")]
            argv = [self.o.atelier, "bench", "--devices", self.device(n), "--parallel", "all", "--json", *flags, *TINY]
        out = self.command(f"{name} on {n}", argv, self.o.limit)
        if not out:
            return
        told = json.loads(out)
        measured = {w["parallel"]: w for w in told["ways"] if not w.get("error")}
        for w in told["ways"]:
            if w.get("error"):
                self.notes.append(f"{name}, {w['parallel']}: {w['error']}")
        if "none" not in measured:
            return
        one = measured["none"]["measured_ms"]
        best = min(w["measured_ms"] for w in measured.values() if w["ranks"] <= n)
        for w in measured.values():
            if w["ranks"] in (1, n):
                self.rows.append((name, w["ranks"], w["parallel"], w["predicted_ms"], w["measured_ms"], one / w["measured_ms"],
                                  "auto" if w["parallel"] == told["auto"] else ""))
        picked = measured.get(told["auto"])
        if picked and picked["measured_ms"] > 1.05 * best:
            self.notes.append(f"{name} on {n}: auto takes {told['auto']}, {picked['measured_ms'] / best - 1:.1%} slower than the fastest")
        kind, wanted = WANTED.get((name, n), (None, 0))
        if kind and not self.o.cpu:
            got = best if kind == "ms" else one / best
            met = got <= wanted if kind == "ms" else got >= wanted
            self.notes.append(f"{name} on {n}: {got:.2f} {kind}, wanted {wanted}: {'reached' if met else 'missed'}")

    def step(self, name, flags, n, plan):
        """Milliseconds of one step by one plan; None where it failed."""
        argv = [self.o.atelier, "bench", *flags, "--json"]
        argv += ["--devices", self.device(n), "--parallel", plan] if n > 1 else ["--device", self.device(1)]
        out = self.command(f"{name} on {n}", argv, self.o.limit)
        return json.loads(out)["step_ms"] if out else None

    def series(self, name, flags_of, counts, plan_of, times_of):
        """The same work on more and more devices; times_of(one device's ms, n's ms, n)."""
        one = None
        for n in counts:
            ms = self.step(name, flags_of(n), n, plan_of(n))
            one = ms if n == 1 else one
            if ms and one:
                self.rows.append((name, n, plan_of(n) if n > 1 else "none", None, ms, times_of(one, ms, n), ""))

    def peers(self, n):
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peer_ranks.py")
        for size in (1024, 2048):
            variants = "one,ulysses,ring,ulysses_compiled,ring_compiled"
            self.command(f"diffusers {size} on {n}", [sys.executable, script, "--diffusers", self.o.diffusers, "--variants", variants,
                                                      "--size", str(size), "--ranks", str(n)], 4 * self.o.limit)

    def table(self):
        lines = ["| work | GPUs | plan | foreseen ms | measured ms | error | times | |", "|---|---|---|---|---|---|---|---|"]
        for name, n, plan, foreseen, ms, times, word in self.rows:
            error = f"{100 * (foreseen / ms - 1):+.1f} %" if foreseen else ""
            lines.append(f"| {name} | {n} | {plan} | {f'{foreseen:.2f}' if foreseen else ''} | {ms:.2f} | {error} | {times:.2f} | {word} |")
        text = "\n".join(lines + [""] + [f"- {n}" for n in self.notes]) + "\n"
        with open(os.path.join(self.o.out, "table.md"), "w", encoding="utf-8") as f:
            f.write(text)
        print(text)


def gpus():
    try:
        return len(subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines())
    except (OSError, subprocess.CalledProcessError):
        return 0


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--atelier", required=True)
    a.add_argument("--out", default="many_ranks")
    a.add_argument("--ranks", type=int, help="at most (default: all GPUs)")
    a.add_argument("--cpu", type=int, help="threads of the CPU in place of GPUs, tiny nets: a dry run")
    a.add_argument("--limit", type=int, default=240, help="seconds of each command")
    a.add_argument("--only", help="parts of names, with commas between: flux 1024, sdxl, vae, pictures, diffusers")
    a.add_argument("--diffusers", help="its wheel: peers are measured too")
    o = a.parse_args()
    o.atelier = os.path.abspath(o.atelier)
    most = o.cpu or min(o.ranks or 256, gpus())
    if most < 1:
        sys.exit("many_ranks.py: no GPU is here (nvidia-smi -L); --cpu 2 is a dry run")
    counts = [n for n in (1, 2, 4, 8, 16) if n <= most]
    wanted = [w.strip() for w in o.only.split(",")] if o.only else None

    def asked(name):
        return not wanted or any(w in name for w in wanted)

    run = Run(o)
    for name, flags, extra in WORKS:
        for n in counts[1:]:
            if asked(name) and not (o.cpu and "sdxl" in name): # a whole SDXL takes a CPU minutes
                run.ways(name, flags, extra, n)
    if asked("vae 4096"):
        flags = ["--arch", "flux-vae", "--dtype", "f32", "--size", "64", "--steps", "1"] if o.cpu else DECODE
        run.series("vae 4096", lambda n: flags, counts, lambda n: f"patch={n}", lambda one, ms, n: one / ms)
    if asked("64 pictures"):
        flux = FLUX + (TINY if o.cpu else ["--dtype", "bf16", "--steps", "8"])
        # Each device has its own picture of the batch: rounds of n pictures.
        run.series("64 pictures", lambda n: flux + ["--batch", str(n)], counts, lambda n: f"cfg={n}", lambda one, ms, n: n * one / ms)
    if o.diffusers and not o.cpu and most > 1 and asked("diffusers"):
        for n in counts[1:]:
            run.peers(n)
    run.table()


if __name__ == "__main__":
    main()
