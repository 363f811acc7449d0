# SPDX-License-Identifier: Apache-2.0
"""Record ComfyUI's picture and mask nodes on small made-up pictures.

    python comfy_pictures.py COMFYUI_FOLDER > tests/golden/comfy/pictures.json

Needs torch, scipy, Pillow 11.3 (12 and later resize in another order of passes), kornia 0.8.1 (later ones thin
edges differently) and a ComfyUI 0.3.64 checkout; modules that only other parts of ComfyUI use may be missing.

A case is {node, inputs, outputs}. An input {"type", "shape", "salt"} is a picture [b, h, w, c] or a mask [b, h, w]
whose value i is ((7 i i + 37 i + 11 salt) mod 97) / 96; "values" lists them where others are needed; a list of
inputs is a list on the link. An output holds type, shape and values with seven digits.
"""
import asyncio
import json
import sys
import unittest.mock

for absent in ("torchvision", "torchvision.transforms", "server", "aiohttp", "spandrel", "kornia_rs"):
    try:
        __import__(absent)
    except ImportError:
        sys.modules[absent] = unittest.mock.MagicMock()

import comfyui  # noqa: E402

VERSION = comfyui.enable(sys.argv[1])

import PIL  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
import nodes  # noqa: E402
from comfy_extras import (  # noqa: E402
    nodes_canny, nodes_compositing, nodes_flux, nodes_images, nodes_mask, nodes_morphology, nodes_post_processing,
    nodes_rebatch)

CLASSES = {}
for module in (nodes, nodes_compositing, nodes_flux, nodes_images, nodes_mask):
    CLASSES.update(module.NODE_CLASS_MAPPINGS)
for module in (nodes_canny, nodes_morphology, nodes_post_processing, nodes_rebatch):
    for cls in asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list()):
        CLASSES[cls.define_schema().node_id] = cls


def tensor(spec):
    n = 1
    for side in spec["shape"]:
        n *= side
    if "values" in spec:
        return torch.tensor(spec["values"], dtype=torch.float32).reshape(spec["shape"])
    i = torch.arange(n, dtype=torch.int64)
    v = ((i * i * 7 + i * 37 + 11 * spec["salt"]) % 97).to(torch.float32) / 96
    return v.reshape(spec["shape"])


def image(b, h, w, c=3, salt=1):
    return {"type": "IMAGE", "shape": [b, h, w, c], "salt": salt}


def mask(b, h, w, salt=2):
    return {"type": "MASK", "shape": [b, h, w], "salt": salt}


def smooth(h, w):
    """A disc and a bar on a ramp: edges that a detector can find."""
    y, x = torch.meshgrid(torch.arange(h).float(), torch.arange(w).float(), indexing="ij")
    disc = torch.sigmoid(4.3 - torch.sqrt((y - 8.2) ** 2 + (x - 7.6) ** 2))
    bar = torch.sigmoid(x + 0.43 * y - w * 0.93)
    v = torch.stack((0.8 * disc + 0.1 * x / w, 0.5 * disc + 0.4 * bar, 0.7 * bar + 0.2 * y / h), -1)
    return {"type": "IMAGE", "shape": [1, h, w, 3], "values": [round(t, 6) for t in v.flatten().tolist()]}


def run(name, inputs):
    args = {}
    for key, v in inputs.items():
        if isinstance(v, list):
            args[key] = [tensor(t) if isinstance(t, dict) else t for t in v]
        else:
            args[key] = tensor(v) if isinstance(v, dict) else v
    cls = CLASSES[name]
    if hasattr(cls, "define_schema"):
        out = cls.execute(**args).result
    else:
        out = getattr(cls(), cls.FUNCTION)(**args)
    outputs = []
    for v in out:
        if isinstance(v, int):
            outputs.append({"type": "INT", "value": v})
            continue
        for t in v if isinstance(v, list) else [v]:
            t = t.float().contiguous()
            outputs.append({"type": "IMAGE" if t.ndim == 4 else "MASK", "shape": list(t.shape),
                            "values": [float("%.7g" % x) for x in t.flatten().tolist()]})
    return {"node": name, "inputs": inputs, "outputs": outputs}


def batches():
    yield "EmptyImage", dict(width=3, height=2, batch_size=2, color=0x4080FE)
    yield "GetImageSize", dict(image=image(2, 3, 5))
    yield "ImageInvert", dict(image=image(2, 2, 3))
    yield "ImageBatch", dict(image1=image(1, 3, 4), image2=image(2, 3, 4, salt=5))
    yield "ImageBatch", dict(image1=image(1, 3, 4), image2=image(1, 6, 5, salt=5))
    yield "RepeatImageBatch", dict(image=image(2, 2, 2), amount=3)
    yield "ImageFromBatch", dict(image=image(4, 2, 2), batch_index=1, length=2)
    yield "ImageFromBatch", dict(image=image(4, 2, 2), batch_index=9, length=7)
    for size in (1, 2, 3, 9):
        yield "RebatchImages", dict(images=[image(2, 2, 2), image(3, 2, 2, salt=4)], batch_size=[size])
    yield "ImageAddNoise", dict(image=image(1, 3, 4), seed=1234, strength=0.3)
    yield "ImageAddNoise", dict(image=image(1, 1, 2), seed=18446744073709551615, strength=1.0)


def moves():
    yield "ImageCrop", dict(image=image(2, 5, 6), width=3, height=2, x=1, y=2)
    yield "ImageCrop", dict(image=image(1, 5, 6, 4), width=100, height=100, x=90, y=3)
    for method in ("x-axis: vertically", "y-axis: horizontally"):
        yield "ImageFlip", dict(image=image(2, 2, 3), flip_method=method)
    for angle in ("none", "90 degrees", "180 degrees", "270 degrees"):
        yield "ImageRotate", dict(image=image(1, 2, 3), rotation=angle)
    for left, top, right, bottom, feathering in ((8, 0, 0, 16, 2), (0, 8, 8, 0, 3), (1, 2, 3, 4, 1), (0, 0, 0, 0, 2),
                                                 (2, 2, 2, 2, 40)):
        yield "ImagePadForOutpaint", dict(image=image(1, 7, 8), left=left, top=top, right=right, bottom=bottom,
                                          feathering=feathering)
    yield "ImageStitch", dict(image1=image(1, 2, 3), direction="right", match_image_size=True, spacing_width=0,
                              spacing_color="white")
    for direction, match, space, color in (("right", True, 0, "white"), ("down", True, 3, "red"),
                                           ("left", False, 2, "white"), ("up", False, 1, "green"),
                                           ("down", False, 0, "blue"), ("right", False, 2, "black")):
        yield "ImageStitch", dict(image1=image(1, 3, 4), image2=image(2, 6, 5, salt=3), direction=direction,
                                  match_image_size=match, spacing_width=space, spacing_color=color)
    yield "ImageStitch", dict(image1=image(2, 3, 4), image2=image(1, 2, 5, 4, salt=3), direction="right",
                              match_image_size=False, spacing_width=2, spacing_color="blue")


def scales():
    methods = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
    for i, method in enumerate(methods):
        yield "ImageScale", dict(image=image(1, 4, 6), upscale_method=method, width=5, height=3, crop="center")
        yield "ImageScaleBy", dict(image=image(1, 4, 3, 4), upscale_method=method, scale_by=0.5 + 0.3 * i)
        yield "ResizeAndPadImage", dict(image=image(1, 3, 5), target_width=6 + i, target_height=7, interpolation=method,
                                        padding_color=("white", "black")[i % 2])
    yield "ImageScale", dict(image=image(1, 4, 6), upscale_method="area", width=0, height=0, crop="center")
    yield "ImageScale", dict(image=image(1, 4, 6), upscale_method="area", width=0, height=3, crop="disabled")
    yield "ImageScale", dict(image=image(1, 4, 6), upscale_method="area", width=3, height=0, crop="disabled")
    for h, w in ((4, 6), (6, 4), (5, 5)):
        yield "ImageScaleToMaxDimension", dict(image=image(1, h, w), upscale_method="bilinear", largest_size=5)


def masks():
    yield "SolidMask", dict(value=0.3, width=3, height=2)
    yield "InvertMask", dict(mask=mask(2, 2, 3))
    yield "ThresholdMask", dict(mask=mask(2, 3, 3), value=0.5)
    yield "CropMask", dict(mask=mask(2, 4, 5), x=1, y=2, width=3, height=9)
    for left, top, right, bottom in ((2, 0, 0, 0), (0, 3, 0, 0), (0, 0, 3, 0), (0, 0, 0, 2), (2, 3, 1, 2), (9, 9, 9, 9)):
        yield "FeatherMask", dict(mask=mask(1, 5, 6), left=left, top=top, right=right, bottom=bottom)
    for expand in (0, 1, 2, -1, -3, 40):
        for tapered in (True, False):
            yield "GrowMask", dict(mask=mask(2 if expand == 1 else 1, 4, 6), expand=expand, tapered_corners=tapered)
    for operation in ("multiply", "add", "subtract", "and", "or", "xor"):
        yield "MaskComposite", dict(destination=mask(2, 4, 5), source=mask(1, 3, 3, salt=7), x=3, y=1,
                                    operation=operation)
    yield "MaskToImage", dict(mask=mask(2, 2, 3))
    for i, channel in enumerate(("red", "green", "blue", "alpha")):
        yield "ImageToMask", dict(image=image(1, 2, 3, 4), channel=channel)
    yield "ImageColorToMask", dict(image={"type": "IMAGE", "shape": [1, 1, 4, 3], "values": [
        1.0, 0.5, 0.25, 0.996, 0.5, 0.25, 1.2, 0.502, 0.251, 0.0, 0.0, -1.0]}, color=0xFF8040)


def composites():
    yield "SplitImageWithAlpha", dict(image=image(2, 2, 3))
    yield "SplitImageWithAlpha", dict(image=image(2, 2, 3, 4))
    yield "JoinImageWithAlpha", dict(image=image(2, 4, 3), alpha=mask(1, 2, 5))
    yield "JoinImageWithAlpha", dict(image=image(1, 4, 3, 4), alpha=mask(2, 4, 3))
    for x, y, resize in ((0, 0, False), (2, 1, False), (4, 3, False), (5, 4, False), (1, 0, True)):
        for m in (None, mask(1, 3, 2), mask(2, 2, 3)):
            case = dict(destination=image(2, 4, 5), source=image(1, 2, 3, salt=6), x=x, y=y, resize_source=resize)
            if m:
                case["mask"] = m
            yield "ImageCompositeMasked", case
    yield "ImageCompositeMasked", dict(destination=image(1, 4, 5), source=image(3, 2, 3, 4, salt=6), x=1, y=1,
                                       resize_source=False)
    for mode in nodes_compositing.PorterDuffMode:
        yield "PorterDuffImageComposite", dict(source=image(1, 3, 4), source_alpha=mask(1, 3, 4),
                                               destination=image(1, 3, 4, salt=4), destination_alpha=mask(1, 3, 4, salt=9),
                                               mode=mode.name)
    yield "PorterDuffImageComposite", dict(source=image(2, 5, 4), source_alpha=mask(3, 2, 3), mode="SRC_OVER",
                                           destination=image(2, 3, 4, salt=4), destination_alpha=mask(2, 6, 6, salt=9))


def posts():
    for mode in ("normal", "multiply", "screen", "overlay", "soft_light", "difference"):
        yield "ImageBlend", dict(image1=image(1, 3, 4), image2=image(1, 3, 4, salt=5), blend_factor=0.7, blend_mode=mode)
    yield "ImageBlend", dict(image1=image(1, 3, 4), image2=image(2, 5, 4, 4, salt=5), blend_factor=0.25,
                             blend_mode="screen")
    for radius, sigma in ((1, 1.0), (2, 0.3), (3, 10.0)):
        yield "ImageBlur", dict(image=image(1, 4, 5), blur_radius=radius, sigma=sigma)
        yield "ImageSharpen", dict(image=image(1, 4, 5), sharpen_radius=radius, sigma=sigma, alpha=0.2)
    for colors, dither in ((2, "none"), (7, "none"), (256, "none"), (5, "floyd-steinberg"), (16, "floyd-steinberg"),
                           (4, "bayer-2"), (6, "bayer-4"), (1, "bayer-8"), (9, "bayer-16")):
        yield "ImageQuantize", dict(image=image(2 if colors == 7 else 1, 9, 11), colors=colors, dither=dither)
    yield "ImageRGBToYUV", dict(image=image(1, 2, 3))
    yield "ImageYUVToRGB", dict(Y=image(1, 2, 3), U=image(1, 2, 3, 1, salt=4), V=image(1, 2, 3, 4, salt=8))
    for operation in ("erode", "dilate", "open", "close", "gradient", "bottom_hat", "top_hat"):
        for size in (3, 4) if operation in ("erode", "dilate") else (3,):
            yield "Morphology", dict(image=image(1, 6, 7), operation=operation, kernel_size=size)
    yield "Morphology", dict(image=image(1, 3, 4), operation="close", kernel_size=99)
    for low, high in ((0.1, 0.2), (0.3, 0.9)):
        yield "Canny", dict(image=smooth(18, 24), low_threshold=low, high_threshold=high)


def main():
    cases = [run(*c) for family in (batches, moves, scales, masks, composites, posts) for c in family()]
    versions = {"comfyui": VERSION, "torch": torch.__version__, "pillow": PIL.__version__}
    print(json.dumps({"versions": versions, "cases": cases}, separators=(",", ":")).replace('{"node"', '\n{"node"'))


main()
