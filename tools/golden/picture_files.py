# SPDX-License-Identifier: Apache-2.0
"""Make small picture files of every kind that is read, and what Pillow makes of them.

    python picture_files.py tests/golden/pictures

Needs Pillow and numpy. expected.json: per file the size, the number of frames, and the bytes of every frame as
ComfyUI gets them: exif_transpose, then RGB, then the alpha channel if there is one (hex).
"""
import io
import json
import os
import sys

import numpy as np
from PIL import Image, ImageOps, ImageSequence

FOLDER = sys.argv[1]


def pixels(w, h, c, salt=0):
    y, x = np.mgrid[0:h, 0:w]
    planes = [(x * (9 + 5 * k) + y * (17 - 3 * k) + 31 * k + 13 * salt + (x // 4 % 2) * 60) % 256 for k in range(c)]
    return np.stack(planes, -1).astype(np.uint8)


def exif(orientation):
    e = Image.Exif()
    e[0x0112] = orientation
    return e


def files():
    rgb = Image.fromarray(pixels(19, 13, 3))
    yield "rgb_444.jpg", rgb, dict(quality=90, subsampling=0)
    yield "rgb_420.jpg", rgb, dict(quality=60)
    yield "rgb_422_progressive.jpg", rgb, dict(quality=75, subsampling=1, progressive=True)
    yield "grey.jpg", rgb.convert("L"), dict(quality=80)
    yield "cmyk.jpg", rgb.convert("CMYK"), dict(quality=95)
    for o in (3, 6, 7):
        yield f"turned_{o}.jpg", rgb, dict(quality=85, exif=exif(o))
    yield "one.jpg", Image.fromarray(pixels(1, 1, 3)), {}
    rgba = Image.fromarray(pixels(11, 9, 4))
    yield "lossy.webp", rgb, dict(quality=70)
    yield "lossless.webp", rgb, dict(lossless=True)
    yield "alpha.webp", rgba, dict(quality=80)
    yield "alpha_lossless.webp", rgba, dict(lossless=True, exact=True)
    yield "turned_8.webp", rgba, dict(lossless=True, exact=True, exif=exif(8))
    frames = [Image.fromarray(pixels(10, 7, 3, k)) for k in range(3)]
    yield "animated.webp", frames[0], dict(lossless=True, save_all=True, append_images=frames[1:], duration=50)
    frames = [Image.fromarray(pixels(6, 5, 4, k)) for k in range(4)]
    yield "animated_alpha.webp", frames[0], dict(quality=80, save_all=True, append_images=frames[1:], duration=20)


def main():
    os.makedirs(FOLDER, exist_ok=True)
    expected = {}
    for name, im, options in files():
        buffer = io.BytesIO()
        im.save(buffer, "JPEG" if name.endswith("jpg") else "WEBP", **options)
        open(os.path.join(FOLDER, name), "wb").write(buffer.getvalue())
        shown = []
        alpha = False
        for frame in ImageSequence.Iterator(Image.open(os.path.join(FOLDER, name))):
            frame = ImageOps.exif_transpose(frame)
            data = np.array(frame.convert("RGB")).tobytes()
            alpha = "A" in frame.getbands()
            if alpha:
                data += np.array(frame.getchannel("A")).tobytes()
            shown.append(data.hex())
        expected[name] = {"width": frame.size[0], "height": frame.size[1], "alpha": alpha, "frames": shown}
    with open(os.path.join(FOLDER, "expected.json"), "w") as out:
        out.write(json.dumps(expected, separators=(",", ":")).replace('},"', '},\n"') + "\n")


main()
