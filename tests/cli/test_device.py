# SPDX-License-Identifier: Apache-2.0
"""Where jobs run: automatic choice, ComfyUI's flags, GPUs that cannot be used, GPUs that die."""
import os
import unittest

import kit
import png

FAKE = os.environ["ATELIER_FAKE"]


class Device(kit.Case):
    def run_on(self, fake, *args, **env):
        """The small Flux workflow with a plug-in that plays this GPU."""
        more = dict(AT_PLUGINS=FAKE, AT_FAKE_CUDA=fake, **env)
        before = dict(os.environ)
        os.environ.update(more)
        try:
            return self.run_workflow(kit.flux(), *args)
        finally:
            os.environ.clear()
            os.environ.update(before)

    def picture(self, r):
        return png.read(self.check(r, 0).out.split()[0])[2]

    def test_a_gpu_is_taken_when_there_is_one(self):
        for flags in ((), ("--device", "auto"), ("--device", "cuda"), ("--cuda-device", "0")):
            r = self.run_on("ok", *flags)
            self.check(r, 0, "cuda:0: a fake GPU")

    def test_the_cpu_is_taken_when_it_is_asked_for(self):
        for flags in (("--cpu",), ("--device", "cpu")):
            r = self.check(self.run_on("ok", *flags), 0, "cpu: ")
            self.assertNotIn("fake", r.err)

    def test_a_machine_without_a_gpu_computes_without_a_word(self):
        r = self.check(self.run_on("none"), 0, "cpu: ")
        self.assertNotIn("driver", r.err)

    def test_a_gpu_that_cannot_be_used_is_one_line(self):
        r = self.check(self.run_on("old"), 0, "CUDA 11.4", "computing on the CPU")
        self.assertEqual(r.err.count("CUDA 11.4"), 1)
        self.check(self.run_on("old", "--device", "cuda"), 6, "CUDA 11.4", "atelier devices")

    def test_a_plug_in_of_another_build_is_one_line(self):
        r = self.check(self.run_on("stale"), 0, "speaks ABI", "came with this build", "computing on the CPU")
        self.assertEqual(r.err.count("speaks ABI"), 1)
        self.check(self.run_on("stale", "--device", "cuda"), 6, "speaks ABI", "atelier devices")

    def test_a_gpu_that_is_not_there_is_refused(self):
        self.check(self.run_on("ok", "--device", "cuda:3"), 6, "cuda:3")
        self.check(self.run_on("none", "--cuda-device", "0"), 6, "no NVIDIA driver")

    def test_flags_that_exclude_each_other_are_refused(self):
        for flags in (("--cpu", "--lowvram"), ("--gpu-only", "--novram"), ("--cpu", "--device", "cuda"),
                      ("--fp16-unet", "--bf16-unet"), ("--fp32-vae", "--bf16-vae"),
                      ("--force-fp32", "--force-fp16"), ("--device", "cuda:1", "--cuda-device", "0"),
                      ("--force-fp32", "--dtype", "bf16")):
            self.check(self.run_on("ok", *flags), 2, "exclude each other")
        self.check(self.run_on("ok", "--fp64-unet"), 2, "--fp64-unet")
        self.check(self.run_on("ok", "--cuda-device", "one"), 2, "--cuda-device one")
        self.check(self.run_on("ok", "--reserve-vram", "-1"), 2, "at least 0")
        self.check(self.run_on("ok", "--fast=everything"), 2, "--fast=everything")

    def test_comfyuis_command_lines_are_understood(self):
        self.check(self.run_on("ok", "--fast", "--async-offload", "--use-sage-attention",
                               "--disable-cuda-malloc", "--reserve-vram", "0.01"), 0)
        self.check(self.run_on("ok", "--fast", "fp16_accumulation", "cublas_ops", "--gpu-only",
                               "--reserve-vram", "0"), 0)

    def test_parts_compute_in_what_flags_say(self):
        f32 = self.picture(self.run_on("ok", "--force-fp32"))
        self.assertEqual(f32, self.picture(self.run_on("ok", "--fp32-unet", "--fp32-vae",
                                                       "--fp32-text-enc")))
        for flag in ("--bf16-unet", "--bf16-vae", "--bf16-text-enc"):
            self.assertNotEqual(f32, self.picture(self.run_on("ok", "--force-fp32", flag)), flag)

    def test_a_vae_may_run_on_the_cpu(self):
        here = self.picture(self.run_on("ok", "--force-fp32"))
        self.assertEqual(here, self.picture(self.run_on("ok", "--force-fp32", "--cpu-vae")))

    def test_a_lost_gpu_ends_the_job_and_names_itself(self):
        self.check(self.run_on("lost"), 6, "cuda:0", "illegal memory access", "restart")

    def test_no_memory_on_the_gpu_says_what_helps(self):
        r = self.run_on("ok", "--reserve-vram", "0", AT_FAKE_BYTES="4096")
        self.check(r, 5, "cuda:0", "4.0 KiB", "--lowvram")


if __name__ == "__main__":
    unittest.main()
