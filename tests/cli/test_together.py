# SPDX-License-Identifier: Apache-2.0
"""Everything that can steer a picture, under every exact plan: the latents and pictures of one rank.

One workflow holds all cases, each with a sampler of its own, so that a plan costs one start of the program. The usual
run takes every case under every plan, and every sampler under one plan of each kind of network;
ATELIER_MATRIX=all takes every sampler, with every scheduler, under every plan (minutes).
ControlNets for the small models are made here: the network's own first half, or blocks, and waves behind it.
"""
import array
import json
import math
import os
import struct
import unittest

import kit
import png

ALL = os.environ.get("ATELIER_MATRIX") == "all"
UNET_PLANS = ["cfg=2", "patch=2", "tp=2", "patch=3", "cfg=2,patch=2", "tp=2,patch=2"]
FLUX_PLANS = ["cfg=2", "ulysses=2", "ring=2", "tp=2", "ring=3", "cfg=2,ulysses=2", "ring=2,ulysses=2", "tp=2,ring=2"]


def read_tensors(path):
    """Names of a safetensors file with (dtype, shape, bytes)."""
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        head, data = json.loads(f.read(size)), f.read()
    return {k: (v["dtype"], v["shape"], data[slice(*v["data_offsets"])]) for k, v in head.items() if k != "__metadata__"}


def write_tensors(path, tensors):
    head, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))


def wave(phase, *shape):
    """Small weights that differ, of a layer's usual size."""
    n, inner = math.prod(shape), math.prod(shape[1:])
    values = array.array("f", (math.sin(0.7 * i + phase) / math.sqrt(inner) for i in range(n)))
    return "F32", list(shape), values.tobytes()


def layer(out, key, phase, *shape):
    out[key + ".weight"] = wave(phase, *shape)
    out[key + ".bias"] = wave(phase + 1, shape[0])


def unet_control(checkpoint, phase):
    """A ControlNet of the UNet's input half."""
    prefix = "model.diffusion_model."
    out, channels = {}, {}
    for k, t in read_tensors(checkpoint).items():
        k = k[len(prefix):] if k.startswith(prefix) else ""
        if k.startswith(("time_embed", "label_emb", "input_blocks", "middle_block")):
            out["control_model." + k] = t
        if k.startswith("input_blocks.") and k.endswith(("out_layers.3.weight", "op.weight", "input_blocks.0.0.weight")):
            channels[int(k.split(".")[1])] = t[1][0]
    for i, n in channels.items():
        layer(out, f"control_model.zero_convs.{i}.0", phase + i, n, n, 1, 1)
    layer(out, "control_model.middle_block_out.0", phase + 20, n, n, 1, 1)
    widths = [3, 8, 8, 12, 12, 16, 16, 24, channels[0]]
    for i in range(8):
        layer(out, f"control_model.input_hint_block.{2 * i}", phase + 30 + i, widths[i + 1], widths[i], 3, 3)
    return out


def flux_control(model, phase):
    """An XLabs ControlNet of the first double block."""
    out = {k: t for k, t in read_tensors(model).items()
           if k.startswith(("double_blocks.0.", "img_in", "txt_in", "time_in", "vector_in", "guidance_in"))}
    hidden = out["img_in.weight"][1][0]
    layer(out, "controlnet_blocks.0", phase, hidden, hidden)
    layer(out, "pos_embed_input", phase + 1, hidden, 64)
    for i in range(8):
        layer(out, f"input_hint_block.{2 * i}", phase + 2 + i, 16, 3 if i == 0 else 16, 3, 3)
    return out


def adapter():
    """A T2I adapter whose first map fits the small UNets."""
    out, before = {}, 32
    layer(out, "conv_in", 0, 32, 64, 3, 3)
    for i in range(8):
        n = 32 << i // 4
        if n != before:
            layer(out, f"body.{i}.in_conv", i, n, before, 1, 1)
        layer(out, f"body.{i}.block1", i + 1, n, n, 3, 3)
        layer(out, f"body.{i}.block2", i + 2, n, n, 1, 1)
        before = n
    return out


def samplers():
    with open(os.path.join(kit.SOURCE, "tests/golden/comfy/object_info.json"), encoding="utf-8") as f:
        info = json.load(f)["KSampler"]["input"]["required"]
    return [info[k][0] if isinstance(info[k][0], list) else info[k][1]["options"] for k in ("sampler_name", "scheduler")]


class Together(kit.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        models = cls.path("models")
        for i in range(2):
            for size in ("sd15", "sdxl"):
                write_tensors(os.path.join(models, "controlnet", f"{size}_{i}.safetensors"),
                              unet_control(os.path.join(models, f"checkpoints/tiny_{size}.safetensors"), 3 * i))
            write_tensors(os.path.join(models, "controlnet", f"flux_{i}.safetensors"),
                          flux_control(os.path.join(models, "diffusion_models/tiny_dev.safetensors"), 3 * i))
        write_tensors(os.path.join(models, "controlnet", "adapter.safetensors"), adapter())

    # --- workflows --------------------------------------------------------------------------------------
    def begin(self, nodes, control, width, height):
        """Two ControlNets and a picture that they look at: "c0", "c1", "hint"."""
        self.nodes, self.cases = nodes, []
        nodes["hint0"] = kit.node("EmptyImage", width=width, height=height, batch_size=1, color=0x3080c0)
        nodes["spot"] = kit.node("EmptyImage", width=width // 2, height=height // 3, batch_size=1, color=0xf0e010)
        nodes["hint"] = kit.node("ImageCompositeMasked", destination=["hint0", 0], source=["spot", 0], x=width // 4,
                                 y=height // 5, resize_source=False)
        for i in range(2):
            nodes[f"c{i}"] = kit.node("ControlNetLoader", control_net_name=f"{control}_{i}.safetensors")

    def steer(self, key, net, pair, strength=0.8, **more):
        """Both conditionings under a ControlNet; `pair` is the node of both, or their two nodes."""
        both = [["4", 0], ["5", 0]] if pair is None else [[pair, 0], [pair, 1]]
        self.nodes[key] = kit.node("ControlNetApplyAdvanced", positive=both[0], negative=both[1], control_net=[net, 0],
                                   image=["hint", 0], **{**dict(strength=strength, start_percent=0.0, end_percent=1.0), **more})

    def case(self, name, **sampler):
        inputs = dict(self.nodes["7"]["inputs"], **sampler)
        self.nodes["k_" + name] = kit.node("KSampler", **inputs)
        self.nodes["z_" + name] = kit.node("SaveLatent", samples=["k_" + name, 0], filename_prefix=name + "/z")
        self.cases.append(name)

    def pictures(self, vae):
        for name in self.cases:
            self.nodes["d_" + name] = kit.node("VAEDecode", samples=["k_" + name, 0], vae=vae)
            self.nodes["s_" + name] = kit.node("SaveImage", images=["d_" + name, 0], filename_prefix=name + "/p")

    # --- comparing --------------------------------------------------------------------------------------
    def draw(self, *flags):
        """Latents and pixels of each case."""
        self.setUp()
        nodes = {k: v for k, v in self.nodes.items() if k not in ("7", "8", "9")}
        r = self.run_workflow(nodes, "--progress", "none", "--dtype", "f32", "--threads", "2", *flags, timeout=500)
        self.check(r, 0)
        self.assertNotIn("node ", r.err)  # every case was taken
        got = {}
        for name in self.cases:
            files = [f for f in self.outputs() if f"/{name}/" in f]
            z = array.array("f")
            for f in files:
                if f.endswith(".latent"):
                    z.frombytes(read_tensors(f)["latent_tensor"][2])
            got[name] = z, b"".join(bytes(v for row in png.read(f)[2] for p in row for v in p)
                                    for f in files if f.endswith(".png"))
        return got

    def alike(self, plans, pictures=True):
        if kit.SANITIZED:  # they look for what goes wrong beside the numbers: two plans show that
            plans = [plans[1], plans[-1]]
        one = self.draw("--cpu", "--parallel", "none")
        for name, (z, pixels) in one.items():
            self.assertGreater(math.sqrt(sum(v * v for v in z)), 0.1, name)
            self.assertEqual(bool(pixels), pictures, name)
        for plan in plans:
            bad = []
            for name, (other, others) in self.draw("--parallel", plan).items():
                z, pixels = one[name]
                self.assertEqual((len(z), len(pixels)), (len(other), len(others)), (plan, name))
                error = math.sqrt(sum((a - b) ** 2 for a, b in zip(z, other)) / sum(v * v for v in z))
                far = max((abs(a - b) for a, b in zip(pixels, others)), default=0)
                if not error <= 1e-4 or far > 1:
                    bad.append((name, error, far))
            self.assertEqual(bad, [], plan)
        return one

    def differ(self, got, *names):
        """What steers, steers: no two of these are the same picture."""
        for i, a in enumerate(names):
            for b in names[:i]:
                self.assertGreater(max(abs(x - y) for x, y in zip(got[a][0], got[b][0])), 1e-3, (a, b))

    # --- UNets ------------------------------------------------------------------------------------------
    def unet(self, name, control, width=72, height=88):
        n = {"1": kit.node("CheckpointLoaderSimple", ckpt_name=name),
             "4": kit.node("CLIPTextEncode", text="a red circle", clip=["1", 1]),
             "5": kit.node("CLIPTextEncode", text="blue", clip=["1", 1]),
             "6": kit.node("EmptyLatentImage", width=width, height=height, batch_size=1),
             "7": kit.node("KSampler", model=["1", 0], seed=3, steps=2, cfg=2.0, sampler_name="euler", scheduler="normal",
                           positive=["4", 0], negative=["5", 0], latent_image=["6", 0], denoise=1.0)}
        self.begin(n, control, width, height)
        self.case("plain")
        self.steer("a0", "c0", None)
        self.case("one", positive=["a0", 0], negative=["a0", 1])
        self.steer("a1", "c1", "a0", 0.5)
        self.case("two", positive=["a1", 0], negative=["a1", 1])
        self.steer("late", "c0", None, end_percent=0.5)
        self.case("half", positive=["late", 0], negative=["late", 1])
        self.case("batch", positive=["a0", 0], negative=["a0", 1], latent_image=["three", 0])
        n["three"] = kit.node("EmptyLatentImage", width=width, height=height, batch_size=3)
        n["free"] = kit.node("FreeU_V2", model=["1", 0], b1=1.3, b2=1.4, s1=0.9, s2=0.2)
        self.case("patched", positive=["a0", 0], negative=["a0", 1], model=["free", 0])
        n["mask"] = kit.node("SolidMask", value=0.7, width=width, height=height)
        n["part"] = kit.node("ConditioningSetMask", conditioning=["4", 0], mask=["mask", 0], strength=0.9, set_cond_area="default")
        n["area"] = kit.node("ConditioningSetArea", conditioning=["a0", 0], width=64, height=64, x=8, y=8, strength=0.8)
        n["both"] = kit.node("ConditioningCombine", conditioning_1=["part", 0], conditioning_2=["area", 0])
        self.case("places", positive=["both", 0])
        n["noised"] = kit.node("SetLatentNoiseMask", samples=["6", 0], mask=["mask", 0])
        self.case("inpaint", positive=["a1", 0], negative=["a1", 1], latent_image=["noised", 0], denoise=0.7)
        return n

    def test_sd15(self):
        n = self.unet("tiny_sd15.safetensors", "sd15")
        n["t2i"] = kit.node("ControlNetLoader", control_net_name="adapter.safetensors")
        for first, second in (("t2i", "c0"), ("c0", "t2i")):
            self.steer("x", first, None)
            self.steer("y", second, "x")
            n[first + "x"], n[first + "y"] = n.pop("x"), n.pop("y")
            n[first + "y"]["inputs"].update(positive=[first + "x", 0], negative=[first + "x", 1])
            self.case("first_" + first, positive=[first + "y", 0], negative=[first + "y", 1])
        self.pictures(["1", 2])
        got = self.alike(UNET_PLANS)
        self.differ(got, "plain", "one", "two", "half", "patched", "places", "first_t2i")

    def test_sdxl(self):
        self.unet("tiny_sdxl.safetensors", "sdxl")
        self.pictures(["1", 2])
        self.differ(self.alike(UNET_PLANS), "plain", "one", "two", "half")

    # --- transformers -----------------------------------------------------------------------------------
    def test_flux(self):
        n = kit.flux(width=80, height=112)
        self.begin(n, "flux", 80, 112)
        self.case("plain")
        self.steer("a0", "c0", None)
        self.case("one", positive=["a0", 0], negative=["a0", 1])
        self.steer("a1", "c1", "a0", 0.5)
        self.case("two", positive=["a1", 0], negative=["a1", 1])
        n["three"] = kit.node("EmptySD3LatentImage", width=80, height=112, batch_size=3)
        self.case("batch", positive=["a0", 0], negative=["a0", 1], latent_image=["three", 0])
        n["other"] = kit.node("EmptySD3LatentImage", width=48, height=64, batch_size=1)
        n["seen"] = kit.node("ReferenceLatent", conditioning=["a0", 0], latent=["other", 0])
        self.case("reference", positive=["seen", 0])
        n["mask"] = kit.node("SolidMask", value=0.7, width=80, height=112)
        n["part"] = kit.node("ConditioningSetMask", conditioning=["4", 0], mask=["mask", 0], strength=0.9, set_cond_area="default")
        n["area"] = kit.node("ConditioningSetArea", conditioning=["a0", 0], width=64, height=64, x=16, y=16, strength=0.8)
        n["both"] = kit.node("ConditioningCombine", conditioning_1=["part", 0], conditioning_2=["area", 0])
        self.case("places", positive=["both", 0])
        n["noised"] = kit.node("SetLatentNoiseMask", samples=["6", 0], mask=["mask", 0])
        self.case("inpaint", positive=["a1", 0], negative=["a1", 1], latent_image=["noised", 0], denoise=0.7)
        self.pictures(["3", 0])
        self.differ(self.alike(FLUX_PLANS), "plain", "one", "two", "reference", "places")

    # --- who works --------------------------------------------------------------------------------------
    def work(self, plan, part):
        """Floating-point operations of layers whose names have `part`, of each rank."""
        nodes = {k: v for k, v in self.nodes.items() if k[:2] not in ("k_", "z_") and k not in ("7", "8", "9")}
        nodes.update({k: self.nodes[k] for k in ("k_one", "z_one")})
        self.check(self.run_workflow(nodes, "--parallel", plan, "--dtype", "f32", "--trace", self.path("t.json")), 0)
        with open(self.path("t.json"), encoding="utf-8") as f:
            events = [e for e in json.load(f)["traceEvents"] if e.get("cat") == "op" and part in e["name"]]
        work = {}
        for e in events:
            work[e["pid"]] = work.get(e["pid"], 0) + e["args"].get("gflop", 0)
        return list(work.values())

    def test_ranks_share_a_controlnets_work(self):
        self.unet("tiny_sdxl.safetensors", "sdxl", 64, 128)
        all_of_it, = self.work("none", "control_model")
        for plan, ranks in (("cfg=2", 2), ("patch=2", 2), ("cfg=2,patch=2", 4)):
            parts = self.work(plan, "control_model")
            self.assertEqual(len(parts), ranks, plan)
            # Two forwards of one picture, and each rank of a map, make the embeddings and the text's keys anew.
            self.assertLess(max(parts), all_of_it * (1 / ranks + 0.2), plan)
        all_of_it, = self.work("none", "control_model.middle_block.1.transformer_blocks")
        self.assertLess(max(self.work("tp=2", "control_model.middle_block.1.transformer_blocks")), all_of_it * 0.9)  # one head more or less of few
        self.begin(kit.flux(), "flux", 64, 64)
        self.steer("a0", "c0", None)
        self.case("one", positive=["a0", 0], negative=["a0", 1])
        all_of_it, = self.work("none", "controlnet_blocks")
        for plan, ranks in (("cfg=2", 2), ("ulysses=2", 2), ("ring=2", 2), ("ring=2,ulysses=2", 4)):
            self.assertAlmostEqual(max(self.work(plan, "controlnet_blocks")), all_of_it / ranks, msg=plan)

    # --- samplers ---------------------------------------------------------------------------------------
    # A sampler is the same code on each rank: the plain build's numbers are what these are about.
    def every_sampler(self, plans, **more):
        names, schedulers = samplers()
        self.assertGreater(len(names), 30)
        for i, name in enumerate(names):
            for scheduler in schedulers if ALL else [schedulers[i % len(schedulers)]]:
                # Adaptive steps make much of the last bit where guidance is strong: random weights.
                self.case(f"{name}-{scheduler}", sampler_name=name, scheduler=scheduler, steps=4, cfg=1.2,
                          positive=["a0", 0], negative=["a0", 1], **more)
        self.alike(plans, pictures=False)

    @unittest.skipIf(kit.SANITIZED, "minutes of steps")
    def test_every_sampler_of_a_unet(self):
        self.unet("tiny_sd15.safetensors", "sd15", 64, 64)
        self.cases = []
        self.every_sampler(UNET_PLANS if ALL else ["cfg=2,patch=2"])

    @unittest.skipIf(kit.SANITIZED, "minutes of steps")
    def test_every_sampler_of_a_transformer(self):
        self.begin(kit.flux(), "flux", 64, 64)
        self.steer("a0", "c0", None)
        self.every_sampler(FLUX_PLANS if ALL else ["ring=2,ulysses=2"])


if __name__ == "__main__":
    unittest.main()
