# SPDX-License-Identifier: Apache-2.0
"""What is packed on its way, and what is swept away when a server starts."""
import gzip
import json
import os
import unittest

from kit import Case, Server, picture


class Packed(Case):
    flags = ("--enable-compress-response-body",)

    def test_texts_are_packed_for_those_who_take_it(self):
        for path in ("/object_info", "/api/object_info", "/", "/atelier/app.js", "/atelier/style.css"):
            plain = self.server.get(path)
            packed = self.server.get(path, Accept_Encoding="gzip, deflate, br")
            self.assertNotIn("content-encoding", plain.headers, path)
            self.assertEqual((packed.headers["content-encoding"], packed.headers["vary"]), ("gzip", "Accept-Encoding"))
            self.assertEqual(gzip.decompress(packed.body), plain.body, path)
            self.assertLess(len(packed.body), len(plain.body) / 2)
        json.loads(gzip.decompress(self.server.get("/object_info", Accept_Encoding="gzip").body))

    def test_what_stays_as_it_is(self):
        job = self.server.submit(picture(prefix="packed")).json()["prompt_id"]
        self.server.wait(job)
        for path in ("/view?filename=packed_00001_.png", "/features"):  # a picture; a few bytes
            self.assertNotIn("content-encoding", self.server.get(path, Accept_Encoding="gzip").headers, path)
        self.assertNotIn("content-encoding", self.server.get("/object_info", Accept_Encoding="gzip;q=0, br").headers)
        self.assertIn("content-encoding", self.server.get("/object_info", Accept_Encoding="br, gzip;q=0.5").headers)


class Models(Case):
    @classmethod
    def prepare(cls):
        os.makedirs(os.path.join(cls.dir, "models/loras/deep"))
        for name in ("models/loras/deep/soft.v2.safetensors", "models/loras/bare.safetensors", "models/loras/broken.safetensors",
                     "models/loras/broken.png", "models/secret.png"):
            with open(os.path.join(cls.dir, name), "wb") as f:
                f.write(b"x")

    def test_the_picture_beside_a_model(self):
        self.server.wait(self.server.submit(picture(0x336699, "beside")).json()["prompt_id"])
        with open(self.path("output/beside_00001_.png"), "rb") as f, open(self.path("models/loras/deep/soft.v2.preview.png"), "wb") as to:
            to.write(f.read())
        get = lambda path: self.server.get("/api/experiment/models/preview/" + path)
        dirs = [d["folders"] for d in self.server.get("/experiment/models").json() if d["name"] == "loras"][0]
        here = [i for i, d in enumerate(dirs) if os.path.realpath(os.path.join(self.dir, d)) == os.path.realpath(self.path("models/loras"))][0]
        answer = get("loras/%d/deep/soft.v2.safetensors" % here)
        self.assertEqual((answer.status, answer.headers["content-type"], answer.body[8:12]), (200, "image/webp", b"WEBP"))
        for path in ("loras/%d/bare.safetensors", "loras/%d/broken.safetensors", "loras/9%d/x", "loras/-%d/x", "loras/%dx/x", "nothing/%d/x",
                     "loras/%d/../secret.safetensors", "loras/%d/%%2e%%2e/secret.safetensors"):
            self.assertIn(get(path % here).status, (403, 404), path)


class Thumbnails(Case):
    def test_a_gallery_asks_for_small_ones_and_again(self):
        self.server.wait(self.server.submit(picture(0x804020, "big", 800, 400)).json()["prompt_id"])
        path = "/view?filename=big_00001_.png&preview=webp%3B80"
        whole, small = self.server.get(path), self.server.get(path + "&side=200")
        size = lambda webp: [1 + int.from_bytes(webp[i:i + 3], "little") for i in (24, 27)] if webp[12:16] == b"VP8X" else [
            int.from_bytes(webp[i:i + 2], "little") & 0x3fff for i in (26, 28)]
        self.assertEqual((size(whole.body), size(small.body)), ([800, 400], [200, 100]))
        self.assertNotIn("etag", whole.headers)
        again = self.server.get(path + "&side=200", If_None_Match=small.headers["etag"])
        self.assertEqual((again.status, again.body), (304, b""))
        self.assertEqual(self.server.get(path + "&side=100", If_None_Match=small.headers["etag"]).status, 200)
        os.utime(self.path("output/big_00001_.png"))
        self.assertEqual(self.server.get(path + "&side=200", If_None_Match=small.headers["etag"]).status, 200)
        for side in ("0", "15", "9999", "x", ""):  # no side: as ComfyUI
            self.assertEqual(self.server.get(path + "&side=" + side).body, whole.body)


class NotAsked(Case):
    def test_without_the_flag_nothing_is_packed(self):
        self.assertNotIn("content-encoding", self.server.get("/object_info", Accept_Encoding="gzip").headers)


class Swept(Case):
    @classmethod
    def prepare(cls):
        os.makedirs(os.path.join(cls.dir, "foreign/temp"))
        for name in ("foreign/temp/mine.txt", "kept.txt"):
            with open(os.path.join(cls.dir, name), "w", encoding="utf-8") as f:
                f.write("x")

    def test_temporary_files_go_when_a_server_starts(self):
        os.makedirs(self.path("temp/deep"))
        for name in ("temp/deep/old.png", "temp/.hidden"):
            with open(self.path(name), "w", encoding="utf-8") as f:
                f.write("x")
        os.symlink(self.path("kept.txt"), self.path("temp/link"))
        os.symlink(self.path("foreign"), self.path("temp/deep/links"))
        type(self).server.stop()
        type(self).server = Server(self.dir)
        self.assertEqual(os.listdir(self.path("temp")), [".emptied-at-start"])
        self.assertTrue(os.path.exists(self.path("kept.txt")))
        self.assertTrue(os.path.exists(self.path("foreign/temp/mine.txt")))

    def test_a_folder_of_somebody_else_is_left_alone(self):
        for _ in range(2):  # also the second time
            type(self).server.stop()
            type(self).server = Server(self.dir, "--temp-directory", self.path("foreign"))
            self.assertEqual(os.listdir(self.path("foreign/temp")), ["mine.txt"])
        type(self).server.stop()
        type(self).server = Server(self.dir)


if __name__ == "__main__":
    unittest.main()
