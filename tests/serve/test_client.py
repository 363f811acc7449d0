# SPDX-License-Identifier: Apache-2.0
"""atelier run --server: submits there, shows the progress here, prints where the files are."""
import json
import os
import signal
import subprocess
import time
import unittest
import urllib.parse

from kit import BIN, PATIENCE, Case, node, picture, sleeper


class Client(Case):
    def run_there(self, workflow, *more, url=None):
        with open(self.path("w.json"), "w") as f:
            json.dump(workflow, f)
        return subprocess.run([BIN, "run", self.path("w.json"), "--server",
                               url or "http://127.0.0.1:%d/" % self.server.port, *more],
                              capture_output=True, text=True, timeout=PATIENCE * 2, cwd=self.dir)

    def test_a_picture_is_made_there(self):
        done = self.run_there(picture(5, "remote one/p"), "--set", "1.color=255", "--progress", "plain")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("node 1 EmptyImage", done.stderr)
        (line,) = done.stdout.split()
        url = urllib.parse.urlsplit(line)
        answer = self.server.get("%s?%s" % (url.path, url.query))
        self.assertEqual((answer.status, answer.body[1:4]), (200, b"PNG"))
        (entry,) = [h for h in self.server.get("/history").json().values()
                    if h["prompt"][2].get("2", {"inputs": {}})["inputs"].get("filename_prefix") == "remote one/p"]
        self.assertEqual(entry["prompt"][2]["1"]["inputs"]["color"], 255)

    def test_progress_as_json(self):
        prompt = {"1": node("EmptyImage", width=64, height=64, batch_size=3, color=9),
                  "9": node("SaveImageWebsocket", images=["1", 0])}
        done = self.run_there(prompt, "--progress", "json")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        kinds = [m["type"] for m in lines]
        self.assertEqual(kinds[0], "execution_start")
        self.assertEqual(kinds[-1], "execution_success")
        self.assertEqual(kinds.count("progress"), 3)

    def test_a_refused_workflow(self):
        done = self.run_there({"1": node("EmptyImage", width=0, height=64, batch_size=1, color=0),
                               "2": node("SaveImage", images=["1", 0], filename_prefix="x")})
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("Value 0 smaller than min of 1", done.stderr)

    def test_a_job_that_fails_there(self):
        done = self.run_there({"1": node("EmptyImage", width=64, height=64, batch_size=1, color=2),
                               "2": node("TestSyncError", value=["1", 0]), "3": node("PreviewImage", images=["2", 0])})
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("node 2 (TestSyncError): Intentional sync execution error", done.stderr)

    def test_an_interrupt_ends_the_job_there(self):
        with open(self.path("s.json"), "w") as f:
            json.dump(sleeper(60, 17), f)
        client = subprocess.Popen([BIN, "run", self.path("s.json"), "--server", "127.0.0.1:%d" % self.server.port],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=self.dir)
        while not self.server.get("/queue").json()["queue_running"]:
            time.sleep(0.02)
        client.send_signal(signal.SIGINT)
        client.communicate(timeout=PATIENCE)
        self.assertEqual(client.returncode, 130)
        self.server.idle()

    def test_nobody_there(self):
        done = self.run_there(picture(), url="http://127.0.0.1:1")
        self.assertEqual(done.returncode, 4)
        self.assertIn("does not answer", done.stderr)
        self.assertEqual(self.run_there(picture(), url="http://:x").returncode, 2)


if __name__ == "__main__":
    unittest.main()
