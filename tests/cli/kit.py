# SPDX-License-Identifier: Apache-2.0
"""What every module of this folder needs: the program, a folder with small models, workflows as dicts.

The environment names the program (ATELIER_BIN), the maker of small models (ATELIER_TINY), the source tree
(ATELIER_SOURCE) and, for a build with sanitizers, ATELIER_SANITIZED=1: its memory and address space are not
those of the program, so tests of these are skipped there.
"""
import json
import os
import shutil
import subprocess
import tempfile
import unittest

BIN = os.environ["ATELIER_BIN"]
TINY = os.environ["ATELIER_TINY"]
SOURCE = os.environ["ATELIER_SOURCE"]
SANITIZED = bool(os.environ.get("ATELIER_SANITIZED"))


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __str__(self):
        return "exit status %s\n--- standard output\n%s--- standard error\n%s" % (
            self.code, self.out[-3000:], self.err[-3000:])


class Case(unittest.TestCase):
    """A folder with models/, input/ and output/ for each class; commands run inside it."""

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="atelier-cli-")
        subprocess.run([TINY, os.path.join(SOURCE, "tests/golden"), cls.path("models")], check=True)
        os.makedirs(cls.path("input"))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dir, ignore_errors=True)

    @classmethod
    def path(cls, *parts):
        return os.path.join(cls.dir, *parts)

    def setUp(self):
        shutil.rmtree(self.path("output"), ignore_errors=True)

    def atelier(self, *args, stdin="", before=None, timeout=120):
        asan = os.environ.get("ASAN_OPTIONS", "") + ":allocator_may_return_null=1"
        done = subprocess.run([BIN, *args], input=stdin, capture_output=True, text=True,
                              cwd=self.dir, timeout=timeout, preexec_fn=before,
                              env=dict(os.environ, ASAN_OPTIONS=asan.lstrip(":")))
        return Result(done.returncode, done.stdout, done.stderr)

    def workflow(self, nodes, name="workflow.json"):
        with open(self.path(name), "w") as f:
            f.write(nodes if isinstance(nodes, str) else json.dumps(nodes))
        return self.path(name)

    def run_workflow(self, nodes, *args, **more):
        return self.atelier("run", self.workflow(nodes), "--base-directory", self.dir, *args, **more)

    def check(self, result, code, *words):
        """The exit status; every one of `words` on standard error; never a crash or a sanitizer's report."""
        self.assertEqual(result.code, code, result)
        self.assertNotRegex(result.err, r"ERROR: \w*Sanitizer|runtime error:", result)
        for word in words:
            self.assertIn(word, result.err, result)
        if code != 0:
            self.assertTrue(result.err.strip(), result)
        return result

    def outputs(self):
        return sorted(os.path.join(d, f) for d, _, files in os.walk(self.path("output")) for f in files)


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def flux(width=64, height=64, steps=2, batch=1, **sampler):
    """A usual Flux workflow on the small models."""
    return {
        "1": node("UNETLoader", unet_name="tiny_dev.safetensors", weight_dtype="default"),
        "2": node("DualCLIPLoader", clip_name1="tiny_clip_l.safetensors",
                  clip_name2="tiny_t5.safetensors", type="flux"),
        "3": node("VAELoader", vae_name="tiny_ae.safetensors"),
        "4": node("CLIPTextEncode", text="a red circle", clip=["2", 0]),
        "5": node("CLIPTextEncode", text="", clip=["2", 0]),
        "6": node("EmptySD3LatentImage", width=width, height=height, batch_size=batch),
        "7": node("KSampler", **dict(dict(model=["1", 0], seed=1, steps=steps, cfg=1.5,
                                          sampler_name="euler", scheduler="simple",
                                          positive=["4", 0], negative=["5", 0],
                                          latent_image=["6", 0], denoise=1.0), **sampler)),
        "8": node("VAEDecode", samples=["7", 0], vae=["3", 0]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="flux"),
    }


def load_save(name):
    return {"1": node("LoadImage", image=name),
            "2": node("SaveImage", images=["1", 0], filename_prefix="copy")}


def link_file(source, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if not os.path.lexists(target):
        os.symlink(source, target)


if __name__ == "__main__":
    raise SystemExit("run one of the test_*.py files beside this one")
