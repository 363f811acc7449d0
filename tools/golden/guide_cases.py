# SPDX-License-Identifier: Apache-2.0
"""Numbers of ComfyUI's own guidance (comfy/samplers.py and the nodes that patch it) on a toy network.

Usage: guide_cases.py COMFYUI_FOLDER | clang-format > tests/nodes/guide_cases.h

The toy answers raw = 0.3 m x + 0.2 n + 0.01 kind + 0.05 s x, with m and n the means of the two columns of
the row's text, kind its place among the lists, s the number of blocks that are left out. It is a
rectified-flow model (x0 = x - sigma raw) with Flux's noise levels. tests/nodes/guide_test.c has the same one.
"""
import math
import sys

import numpy
import torch

sys.path.insert(0, __file__.rsplit("/", 1)[0])
import comfyui  # noqa: E402

comfyui.enable(sys.argv[1])
import comfy.conds  # noqa: E402
import comfy.latent_formats  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.model_sampling  # noqa: E402
import comfy.patcher_extension as pe  # noqa: E402
import comfy.sampler_helpers  # noqa: E402
import comfy.samplers  # noqa: E402
from comfy_extras import (nodes_apg, nodes_cfg, nodes_custom_sampler, nodes_differential_diffusion,  # noqa: E402
                          nodes_easycache, nodes_eps, nodes_fresca, nodes_latent, nodes_lumina2, nodes_mahiro,
                          nodes_model_advanced, nodes_perpneg, nodes_sd3, nodes_slg, nodes_tcfg,
                          nodes_video_model)

torch.set_num_threads(1)
SHAPE = (2, 3, 12, 10)
COUNT = math.prod(SHAPE)


def wave(n, a, b, scale=1.0, lift=0.0):
    i = numpy.arange(n, dtype=numpy.float64)
    return torch.from_numpy((numpy.sin(a * i + b) * scale + lift).astype(numpy.float32))


def picture(k=0):
    return wave(COUNT, 0.37, 0.1 * k, 1.5).reshape(SHAPE)


def text(k):
    return wave(6, 0.7, 1.3 * k).reshape(1, 3, 2)


def mask(k):
    if k == 1:
        return wave(120, 0.31, 1, 0.5, 0.5).reshape(1, 12, 10)
    if k == 2:
        return wave(2 * 24 * 20, 0.017, 2, 0.5, 0.5).reshape(2, 24, 20)
    m = torch.zeros(1, 12, 10)
    if k == 3:
        m[0, 2:5, 1:4] = 0.75
    return m


class Sampling(comfy.model_sampling.ModelSamplingFlux, comfy.model_sampling.CONST):
    pass


class Config:
    sampling_settings = {"shift": 1.15}


class Network(torch.nn.Module):
    in_channels = 64

    def forward(self, x, t, context, transformer_options):
        return pe.WrapperExecutor.new_class_executor(
            self.answer, self,
            pe.get_all_wrappers(pe.WrappersMP.DIFFUSION_MODEL, transformer_options)
        ).execute(x, t, context, transformer_options)

    def answer(self, x, t, context, transformer_options):
        kinds = transformer_options["cond_or_uncond"]
        skipped = len(transformer_options.get("patches_replace", {}).get("dit", {}))
        m = context[:, :, 0].mean(1).reshape(-1, 1, 1, 1)
        n = context[:, :, 1].mean(1).reshape(-1, 1, 1, 1)
        k = torch.tensor(kinds).repeat_interleave(x.shape[0] // len(kinds)).reshape(-1, 1, 1, 1)
        return 0.3 * m * x + 0.2 * n + 0.01 * k + 0.05 * skipped * x


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model_sampling = Sampling(Config())
        self.diffusion_model = Network()
        self.latent_format = comfy.latent_formats.Flux()
        self.current_patcher = None

    def extra_conds(self, **kwargs):
        return {"c_crossattn": comfy.conds.CONDRegular(kwargs["cross_attn"])}

    def memory_required(self, *a, **k):
        return 0

    def apply_model(self, x, t, c_crossattn=None, control=None, transformer_options={}, **kwargs):
        # a copy, as a cast to bf16 makes one: EasyCache writes into what it is given
        given = self.model_sampling.calculate_input(t, x).clone()
        raw = self.diffusion_model(given, t, c_crossattn, transformer_options)
        return self.model_sampling.calculate_denoised(t, raw, x)


def patcher():
    m = Model()
    p = comfy.model_patcher.ModelPatcher(m, torch.device("cpu"), torch.device("cpu"))
    m.current_patcher = p
    return p


def entry(k, **d):
    if "mask" in d:
        d["mask"] = mask(d["mask"])
    return [text(k), d]


def answers(guider, sigmas, rows=slice(0, SHAPE[0])):
    """What the guider says at these sigmas, one after the other, about these latents of the batch."""
    p = guider.model_patcher
    p.model.current_patcher = p
    guider.inner_model = p.model
    guider.conds = {k: [c.copy() for c in v] for k, v in guider.original_conds.items()}
    guider.model_options = comfy.model_patcher.create_model_options_clone(p.model_options)
    comfy.sampler_helpers.prepare_model_patcher(p, guider.conds, guider.model_options)
    comfy.samplers.filter_registered_hooks_on_conds(guider.conds, guider.model_options)
    to = guider.model_options["transformer_options"]
    if "easycache" in to:
        to["easycache"] = to["easycache"].clone().prepare_timesteps(p.model.model_sampling)
    guider.conds = comfy.samplers.process_conds(p.model, picture()[rows], guider.conds, "cpu")
    out = None
    for i, s in enumerate(sigmas):
        x = picture(i)[rows]
        out = guider.outer_predict_noise(x, torch.full((x.shape[0],), s), guider.model_options)
    return out


def cfg_guider(model, positive, negative, cfg):
    g = comfy.samplers.CFGGuider(model)
    g.set_conds(positive, negative)
    g.set_cfg(cfg)
    return g


def show(name, t):
    v = t.flatten()
    picks = [float(v[(i * 89) % COUNT]) for i in range(8)]
    print("    {\"%s\", {%s}, %.9g, %.9g}," % (name, ", ".join("%#.9gf" % x for x in picks),
          float(v.double().sum()), float(v.double().square().sum())))


def lists():
    pos, neg = [entry(1)], [entry(2)]
    half = dict(start_percent=0.5)
    yield "plain", pos, neg, 3.0, 0.7
    yield "cfg 1", pos, neg, 1.0, 0.7
    yield "two texts", [entry(1), entry(3, strength=0.5)], neg, 3.0, 0.7
    yield "strength 0", [entry(1, strength=0.0)], neg, 3.0, 0.7
    yield "area", [entry(1), entry(3, area=(8, 5, 2, 3), strength=1.5)], neg, 3.0, 0.7
    yield "area to the edge", [entry(3, area=(20, 20, 4, 0))], neg, 3.0, 0.7
    yield "area in shares", [entry(1), entry(3, area=("percentage", 0.45, 0.55, 0.25, 0.35))], neg, 3.0, 0.7
    yield "areas on both sides", [entry(1), entry(3, area=(9, 9, 0, 1))], \
        [entry(2), entry(4, area=(6, 6, 1, 2))], 3.0, 0.7
    yield "mask", [entry(1), entry(3, mask=1, mask_strength=0.8)], neg, 3.0, 0.7
    yield "two masks resized", [entry(1, mask=2, strength=0.5)], [entry(2, mask=1)], 3.0, 0.7
    yield "mask bounds", [entry(1), entry(3, mask=3, set_area_to_bounds=True)], neg, 3.0, 0.7
    yield "empty mask bounds", [entry(1), entry(3, mask=4, set_area_to_bounds=True)], neg, 3.0, 0.7
    yield "mask and area", [entry(1), entry(3, mask=1, area=(8, 5, 2, 3))], neg, 3.0, 0.7
    yield "range before", [entry(1), entry(3, **half)], neg, 3.0, 0.9
    yield "range inside", [entry(1), entry(3, **half)], neg, 3.0, 0.4
    yield "range over", [entry(1), entry(3, end_percent=0.5)], neg, 3.0, 0.4
    yield "nothing holds", [entry(1, **half)], neg, 3.0, 0.9
    yield "default", [entry(1, area=(8, 8, 0, 0)), entry(3, default=True)], neg, 3.0, 0.7
    yield "default of masks", [entry(1, mask=1), entry(4, mask=1, strength=0.25), entry(3, default=True)], \
        [entry(2, mask=1), entry(5, default=True)], 3.0, 0.7
    yield "default with nothing left", [entry(1), entry(3, default=True)], neg, 3.0, 0.7


def clone_with(node, *args, **kwargs):
    out = node(*args, **kwargs)
    return (out.result if hasattr(out, "result") else out)[0]


def patched():
    pos, neg, empty = [entry(1)], [entry(2)], [entry(3)]
    m = patcher

    def one(name, model, cfg=3.0, sigmas=(0.7,), positive=pos, negative=neg):
        return name, cfg_guider(model, positive, negative, cfg), sigmas

    steps = (0.9, 0.8, 0.65, 0.5)
    yield one("RescaleCFG", nodes_model_advanced.RescaleCFG().patch(m(), 0.7)[0])
    yield one("RenormCFG", clone_with(nodes_lumina2.RenormCFG.execute, m(), 100.0, 0.5))
    yield one("RenormCFG late", clone_with(nodes_lumina2.RenormCFG.execute, m(), 0.5, 0.5))
    yield one("VideoLinear", nodes_video_model.VideoLinearCFGGuidance().patch(m(), 1.5)[0])
    yield one("VideoTriangle", nodes_video_model.VideoTriangleCFGGuidance().patch(m(), 1.5)[0])
    yield one("CFGZeroStar", clone_with(nodes_cfg.CFGZeroStar.execute, m()))
    yield one("CFGZeroStar at 1", clone_with(nodes_cfg.CFGZeroStar.execute, m()), cfg=1.0)
    yield one("CFGNorm", clone_with(nodes_cfg.CFGNorm.execute, m(), 0.9))
    yield one("Epsilon Scaling", clone_with(nodes_eps.EpsilonScaling.execute, m(), 1.1))
    yield one("APG", clone_with(nodes_apg.APG.execute, m(), 0.5, 5.0, 0.0))
    yield one("APG momentum", clone_with(nodes_apg.APG.execute, m(), 0.5, 3.0, -0.5), sigmas=steps)
    yield one("APG unbounded", clone_with(nodes_apg.APG.execute, m(), 2.0, 0.0, 0.3), sigmas=(0.5, 0.9, 0.7))
    yield one("TCFG", clone_with(nodes_tcfg.TCFG.execute, m()))
    yield one("TCFG at 1", clone_with(nodes_tcfg.TCFG.execute, m()), cfg=1.0)
    yield one("Mahiro", clone_with(nodes_mahiro.Mahiro.execute, m()))
    yield one("FreSca", clone_with(nodes_fresca.FreSca.execute, m(), 0.8, 1.25, 3))
    yield one("FreSca wide", clone_with(nodes_fresca.FreSca.execute, m(), 0.8, 1.25, 20))
    tone = nodes_latent.LatentOperationTonemapReinhard
    op = clone_with(tone.execute if hasattr(tone, "execute") else tone().op, 1.2)
    apply = nodes_latent.LatentApplyOperationCFG
    yield one("LatentApplyOperationCFG", clone_with(apply.execute if hasattr(apply, "execute") else apply().patch,
                                                    m(), op))
    slg = nodes_slg.SkipLayerGuidanceDiT().skip_guidance
    yield one("SLG", slg(m(), 2.0, 0.01, 0.9, "7, 8", "3", 0.0)[0])
    yield one("SLG rescaled", slg(m(), 2.0, 0.01, 0.9, "7, 8", "3", 0.4)[0])
    yield one("SLG outside", slg(m(), 2.0, 0.5, 0.9, "7, 8", "3", 0.4)[0], sigmas=(0.9,))
    yield one("SLG SD3", nodes_sd3.SkipLayerGuidanceSD3().skip_guidance_sd3(m(), "1x2", 3.0, 0.0, 1.0)[0])
    yield one("SLG simple", nodes_slg.SkipLayerGuidanceDiTSimple().skip_guidance(m(), 0.0, 1.0, "7", "3, 4")[0])
    yield one("PerpNeg", clone_with(nodes_perpneg.PerpNeg.execute, m(), empty, 0.8))
    yield one("two hooks", clone_with(nodes_eps.EpsilonScaling.execute,
                                      clone_with(nodes_cfg.CFGNorm.execute, m(), 1.0), 0.9))
    easy = clone_with(nodes_easycache.EasyCacheNode.execute, m(), 0.3, 0.1, 0.95, False)
    lazy = clone_with(nodes_easycache.LazyCacheNode.execute, m(), 0.3, 0.1, 0.95, False)
    for n in range(3, 8):
        yield one("EasyCache %d" % n, easy, cfg=1.0, sigmas=SLOW[:n])
        yield one("LazyCache %d" % n, lazy, sigmas=SLOW[:n])

    for style in ("regular", "nested"):
        g = nodes_custom_sampler.Guider_DualCFG(m())
        g.set_conds(pos, empty, neg)
        g.set_cfg(4.0, 2.5, nested=style == "nested")
        yield "dual " + style, g, (0.7,)
    g = nodes_custom_sampler.Guider_DualCFG(m())
    g.set_conds(pos, empty, neg)
    g.set_cfg(1.0, 1.0)
    yield "dual at 1", g, (0.7,)
    for scale, cfg in ((0.8, 3.0), (0.0, 3.0), (0.0, 1.0)):
        g = nodes_perpneg.Guider_PerpNeg(m())
        g.set_conds(pos, neg, empty)
        g.set_cfg(cfg, scale)
        yield "perp neg %g at %g" % (scale, cfg), g, (0.7,)
    g = nodes_custom_sampler.Guider_Basic(m())
    g.set_conds(pos)
    yield "basic", g, (0.7,)


SLOW = (0.98, 0.93, 0.88, 0.83, 0.78, 0.73, 0.68)


def moved_masks():
    p = patcher()
    for strength in (1.0, 0.25):
        node = clone_with(nodes_differential_diffusion.DifferentialDiffusion.execute, p, strength)
        fn = node.model_options["denoise_mask_function"]

        class Outer:
            inner_model = p.model
        for s in (0.95, 0.6):
            m = fn(torch.tensor([s]), mask(1).reshape(1, 1, 12, 10),
                   extra_options={"model": Outer, "sigmas": torch.tensor([1.0, 0.5, 0.0])})
            yield "mask %g %g" % (strength, s), m.expand(SHAPE)


def main():
    print("// SPDX-License-Identifier: Apache-2.0")
    print("// guide_cases.h - what ComfyUI 0.3.64 answers; written by tools/golden/guide_cases.py.")
    print("typedef struct guide_case {")
    print("    const char *name;\n    float picks[8]; // values i * 89 modulo their number")
    print("    double sum, squares;\n} guide_case;")
    print("static const guide_case guide_cases[] = {")
    with torch.no_grad():
        for name, pos, neg, cfg, sigma in lists():
            show(name, answers(cfg_guider(patcher(), pos, neg, cfg), (sigma,)))
        for name, guider, sigmas in patched():
            if name.startswith("Renorm"):  # takes one latent only
                show(name, torch.cat([answers(guider, sigmas, slice(i, i + 1)) for i in range(SHAPE[0])]))
            else:
                show(name, answers(guider, sigmas))
        for name, t in moved_masks():
            show(name, t)
    print("};")


main()
