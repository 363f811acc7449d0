# SPDX-License-Identifier: Apache-2.0
"""/free: what a job loaded is closed, and with it goes what devices made of its weights."""
import json
import os
import shutil
import tempfile
import time
import unittest

from kit import SOURCE, Server
from test_crash import engine_of


class Free(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="atelier-free-")
        self.addCleanup(shutil.rmtree, self.dir, True)

    def forgets(self, *flags):
        server = Server(self.dir, "--models", os.path.join(SOURCE, "models"), *flags)
        self.addCleanup(server.stop)

        def open_files():
            text = ""
            for pid in engine_of(server) or [server.process.pid]:
                with open("/proc/%d/maps" % pid, encoding="utf-8") as f:
                    text += f.read()
            return {os.path.basename(line.split()[-1]) for line in text.splitlines() if line.endswith(".safetensors")}

        with open(os.path.join(SOURCE, "examples/house.json"), encoding="utf-8") as f:
            workflow = json.load(f)
        workflow["7"]["inputs"]["steps"] = 1
        files = {"house.safetensors", "house_clip_l.safetensors", "house_t5.safetensors", "house_vae.safetensors"}
        self.assertEqual(server.wait(server.submit(workflow).json()["prompt_id"])["status"]["status_str"], "success")
        self.assertEqual(open_files(), files)
        server.post("/free", {"unload_models": True})
        end = time.monotonic() + 20
        while open_files() and time.monotonic() < end:  # the executor forgets between jobs
            time.sleep(0.02)
        self.assertEqual(open_files(), set())
        workflow["7"]["inputs"]["seed"] += 1  # and the next job opens them again
        self.assertEqual(server.wait(server.submit(workflow).json()["prompt_id"])["status"]["status_str"], "success")
        self.assertEqual(open_files(), files)

    def test_model_files_are_closed(self):
        self.forgets()

    def test_in_one_process_too(self):
        self.forgets("--one-process")


if __name__ == "__main__":
    unittest.main()
