# SPDX-License-Identifier: Apache-2.0
"""What the tests of the server share: a server in a folder of its own, requests, a WebSocket client.

The environment names the program (ATELIER_BIN) and the source tree (ATELIER_SOURCE).
"""
import base64
import http.client
import json
import os
import queue
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

BIN = os.environ["ATELIER_BIN"]
SOURCE = os.environ["ATELIER_SOURCE"]
FINDING = re.compile(r"ERROR: \w*Sanitizer|WARNING: ThreadSanitizer|runtime error:")
SANITIZED = os.environ.get("ATELIER_SANITIZED", "OFF") not in ("OFF", "", "0")
PATIENCE = 60  # seconds; only a machine that is very busy needs them


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


class Server:
    """`atelier serve` on a free port, in the folder `dir`."""

    def __init__(self, dir, *flags):
        self.log = open(os.path.join(dir, "server.log"), "ab")
        options = {name: (os.environ.get(name, "") + ":allocator_may_return_null=1").lstrip(":")
                   for name in ("ASAN_OPTIONS", "TSAN_OPTIONS")}
        self.process = subprocess.Popen(
            [BIN, "serve", "--port", "0", "--device", "cpu", "--enable-test-nodes", *flags],
            cwd=dir, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=dict(os.environ, **options))
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.process.stdout.close()
            self.log.close()
            with open(self.log.name, encoding="utf-8") as f:
                raise RuntimeError("the server did not start: " + f.read()[-2000:])
        self.host, self.port = line.split("//")[1].strip().rsplit(":", 1)
        self.port = int(self.port)

    def request(self, method, path, body=None, headers=None, timeout=PATIENCE):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, dict((k.lower(), v) for k, v in answer.getheaders()), answer.read())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, path, body=None, **headers):
        return self.request("POST", path, body, {k.replace("_", "-"): v for k, v in headers.items()})

    def submit(self, prompt, **more):
        return self.post("/prompt", dict(more, prompt=prompt))

    def history(self, prompt_id):
        return self.get("/history/" + prompt_id).json().get(prompt_id)

    def wait(self, prompt_id):
        """The history entry of a job, as soon as it is there."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            entry = self.history(prompt_id)
            if entry:
                return entry
            time.sleep(0.02)
        raise AssertionError("job %s does not end" % prompt_id)

    def idle(self, patience=None):
        """Nothing runs and nothing waits."""
        end = time.monotonic() + (patience or PATIENCE)
        while self.get("/prompt").json()["exec_info"]["queue_remaining"]:
            if time.monotonic() > end:
                raise AssertionError("the queue does not get empty")
            time.sleep(0.02)

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(timeout=PATIENCE)
        if not self.process.stdout.closed:
            self.process.stdout.close()
            self.log.close()
        with open(self.log.name, encoding="utf-8", errors="replace") as f:
            log = f.read()
        assert not FINDING.search(log), log[-8000:]
        return code


class Socket:
    """A WebSocket client: messages arrive as dicts or bytes."""

    def __init__(self, server, client="", path="/ws", headers=(), first=None):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ["GET %s%s HTTP/1.1" % (path, "?clientId=" + client if client else ""),
                 "Host: 127.0.0.1:%d" % server.port, "Upgrade: websocket", "Connection: Upgrade",
                 "Sec-WebSocket-Key: " + key, "Sec-WebSocket-Version: 13", *headers, "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        self.buffer = b""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            if not byte:
                break
            head += byte
        self.status = int(head.split()[1]) if head else 0
        self.messages = queue.Queue()
        if self.status == 101:
            if first is not None:
                self.send(first)
            threading.Thread(target=self._read, daemon=True).start()

    def send(self, message):
        data = message.encode() if isinstance(message, str) else json.dumps(message).encode()
        mask = os.urandom(4)
        head = bytes([0x81]) + (bytes([0x80 | len(data)]) if len(data) < 126
                                else bytes([0x80 | 126]) + struct.pack(">H", len(data)) if len(data) < 65536
                                else bytes([0x80 | 127]) + struct.pack(">Q", len(data)))
        self.socket.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def _take(self, n):
        while len(self.buffer) < n:
            piece = self.socket.recv(65536)
            if not piece:
                raise EOFError
            self.buffer += piece
        taken, self.buffer = self.buffer[:n], self.buffer[n:]
        return taken

    def _read(self):
        whole = b""
        try:
            while True:
                a, b = self._take(2)
                n = b & 127
                if n == 126:
                    n = struct.unpack(">H", self._take(2))[0]
                elif n == 127:
                    n = struct.unpack(">Q", self._take(8))[0]
                data = self._take(n)
                code = a & 15
                if code == 8:
                    break
                if code in (9, 10):
                    continue
                if code:
                    kind = code
                whole += data
                if a & 128:
                    self.messages.put(json.loads(whole) if kind == 1 else whole)
                    whole = b""
        except (EOFError, OSError):
            pass
        self.messages.put(None)

    def next(self, timeout=PATIENCE):
        return self.messages.get(timeout=timeout)

    def until(self, wanted):
        """All messages up to the first that `wanted` takes, with it."""
        got = []
        while True:
            m = self.next()
            if m is None:
                raise AssertionError("the socket closed; until then: %r" % got[-3:])
            got.append(m)
            if wanted(m):
                return got

    def close(self):
        try:  # the reader holds the descriptor: only this ends it
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


def is_end(prompt_id):
    """The last message of a job with a client: executing nothing."""
    return lambda m: (isinstance(m, dict) and m["type"] == "executing" and m["data"]["node"] is None
                      and m["data"]["prompt_id"] == prompt_id)


class Case(unittest.TestCase):
    """One server for each class; `flags` are its flags."""
    flags = ()

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="atelier-serve-")
        cls.prepare()
        cls.server = Server(cls.dir, *cls.flags)

    @classmethod
    def prepare(cls):
        """What lies in the folder before the server starts."""

    @classmethod
    def tearDownClass(cls):
        code = cls.server.stop()
        with open(os.path.join(cls.dir, "server.log"), encoding="utf-8") as f:
            log = f.read()
        shutil.rmtree(cls.dir, ignore_errors=True)
        assert code == 0, "the server ended with %s: %s" % (code, log[-4000:])

    def path(self, *parts):
        return os.path.join(self.dir, *parts)


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def picture(color=0, prefix="x", width=64, height=64):
    return {"1": node("EmptyImage", width=width, height=height, batch_size=1, color=color),
            "2": node("SaveImage", images=["1", 0], filename_prefix=prefix)}


def sleeper(seconds, color=0):
    return {"1": node("EmptyImage", width=64, height=64, batch_size=1, color=color),
            "3": node("TestSleep", value=["1", 0], seconds=seconds),
            "4": node("PreviewImage", images=["3", 0])}


if __name__ == "__main__":
    raise SystemExit("run one of the test_*.py files beside this one")
