# SPDX-License-Identifier: Apache-2.0
"""The page of the house in a real browser: a picture from a prompt, the gallery, a workflow from a file, the queue.

Skipped where there is no Chromium. ATELIER_SCREENSHOT=FILE keeps what it looked like.
"""
import json
import os
import struct
import unittest

from browser import CHROMIUM, Browser
from kit import Case, Socket, is_end, sleeper

HOUSE = os.path.join(os.environ["ATELIER_SOURCE"], "examples/house.json")
READY = "document.querySelector('#state').textContent === 'ready'"


class Files(Case):
    def test_the_pages_files_are_in_the_program(self):
        page = self.server.get("/")
        self.assertEqual((page.status, page.headers["content-type"]), (200, "text/html"))
        self.assertIn(b"/atelier/app.js", page.body)
        for name, kind in (("app.js", "javascript"), ("api.js", "javascript"), ("workflow.js", "javascript"), ("style.css", "css")):
            answer = self.server.get("/atelier/" + name)
            self.assertEqual(answer.status, 200)
            self.assertIn(kind, answer.headers["content-type"])
            with open(os.path.join(os.environ["ATELIER_SOURCE"], "web", name), "rb") as f:
                self.assertEqual(answer.body, f.read())
        self.assertEqual(self.server.get("/atelier/none.js").status, 404)


class Previews(Case):
    flags = ("--preview-method", "auto", "--models", os.path.join(os.environ["ATELIER_SOURCE"], "models"))

    def test_a_sampler_shows_every_step(self):
        with open(HOUSE) as f:
            prompt = json.load(f)
        prompt["7"]["inputs"]["steps"] = 3
        s = Socket(self.server, "looks", first={"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        job = self.server.submit(prompt, client_id="looks").json()["prompt_id"]
        seen = s.until(is_end(job))
        frames = [i for i, m in enumerate(seen) if isinstance(m, bytes)]
        self.assertEqual(len(frames), 3)
        for i in frames:  # between its progress_state and its progress
            self.assertEqual((seen[i - 1]["type"], seen[i + 1]["type"]), ("progress_state", "progress"))
            kind, n = struct.unpack(">II", seen[i][:8])
            meta, picture = json.loads(seen[i][8:8 + n]), seen[i][8 + n:]
            self.assertEqual((kind, meta["node_id"], meta["image_type"]), (4, "7", "image/jpeg"))
            at = picture.index(b"\xff\xc0")  # the frame's head: both sides are --preview-size
            self.assertEqual(struct.unpack(">HH", picture[at + 5:at + 9]), (512, 512))
        s.close()


@unittest.skipUnless(CHROMIUM, "there is no Chromium here")
class Page(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser = Browser()
        cls.addClassCleanup(cls.browser.close)
        cls.browser.open("http://127.0.0.1:%d/" % cls.server.port)
        cls.browser.until("document.querySelector('[name=text]') && " + READY)

    def test_a_picture_from_a_prompt(self):
        b = self.browser
        if not b.run("document.querySelector('[name=model]').value.includes('house')"):
            self.skipTest("the house model is not beside this program")
        before = b.run("document.querySelectorAll('#gallery img').length")
        b.run("document.querySelector('[name=steps]').value = 2; document.querySelector('#form').requestSubmit()")
        b.until("document.querySelectorAll('#gallery img').length > %d && %s" % (before, READY), 120)
        b.until("document.querySelector('#picture').naturalWidth === 256")
        self.assertEqual(b.run("document.querySelector('#fault').textContent"), "")
        self.assertEqual(b.run("document.querySelector('[name=seed]').value"), "2")
        entry = list(self.server.get("/history").json().values())[-1]
        self.assertEqual(entry["prompt"][2]["7"]["inputs"]["steps"], 2)
        # Its workflow comes back from the gallery, with every input of every node.
        b.run("document.querySelector('#gallery button').click()")
        legends = b.run("[...document.querySelectorAll('legend')].map((e) => e.textContent)")
        self.assertIn("sampler (7)", legends)
        b.run("document.querySelector('#simple').click()")
        self.assertTrue(b.run("!!document.querySelector('[name=model]')"))
        if os.environ.get("ATELIER_SCREENSHOT"):
            b.screenshot(os.environ["ATELIER_SCREENSHOT"])
        self.assertEqual(b.errors, [])

    def drop(self, workflow):
        self.browser.run("""(() => { const t = new DataTransfer();
            t.items.add(new File([%s], "w.json"));
            dispatchEvent(new DragEvent("drop", {dataTransfer: t})); })()""" % json.dumps(json.dumps(workflow)))

    def test_a_workflow_is_dropped_changed_and_stopped(self):
        b = self.browser
        self.drop(sleeper(60, 5))
        b.until("[...document.querySelectorAll('legend')].some((e) => e.textContent.includes('(3)'))")
        b.run("""(() => { const f = [...document.querySelectorAll('fieldset')].find((e) => e.textContent.includes('(3)'));
            const i = f.querySelector('input'); i.value = 59; i.dispatchEvent(new Event('change')); })()""")
        b.run("document.querySelector('#form').requestSubmit()")
        b.until("!document.querySelector('#interrupt').hidden")
        self.assertEqual(self.server.get("/queue").json()["queue_running"][0][2]["3"]["inputs"]["seconds"], 59)
        b.run("document.querySelector('#form').requestSubmit()")
        b.until("document.querySelectorAll('#jobs li').length === 2")
        b.run("document.querySelector('#jobs button').click()")
        b.until("document.querySelectorAll('#jobs li').length === 1")
        b.run("document.querySelector('#interrupt').click()")
        b.until(READY)
        self.drop({"1": {"class_type": "EmptyImage", "inputs": {"width": 0, "height": 1, "batch_size": 1, "color": 0}},
                   "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}})
        b.until("document.querySelectorAll('fieldset').length === 1")
        b.run("document.querySelector('[min=\"1\"]').removeAttribute('min'); document.querySelector('#form').requestSubmit()")
        self.assertIn("smaller than min", b.until("document.querySelector('#fault').textContent"))
        b.run("document.querySelector('#simple').click()")
        b.errors = [e for e in b.errors if "400" not in e]  # the refusal itself


if __name__ == "__main__":
    unittest.main()
