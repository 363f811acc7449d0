# SPDX-License-Identifier: Apache-2.0
"""Every route with ComfyUI's shapes and status codes: queue, history, files, users, sockets."""
import http.client
import io
import json
import os
import socket
import struct
import time
import unittest
import zlib

from kit import Case, Socket, is_end, node, picture, sleeper


def png(width, height, rgba):
    """A PNG of one colour."""
    row = b"\0" + bytes(rgba) * width
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6 if len(rgba) == 4 else 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b""))


def unpng(data):
    """(colour type, first pixel) of an unfiltered or simply filtered PNG."""
    at, body, kind = 8, b"", None
    while at < len(data):
        n, name = struct.unpack(">I4s", data[at:at + 8])
        if name == b"IHDR":
            kind = data[at + 8 + 9]
        if name == b"IDAT":
            body += data[at + 8:at + 8 + n]
        at += 12 + n
    raw = zlib.decompress(body)
    return kind, tuple(raw[1:1 + (4 if kind == 6 else 3)])


def form(*parts):
    """A multipart body of (name, filename or None, bytes) and its content type."""
    out = io.BytesIO()
    for name, filename, data in parts:
        out.write(b"--frontier\r\nContent-Disposition: form-data; name=\"%s\"" % name.encode())
        if filename is not None:
            out.write(b"; filename=\"%s\"\r\nContent-Type: image/png" % filename.encode())
        out.write(b"\r\n\r\n" + data + b"\r\n")
    out.write(b"--frontier--\r\n")
    return out.getvalue(), "multipart/form-data; boundary=frontier"


class Routes(Case):
    maxDiff = None

    @classmethod
    def prepare(cls):
        header = json.dumps({"__metadata__": {"a": "b"},
                             "t": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}).encode()
        os.makedirs(os.path.join(cls.dir, "models/loras/deep"))
        os.makedirs(os.path.join(cls.dir, "models/embeddings"))
        for name, n in (("good.safetensors", len(header)), ("deep/long.safetensors", 1 << 62)):
            with open(os.path.join(cls.dir, "models/loras", name), "wb") as f:
                f.write(struct.pack("<Q", n) + header)
        with open(os.path.join(cls.dir, "models/embeddings/a.b.pt"), "wb"):
            pass
        for name, text in (("workflow_templates/index.json", '[{"title": "x"}]'), ("workflow_templates/deep/a.webp", "w"),
                           ("custom_nodes/pack/example_workflows/one two.json", "{}"),
                           ("custom_nodes/pack/examples/three.json", '{"3": 3}'), ("custom_nodes/pack/examples/three.png", "p"),
                           ("custom_nodes/pack/secret.json", "s"), ("custom_nodes/other/readme.json", "r")):
            os.makedirs(os.path.dirname(os.path.join(cls.dir, name)), exist_ok=True)
            with open(os.path.join(cls.dir, name), "w", encoding="ascii") as f:
                f.write(text)

    def upload(self, *parts, route="/upload/image"):
        body, kind = form(*parts)
        return self.server.post(route, body, Content_Type=kind)

    def test_the_same_prompt_again_is_answered_the_same(self):
        good, bad = picture(7), picture(8)
        mixed = {"1": good["1"], "2": good["2"],
                 "3": dict(bad["2"], inputs=dict(bad["2"]["inputs"], images=["nobody", 0]))}
        text = lambda prompt, rest="": ('{"prompt": %s%s}' % (json.dumps(prompt), rest)).encode()
        for prompt in (good, mixed):
            first = self.server.post("/prompt", text(prompt)).json()
            self.assertEqual("3" in first["node_errors"], prompt is mixed)
            for rest in ("", ', "client_id": "a"', ', "extra_data": {"a": [1, "}"]}', ', "partial_execution_targets": null'):
                again = self.server.post("/prompt", text(prompt, rest)).json()
                self.assertEqual(again["node_errors"], first["node_errors"])
                self.assertNotEqual(again["prompt_id"], first["prompt_id"])
                mine, his = (self.server.wait(a["prompt_id"])["prompt"] for a in (again, first))
                self.assertEqual((mine[2], mine[4]), (his[2], his[4]))
                if "extra" in rest:
                    self.assertEqual(mine[3], {"a": [1, "}"]})
        one = self.server.post("/prompt", text(mixed, ', "partial_execution_targets": ["3"]'))
        self.assertEqual((one.status, one.json()["error"]["type"]), (400, "prompt_outputs_failed_validation"))
        twice = self.server.post("/prompt", text(good, ', "prompt": {}'))  # the last one counts
        self.assertEqual((twice.status, twice.json()["error"]["type"]), (400, "prompt_no_outputs"))
        for broken in (', "a": }', ', "a": 1,', ', "number": "x"'):
            self.assertEqual(self.server.post("/prompt", text(good, broken)).status,
                             self.server.post("/prompt", text(picture(9), broken)).status, broken)
            self.assertNotEqual(self.server.post("/prompt", text(good, broken)).status, 200, broken)

    def test_templates_are_files_of_a_folder(self):
        get = self.server.get
        self.assertEqual(get("/templates/index.json").json(), [{"title": "x"}])
        self.assertEqual(get("/templates/index.de.json").json(), [])  # the frontend asks for its language first
        picture_file = get("/templates/deep/a.webp")
        self.assertEqual((picture_file.status, picture_file.body, picture_file.headers["content-type"]), (200, b"w", "image/webp"))
        self.assertEqual(get("/templates/none.json").status, 404)
        self.assertEqual(get("/api/workflow_templates").json(), {"pack": ["one two", "three"]})
        self.assertEqual(get("/api/workflow_templates/pack/one%20two.json").json(), {})
        self.assertEqual(get("/api/workflow_templates/pack/three.json").json(), {"3": 3})
        self.assertEqual(get("/api/workflow_templates/pack/three.png").body, b"p")
        for path in ("/templates/../models/loras/good.safetensors", "/templates/%2e%2e/models/loras/good.safetensors",
                     "/api/workflow_templates/pack/%2e%2e/secret.json", "/api/workflow_templates/%2e%2e/pack/secret.json",
                     "/api/workflow_templates/other/readme.json", "/api/workflow_templates/pack/none.json"):
            self.assertEqual(get(path).status, 404, path)

    def test_a_waiting_job_moves(self):
        first = self.server.submit(sleeper(60, 3)).json()["prompt_id"]
        ids = [self.server.submit(picture(n)).json()["prompt_id"] for n in range(3)]
        waiting = lambda: [j[1] for j in self.server.get("/api/queue").json()["queue_pending"]]
        while waiting() != ids:
            time.sleep(0.02)
        move = lambda which, before: self.server.post("/api/jobs/%s/move" % which, {"before": before})
        answer = move(ids[2], ids[0])
        self.assertEqual((answer.status, answer.json()), (200, {"moved": True}))
        self.assertEqual(waiting(), [ids[2], ids[0], ids[1]])
        self.assertEqual(move(ids[2], None).status, 200)
        self.assertEqual(waiting(), ids)
        short = self.server.get("/queue?max_items=2").json()
        self.assertEqual(([j[1] for j in short["queue_pending"]], short["pending_total"]), (ids[:2], 3))
        self.assertNotIn("pending_total", self.server.get("/queue").json())
        self.assertEqual(move(first, None).status, 404)  # it runs
        self.assertEqual(move(ids[0], "nobody").status, 404)
        for body in ({}, {"before": 3}, [], b"{"):
            self.assertEqual(self.server.post("/jobs/%s/move" % ids[0], body).status, 400)
        self.server.post("/queue", {"clear": True})
        self.server.post("/interrupt", {"prompt_id": first})
        self.server.idle()

    def test_devices(self):
        d, = self.server.get("/api/atelier/devices").json()["devices"]
        self.assertEqual((d["name"], d["host"], d["watts"], d["celsius"]), ("cpu", True, None, None))
        self.assertGreater(d["total"], d["free"])
        self.assertTrue(0 <= d["busy"] <= 1)

    def test_a_drawing_becomes_a_prompt(self):
        drawing = {"nodes": [{"id": 1, "type": "EmptyImage", "mode": 0, "inputs": [],
                              "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [5]}],
                              "widgets_values": [64, 32, 1, 255]},
                             {"id": 2, "type": "PreviewImage", "mode": 0,
                              "inputs": [{"name": "images", "type": "IMAGE", "link": 5}], "outputs": []}],
                   "links": [[5, 1, 0, 2, 0, "IMAGE"]], "version": 0.4}
        answer = self.server.post("/api/atelier/convert", drawing)
        self.assertEqual(answer.status, 200)
        graph = answer.json()
        self.assertEqual(graph["1"]["inputs"], {"width": 64, "height": 32, "batch_size": 1, "color": 255})
        self.assertEqual(graph["2"]["inputs"], {"images": ["1", 0]})
        self.assertEqual(self.server.post("/atelier/convert", graph).json(), graph)  # a prompt stays one
        for body in (b"", b"{", b"[]"):
            answer = self.server.post("/atelier/convert", body)
            self.assertEqual(answer.status, 400)
            self.assertTrue(answer.json()["error"]["message"])

    def test_everything_exists_below_api_too(self):
        for path in ("/prompt", "/queue", "/history", "/system_stats", "/features", "/models", "/users", "/settings"):
            a, b = self.server.get(path), self.server.get("/api" + path)
            self.assertEqual((a.status, b.status), (200, 200), path)
        self.assertEqual(self.server.get("/internal/folder_paths").status, 200)
        self.assertEqual(self.server.get("/api/internal/folder_paths").status, 404)

    def test_methods_heads_and_unknown_paths(self):
        self.assertEqual(self.server.get("/nope").status, 404)
        self.assertEqual(self.server.post("/nope").status, 404)
        self.assertEqual(self.server.request("DELETE", "/queue").status, 405)
        head = self.server.request("HEAD", "/features")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertGreater(int(head.headers["content-length"]), 10)
        self.assertEqual(self.server.request("OPTIONS", "/prompt").status, 200)
        self.assertEqual(self.server.post("/prompt", b"no json").status, 500)

    def test_system_stats(self):
        stats = self.server.get("/system_stats").json()
        self.assertEqual(set(stats["system"]), {
            "os", "ram_total", "ram_free", "comfyui_version", "required_frontend_version",
            "installed_templates_version", "required_templates_version", "python_version", "pytorch_version",
            "embedded_python", "argv"})
        self.assertGreater(stats["system"]["ram_total"], stats["system"]["ram_free"])
        (device,) = stats["devices"]
        self.assertEqual((device["type"], device["index"]), ("cpu", None))

    def test_object_info(self):
        every = self.server.get("/object_info").json()
        self.assertIn("KSampler", every)
        self.assertEqual(every["KSampler"], self.server.get("/object_info/KSampler").json()["KSampler"])
        self.assertEqual(self.server.get("/object_info/Nope").json(), {})

    def test_models(self):
        kinds = self.server.get("/models").json()
        self.assertEqual(kinds[:6], ["checkpoints", "configs", "loras", "vae", "text_encoders", "diffusion_models"])
        self.assertEqual(self.server.get("/models/nope").status, 404)
        self.assertEqual(self.server.get("/models/loras").json(), ["deep/long.safetensors", "good.safetensors"])
        self.assertEqual(self.server.get("/embeddings").json(), ["a.b"])
        names = [m["name"] for m in self.server.get("/experiment/models").json()]
        self.assertNotIn("configs", names)
        self.assertEqual(self.server.get("/experiment/models/nope").status, 404)
        rows = self.server.get("/experiment/models/loras").json()
        self.assertEqual([r["name"] for r in rows], ["deep/long.safetensors", "good.safetensors"])
        self.assertEqual(set(rows[0]), {"name", "pathIndex", "modified", "created", "size"})

    def test_metadata_of_a_model(self):
        get = lambda name: self.server.get("/view_metadata/loras?filename=" + name)
        self.assertEqual(get("good.safetensors").json(), {"a": "b"})
        for name in ("deep/long.safetensors", "none.safetensors", "good.ckpt", "../../x.safetensors"):
            self.assertEqual(get(name).status, 404, name)

    def test_the_order_of_the_queue(self):
        self.server.idle()
        first = self.server.submit(sleeper(30, 1)).json()["prompt_id"]
        while not self.server.get("/queue").json()["queue_running"]:
            time.sleep(0.01)
        ids = {}
        for name, more in (("back", {}), ("front", {"front": True}), ("five", {"number": 5.5}), ("minus", {"number": -1e6})):
            answer = self.server.submit(picture(len(ids) + 50), **more).json()
            ids[name] = answer["prompt_id"]
            if name == "five":
                self.assertEqual(json.dumps(answer["number"]), "5.5")
        pending = [i[1] for i in self.server.get("/queue").json()["queue_pending"]]
        self.assertEqual(pending[0], ids["minus"])
        self.assertLess(pending.index(ids["front"]), pending.index(ids["back"]))
        self.assertEqual(self.server.get("/prompt").json()["exec_info"]["queue_remaining"], 5)
        self.assertEqual(self.server.post("/queue", {"delete": [ids["five"], "nobody", 7]}).body, b"")
        self.assertEqual(self.server.get("/prompt").json()["exec_info"]["queue_remaining"], 4)
        self.server.post("/queue", {"clear": True})
        queue = self.server.get("/queue").json()
        self.assertEqual(([i[1] for i in queue["queue_running"]], queue["queue_pending"]), ([first], []))
        self.assertIsNone(self.server.history(ids["back"]))
        self.server.post("/interrupt", {"prompt_id": ids["back"]})  # not the running one
        self.server.post("/interrupt", {"prompt_id": 12})
        time.sleep(0.05)
        self.assertIsNone(self.server.history(first))
        self.server.post("/interrupt", {"prompt_id": first})
        self.assertEqual(self.server.wait(first)["status"]["messages"][-1][0], "execution_interrupted")

    def test_pages_of_the_history(self):
        self.server.idle()
        self.server.post("/history", {"clear": True})
        jobs = []
        for i in range(5):
            jobs.append(self.server.submit(picture(100 + i)).json()["prompt_id"])
            self.server.wait(jobs[-1])
        page = lambda query: list(self.server.get("/history" + query).json())
        self.assertEqual(page(""), jobs)
        self.assertEqual(page("?max_items=2"), jobs[-2:])
        self.assertEqual(page("?max_items=2&offset=1"), jobs[1:3])
        self.assertEqual(page("?offset=3"), jobs[3:])
        self.assertEqual(page("?max_items=99"), jobs)
        self.assertEqual(self.server.get("/history?max_items=x").status, 500)
        self.assertEqual(self.server.get("/history/nobody").json(), {})
        self.server.post("/history", {"delete": [jobs[1], "nobody"]})
        self.assertEqual(page(""), jobs[:1] + jobs[2:])
        self.server.post("/history", {"clear": True})
        self.assertEqual(page(""), [])

    def test_jobs_of_newer_servers(self):
        self.server.idle()
        self.server.post("/history", {"clear": True})
        good = self.server.submit(picture(400, "jobs"), extra_data={"extra_pnginfo": {"workflow": {"id": "w-1"}}}).json()
        self.server.wait(good["prompt_id"])
        bad = self.server.submit({"1": node("EmptyImage", width=64, height=64, batch_size=1, color=401),
                                  "2": node("TestSyncError", value=["1", 0]), "3": node("PreviewImage", images=["2", 0])}).json()
        self.server.wait(bad["prompt_id"])
        running = self.server.submit(sleeper(30, 402)).json()["prompt_id"]
        waiting = self.server.submit(picture(403)).json()["prompt_id"]
        while not self.server.get("/queue").json()["queue_running"]:
            time.sleep(0.01)
        listed = self.server.get("/api/jobs?limit=200&offset=0").json()
        self.assertEqual(listed["pagination"], {"offset": 0, "limit": 200, "total": 4, "has_more": False})
        self.assertEqual([(j["id"], j["status"]) for j in listed["jobs"]],
                         [(waiting, "pending"), (running, "in_progress"), (bad["prompt_id"], "failed"),
                          (good["prompt_id"], "completed")])
        w, r, b, g = listed["jobs"]
        self.assertEqual(set(w), {"id", "status", "priority", "create_time", "outputs_count"})
        self.assertIn("execution_start_time", r)
        self.assertEqual(b["execution_error"]["node_type"], "TestSyncError")
        self.assertEqual((g["workflow_id"], g["outputs_count"], g["previewable_outputs_count"]), ("w-1", 1, 1))
        self.assertEqual({k: g["preview_output"][k] for k in ("nodeId", "mediaType", "type")},
                         {"nodeId": "2", "mediaType": "images", "type": "output"})
        self.assertGreaterEqual(g["execution_end_time"], g["execution_start_time"])
        ids = lambda query: [j["id"] for j in self.server.get("/api/jobs?" + query).json()["jobs"]]
        self.assertEqual(ids("status=completed,failed,cancelled&sort_order=asc"), [good["prompt_id"], bad["prompt_id"]])
        self.assertEqual(ids("workflow_id=w-1"), [good["prompt_id"]])
        self.assertEqual(ids("limit=1&offset=1"), [running])
        self.assertTrue(self.server.get("/api/jobs?limit=1").json()["pagination"]["has_more"])
        for wrong in ("status=done", "limit=0", "limit=x", "sort_by=size", "sort_order=up", "offset=x"):
            self.assertEqual(self.server.get("/api/jobs?" + wrong).status, 400, wrong)
        whole = self.server.get("/api/jobs/" + good["prompt_id"]).json()
        self.assertEqual(whole["workflow"]["prompt"]["2"]["class_type"], "SaveImage")
        self.assertEqual(whole["execution_status"]["status_str"], "success")
        self.assertEqual(list(whole["outputs"]), ["2"])
        self.assertEqual(self.server.get("/api/jobs/nobody").status, 404)
        self.assertEqual(self.server.post("/api/jobs/nobody/cancel").json(), {"cancelled": False})
        self.assertEqual(self.server.post("/api/jobs/cancel", {"job_ids": [waiting]}).json(), {"cancelled": True})
        self.assertEqual(self.server.post("/api/jobs/cancel", {"job_ids": [1]}).status, 400)
        self.assertEqual(self.server.post("/api/jobs/cancel", {}).status, 400)
        self.assertEqual(self.server.post("/api/jobs/%s/cancel" % running).json(), {"cancelled": True})
        self.server.wait(running)
        self.assertEqual(ids("status=cancelled"), [running])
        self.assertEqual(self.server.get("/api/global_subgraphs").json(), {})

    def test_a_given_id_and_partial_targets(self):
        prompt = dict(picture(7), **{"3": node("PreviewImage", images=["1", 0])})
        answer = self.server.submit(prompt, prompt_id="my-id", partial_execution_targets=["3"]).json()
        self.assertEqual(answer["prompt_id"], "my-id")
        entry = self.server.wait("my-id")
        self.assertEqual((entry["prompt"][4], list(entry["outputs"])), (["3"], ["3"]))
        self.assertEqual(self.server.submit(prompt, partial_execution_targets=[]).json()["error"]["type"],
                         "prompt_no_outputs")
        self.assertEqual(self.server.submit([1]).status, 400)
        self.server.submit(picture(8), prompt_id="my-id")  # the newer entry of an id counts
        end = time.monotonic() + 60
        while list(self.server.wait("my-id")["outputs"]) != ["2"] and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual(list(self.server.get("/history/my-id").json()["my-id"]["outputs"]), ["2"])

    def test_a_job_that_fails_alone(self):
        bad = {"1": node("EmptyImage", width=64, height=64, batch_size=1, color=1),
               "2": node("TestSyncError", value=["1", 0]), "3": node("PreviewImage", images=["2", 0])}
        entry = self.server.wait(self.server.submit(bad).json()["prompt_id"])
        self.assertEqual(entry["status"]["status_str"], "error")
        kind, data = entry["status"]["messages"][-1]
        self.assertEqual((kind, data["exception_type"]), ("execution_error", "RuntimeError"))
        self.assertEqual(data["exception_message"], "Intentional sync execution error for testing\n")
        huge = {"1": node("EmptyImage", width=16384, height=16384, batch_size=4096, color=1),
                "3": node("PreviewImage", images=["1", 0])}
        entry = self.server.wait(self.server.submit(huge).json()["prompt_id"])
        self.assertEqual(entry["status"]["messages"][-1][1]["exception_type"], "torch.OutOfMemoryError")
        self.assertEqual(self.server.wait(self.server.submit(picture(9)).json()["prompt_id"])["status"]["status_str"],
                         "success")

    def test_free_forgets_results(self):
        job = self.server.submit(picture(77, "free")).json()["prompt_id"]
        self.server.wait(job)
        self.assertEqual(self.server.post("/free", {"unload_models": True, "free_memory": True}).body, b"")
        end = time.monotonic() + 60
        while time.monotonic() < end:  # the executor forgets between jobs
            entry = self.server.wait(self.server.submit(picture(77, "free")).json()["prompt_id"])
            if entry["status"]["messages"][1][1]["nodes"] == []:
                break
        self.assertEqual(entry["status"]["messages"][1][1]["nodes"], [])

    def test_pictures_are_viewed(self):
        entry = self.server.wait(self.server.submit(picture(0x102030, "seen")).json()["prompt_id"])
        (image,) = entry["outputs"]["2"]["images"]
        url = "/view?filename=%s&type=output&subfolder=" % image["filename"]
        whole = self.server.get(url)
        self.assertEqual((whole.status, whole.headers["content-type"]), (200, "image/png"))
        self.assertEqual(whole.headers["content-disposition"], 'filename="%s"' % image["filename"])
        part = self.server.get(url, Range="bytes=1-3")
        self.assertEqual((part.status, part.body), (206, b"PNG"))
        self.assertEqual(part.headers["content-range"], "bytes 1-3/%d" % len(whole.body))
        self.assertEqual(self.server.get(url, Range="bytes=99999999-").status, 416)
        self.assertEqual(self.server.get(url, Range="bytes=-4").body, whole.body[-4:])
        self.assertEqual(self.server.get(url, If_None_Match=whole.headers["etag"]).status, 304)
        self.assertEqual(self.server.get(url + "&preview=webp;50").body[8:12], b"WEBP")
        jpeg = self.server.get(url + "&preview=jpeg;50")
        self.assertEqual((jpeg.headers["content-type"], jpeg.body[:3]), ("image/jpeg", b"\xff\xd8\xff"))
        self.assertEqual(self.server.get(url + "&preview=jpeg;50&channel=rgba").headers["content-type"], "image/webp")
        self.assertEqual(unpng(self.server.get(url + "&channel=rgb").body), (2, (0x10, 0x20, 0x30)))
        self.assertEqual(unpng(self.server.get(url + "&channel=a").body), (6, (0, 0, 0, 255)))
        self.assertEqual(self.server.get("/view?filename=%s%%20%%5Boutput%%5D&type=input" % image["filename"]).status, 200)

    def test_uploads(self):
        a, b = png(8, 8, (1, 2, 3)), png(8, 8, (9, 9, 9))
        answer = self.upload(("image", "up.png", a))
        self.assertEqual(answer.json(), {"name": "up.png", "subfolder": "", "type": "input"})
        self.assertEqual(self.upload(("image", "up.png", a)).json()["name"], "up.png")
        self.assertEqual(self.upload(("image", "up.png", b)).json()["name"], "up (1).png")
        self.assertEqual(self.upload(("image", "up.png", b), ("overwrite", None, b"true")).json()["name"], "up.png")
        self.assertEqual(self.server.get("/view?filename=up.png&type=input").body, b)
        answer = self.upload(("image", "d.png", a), ("subfolder", None, b"one/two"), ("type", None, b"temp"))
        self.assertEqual(answer.json(), {"name": "d.png", "subfolder": "one/two", "type": "temp"})
        self.assertEqual(self.server.get("/view?filename=d.png&type=temp&subfolder=one/two").body, a)
        self.assertEqual(self.upload(("image", "", a)).status, 400)
        self.assertEqual(self.upload(("other", "x.png", a)).status, 400)
        self.assertEqual(self.server.post("/upload/image", b"nothing").status, 400)
        self.assertIn("up.png", self.server.get("/internal/files/input").json())
        self.assertEqual(self.server.get("/internal/files/nope").json(), {"error": "Invalid directory type"})

    def test_a_mask_goes_into_the_alpha_channel(self):
        self.upload(("image", "base.png", png(4, 4, (50, 60, 70))))
        answer = self.upload(("image", "masked.png", png(4, 4, (0, 0, 0, 99))),
                             ("original_ref", None, b'{"filename": "base.png", "type": "input", "subfolder": ""}'),
                             route="/upload/mask")
        self.assertEqual(answer.json()["name"], "masked.png")
        self.assertEqual(unpng(self.server.get("/view?filename=masked.png&type=input").body), (6, (50, 60, 70, 99)))

    def test_settings_and_userdata(self):
        self.assertEqual(self.server.post("/settings", {"a": 1, "b": [2]}).body, b"")
        self.assertEqual(self.server.post("/settings/c", b'"x"').status, 200)
        self.assertEqual(self.server.get("/settings").json(), {"a": 1, "b": [2], "c": "x"})
        self.assertEqual(self.server.get("/settings/c").json(), "x")
        self.assertIsNone(self.server.get("/settings/none").json())
        self.assertEqual(self.server.get("/users").json(), {"storage": "server", "migrated": True})
        put = self.server.post("/userdata/deep%2Fa%20b.json", b"[1]")
        self.assertEqual((put.status, put.json()), (200, "deep/a b.json"))
        self.assertEqual(self.server.get("/userdata/deep%2Fa%20b.json").body, b"[1]")
        self.assertEqual(self.server.post("/userdata/deep%2Fa%20b.json?overwrite=false", b"2").status, 409)
        self.assertEqual(self.server.get("/userdata?dir=deep").json(), ["a b.json"])
        self.assertEqual(self.server.get("/userdata?dir=deep&split=true").json(), [["a b.json", "a b.json"]])
        self.assertEqual(self.server.get("/userdata").status, 400)
        self.assertEqual(self.server.get("/userdata?dir=none").status, 404)
        rows = self.server.get("/v2/userdata?path=deep").json()
        self.assertEqual([(r["name"], r["path"], r["type"], r.get("size")) for r in rows], [("a b.json", "deep/a b.json", "file", 3)])
        rows = self.server.get("/v2/userdata").json()
        self.assertIn(("deep", "deep", "directory"), [(r["name"], r["path"], r["type"]) for r in rows])
        self.assertEqual([r["type"] for r in rows], sorted(r["type"] for r in rows))  # folders first
        self.assertEqual(self.server.get("/v2/userdata?path=none").status, 404)
        self.assertEqual(self.server.get("/v2/userdata?path=..").status, 400)
        moved = self.server.post("/userdata/deep%2Fa%20b.json/move/deep%2Fc.json")
        self.assertEqual((moved.status, moved.json()), (200, "deep/c.json"))
        self.assertEqual(self.server.request("DELETE", "/userdata/deep%2Fc.json").status, 204)
        self.assertEqual(self.server.request("DELETE", "/userdata/deep%2Fc.json").status, 404)
        self.assertEqual(self.server.get("/userdata/deep%2Fc.json").status, 404)

    def test_a_chunked_body(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        text = json.dumps({"prompt": picture(3)}).encode()
        connection.request("POST", "/prompt", body=iter([text[:5], text[5:90], text[90:]]), encode_chunked=True,
                           headers={"Transfer-Encoding": "chunked"})
        answer = connection.getresponse()
        self.assertEqual(answer.status, 200)
        self.assertIn("prompt_id", json.loads(answer.read()))
        connection.close()

    def test_one_connection_for_many_requests(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        for i in range(20):
            connection.request("POST", "/prompt", body=json.dumps({"prompt": picture(3)}))
            self.assertEqual(json.loads(connection.getresponse().read())["node_errors"], {})
            connection.request("GET", "/view?filename=none.png")
            answer = connection.getresponse()
            self.assertEqual((answer.status, answer.read()), (404, b""))
            connection.request("POST", "/interrupt")
            self.assertEqual(connection.getresponse().read(), b"")
        connection.close()

    def test_http_1_0_is_answered_and_closed(self):
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as s:
            s.sendall(b"GET /features HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            got = b""
            while piece := s.recv(4096):
                got += piece
        self.assertIn(b"connection: close", got.lower())
        self.assertTrue(got.endswith(b"}"))

    def test_sockets(self):
        nameless = Socket(self.server)
        hello = nameless.next()
        self.assertEqual(hello["type"], "status")
        self.assertEqual(len(hello["data"]["sid"]), 32)
        s = Socket(self.server, "who", path="/api/ws")
        self.assertEqual(s.next()["data"]["sid"], "who")
        self.server.idle()
        s.messages.queue.clear()
        # Without a client the progress is everybody's, the rest nobody's.
        job = self.server.submit(picture(200)).json()["prompt_id"]
        self.server.wait(job)
        kinds = {m["type"] for m in s.until(lambda m: m["type"] == "status" and
                                            m["data"]["status"]["exec_info"]["queue_remaining"] == 0)}
        self.assertEqual(kinds, {"status", "progress_state"})
        # A newer socket of the same name takes over; it is told what runs.
        job = self.server.submit(sleeper(30, 201), client_id="who").json()["prompt_id"]
        s.until(lambda m: m["type"] == "executing" and m["data"]["node"] == "3")
        again = Socket(self.server, "who")
        self.assertEqual(again.next()["type"], "status")
        self.assertEqual(again.next(), {"type": "executing", "data": {"node": "3"}})
        self.server.post("/interrupt")
        self.assertIn("execution_interrupted", [m["type"] for m in again.until(is_end(job))])
        for each in (nameless, s, again):
            each.close()
        lost = Socket(self.server, path="/nope")
        self.assertEqual(lost.status, 404)
        lost.close()

    def test_plain_previews_for_plain_clients(self):
        s = Socket(self.server, "plain", first={"type": "hello"})
        prompt = {"1": node("EmptyImage", width=64, height=64, batch_size=1, color=3),
                  "9": node("SaveImageWebsocket", images=["1", 0])}
        job = self.server.submit(prompt, client_id="plain").json()["prompt_id"]
        (frame,) = [m for m in s.until(is_end(job)) if isinstance(m, bytes)]
        self.assertEqual(struct.unpack(">II", frame[:8]), (1, 2))
        self.assertEqual(frame[8:12], b"\x89PNG")
        s.close()

    def test_metrics(self):
        def read():
            rows = [line.split() for line in self.server.get("/metrics").body.decode().splitlines() if line[0] != "#"]
            return {name: float(value) for name, value in rows}
        self.server.idle()
        before = read()
        self.server.wait(self.server.submit(picture(600)).json()["prompt_id"])
        self.server.submit({"1": node("Nope")})
        after = read()
        grown = {k: after[k] - before[k] for k in after if k.startswith("atelier_jobs") or k.endswith("_count")}
        self.assertEqual(grown["atelier_jobs_accepted_total"], 1)
        self.assertEqual(grown["atelier_jobs_refused_total"], 1)
        self.assertEqual(grown['atelier_jobs_ended_total{outcome="success"}'], 1)
        self.assertEqual((grown["atelier_job_run_seconds_count"], grown["atelier_job_wait_seconds_count"]), (1, 1))
        self.assertEqual(after['atelier_job_run_seconds_bucket{le="+Inf"}'], after["atelier_job_run_seconds_count"])
        self.assertGreater(after['atelier_http_answers_total{status="2xx"}'], before['atelier_http_answers_total{status="2xx"}'])
        self.assertGreater(after['atelier_device_memory_bytes{device="cpu",kind="total"}'], 1e8)
        self.assertEqual(after['atelier_nodes_total{result="run"}'] - before['atelier_nodes_total{result="run"}'], 2)
        self.server.wait(self.server.submit(dict(picture(600), **{"2": node("PreviewImage", images=["1", 0])})).json()["prompt_id"])
        self.assertEqual(read()['atelier_nodes_total{result="cached"}'] - after['atelier_nodes_total{result="cached"}'], 1)
        self.assertGreater(after["atelier_http_answer_seconds_count"], before["atelier_http_answer_seconds_count"])
        self.assertTrue(0 <= after['atelier_device_busy_ratio{device="cpu"}'] <= 1)
        self.assertTrue(0 < after["process_resident_memory_bytes"] < 2 ** 31)
        self.assertEqual(self.server.get("/health").json(), {"status": "ok"})

    def test_the_log(self):
        s = Socket(self.server, "logger")
        self.assertEqual(self.server.request("PATCH", "/internal/logs/subscribe", {"clientId": "logger", "enabled": True}).status, 200)
        job = self.server.submit(picture(500)).json()["prompt_id"]
        heard = s.until(lambda m: m["type"] == "logs" and any(job in e["m"] for e in m["data"]["entries"]))[-1]
        self.assertIsNone(heard["data"]["size"])
        raw = self.server.get("/internal/logs/raw").json()
        self.assertEqual(set(raw["entries"][-1]), {"t", "m"})
        self.assertTrue(any(job in e["m"] for e in raw["entries"]))
        self.assertIn(job, self.server.get("/internal/logs").json())
        self.server.request("PATCH", "/internal/logs/subscribe", {"clientId": "logger", "enabled": False})
        self.assertEqual(self.server.request("PATCH", "/internal/logs/subscribe", {}).status, 500)
        s.close()

    def test_many_sockets(self):
        many = [Socket(self.server, "n%d" % i) for i in range(300)]
        job = self.server.submit(picture(300), client_id="n50").json()["prompt_id"]
        self.assertIn("executed", [m["type"] for m in many[50].until(is_end(job))])
        for s in many:
            s.close()


if __name__ == "__main__":
    unittest.main()
