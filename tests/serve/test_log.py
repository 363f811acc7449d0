# SPDX-License-Identifier: Apache-2.0
"""The log: lines with stable ids, as JSON where that is asked for; nothing secret is in them, nothing from outside forges one."""
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import unittest
import urllib.parse

from kit import Server, Socket, node, picture

SECRETS = ("s3cr3t-T0ken", "c0mfy-k3y", "wr0ng-T0ken", "pass:w0rd")


class Log(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="atelier-log-")
        self.addCleanup(shutil.rmtree, self.dir, True)

    def serve(self, *flags):
        server = Server(self.dir, *flags)
        self.addCleanup(server.stop)
        return server

    def lines(self):
        with open(os.path.join(self.dir, "server.log"), encoding="utf-8") as f:
            return f.read().splitlines()

    def test_json_lines(self):
        s = self.serve("--log-format", "json", "--verbose", "DEBUG")
        job = s.submit(picture()).json()["prompt_id"]
        s.wait(job)
        s.get("/prompt", Host="evil.example")
        s.stop()
        rows = [json.loads(line) for line in self.lines()]
        for row in rows:
            self.assertEqual(list(row), ["time", "level", "id", "text"])
            self.assertRegex(row["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$")
            self.assertRegex(row["id"], r"^[A-Z][A-Z0-9-]*$")
        ids = [row["id"] for row in rows]
        for wanted in ("JOB-ACCEPTED", "JOB-ENDED", "HTTP-HOST"):
            self.assertIn(wanted, ids)
        self.assertIn(job, next(r["text"] for r in rows if r["id"] == "JOB-ENDED"))

    def test_no_secret_is_written(self):
        tokens = os.path.join(self.dir, "tokens")
        with open(tokens, "w") as f:
            f.write("admin ann %s\n" % hashlib.sha256(SECRETS[0].encode()).hexdigest())
        s = self.serve("--token-file", tokens, "--verbose", "DEBUG", "--multi-user")
        good = {"Authorization": "Bearer " + SECRETS[0]}
        extra = {"auth_token_comfy_org": SECRETS[1], "api_key_comfy_org": SECRETS[1]}
        for headers in (good, {"Authorization": "Bearer " + SECRETS[2]}, {"Authorization": "Basic " + SECRETS[3]},
                        {"Cookie": "atelier_token=" + SECRETS[0]}, {"Cookie": "atelier_token=" + SECRETS[2]}):
            for method, path, body in (("GET", "/", None), ("GET", "/?token=" + SECRETS[2], None), ("GET", "/none?token=" + SECRETS[0], None),
                                       ("GET", "/queue?token=" + SECRETS[0], None), ("POST", "/prompt?token=" + SECRETS[0], b"{"),
                                       ("POST", "/prompt", {"prompt": {}, "extra_data": extra}), ("GET", "/history?max_items=x&token=" + SECRETS[0], None),
                                       ("POST", "/prompt", {"prompt": {"1": node("TestSyncError", value=1), "2": node("PreviewImage", images=["1", 0])},
                                                            "extra_data": extra}),
                                       ("POST", "/free", b"[" * 9), ("GET", "/settings", None), ("POST", "/upload/image", b"x")):
                s.request(method, path, body, headers)
            Socket(s, path="/ws?token=" + SECRETS[0], headers=["%s: %s" % h for h in headers.items()]).close()
        s.request("GET", "/?token=" + SECRETS[0])
        told = s.get("/internal/logs", **good).body.decode() + s.get("/history", **good).body.decode()
        s.stop()
        with sqlite3.connect(os.path.join(self.dir, "user", "atelier.db")) as db:
            told += "".join(map(repr, db.execute("SELECT * FROM jobs")))
        told += "\n".join(self.lines())
        self.assertIn("HTTP-DENIED", told)
        for secret in SECRETS:
            self.assertNotIn(secret, told)

    def test_a_line_break_from_outside_forges_no_line(self):
        s = self.serve("--verbose", "DEBUG")
        s.submit(picture(), prompt_id="x\nerror: QUEUE-LOST: forged\x1b[2J\x7f")
        s.get("/view_metadata/" + urllib.parse.quote("a\nerror: FORGED: b"))
        s.idle()
        s.stop()
        self.assertFalse([line for line in self.lines() if line.startswith(("error:", "warning: FORGED"))])
        self.assertNotIn("\x1b", "\n".join(self.lines()))
        self.assertIn("    error: QUEUE-LOST: forged?[2J?", "\n".join(self.lines()))


if __name__ == "__main__":
    unittest.main()
