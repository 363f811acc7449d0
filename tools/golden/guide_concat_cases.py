# SPDX-License-Identifier: Apache-2.0
"""What ComfyUI puts beside x for models that inpaint or follow a picture (comfy/model_base.py, concat_cond).

Usage: guide_concat_cases.py COMFYUI_FOLDER | clang-format > tests/nodes/guide_concat_cases.h
"""
import math
import sys

import numpy
import torch

sys.path.insert(0, __file__.rsplit("/", 1)[0])
import comfyui  # noqa: E402

comfyui.enable(sys.argv[1])
import comfy.latent_formats  # noqa: E402
import comfy.model_base as base  # noqa: E402


def wave(shape, a, b, scale=1.0, lift=0.0):
    i = numpy.arange(math.prod(shape), dtype=numpy.float64)
    return torch.from_numpy((numpy.sin(a * i + b) * scale + lift).astype(numpy.float32)).reshape(shape)


class Fake:
    pass


def inpaint(noise, **d):
    m = Fake()
    m.process_latent_in = comfy.latent_formats.SD15().process_in
    base.BaseModel.set_inpaint(m)
    return base.BaseModel.concat_cond(m, noise=noise, device="cpu", **d)


def follow(noise, **d):
    m = Fake()
    m.process_ip2p_image_in = lambda image: image
    return base.IP2P.concat_cond(m, noise=noise, device="cpu", **d)


def flux(channels):
    def run(noise, **d):
        m = Fake()
        m.diffusion_model, m.model_config = Fake(), Fake()
        m.diffusion_model.patch_size = 2
        m.diffusion_model.img_in = Fake()
        m.diffusion_model.img_in.weight = torch.zeros(1, channels * 4)
        m.model_config.unet_config = {"out_channels": 16}
        m.process_latent_in = comfy.latent_formats.Flux().process_in
        return base.Flux.concat_cond(m, noise=noise, device="cpu", **d)
    return run


def main():
    sd, fl = torch.zeros(2, 4, 6, 5), torch.zeros(2, 16, 6, 5)
    small, other = wave((1, 4, 6, 5), 0.3, 0), wave((3, 4, 8, 12), 0.11, 1)
    mask, masks = wave((1, 1, 48, 40), 0.05, 0, 0.5, 0.5), wave((3, 1, 30, 20), 0.03, 1, 0.5, 0.5)
    wide = wave((1, 16, 9, 7), 0.07, 0.5)
    fit = wave((2, 1, 6, 5), 0.4, 0, 0.5, 0.5)
    process = comfy.latent_formats.SD15().process_in
    cases = [
        ("inpaint", inpaint, sd, dict(concat_latent_image=small, concat_mask=mask)),
        ("inpaint resized", inpaint, sd, dict(concat_latent_image=other, concat_mask=masks)),
        ("inpaint nothing", inpaint, sd, dict(latent_image=process(small))),
        ("inpaint noise mask", inpaint, sd, dict(latent_image=process(wave((2, 4, 6, 5), 0.3, 0)),
                                                 denoise_mask=fit.repeat(1, 4, 1, 1))),
        ("ip2p", follow, sd, dict(concat_latent_image=other)),
        ("ip2p nothing", follow, sd, {}),
        ("canny", flux(32), fl, dict(concat_latent_image=wide)),
        ("canny nothing", flux(32), fl, {}),
        ("fill", flux(96), fl, dict(concat_latent_image=wide, concat_mask=masks)),
        ("fill noise mask", flux(96), fl, dict(denoise_mask=fit.repeat(1, 16, 1, 1))),
        ("fill nothing", flux(96), fl, {}),
    ]
    print("// SPDX-License-Identifier: Apache-2.0")
    print("// guide_concat_cases.h - what ComfyUI 0.3.64 puts beside x; by tools/golden/guide_concat_cases.py.")
    print("typedef struct concat_case {\n    const char *name;\n    int64_t channels;")
    print("    float picks[8]; // values i * 97 modulo their number\n    double sum, squares;\n} concat_case;")
    print("static const concat_case concat_cases[] = {")
    for name, fn, noise, d in cases:
        t = fn(noise, **d)
        v = t.flatten()
        print("    {\"%s\", %d, {%s}, %.9g, %.9g}," % (
            name, t.shape[1], ", ".join("%#.9gf" % float(v[i * 97 % len(v)]) for i in range(8)),
            float(v.double().sum()), float(v.double().square().sum())))
    print("};")


main()
