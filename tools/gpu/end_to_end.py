#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long a picture takes from the command to the PNG, and where: atelier's own events, stamped as they arrive.

    tools/gpu/end_to_end.py --atelier BIN --models DIR [--set N.I=V]... [--pictures 2] WORKFLOW.json [-- FLAGS OF RUN]

With --pictures 2 the workflow's nodes behind the loaders are doubled with another seed and another first word of the prompt,
so that the second picture finds its models resident, in one process. --words N makes every prompt N words long (of the
house model's vocabulary, a token each). Prints a table and one JSON line: seconds of the process up to the first node, of
each node, first step, median of the later steps, each picture, everything.
Easy to get wrong: a node's time ends with the next node's beginning, and work queued on a GPU by the sampler may be waited
for in the decoder; a picture's whole time is not touched by that.
"""
import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time


def doubled(workflow, pictures, words):
    """Copies of all nodes but loaders; texts of N words; seeds that differ."""
    loaders = {i for i, n in workflow.items() if "Loader" in n["class_type"]}
    out = {}
    for k in range(pictures):
        def name(i, k=k):
            return i if k == 0 or i in loaders else "%s_%d" % (i, k)
        for i, node in workflow.items():
            if name(i) in out:
                continue
            node = copy.deepcopy(node)
            for key, value in node["inputs"].items():
                if isinstance(value, list) and value[0] in workflow:
                    node["inputs"][key] = [name(value[0]), value[1]]
                elif key in ("seed", "noise_seed"):
                    node["inputs"][key] = value + k
                elif key == "text":
                    body = (["red", "house"] * words)[:words - 1] if words else [value]
                    node["inputs"][key] = " ".join([("a", "the", "big", "small")[k % 4]] + body)
            out[name(i)] = node
    return out


def stamped(command):
    """(seconds since the process began, event) of each JSON line."""
    start = time.perf_counter()
    p = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    events = []
    for line in p.stdout:
        if line.startswith("{"):
            events.append((time.perf_counter() - start, json.loads(line)))
    return events, time.perf_counter() - start, p.wait()


def digest(events, total):
    r = {"start_s": None, "nodes": [], "total_s": round(total, 3)}
    steps, running = {}, None
    for t, e in events + [(total, {"type": "end"})]:
        data = e.get("data", {})
        if e["type"] == "executing" and data.get("node") or e["type"] in ("execution_success", "end"):
            if running:
                r["nodes"].append({"node": running[1], "class": running[2], "s": round(t - running[0], 4)})
            elif r["start_s"] is None:
                r["start_s"] = round(t, 3)
            if e["type"] == "execution_success":
                r["exit_s"] = round(total - t, 3)
            running = (t, data["node"], data["class_type"]) if e["type"] == "executing" else None
        elif e["type"] == "progress" and "Sampler" in data.get("class_type", ""):
            steps.setdefault(data["node"], [running[0]]).append(t)
    for node, at in steps.items():
        spans = [b - a for a, b in zip(at, at[1:])]
        r.setdefault("samplers", []).append({
            "node": node, "steps": len(spans), "first_step_at_s": round(at[1], 3), "first_step_ms": round(1e3 * spans[0], 2),
            "median_ms": round(1e3 * statistics.median(spans[1:] or spans), 2),
            "mean_ms": round(1e3 * (at[-1] - at[1]) / max(1, len(at) - 2), 2)})
    for suffix in ("", "_1", "_2"):
        mine = [n["s"] for n in r["nodes"] if n["node"].endswith(suffix) and (suffix or "_" not in n["node"])]
        if mine:
            r.setdefault("pictures_s", []).append(round(sum(mine), 3))
    return r


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--atelier", required=True)
    a.add_argument("--models", required=True)
    a.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE")
    a.add_argument("--pictures", type=int, default=2)
    a.add_argument("--words", type=int, default=0)
    a.add_argument("--label", default="")
    a.add_argument("workflow")
    own, flags = sys.argv[1:], []
    if "--" in own:
        flags = own[own.index("--") + 1:]
        own = own[:own.index("--")]
    o = a.parse_args(own)
    with open(o.workflow) as f:
        workflow = json.load(f)
    for change in o.set:
        where, value = change.split("=", 1)
        node, key = where.rsplit(".", 1)
        old = workflow[node]["inputs"][key]
        workflow[node]["inputs"][key] = type(old)(value)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "workflow.json")
        with open(path, "w") as f:
            json.dump(doubled(workflow, o.pictures, o.words), f)
        events, total, status = stamped([o.atelier, "run", path, "--models", o.models, "--output", folder, "--progress",
                                         "json", *flags])
        pictures = [os.path.getsize(os.path.join(folder, n)) for n in os.listdir(folder) if n.endswith(".png")]
    r = {"label": o.label or os.path.basename(o.workflow), "status": status, "png_bytes": pictures, **digest(events, total)}
    for n in r["nodes"]:
        print("  %-8s %-24s %8.3f s" % (n["node"], n["class"], n["s"]))
    for s in r.get("samplers", []):
        print("  sampler %s: first step done %.2f s after the start, %.1f ms; later steps median %.1f ms, mean %.1f ms" %
              (s["node"], s["first_step_at_s"], s["first_step_ms"], s["median_ms"], s["mean_ms"]))
    print("  start %.2f s, pictures %s s, exit %.2f s, in all %.2f s" % (
        r["start_s"] or 0, " ".join("%.2f" % p for p in r.get("pictures_s", [])), r.get("exit_s", 0), total))
    print(json.dumps(r))
    return status or len(pictures) != o.pictures


if __name__ == "__main__":
    sys.exit(main())
