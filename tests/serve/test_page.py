# SPDX-License-Identifier: Apache-2.0
"""The page of the house in a real browser: a picture from a prompt, the gallery, a workflow from a file, the queue.

Skipped where there is no Chromium.
"""
import json
import os
import struct
import unittest

from browser import CHROMIUM, Browser
from kit import Case, Socket, is_end, node, sleeper

HOUSE = os.path.join(os.environ["ATELIER_SOURCE"], "examples/house.json")
READY = "document.querySelector('#state').textContent === 'ready'"


class Files(Case):
    def test_the_pages_files_are_in_the_program(self):
        page = self.server.get("/")
        self.assertEqual((page.status, page.headers["content-type"]), (200, "text/html"))
        self.assertIn(b"/atelier/app.js", page.body)
        for name in os.listdir(os.path.join(os.environ["ATELIER_SOURCE"], "web")):
            answer = self.server.get("/atelier/" + name)
            self.assertEqual(answer.status, 200)
            self.assertIn({".js": "javascript", ".css": "css", ".html": "html"}[os.path.splitext(name)[1]], answer.headers["content-type"])
            with open(os.path.join(os.environ["ATELIER_SOURCE"], "web", name), "rb") as f:
                self.assertEqual(answer.body, f.read())
        self.assertEqual(self.server.get("/atelier/none.js").status, 404)


def tiny_decoder(channels, colour, width=8):
    """A decoder of ComfyUI's taef1 layout whose every picture has one colour: all weights are 0 but the last bias."""
    convs = {1: (width, channels, True), 7: (width, width, False), 12: (width, width, False), 17: (width, width, False), 19: (3, width, True)}
    for block in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18):
        convs.update({"%d.conv.%d" % (block, k): (width, width, True) for k in (0, 2, 4)})
    header, data = {}, b""
    for key, (out, inward, bias) in convs.items():
        for name, shape in (("weight", [out, inward, 3, 3]), ("bias", [out]))[:2 if bias else 1]:
            values = list(colour) if (key, name) == (19, "bias") else [0.0] * (out * (inward * 9 if name == "weight" else 1))
            header["%s.%s" % (key, name)] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * len(values)]}
            data += struct.pack("<%df" % len(values), *values)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class Previews(Case):
    flags = ("--preview-method", "auto", "--preview-size", "256", "--models", os.path.join(os.environ["ATELIER_SOURCE"], "models"))

    @classmethod
    def prepare(cls):
        os.makedirs(os.path.join(cls.dir, "models/vae_approx"))

    def setUp(self):
        self.socket = Socket(self.server, "looks", first={"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        self.addCleanup(self.socket.close)

    def frames(self, **more):
        """What a run of three steps shows: after each step, between its progress_state and its progress."""
        with open(HOUSE, encoding="utf-8") as f:
            prompt = json.load(f)
        prompt["7"]["inputs"].update(steps=3, seed=len(json.dumps(more)))  # a run of its own, not a kept result
        prompt["6"]["inputs"].update(width=64, height=64)  # small, for the sanitizers' sake
        prompt.pop("8")
        prompt["9"] = node("SaveLatent", samples=["7", 0], filename_prefix="x")  # nobody needs the picture
        job = self.server.submit(prompt, client_id="looks", **more).json()["prompt_id"]
        seen = self.socket.until(is_end(job))
        pictures = []
        for i, m in enumerate(seen):
            if isinstance(m, bytes):
                self.assertEqual((seen[i - 1]["type"], seen[i + 1]["type"]), ("progress_state", "progress"))
                kind, n = struct.unpack(">II", m[:8])
                meta, picture = json.loads(m[8:8 + n]), m[8 + n:]
                self.assertEqual((kind, meta["node_id"], meta["image_type"]), (4, "7", "image/jpeg"))
                at = picture.index(b"\xff\xc0")  # the frame's head: both sides are --preview-size
                self.assertEqual(struct.unpack(">HH", picture[at + 5:at + 9]), (256, 256))
                pictures.append(picture)
        return pictures

    def test_every_step_is_shown_as_the_job_wants_it(self):
        self.assertEqual(len(set(self.frames())), 3)
        self.assertEqual(self.frames(extra_data={"preview_method": "none"}), [])
        self.assertEqual(len(self.frames(extra_data={"preview_method": "default"})), 3)
        self.assertEqual(len(self.frames(extra_data={"preview_method": "latent2rgb"})), 3)

    def test_a_tiny_autoencoder_shows_them_where_its_file_is(self):
        taesd = {"extra_data": {"preview_method": "taesd"}}
        file = self.path("models/vae_approx/taef1_decoder.safetensors")
        self.assertEqual(len(set(self.frames(**taesd))), 3)  # not here yet: latent2rgb, and a word in the log
        with open(self.path("server.log"), encoding="utf-8") as f:
            self.assertIn("PREVIEW-TAESD", f.read())
        with open(file, "wb") as f:
            f.write(tiny_decoder(16, (1.0, 0.602, 0.0)))
        taesd["extra_data"]["again"] = 1
        shown = set(self.frames(**taesd))
        self.assertEqual(len(shown), 1)
        plain = {"1": node("EmptyImage", width=256, height=256, batch_size=1, color=0xff9900),
                 "2": node("SaveImage", images=["1", 0], filename_prefix="plain")}
        entry = self.server.wait(self.server.submit(plain).json()["prompt_id"])
        name = entry["outputs"]["2"]["images"][0]["filename"]
        self.assertEqual(self.server.get("/view?preview=jpeg%3B95&filename=" + name).body, shown.pop())
        os.remove(file)


# As a person does it: the page hears of the change.
SET = """((name, value) => { const e = document.querySelector(name); e.value = value;
         e.dispatchEvent(new Event('input', {bubbles: true})); e.dispatchEvent(new Event('change', {bubbles: true})); })"""


@unittest.skipUnless(CHROMIUM, "there is no Chromium here (Debian's package: chromium)")
class Page(Case):
    @classmethod
    def prepare(cls):
        header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        os.makedirs(os.path.join(cls.dir, "models/loras"))
        for name in ("soft.safetensors", "sharp.safetensors"):
            with open(os.path.join(cls.dir, "models/loras", name), "wb") as f:
                f.write(struct.pack("<Q", len(header)) + header + bytes(4))

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser = Browser()
        cls.addClassCleanup(cls.browser.close)
        cls.browser.open("http://127.0.0.1:%d/" % cls.server.port)
        cls.browser.until("document.querySelector('[name=text]') && " + READY)

    def setUp(self):
        if not self.browser.run("document.querySelector('#loaded').hidden"):
            self.browser.run("document.querySelector('#simple').click()")

    def set(self, selector, value):
        self.browser.run("%s(%s, %s)" % (SET, json.dumps(selector), json.dumps(value)))

    def needs_the_house_model(self):
        if not self.browser.run("document.querySelector('[name=model]')?.value.includes('house')"):
            self.skipTest("the house model is not beside this program")

    def submit(self):
        self.browser.run("document.querySelector('#form').requestSubmit()")

    def waiting(self):
        return [j[1] for j in self.server.get("/queue").json()["queue_pending"]]

    def drop(self, content, name="w.json"):
        data = list(content if isinstance(content, bytes) else json.dumps(content).encode())
        self.browser.run("""(() => { const t = new DataTransfer();
            t.items.add(new File([new Uint8Array(%s)], %s));
            dispatchEvent(new DragEvent("drop", {dataTransfer: t})); })()""" % (data, json.dumps(name)))

    def legend(self, part):
        self.browser.until("[...document.querySelectorAll('legend')].some((e) => e.textContent.includes(%s))" % json.dumps(part))

    def test_a_picture_from_a_prompt(self):
        b = self.browser
        self.needs_the_house_model()
        self.assertEqual(b.run("document.querySelector('[name=width]').value"), "256")  # what suits this model
        before = b.run("document.querySelectorAll('#gallery img').length")
        self.set("[name=width]", "64")
        self.set("[name=height]", "64")
        self.set("[name=steps]", "3")
        self.set("[name=seed]", "1")
        self.set("[name=then]", "+ 1")
        b.run("""window.seen = []; new MutationObserver(() => { const p = document.querySelector('#picture');
            if (p.src.startsWith('blob:')) seen.push(p.src); }).observe(document.querySelector('#picture'), {attributes: true});""")
        self.submit()
        b.until("document.querySelectorAll('#gallery img').length > %d && %s" % (before, READY), 120)
        b.until("document.querySelector('#picture').naturalWidth === 64 && !document.querySelector('#deeds').hidden")
        self.assertEqual(b.run("new Set(seen).size"), 3)  # a preview after each step
        self.assertEqual(b.run("document.querySelector('#fault').textContent"), "")
        self.assertEqual(b.run("document.querySelector('[name=seed]').value"), "2")
        entry = list(self.server.get("/history").json().values())[-1]
        self.assertEqual(entry["prompt"][2]["7"]["inputs"]["steps"], 3)
        # Its workflow comes back from the gallery, with every input of every node.
        b.run("document.querySelector('#gallery button').click(); document.querySelector('#edit').click()")
        self.legend("sampler (7)")
        self.assertEqual(b.run("document.querySelector('[data-input=\"7.steps\"]').value"), "3")
        b.run("document.querySelector('#simple').click()")
        self.assertTrue(b.run("!!document.querySelector('[name=model]')"))
        # And from the picture itself.
        file = list(entry["outputs"].values())[0]["images"][0]
        self.drop(self.server.get("/view?filename=" + file["filename"]).body, "x.png")
        self.legend("sampler (7)")
        # A picture that a person opened stays while others are made.
        b.run("document.querySelector('#simple').click(); document.querySelector('[name=steps]').value = 2; document.querySelector('#form').requestSubmit()")
        b.run("document.querySelector('#gallery button').click()")
        b.until("document.querySelectorAll('#gallery img').length > %d && %s" % (before + 1, READY), 120)
        self.assertIn(file["filename"], b.run("document.querySelector('#picture').src"))
        self.assertEqual(b.errors, [])

    def test_loras_go_into_the_workflow(self):
        b = self.browser
        self.needs_the_house_model()
        b.run("document.querySelector('#more-loras').click(); document.querySelector('#more-loras').click()")
        self.set(".lora:nth-child(2) select", "soft.safetensors")
        self.set(".lora:nth-child(2) input", "0.5")
        self.server.submit(sleeper(60, 8))
        self.submit()
        b.until("document.querySelectorAll('#jobs li').length === 2")
        graph = self.server.get("/queue").json()["queue_pending"][0][2]
        loras = [n["inputs"] for n in graph.values() if n["class_type"] == "LoraLoader"]
        self.assertEqual([(n["lora_name"], n["strength_model"]) for n in loras], [("sharp.safetensors", 1), ("soft.safetensors", 0.5)])
        self.assertEqual(graph["7"]["inputs"]["model"], ["21", 0])
        b.run("document.querySelectorAll('.lora .sign').forEach((e) => e.click())")
        self.server.post("/queue", {"clear": True})
        self.server.post("/interrupt", {})
        b.until(READY)

    def test_a_workflow_is_dropped_changed_and_stopped(self):
        b = self.browser
        self.drop(sleeper(60, 5))
        self.legend("(3)")
        self.set("[data-input='3.seconds']", "59")
        self.submit()
        b.until("!!document.querySelector('#interrupt')")
        self.assertEqual(self.server.get("/queue").json()["queue_running"][0][2]["3"]["inputs"]["seconds"], 59)
        for n in range(3):
            self.submit()
            b.until("document.querySelectorAll('#jobs li').length === %d" % (n + 2))
        ids = self.waiting()
        b.run("document.querySelector('[data-key=\"up%s\"]').focus(); document.activeElement.click()" % ids[2])
        b.until("document.querySelectorAll('#jobs li')[2].querySelector('[data-key=\"up%s\"]')" % ids[2] + " !== null")
        self.assertEqual(self.waiting(), [ids[0], ids[2], ids[1]])
        self.assertEqual(b.run("document.activeElement.dataset.key"), "up" + ids[2])  # the keyboard stays where it was
        b.run("document.querySelector('[data-key=\"drop%s\"]').click()" % ids[0])
        b.until("document.querySelectorAll('#jobs li').length === 3")
        self.assertEqual(self.waiting(), [ids[2], ids[1]])
        b.run("document.querySelector('#clear').click()")
        b.until("document.querySelectorAll('#jobs li').length === 1")
        b.run("document.querySelector('#interrupt').click()")
        b.until(READY)

    def test_what_the_server_refuses_is_shown_where_it_stands(self):
        b = self.browser
        self.drop({"1": {"class_type": "EmptyImage", "inputs": {"width": 0, "height": 1, "batch_size": 1, "color": 0}},
                   "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}})
        self.legend("(1)")
        b.run("document.querySelectorAll('[min]').forEach((e) => e.removeAttribute('min')); document.querySelector('#form').requestSubmit()")
        self.assertIn("smaller than min", b.until("document.querySelector('#fault').textContent"))
        self.assertEqual(b.run("[...document.querySelectorAll('[aria-invalid]')].map((e) => e.dataset.input)"), ["1.width"])
        b.errors = [e for e in b.errors if "400" not in e]  # the refusal itself

    def test_a_drawing_of_the_editor_and_a_long_seed(self):
        b = self.browser
        with open(os.path.join(os.environ["ATELIER_SOURCE"], "tests/serve/drawing.json"), encoding="utf-8") as f:
            self.drop(f.read().encode())
        self.legend("(3)")
        self.assertEqual(b.run("document.querySelector('[data-input=\"3.seed\"]').value"), "18446744073709551615")
        for text in (b"nothing", b"[]", b"{}"):
            self.drop(text)
            b.until("document.querySelector('#fault').textContent.includes('w.json')")

    def test_it_can_be_used_without_a_mouse_or_eyes(self):
        b = self.browser
        axe = os.environ.get("ATELIER_AXE", "")
        if not os.path.exists(axe):
            self.skipTest("axe-core is not here: tools/setup/get_axe.sh brings it")
        with open(axe, encoding="utf-8") as f:
            b.run(f.read() + "; 0")
        self.server.submit(sleeper(60, 6))
        self.server.submit(sleeper(60, 7))
        b.until("document.querySelectorAll('#jobs li').length === 2")
        for scheme in ("light", "dark"):
            for form in ("simple", "loaded"):
                b.run("document.documentElement.style.colorScheme = '%s'" % scheme)
                if form == "loaded":
                    self.drop(sleeper(1))
                    self.legend("(3)")
                else:
                    b.run("document.querySelector('#simple').click(); document.querySelector('details').open = true")
                found = b.run("axe.run().then((r) => r.violations.map((v) => [v.impact, v.id, v.nodes.map((n) => n.html).slice(0, 3)]))")
                self.assertEqual([v for v in found if v[0] in ("serious", "critical")], [], (scheme, form))
        b.run("document.documentElement.style.colorScheme = ''")
        self.server.post("/queue", {"clear": True})
        self.server.post("/interrupt", {})
        b.until(READY)


if __name__ == "__main__":
    unittest.main()
