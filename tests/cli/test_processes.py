# SPDX-License-Identifier: Apache-2.0
"""One picture by several processes: every plan gives what one rank gives, and a lost process ends nobody else.

The same solver, sums and tolerances as in test_parallel; the words and, on a CPU, the data go over TCP.
"""
import array
import glob
import json
import math
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

import kit
import png


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def latents(path):
    """All f32 of a SaveLatent file, which is safetensors."""
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        begin, end = json.loads(f.read(size))["latent_tensor"]["data_offsets"]
        f.seek(8 + size + begin)
        return array.array("f", f.read(end - begin))


class Processes(kit.Case):
    def nodes(self, **more):
        return dict(kit.flux(**more), **{"90": kit.node("SaveLatent", samples=["7", 0], filename_prefix="z")})

    def drawn(self):
        files = self.outputs()
        z = [v for f in files if f.endswith(".latent") for v in latents(f)]
        pixels = b"".join(bytes(v for row in png.read(f)[2] for p in row for v in p) for f in files if f.endswith(".png"))
        self.assertTrue(z and pixels)
        self.assertEqual(len(files), 2)  # rank 0 alone saves
        return z, pixels

    def draw(self, nodes, *flags):
        self.setUp()
        r = self.run_workflow(nodes, "--progress", "none", "--dtype", "f32", "--threads", "1", "--cpu", *flags, timeout=100)
        self.check(r, 0)
        self.assertEqual(len(r.out.splitlines()), 2)  # and alone tells where
        return self.drawn()

    def alike(self, one, other):
        self.assertEqual((len(one[0]), len(one[1])), (len(other[0]), len(other[1])))
        norm = math.sqrt(sum(v * v for v in one[0]))
        error = math.sqrt(sum((a - b) ** 2 for a, b in zip(one[0], other[0]))) / norm
        self.assertLessEqual(error, 1e-4)
        self.assertLessEqual(max(abs(a - b) for a, b in zip(one[1], other[1])), 1)

    def test_they_draw_what_one_draws(self):
        nodes = self.nodes(width=80, height=112)
        one = self.draw(nodes, "--parallel", "none")
        before = set(glob.glob(os.path.join(tempfile.gettempdir(), "atelier_rank_*")))
        for flags in (("2", "ulysses=2"), ("3", "ring=3"), ("2", "cfg=2"), ("2", "tp=2"), ("4", "cfg=2,ulysses=2"), ("2", "auto"),
                      ("2", "none")):
            self.alike(one, self.draw(nodes, "--processes", flags[0], "--parallel", flags[1]))
        self.assertEqual(before, set(glob.glob(os.path.join(tempfile.gettempdir(), "atelier_rank_*"))))

    def places(self):
        return "--base-directory", self.dir

    # --- started by hand ----------------------------------------------------------------------------------
    def start(self, path, rank, ranks, port, *flags, secret="s"):
        return subprocess.Popen([kit.BIN, "run", path, "--cpu", "--dtype", "f32", "--threads", "1", "--progress", "none",
                                 "--rank", str(rank), "--ranks", str(ranks), "--rendezvous", f"127.0.0.1:{port}",
                                 *self.places(), *flags], cwd=self.dir,
                                env=dict(os.environ, ATELIER_SECRET=secret), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def test_by_hand_and_one_is_killed(self):
        nodes = self.nodes()
        one = self.draw(nodes, "--parallel", "none")
        self.setUp()
        path = self.workflow(nodes)
        port = free_port()
        both = [self.start(path, r, 2, port, "--parallel", "ulysses=2") for r in (1, 0)]
        for p in both:
            out, err = p.communicate(timeout=100)
            self.assertEqual(p.returncode, 0, err)
        self.alike(one, self.drawn())

        nodes = self.nodes(width=256, height=256, steps=2000)
        self.setUp()
        path = self.workflow(nodes)
        port = free_port()
        three = [self.start(path, r, 3, port, "--parallel", "ulysses=3") for r in range(3)]
        time.sleep(4)
        three[1].send_signal(signal.SIGKILL)
        began = time.time()
        for r in (0, 2):
            out, err = three[r].communicate(timeout=20)
            self.assertNotIn(three[r].returncode, (0, -signal.SIGKILL))
            self.assertGreater(three[r].returncode, 0, err)
            self.assertIn("rank 1 of 3 is gone", err)
        self.assertLess(time.time() - began, 10)
        three[1].communicate()
        self.assertEqual(self.outputs(), [])

    def test_who_does_not_belong(self):
        path = self.workflow(self.nodes())
        port = free_port()
        pair = [self.start(path, 0, 2, port), self.start(path, 1, 2, port, "--set", "7.seed=99")]
        texts = [p.communicate(timeout=60)[1] for p in pair]
        self.assertTrue(all(p.returncode > 0 for p in pair))
        self.assertIn("rank 1 has another version, workflow or plan", texts[0])

    def test_flags(self):
        path = self.workflow(self.nodes())
        for flags, words in ((("--rank", "0"), "go together"),
                             (("--rank", "2", "--ranks", "2", "--rendezvous", "h:1"), "0 to 1 are possible"),
                             (("--processes", "2", "--rank", "1"), "starts the other ranks itself"),
                             (("--processes", "2", "--cpu-ranks", "2"), "one device"),
                             (("--processes", "2", "--parallel", "ulysses=3"), "for 3 ranks"),
                             (("--rank", "0", "--ranks", "2", "--rendezvous", "nowhere"), "HOST:PORT")):
            self.check(self.atelier("run", path, "--cpu", *self.places(), *flags), 2 if "HOST" not in words else 3, words)


if __name__ == "__main__":
    unittest.main()
