# SPDX-License-Identifier: Apache-2.0
"""atelier run: valid, invalid, interrupted and starved workflows."""
import json
import os
import resource
import signal
import subprocess
import time
import unittest

import kit
import png


def limit(megabytes):
    """For a process about to start: no more address space than this."""
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))


class Run(kit.Case):
    # --- good -----------------------------------------------------------------------------------------
    def test_paths_of_pictures_are_printed(self):
        r = self.check(self.run_workflow(kit.flux(batch=2)), 0, "done in", "step 2 of 2")
        self.assertEqual(r.out.split(), [self.path("output/flux_0000%d_.png" % i) for i in (1, 2)])
        self.assertEqual(self.outputs(), r.out.split())
        w, h, _, text = png.read(r.out.split()[0])
        self.assertEqual((w, h), (64, 64))
        self.assertEqual(json.loads(text["prompt"])["7"]["inputs"]["steps"], 2)

    def test_a_saved_picture_runs_again_to_the_same_picture(self):
        first = self.check(self.run_workflow(kit.flux(), "--progress", "none"), 0).out.strip()
        again = self.check(self.atelier("run", first, "--base-directory", self.dir, "--progress",
                                        "none"), 0).out.strip()
        self.assertNotEqual(first, again)
        self.assertEqual(png.read(first), png.read(again))

    def test_the_workflow_of_a_picture_rides_on(self):
        body = {"prompt": kit.flux(), "client_id": "c",
                "extra_data": {"extra_pnginfo": {"workflow": {"nodes": [], "x": 2**64 - 1}}}}
        first = self.check(self.run_workflow(body, "--progress", "none"), 0).out.strip()
        again = self.check(self.atelier("run", first, "--base-directory", self.dir, "--progress",
                                        "none"), 0).out.strip()
        self.assertEqual(json.loads(png.read(again)[3]["workflow"]), {"nodes": [], "x": 2**64 - 1})
        plain = self.check(self.run_workflow(body, "--progress", "none", "--disable-metadata"), 0)
        self.assertEqual(png.read(plain.out.strip())[3], {})

    def test_a_workflow_comes_from_standard_input(self):
        r = self.atelier("run", "-", "--base-directory", self.dir, stdin=json.dumps(kit.flux()))
        self.check(r, 0)
        self.check(self.atelier("run", "-", "--base-directory", self.dir, stdin=""), 3)

    def test_threads_and_repeats_do_not_change_the_picture(self):
        pictures = []
        for threads in ("1", "2", "2"):
            r = self.run_workflow(kit.flux(), "--progress", "none", "--threads", threads)
            pictures.append(png.read(self.check(r, 0).out.strip())[2])
        self.assertEqual(pictures[0], pictures[1])
        self.assertEqual(pictures[1], pictures[2])

    def test_progress_json_is_one_event_a_line(self):
        r = self.check(self.run_workflow(kit.flux(steps=3), "--progress", "json"), 0)
        events = [json.loads(line) for line in r.out.splitlines()]
        kinds = [e["type"] for e in events]
        self.assertEqual(kinds[0], "execution_start")
        self.assertEqual(kinds[-1], "execution_success")
        steps = [e["data"] for e in events if e["type"] == "progress" and e["data"]["node"] == "7"]
        self.assertEqual([(s["value"], s["max"]) for s in steps], [(1, 3), (2, 3), (3, 3)])
        self.assertEqual([e["data"]["output"]["images"][0]["filename"] for e in events
                          if e["type"] == "executed" and e["data"].get("node") == "9"],
                         ["flux_00001_.png"])
        self.assertTrue({e["data"].get("node") for e in events if e["type"] == "executing"} >=
                        set(kit.flux()))

    def test_an_error_is_an_event_with_its_inputs(self):
        w = kit.flux()
        w["1"]["inputs"]["unet_name"] = "../text_encoders/x"  # fails the check
        self.check(self.run_workflow(w, "--progress", "json"), 3)
        w = kit.flux(seed=2**64 - 1, width=64, height=64)
        w["6"] = kit.node("EmptyLatentImage", width=64, height=64, batch_size=1)
        w["8"] = kit.node("VAEDecode", samples=["6", 0], vae=["3", 0])  # 4 channels into a VAE of 16
        r = self.check(self.run_workflow(w, "--progress", "json"), 3, "node 8 (VAEDecode)", "4 channels")
        last = json.loads(r.out.splitlines()[-1])
        self.assertEqual(last["type"], "execution_error", r)
        self.assertEqual(last["data"]["error"]["node_id"], "8")
        self.assertEqual(last["data"]["error"]["node_type"], "VAEDecode")
        self.assertIn("4 channels", last["data"]["error"]["exception_message"])

    def test_set_changes_inputs(self):
        w = kit.flux()
        w["4"]["_meta"] = {"title": "prompt"}
        r = self.run_workflow(w, "--progress", "none", "--set", "6.width=32", "--set",
                              "KSampler.seed=18446744073709551615", "--set",
                              "prompt.text=a \"blue\" = square", "--set", "7.cfg=1")
        path = self.check(r, 0).out.strip()
        width, _, _, text = png.read(path)
        self.assertEqual(width, 32)
        ran = json.loads(text["prompt"])
        self.assertEqual(ran["7"]["inputs"]["seed"], 2**64 - 1)
        self.assertEqual(ran["4"]["inputs"]["text"], 'a "blue" = square')

    def test_set_refuses_what_it_cannot_place(self):
        for bad, word in (("nothing", "nothing"), ("99.seed=1", "99"), ("7.sed=1", "sed"),
                          ("CLIPTextEncode.text=x", "CLIPTextEncode"), ("=", "="), (".x=1", ".x")):
            with self.subTest(bad):
                r = self.run_workflow(kit.flux(), "--set", bad)
                self.assertIn(r.code, (2, 3), r)
                self.assertIn(word, r.err)

    def test_target_runs_one_output(self):
        w = kit.flux()
        w["10"] = kit.node("PreviewImage", images=["8", 0])
        r = self.check(self.run_workflow(w, "--target", "10", "--progress", "none"), 0)
        self.assertIn("/temp/ComfyUI_temp_", r.out)
        self.assertEqual(self.outputs(), [])
        r = self.run_workflow(w, "--target", "77")
        self.check(r, 3)

    # --- not valid ------------------------------------------------------------------------------------
    def test_broken_json_has_line_and_column(self):
        self.check(self.run_workflow('{\n  "1": {"class_type" "x"}\n}'), 3, "workflow.json",
                   "line 2 column 22")
        r = self.check(self.run_workflow(""), 3, "workflow.json")
        self.assertEqual(r.err.count("workflow.json"), 1, r)
        self.check(self.run_workflow("[1, 2]"), 3, "workflow.json")
        self.check(self.run_workflow("{}"), 3)
        self.check(self.run_workflow("[" * 100000), 3)

    def test_an_unknown_node_is_named(self):
        w = kit.flux()
        w["7"]["class_type"] = "KSamplr"
        self.check(self.run_workflow(w), 3, "KSamplr")
        w = kit.flux()
        del w["7"]["class_type"]
        self.check(self.run_workflow(w), 3, "7")

    def test_bad_values_are_listed_by_node(self):
        w = kit.flux(width=0, sampler_name="oiler", steps="many", cfg=1000)
        del w["8"]["inputs"]["vae"]
        r = self.check(self.run_workflow(w), 3, "node 6 EmptySD3LatentImage", "width",
                       "node 7 KSampler", "'oiler'", "steps", "cfg", "node 8 VAEDecode", "vae",
                       "Required input is missing", "smaller than min", "bigger than max",
                       "Value not in list")
        self.assertEqual(r.out, "")
        self.assertEqual(self.outputs(), [])
        self.check(self.atelier("plan", self.workflow(w), "--base-directory", self.dir), 3,
                   "EmptySD3LatentImage", "'oiler'")

    def test_links_are_checked(self):
        for source in (["77", 0], ["1", 9], ["1", 0], ["1"], ["1", "x"]):
            with self.subTest(source):
                w = kit.flux()
                w["8"]["inputs"]["samples"] = source
                self.check(self.run_workflow(w), 3)

    def test_a_cycle_is_refused(self):
        w = kit.flux()
        w["6"] = kit.node("VAEEncode", pixels=["8", 0], vae=["3", 0])
        r = self.check(self.run_workflow(w), 3)
        self.assertEqual(self.outputs(), [])
        self.assertTrue(r.err)

    def test_no_output_node(self):
        w = kit.flux()
        del w["9"]
        self.check(self.run_workflow(w), 3, "no outputs")

    def test_good_outputs_run_beside_bad_ones(self):
        w = kit.flux()
        w["10"] = kit.node("SaveImage", images=["11", 0], filename_prefix="bad")
        w["11"] = kit.node("LoadImage", image="absent.png")
        r = self.check(self.run_workflow(w), 0, "some outputs were not valid", "absent.png")
        self.assertEqual(len(r.out.split()), 1)

    # --- the machine says no --------------------------------------------------------------------------
    def test_output_folders_that_cannot_be_written(self):
        with open(self.path("flat"), "w"):
            pass
        for folder in ("flat", "flat/below", "/proc/nothing"):
            with self.subTest(folder):
                r = self.run_workflow(kit.flux(), "--output", self.path(folder))
                self.check(r, 4, folder, "SaveImage")

    def test_an_impossible_latent_is_out_of_memory(self):
        # 1.1 TB; without the limit a system that promises everything would start to fill it
        r = self.run_workflow(kit.flux(width=16384, height=16384, batch=4096),
                              before=None if kit.SANITIZED else limit(4096))
        self.check(r, 5, "EmptySD3LatentImage", "memory")

    @unittest.skipIf(kit.SANITIZED, "a sanitizer takes terabytes of address space")
    def test_a_small_address_space_is_out_of_memory(self):
        codes = set()
        for megabytes in (12, 16, 24, 40, 64, 100, 160):
            r = self.run_workflow(kit.flux(1024, 1024), "--threads", "1", before=limit(megabytes))
            self.assertIn(r.code, (0, 5, 127), "%d MiB: %s" % (megabytes, r))
            if r.code == 5:
                self.assertRegex(r.err, "memory")
            codes.add(r.code)
        self.assertIn(5, codes)
        self.assertEqual([f for f in self.outputs() if not f.endswith("_.png")], [])

    def interrupt(self, kind, after):
        """Send `kind` when the line of an event of type `after` was read; everything that was left."""
        w = self.workflow(kit.flux(steps=10000))
        p = subprocess.Popen([kit.BIN, "run", w, "--base-directory", self.dir, "--progress", "json"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.dir)
        for line in p.stdout:
            if json.loads(line)["type"] == after:
                break
        start = time.time()
        p.send_signal(kind)
        out, err = p.communicate(timeout=60)
        return kit.Result(p.returncode, out, err), time.time() - start

    def test_an_interrupt_ends_the_job_and_leaves_nothing(self):
        for kind in (signal.SIGINT, signal.SIGTERM):
            for after in ("execution_start", "progress"):
                with self.subTest(kind=kind, after=after):
                    r, seconds = self.interrupt(kind, after)
                    self.assertEqual(r.code, 130, r)
                    self.assertNotRegex(r.err, r"ERROR: \w*Sanitizer|runtime error:")
                    self.assertLess(seconds, 30 if kit.SANITIZED else 3)
                    kinds = [json.loads(line)["type"] for line in r.out.splitlines()]
                    self.assertEqual(kinds[-1], "execution_interrupted", r)
                    self.assertNotIn("execution_error", kinds)
                    self.assertEqual(self.outputs(), [])

    def test_a_closed_pipe_is_no_crash(self):
        w = self.workflow(kit.flux())
        p = subprocess.Popen([kit.BIN, "run", w, "--base-directory", self.dir, "--progress", "json"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.dir)
        p.stdout.close()
        _, err = p.communicate(timeout=60)
        p.stderr.close()
        self.assertIn(p.returncode, (0, -signal.SIGPIPE, 4), err)
        self.assertEqual([f for f in self.outputs() if not f.endswith("_.png")], [])


if __name__ == "__main__":
    unittest.main()
