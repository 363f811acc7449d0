# SPDX-License-Identifier: Apache-2.0
"""Bad and hostile files: models through inspect and run, vocabularies, pictures in."""
import json
import os
import shutil
import struct
import unittest

import kit
import png


def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(begin, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# name: (bytes, words of the message)
HOSTILE = {
    "empty": (b"", ()),
    "seven_bytes": (b"\1\0\0\0\0\0\0", ()),
    "no_header": (safetensors(b""), ()),
    "text": (b"<html>404 Not Found</html>" * 10, ()),
    "truncated_header": (safetensors({"a": tensor(0, 4, [1])})[:20], ()),
    "huge_header": (safetensors({}, length=2**63 - 1), ("9223372036854775807",)),
    "header_above_limit": (safetensors({}, length=200_000_000), ("200000000",)),
    "truncated_data": (safetensors({"a": tensor(0, 400, [100])}, b"x" * 100), ("a",)),
    "trailing_data": (safetensors({"a": tensor(0, 4, [1])}, b"x" * 9), ()),
    "overlap": (safetensors({"a": tensor(0, 8, [2]), "b": tensor(4, 12, [2])}, b"x" * 12), ()),
    "hole": (safetensors({"a": tensor(0, 4, [1]), "b": tensor(8, 12, [1])}, b"x" * 12), ()),
    "backwards": (safetensors({"a": tensor(8, 0, [2])}, b"x" * 8), ("a",)),
    "unknown_dtype": (safetensors({"a": tensor(0, 4, [1], "Q7")}, b"x" * 4), ("Q7",)),
    "wrong_size": (safetensors({"a": tensor(0, 4, [2])}, b"x" * 4), ("a",)),
    "nan_offsets": (safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[NaN,4]}}', b"x" * 4),
                    ()),
    "float_offsets": (safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0.0,4]}}',
                                  b"x" * 4), ()),
    "negative_offsets": (safetensors({"a": tensor(-4, 0, [1])}, b"x" * 4), ()),
    "negative_shape": (safetensors({"a": tensor(0, 4, [-1])}, b"x" * 4), ()),
    "overflowing_shape": (safetensors({"a": tensor(0, 4, [2**62, 2**62])}, b"x" * 4), ("a",)),
    "many_dimensions": (safetensors({"a": tensor(0, 4, [1] * 40)}, b"x" * 4), ("a",)),
    "twice": (safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                          b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"x" * 4), ("a",)),
    "not_an_object": (safetensors(b"[1,2,3]"), ()),
    "deep": (safetensors(b'{"__metadata__":' + b"[" * 5000 + b"]" * 5000 + b"}"), ()),
    "bad_utf8": (safetensors(b'{"\xff\xfe":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
                             b"x" * 4), ()),
    "gguf": (b"GGUF" + bytes(60), ("GGUF",)),
    "pickle": (b"PK\3\4" + bytes(60), ()),
}


class Files(kit.Case):
    def put(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)
        return self.path(name)

    def unet(self, name):
        return self.run_workflow({
            "1": kit.node("UNETLoader", unet_name=name, weight_dtype="default"),
            "2": kit.node("BasicScheduler", model=["1", 0], scheduler="simple", steps=2, denoise=1.0),
            "3": kit.node("KSamplerSelect", sampler_name="euler"),
            "4": kit.node("RandomNoise", noise_seed=0),
            "5": kit.node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
            "6": kit.node("SamplerCustomAdvanced", noise=["4", 0], guider=["7", 0], sampler=["3", 0],
                          sigmas=["2", 0], latent_image=["5", 0]),
            "7": kit.node("BasicGuider", model=["1", 0], conditioning=["8", 0]),
            "8": kit.node("CLIPTextEncode", text="", clip=["9", 0]),
            "9": kit.node("DualCLIPLoader", clip_name1="tiny_clip_l.safetensors",
                          clip_name2="tiny_t5.safetensors", type="flux"),
            "10": kit.node("VAELoader", vae_name="tiny_ae.safetensors"),
            "11": kit.node("VAEDecode", samples=["6", 0], vae=["10", 0]),
            "12": kit.node("SaveImage", images=["11", 0], filename_prefix="x")})

    def test_hostile_models_are_refused_by_name(self):
        for name, (data, words) in HOSTILE.items():
            with self.subTest(name):
                path = self.put("%s.safetensors" % name, data)
                self.check(self.atelier("inspect", path), 4, path, *words)
                self.check(self.atelier("inspect", "--json", path), 4, path)

    def test_hostile_models_fail_a_run_at_their_node(self):
        for name in ("truncated_data", "overlap", "huge_header", "nan_offsets", "empty", "gguf"):
            with self.subTest(name):
                file = "models/diffusion_models/%s.safetensors" % name
                self.put(file, HOSTILE[name][0])
                self.check(self.unet("%s.safetensors" % name), 4, "%s.safetensors" % name,
                           "UNETLoader")
                os.remove(self.path(file))
        self.assertEqual(self.outputs(), [])

    def test_a_cut_model_is_refused_with_its_numbers(self):
        whole = self.path("models/diffusion_models/tiny_dev.safetensors")
        size = os.path.getsize(whole)
        with open(whole, "rb") as f:
            self.put("models/diffusion_models/cut.safetensors", f.read(size - 1000))
        self.check(self.unet("cut.safetensors"), 4, "cut.safetensors", "truncated",
                   "UNETLoader")
        self.check(self.atelier("inspect", self.path("models/diffusion_models/cut.safetensors")), 4,
                   "cut.safetensors")

    def test_missing_files_are_named(self):
        self.check(self.atelier("inspect", "/nowhere.safetensors"), 4, "/nowhere.safetensors",
                   "no such file")
        self.check(self.atelier("inspect", self.dir), 4, self.dir)
        self.check(self.atelier("run", "/nowhere.json"), 4, "/nowhere.json")
        self.check(self.atelier("plan", "/nowhere.json"), 4, "/nowhere.json")

    def test_an_unknown_architecture_is_said_to_be_one(self):
        path = self.put("models/diffusion_models/other.safetensors",
                        safetensors({"my.weight": tensor(0, 24, [2, 3])}, bytes(24)))
        r = self.check(self.atelier("inspect", path), 0)
        self.assertIn("no architecture that this version knows", r.out)
        self.assertIn("my.weight", self.atelier("inspect", "--tensors", path).out)
        self.assertEqual(json.loads(self.atelier("inspect", "--json", path).out)["components"], [])
        self.check(self.unet("other.safetensors"), 4, "other.safetensors", "architecture",
                   "UNETLoader")

    def test_missing_and_misshapen_tensors_are_named(self):
        with open(self.path("models/diffusion_models/tiny_dev.safetensors"), "rb") as f:
            n = struct.unpack("<Q", f.read(8))[0]
            header, data = json.loads(f.read(n)), f.read()
        gone = "single_blocks.1.linear2.weight"
        header["unused"] = header.pop(gone)
        bent = "double_blocks.0.img_attn.proj.weight"
        header[bent]["shape"] = header[bent]["shape"][:1] + [header[bent]["shape"][1] // 2, 2]
        path = self.put("models/diffusion_models/holes.safetensors", safetensors(header, data))
        r = self.check(self.atelier("inspect", path), 0)
        self.assertIn(gone, r.out)
        self.assertIn(bent, r.out)
        part = json.loads(self.atelier("inspect", "--json", path).out)["components"][0]
        self.assertEqual(len(part["missing"]), 2, part)
        self.check(self.unet("holes.safetensors"), 4, gone, "holes.safetensors")

    def test_a_missing_vocabulary_says_where_it_was_looked_for(self):
        hidden = []
        for name in ("tokenizers", "text_encoders/tiny_clip_l", "text_encoders/tiny_t5"):
            os.rename(self.path("models", name), self.path("models", name + ".away"))
            hidden.append(name)
        r = self.run_workflow(kit.flux())
        for name in hidden:
            os.rename(self.path("models", name + ".away"), self.path("models", name))
        if r.code == 0:
            self.skipTest("this machine has vocabularies of its own")
        # Set-up may have brought CLIP's vocabulary; then T5's is the one that is missing.
        wanted = "vocab.json" if "no CLIP vocabulary" in r.err else "spiece.model"
        folder = "tiny_clip_l" if wanted == "vocab.json" else "tiny_t5"
        self.check(r, 4, "DualCLIPLoader", wanted, "Looked in",
                   self.path("models/text_encoders", folder), self.path("models/tokenizers"))

    def test_a_broken_vocabulary_is_named(self):
        file = self.path("models/text_encoders/tiny_t5/tokenizer.json")
        shutil.copy(file, file + ".whole")
        for bad in ("", "{", '{"model": {"type": "Unigram", "vocab": [["a", "b"]]}}'):
            with open(file, "w") as f:
                f.write(bad)
            self.check(self.run_workflow(kit.flux()), 4, "tokenizer.json")
        os.replace(file + ".whole", file)

    # --- pictures -------------------------------------------------------------------------------------
    def test_every_kind_of_png_goes_through(self):
        width, height = 13, 9  # the last passes of an interlaced file are partly empty
        palette = [(i * 37 % 256, i * 91 % 256, i * 151 % 256) for i in range(256)]
        cases = [(png.GREY, d) for d in (1, 2, 4, 8, 16)] + [(png.RGB, 8), (png.RGB, 16)] + \
                [(png.PALETTE, d) for d in (1, 2, 4, 8)] + \
                [(k, d) for k in (png.GREY_ALPHA, png.RGBA) for d in (8, 16)]
        for kind, depth in cases:
            for interlaced in (False, True):
                with self.subTest(kind=kind, depth=depth, interlaced=interlaced):
                    top = (1 << depth) - 1
                    rgb = {}

                    def sample(x, y):
                        s = [(x * 7919 + y * 104729 + c * 1299709) * 2654435761 >> 7 & top
                             for c in range(png.CHANNELS[kind])]
                        if kind == png.PALETTE:
                            rgb[x, y] = palette[s[0]]
                        else:  # exact in units of 255 / top
                            colour = s[:3] if kind in (png.RGB, png.RGBA) else s[:1] * 3
                            rgb[x, y] = tuple(v * 255 / top for v in colour)
                        return s

                    self.put("input/in.png", png.write(
                        width, height, kind, depth, sample, interlaced=interlaced,
                        palette=palette[:1 << depth] if kind == png.PALETTE else None))
                    r = self.check(self.run_workflow(kit.load_save("in.png"), "--progress", "none"), 0)
                    w, h, rows, _ = png.read(r.out.strip())
                    self.assertEqual((w, h), (width, height))
                    for (x, y), want in rgb.items():
                        for got, exact in zip(rows[y][x], want):
                            # 16 bits become 8 by cutting; below that levels are exact
                            self.assertLessEqual(abs(got - exact), 1.0 if depth == 16 else 0.01)
                    os.remove(r.out.strip())

    def test_transparency_of_a_palette_is_a_mask_and_no_colour(self):
        self.put("input/p.png", png.write(4, 1, png.PALETTE, 2, lambda x, y: [x],
                                          palette=[(10, 20, 30), (40, 50, 60), (70, 80, 90), (1, 2, 3)],
                                          transparent=[0, 128]))
        r = self.check(self.run_workflow(kit.load_save("p.png"), "--progress", "none"), 0)
        self.assertEqual(png.read(r.out.strip())[2][0], [(10, 20, 30), (40, 50, 60), (70, 80, 90),
                                                         (1, 2, 3)])

    def test_broken_pictures_are_named(self):
        good = png.write(8, 8, png.RGB, 8, lambda x, y: [x, y, 0])
        bad = {"cut.png": good[:-30], "flip.png": good[:50] + bytes([good[50] ^ 255]) + good[51:],
               "none.png": b"", "jpeg.png": b"\xff\xd8\xff\xe0" + bytes(50),
               "huge.png": good[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + good[24:],
               "zero.png": good[:16] + struct.pack(">II", 0, 8) + good[24:]}
        for name, data in bad.items():
            with self.subTest(name):
                self.put("input/" + name, data)
                self.check(self.run_workflow(kit.load_save(name)), 4, name, "LoadImage")
        self.assertEqual(self.outputs(), [])

    def test_a_picture_without_a_workflow_cannot_be_run(self):
        path = self.put("plain.png", png.write(2, 2, png.RGB, 8, lambda x, y: [1, 2, 3]))
        self.check(self.atelier("run", path), 4, "plain.png", "no workflow")
        path = self.put("broken.png", b"\x89PNG\r\n\x1a\n")
        self.check(self.atelier("run", path), 4, "broken.png")
        path = self.put("nonsense.png", png.write(2, 2, png.RGB, 8, lambda x, y: [1, 2, 3],
                                                  text=(("prompt", "{"),)))
        self.check(self.atelier("run", path), 3, "nonsense.png", "line 1")


if __name__ == "__main__":
    unittest.main()
