#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a GPU can do to a server, done to it: no memory, a kernel that traps, a store to a wrong address, interrupts.

    tools/gpu/hardship.py --kit KIT [--models DIR] [--device cuda:0]

KIT has bin/atelier, lib/libat_cuda.so and lib/libat_break_gpu.so (tools/gpu/kit.sh; a build folder has them too). DIR: checkpoints/sd_xl_base_1.0
(tools/gpu/make_model_files.py --only sdxl); without it that is written to /dev/shm first (7 GB, 3 s). About 35 s.
After each hardship the next job of the same server must succeed. A line a step; exit status 1: one was not as it must be.
The memory is taken by this process through the driver, the faults happen in the engine's own context (tests/device/break_gpu.c).
"""
import argparse
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.join(HERE, "..", "..")
PORT = 8197
GIB = 1 << 30
failed = []


def say(label, good, text):
    print("%-4s %-46s %s" % ("ok" if good else "FAIL", label, text), flush=True)
    if not good:
        failed.append(label)


class Hog:
    """All but `left` GiB of the GPU, held by a process of its own (so that its context goes with it)."""

    def __init__(self, ordinal, left):
        read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.write(write, b"%d" % self.take(ordinal, left))
            signal.pause()
        os.close(write)
        self.left = int(os.read(read, 20) or -1)
        os.close(read)

    @staticmethod
    def take(ordinal, left):
        cuda = ctypes.CDLL("libcuda.so.1")
        context, free, total, block = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_uint64()
        cuda.cuInit(0)
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), ordinal)
        cuda.cuCtxSetCurrent(context)
        cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        wanted = free.value - int(left * GIB)
        while wanted > 0 and cuda.cuMemAlloc_v2(ctypes.byref(block), ctypes.c_size_t(wanted)) != 0:
            wanted -= 64 << 20
        cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        return free.value

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Server:
    def __init__(self, o, folder, flags=()):
        os.makedirs(folder, exist_ok=True)
        self.log, self.fault = os.path.join(folder, "log.txt"), os.path.join(folder, "fault")
        environment = dict(os.environ, LD_PRELOAD=os.path.join(o.kit, "lib", "libat_break_gpu.so"), AT_BREAK_GPU=self.fault,
                           AT_PLUGINS=os.path.join(o.kit, "lib"))
        command = [os.path.join(o.kit, "bin", "atelier"), "serve", "--port", str(PORT), "--models", o.models, "--models",
                   os.path.join(TREE, "models"), "--device", o.device, *flags]
        for flag in ("output", "user", "temp"):
            command += ["--%s-directory" % flag, os.path.join(folder, flag)]
        self.process = subprocess.Popen(command, stdout=open(self.log, "w"), stderr=subprocess.STDOUT, env=environment)
        for _ in range(400):
            try:
                self.get("/system_stats")
                return
            except OSError:
                time.sleep(0.025)
        raise RuntimeError("the server does not answer: " + open(self.log).read()[-1000:])

    def get(self, path):
        with urllib.request.urlopen("http://127.0.0.1:%d%s" % (PORT, path), timeout=10) as r:
            return json.load(r)

    def post(self, path, body):
        r = urllib.request.Request("http://127.0.0.1:%d%s" % (PORT, path), json.dumps(body).encode(),
                                   {"Content-Type": "application/json"})
        with urllib.request.urlopen(r, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def submit(self, workflow):
        return self.post("/prompt", {"prompt": workflow})["prompt_id"]

    def wait(self, job, limit):
        """(status, the last message's words); ("late", "") after `limit` seconds, and the job is interrupted."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            history = self.get("/history/" + job)
            if job in history:
                status = history[job]["status"]
                kind, data = status["messages"][-1]
                return kind.replace("execution_", ""), data.get("exception_message", "")
            time.sleep(0.02)
        self.post("/interrupt", {})
        return "late", ""

    def expect(self, label, job, wanted, words="", limit=15.0, began=None):
        began = began or time.monotonic()
        kind, text = self.wait(job, limit)
        good = kind in wanted.split("|") and (kind != "error" or words in text)
        say(label, good, "%s in %.2f s%s" % (kind, time.monotonic() - began, ": " + text.strip()[:300] if text else ""))

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = "killed"
        say("the server ends", status == 0, "status %s" % status)
        with open(self.log) as f:
            for line in f:
                if any(word in line for word in ("ENGINE", "break_gpu", "LOST", "error")):
                    print("     log: " + line.strip()[:300])


def sdxl(steps, batch=1, size=1024):
    with open(os.path.join(TREE, "examples", "sd15.json")) as f:
        w = json.load(f)
    w["4"]["inputs"]["ckpt_name"] = "sd_xl_base_1.0.safetensors"
    w["5"]["inputs"].update(width=size, height=size, batch_size=batch)
    w["3"]["inputs"].update(steps=steps, seed=random.randrange(2**40))
    return w


def house(steps=4):
    with open(os.path.join(TREE, "examples", "house.json")) as f:
        w = json.load(f)
    for n in w.values():
        if "seed" in n["inputs"]:
            n["inputs"].update(seed=random.randrange(2**40), steps=steps)
    return w


def memory(o, folder):
    """Another process takes the memory before the engine has any; then it leaves."""
    for left, wanted in ((3.5, "success"), (1.2, "success|error"), (0.2, "error")):
        hog = Hog(o.ordinal, left)
        server = Server(o, os.path.join(folder, "memory%g" % left))
        label = "%.2f GiB left" % (hog.left / GIB)
        try:
            server.expect(label + ", SDXL", server.submit(sdxl(2, 1 if left > 2 else 4)), wanted, "memory", limit=12)
        finally:
            hog.end()
        server.expect(label + ", then all", server.submit(sdxl(2)), "success")
        server.end()


def free_memory(o):
    """GiB that the driver has for others."""
    probe = Hog(o.ordinal, 1e6)
    probe.end()
    return probe.left / GIB


def given_back(server, o, before):
    """After /free the engine keeps its context and little more: others can have the memory."""
    held = before - free_memory(o)
    server.post("/free", {"unload_models": True, "free_memory": True})
    time.sleep(1)
    kept = before - free_memory(o)
    with open(server.log) as f: # the engine's own books: a context and kernels' code are the driver's alone
        books = [line.split("still holds:")[-1].strip() for line in f if "still holds:" in line]
    say("/free gives the memory back", held > 6 and kept < 2, "the driver counts %.2f GiB, then %.2f; the engine's books then: %s" % (
        held, kept, books[-1] if books else "none in the log"))


def faults(server):
    """A kernel fails while steps run; the job ends with the device's words, the next one finds a new engine."""
    for how in ("trap", "address"):
        job = server.submit(sdxl(2000))
        time.sleep(1.5)
        began = time.monotonic()
        with open(server.fault + ".new", "w") as f:
            f.write(how)
        os.rename(server.fault + ".new", server.fault)
        server.expect("a kernel fails (%s) during a step" % how, job, "error", "is lost to this process", began=began)
        server.expect("the next job", server.submit(house()), "success")
    with open(server.fault + ".new", "w") as f: # nobody works now
        f.write("trap")
    os.rename(server.fault + ".new", server.fault)
    time.sleep(2.5)
    server.expect("a kernel failed between jobs, the next job", server.submit(house()), "success")


def interrupts(server):
    job = server.submit(sdxl(2000))
    time.sleep(2.0)
    began = time.monotonic()
    server.post("/interrupt", {})
    server.expect("an interrupt during a step", job, "interrupted", began=began, limit=3)
    server.expect("the next job", server.submit(sdxl(2)), "success")


def signals(o, folder):
    """SIGINT, and a fault, during a step of `atelier run`."""
    path, fault = os.path.join(folder, "w.json"), os.path.join(folder, "run_fault")
    with open(path, "w") as f:
        json.dump(sdxl(2000), f)
    for label, wanted, words in (("SIGINT", 130, ""), ("trap", 6, "is lost to this process")):
        p = subprocess.Popen([os.path.join(o.kit, "bin", "atelier"), "run", path, "--models", o.models, "--output", folder,
                              "--device", o.device, "--progress", "none"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             env=dict(os.environ, AT_PLUGINS=os.path.join(o.kit, "lib"), AT_BREAK_GPU=fault,
                                      LD_PRELOAD=os.path.join(o.kit, "lib", "libat_break_gpu.so")))
        time.sleep(3)
        began = time.monotonic()
        if label == "SIGINT":
            p.send_signal(signal.SIGINT)
        else:
            with open(fault, "w") as f:
                f.write("trap")
        try:
            out = p.communicate(timeout=8)[0].decode()
        except subprocess.TimeoutExpired:
            p.kill()
            out = p.communicate()[0].decode()
        say("%s during a step of atelier run" % label, p.returncode == wanted and words in out,
            "status %s after %.2f s: %s" % (p.returncode, time.monotonic() - began, out.strip()[-300:]))


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--kit", required=True)
    a.add_argument("--models")
    a.add_argument("--device", default="cuda:0")
    a.add_argument("--only", default="interrupts,faults,signals,memory")
    o = a.parse_args()
    o.kit, o.ordinal = os.path.abspath(o.kit), int(o.device.split(":")[1])
    folder, made = tempfile.mkdtemp(), None
    if not o.models:
        o.models = made = tempfile.mkdtemp(dir="/dev/shm")
        subprocess.run([sys.executable, os.path.join(HERE, "make_model_files.py"), made, "--only", "sdxl"], check=True,
                       stdout=subprocess.DEVNULL)
    only = o.only.split(",")
    try:
        before = free_memory(o)
        server = Server(o, os.path.join(folder, "first")) if "interrupts" in only or "faults" in only else None
        if "interrupts" in only:
            interrupts(server)
            given_back(server, o, before)
        if "faults" in only:
            faults(server)
        if server:
            server.end()
        if "signals" in only:
            signals(o, folder)
        if "memory" in only:
            memory(o, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if made:
            shutil.rmtree(made, ignore_errors=True)
    print("hardship: %s" % (", ".join(failed) + ": not as it must be" if failed else "all as it must be"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
