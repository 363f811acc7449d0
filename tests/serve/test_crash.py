# SPDX-License-Identifier: Apache-2.0
"""A crash in a node ends that job alone: sockets, queue and history go on, and the next job runs."""
import json
import os
import re
import shutil
import signal
import tempfile
import time
import unittest

from kit import SANITIZED, Case, Server, Socket, is_end, node, picture, sleeper

# A sanitizer takes these signals for findings of its own.
WAYS = {"KILL": "signal 9", "EXIT": "exit status 7"} if SANITIZED else {
    "SEGV": "signal 11", "ABRT": "signal 6", "FPE": "signal 8", "KILL": "signal 9", "EXIT": "exit status 7"}


def crash(how, color=0, once=""):
    return {"1": node("EmptyImage", width=64, height=64, batch_size=1, color=color),
            "3": node("TestCrash", value=["1", 0], how=how, once=once),
            "4": node("PreviewImage", images=["3", 0])}


def engine_of(server):
    """The id of the server's engine process."""
    with open("/proc/%d/task/%d/children" % (server.process.pid, server.process.pid)) as f:
        direct = f.read().split()
    for thread in os.listdir("/proc/%d/task" % server.process.pid):
        with open("/proc/%d/task/%s/children" % (server.process.pid, thread)) as f:
            direct += f.read().split()
    return sorted(set(int(i) for i in direct))


class Crash(Case):
    def test_each_way_ends_that_job_alone(self):
        socket = Socket(self.server, client="me")
        for i, (how, words) in enumerate(WAYS.items()):
            lost, after = (self.server.submit(p, client_id="me").json()["prompt_id"]
                           for p in (crash(how, i), picture(i)))
            told = [m for m in socket.until(is_end(after)) if isinstance(m, dict)]  # the socket stays
            entry = self.server.wait(lost)
            self.assertEqual(entry["status"]["status_str"], "error")
            kind, data = entry["status"]["messages"][-1]
            self.assertEqual(kind, "execution_error")
            self.assertEqual((data["node_id"], data["node_type"]), ("3", "TestCrash"))
            self.assertIn(words, data["exception_message"])
            self.assertIn("not tried again", data["exception_message"])
            self.assertIn(("execution_error", lost), [(m["type"], m["data"].get("prompt_id")) for m in told])
            self.assertEqual(self.server.wait(after)["status"]["status_str"], "success")
        socket.close()

    @unittest.skipUnless(os.environ.get("ATELIER_LONG"), "it takes 20 s: ATELIER_LONG=1")
    def test_a_job_that_cannot_be_interrupted_is_ended(self):
        job = self.server.submit(crash("HANG", 60)).json()["prompt_id"]
        while not self.server.get("/queue").json()["queue_running"]:
            time.sleep(0.01)
        time.sleep(0.2)
        self.server.post("/interrupt")
        data = self.server.wait(job)["status"]["messages"][-1][1]
        self.assertIn("signal 9", data["exception_message"])
        self.assertEqual(self.server.wait(self.server.submit(picture(61)).json()["prompt_id"])["status"]["status_str"], "success")

    def test_an_engine_that_dies_without_a_job_comes_back(self):
        self.server.wait(self.server.submit(picture(70)).json()["prompt_id"])
        before = engine_of(self.server)
        self.assertEqual(len(before), 1)
        os.kill(before[0], signal.SIGKILL)
        end = time.monotonic() + 30
        while engine_of(self.server) in (before, []) and time.monotonic() < end:
            time.sleep(0.05)
        after = engine_of(self.server)
        self.assertEqual(len(after), 1)
        self.assertNotEqual(after, before)
        self.assertEqual(self.server.wait(self.server.submit(picture(71)).json()["prompt_id"])["status"]["status_str"], "success")

    def test_a_job_that_meets_a_dying_engine_is_not_blamed(self):
        for i in range(8):
            os.kill(engine_of(self.server)[0], signal.SIGKILL)
            job = self.server.submit(picture(200 + i)).json()["prompt_id"]
            self.assertEqual(self.server.wait(job)["status"]["status_str"], "success")

    def test_a_lost_device_costs_its_job_and_a_new_engine(self):
        before = engine_of(self.server)
        data = self.server.wait(self.server.submit(crash("LOSE", 75)).json()["prompt_id"])["status"]["messages"][-1][1]
        self.assertIn("is lost to this process", data["exception_message"])
        self.assertEqual(self.server.wait(self.server.submit(picture(76)).json()["prompt_id"])["status"]["status_str"], "success")
        self.assertNotEqual(engine_of(self.server), before)

    def test_a_device_that_is_lost_between_jobs_costs_none(self):
        before = engine_of(self.server)
        self.assertEqual(self.server.wait(self.server.submit(crash("LOSE_LATER", 77)).json()["prompt_id"])["status"]["status_str"], "success")
        end = time.monotonic() + 30
        while engine_of(self.server) in (before, []) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertNotIn(engine_of(self.server), (before, []))
        self.assertEqual(self.server.wait(self.server.submit(picture(78)).json()["prompt_id"])["status"]["status_str"], "success")

    def test_no_memory_is_an_error_of_that_job(self):
        before = engine_of(self.server)
        job = self.server.submit(crash("NOMEM", 80)).json()["prompt_id"]
        entry = self.server.wait(job)
        data = entry["status"]["messages"][-1][1]
        self.assertEqual((entry["status"]["status_str"], data["exception_type"]), ("error", "torch.OutOfMemoryError"))
        self.assertEqual(self.server.wait(self.server.submit(picture(81)).json()["prompt_id"])["status"]["status_str"], "success")
        self.assertEqual(engine_of(self.server), before)

    def test_an_interrupt_hits_the_job_it_names(self):
        for i in range(20):  # also one that has only just begun
            job = self.server.submit(sleeper(20, 100 + i)).json()["prompt_id"]
            end = time.monotonic() + 30
            while not self.server.history(job) and time.monotonic() < end:
                self.server.post("/interrupt", {"prompt_id": job})
            self.assertEqual(self.server.wait(job)["status"]["messages"][-1][0], "execution_interrupted")

    def test_its_facts_are_told(self):
        stats = self.server.get("/system_stats").json()
        self.assertEqual([d["type"] for d in stats["devices"]], ["cpu"])
        end = time.monotonic() + 10
        while not self.server.get("/system_stats").json()["devices"][0]["vram_total"] and time.monotonic() < end:
            time.sleep(0.05)
        self.assertGreater(self.server.get("/system_stats").json()["devices"][0]["vram_total"], 1 << 28)
        self.assertEqual(self.server.get("/ready").json(), {"status": "ok"})


class Ends(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="atelier-crash-")
        self.addCleanup(shutil.rmtree, self.dir, True)

    def serve(self, *flags):
        server = Server(self.dir, *flags)
        self.addCleanup(server.stop, signal.SIGKILL)
        return server

    def test_the_engine_ends_with_the_server(self):
        for how in (signal.SIGKILL, signal.SIGTERM):
            server = self.serve("--drain-seconds", "0")
            engine = engine_of(server)[0]
            server.submit(sleeper(60, how))
            while not server.get("/queue").json()["queue_running"]:
                time.sleep(0.01)
            server.stop(how)
            end = time.monotonic() + 20
            while os.path.exists("/proc/%d" % engine) and time.monotonic() < end:
                with open("/proc/%d/stat" % engine) as f:
                    if f.read().rsplit(")", 1)[1].split()[0] == "Z":
                        break  # nobody is there to bury it
                time.sleep(0.02)
            else:
                self.assertFalse(os.path.exists("/proc/%d" % engine))

    def test_a_stop_lets_the_running_job_end(self):
        server = self.serve("--drain-seconds", "30")
        running, waiting = (server.submit(sleeper(s, 1)).json()["prompt_id"] for s in (1, 1.5))
        while not server.get("/queue").json()["queue_running"]:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 10
        while server.get("/ready").status == 200 and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual(server.get("/ready").json(), {"status": "draining"})
        self.assertEqual(server.submit(picture()).status, 503)
        self.assertEqual(server.process.wait(20), 0)
        server = self.serve()
        self.assertEqual(server.history(running)["status"]["status_str"], "success")
        self.assertEqual(server.wait(waiting)["status"]["status_str"], "success")

    def test_a_second_signal_ends_it_at_once(self):
        server = self.serve("--drain-seconds", "60")
        server.submit(sleeper(60))
        while not server.get("/queue").json()["queue_running"]:
            time.sleep(0.01)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        while server.get("/ready").status == 200:
            time.sleep(0.01)
        self.assertEqual(server.stop(signal.SIGTERM), 0)
        self.assertLess(time.monotonic() - began, 25)

    def test_a_device_that_is_not_there_is_told_at_the_start(self):
        with self.assertRaisesRegex(RuntimeError, "no such device"):
            Server(self.dir, "--device", "abacus:3")

    def test_an_engine_that_cannot_start_again_is_waited_for(self):
        models = os.path.join(self.dir, "more-models")
        os.mkdir(models)
        server = self.serve("--models", models)
        server.wait(server.submit(picture()).json()["prompt_id"])
        os.rmdir(models)  # it is looked for at each start
        os.kill(engine_of(server)[0], signal.SIGKILL)
        job = server.submit(picture(1)).json()["prompt_id"]
        end = time.monotonic() + 20
        while server.get("/ready").status == 200 and time.monotonic() < end:
            time.sleep(0.02)
        self.assertEqual(server.get("/ready").json(), {"status": "starting"})
        self.assertEqual(server.get("/prompt").json()["exec_info"]["queue_remaining"], 1)
        os.mkdir(models)
        self.assertEqual(server.wait(job)["status"]["status_str"], "success")
        self.assertEqual(server.get("/ready").status, 200)

    def test_one_process_does_the_same(self):
        server = self.serve("--one-process")
        self.assertEqual(engine_of(server), [])
        self.assertEqual(server.wait(server.submit(picture()).json()["prompt_id"])["status"]["status_str"], "success")
        job = server.submit(sleeper(30)).json()["prompt_id"]
        while not server.history(job):
            server.post("/interrupt")
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
