# SPDX-License-Identifier: Apache-2.0
# check.py - the pixel checker of tests/house, called from Python, and proof that it can be trusted.
# "python3 check.py 400" renders that many true pictures and pairs each with a caption made wrong in one fact.
import ctypes
import os
import random
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, "..", "..", "tests", "house", "house_check.c")
SIZES = ["", "small", "big"]
PLACES = ["", "left", "middle", "right", "top", "top left", "top right", "bottom", "bottom left", "bottom right"]
RELS = ["", "left of", "right of", "above", "below"]


class Checker:
    def __init__(self):
        lib = os.path.join(tempfile.mkdtemp(), "libhouse_check.so")
        subprocess.run([os.environ.get("CC", "cc"), "-std=c17", "-O2", "-shared", "-fPIC", SOURCE, "-o", lib, "-lm"], check=True)
        self.lib = ctypes.CDLL(lib)

    def __call__(self, rgb, objects):
        """rgb uint8 [H, W, 3]; objects as in prompts.json. Returns (passed, reason)."""
        from world import COLOURS, KINDS
        rgb = np.ascontiguousarray(rgb, dtype=np.uint8)
        rows = [[KINDS.index(o["kind"]), COLOURS.index(o["colour"]), SIZES.index(o["size"]), PLACES.index(o["place"]),
                 RELS.index(o["rel"]), o["of"]] for o in objects]
        facts = np.array(rows, dtype=np.int32).reshape(-1, 6)
        reason = ctypes.create_string_buffer(300)
        ok = self.lib.house_check(rgb.ctypes.data_as(ctypes.c_void_p), rgb.shape[1], rgb.shape[0],
                                  facts.ctypes.data_as(ctypes.c_void_p), len(rows), reason, ctypes.c_size_t(300))
        return bool(ok), reason.value.decode()


def spoil(r, objects):
    """The same objects with one told fact made wrong, and its name."""
    from world import COLOURS, KINDS
    objects = [dict(o) for o in objects]
    o = r.choice(objects)
    kinds = ["kind", "colour"] + (["side"] if o["place"] or objects[0]["rel"] else []) + (["size"] if o["size"] else [])
    what = r.choice(kinds)
    if what == "kind":
        o["kind"] = r.choice([k for k in KINDS if k != o["kind"]])
    elif what == "colour":
        o["colour"] = r.choice([c for c in COLOURS if c != o["colour"]])
    elif what == "size":
        o["size"] = "small" if o["size"] == "big" else "big"
    elif objects[0]["rel"]:
        objects[0]["rel"] = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}[objects[0]["rel"]]
    elif "left" in o["place"]:
        o["place"] = o["place"].replace("left", "right")
    elif "right" in o["place"]:
        o["place"] = o["place"].replace("right", "left")
    else:
        o["place"] = r.choice(["left", "right"])
    return objects, what


def main(count):
    import torch

    import draw
    import world
    torch.set_num_threads(2)
    r, check = random.Random(99), Checker()
    passed, caught, tried = 0, {}, {}
    for start in range(0, count, 32):
        scenes = []
        while len(scenes) < 32:
            s = world.sample_scene(r, allow_held=True)
            if s["objects"]:
                scenes.append(s)
        pictures = (draw.render(*draw.pack(scenes)) * 255 + 0.5).byte().permute(0, 2, 3, 1).numpy()
        for s, p in zip(scenes, pictures):
            ok, why = check(p, s["objects"])
            passed += ok
            if not ok:
                print("true picture refused:", s["background"], why)
            bad, what = spoil(r, s["objects"])
            tried[what] = tried.get(what, 0) + 1
            caught[what] = caught.get(what, 0) + (not check(p, bad)[0])
    total = (count + 31) // 32 * 32
    print(f"true pictures passed: {passed} of {total}; wrong captions refused: {sum(caught.values())} of {sum(tried.values())}",
          {k: f"{caught[k]}/{tried[k]}" for k in sorted(tried)})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
