# SPDX-License-Identifier: Apache-2.0
"""The recorded traces of a ComfyUI 0.3.64 server, replayed: status codes, bodies, messages and their order.

What differs by nature is normalised: ids, times, random names, Python's stack traces and printed tensors; sets have no
order.
"""
import json
import os
import struct
import unittest

from kit import SOURCE, Case, Socket, is_end, node

with open(os.path.join(SOURCE, "tests/golden/comfy/traces.json"), encoding="utf-8") as f:
    TRACES = json.load(f)


def binary(m):
    """A binary frame as the traces tell it."""
    kind, n = struct.unpack(">II", m[:8])
    return {"BIN": kind, "meta": json.loads(m[8:8 + n])} if kind == 4 else {"BIN": kind, "format": n}


def clean(v, ids):
    """Ids by order of appearance, times gone, random names cut."""
    if isinstance(v, bytes):
        return clean(binary(v), ids)
    if isinstance(v, dict):
        if "BIN" in v and "txt" in v:  # recorded: the head in hex and the metadata
            v = {"BIN": int(v["head"][:8], 16), "meta": json.loads(v["txt"])}
        out = {}
        for key, item in v.items():
            if key in ("timestamp", "traceback", "current_inputs", "current_outputs", "modified", "created"):
                continue
            if key in ("prompt_id", "sid", "client_id"):
                item = ids.setdefault(item, "id%d" % len(ids))
            if key == "executed":
                item = sorted(item)
            if key == "filename" and "_temp_" in item:
                item = "ComfyUI_temp_xxxxx" + item[len("ComfyUI_temp_xxxxx"):]
            out[ids.get(key, key)] = clean(item, ids)
        return out
    if isinstance(v, list):
        return [clean(item, ids) for item in v]
    if isinstance(v, str):
        return ids.get(v, v)
    return v


def of_job(messages, prompt_id):
    """From the two status messages before a job's start on."""
    start = next(i for i, m in enumerate(messages)
                 if isinstance(m, dict) and m.get("type") == "execution_start"
                 and m["data"]["prompt_id"] == prompt_id)
    return messages[start - 2:]


BASIC = {"1": node("EmptyImage", width=64, height=64, batch_size=1, color=255),
         "2": node("SaveImage", images=["1", 0], filename_prefix="t/a%width%_%batch_num%"),
         "3": node("PreviewImage", images=["1", 0])}


class Traces(Case):
    maxDiff = None

    def compare_history(self, entry, want):
        got, want = (clean(side, {side["prompt"][1]: "job"}) for side in (entry, want))
        for side in (got, want):
            side["prompt"][4] = sorted(side["prompt"][4])  # a set
            side["prompt"][0] = 0
        self.assertEqual(got, want)

    def replay(self, trace, socket, client, prompt, **more):
        want = TRACES[trace]
        answer = self.server.submit(prompt, client_id=client, **more)
        self.assertEqual(answer.status, want["http"])
        body = answer.json()
        self.assertEqual(set(body), set(want["body"]))
        self.assertEqual(body["node_errors"], want["body"]["node_errors"])
        got = socket.until(is_end(body["prompt_id"]))
        recorded = want["ws"]
        if trace == "exec_error":  # the recorded client had seen other jobs before
            got, recorded = of_job(got, body["prompt_id"]), of_job(recorded, want["body"]["prompt_id"])
        got, recorded = clean(got, {}), clean(recorded, {})
        for i, (a, b) in enumerate(zip(got, recorded)):
            self.assertEqual(a, b, "message %d of %s" % (i, trace))
        self.assertEqual(len(got), len(recorded))
        (want_id,) = want["history"]
        self.compare_history(self.server.history(body["prompt_id"]), want["history"][want_id])
        return body

    def test_a_job_and_the_same_from_the_cache(self):
        client = "cf6e75c392634180bec30fe7c4bf46b5"
        s = Socket(self.server, client)
        self.replay("basic", s, client, BASIC, extra_data={"extra_pnginfo": {"workflow": {"x": 1}}})
        self.replay("basic_again", s, client, BASIC)
        s.close()

    def test_feature_flags_bring_previews_with_metadata(self):
        client = "01a9a64f2bc94cff814fa55fa33dd4cb"
        s = Socket(self.server, client)
        hello = s.next()
        s.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        flags = s.next()
        s.messages.put(hello)
        s.messages.put(flags)
        prompt = {"1": node("EmptyImage", width=64, height=64, batch_size=2, color=3),
                  "9": node("SaveImageWebsocket", images=["1", 0])}
        self.replay("flags", s, client, prompt)
        s.close()

    def test_a_node_that_fails(self):
        client = "cf6e75c392634180bec30fe7c4bf46b5e"
        s = Socket(self.server, client)
        image = {"1": node("EmptyImage", width=64, height=64, batch_size=1, color=255)}
        # In the recorded run the first picture lay in the cache already.
        done = self.server.submit(dict(image, **{"2": node("PreviewImage", images=["1", 0])}), client_id=client)
        s.until(is_end(done.json()["prompt_id"]))
        s.messages.queue.clear()
        prompt = dict(image, **{
            "2": node("EmptyImage", width=32, height=64, batch_size=1, color=255),
            "m": node("StubMask", value=0.5, height=64, width=64, batch_size=1),
            "3": node("TestLazyMixImages", image1=["1", 0], image2=["2", 0], mask=["m", 0]),
            "4": node("SaveImage", images=["3", 0], filename_prefix="x")})
        self.replay("exec_error", s, client, prompt)
        s.close()

    def test_an_interrupted_job(self):
        prompt = {"1": node("EmptyImage", width=64, height=64, batch_size=1, color=41),
                  "3": node("TestSleep", value=["1", 0], seconds=3.0),
                  "5": node("TestSleep", value=["3", 0], seconds=3.0),
                  "4": node("PreviewImage", images=["5", 0])}
        client = "cf6e75c392634180bec30fe7c4bf46b5i"
        s = Socket(self.server, client)
        job = self.server.submit(prompt, client_id=client).json()["prompt_id"]
        s.until(lambda m: m["type"] == "executing" and m["data"]["node"] == "3")
        self.assertEqual(clean(self.server.get("/queue").json()["queue_running"][0][1:3], {job: "id"}),
                         clean(TRACES["queue_while_running"]["queue_running"][0][1:3],
                               {TRACES["queue_while_running"]["queue_running"][0][1]: "id"}))
        answer = self.server.post("/interrupt")
        self.assertEqual([answer.status, answer.body.decode()], TRACES["interrupt"])
        s.until(is_end(job))
        (want,) = TRACES["hist_max1"].values()
        (entry,) = self.server.get("/history?max_items=1").json().values()
        self.compare_history(entry, want)
        s.close()

    def test_refused_prompts(self):
        image = lambda **more: node("EmptyImage", **dict(dict(width=64, height=64, batch_size=1, color=0), **more))
        save = node("SaveImage", images=["1", 0], filename_prefix="x")
        scale = lambda source, how: node("ImageScale", image=[source, 0], upscale_method=how, width=1, height=1,
                                         crop="disabled")
        saved = node("SaveImage", images=["5", 0], filename_prefix="x")
        prompts = {
            "val_no_class_type": {"1": {"inputs": {}}},
            "val_unknown_class": {"1": node("Nope")},
            "val_no_outputs": {"1": node("EmptyImage", width=1)},
            "val_missing_required": {"1": node("EmptyImage", width=64), "2": save},
            "val_min": {"1": image(width=0), "2": save},
            "val_badint": {"1": image(width="abc"), "2": save},
            "val_badlink3": {"1": image(width=["1", 0, 0]), "2": save},
            "val_type_mismatch": {"3": node("EmptyLatentImage", width=64, height=64, batch_size=1),
                                  "2": node("SaveImage", images=["3", 0], filename_prefix="x")},
            "val_cycle": {"5": scale("6", "area"), "6": scale("5", "area"), "2": saved},
            "val_combo": {"1": image(), "5": scale("1", "zzz"), "2": saved},
            "val_partial_ok_two_outputs": {
                "1": image(), "2": save, "3": node("SaveImage", images=["99", 0], filename_prefix="x")},
        }
        for trace, prompt in prompts.items():
            with self.subTest(trace):
                answer = self.server.submit(prompt)
                status, body = TRACES[trace]
                self.assertEqual(answer.status, status)
                got, want = clean(answer.json(), {}), clean(body, {})
                got.pop("number", None), want.pop("number", None)
                self.assertEqual(got, want)
        self.assertEqual([400, clean(self.server.post("/prompt", {}).json(), {})], TRACES["val_no_prompt"])

    def test_single_answers(self):
        info = self.server.get("/object_info/EmptyImage").json()
        del info["EmptyImage"]["description"]  # the recorder left it out
        self.assertEqual(info, TRACES["object_info_one"])
        for path in ("/extensions", "/embeddings"):
            self.assertEqual([200, self.server.get(path).json()], TRACES["get_" + path])
        self.assertEqual([404, self.server.get("/view?filename=nope.png").body.decode()], TRACES["view404"])
        self.assertEqual([200, self.server.get("/settings").json()], TRACES["settings"])
        posted = self.server.post("/userdata/workflows%2Fa.json?overwrite=true&full_info=true", b"{}")
        status, want = TRACES["userdata_post"]
        self.assertEqual((posted.status, clean(posted.json(), {})), (status, clean(want, {})))
        self.assertEqual(set(posted.json()), set(want))
        listed = self.server.get("/userdata?dir=workflows&recurse=true&split=false&full_info=true")
        self.assertEqual(clean(listed.json(), {}), clean(TRACES["userdata_list"][1], {}))


if __name__ == "__main__":
    unittest.main()
