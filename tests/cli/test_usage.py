# SPDX-License-Identifier: Apache-2.0
"""Flags, help, folders: what a person meets before anything runs."""
import json
import os
import unittest

import kit

COMMANDS = ("run", "plan", "inspect", "nodes", "models", "devices", "bench", "verify", "version")


class Usage(kit.Case):
    def test_every_command_explains_itself(self):
        for command in COMMANDS:
            r = self.check(self.atelier(command, "--help"), 0)
            self.assertIn("usage: atelier " + command, r.out)
            self.assertEqual(r.err, "")
            self.assertEqual(r.out, self.atelier(command, "-h").out)
            self.assertEqual(self.atelier(command, "x", "--nonsense", "--help").code, 0)

    def test_help_lists_every_command_and_exit_status(self):
        for args in (("--help",), ("-h",), ("help",)):
            r = self.check(self.atelier(*args), 0)
            for word in COMMANDS + ("130 interrupted", "5 out of memory"):
                self.assertIn(word, r.out)

    def test_nothing_and_nonsense_are_usage_errors(self):
        self.check(self.atelier(), 2, "usage: atelier")
        self.check(self.atelier("draw"), 2, '"draw" is no command', "atelier --help")
        self.check(self.atelier(""), 2)

    def test_every_command_refuses_an_unknown_flag(self):
        for command in COMMANDS:
            self.check(self.atelier(command, "--nonsense"), 2, "--nonsense", "no such flag",
                       "atelier %s --help" % command)

    def test_values_are_checked(self):
        w = self.workflow(kit.flux())
        self.check(self.atelier("run", w, "--threads", "0"), 2, "--threads 0", "from 1 to 1024")
        self.check(self.atelier("run", w, "--threads", "two"), 2, "whole number")
        self.check(self.atelier("run", w, "--threads", "99999999999999999999"), 2)
        self.check(self.atelier("run", w, "--threads="), 2)
        self.check(self.atelier("run", w, "--progress", "loud"), 2, "auto|plain|json|none")
        self.check(self.atelier("run", w, "--dtype", "int3"), 2, "auto|f32|bf16")
        self.check(self.atelier("run", w, "--models"), 2, "--models wants a value")
        self.check(self.atelier("run", w, "--disable-metadata=1"), 2, "takes no value")

    def test_operands_are_counted(self):
        self.check(self.atelier("run"), 2, "WORKFLOW.json")
        self.check(self.atelier("inspect"), 2, "FILE")
        self.check(self.atelier("verify"), 2, "CASE_DIR")
        self.check(self.atelier("run", "a.json", "b.json"), 2, '"b.json" is one argument too many')
        self.check(self.atelier("version", "x"), 2, "too many")
        self.check(self.atelier("devices", "x"), 2, "too many")

    def test_flags_may_stand_anywhere_and_carry_their_value(self):
        w = self.workflow(kit.flux())
        for args in (("--progress", "none", w, "--base-directory=" + self.dir),
                     (w, "--progress=none", "--base-directory", self.dir),
                     ("--progress=none", "--base-directory", self.dir, "--", w)):
            r = self.check(self.atelier("run", *args), 0)
            self.assertTrue(r.out.endswith(".png\n"), r)

    def test_version_and_devices(self):
        r = self.check(self.atelier("version"), 0)
        self.assertTrue(r.out.startswith("atelier "), r)
        self.assertEqual(self.atelier("--version").out, r.out)
        self.assertIn("cpu", self.check(self.atelier("devices"), 0).out)

    def test_an_unknown_device_is_a_device_error(self):
        w = self.workflow(kit.flux())
        self.check(self.atelier("run", w, "--device", "cuda:7"), 6, "cuda:7", "atelier devices")
        self.check(self.atelier("verify", "--device", "tpu",
                                os.path.join(kit.SOURCE, "tests/golden/t5")), 6, "tpu")
        self.check(self.atelier("bench", "--device", "tpu"), 6, "tpu")

    def test_folders_that_are_missing_are_named(self):
        w = self.workflow(kit.flux())
        self.check(self.atelier("run", w, "--models", "/nowhere/models"), 4, "/nowhere/models")
        self.check(self.atelier("run", w, "--base-directory", "/nowhere"), 4, "/nowhere")
        self.check(self.atelier("run", w, "--extra-model-paths-config", "/nowhere.yaml"), 4,
                   "/nowhere.yaml")

    def test_extra_model_paths_are_read(self):
        with open(self.path("extra.yaml"), "w") as f:
            f.write("mine:\n  base_path: %s\n  unet: diffusion_models\n  clip: text_encoders\n"
                    "  vae: |\n    vae\n    other\n" % self.path("models"))
        w = self.workflow(kit.flux())
        r = self.atelier("run", w, "--extra-model-paths-config", self.path("extra.yaml"),
                         "--output", self.path("output"), "--progress", "none")
        self.check(r, 0)
        with open(self.path("bad.yaml"), "w") as f:
            f.write("a:\n  b: [\n")
        self.check(self.atelier("run", w, "--extra-model-paths-config", self.path("bad.yaml")), 4,
                   "bad.yaml", "line 3")
        with open(self.path("list.yaml"), "w") as f:
            f.write("- a\n- b\n")
        self.check(self.atelier("run", w, "--extra-model-paths-config", self.path("list.yaml")), 4,
                   "list.yaml")

    def test_nodes_are_listed_and_described(self):
        r = self.check(self.atelier("nodes"), 0)
        self.assertIn("KSamplerAdvanced", r.out)
        r = self.check(self.atelier("nodes", "KSampler"), 0)
        self.assertIn("18446744073709551615", r.out)
        self.assertIn("res_multistep", r.out)
        info = json.loads(self.check(self.atelier("nodes", "--json", "KSampler"), 0).out)
        self.assertEqual(info["KSampler"]["input"]["required"]["seed"][1]["max"], 2**64 - 1)
        everything = json.loads(self.check(self.atelier("nodes", "--json"), 0).out)
        self.assertGreaterEqual(len(everything), 30)
        for args in (("nodes", "KSamplr"), ("nodes", "--json", "KSamplr")):
            self.check(self.atelier(*args), 4, '"KSamplr"', "atelier nodes")

    def test_bench_refuses_what_it_does_not_know(self):
        self.check(self.atelier("bench", "--arch", "flux9"), 2, "flux9")
        self.check(self.atelier("bench", "--arch", "flux1-dev", "--size", "0"), 2, "--size")
        self.check(self.atelier("bench", "--steps", "0"), 2, "--steps")

    @unittest.skipIf(kit.SANITIZED, "a minute of random weights")
    def test_bench_times_a_small_model(self):
        r = self.check(self.atelier("bench", "--arch", "clip-l", "--layers", "1", "--steps", "1",
                                    "--json"), 0)
        self.assertGreater(len(json.loads(r.out)), 3)

    def test_verify_tells_pass_from_fail(self):
        golden = os.path.join(kit.SOURCE, "tests/golden")
        r = self.check(self.atelier("verify", os.path.join(golden, "t5")), 0)
        self.assertRegex(r.out, r"hidden rel_err=\S+ max_abs=\S+ PASS")
        self.check(self.atelier("verify", "/nowhere"), 4, "/nowhere")
        case = self.path("case")
        os.makedirs(case, exist_ok=True)
        with open(os.path.join(golden, "t5/case.json")) as f:
            spec = json.load(f)
        spec["rtol"] = 1e-30
        for key in ("model", "inputs", "expected"):
            spec[key] = os.path.relpath(os.path.join(golden, "t5", spec[key]), case)
        with open(os.path.join(case, "case.json"), "w") as f:
            json.dump(spec, f)
        r = self.check(self.atelier("verify", case), 1, "1 of 1 cases differ")
        self.assertIn("FAIL", r.out)
        # Among several, what cannot run is told and the rest go on.
        r = self.check(self.atelier("verify", case, "/nowhere", os.path.join(golden, "t5")), 1,
                       "1 of 3 cases differ", "1 cannot run")
        self.assertIn("/nowhere/case.json: no such file REFUSED", r.out)
        self.assertIn("3 cases on cpu in their own types: 1 pass", r.out)
        with open(os.path.join(case, "case.json"), "w") as f:
            f.write("{")
        self.check(self.atelier("verify", case), 4, "case.json")

    def test_verify_has_a_tolerance_for_each_type(self):
        golden = os.path.join(kit.SOURCE, "tests/golden")
        for dtype in ("f32", "bf16", "fp16", "fp8"):
            self.check(self.atelier("verify", "--dtype", dtype, os.path.join(golden, "t5"),
                                    os.path.join(golden, "tokens_clip")), 0)


if __name__ == "__main__":
    unittest.main()
