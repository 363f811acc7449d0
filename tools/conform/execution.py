#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ComfyUI's own tests of execution against atelier serve.

    tools/conform/execution.py --comfyui CHECKOUT [--atelier build/release/bin/atelier] [--cache none] [pytest arguments]

Runs tests/execution of a ComfyUI 0.3.64 checkout (brought by whoever runs this; nothing of it is kept) as it is, but for
one thing: where its server fixture starts `python main.py FLAGS`, `atelier serve FLAGS --enable-test-nodes` starts.
Each server gets a user folder of its own: a history that is still there is not what the suite expects of a new process.
Its fixture goes through the default cache, --cache-lru 0 and --cache-lru 100; with --cache none all three run without a
cache, where the six tests that say "should be cached" fail by their nature.
Wants pytest, websocket-client, numpy, Pillow and torch, which the tests import.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

PLUGIN = '''
import os, subprocess, tempfile
real = subprocess.Popen
class Popen(real):
    def __init__(self, args, *more, **named):
        if list(args[:2]) == ["python", "main.py"]:
            flags, at = [], 2
            while at < len(args):
                # The suite's own Python nodes; and one cache at a time.
                if args[at] == "--extra-model-paths-config" or (args[at] == "--cache-lru" and os.environ["ATELIER_FLAGS"]):
                    at += 2
                    continue
                flags.append(args[at])
                at += 1
            home = os.environ["ATELIER_HOME"]
            args = [os.environ["ATELIER"], "serve", *flags, "--enable-test-nodes", "--models", home + "/models",
                    "--user-directory", tempfile.mkdtemp(dir=home), "--input-directory", home + "/input",
                    "--temp-directory", home + "/temp", *os.environ.get("ATELIER_FLAGS", "").split()]
            named.setdefault("stdout", open(home + "/server.log", "a"))
            named.setdefault("stderr", subprocess.STDOUT)
        super().__init__(args, *more, **named)
subprocess.Popen = Popen
'''


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--comfyui", required=True)
    parser.add_argument("--atelier", default=os.path.join(here, "..", "..", "build", "release", "bin", "atelier"))
    parser.add_argument("--cache", choices=["default", "none"], default="default")
    args, rest = parser.parse_known_args()
    home = tempfile.mkdtemp(prefix="atelier-conform-")
    try:
        for name in ("models", "input", "output", "temp"):
            os.mkdir(os.path.join(home, name))
        with open(os.path.join(home, "atelier_server.py"), "w") as f:
            f.write(PLUGIN)
        shutil.copytree(os.path.join(args.comfyui, "tests"), os.path.join(home, "tests"))
        flags = "--cache-none" if args.cache == "none" else ""
        env = dict(os.environ, ATELIER=os.path.abspath(args.atelier), ATELIER_HOME=home, ATELIER_FLAGS=flags,
                   PYTHONPATH=os.pathsep.join([home, os.path.abspath(args.comfyui), os.environ.get("PYTHONPATH", "")]))
        command = [sys.executable, "-m", "pytest", "-p", "atelier_server", "-q", "-rfE", "--tb=short",
                   "--output_dir", os.path.join(home, "output"), "tests/execution", *rest]
        status = subprocess.run(command, cwd=home, env=env, check=False).returncode
        if status:
            with open(os.path.join(home, "server.log"), errors="replace") as f:
                print("--- the server's last words ---\n" + f.read()[-3000:])
        return status
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
