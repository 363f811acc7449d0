# SPDX-License-Identifier: Apache-2.0
"""It keeps working: a full disk, a clock that jumps, a held database, peers that vanish or are slow, many of all.

ATELIER_LONG=1: 1,000 sockets, 10,000 jobs and a long history instead of a tenth of them.
"""
import http.client
import json
import mmap
import os
import re
import resource
import shutil
import socket
import sqlite3
import struct
import tempfile
import threading
import time
import unittest

from kit import SANITIZED, Server, Socket, is_end, node, picture, sleeper

LONG = bool(os.environ.get("ATELIER_LONG"))
SHIM = os.environ.get("ATELIER_SHIM")
TCP_REPAIR = 19
HANDSHAKE = (b"GET /ws?clientId=%s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n")


class Base(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="atelier-hard-")
        self.addCleanup(shutil.rmtree, self.dir, True)

    def serve(self, *flags):
        server = Server(self.dir, *flags)
        self.addCleanup(server.stop)
        return server

    def memory(self, server):
        """Resident MiB of the server's process."""
        with open("/proc/%d/status" % server.process.pid) as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) / 1024


@unittest.skipUnless(SHIM, "a sanitizer's runtime must be the first library")
class Shimmed(Base):
    def setUp(self):
        super().setUp()
        control = os.path.join(self.dir, "control")
        with open(control, "wb") as f:
            f.write(bytes(16))
        with open(control, "r+b") as f:
            self.control = mmap.mmap(f.fileno(), 16)
        os.environ.update(LD_PRELOAD=SHIM, ATELIER_SHIM_CONTROL=control)
        self.addCleanup(os.environ.pop, "LD_PRELOAD")

    def set(self, seconds=0, full=0):
        self.control[:16] = struct.pack("qq", seconds, full)

    def test_a_disk_that_fills_up(self):
        s = self.serve()
        s.wait(s.submit(picture(1, "before")).json()["prompt_id"])
        # While a job runs: its picture cannot be written, and neither can its end, until there is room.
        job = s.submit({**sleeper(0.5, 2), "5": node("SaveImage", images=["3", 0], filename_prefix="full")}).json()["prompt_id"]
        while not s.get("/queue").json()["queue_running"]:
            time.sleep(0.01)
        self.set(full=1)
        answer = s.submit(picture(3))
        self.assertEqual(answer.status, 503, answer.body)
        self.assertEqual(answer.json()["error"]["type"], "storage")
        self.assertIn("full", answer.json()["error"]["message"])
        self.assertTrue(answer.headers["retry-after"])
        body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="up.png"\r\n\r\nPNG\r\n--b--\r\n'
        upload = s.request("POST", "/upload/image", body, {"Content-Type": "multipart/form-data; boundary=b"})
        self.assertEqual((upload.status, upload.body.split(b"\n")[-1]), (500, b"The disk cannot be used"))
        self.assertEqual(s.post("/settings/x", b"1").status, 500)
        time.sleep(1.5)
        self.assertEqual(s.get("/history/" + job).json(), {})  # its end waits
        self.assertEqual(s.get("/prompt").json()["exec_info"]["queue_remaining"], 1)
        self.set(full=0)
        entry = s.wait(job)
        self.assertEqual(entry["status"]["status_str"], "error")
        self.assertIn("No space left", json.dumps(entry["status"]["messages"][-1]))
        self.assertEqual(s.wait(s.submit(picture(4, "after")).json()["prompt_id"])["status"]["status_str"], "success")
        self.assertEqual(s.post("/settings/x", b"1").status, 200)
        files = [os.path.join(d, f) for top in ("output", "input", "temp", "user") for d, _, fs in os.walk(os.path.join(self.dir, top)) for f in fs]
        self.assertEqual([f for f in files if f.endswith(".tmp")], [])
        self.assertEqual(sorted(os.listdir(os.path.join(self.dir, "output"))), ["after_00001_.png", "before_00001_.png"])
        self.assertEqual(s.stop(), 0)
        with sqlite3.connect(os.path.join(self.dir, "user", "atelier.db")) as db:
            self.assertEqual(db.execute("PRAGMA integrity_check").fetchone(), ("ok",))

    def test_a_clock_that_jumps(self):
        s = self.serve("--rate-limit", "600")
        stay = Socket(s, client="c")
        year = 365 * 86400
        jobs = [s.submit(sleeper(0.4, 1), client_id="c").json()["prompt_id"]]
        for i, jump in enumerate((year, -year, 0, -40 * year, 10)):
            jobs += [s.submit(picture(10 * i + k), client_id="c").json()["prompt_id"] for k in range(2)]
            self.set(seconds=jump)
            time.sleep(0.05)
        jobs.append(s.submit(picture(99), client_id="c").json()["prompt_id"])
        ended = [m["data"]["prompt_id"] for m in stay.until(is_end(jobs[-1]))
                 if isinstance(m, dict) and m["type"] == "executing" and m["data"]["node"] is None]
        self.assertEqual(ended, jobs)  # in the order of acceptance
        history = s.get("/history").json()
        self.assertEqual(list(history), jobs)
        self.assertEqual(set(e["status"]["status_str"] for e in history.values()), {"success"})
        self.assertEqual([j["id"] for j in s.get("/jobs?status=pending").json()["jobs"]], [])
        for line in s.get("/metrics").body.decode().splitlines():
            if line.startswith("atelier_") and "seconds" in line:
                self.assertGreaterEqual(float(line.rsplit(" ", 1)[1]), 0, line)
                self.assertLess(float(line.rsplit(" ", 1)[1]), year, line)
        self.assertTrue(all(r["device_seconds"] >= 0 and r["waited"] >= 0 for r in s.get("/usage").json()["usage"]))
        stay.close()


class Held(Base):
    def test_another_process_wants_the_database(self):
        s = self.serve()
        s.wait(s.submit(picture(1)).json()["prompt_id"])
        db = sqlite3.connect(os.path.join(self.dir, "user", "atelier.db"), timeout=0.1)
        with self.assertRaisesRegex(sqlite3.OperationalError, "locked"):
            db.execute("DELETE FROM jobs")
        db.close()
        self.assertEqual(s.wait(s.submit(picture(2)).json()["prompt_id"])["status"]["status_str"], "success")

    def test_a_lock_at_the_start_is_waited_for_and_then_named(self):
        os.makedirs(os.path.join(self.dir, "user"))
        db = sqlite3.connect(os.path.join(self.dir, "user", "atelier.db"), check_same_thread=False)
        db.execute("CREATE TABLE t(x)")
        db.commit()
        db.execute("BEGIN EXCLUSIVE")
        with self.assertRaisesRegex(RuntimeError, "holds it"):
            Server(self.dir)
        threading.Timer(0.5, db.rollback).start()
        s = self.serve()
        self.assertEqual(s.wait(s.submit(picture()).json()["prompt_id"])["status"]["status_str"], "success")
        db.close()


class Peers(Base):
    def sockets(self, server):
        return float(re.search(r"^atelier_websockets (\S+)", server.get("/metrics").body.decode(), re.M).group(1))

    def test_a_peer_that_vanishes_is_noticed(self):
        s = self.serve("--keepalive-seconds", "1")
        lost = socket.create_connection(("127.0.0.1", s.port))
        lost.sendall(HANDSHAKE % b"lost")
        self.assertEqual(lost.recv(12), b"HTTP/1.1 101")
        self.assertEqual(self.sockets(s), 1)
        with open("/proc/net/tcp") as f:  # the kernel probes it: timer 2 is the keepalive's
            timers = [line.split()[5][:2] for line in f if line.split()[1].endswith(":%04X" % s.port) and line.split()[3] == "01"]
        self.assertIn("02", timers)
        try:
            lost.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)  # its end is silent: no FIN
        except PermissionError:
            lost.close()
            self.skipTest("only root may let a socket vanish")
        lost.close()
        end = time.monotonic() + 20
        while self.sockets(s) and time.monotonic() < end:
            time.sleep(0.1)
        self.assertEqual(self.sockets(s), 0)

    def test_slow_readers_cost_little(self):
        s = self.serve()
        before = self.memory(s)
        lazy = []
        for i in range(20):
            c = socket.socket()
            c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            c.connect(("127.0.0.1", s.port))
            c.sendall(b"GET /object_info HTTP/1.1\r\nHost: localhost\r\n\r\n")
            lazy.append(c)
        jobs = [s.submit(picture(i)).json()["prompt_id"] for i in range(100)]
        for j in jobs:
            s.wait(j)
        grown = self.memory(s) - before
        self.assertTrue(SANITIZED or grown < 100, "%d MiB" % grown)
        for c in lazy:
            c.close()
        self.assertEqual(s.get("/prompt").status, 200)

    def test_many_sockets(self):
        n = 1000 if LONG else 150
        most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, most[1]), most[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, most)
        s = self.serve()
        before = self.memory(s)
        all = []
        for i in range(n):
            c = socket.create_connection(("127.0.0.1", s.port))
            c.sendall(HANDSHAKE % str(i).encode())
            all.append(c)
        end = time.monotonic() + 30
        while self.sockets(s) < n and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(self.sockets(s), n)
        each = (self.memory(s) - before) * 1024 / n
        self.assertTrue(SANITIZED or each < 64, "%d KiB each" % each)
        if LONG:
            print("%d sockets: %.1f KiB each" % (n, each))
        jobs = [s.submit(picture(i), client_id="5").json()["prompt_id"] for i in range(20)]
        s.wait(jobs[-1])
        all[5].settimeout(20)
        heard = b""
        while jobs[-1].encode() not in heard or b'"node": null' not in heard:
            heard += all[5].recv(65536)
        for c in all:
            c.close()
        end = time.monotonic() + 30
        while self.sockets(s) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(self.sockets(s), 0)

    def test_many_jobs_and_a_long_history(self):
        n = 10000 if LONG else 400
        s = self.serve("--drain-seconds", "0")
        block = s.submit(sleeper(600)).json()["prompt_id"]
        connection = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
        self.addCleanup(connection.close)
        ballast = {"extra_pnginfo": {"workflow": {"note": "x" * 20000}}}

        def submit(i):
            connection.request("POST", "/prompt", json.dumps({"prompt": picture(0, "n"), "extra_data": ballast, "prompt_id": "j%05d" % i}))
            answer = connection.getresponse()
            answer.read()
            return answer.status
        self.assertEqual([submit(i) for i in range(n - (1 if LONG else 0))], [200] * (n - (1 if LONG else 0)))
        while not s.get("/queue").json()["queue_running"]:
            time.sleep(0.01)
        if LONG:
            self.assertEqual([submit(i) for i in (n - 1, n)], [200, 429])
        before = self.memory(s)
        queue = s.get("/queue").json()
        self.assertEqual([i[1] for i in queue["queue_running"]], [block])
        self.assertEqual([i[1] for i in queue["queue_pending"]], ["j%05d" % i for i in range(n)])
        s.post("/queue", {"delete": ["j%05d" % i for i in range(100)]})
        s.post("/interrupt", {"prompt_id": block})
        s.idle(600 if LONG else 60)
        whole = s.get("/history").json()
        self.assertEqual(len(whole), n - 100 + 1)
        self.assertEqual(list(whole)[1:], ["j%05d" % i for i in range(100, n)])
        self.assertEqual(list(s.get("/history?max_items=3").json()), ["j%05d" % i for i in range(n - 3, n)])
        grown = self.memory(s) - before
        self.assertTrue(SANITIZED or grown < 40, "%d MiB" % grown)  # lists of 200 MB are not held in memory
        if LONG:
            print("%d jobs and their history: %.1f MiB more" % (n, grown))


if __name__ == "__main__":
    unittest.main()
