# SPDX-License-Identifier: Apache-2.0
"""Users: a token says whose jobs and files these are; how much one of them may submit; what it cost."""
import csv
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tempfile
import time
import unittest

from kit import Server, Socket, is_end, node, picture, sleeper

TOKENS = {"ann": "submit", "bob": "submit", "eve": "view", "root": "admin"}


def bearer(name, **more):
    return dict({"Authorization": "Bearer %s-T0ken" % name}, **more)


def write_tokens(folder):
    path = os.path.join(folder, "tokens")
    with open(path, "w") as f:
        for name, role in TOKENS.items():
            f.write("%s %s %s\n" % (role, name, hashlib.sha256((name + "-T0ken").encode()).hexdigest()))
    return path


class Base(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="atelier-users-")
        self.addCleanup(shutil.rmtree, self.dir, True)

    def serve(self, *flags):
        server = Server(self.dir, *flags)
        self.addCleanup(server.stop)
        return server

    def submit(self, server, who, prompt, **more):
        answer = server.post("/prompt", dict(more, prompt=prompt), **bearer(who))
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json()["prompt_id"]

    def entry(self, server, who, job):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            found = server.get("/history/" + job, **bearer(who)).json().get(job)
            if found:
                return found
            time.sleep(0.02)
        self.fail("job %s does not end" % job)


class Apart(Base):
    def test_each_sees_what_is_theirs(self):
        s = self.serve("--token-file", write_tokens(self.dir), "--multi-user")
        jobs = {who: self.submit(s, who, picture(5, "same")) for who in ("ann", "bob")}  # the same workflow
        shown = {who: self.entry(s, who, jobs[who])["outputs"]["2"]["images"][0] for who in jobs}
        for who in jobs:
            self.assertEqual(shown[who], {"filename": "same_00001_.png", "subfolder": "", "type": "output"})
            self.assertTrue(os.path.isfile(os.path.join(self.dir, "output", who, "same_00001_.png")))
            self.assertEqual(s.get("/view?filename=same_00001_.png", **bearer(who)).status, 200)
            self.assertEqual(list(s.get("/history", **bearer(who)).json()), [jobs[who]])
            self.assertEqual(list(s.get("/history?max_items=5", **bearer(who)).json()), [jobs[who]])
            self.assertEqual([j["id"] for j in s.get("/jobs", **bearer(who)).json()["jobs"]], [jobs[who]])
        self.assertEqual(s.get("/view?filename=same_00001_.png", **bearer("eve")).status, 404)
        self.assertEqual(s.get("/view?filename=same_00001_.png&subfolder=../ann", **bearer("bob")).status, 403)
        self.assertEqual(s.get("/history/" + jobs["ann"], **bearer("bob")).json(), {})
        self.assertEqual(s.get("/jobs/" + jobs["ann"], **bearer("bob")).status, 404)
        self.assertEqual(s.get("/usage/" + jobs["ann"], **bearer("bob")).status, 404)
        self.assertEqual(sorted(s.get("/history", **bearer("root")).json()), sorted(jobs.values()))
        # One's history may be cleared, another's not.
        s.post("/history", {"delete": [jobs["ann"]]}, **bearer("bob"))
        self.assertEqual(list(s.get("/history", **bearer("ann")).json()), [jobs["ann"]])
        self.assertEqual(s.post("/history", {"clear": True}, **bearer("bob")).status, 200)
        self.assertEqual(s.get("/history", **bearer("bob")).json(), {})
        self.assertEqual(list(s.get("/history", **bearer("ann")).json()), [jobs["ann"]])
        # An id that another user chose before takes nothing from them.
        again = self.submit(s, "bob", picture(6), prompt_id=jobs["ann"])
        self.entry(s, "bob", again)
        self.assertEqual(self.entry(s, "ann", jobs["ann"])["outputs"]["2"]["images"][0], shown["ann"])

    def test_files_settings_and_names(self):
        s = self.serve("--token-file", write_tokens(self.dir), "--multi-user")
        self.assertEqual(s.get("/users", **bearer("ann")).json(), {"storage": "server", "users": {"ann": "ann"}})
        self.assertEqual(s.post("/users", {"username": "x"}, **bearer("root")).status, 400)
        self.assertEqual(s.post("/settings/x", b"1", **bearer("ann")).status, 200)
        self.assertEqual(s.get("/settings", **bearer("ann")).json(), {"x": 1})
        self.assertEqual(s.get("/settings", **bearer("bob")).json(), {})
        self.assertEqual(s.get("/settings", **bearer("bob", comfy_user="ann")).status, 403)
        self.assertEqual(s.get("/settings", **bearer("root", comfy_user="ann")).json(), {"x": 1})
        self.assertEqual(s.get("/settings", **bearer("root", comfy_user="nobody")).status, 403)
        body = (b'--b\r\nContent-Disposition: form-data; name="image"; filename="mine.png"\r\n\r\nPNG\r\n--b--\r\n')
        for who in ("ann", "bob"):
            answer = s.request("POST", "/upload/image", body, bearer(who, **{"Content-Type": "multipart/form-data; boundary=b"}))
            self.assertEqual(answer.json()["name"], "mine.png")
            self.assertTrue(os.path.isfile(os.path.join(self.dir, "input", who, "mine.png")))
        choices = lambda who: s.get("/object_info/LoadImage", **bearer(who)).json()["LoadImage"]["input"]["required"]["image"][0]
        self.assertEqual((choices("ann"), choices("eve")), (["mine.png"], []))
        load = {"1": node("LoadImage", image="mine.png"), "2": node("SaveImage", images=["1", 0], filename_prefix="x")}
        self.assertEqual(s.post("/prompt", {"prompt": load}, **bearer("root")).status, 400)  # it has no such file

    def test_nobody_hears_or_stops_another(self):
        s = self.serve("--token-file", write_tokens(self.dir), "--multi-user", "--preview-method", "auto")
        header = lambda who: ["Authorization: Bearer %s-T0ken" % who]
        ann, spy = Socket(s, client="c", headers=header("ann")), Socket(s, client="c", headers=header("bob"))
        job = self.submit(s, "ann", sleeper(30), client_id="c")
        nameless = self.submit(s, "ann", picture(8))  # tells its progress to every socket of hers
        while not s.get("/queue", **bearer("ann")).json()["queue_running"]:
            time.sleep(0.01)
        self.assertEqual(s.get("/queue", **bearer("bob")).json(), {"queue_running": [], "queue_pending": []})
        self.assertEqual(len(s.get("/queue", **bearer("root")).json()["queue_running"]), 1)
        for body in ({"prompt_id": job}, {}):
            s.post("/interrupt", body, **bearer("bob"))
        s.post("/queue", {"clear": True}, **bearer("bob"))
        s.post("/queue", {"delete": [nameless]}, **bearer("bob"))
        s.post("/jobs/%s/cancel" % job, {}, **bearer("bob"))
        self.assertEqual(s.get("/prompt", **bearer("bob")).json()["exec_info"]["queue_remaining"], 2)
        s.post("/interrupt", {"prompt_id": job}, **bearer("ann"))
        ann.until(is_end(job))
        self.assertEqual(self.entry(s, "ann", job)["status"]["messages"][-1][0], "execution_interrupted")
        self.entry(s, "ann", nameless)
        probe = self.submit(s, "bob", picture(9), client_id="c")
        heard = spy.until(is_end(probe))
        self.assertNotIn(job, json.dumps([m for m in heard if isinstance(m, dict)]))
        self.assertNotIn(nameless, json.dumps([m for m in heard if isinstance(m, dict)]))
        for x in (ann, spy):
            x.close()

    def test_without_multi_user_tokens_share_the_workshop(self):
        s = self.serve("--token-file", write_tokens(self.dir))
        job = self.submit(s, "ann", picture())
        self.entry(s, "bob", job)
        self.assertTrue(os.path.isfile(os.path.join(self.dir, "output", "x_00001_.png")))
        self.assertEqual(s.post("/history", {"clear": True}, **bearer("bob")).status, 403)
        self.assertEqual(s.get("/usage", **bearer("ann")).json()["usage"][0]["user"], "ann")


class Limits(Base):
    def test_so_many_a_minute(self):
        s = self.serve("--token-file", write_tokens(self.dir), "--rate-limit", "30")
        answers = [s.post("/prompt", {"prompt": picture()}, **bearer("ann")) for _ in range(40)]
        codes = [a.status for a in answers]
        self.assertEqual(codes[:30], [200] * 30)
        refused = [a for a in answers if a.status == 429]
        self.assertGreaterEqual(len(refused), 8)
        self.assertIn(int(refused[0].headers["retry-after"]), (1, 2))
        self.assertEqual(s.post("/prompt", {"prompt": picture()}, **bearer("bob")).status, 200)
        self.assertEqual(s.get("/queue", **bearer("ann")).status, 200)  # looking is free
        time.sleep(2.1)
        self.assertEqual(s.post("/prompt", {"prompt": picture()}, **bearer("ann")).status, 200)

    def test_without_tokens_an_address_counts(self):
        s = self.serve("--rate-limit", "5")
        self.assertEqual([s.submit(picture()).status for _ in range(6)], [200] * 5 + [429])
        self.assertEqual(s.post("/prompt", {"prompt": picture()}, comfy_user="somebody else").status, 429)

    def test_so_many_waiting(self):
        s = self.serve("--token-file", write_tokens(self.dir), "--queue-limit", "3", "--drain-seconds", "0")
        self.submit(s, "ann", sleeper(30))
        while not s.get("/queue", **bearer("ann")).json()["queue_running"]:
            time.sleep(0.01)
        codes = [s.post("/prompt", {"prompt": picture(i)}, **bearer("ann")).status for i in range(5)]
        self.assertEqual(codes, [200, 200, 200, 429, 429])
        self.assertEqual(s.post("/prompt", {"prompt": picture()}, **bearer("bob")).status, 200)


class Usage(Base):
    def test_jobs_days_and_users_add_up(self):
        s = self.serve("--token-file", write_tokens(self.dir), "--multi-user")
        slow = self.submit(s, "ann", sleeper(0.3))
        bad = self.submit(s, "ann", {"1": picture()["1"], "3": node("TestSyncError", value=["1", 0]),
                                     "4": node("PreviewImage", images=["3", 0])})
        other = self.submit(s, "bob", picture())
        for who, job in (("ann", slow), ("ann", bad), ("bob", other)):
            self.entry(s, who, job)
        one = s.get("/usage/" + slow, **bearer("ann")).json()
        self.assertEqual((one["prompt_id"], one["user"], one["joules"]), (slow, "ann", None))  # a CPU tells no energy
        self.assertGreater(one["device_seconds"], 0.29)
        self.assertGreater(one["stages"]["other"], 0.29)
        self.assertLessEqual(sum(one["stages"].values()), one["device_seconds"] + 0.05)
        rows = s.get("/usage", **bearer("root")).json()["usage"]
        self.assertEqual([(r["user"], r["jobs"], r["failed"]) for r in rows], [("ann", 2, 1), ("bob", 1, 0)])
        self.assertEqual(rows[0]["day"], time.strftime("%Y-%m-%d", time.gmtime()))
        mine = s.get("/usage?user=bob", **bearer("ann")).json()["usage"]  # not to be asked
        self.assertEqual([r["user"] for r in mine], ["ann"])
        self.assertEqual([r["user"] for r in s.get("/usage?user=bob", **bearer("root")).json()["usage"]], ["bob"])
        self.assertEqual(s.get("/usage?from=2999-01-01", **bearer("root")).json()["usage"], [])
        self.assertEqual(s.get("/usage?to=2001-01-01", **bearer("root")).json()["usage"], [])
        self.assertEqual(s.get("/usage?from=yesterday", **bearer("root")).status, 400)
        table = s.get("/usage?format=csv", **bearer("root"))
        self.assertEqual(table.headers["content-type"], "text/csv; charset=utf-8")
        lines = list(csv.DictReader(io.StringIO(table.body.decode())))
        self.assertEqual([(r["user"], r["jobs"], r["failed"], r["joules"]) for r in lines], [("ann", "2", "1", ""), ("bob", "1", "0", "")])
        # The sums outlive the history and the server.
        s.post("/history", {"clear": True}, **bearer("root"))
        s.stop()
        s = self.serve("--token-file", os.path.join(self.dir, "tokens"), "--multi-user")
        self.assertEqual(s.get("/usage", **bearer("root")).json()["usage"], rows)

    def test_a_table_of_an_older_version_is_brought_up(self):
        os.makedirs(os.path.join(self.dir, "user"))
        with sqlite3.connect(os.path.join(self.dir, "user", "atelier.db")) as db:
            db.execute("CREATE TABLE jobs(row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, number REAL NOT NULL,"
                       " number_text TEXT NOT NULL, state INTEGER NOT NULL, client_id TEXT, attempts INTEGER NOT NULL"
                       " DEFAULT 0, created_ms INTEGER NOT NULL, started_ms INTEGER, ended_ms INTEGER, prompt TEXT NOT NULL,"
                       " extra_data TEXT NOT NULL, targets TEXT NOT NULL, status_str TEXT, outputs TEXT, status TEXT, meta TEXT,"
                       " done INTEGER)")
            db.execute("INSERT INTO jobs(id, number, number_text, state, created_ms, prompt, extra_data, targets)"
                       " VALUES('old', 0, '0', 0, 0, ?, '{}', '[\"2\"]')", (json.dumps(picture()),))
        db.close()
        s = self.serve()
        self.assertEqual(s.wait("old")["status"]["status_str"], "success")
        self.assertEqual(s.get("/usage").json()["usage"][0]["user"], "default")


if __name__ == "__main__":
    unittest.main()
