# SPDX-License-Identifier: Apache-2.0
"""Where the time goes: the file of --trace, and what `devices` tells of a GPU."""
import json
import math
import os
import re
import unittest

import kit


class Trace(kit.Case):
    def slices(self, name):
        with open(self.path(name)) as f:
            return [e for e in json.load(f)["traceEvents"] if e["ph"] == "X"]

    def test_a_run_is_taken_apart_into_nodes_steps_and_ops(self):
        r = self.run_workflow(kit.flux(), "--cpu", "--trace", self.path("t.json"))
        self.check(r, 0)
        found = self.slices("t.json")
        kinds = {e["cat"] for e in found}
        self.assertLessEqual({"node", "step", "op", "load"}, kinds)
        names = [e["name"] for e in found]
        self.assertIn("KSampler 7", names)
        self.assertEqual(sum(n.startswith("step ") for n in names), 2)
        linear = [e for e in found if e["name"].startswith("linear double_blocks.0.img_attn.qkv")]
        self.assertTrue(linear)
        for e in linear:
            self.assertIn(" x ", e["args"]["shapes"])
            self.assertGreater(e["args"]["gflop"], 0)
            self.assertGreater(e["args"]["bytes"], 0)
            self.assertTrue(e["args"]["kernel"])
        node = next(e for e in found if e["name"] == "KSampler 7")
        inside = [e for e in found if e["cat"] == "step"]
        for e in inside:
            self.assertGreaterEqual(e["ts"], node["ts"])
            self.assertLessEqual(e["ts"] + e["dur"], node["ts"] + node["dur"])

    def test_spans_leave_the_ops_out(self):
        r = self.run_workflow(kit.flux(), "--cpu", "--trace", self.path("s.json"), "--trace-level", "spans")
        self.check(r, 0)
        kinds = {e["cat"] for e in self.slices("s.json")}
        self.assertIn("step", kinds)
        self.assertNotIn("op", kinds)

    def test_a_picture_is_the_same_with_and_without(self):
        plain = self.check(self.run_workflow(kit.flux(), "--cpu", "--disable-metadata"), 0).out.split()[0]
        with open(plain, "rb") as f:
            bytes_of_plain = f.read()
        traced = self.check(self.run_workflow(kit.flux(), "--cpu", "--disable-metadata", "--trace",
                                              self.path("p.json")), 0).out.split()[0]
        with open(traced, "rb") as f:
            self.assertEqual(f.read(), bytes_of_plain)

    def test_a_trace_that_cannot_be_written_is_told(self):
        r = self.run_workflow(kit.flux(), "--cpu", "--trace", "/nowhere/t.json")
        self.check(r, 4, "--trace /nowhere/t.json")
        self.assertNotIn("step", r.err)  # before anything was computed

    def ranks_of(self, name, err, ranks, steps):
        """Every rank is there, nothing overlaps within a track, and the table says what the slices say."""
        with open(self.path(name)) as f:
            events = json.load(f)["traceEvents"]
        names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
        self.assertEqual(names, {r + 1: "rank %d, cpu" % r for r in range(ranks)})
        found = [e for e in events if e["ph"] == "X"]
        tracks = {}
        for e in found:
            tracks.setdefault((e["pid"], e["tid"]), []).append((e["ts"], -e["dur"]))
        for spans in tracks.values():
            inside = []  # ends of what is open
            for begin, length in sorted(spans):
                while inside and inside[-1] <= begin + 0.002:
                    inside.pop()
                self.assertLessEqual(begin - length, (inside or [math.inf])[-1] + 0.002)
                inside.append(begin - length)
        for r in range(ranks):
            of = [e for e in found if e["pid"] == r + 1]
            self.assertEqual(sum(e["cat"] == "step" for e in of), steps)
            row = re.search(r"^  rank %d +cpu +(.*)" % r, err, re.M).group(1).replace("%", "").split()
            step, compute, _, send, _, wait, _, rest = map(float, row[:8])
            self.assertAlmostEqual(compute + send + wait + rest, step, delta=0.02 * step)
            whole = sum(e["dur"] for e in of if e["cat"] == "step") / 1e3 / steps
            self.assertAlmostEqual(step, whole, delta=0.02 * whole)
            windows = [(e["ts"], e["ts"] + e["dur"]) for e in of if e["cat"] == "step"]
            for kind, told in (("send", send), ("wait", wait)):
                sum_of = sum(e["dur"] for e in of if e["cat"] == kind and
                             any(a <= e["ts"] < b for a, b in windows)) / 1e3 / steps
                self.assertAlmostEqual(told, sum_of, delta=0.02 * step)
                self.assertGreater(sum_of, 0)
            self.assertGreater(compute, 0)

    def test_ranks_have_their_own_tracks_and_a_table(self):
        for level in ("spans", "ops"):
            r = self.run_workflow(kit.flux(), "--cpu-ranks", "3", "--parallel", "ulysses=3", "--progress", "plain",
                                  "--trace", self.path("r.json"), "--trace-level", level)
            self.check(r, 0)
            self.ranks_of("r.json", r.err, 3, 2)

    def test_processes_write_one_trace(self):
        r = self.run_workflow(kit.flux(), "--cpu", "--processes", "2", "--parallel", "ring=2", "--progress", "plain",
                              "--trace", self.path("q.json"), "--trace-level", "spans")
        self.check(r, 0)
        self.ranks_of("q.json", r.err, 2, 2)
        self.assertFalse(os.path.exists(self.path("q.json.rank1")))

    @unittest.skipIf(kit.SANITIZED, "a minute of random weights")
    def test_bench_takes_a_step_apart(self):
        for more in ((), ("--first",)):
            r = self.check(self.atelier("bench", "--device", "cpu", "--arch", "clip-l",
                                        "--layers", "1", "--steps", "1", "--json", "--kernels", *more), 0)
            told = json.loads(r.out)
            ops = told["ops"]
            linear = next(c for c in ops["classes"] if c["class"] == "linear")
            self.assertEqual(linear["calls"], 6)
            self.assertAlmostEqual(linear["gflop"], told["linear_gflop"], places=6)
            self.assertGreater(told["floor_ms"], 0)
            self.assertGreater(told["ceilings"]["matmul_tflops"], 0)
            self.assertAlmostEqual(sum(k["ms"] for k in ops["kernels"]), sum(c["ms"] for c in ops["classes"]), places=3)
            self.assertEqual(len(told["first_ops"]["classes"]) > 0, "--first" in more)

    @unittest.skipIf(kit.SANITIZED, "a minute of random weights")
    def test_bench_tells_where_ranks_spend_a_step(self):
        for level in ("spans", "ops"):
            r = self.check(self.atelier("bench", "--devices", "cpu,cpu", "--parallel", "tp=2", "--arch", "clip-l",
                                        "--layers", "1", "--steps", "1", "--dtype", "f32", "--json",
                                        "--trace", self.path("b.json"), "--trace-level", level), 0)
            told = json.loads(r.out)
            self.assertLess(told["difference"], 1e-4)
            rows = told["trace_by_rank"]
            self.assertEqual([r["rank"] for r in rows], [0, 1])
            for row in rows:
                self.assertEqual(row["steps"], 5)
                self.assertEqual(row["exchanges"], 2)  # sums behind attention and MLP
                self.assertAlmostEqual(row["compute_ms"] + row["send_ms"] + row["wait_ms"] + row["rest_ms"],
                                       row["step_ms"], delta=0.02 * row["step_ms"])
            found = self.slices("b.json")
            self.assertEqual({e["pid"] for e in found}, {1, 2})
            self.assertEqual(any(e["cat"] == "op" for e in found), level == "ops")

    @unittest.skipIf(kit.SANITIZED, "a plug-in of the plain build")
    def test_devices_tells_what_a_gpu_is(self):
        before = dict(os.environ)
        os.environ.update(AT_PLUGINS=os.environ["ATELIER_FAKE"], AT_FAKE_CUDA="ok")
        try:
            text = self.check(self.atelier("devices"), 0).out
            told = json.loads(self.check(self.atelier("devices", "--json"), 0).out)
        finally:
            os.environ.clear()
            os.environ.update(before)
        self.assertIn("cuda:0   a fake GPU", text)
        self.assertIn("chip none at all", text)
        self.assertIn("now 50 % busy", text)
        gpu = next(d for d in told if d["name"] == "cuda:0")
        self.assertEqual(gpu["facts"]["chip"], "none at all")
        self.assertEqual(gpu["usage"]["watts"], 12)


if __name__ == "__main__":
    unittest.main()
