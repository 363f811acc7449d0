#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""POST /prompt of atelier serve beside ComfyUI's, on this machine in one run.

    tools/bench/serve_rate.py [--atelier build/release/bin/atelier] [--comfyui CHECKOUT --python VENV/bin/python]

Both servers start on the CPU with folders of their own, in turn (A B A B ...), and take the same job: EmptyImage 64x64
into PreviewImage, which both answer from their caches after the first. A generator of several processes posts over
keep-alive connections, one request in flight on each, for --seconds; jobs run meanwhile, as they do in life. Told:
accepted a second, p50 and p99 of the answer, jobs run a second, time from the start to the first answer, resident
memory when idle and after. ComfyUI is brought by whoever runs this (a checkout and a Python with its requirements).
"""
import argparse
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request

JOB = {"1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
       "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def family(pid):
    """A process and those that it started."""
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid), encoding="ascii") as f:
            return [pid] + [p for child in f.read().split() for p in family(int(child))]
    except OSError:
        return []


def resident(pid):
    """MiB of a server and its children, shared pages divided among those who share them."""
    total = 0
    for p in family(pid):
        with open("/proc/%d/smaps_rollup" % p, encoding="ascii") as f:
            total += sum(int(line.split()[1]) for line in f if line.startswith("Pss:"))
    return total / 1024


class Server:
    def __init__(self, command, cwd):
        self.port = free_port()
        self.dir = tempfile.mkdtemp(prefix="serve-rate-")
        command = [a.format(dir=self.dir, port=self.port) for a in command]
        for name in ("models", "input", "output", "temp", "user"):
            os.mkdir(os.path.join(self.dir, name))
        with open(os.path.join(self.dir, "log"), "wb") as log:
            start = time.monotonic()
            self.process = subprocess.Popen(command, cwd=cwd or self.dir, stdout=log, stderr=log)
        while True:
            try:
                self.get("/prompt")
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() - start > 180:
                    with open(os.path.join(self.dir, "log"), encoding="utf-8", errors="replace") as f:
                        raise RuntimeError("no answer: " + f.read()[-2000:])
                time.sleep(0.001)
        self.started = time.monotonic() - start
        time.sleep(0.5)
        self.idle = resident(self.process.pid)

    def get(self, path):
        with urllib.request.urlopen("http://127.0.0.1:%d%s" % (self.port, path), timeout=120) as answer:
            return json.load(answer)

    def waiting(self):
        return self.get("/prompt")["exec_info"]["queue_remaining"]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def answer_of(connection):
    """Read one answer whole; its status."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise OSError("the server closed the connection")
        data += piece
    head, body = data.split(b"\r\n\r\n", 1)
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    while len(body) < length:
        piece = connection.recv(65536)
        if not piece:
            raise OSError("the server closed the connection")
        body += piece
    return int(head.split()[1])


def post(port, seconds, go, out):
    """Requests one after another over one connection: their times, and how many were refused."""
    body = json.dumps({"prompt": JOB, "client_id": "rate"}).encode()
    request = (b"POST /prompt HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
               % (port, len(body))) + body
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times, refused = [], 0
    go.wait()
    end = time.perf_counter() + seconds
    while (at := time.perf_counter()) < end:
        connection.sendall(request)
        if answer_of(connection) == 200:
            times.append(time.perf_counter() - at)
        else:
            refused += 1
            time.sleep(0.01)
    connection.close()
    out.put((times, refused))


def load(server, connections, seconds):
    go, out = multiprocessing.Event(), multiprocessing.Queue()
    people = [multiprocessing.Process(target=post, args=(server.port, seconds, go, out)) for _ in range(connections)]
    for p in people:
        p.start()
    time.sleep(0.3)
    start = time.perf_counter()
    go.set()
    answers = [out.get(timeout=seconds + 120) for _ in people]
    taken = time.perf_counter() - start
    for p in people:
        p.join()
    times = sorted(t for a in answers for t in a[0])
    left = server.waiting()
    grown = resident(server.process.pid)
    before = time.perf_counter()
    while left and time.perf_counter() - before < 2:  # how fast they run when nobody asks
        time.sleep(0.05)
        now = server.waiting()
        if not now:
            break
    alone = (left - server.waiting()) / (time.perf_counter() - before) if left else 0
    return {"accepted_per_s": len(times) / taken, "p50_ms": times[len(times) // 2] * 1e3,
            "p99_ms": times[int(len(times) * 0.99)] * 1e3, "refused": sum(a[1] for a in answers),
            "run_per_s_meanwhile": (len(times) - left) / taken, "run_per_s_after": alone, "waiting_after": left,
            "start_ms": server.started * 1e3, "idle_mib": server.idle, "after_mib": grown}


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--atelier", default=os.path.join(here, "..", "..", "build", "release", "bin", "atelier"))
    parser.add_argument("--comfyui", help="a ComfyUI checkout")
    parser.add_argument("--python", default="python3", help="with ComfyUI's requirements")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flag", action="append", default=[], help="one more for atelier serve")
    args = parser.parse_args()
    sides = {"atelier": ([os.path.abspath(args.atelier), "serve", "--port", "{port}", "--device", "cpu",
                          "--base-directory", "{dir}", "--user-directory", "{dir}/user"] + args.flag, None)}
    if args.comfyui:
        sides["comfyui"] = ([args.python, "main.py", "--cpu", "--port", "{port}", "--base-directory", "{dir}",
                             "--disable-all-custom-nodes", "--disable-api-nodes", "--database-url", "sqlite:///:memory:"],
                            args.comfyui)
    results = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, (command, cwd) in sides.items():
            server = Server(command, cwd)
            try:
                results[name].append(load(server, args.connections, args.seconds))
            finally:
                server.stop()
            print(name, json.dumps({k: round(v, 2) for k, v in results[name][-1].items()}), flush=True)
    middle = {name: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for name, rows in results.items()}
    for name, row in middle.items():
        print("median", name, json.dumps({k: round(v, 2) for k, v in row.items()}))
    if args.comfyui:
        print("accepted a second: %.1f times; p99: %.1f times shorter" % (
            middle["atelier"]["accepted_per_s"] / middle["comfyui"]["accepted_per_s"],
            middle["comfyui"]["p99_ms"] / middle["atelier"]["p99_ms"]))


if __name__ == "__main__":
    main()
