# SPDX-License-Identifier: Apache-2.0
# world.py - what the house model's pictures may hold, and how a caption says it.
# Idea: a scene is a background and up to three objects (kind, colour, size, place); the caption names some of these facts
# in varied English. Every (kind, colour, column, background) tuple whose hash is 0 modulo 12 is held out: the trainer never
# draws it, and the 100 test prompts are made of nothing else.
import hashlib
import json
import random
import sys

KINDS = ["house", "tree", "boat", "balloon", "star", "heart", "kite", "mushroom", "fish", "flower"]
COLOURS = ["red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink"]
BACKGROUNDS = ["meadow", "sunset", "snow", "desert", "night", "mist", "autumn", "moonsea"]
COLUMNS = ["left", "middle", "right"]
GROUND = {"house", "tree", "mushroom", "flower", "boat"}
PX = 256

KIND_WORDS = {
    "house": ["house", "house", "house", "cottage"],
    "tree": ["tree", "tree", "fir tree", "pine tree"],
    "boat": ["sailing boat", "boat", "sailboat"],
    "balloon": ["hot-air balloon", "balloon", "hot air balloon"],
    "star": ["star"],
    "heart": ["heart"],
    "kite": ["kite"],
    "mushroom": ["mushroom", "mushroom", "toadstool"],
    "fish": ["fish"],
    "flower": ["flower", "flower", "blossom"],
}
COLOUR_WORDS = {c: [c] for c in COLOURS}
COLOUR_WORDS["purple"] = ["purple", "purple", "purple", "violet"]
COLOUR_WORDS["turquoise"] = ["turquoise", "turquoise", "teal"]
SIZE_WORDS = {"small": ["small", "small", "little", "tiny"], "big": ["big", "big", "large", "huge"]}
PLACE_WORDS = {
    "left": ["on the left", "on the left", "on the left side", "at the left"],
    "right": ["on the right", "on the right", "on the right side", "at the right"],
    "middle": ["in the middle", "in the centre", "in the center"],
    "top": ["at the top", "high in the middle", "in the top middle"],
    "top left": ["in the top left corner", "at the top left", "in the upper left"],
    "top right": ["in the top right corner", "at the top right", "in the upper right"],
    "bottom": ["at the bottom", "low in the middle", "in the bottom middle"],
    "bottom left": ["in the bottom left corner", "at the bottom left", "in the lower left"],
    "bottom right": ["in the bottom right corner", "at the bottom right", "in the lower right"],
}
REL_WORDS = {
    "left of": ["to the left of", "to the left of", "left of"],
    "right of": ["to the right of", "to the right of", "right of"],
    "above": ["above", "above", "over"],
    "below": ["below", "below", "under", "underneath"],
}
BACKGROUND_WORDS = {
    "meadow": ["a meadow at noon", "green hills on a sunny day", "a sunny meadow", "green meadows under a blue sky"],
    "sunset": ["the sea at sunset", "sunset over the sea", "an evening sea", "sea at sunset"],
    "snow": ["snowy hills at dusk", "snowy hills", "a winter landscape", "hills covered in snow"],
    "desert": ["a desert", "sand dunes", "the desert at noon", "golden desert dunes"],
    "night": ["a starry night", "hills under a starry sky", "a night full of stars", "starry night over the hills"],
    "mist": ["misty mountains", "misty mountains in the morning", "mountains in the mist", "a foggy mountain morning"],
    "autumn": ["autumn hills", "hills in autumn", "an autumn landscape", "autumn hills in the afternoon"],
    "moonsea": ["the sea by moonlight", "a moonlit sea", "moonlight over the sea", "the sea at night"],
}
STYLE_WORDS = ["a paper-cut picture of ", "a picture book page with ", "paper-cut: ", "an illustration of ", "a picture of "]


def held_out(kind, colour, column, background):
    key = f"{kind}/{colour}/{column}/{background}".encode()
    return hashlib.md5(key).digest()[0] % 12 == 0


def column_of(cx):
    return "left" if cx < 0.36 * PX else "right" if cx > 0.64 * PX else "middle"


def _place(r, kind, radius, place):
    """Centre in pixels of an object of this radius at a place ('' = anywhere)."""
    column = next((c for c in COLUMNS if c in place.split()), None)
    if column is None:
        column = "middle" if place in ("top", "bottom") else r.choice(COLUMNS)
    edge = radius + 7
    if column == "left":
        x = r.uniform(max(44, edge), 80)
    elif column == "right":
        x = r.uniform(176, min(212, 256 - edge))
    else:
        x = r.uniform(112, 144)
    if place.startswith("top"):
        y = r.uniform(max(46, edge), 82)
    elif place.startswith("bottom"):
        y = r.uniform(176, min(206, 256 - edge))
    elif kind in GROUND:
        y = r.uniform(152, min(188, 256 - edge))
    elif kind == "fish":
        y = r.uniform(max(84, edge), min(196, 256 - edge))
    else:
        y = r.uniform(max(56, edge), 160)
    return x, y


def _places_for(kind):
    if kind in GROUND:
        return COLUMNS
    if kind == "fish":
        return COLUMNS + ["bottom left", "bottom", "bottom right"]
    return COLUMNS + COLUMNS + ["top left", "top", "top right"]


def _object(r, kind=None, colour=None, size=None, place=None, small=False):
    kind = kind or r.choice(KINDS)
    size = r.choice(["", "", "small", "big", "small", "big"]) if size is None else size
    radius = {"small": r.uniform(25, 30), "big": r.uniform(44, 52)}.get(size) or r.uniform(26, 50)
    if small and size != "small":
        radius = r.uniform(42, 46) if size == "big" else r.uniform(26, 38)
    place = r.choice(_places_for(kind)) if place is None else place
    x, y = _place(r, kind, radius, place)
    rot = r.uniform(-0.06, 0.06) if kind in GROUND else r.uniform(-0.2, 0.2)
    return dict(kind=kind, colour=colour or r.choice(COLOURS), size=size, place=place, rel="", of=-1,
                r=radius, x=x, y=y, rot=rot, flip=r.random() < 0.5 and kind in ("fish", "boat", "house"))


def _apart(objects):
    for i, a in enumerate(objects):
        for b in objects[:i]:
            gap = 1.06 * (a["r"] + b["r"]) + 10
            if (a["x"] - b["x"]) ** 2 + (a["y"] - b["y"]) ** 2 < gap * gap:
                return False
            if a["kind"] == b["kind"] and a["colour"] == b["colour"]:
                return False
    return True


def _try_objects(r, n):
    if n == 2 and r.random() < 0.45:        # two objects, told by their relation
        rel = r.choice(["left of", "right of", "above", "below"])
        if rel in ("left of", "right of"):
            cols = r.choice([("left", "right"), ("left", "middle"), ("middle", "right")])
            if rel == "right of":
                cols = cols[::-1]
            a, b = _object(r, place=cols[0]), _object(r, place=cols[1])
        else:
            air = [k for k in KINDS if k not in GROUND and k != "fish"]
            col = r.choice(COLUMNS)
            top = {"left": "top left", "middle": "top", "right": "top right"}[col]
            hi = _object(r, kind=r.choice(air), place=top)
            lo = _object(r, place=col)
            lo["y"] = r.uniform(170, min(192, 250 - lo["r"]))
            a, b = (hi, lo) if rel == "above" else (lo, hi)
        a["place"] = b["place"] = ""
        a["rel"], a["of"] = rel, 1
        return [a, b]
    objects = []
    cols = r.sample(COLUMNS, n) if n > 1 and r.random() < 0.8 else None
    for i in range(n):
        kind = r.choice(KINDS)
        places = _places_for(kind)
        if cols:
            want = cols[i]
            places = [p for p in places if want in p or (want == "middle" and p in ("top", "bottom"))]
        objects.append(_object(r, kind=kind, place=r.choice(places), small=n == 3))
    return objects


def sample_scene(r, allow_held=False):
    """A random scene the trainer may see."""
    while True:
        n = r.choices([0, 1, 2, 3], [3, 32, 42, 23])[0]
        background = r.choice(BACKGROUNDS)
        for _ in range(30):
            objects = _try_objects(r, n)
            if _apart(objects):
                break
        else:
            continue
        if not allow_held and any(held_out(o["kind"], o["colour"], column_of(o["x"]), background) for o in objects):
            continue
        return dict(background=background, objects=objects, seed=r.randrange(1 << 30))


def _article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def _noun(r, o):
    size = r.choice(SIZE_WORDS[o["size"]]) + " " if o["size"] else ""
    return _article(size + r.choice(COLOUR_WORDS[o["colour"]]) + " " + r.choice(KIND_WORDS[o["kind"]]))


def caption(r, scene, plain=False):
    """One English sentence for the scene. Facts are never wrong; a place may stay untold (not when plain)."""
    objects = scene["objects"]
    where = r.choice(BACKGROUND_WORDS[scene["background"]])
    parts = []
    if objects and objects[0]["rel"]:
        a, b = objects
        parts.append(f"{_noun(r, a)} {r.choice(REL_WORDS[a['rel']])} {_noun(r, b)}")
    else:
        order = list(objects)
        if not plain:
            r.shuffle(order)
        for o in order:
            tell = o["place"] and (plain or r.random() < 0.88)
            words = r.choice(PLACE_WORDS[o["place"]]) if tell else ""
            if words and len(order) == 1 and r.random() < 0.15:
                parts.append(f"{words} {_noun(r, o)}")
            else:
                parts.append(_noun(r, o) + (" " + words if words else ""))
    if not parts:
        text = where
    else:
        if len(parts) == 1:
            text = parts[0]
        else:
            text = ", ".join(parts[:-1]) + r.choice([" and ", " and ", ", "]) + parts[-1]
        style = r.choice(STYLE_WORDS) if r.random() < 0.2 else ""
        if r.random() < 0.9 or plain:
            how = r.randrange(4)
            if how == 0:
                text = f"{where} with {text}" if not style else f"{style}{text}, {where}"
                style = ""
            elif how == 1:
                text = f"{text}, {where}"
            elif how == 2:
                text = f"{text}, {where} in the background"
            else:
                text = f"{where}, {text}"
                style = ""
        text = style + text
    if r.random() < 0.3:
        text = text[0].upper() + text[1:]
    if r.random() < 0.25:
        text += "."
    return text


def test_prompts(count=100):
    """The fixed test: scenes made of held-out tuples only, places and relations always told."""
    r = random.Random(20)
    found, seen = [], set()
    plan = [1] * 36 + [2] * 44 + [3] * 20
    while len(found) < count:
        n = plan[len(found)]
        scene = sample_scene(r, allow_held=True)
        objects = scene["objects"]
        if len(objects) != n:
            continue
        tuples = [(o["kind"], o["colour"], column_of(o["x"]), scene["background"]) for o in objects]
        if not all(held_out(*t) for t in tuples):
            continue
        text = caption(r, scene, plain=True)
        if (tuple(tuples) in seen) or any(not o["place"] and not objects[0]["rel"] for o in objects):
            continue
        seen.add(tuple(tuples))
        found.append((text, scene))
    r.shuffle(found)
    return found


def prompts_json():
    rows = []
    for i, (text, scene) in enumerate(test_prompts()):
        rows.append(dict(seed=i + 1, prompt=text, background=scene["background"],
                         objects=[{k: o[k] for k in ("kind", "colour", "size", "place", "rel", "of")}
                                  for o in scene["objects"]]))
    return rows


if __name__ == "__main__":
    out = [json.dumps(row) for row in prompts_json()]
    sys.stdout.write("[\n" + ",\n".join(out) + "\n]\n")
