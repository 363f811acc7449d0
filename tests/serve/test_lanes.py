# SPDX-License-Identifier: Apache-2.0
"""Jobs that wait run side by side, each on its part of the devices (here: ranks on the CPU), and nothing else changes:
order, events, interrupts, names of files, ends told once."""
import json
import os
import random
import shutil
import signal
import tempfile
import time
import unittest

from kit import PATIENCE, SOURCE, Case, Server, Socket, is_end, node, picture, sleeper
from test_crash import crash, engine_of

ROUNDS = int(os.environ.get("ATELIER_CRASH_ROUNDS", "6"))
LANES = ("--cpu-ranks", "4", "--lanes", "2")


def until(fact, what, patience=PATIENCE):
    end = time.monotonic() + patience
    while not fact():
        if time.monotonic() > end:
            raise AssertionError(what)
        time.sleep(0.005)


def running(server):
    return [item[1] for item in server.get("/queue").json()["queue_running"]]


def times(entry):
    """When a job began and ended, in ms."""
    told = dict(entry["status"]["messages"])
    end = next(v for k, v in told.items() if k in ("execution_success", "execution_error", "execution_interrupted"))
    return told["execution_start"]["timestamp"], end["timestamp"]


class SideBySide(Case):
    flags = LANES

    def submit(self, prompt, **more):
        return self.server.submit(prompt, **more).json()["prompt_id"]

    def warm(self):
        """Both engines are there: the second one comes when a job waits."""
        jobs = [self.submit(sleeper(0.2, 1000 + i)) for i in range(3)]
        until(lambda: len(engine_of(self.server)) == 2, "there is no second engine")
        for job in jobs:
            self.assertEqual(self.server.wait(job)["status"]["status_str"], "success")

    def two(self, *prompts, **more):
        """Two jobs that run at the same time."""
        self.warm()
        self.server.idle()
        first = self.submit(sleeper(0.3, 2000))  # alone it has all devices: the next two wait for it
        jobs = [self.submit(p, **more) for p in prompts]
        self.server.wait(first)
        until(lambda: sorted(running(self.server)) == sorted(jobs), "they do not run side by side")
        return jobs

    def test_jobs_that_wait_run_two_at_a_time_in_their_order(self):
        self.warm()
        jobs = [self.submit(sleeper(0.4, i)) for i in range(7)]
        most = 0
        while self.server.get("/prompt").json()["exec_info"]["queue_remaining"]:
            most = max(most, len(running(self.server)))
            time.sleep(0.01)
        self.assertEqual(most, 2)
        spans = [times(self.server.wait(job)) for job in jobs]
        begins = [begin for begin, _ in spans]
        for earlier, later in zip(begins, begins[1:]):
            self.assertLess(earlier, later + 100, begins)  # two at once: either may tell it first
        for i, (begin, _) in enumerate(spans):
            self.assertLess(sum(b <= begin < e for b, e in spans[:i]), 2, spans)  # one beside it
        beside = sum(b < e0 and b0 < e for (b0, e0), (b, e) in zip(spans[1:], spans[2:]))
        self.assertGreaterEqual(beside, 3, spans)
        ended = list(self.server.get("/history").json())
        self.assertEqual(len(ended), len(set(ended)))
        done = sorted((e, job) for (_, e), job in zip(spans, jobs))
        self.assertEqual(sorted(jobs, key=ended.index)[0], done[0][1])

    def test_a_job_alone_has_all_devices(self):
        self.warm()
        self.server.idle()
        first = self.submit(sleeper(0.6, 50))
        until(lambda: running(self.server) == [first], "it does not run")
        second = self.submit(sleeper(0, 51))
        self.server.wait(second)
        self.assertGreaterEqual(times(self.server.wait(second))[0], times(self.server.wait(first))[1])

    def test_an_interrupt_hits_the_job_it_names_and_without_a_name_all_that_run(self):
        one, other = self.two(sleeper(60, 60), sleeper(60, 61))
        self.assertEqual(self.server.post("/interrupt", {"prompt_id": other}).status, 200)
        self.assertEqual(self.server.wait(other)["status"]["messages"][-1][0], "execution_interrupted")
        self.assertEqual(running(self.server), [one])
        third = self.submit(sleeper(60, 62))
        until(lambda: set(running(self.server)) == {one, third}, "the free lane takes no job")
        self.server.post("/interrupt")
        for job in (one, third):
            self.assertEqual(self.server.wait(job)["status"]["messages"][-1][0], "execution_interrupted")

    def test_a_crash_ends_its_own_job_alone(self):
        for how in ("KILL", "EXIT"):
            slow = sleeper(2, 70 + len(how))
            dies = crash(how, 70)
            dies["2"] = node("TestSleep", value=["1", 0], seconds=1)  # long enough to be seen beside the other on a busy machine
            dies["3"]["inputs"]["value"] = ["2", 0]
            for jobs in (self.two(slow, dies), self.two(dies, sleeper(2, 80 + len(how)))):
                entries = [self.server.wait(job) for job in jobs]
                words = sorted(e["status"]["status_str"] for e in entries)
                self.assertEqual(words, ["error", "success"])
                lost = next(e for e in entries if e["status"]["status_str"] == "error")
                self.assertIn("not tried again", lost["status"]["messages"][-1][1]["exception_message"])
        self.assertEqual(self.server.wait(self.submit(picture(90)))["status"]["status_str"], "success")

    def test_a_client_hears_of_its_own_job(self):
        self.warm()
        sockets = {name: Socket(self.server, client=name) for name in ("ann", "bob")}
        first = self.submit(sleeper(0.3, 100))
        jobs = {name: self.submit(sleeper(1, 101 + i), client_id=name) for i, name in enumerate(sockets)}
        self.server.wait(first)
        until(lambda: len(running(self.server)) == 2, "they do not run side by side")
        for name, socket in sockets.items():
            told = [m for m in socket.until(is_end(jobs[name])) if isinstance(m, dict)]
            ids = {m["data"].get("prompt_id") for m in told if m["type"].startswith("exec")}
            self.assertEqual(ids, {jobs[name]})
            kinds = [m["type"] for m in told if m["type"].startswith("execution_")]
            self.assertEqual(kinds, ["execution_start", "execution_cached", "execution_success"])
            socket.close()

    def test_who_comes_back_is_told_what_runs_for_it(self):
        self.warm()
        self.server.idle()
        first = self.submit(sleeper(0.3, 110))
        jobs = [self.submit(sleeper(1, 111 + i), client_id="come%d" % i) for i in range(2)]
        self.server.wait(first)
        until(lambda: len(running(self.server)) == 2, "they do not run side by side")
        time.sleep(0.1)
        for i in range(2):
            socket = Socket(self.server, client="come%d" % i)
            told = socket.until(lambda m: isinstance(m, dict) and m["type"] == "executing")
            self.assertEqual(told[-1]["data"]["node"], "3")
            socket.close()
        for job in jobs:
            self.server.wait(job)

    def test_files_of_one_prefix_get_different_names(self):
        self.warm()
        prompt = lambda i: {"1": node("EmptyImage", width=256, height=256, batch_size=3, color=i),
                            "2": node("SaveImage", images=["1", 0], filename_prefix="same")}
        jobs = [self.submit(prompt(i)) for i in range(16)]
        names = [image["filename"] for job in jobs
                 for image in self.server.wait(job)["outputs"]["2"]["images"]]
        self.assertEqual(sorted(names), ["same_%05d_.png" % (i + 1) for i in range(48)])
        self.assertEqual(sorted(n for n in os.listdir(self.path("output")) if n.startswith("same")), sorted(names))

    def test_free_ends_the_second_engine(self):
        self.warm()
        self.server.idle()
        self.server.post("/free", {"unload_models": True})
        until(lambda: len(engine_of(self.server)) == 1, "the second engine stays")
        self.warm()

    def test_an_engine_that_dies_idle_comes_back(self):
        self.warm()
        self.server.idle()
        for engine in engine_of(self.server):
            os.kill(engine, signal.SIGKILL)
        jobs = [self.submit(sleeper(0.05, 120 + i)) for i in range(6)]
        for job in jobs:
            self.assertEqual(self.server.wait(job)["status"]["status_str"], "success")


class Ends(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="atelier-lanes-")
        self.addCleanup(shutil.rmtree, self.dir, True)

    def serve(self, *flags):
        server = Server(self.dir, *flags)
        self.addCleanup(server.stop, signal.SIGKILL)
        return server

    def test_what_is_refused(self):
        for flags, words in ((("--lanes", "two"), "auto, or a number"), (("--lanes", "0"), "auto, or a number"),
                             (("--cpu-ranks", "2", "--lanes", "3"), "2 at most"),
                             (("--cpu-ranks", "4", "--parallel", "cfg=2,ring=2", "--lanes", "2"), "1 at most"),
                             (("--one-process", "--lanes", "2"), "exclude each other")):
            with self.assertRaisesRegex(RuntimeError, words):
                Server(self.dir, *flags)

    def test_ranks_of_one_processor_have_one_lane_unless_asked(self):
        server = self.serve("--cpu-ranks", "4")
        jobs = [server.submit(sleeper(0.1, i)).json()["prompt_id"] for i in range(4)]
        while server.get("/prompt").json()["exec_info"]["queue_remaining"]:
            self.assertLessEqual(len(running(server)), 1)
            self.assertEqual(len(engine_of(server)), 1)
        for job in jobs:
            server.wait(job)

    def test_pictures_are_those_of_jobs_that_run_alone(self):
        with open(os.path.join(SOURCE, "examples/house.json"), encoding="utf-8") as f:
            house = json.load(f)
        house["6"]["inputs"].update(width=64, height=64)
        pictures = []
        for ranks, lanes in (("4", "2"), ("2", "1")):  # two ranks for each job in both
            folder = os.path.join(self.dir, lanes)
            server = self.serve("--cpu-ranks", ranks, "--lanes", lanes, "--parallel", "cfg=2", "--models",
                                os.path.join(SOURCE, "models"), "--output-directory", folder, "--dtype", "f32")
            jobs = []
            for seed in range(6):
                house["7"]["inputs"].update(seed=seed, steps=2)
                house["9"]["inputs"]["filename_prefix"] = "seed%d" % seed
                jobs.append(server.submit(house).json()["prompt_id"])
            most = 0
            while server.get("/prompt").json()["exec_info"]["queue_remaining"]:
                most = max(most, len(running(server)))
            self.assertEqual(most, int(lanes))
            for job in jobs:
                self.assertEqual(server.wait(job)["status"]["status_str"], "success")
            server.stop()
            pictures.append({})
            for name in os.listdir(folder):
                with open(os.path.join(folder, name), "rb") as f:
                    pictures[-1][name] = f.read()
        self.assertEqual(len(pictures[0]), 6)
        self.assertEqual(pictures[0], pictures[1])

    def test_a_stop_lets_running_jobs_end_and_keeps_those_that_wait(self):
        server = self.serve("--drain-seconds", "30", *LANES)
        jobs = [server.submit(sleeper(1, i)).json()["prompt_id"] for i in range(5)]
        until(lambda: len(running(server)) == 2, "they do not run side by side")
        at = running(server)
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.process.wait(30), 0)
        server = self.serve("--drain-seconds", "0", *LANES)
        for job in at:
            self.assertEqual(server.history(job)["status"]["status_str"], "success")
        until(lambda: len(running(server)) == 2 or not server.get("/queue").json()["queue_pending"], "no jobs run")
        self.assertEqual(server.stop(), 0)  # what runs waits again
        server = self.serve(*LANES)
        for job in jobs:
            self.assertEqual(server.wait(job)["status"]["status_str"], "success")
        self.assertEqual(sorted(server.get("/history").json()), sorted(jobs))

    def test_killed_at_random_moments(self):
        random.seed(9)
        jobs = []
        for i in range(ROUNDS):
            server = self.serve(*LANES)
            for k in range(5):
                prompt = sleeper(random.choice([0, 0.05, 0.2]), i * 10 + k)
                prompt["5"] = node("SaveImage", images=["1", 0], filename_prefix="job%d_" % len(jobs))
                jobs.append(server.submit(prompt).json()["prompt_id"])
            if i % 2:
                until(lambda: len(running(server)) == 2 or not running(server), "no jobs run")
            time.sleep(random.random() * 0.2)
            server.stop(signal.SIGKILL)
        server = self.serve(*LANES)
        for job in jobs:
            server.wait(job)
        history = server.get("/history").json()
        self.assertEqual(sorted(history), sorted(jobs))
        good = [i for i, job in enumerate(jobs) if history[job]["status"]["status_str"] == "success"]
        for i, job in enumerate(jobs):
            if i not in good:
                self.assertIn("not tried again", json.dumps(history[job]["status"]))
        saved = os.listdir(os.path.join(self.dir, "output"))
        self.assertEqual([n for n in saved if not n.endswith("__00001_.png")], [])  # once, however often begun
        self.assertEqual(sorted({"job%d__00001_.png" % i for i in good} - set(saved)), [])


if __name__ == "__main__":
    unittest.main()
