# SPDX-License-Identifier: Apache-2.0
"""Text encoders and VAEs on another device than the denoiser: where they go, that nothing else changes, and errors there.

Two GPUs are played by fake/fake_cuda.c, which computes with the CPU's kernels and tells what each has had at most.
"""
import os
import re
import unittest

import kit
import png

FAKE = os.environ["ATELIER_FAKE"]
DRIVER = 64 << 20  # what the fake says that its driver takes
SMALL = str(DRIVER + 3000000)  # bytes: the denoiser and the decoder fit, each alone
LARGE = str(DRIVER + 20000000)


class Place(kit.Case):
    def run_on(self, *args, command="run", nodes=None, **env):
        """(result, most bytes of cuda:0, of cuda:1)"""
        before = dict(os.environ)
        os.environ.update(dict(dict(AT_PLUGINS=FAKE, AT_FAKE_CUDA="ok", AT_FAKE_GPUS="2", AT_FAKE_TELL="1"), **env))
        try:
            r = self.atelier(command, self.workflow(nodes or kit.flux()), "--base-directory", self.dir, *args)
        finally:
            os.environ.clear()
            os.environ.update(before)
        most = dict(re.findall(r"FAKE (cuda:\d) (\d+)", r.err))
        return r, int(most.get("cuda:0", -1)), int(most.get("cuda:1", -1))

    def picture(self, r):
        return png.read(self.check(r, 0).out.split()[0])[2]

    def test_networks_run_where_they_are_put_and_draw_the_same(self):
        r, first, second = self.run_on()
        here = self.picture(r)
        self.assertEqual(second, 0, r)
        r, first_text, text = self.run_on("--text-device", "cuda:1")
        self.assertEqual(here, self.picture(r))
        self.assertTrue(0 < text < first_text, r)
        r, first_vae, vae = self.run_on("--vae-device", "cuda:1")
        self.assertEqual(here, self.picture(r))
        self.assertTrue(vae > text and first_vae < first, r)  # the decoder's maps are the most of all
        r, _, both = self.run_on("--text-device", "cuda:1", "--vae-device", "cuda:1", "--parallel", "none")
        self.assertEqual(here, self.picture(r))
        self.assertTrue(both >= vae, r)
        r, _, second = self.run_on("--text-device", "cpu", "--force-fp32")
        self.assertEqual(self.picture(self.run_on("--force-fp32")[0]), self.picture(r))
        self.assertEqual(second, 0, r)
        # One device for the picture, another for its text.
        r, _, text = self.run_on("--device", "cuda:0", "--text-device", "cuda:1")
        self.assertEqual(here, self.picture(r))
        self.assertTrue(text > 0, r)

    def test_text_from_elsewhere_can_be_mixed(self):
        flux = kit.flux()
        flux["10"] = kit.node("ConditioningAverage", conditioning_to=["4", 0], conditioning_from=["5", 0],
                              conditioning_to_strength=0.5)
        flux["11"] = kit.node("ConditioningZeroOut", conditioning=["5", 0])
        flux["12"] = kit.node("ConditioningConcat", conditioning_to=["10", 0], conditioning_from=["11", 0])
        flux["7"]["inputs"]["positive"] = ["12", 0]
        here = self.picture(self.run_on(nodes=flux)[0])
        self.assertEqual(here, self.picture(self.run_on("--text-device", "cuda:1", nodes=flux)[0]))
        cpu = self.picture(self.run_on("--force-fp32", "--text-device", "cpu", nodes=flux)[0])
        self.assertEqual(self.picture(self.run_on("--force-fp32", nodes=flux)[0]), cpu)

    def test_what_does_not_fit_goes_to_the_device_with_room(self):
        small = dict(AT_FAKE_BYTES=SMALL, AT_FAKE_BYTES_1=LARGE)
        here = self.picture(self.run_on()[0])
        r, _, second = self.run_on("--reserve-vram", "0", **small)
        self.assertEqual(here, self.picture(r))
        self.assertTrue(second > 0, r)
        # Where all fit, or nobody has room, they stay.
        for bytes_0, bytes_1 in ((LARGE, LARGE), (SMALL, "1000")):
            r, _, second = self.run_on("--reserve-vram", "0", AT_FAKE_BYTES=bytes_0, AT_FAKE_BYTES_1=bytes_1)
            self.assertEqual(here, self.picture(r))
            self.assertEqual(second, 0, r)
        # What was asked for is not changed.
        r, _, second = self.run_on("--reserve-vram", "0", "--text-device", "cuda:0", "--vae-device", "cuda:0", **small)
        self.check(r, 0)
        self.assertEqual(second, 0, r)

    def test_plan_says_where_and_why(self):
        r = self.check(self.run_on("--reserve-vram", "0", command="plan")[0], 0)
        self.assertIn("with the denoiser, on cuda:0: all fit", r.out)
        self.assertRegex(r.out, r"cuda:1 +holds 0.0 B")
        r = self.check(self.run_on("--reserve-vram", "0", command="plan", AT_FAKE_BYTES=SMALL,
                                   AT_FAKE_BYTES_1=LARGE)[0], 0)
        self.assertRegex(r.out, r"all on cuda:0 would lack \d.* MiB, so \d+ ms less")
        self.assertRegex(r.out, r"KL autoencoder +on cuda:1")
        held = re.findall(r"cuda:\d +holds (\S+ \S+) of weights, (\S+) (\S+) at its peak", r.out)
        self.assertEqual([peak[2] for peak in held], ["MiB", "MiB"], r)
        self.assertLessEqual(float(held[0][1]), 2.9, r)
        r = self.check(self.run_on("--text-device", "cuda:1", command="plan")[0], 0)
        self.assertRegex(r.out, r"T5 v1.1 encoder +on cuda:1")
        self.assertNotRegex(r.out, r"cuda:1 +holds 0.0 B")
        r = self.check(self.run_on("--device", "cuda:0", command="plan")[0], 0)
        self.assertNotIn("holds", r.out)

    def test_loaders_devices(self):
        here, first, _ = self.run_on()
        here = self.picture(here)
        flux = kit.flux()
        flux["2"] = kit.node("DualCLIPLoaderMultiGPU", device="cuda:1", **flux["2"]["inputs"])
        r, _, text = self.run_on(nodes=flux)
        self.assertEqual(here, self.picture(r))
        self.assertTrue(text > 0, r)
        flux["3"] = kit.node("VAELoaderMultiGPU", device="cuda:1", **flux["3"]["inputs"])
        r, _, both = self.run_on(nodes=flux)
        self.assertEqual(here, self.picture(r))
        self.assertTrue(both > text, r)
        r = self.check(self.run_on(nodes=flux, command="plan")[0], 0)
        self.assertRegex(r.out, r"T5 v1.1 encoder +on cuda:1")
        self.assertRegex(r.out, r"KL autoencoder +on cuda:1")
        self.assertRegex(r.out, r"Flux.1 dev +on cuda:0")
        # The denoiser alone over there, text from here.
        flux = kit.flux()
        flux["1"] = kit.node("UNETLoaderMultiGPU", device="cuda:1", **flux["1"]["inputs"])
        r, _, second = self.run_on(nodes=flux)
        self.assertEqual(here, self.picture(r))
        self.assertTrue(second > text, r)
        # Without a device, and with one that is not here.
        for inputs in ({}, {"device": "cuda:7"}):
            flux["1"] = kit.node("UNETLoaderMultiGPU", **dict(kit.flux()["1"]["inputs"], **inputs))
            r, _, second = self.run_on(nodes=flux)
            self.assertEqual(here, self.picture(r))
            self.assertEqual(second, 0, r)
        self.assertIn("no cuda:7 here", r.err)

    def test_clip_loaders_cpu(self):
        flux = kit.flux()
        here, first, _ = self.run_on("--force-fp32")
        here = self.picture(here)
        flux["2"]["inputs"]["device"] = "default"
        self.assertEqual(here, self.picture(self.run_on("--force-fp32", nodes=flux)[0]))
        flux["2"]["inputs"]["device"] = "cpu"
        r, less, _ = self.run_on("--force-fp32", nodes=flux)
        self.assertEqual(here, self.picture(r))
        self.assertTrue(less <= first, r)
        flux["2"]["inputs"]["device"] = "cuda:1"
        self.check(self.run_on(nodes=flux)[0], 3, "device")

    def test_failures_over_there_end_the_job_alone(self):
        r, _, _ = self.run_on("--text-device", "cuda:1", AT_FAKE_DIES="cuda:1")
        self.check(r, 6, "cuda:1", "illegal memory access")
        r, _, _ = self.run_on("--text-device", "cuda:1", "--reserve-vram", "0", AT_FAKE_BYTES_1="4096")
        self.check(r, 5, "cuda:1", "4.0 KiB")
        for flag in ("--text-device", "--vae-device"):
            self.check(self.run_on(flag, "cuda:5")[0], 6, flag, "cuda:5")
        self.check(self.run_on("--cpu-vae", "--vae-device", "cuda:1")[0], 2, "exclude each other")


if __name__ == "__main__":
    unittest.main()
