# SPDX-License-Identifier: Apache-2.0
"""Nothing is forgotten: kill -9 at any moment, and every accepted job ends exactly once after the next start."""
import json
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
import unittest

from kit import Server, Socket, is_end, node, picture, sleeper

ROUNDS = int(os.environ.get("ATELIER_CRASH_ROUNDS", "12"))


class Persist(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="atelier-persist-")
        self.server = None

    def tearDown(self):
        if self.server:
            self.server.stop(signal.SIGKILL)
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, *flags):
        self.server = Server(self.dir, *flags)
        return self.server

    def end(self, how):
        code = self.server.stop(how)
        self.server = None
        return code

    def everything_ended(self, jobs):
        for job in jobs:
            self.server.wait(job)
        history = self.server.get("/history").json()
        self.assertEqual(sorted(history), sorted(jobs))
        return history

    def test_history_and_counter_outlive_the_server(self):
        s = self.start()
        first = s.submit(picture(1), client_id="c", extra_data={"extra_pnginfo": {"workflow": {"x": 1}}}).json()
        before = s.wait(first["prompt_id"])
        self.assertEqual(self.end(signal.SIGTERM), 0)
        s = self.start()
        self.assertEqual(s.history(first["prompt_id"]), before)
        self.assertEqual(s.submit(picture(2)).json()["number"], first["number"] + 1)

    def test_a_stopped_server_keeps_what_runs_and_waits(self):
        s = self.start()
        jobs = [s.submit(sleeper(30 if i == 0 else 0, i)).json()["prompt_id"] for i in range(3)]
        while not s.get("/queue").json()["queue_running"]:
            time.sleep(0.01)
        began = time.monotonic()
        self.assertEqual(self.end(signal.SIGTERM), 0)
        self.assertLess(time.monotonic() - began, 25)  # the running job is not waited for
        s = self.start()
        queue = s.get("/queue").json()
        self.assertEqual([i[1] for i in queue["queue_running"] + queue["queue_pending"]], jobs)
        s.post("/interrupt", {"prompt_id": jobs[0]})
        deadline = time.monotonic() + 60
        while not s.history(jobs[0]) and time.monotonic() < deadline:  # it may not have begun yet
            s.post("/interrupt", {"prompt_id": jobs[0]})
            time.sleep(0.02)
        history = self.everything_ended(jobs)
        self.assertEqual([history[j]["status"]["status_str"] for j in jobs], ["error", "success", "success"])

    def test_killed_at_random_moments(self):
        random.seed(4)
        jobs = []
        for i in range(ROUNDS):
            s = self.start()
            for k in range(4):
                prompt = sleeper(random.choice([0, 0.01, 0.03]), i * 10 + k)
                prompt["5"] = node("SaveImage", images=["1", 0], filename_prefix="job%d_" % len(jobs))
                answer = s.submit(prompt)
                self.assertEqual(answer.status, 200)
                jobs.append(answer.json()["prompt_id"])
            time.sleep(random.random() * 0.08)
            self.end(signal.SIGKILL)
        self.start()
        history = self.everything_ended(jobs)
        # Order of acceptance is kept, and only a job that ended the server too often may be reported as failed.
        for job in jobs:
            status = history[job]["status"]
            if status["status_str"] != "success":
                self.assertIn("not tried again", json.dumps(status))
        # A job's picture is there once, however often it was begun.
        pictures = sorted(os.listdir(os.path.join(self.dir, "output")))
        wanted = ["job%d__00001_.png" % i for i, job in enumerate(jobs) if history[job]["status"]["status_str"] == "success"]
        self.assertEqual(sorted(set(wanted) - set(pictures)), [])
        self.assertEqual([n for n in pictures if not n.endswith("__00001_.png")], [])
        numbers = [history[j]["prompt"][0] for j in jobs]
        self.assertEqual(numbers, sorted(set(numbers)))

    def test_no_half_written_picture_is_seen(self):
        for i in range(6):
            s = self.start()
            s.submit({"1": picture(i, width=2048, height=2048)["1"],
                      "2": picture(i, "big")["2"]})
            time.sleep(0.02 + 0.03 * i)
            self.end(signal.SIGKILL)
            for name in os.listdir(os.path.join(self.dir, "output")):
                if name.endswith(".png"):
                    with open(os.path.join(self.dir, "output", name), "rb") as f:
                        data = f.read()
                    self.assertEqual(data[-8:-4], b"IEND", name)

    def test_a_job_that_was_cut_off_writes_its_pictures_once(self):
        prompt = {"1": node("EmptyImage", width=64, height=64, batch_size=3, color=7),
                  "2": node("SaveImage", images=["1", 0], filename_prefix="once"),
                  "3": node("TestSleep", value=["1", 0], seconds=30),
                  "4": node("SaveImage", images=["3", 0], filename_prefix="late")}
        names = ["once_%05d_.png" % i for i in (1, 2, 3)]
        s = self.start("--drain-seconds", "0")
        other = self.start_picture(s, "once", 99)  # once_00001_ is another job's
        names = ["once_%05d_.png" % i for i in (2, 3, 4)]
        job = s.submit(prompt).json()["prompt_id"]
        end = time.monotonic() + 30
        while not all(map(self.saved, names)) and time.monotonic() < end:
            time.sleep(0.01)
        self.end(signal.SIGKILL)
        self.assertEqual(len(os.listdir(os.path.join(self.dir, "user", "claims"))), 1)
        os.remove(os.path.join(self.dir, "output", names[1]))  # what is gone is written again under a new name
        with open(os.path.join(self.dir, "output", names[1] + ".new"), "wb") as f:
            f.write(b"somebody else's")
        os.rename(f.name, os.path.join(self.dir, "output", names[1]))
        s = self.start("--drain-seconds", "0")
        end = time.monotonic() + 30
        while not self.saved("once_00006_.png") and time.monotonic() < end:
            time.sleep(0.01)
        s.post("/interrupt")
        while not s.history(job) and time.monotonic() < end:
            s.post("/interrupt")
        shown = [i["filename"] for i in s.history(job)["outputs"]["2"]["images"]]
        self.assertEqual(shown, [names[0], "once_00006_.png", names[2]])
        self.assertEqual(sorted(n for n in os.listdir(os.path.join(self.dir, "output")) if n.startswith("once")),
                         ["once_00001_.png"] + names + ["once_00006_.png"])
        with open(os.path.join(self.dir, "output", names[1]), "rb") as f:
            self.assertEqual(f.read(), b"somebody else's")
        self.assertEqual(os.listdir(os.path.join(self.dir, "user", "claims")), [])
        self.assertEqual(s.history(other)["outputs"]["2"]["images"][0]["filename"], "once_00001_.png")

    def saved(self, name):
        return os.path.exists(os.path.join(self.dir, "output", name))

    def start_picture(self, s, prefix, color):
        job = s.submit(picture(color, prefix)).json()["prompt_id"]
        s.wait(job)
        return job

    def test_a_job_that_ends_the_server_twice_is_reported(self):
        s = self.start()
        job = s.submit(sleeper(30)).json()["prompt_id"]
        while not s.get("/queue").json()["queue_running"]:
            time.sleep(0.01)
        self.end(signal.SIGKILL)
        s = self.start()
        while not s.get("/queue").json()["queue_running"]:
            time.sleep(0.01)
        self.end(signal.SIGKILL)
        s = self.start()
        entry = s.history(job)
        self.assertEqual(entry["status"]["status_str"], "error")
        self.assertFalse(entry["status"]["completed"])
        kind, data = entry["status"]["messages"][-1]
        self.assertEqual(kind, "execution_error")
        self.assertIn("not tried again", data["exception_message"])
        self.assertEqual(data["prompt_id"], job)
        self.assertEqual(s.get("/queue").json(), {"queue_running": [], "queue_pending": []})

    def test_no_persist_forgets(self):
        s = self.start("--no-persist")
        s.wait(s.submit(picture()).json()["prompt_id"])
        self.end(signal.SIGTERM)
        self.assertEqual(self.start("--no-persist").get("/history").json(), {})
        self.assertFalse(os.path.exists(os.path.join(self.dir, "user", "atelier.db")))

    def test_a_second_server_on_the_same_folder_is_refused(self):
        self.start()
        with self.assertRaisesRegex(RuntimeError, "another server holds it"):
            Server(self.dir)

    def test_a_broken_database_is_named(self):
        os.makedirs(os.path.join(self.dir, "user"))
        with open(os.path.join(self.dir, "user", "atelier.db"), "wb") as f:
            f.write(b"this is no database" * 100)
        with self.assertRaisesRegex(RuntimeError, "atelier.db"):
            Server(self.dir)

    def test_the_table_holds_no_secret(self):
        s = self.start()
        job = s.submit(picture(), extra_data={"auth_token_comfy_org": "s3cret", "api_key_comfy_org": "k3y"}).json()
        entry = s.wait(job["prompt_id"])
        self.assertEqual(entry["prompt"][3], {})
        self.end(signal.SIGTERM)
        with sqlite3.connect(os.path.join(self.dir, "user", "atelier.db")) as db:
            self.assertNotIn("s3cret", repr(db.execute("SELECT * FROM jobs").fetchall()))


if __name__ == "__main__":
    unittest.main()
