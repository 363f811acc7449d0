# SPDX-License-Identifier: Apache-2.0
"""Hostile bytes to the real server: HTTP, multipart and WebSocket, mutated where it hurts. It answers on, and ends well.

ATELIER_FUZZ_SECONDS (default 2) for each of the four; ATELIER_FUZZ_SEED repeats a run, its seed is printed when it fails.
Under sanitizers (build/dev) every finding fails the test; ATELIER_FUZZ_MULTI=1 runs with tokens and users.
"""
import base64
import hashlib
import json
import os
import random
import socket
import struct
import time
import unittest

from kit import Case, node, picture

SECONDS = float(os.environ.get("ATELIER_FUZZ_SECONDS", "2"))
SEED = int(os.environ.get("ATELIER_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
MULTI = bool(os.environ.get("ATELIER_FUZZ_MULTI"))

ROUTES = """/ /prompt /queue /history /history/x /interrupt /free /jobs /jobs/x /jobs/x/cancel /jobs/cancel /system_stats /object_info
/object_info/KSampler /features /extensions /embeddings /models /models/vae /experiment/models /experiment/models/vae /view_metadata/vae
/i18n /workflow_templates /internal/folder_paths /view /upload/image /upload/mask /internal/files/output /metrics /health /ready
/internal/logs /internal/logs/raw /internal/logs/subscribe /users /settings /settings/x /userdata /v2/userdata /userdata/a.json
/userdata/a.json/move/b.json /ws /usage /usage/x /global_subgraphs /node_replacements /atelier/app.js""".split()
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "CONNECT", "get", "", "A" * 300]
HEADERS = ["Host", "Origin", "Content-Type", "Content-Length", "Transfer-Encoding", "Range", "If-None-Match", "comfy-user", "Authorization",
           "Cookie", "Connection", "Upgrade", "Expect", "Accept-Encoding", "X-Forwarded-For", "Sec-WebSocket-Key", "Sec-WebSocket-Version"]
VALUES = ["", "localhost", "0", "-1", "18446744073709551616", "9" * 40, "chunked", "identity, chunked", "bytes=0-", "bytes=-5",
          "bytes=5-1", "bytes=0-18446744073709551615", "*", '"a"', "keep-alive", "close", "upgrade", "websocket", "13", "100-continue",
          "Bearer x", "Bearer ", "atelier_token=x; a=b;;=", "multipart/form-data; boundary=b", "multipart/form-data; boundary=", "null",
          "http://[::1", "[", "a" * 5000, "\x00", "\xff\xfe", "%s%n", "../../x", "application/json"]
PARTS = ["filename", "type", "subfolder", "preview", "channel", "max_items", "offset", "clientId", "dir", "recurse", "split", "full_info",
         "token", "limit", "status", "sort_by", "sort_order", "path", "format", "from", "to", "user", "overwrite"]
WORDS = ["", "x.png", "output", "input", "temp", "..", "%2e%2e%2f", "webp;90", "jpeg;0", "rgb", "a", "rgba", "-1", "0", "1e9", "true", "\x00", "%",
         "%zz", "%00", "é", "a" * 3000, "2026-01-01", "csv", "pending,failed", "[temp]", "x [output]", "../../../etc/passwd"]


class Fuzz(Case):
    @classmethod
    def prepare(cls):
        cls.flags = ("--max-upload-size", "2", "--drain-seconds", "0")
        cls.token = ""
        if MULTI:
            cls.token = "f00"
            path = os.path.join(cls.dir, "tokens")
            with open(path, "w") as f:
                f.write("admin fuzz %s\n" % hashlib.sha256(cls.token.encode()).hexdigest())
            cls.flags += ("--token-file", path, "--multi-user")

    def setUp(self):
        self.random = random.Random("%d %s" % (SEED, self._testMethodName))
        self.count = 0

    def pick(self, list):
        return self.random.choice(list)

    def maybe(self, share):
        return self.random.random() < share

    def mutate(self, data):
        """Bytes with a few of them changed, cut, doubled or put in."""
        data = bytearray(data)
        for _ in range(self.pick([0, 0, 1, 1, 2, 5, 20])):
            at = self.random.randrange(len(data) + 1)
            way = self.random.randrange(6)
            if way == 0 and at < len(data):
                data[at] ^= 1 << self.random.randrange(8)
            elif way == 1:
                data[at:at + self.random.randrange(40)] = b""
            elif way == 2:
                data[at:at] = data[at:at + self.random.randrange(200)]
            elif way == 3:
                data[at:at] = self.pick([b"\r\n", b"\r\n\r\n", b"\0", b"\xff" * 9, b"{", b"[" * 200, b'"', b"\\ud800", b"%00", b"--b", b"--b--", b"1e999", b"NaN"])
            elif way == 4:
                data[at:at] = self.random.randbytes(self.random.randrange(1, 30))
            elif at < len(data):
                del data[at:]
        return bytes(data)

    def talk(self, data, read=True):
        """Send it, in pieces now and then; read a little; leave in some way."""
        try:
            with socket.create_connection(("127.0.0.1", self.server.port), timeout=0.2) as s:
                if self.maybe(0.2):
                    cut = self.random.randrange(len(data) + 1)
                    s.sendall(data[:cut])
                    time.sleep(self.random.random() * 0.01)
                    data = data[cut:]
                s.sendall(data)
                if self.maybe(0.3):
                    s.shutdown(socket.SHUT_WR)
                if self.maybe(0.1):
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends by a reset
                elif read:
                    s.settimeout(0.02)
                    s.recv(1 << 16)
        except OSError:
            pass

    def rounds(self, make):
        end = time.monotonic() + SECONDS
        last = b""
        try:
            while time.monotonic() < end:
                last = make()
                self.talk(last, self.maybe(0.7))
                self.count += 1
                if self.count % 50 == 0:
                    self.alive()
            self.alive()
        except Exception:
            print("seed %d, %d talks, the last: %r" % (SEED, self.count, last[:2000]))
            raise
        print("%s: %d talks in %.0f s, seed %d" % (self._testMethodName, self.count, SECONDS, SEED))

    def alive(self):
        self.assertIsNone(self.server.process.poll(), "the server ended")
        headers = {"Authorization": "Bearer " + self.token} if MULTI else {}
        self.assertEqual(self.server.request("GET", "/prompt", headers=headers).status, 200)

    def head(self, method, path, body=b"", **more):
        lines = {"Host": "localhost", "Content-Length": str(len(body)), **{k.replace("_", "-"): v for k, v in more.items()}}
        if MULTI and self.maybe(0.9):
            lines["Authorization"] = "Bearer " + self.token
        if method == "GET" and not body:
            del lines["Content-Length"]
        for _ in range(self.pick([0, 0, 0, 1, 2, 6])):
            lines[self.pick(HEADERS)] = self.pick(VALUES)
        text = "%s %s HTTP/1.1\r\n" % (method, path) + "".join("%s: %s\r\n" % i for i in lines.items()) + "\r\n"
        return text.encode("latin-1", "replace") + body

    def path(self):
        path = ("/api" if self.maybe(0.3) else "") + self.pick(ROUTES)
        if self.maybe(0.3):
            path += "/" + self.pick(WORDS)
        if self.maybe(0.5):
            path += "?" + "&".join("%s=%s" % (self.pick(PARTS), self.pick(WORDS)) for _ in range(self.random.randrange(4)))
        return path.replace(" ", "%20") if self.maybe(0.9) else path

    # --- what is sent --------------------------------------------------------------------------------
    def request(self):
        body = self.mutate(self.json()) if self.maybe(0.5) else b""
        one = self.head(self.pick(METHODS[:5] * 4 + METHODS), self.path(), body)
        if self.maybe(0.1):
            one = one * self.random.randrange(2, 6)  # pipelined
        return self.mutate(one) if self.maybe(0.4) else one

    def value(self, depth=0):
        simple = [None, True, False, 0, -1, 1 << 63, 1e308, "x", "", "é\ud800", ["1", 0], ["1", 99], ["9", 0], [], {}, "a" * 500]
        if depth > 3 or self.maybe(0.7):
            return self.pick(simple)
        if self.maybe(0.5):
            return [self.value(depth + 1) for _ in range(self.random.randrange(4))]
        return {self.pick(["inputs", "class_type", "1", "", "is_changed", "_meta"]): self.value(depth + 1) for _ in range(self.random.randrange(4))}

    def workflow(self):
        prompt = picture(self.random.randrange(1 << 24), self.pick(["x", "../x", "%date%", "a/b", "", "\x00"]), 16, 16)
        if self.maybe(0.3):
            prompt["3"] = node(self.pick(["TestSyncError", "TestSleep", "LoadImage", "KSampler", "StubImage", "TestLazyMixImages", "nothing"]),
                               value=["1", 0], seconds=0, image=self.pick(WORDS))
            prompt["4"] = node("PreviewImage", images=["3", 0])
        for _ in range(self.pick([0, 0, 1, 2])):
            at = self.pick(list(prompt))
            prompt[at] = self.value() if self.maybe(0.2) else {**prompt[at], self.pick(["inputs", "class_type", "_meta"]): self.value()} \
                if isinstance(prompt[at], dict) else prompt[at]
        return prompt

    def json(self):
        body = {"prompt": self.workflow(), "client_id": self.pick(["c", "", None, 5, "x" * 100])}
        for key in ("number", "front", "partial_execution_targets", "extra_data", "prompt_id", "clear", "delete", "unload_models", "job_ids",
                    "clientId", "enabled", "username"):
            if self.maybe(0.15):
                body[key] = self.value()
        return json.dumps(body).encode("utf-8", "surrogatepass")

    def submission(self):
        body = self.json()
        if self.maybe(0.6):
            body = self.mutate(body)
        path = self.pick(["/prompt", "/prompt", "/api/prompt", "/queue", "/history", "/free", "/interrupt", "/jobs/cancel", "/settings",
                          "/settings/x", "/users", "/userdata/f.json", "/internal/logs/subscribe"])
        if self.maybe(0.2):  # chunked, well or badly
            pieces = b""
            for at in range(0, len(body), 100):
                piece = body[at:at + 100]
                pieces += b"%x%s\r\n" % (len(piece), self.pick([b"", b"", b";a=b"])) + piece + b"\r\n"
            pieces += self.pick([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"", b"zz\r\n"])
            head = self.head("POST", path, b"", Transfer_Encoding="chunked").replace(b"Content-Length: 0\r\n", b"")
            return head + (self.mutate(pieces) if self.maybe(0.5) else pieces)
        return self.head("POST", path, body, Content_Type="application/json")

    def form(self):
        edge = self.pick([b"b", b"b" * 70, b"", b"--", b"b b", b"\xff"])
        body = b""
        for _ in range(self.random.randrange(1, 6)):
            name = self.pick(["image", "mask", "original_ref", "overwrite", "type", "subfolder", "é", ""])
            file = '; filename="%s"' % self.pick(["x.png", "../x", "", "a" * 300, "x\x00y", 'q"q', "a/b.png"]) if self.maybe(0.6) else ""
            content = self.pick([b"", b"true", b"input", b"temp", b"sub/../dir", json.dumps({"filename": "x.png", "type": "input"}).encode(),
                                 b"\x89PNG\r\n\x1a\n" + self.random.randbytes(60), self.random.randbytes(300), PNG, self.mutate(PNG), b"\r\n--" + edge])
            body += b"--" + edge + b"\r\nContent-Disposition: form-data; name=\"%s\"%s\r\n" % (name.encode(), file.encode("utf-8", "replace"))
            body += self.pick([b"", b"Content-Type: image/png\r\n", b"X: y\r\n"]) + b"\r\n" + content + b"\r\n"
        body += self.pick([b"--" + edge + b"--\r\n", b"", b"--" + edge])
        if self.maybe(0.6):
            body = self.mutate(body)
        return self.head("POST", self.pick(["/upload/image", "/upload/mask"]), body,
                         Content_Type="multipart/form-data; boundary=" + edge.decode("latin-1"))

    def frames(self):
        key = base64.b64encode(self.random.randbytes(16)).decode()
        data = self.head("GET", self.pick(["/ws", "/ws?clientId=c", "/api/ws?clientId=" + self.pick(["a", "%00", "x" * 400])]), Upgrade="websocket",
                         Connection="Upgrade", Sec_WebSocket_Key=key, Sec_WebSocket_Version="13")
        for _ in range(self.random.randrange(1, 12)):
            payload = self.pick([b"", b'{"type": "feature_flags", "data": {"supports_preview_metadata": true}}', b"[" * 5000, b"\xff\xfe",
                                 self.random.randbytes(self.random.randrange(300)), b"x" * 70000, self.json()])
            first = self.pick([0x81, 0x81, 0x82, 0x01, 0x00, 0x80, 0x88, 0x89, 0x8a, 0x83, 0x8f, 0xf1, 0xc1])
            claimed = len(payload) if self.maybe(0.9) else self.pick([0, 1, 125, 126, 65535, 65536, 1 << 31, (1 << 63) - 1, (1 << 64) - 1])
            mask = 0x80 if self.maybe(0.95) else 0
            head = bytes([first]) + (bytes([mask | claimed]) if claimed < 126 else
                                     bytes([mask | 126]) + struct.pack(">H", claimed) if claimed < 65536 else
                                     bytes([mask | 127]) + struct.pack(">Q", claimed))
            m = self.random.randbytes(4)
            data += head + (m if mask else b"") + bytes(b ^ m[i & 3] for i, b in enumerate(payload))
        return self.mutate(data) if self.maybe(0.2) else data

    def test_requests(self):
        self.rounds(self.request)

    def test_submissions(self):
        self.rounds(self.submission)

    def test_forms(self):
        self.rounds(self.form)

    def test_frames(self):
        self.rounds(self.frames)


PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")

if __name__ == "__main__":
    unittest.main()
