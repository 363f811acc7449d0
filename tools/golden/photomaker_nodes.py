# SPDX-License-Identifier: Apache-2.0
"""Record what ComfyUI's PhotoMakerEncode makes of prompts with the small encoders of tests/nodes and the model of
tests/golden/photomaker, as the table of tests/nodes/photomaker_test.c.

    build/.../tests/make_tiny_models tests/golden FOLDER
    python photomaker_nodes.py COMFYUI_FOLDER FOLDER tests/golden > tests/nodes/photomaker_cases.h

Needs what encode_nodes.py needs."""
import os
import sys

import encode_nodes
import torch
from comfy_extras import nodes_photomaker
from safetensors.torch import load_file

import photomaker_cases

BLANKS = "a" + " " * 80 + "photomaker"
CASES = [  # prompt, place whose token is told
    ("a red photomaker circle", 2),
    ("a red photomaker, circle", 2),                        # another word
    ("photomaker a red circle", 0),                         # the one group of all tokens goes
    ("a photomaker (red:1.3) circle", 1),                   # the second group goes, and no weight is left
    ("(red:1.5) a photomaker (blue:0.7) star", 2),          # the third goes, a weight stays
    ("(a:1.2) photomaker circle", 1),                       # the second: all behind the parenthesis
    ("a  photomaker", 2),                                   # two blanks part an empty word
    (BLANKS, 0),                                            # behind the last token
    (encode_nodes.LONG, 0),                                 # two chunks, nobody in them
]


def main():
    clip = encode_nodes.load(["clip_l", "clip_g"], "sdxl")
    sd = load_file(os.path.join(sys.argv[3], "photomaker", "model.safetensors"))
    net = photomaker_cases.small_module({k.removeprefix("id_encoder."): v.float() for k, v in sd.items()})
    i = torch.arange(2 * 30 * 41 * 3)
    image = ((7 * i) % 23).float().view(2, 30, 41, 3) / 22.0
    print("// SPDX-License-Identifier: Apache-2.0")
    print(f"// photomaker_cases.h - made by tools/golden/photomaker_nodes.py from ComfyUI {encode_nodes.VERSION}: a prompt and a")
    print("// place, and shape and two weighted sums of context, of the token in that place, and of pooled.")
    print("static const photomaker_case photomaker_cases[] = {")
    for text, place in CASES:
        out = nodes_photomaker.PhotoMakerEncode.execute(net, image, clip.clone(), text).args[0]
        assert len(out) == 1 and list(out[0][1]) == ["pooled_output"]
        lines = [text[k:k + 80] for k in range(0, len(text), 80)]
        print("    {" + "\n     ".join('"' + x + '"' for x in lines) + f",\n     {place},")
        sums = [encode_nodes.sums(t) for t in (out[0][0], out[0][0][:, place:place + 1], out[0][1]["pooled_output"])]
        print("     " + ",\n     ".join(sums) + "},")
    print("};")


if __name__ == "__main__":
    main()
