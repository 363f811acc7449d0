# SPDX-License-Identifier: Apache-2.0
"""One picture on several ranks: every plan gives the latents and the picture of one rank.

All in f32 on the CPU, where ranks are threads. Sums run in another order, so latents may differ by 1e-4 of their
norm and a picture's bytes by 1.
"""
import array
import json
import math
import os
import signal
import struct
import subprocess
import time
import unittest
import unittest.mock

import kit
import png

ONE = ("--cpu", "--parallel", "none")


def latents(path):
    """All f32 of a SaveLatent file, which is safetensors."""
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        begin, end = json.loads(f.read(size))["latent_tensor"]["data_offsets"]
        f.seek(8 + size + begin)
        return array.array("f", f.read(end - begin))


def checkpoint(name, width, height, batch=1, **sampler):
    """A Stable Diffusion workflow; odd sides of the latent are welcome."""
    return {
        "1": kit.node("CheckpointLoaderSimple", ckpt_name=name),
        "4": kit.node("CLIPTextEncode", text="a red circle", clip=["1", 1]),
        "5": kit.node("CLIPTextEncode", text="blue", clip=["1", 1]),
        "6": kit.node("EmptyLatentImage", width=width, height=height, batch_size=batch),
        "7": kit.node("KSampler", **dict(dict(model=["1", 0], seed=3, steps=2, cfg=4.0,
                                              sampler_name="euler", scheduler="normal",
                                              positive=["4", 0], negative=["5", 0],
                                              latent_image=["6", 0], denoise=1.0), **sampler)),
        "8": kit.node("VAEDecode", samples=["7", 0], vae=["1", 2]),
        "9": kit.node("SaveImage", images=["8", 0], filename_prefix="sd"),
    }


class Parallel(kit.Case):
    more = () # flags of every run

    def draw(self, nodes, *flags):
        """The latents and the pixels of all pictures."""
        self.setUp()
        nodes = dict(nodes, **{"90": kit.node("SaveLatent", samples=["7", 0], filename_prefix="z")})
        self.check(self.run_workflow(nodes, "--progress", "none", "--dtype", "f32", "--threads", "2",
                                     *self.more, *flags, timeout=60), 0)
        files = self.outputs()
        z = [v for f in files if f.endswith(".latent") for v in latents(f)]
        pixels = b"".join(bytes(v for row in png.read(f)[2] for p in row for v in p) for f in files if f.endswith(".png"))
        self.assertTrue(z and pixels)
        return z, pixels

    def alike(self, nodes, *plans):
        z, pixels = self.draw(nodes, *ONE)
        norm = math.sqrt(sum(v * v for v in z))
        self.assertGreater(norm, 0.1)
        for plan in plans:
            other, others = self.draw(nodes, "--parallel", plan)
            self.assertEqual((len(z), len(pixels)), (len(other), len(others)), plan)
            error = math.sqrt(sum((a - b) ** 2 for a, b in zip(z, other))) / norm
            self.assertLessEqual(error, 1e-4, plan)
            self.assertLessEqual(max(abs(a - b) for a, b in zip(pixels, others)), 1, plan)

    # --- transformers -----------------------------------------------------------------------------------
    def test_flux(self):
        self.alike(kit.flux(), "cfg=2", "ulysses=2", "ring=2", "cfg=2,ulysses=2", "tp=2", "cfg=2,tp=2")

    def test_flux_of_odd_size_on_odd_ranks(self):
        self.alike(kit.flux(width=80, height=112), "ulysses=3", "ring=3", "ring=2,ulysses=2",
                   "cfg=2,ring=2,ulysses=2", "ulysses=8", "tp=3", "tp=2,ring=2")

    def test_eight_ranks(self):
        self.alike(kit.flux(width=80, height=112), "cfg=2,ulysses=4", "ring=4,ulysses=2", "ring=8", "tp=8", "tp=2,ulysses=4",
                   "cfg=2,tp=2,ring=2")
        self.alike(checkpoint("tiny_sdxl.safetensors", 72, 88), "cfg=2,patch=4", "patch=8", "tp=2,patch=4", "cfg=2,tp=2,patch=2")

    def test_the_house_model_on_eight_ranks(self):
        with open(os.path.join(kit.SOURCE, "examples/house.json"), encoding="utf-8") as f:
            w = json.load(f)
        for node in w.values():
            if "steps" in node["inputs"]:
                node["inputs"]["steps"] = 1
            if "width" in node["inputs"]:
                node["inputs"].update(width=120, height=104)
        self.more = ("--models", os.path.join(kit.SOURCE, "models"))
        self.alike(w, "cfg=2,ulysses=4", "ring=2,ulysses=4")

    def test_flux_with_keys_that_go_round(self):
        with unittest.mock.patch.dict(os.environ, AT_OFF="gather"):
            self.alike(kit.flux(width=80, height=112), "ring=3", "ring=2,ulysses=2", "ring=8")

    # --- UNets ------------------------------------------------------------------------------------------
    def test_sd15(self):
        self.alike(checkpoint("tiny_sd15.safetensors", 64, 64), "cfg=2", "patch=2", "cfg=2,patch=2", "tp=2",
                   "tp=2,patch=2")

    def test_sd15_of_odd_size_on_odd_ranks(self):
        self.alike(checkpoint("tiny_sd15.safetensors", 72, 104), "patch=3", "cfg=2,patch=4")

    def test_sdxl(self):
        self.alike(checkpoint("tiny_sdxl.safetensors", 72, 88), "cfg=2", "patch=2", "cfg=2,patch=3", "tp=4")

    # --- what is asked ----------------------------------------------------------------------------------
    def test_batches_are_shared_and_keep_their_seeds(self):
        self.alike(checkpoint("tiny_sd15.safetensors", 64, 64, batch=3), "cfg=2", "cfg=3", "cfg=4",
                   "cfg=8")
        self.alike(kit.flux(batch=2, cfg=1.0), "cfg=2", "cfg=2,ulysses=2")

    def test_solvers_with_noise_and_with_unguided_estimates(self):
        # Adaptive steps at strong guidance make much of the last bit: a hundred evaluations of random weights.
        for name, cfg in (("dpmpp_2m_sde", 4.0), ("euler_ancestral_cfg_pp", 4.0), ("dpm_adaptive", 1.5)):
            self.alike(checkpoint("tiny_sd15.safetensors", 64, 64, sampler_name=name, cfg=cfg),
                       "cfg=2,patch=2")

    def test_further_solvers(self):
        for name in ("euler_ancestral", "uni_pc", "lcm", "dpmpp_sde"):
            self.alike(checkpoint("tiny_sd15.safetensors", 64, 64, sampler_name=name, steps=3, cfg=2.0), "cfg=2,patch=2")

    def test_a_masked_picture_painted_anew_by_a_merged_model(self):
        w = checkpoint("tiny_sd15.safetensors", 64, 96, denoise=0.7)
        w["20"] = kit.node("EmptyImage", width=64, height=96, batch_size=1, color=0x3080c0)
        w["21"] = kit.node("VAEEncode", pixels=["20", 0], vae=["1", 2])
        w["22"] = kit.node("SolidMask", value=0.6, width=64, height=96)
        w["6"] = kit.node("SetLatentNoiseMask", samples=["21", 0], mask=["22", 0])
        plain, _ = self.draw(w, *ONE)
        w["23"] = kit.node("ModelMergeSubtract", model1=["1", 0], model2=["1", 0], multiplier=0.2)
        w["7"]["inputs"]["model"] = ["23", 0]
        self.assertGreater(max(abs(a - b) for a, b in zip(plain, self.draw(w, *ONE)[0])), 1e-3)
        self.alike(w, "cfg=2", "patch=3")

    def test_four_pictures_on_four_ranks_are_those_of_one(self):
        w = checkpoint("tiny_sd15.safetensors", 64, 64, batch=4, cfg=1.0)
        self.alike(w, "cfg=4")
        z, _ = self.draw(w, *ONE)
        n = len(z) // 4
        self.assertGreater(max(abs(a - b) for a, b in zip(z[:n], z[n:2 * n])), 1e-3) # of other noise each

    def test_areas_masks_and_several_prompts(self):
        w = checkpoint("tiny_sd15.safetensors", 96, 64)
        w["20"] = kit.node("CLIPTextEncode", text="a green square", clip=["1", 1])
        w["21"] = kit.node("ConditioningSetArea", conditioning=["20", 0], width=64, height=64, x=32, y=0,
                           strength=0.8)
        w["22"] = kit.node("ConditioningCombine", conditioning_1=["4", 0], conditioning_2=["21", 0])
        w["23"] = kit.node("SolidMask", value=0.7, width=96, height=64)
        w["24"] = kit.node("SetLatentNoiseMask", samples=["6", 0], mask=["23", 0])
        w["7"]["inputs"].update(positive=["22", 0], latent_image=["24", 0])
        self.alike(w, "cfg=2", "cfg=3", "patch=2", "cfg=3,patch=2")

    def test_patches_and_hooks(self):
        w = checkpoint("tiny_sd15.safetensors", 64, 64)
        w["20"] = kit.node("FreeU_V2", model=["1", 0], b1=1.3, b2=1.4, s1=0.9, s2=0.2)
        w["21"] = kit.node("RescaleCFG", model=["20", 0], multiplier=0.7)
        w["7"]["inputs"]["model"] = ["21", 0]
        self.alike(w, "cfg=2", "patch=2", "cfg=2,patch=2", "tp=2")
        w["20"] = kit.node("TomePatchModel", model=["1", 0], ratio=0.3) # draws random numbers as it goes
        self.alike(w, "cfg=2", "patch=2", "tp=2")

    def test_loras(self):
        with open(self.path("models/diffusion_models/tiny_dev.safetensors"), "rb") as f:
            size, = struct.unpack("<Q", f.read(8))
            width = json.loads(f.read(size))["double_blocks.0.img_attn.proj.weight"]["shape"][0]
        name, values = "lora_unet_double_blocks_0_img_attn_proj.lora_", array.array(
            "f", (math.sin(0.7 * i) for i in range(4 * width)))
        half = 2 * width * 4
        head = json.dumps({name + "up.weight": {"dtype": "F32", "shape": [width, 2], "data_offsets": [0, half]},
                           name + "down.weight": {"dtype": "F32", "shape": [2, width],
                                                  "data_offsets": [half, 2 * half]}}).encode()
        os.makedirs(self.path("models/loras"), exist_ok=True)
        with open(self.path("models/loras/waves.safetensors"), "wb") as f:
            f.write(struct.pack("<Q", len(head)) + head + values.tobytes())
        w = kit.flux()
        plain, _ = self.draw(w, *ONE)
        w["20"] = kit.node("LoraLoaderModelOnly", model=["1", 0], lora_name="waves.safetensors",
                           strength_model=0.5)
        w["7"]["inputs"]["model"] = ["20", 0]
        self.assertGreater(max(abs(a - b) for a, b in zip(plain, self.draw(w, *ONE)[0])), 1e-3)
        self.alike(w, "cfg=2", "ulysses=2", "cfg=2,ring=2", "tp=2")

    def test_custom_samplers(self):
        w = kit.flux()
        w["20"] = kit.node("RandomNoise", noise_seed=5)
        w["21"] = kit.node("BasicGuider", model=["1", 0], conditioning=["4", 0])
        w["22"] = kit.node("KSamplerSelect", sampler_name="dpmpp_2m")
        w["23"] = kit.node("BasicScheduler", model=["1", 0], scheduler="beta", steps=3, denoise=1.0)
        w["7"] = kit.node("SamplerCustomAdvanced", noise=["20", 0], guider=["21", 0], sampler=["22", 0],
                          sigmas=["23", 0], latent_image=["6", 0])
        self.alike(w, "ulysses=2", "ring=2")

    def test_a_picture_that_is_encoded_first(self):
        w = checkpoint("tiny_sd15.safetensors", 64, 64, denoise=0.6)
        w["20"] = kit.node("EmptyImage", width=72, height=104, batch_size=1, color=0x3080c0)
        w["6"] = kit.node("VAEEncode", pixels=["20", 0], vae=["1", 2])
        self.alike(w, "patch=2", "cfg=2,patch=2")

    def test_raylights_workflows_run(self):
        w = kit.flux()
        w["7"]["inputs"]["cfg"] = 1.0
        plain = kit.node("KSamplerAdvanced", add_noise="enable", noise_seed=1, steps=2, cfg=1.0,
                         sampler_name="euler", scheduler="simple", positive=["4", 0], negative=["5", 0],
                         latent_image=["6", 0], start_at_step=0, end_at_step=10000,
                         return_with_leftover_noise="disable", model=["1", 0])
        w["7"] = plain
        z, pixels = self.draw(w, *ONE)
        w["1"] = kit.node("RayUNETLoader", unet_name="tiny_dev.safetensors", weight_dtype="default",
                          ray_actors_init=["30", 0])
        w["30"] = kit.node("RayInitializer", ray_cluster_address="local", ray_cluster_namespace="default",
                           GPU=2, ulysses_degree=2, ring_degree=1, cfg_degree=1, sync_ulysses=False,
                           FSDP=False, FSDP_CPU_OFFLOAD=False, XFuser_attention="TORCH_FLASH")
        inputs = {k: v for k, v in plain["inputs"].items() if k != "model"}
        w["7"] = kit.node("XFuserKSamplerAdvanced", ray_actors=["1", 0], **inputs)
        w["31"] = kit.node("RayKill", ray_actors=["7", 1], kill_mode="Kill Workers Only")
        for flags in (ONE, ("--cpu-ranks", "2"), ("--parallel", "ring=2")):
            other, others = self.draw(w, *flags)
            self.assertLess(max(abs(a - b) for a, b in zip(z, other)), 1e-3)
            self.assertLessEqual(max(abs(a - b) for a, b in zip(pixels, others)), 1)
        w["8"] = kit.node("RayVAEDecodeDistributed", ray_actors=["7", 1], samples=["7", 0],
                          vae_name="tiny_ae.safetensors", tile_size=512, overlap=64, temporal_size=64,
                          temporal_overlap=8)
        _, others = self.draw(w, "--cpu-ranks", "2")
        self.assertLessEqual(max(abs(a - b) for a, b in zip(pixels, others)), 1)
        w["30"]["inputs"]["ring_degree"] = 4
        r = self.run_workflow(w, "--cpu")
        self.assertNotEqual(r.code, 0)
        self.check(r, r.code, "fewer than the degrees")

    # --- ranks of unlike speed --------------------------------------------------------------------------
    def test_uneven_shares(self):
        self.alike(kit.flux(width=80, height=112), "ulysses=2,shares=3:1", "ring=3,shares=5:1:2",
                   "cfg=2,ring=2,shares=3:1:1:2", "ring=2,ulysses=2,shares=4:1:2:3", "tp=2,ulysses=2,shares=3:1:1:2",
                   "ulysses=2,shares=99:1", "stale=2,warmup=2,shares=2:1")
        with unittest.mock.patch.dict(os.environ, AT_OFF="gather"):
            self.alike(kit.flux(width=80, height=112), "ring=3,shares=1:4:2")
        self.alike(checkpoint("tiny_sd15.safetensors", 72, 104), "patch=2,shares=3:1", "cfg=2,patch=2,shares=1:2:2:1",
                   "patch=4,shares=9:1:1:4")
        self.alike(checkpoint("tiny_sdxl.safetensors", 72, 88), "patch=3,shares=1:3:2")
        self.alike(checkpoint("tiny_sd15.safetensors", 64, 64, batch=3), "cfg=2,shares=5:1", "cfg=3,shares=1:3:1")

    def test_who_is_faster_gets_more(self):
        def tokens(plan, ranks):
            r = self.run_workflow(kit.flux(), "--cpu-ranks", str(ranks), "--parallel", plan, "--dtype", "f32",
                                  "--trace", self.path("t.json"), "--progress", "none")
            self.check(r, 0)
            with open(self.path("t.json")) as f:
                events = json.load(f)["traceEvents"]
            work = [0] * ranks
            for e in events:
                if e.get("cat") == "op" and e["name"].startswith("linear double_blocks.0.img_mlp.0"):
                    work[e["pid"] - 1] += e["args"]["gflop"]
            return [round(w / sum(work), 3) for w in work]
        self.assertEqual(tokens("ring=2", 2), [0.5, 0.5])
        self.assertEqual(tokens("ring=2,shares=3:1", 2), [0.75, 0.25])
        self.assertEqual(tokens("cfg=2,shares=3:1", 2), [1, 0])  # two forwards in less than one of the other's
        r = self.atelier("plan", self.workflow(kit.flux()), "--base-directory", self.dir, "--cpu-ranks", "2", "--shares", "3,1")
        self.check(r, 0)
        self.assertIn("shares=3:1", r.out)
        self.check(self.run_workflow(kit.flux(), "--cpu-ranks", "2", "--shares", "3"), 2, "--shares 3: a number from 1")
        for bad in ("ring=2,shares=3", "ring=2,shares=3:0", "ring=2,shares=3:1:", "ring=2,shares=", "shares=1:1",
                    "pipefusion=2,shares=1:2", "ring=2,shares=1:2,shares=1:2"):
            r = self.run_workflow(kit.flux(), "--cpu-ranks", "2", "--parallel", bad)
            self.check(r, 2, "--parallel")

    # --- approximate ways -------------------------------------------------------------------------------
    def test_with_nothing_but_exact_steps_they_are_exact(self):
        self.alike(kit.flux(), "stale=2", "stale=3,warmup=2", "cfg=2,stale=2", "pipefusion=2,warmup=2",
                   "pipefusion=3,patches=5,warmup=2", "cfg=2,pipefusion=2,warmup=2")
        self.alike(checkpoint("tiny_sd15.safetensors", 72, 104), "stale=2", "stale=4", "cfg=2,stale=2")
        self.alike(checkpoint("tiny_sdxl.safetensors", 72, 88), "stale=3")

    def near(self, nodes, least, *plans):
        """Pictures within `least` dB (PSNR) of the exact one, but not it; the same each time."""
        _, pixels = self.draw(nodes, *ONE)
        for plan in plans:
            z, others = self.draw(nodes, "--parallel", plan)
            error = sum((a - b) ** 2 for a, b in zip(pixels, others)) / len(pixels)
            self.assertGreater(error, 0, plan)
            psnr = 10 * math.log10(255 ** 2 / error)
            self.assertGreaterEqual(psnr, least, plan)
            self.assertEqual((z, others), self.draw(nodes, "--parallel", plan), plan)

    def test_they_are_near_and_repeat_themselves(self):
        # Random weights make more of a small error than trained ones.
        self.near(kit.flux(steps=20), 20, "stale=2", "stale=4", "pipefusion=2", "pipefusion=4,warmup=2")
        self.near(checkpoint("tiny_sd15.safetensors", 64, 64, steps=20), 20, "stale=2", "cfg=2,stale=2")

    def test_a_picture_says_that_it_is_approximate(self):
        self.draw(kit.flux(), "--parallel", "ring=2")
        self.assertNotIn(b"approximate", self.picture())
        self.draw(kit.flux(), "--parallel", "pipefusion=2,warmup=1")
        self.assertIn(b"approximate\0pipefusion=2,warmup=1: PipeFusion, 1 exact steps first", self.picture())
        w = self.workflow(kit.flux())
        r = self.run_workflow(kit.flux(), "--parallel", "stale=2")
        self.check(r, 0, "approximate: stale=2: stale keys and values (DistriFusion), 4 exact steps first")
        r = self.atelier("run", self.workflow(checkpoint("tiny_sd15.safetensors", 64, 64)),
                         "--base-directory", self.dir, "--parallel", "pipefusion=2")
        self.check(r, r.code, "cannot be shared by pipefusion")
        self.assertNotEqual(r.code, 0)
        r = self.check(self.atelier("plan", w, "--base-directory", self.dir, "--cpu-ranks", "4"), 0)
        for word in ("stale", "pipefusion"):
            self.assertNotIn(word, r.out)

    def picture(self):
        png_file, = (f for f in self.outputs() if f.endswith(".png"))
        with open(png_file, "rb") as f:
            return f.read()

    # --- plans ------------------------------------------------------------------------------------------
    def test_automatic_is_a_plan_too(self):
        z, pixels = self.draw(kit.flux(), *ONE)
        self.assertEqual((z, pixels), self.draw(kit.flux(), "--cpu-ranks", "1"))
        other, _ = self.draw(kit.flux(), "--cpu-ranks", "4", "--parallel", "auto")
        self.assertLess(max(abs(a - b) for a, b in zip(z, other)), 1e-3)

    def test_plan_prints_the_ways(self):
        r = self.check(self.atelier("plan", self.workflow(kit.flux()), "--base-directory", self.dir,
                                    "--cpu-ranks", "4"), 0)
        for words in ("on 4 devices", "none", "cfg=2", "ulysses="):
            self.assertIn(words, r.out)

    @unittest.skipIf(kit.SANITIZED, "random weights of a whole VAE")
    def test_bench_compares_shared_rows_of_a_vae_with_one_rank(self):
        r = self.check(self.atelier("bench", "--arch", "flux-vae", "--size", "72", "--dtype", "f32", "--steps", "1",
                                    "--devices", "cpu,cpu", "--parallel", "patch=2", "--json"), 0)
        difference = json.loads(r.out)["difference"]
        self.assertGreater(difference, 0)  # 0: nothing was compared, sums of parts are never the same to the bit
        self.assertLess(difference, 1e-4)

    def test_what_cannot_be_is_refused(self):
        w = self.workflow(kit.flux())
        for flags, words in ((("--parallel", "two"), "no way to share"),
                             (("--parallel", "cfg=0"), "no way to share"),
                             (("--cpu-ranks", "2", "--parallel", "cfg=4"), "needs 4 devices"),
                             (("--cpu-ranks", "99"), "99"),
                             (("--devices", "cpu,cpu", "--cpu-ranks", "2"), "exclude"),
                             (("--devices", "cpu,nothing"), "no such device"),
                             (("--devices", "cpu", "--device", "cpu"), "exclude")):
            r = self.atelier("run", w, "--base-directory", self.dir, *flags)
            self.assertNotIn(r.code, (0, -11, -6), flags)
            self.check(r, r.code, words)

    def test_an_interrupt_ends_all_ranks(self):
        args = [kit.BIN, "run", self.workflow(kit.flux(steps=4000)), "--base-directory", self.dir,
                "--parallel", "cfg=2,ulysses=2", "--progress", "plain"]
        p = subprocess.Popen(args, cwd=self.dir, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                             text=True)
        for line in p.stderr:
            if "step 3 of" in line:
                break
        began = time.monotonic()
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=10)
        self.assertNotEqual(p.returncode, 0)
        self.assertLess(time.monotonic() - began, 10)


if __name__ == "__main__":
    unittest.main()
