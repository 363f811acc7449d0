# SPDX-License-Identifier: Apache-2.0
"""Record what ComfyUI's latent nodes make of fixed latents, as the table of tests/nodes/latent_test.c.

    python latent_nodes.py COMFYUI_FOLDER > tests/nodes/latent_cases.h

Needs torch and a ComfyUI 0.3.64 checkout. A result is kept as its shape and two weighted sums over all
values, which move when any value does.
"""
import math
import sys

import comfyui

VERSION = comfyui.enable(sys.argv[1])

import torch  # noqa: E402

torch.set_num_threads(1)
import comfy_extras.nodes_hunyuan as hunyuan  # noqa: E402
import comfy_extras.nodes_latent as latent  # noqa: E402
import comfy_extras.nodes_mask as mask_nodes  # noqa: E402
import comfy_extras.nodes_rebatch as rebatch  # noqa: E402
import nodes  # noqa: E402


def waves(shape, phase, scale=2.0):
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (torch.sin(i * 0.37 + phase) * scale).float().reshape(shape)


def ramp_mask(shape):
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (0.5 + 0.5 * torch.sin(i * 0.61)).float().reshape(shape)


GIVEN = {  # the same are made in latent_test.c
    "a": {"samples": waves([1, 4, 10, 12], 0.0)},
    "b": {"samples": waves([2, 4, 7, 9], 0.3)},
    "c": {"samples": waves([1, 4, 10, 12], 1.0)},
    "d": {"samples": waves([3, 4, 6, 5], 0.7), "noise_mask": ramp_mask([2, 1, 6, 5]),
          "batch_index": [5, 2, 9]},
    "e": {"samples": waves([4, 4, 3, 3], 0.1)},
    "f": {"samples": waves([4, 4, 3, 3], 2.1)},
    "g": {"samples": waves([2, 4, 6, 5], 0.2), "noise_mask": torch.ones([1, 1, 48, 40])},
    "h": {"samples": waves([1, 4, 16, 16], 0.4)},
    "i": {"samples": waves([1, 4, 4, 6], 0.9)},
    "j": {"samples": waves([2, 4, 6, 5], 1.3), "noise_mask": ramp_mask([1, 1, 6, 5])},
    "m": ramp_mask([1, 20, 24]),
    "n": ramp_mask([2, 9, 7]),
}

N, L = nodes.NODE_CLASS_MAPPINGS, latent
CASES = [
    ("LatentAdd", dict(samples1="@a", samples2="@c")),
    ("LatentAdd", dict(samples1="@a", samples2="@b")),
    ("LatentAdd", dict(samples1="@d", samples2="@a")),
    ("LatentSubtract", dict(samples1="@b", samples2="@h")),
    ("LatentMultiply", dict(samples="@d", multiplier=-2.3)),
    ("LatentInterpolate", dict(samples1="@a", samples2="@c", ratio=0.3)),
    ("LatentInterpolate", dict(samples1="@a", samples2="@b", ratio=1.0)),
    ("LatentInterpolate", dict(samples1="@e", samples2="@f", ratio=0.6)),
    ("LatentBlend", dict(samples1="@a", samples2="@c", blend_factor=0.25)),
    ("LatentBlend", dict(samples1="@i", samples2="@h", blend_factor=0.6)),
    ("LatentConcat", dict(samples1="@a", samples2="@c", dim="x")),
    ("LatentConcat", dict(samples1="@a", samples2="@c", dim="-y")),
    ("LatentConcat", dict(samples1="@d", samples2="@g", dim="t")),
    ("LatentCut", dict(samples="@a", dim="x", index=3, amount=4)),
    ("LatentCut", dict(samples="@a", dim="y", index=-4, amount=9)),
    ("LatentCut", dict(samples="@d", dim="t", index=50, amount=2)),
    ("LatentCut", dict(samples="@a", dim="x", index=-50, amount=2)),
    ("LatentBatch", dict(samples1="@a", samples2="@b")),
    ("LatentBatch", dict(samples1="@d", samples2="@b")),
    ("LatentBatchSeedBehavior", dict(samples="@d", seed_behavior="fixed")),
    ("LatentBatchSeedBehavior", dict(samples="@d", seed_behavior="random")),
    ("LatentBatchSeedBehavior", dict(samples="@b", seed_behavior="fixed")),
    ("LatentFromBatch", dict(samples="@d", batch_index=1, length=2)),
    ("LatentFromBatch", dict(samples="@d", batch_index=40, length=5)),
    ("LatentFromBatch", dict(samples="@g", batch_index=1, length=1)),
    ("RepeatLatentBatch", dict(samples="@d", amount=3)),
    ("RepeatLatentBatch", dict(samples="@g", amount=2)),
    ("LatentComposite", dict(samples_to="@a", samples_from="@i", x=24, y=16, feather=0)),
    ("LatentComposite", dict(samples_to="@a", samples_from="@c", x=40, y=48, feather=0)),
    ("LatentComposite", dict(samples_to="@h", samples_from="@a", x=16, y=24, feather=32)),
    ("LatentComposite", dict(samples_to="@h", samples_from="@i", x=0, y=24, feather=48)),
    ("LatentComposite", dict(samples_to="@h", samples_from="@i", x=88, y=0, feather=24)),
    ("LatentComposite", dict(samples_to="@b", samples_from="@i", x=24, y=160, feather=0)),
    ("LatentCompositeMasked", dict(destination="@a", source="@i", x=16, y=24, resize_source=False)),
    ("LatentCompositeMasked", dict(destination="@a", source="@h", x=16, y=24, resize_source=False,
                                   mask="@m")),
    ("LatentCompositeMasked", dict(destination="@d", source="@i", x=8, y=0, resize_source=True,
                                   mask="@n")),
    ("LatentCompositeMasked", dict(destination="@b", source="@d", x=700, y=8, resize_source=False,
                                   mask="@n")),
    ("LatentUpscale", dict(samples="@a", upscale_method="nearest-exact", width=128, height=72,
                           crop="disabled")),
    ("LatentUpscale", dict(samples="@a", upscale_method="bilinear", width=64, height=200,
                           crop="center")),
    ("LatentUpscale", dict(samples="@a", upscale_method="bicubic", width=0, height=120,
                           crop="disabled")),
    ("LatentUpscale", dict(samples="@b", upscale_method="bislerp", width=136, height=0,
                           crop="center")),
    ("LatentUpscale", dict(samples="@a", upscale_method="area", width=8, height=8, crop="disabled")),
    ("LatentUpscale", dict(samples="@a", upscale_method="area", width=0, height=0, crop="disabled")),
    ("LatentUpscaleBy", dict(samples="@b", upscale_method="bislerp", scale_by=1.5)),
    ("LatentUpscaleBy", dict(samples="@a", upscale_method="area", scale_by=0.45)),
    ("LatentCrop", dict(samples="@h", width=72, height=64, x=40, y=16)),
    ("LatentCrop", dict(samples="@h", width=512, height=64, x=120, y=400)),
    ("LatentCrop", dict(samples="@d", width=64, height=64, x=0, y=0)),
    ("LatentFlip", dict(samples="@a", flip_method="x-axis: vertically")),
    ("LatentFlip", dict(samples="@a", flip_method="y-axis: horizontally")),
    ("LatentRotate", dict(samples="@a", rotation="none")),
    ("LatentRotate", dict(samples="@a", rotation="90 degrees")),
    ("LatentRotate", dict(samples="@a", rotation="180 degrees")),
    ("LatentRotate", dict(samples="@a", rotation="270 degrees")),
    ("SetLatentNoiseMask", dict(samples="@b", mask="@n")),
    ("SetLatentNoiseMask", dict(samples="@d", mask="@m")),
    ("EmptyHunyuanImageLatent", dict(width=200, height=128, batch_size=2)),
    ("EmptyLatentImage", dict(width=200, height=128, batch_size=2)),
]
OPERATIONS = [
    ("LatentOperationTonemapReinhard", dict(multiplier=0.7), "@a"),
    ("LatentOperationTonemapReinhard", dict(multiplier=1.0), "@d"),
    ("LatentOperationSharpen", dict(sharpen_radius=3, sigma=1.0, alpha=0.1), "@a"),
    ("LatentOperationSharpen", dict(sharpen_radius=9, sigma=0.4, alpha=0.5), "@h"),
]
REBATCH = [("djba", 2), ("dj", 3), ("aaa", 1), ("bgg", 8), ("jd", 4)]


def find(name):
    for m in (latent.NODE_CLASS_MAPPINGS, N, mask_nodes.NODE_CLASS_MAPPINGS,
              hunyuan.NODE_CLASS_MAPPINGS):
        if name in m:
            return m[name]
    raise KeyError(name)


def given(v):
    if isinstance(v, str) and v.startswith("@"):
        g = GIVEN[v[1:]]
        return {k: x for k, x in g.items()} if isinstance(g, dict) else g
    return v


def run(name, inputs):
    cls = find(name)
    node = cls()
    return getattr(node, cls.FUNCTION)(**{k: given(v) for k, v in inputs.items()})[0]


def sums(t):
    x = t.double().reshape(-1)
    i = torch.arange(x.numel(), dtype=torch.float64)
    return (x * torch.cos(0.7 * i)).sum().item(), (x * torch.cos(0.013 * i + 1)).sum().item()


def literal(v):
    if isinstance(v, str):
        return f"['{v[1:]}',0]" if v.startswith("@") else f"'{v}'"
    return {True: "true", False: "false"}.get(v, repr(v)) if isinstance(v, bool) else repr(v)


def digest(t):
    shape = list(t.shape) + [0] * (4 - t.ndim)
    return "{{%s}, %.9g, %.9g}" % (", ".join(map(str, shape)), *sums(t))


def row(label, graph, out):
    index = ",".join(map(str, out["batch_index"])) if "batch_index" in out else ""
    mask = digest(out["noise_mask"]) if "noise_mask" in out else "{{0}, 0, 0}"
    return f'    {{"{label}",\n     "{graph}",\n     {digest(out["samples"])}, {mask}, "{index}"}},'


def node_text(name, inputs):
    body = ",".join(f"'{k}':{literal(v)}" for k, v in inputs.items())
    return f"'class_type':'{name}','inputs':{{{body}}}"


print("// SPDX-License-Identifier: Apache-2.0")
print(f"// latent_cases.h - made by tools/golden/latent_nodes.py from ComfyUI {VERSION}: node t of a")
print("// workflow, its samples' shape and weighted sums, its mask's, its batch indices.")
print("static const latent_case latent_cases[] = {")
for name, inputs in CASES:
    print(row(name, "'t':{" + node_text(name, inputs) + "}", run(name, inputs)))
for name, inputs, on in OPERATIONS:
    graph = ("'o':{" + node_text(name, inputs) + "},'t':{'class_type':'LatentApplyOperation','inputs':"
             f"{{'samples':{literal(on)},'operation':['o',0]}}}}")
    print(row(name, graph, L.LatentApplyOperation().op(given(on), run(name, inputs))[0]))
print("};\n")
print("static const rebatch_case rebatch_cases[] = {")
for names, size in REBATCH:
    out = rebatch.LatentRebatch.execute([given("@" + n) for n in names], [size]).result[0]
    rows = "\n".join(row("RebatchLatents", "", o) for o in out)
    print(f'    {{"{names}", {size}, {len(out)}, {{\n{rows}}}}},')
print("};")
