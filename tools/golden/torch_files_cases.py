# SPDX-License-Identifier: Apache-2.0
"""Files of torch.save in both formats, and what lies in them: tests/golden/torch_files, read by
src/weight/torch_file_test.c and fuzzed by tests/fuzz."""
import os
import pickle
import zipfile
from collections import OrderedDict

import torch

from case import save


class Trouble:
    def __reduce__(self):
        return (print, ("this must never run",))


def tensors():
    g = torch.Generator().manual_seed(1)
    a = torch.randn(4, 6, generator=g)
    shared = torch.arange(10, dtype=torch.int64)
    return OrderedDict([
        ("plain", a), ("turned", a.t()), ("row", a[2]), ("column", a[:, 1]), ("inner", a[1:3, 2:5]),
        ("half", a.half()), ("bf16", a.bfloat16()), ("double", a[:2].double()), ("ids", shared), ("tail", shared[7:]),
        ("bytes", torch.arange(5, dtype=torch.uint8)), ("flag", torch.tensor([True, False])),
        ("scalar", torch.tensor(2.5)), ("empty", torch.zeros(0, 3)), ("image", a.reshape(2, 2, 3, 2).permute(0, 3, 1, 2)),
    ])


def flat(prefix, sd):
    return {f"{prefix}|{k}": v.contiguous().clone() for k, v in sd.items()}


def make(root, comfyui):
    folder = os.path.join(root, "torch_files")
    os.makedirs(folder, exist_ok=True)
    path = lambda name: os.path.join(folder, name)
    sd, expected = tensors(), {}
    # A trainer's checkpoint: the tensors below "state_dict", with numbers and objects around them.
    torch.save({"epoch": 3, "global_step": 840000, "state_dict": sd, "optimizer": [1.5, None, {"x": (1, 2)}]}, path("zip.ckpt"))
    torch.save({"state_dict": sd}, path("older.ckpt"), _use_new_zipfile_serialization=False)
    expected |= flat("zip.ckpt", sd) | flat("older.ckpt", sd)
    # One dict that is the only value, as upscalers have it; parameters.
    torch.save({"params_ema": {"w": torch.nn.Parameter(sd["plain"]), "b": sd["row"]}}, path("only.pth"))
    expected |= flat("only.pth", {"w": sd["plain"], "b": sd["row"]})
    # A textual inversion.
    torch.save({"string_to_token": {"*": 265}, "string_to_param": torch.nn.ParameterDict({"*": sd["plain"]}).state_dict(),
                "name": "cat", "step": 5000, "sd_checkpoint": None}, path("embedding.pt"))
    expected |= flat("embedding.pt", {"string_to_param.*": sd["plain"]})
    # A hypernetwork: numbers as keys, pairs of state dicts.
    torch.save({"activation_func": "relu", "is_layer_norm": True, "layer_structure": [1, 2, 1],
                768: ({"linear.0.weight": sd["plain"]}, {"linear.0.weight": sd["turned"]})}, path("hyper.pt"))
    expected |= flat("hyper.pt", {"768.0.linear.0.weight": sd["plain"], "768.1.linear.0.weight": sd["turned"]})
    # What is refused: a call, an archive of something else, a compressed one.
    torch.save({"state_dict": {"w": sd["row"]}, "x": Trouble()}, path("call.pt"))
    with open(path("plain.pkl"), "wb") as f:
        pickle.dump({"a": 1}, f, protocol=2)
    with zipfile.ZipFile(path("other.zip"), "w") as z:
        z.writestr("readme.txt", "nothing")
    with zipfile.ZipFile(path("packed.zip"), "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("archive/data.pkl", "nothing " * 50)
    save(expected, path("expected.safetensors"))
