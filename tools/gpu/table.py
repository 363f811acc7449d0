#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The logs of run_all.sh as one Markdown table: our times beside the peers' of the same run.

    tools/gpu/table.py OUT_DIR [PREFIX]      reads OUT_DIR/PREFIX{bench,peers,peers_compiled,e2e_flux,e2e_sdxl,house}.txt

What is not there is left empty. The ratio is the fastest peer over ours.
"""
import json
import os
import re
import sys

# (what, our bench: shape and type, peers' variants: eager ones, compiled ones)
ROWS = (
    ("Flux.1 dev step, bf16, 512 text tokens", ("flux1-dev", "bf16"), ("eager",), ("compiled", "graphs")),
    ("the same, fp8", ("flux1-dev", "fp8"), ("fp8_fast", "fp8_row"),
     ("fp8_fast_compiled", "fp8_row_compiled", "fp8_row_graphs")),
    ("SDXL step with CFG, fp16", ("sdxl", "f16"), ("sdxl", "sdxl_nhwc"),
     ("sdxl_compiled", "sdxl_nhwc_compiled", "sdxl_nhwc_graphs")),
    ("SD1.5 512 x 512 step with CFG, fp16", ("sd15", "f16"), ("sd15", "sd15_nhwc"),
     ("sd15_compiled", "sd15_nhwc_compiled", "sd15_nhwc_graphs")),
    ("VAE decode, bf16", ("flux-vae", "bf16"), ("vae_decode",), ("vae_decode_compiled",)),
    ("VAE encode, bf16", ("flux-vae-encode", "bf16"), ("vae_encode",), ()),
    ("T5-XXL, 512 tokens, bf16", ("t5-xxl", "bf16"), ("t5",), ("t5_compiled",)),
    ("CLIP-L, 77 tokens, f16", ("clip-l", "f16"), (), ()),
)


def lines(folder, prefix, name):
    path = os.path.join(folder, prefix + name + ".txt")
    return open(path, errors="replace").read().splitlines() if os.path.exists(path) else []


def our_steps(text):
    """{(shape, type): (ms, what the clock line says)}"""
    found, shape, kind, last = {}, None, None, None
    for line in text:
        if m := re.match(r"(\S+) \(", line):
            shape = m.group(1)
        elif m := re.search(r"compute (\w+)(, fp8)?", line):
            kind = "fp8" if m.group(2) else m.group(1)
        elif m := re.match(r"  step +([\d.]+) ms", line):
            last = (shape, kind)
            found[last] = (float(m.group(1)), "")
        elif (m := re.match(r"  clock +(.*)", line)) and last:
            found[last] = (found[last][0], m.group(1))
    return found


def records(text):
    return [json.loads(line) for line in text if line.startswith("{")]


def best(times, variants):
    known = [(times[v], v) for v in variants if v in times]
    return min(known) if known else None


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    folder, prefix = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    ours = our_steps(lines(folder, prefix, "bench"))
    peers = records(lines(folder, prefix, "peers")) + records(lines(folder, prefix, "peers_compiled"))
    times = {p["variant"]: p["ms"] for p in peers if "ms" in p}
    print("| work | ours | ComfyUI eager | ComfyUI compiled | ratio |\n|---|---|---|---|---|")
    for what, key, eager, compiled in ROWS:
        mine, e, c = ours.get(key), best(times, eager), best(times, compiled)
        cells = ["%.1f ms" % mine[0] if mine else ""]
        cells += ["%.1f ms (%s)" % (p[0], p[1]) if p else "" for p in (e, c)]
        peer = min(p[0] for p in (e, c) if p) if e or c else None
        cells.append("%.2f" % (peer / mine[0]) if mine and peer else "")
        print("| %s | %s |" % (what, " | ".join(cells)))
    for key, (_, clock) in ours.items():
        if clock:
            print("clock, %s %s: %s" % (*key, clock))
    print("\n| from the command to the PNG | first step done | first picture | second, resident | a step | exit |")
    print("|---|---|---|---|---|---|")
    for r in records(lines(folder, prefix, "e2e_flux")) + records(lines(folder, prefix, "e2e_sdxl")):
        s, p = r.get("samplers") or [{}], (r.get("pictures_s") or []) + [0, 0]
        print("| %s%s | %.2f s | %.2f s | %.2f s | %.1f ms | %.2f s |" % (
            r["label"], "" if r["status"] == 0 else " FAILED", s[0].get("first_step_at_s", 0), p[0] + (r["start_s"] or 0), p[1],
            s[-1].get("median_ms", 0), r.get("exit_s", 0)))
    for p in peers:
        if "error" in p:
            print("not measured: %s: %s" % (p["variant"], p["error"][:150]))
    for line in lines(folder, prefix, "house"):
        if "asked" in line or "each" in line:
            print(line)


if __name__ == "__main__":
    main()
