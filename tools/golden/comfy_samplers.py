# SPDX-License-Identifier: Apache-2.0
"""Record ComfyUI's samplers, with options, masks and latents, on the toy denoiser of samplers.json.

    python comfy_samplers.py COMFYUI_FOLDER > tests/golden/comfy/samplers_more.json

Needs torch, scipy, torchsde and a ComfyUI 0.3.64 checkout; modules that only other parts of ComfyUI use may
be missing. Numbers are torch's on this machine: compare them with a tolerance.
"""
import json
import sys
import unittest.mock

for absent in ("torchvision", "torchvision.transforms"):
    try:
        __import__(absent)
    except ImportError:
        sys.modules[absent] = unittest.mock.MagicMock()

import comfyui  # noqa: E402

VERSION = comfyui.enable(sys.argv[1])

import comfy.k_diffusion.sampling as kd  # noqa: E402
import comfy.model_sampling as ms  # noqa: E402
import comfy.samplers as cs  # noqa: E402
import comfy_extras.nodes_advanced_samplers as adv  # noqa: E402
import torch  # noqa: E402

SHAPE, SEED, CFG = [1, 4, 2, 2], 1234, 2.0
EPS = [12.0, 7.0, 4.0, 2.0, 1.0, 0.4, 0.12, 0.0]
EPS_TOP = [14.614643096923828, 6.0, 2.5, 0.9, 0.3, 0.0]
EPS_OPEN = [9.0, 5.0, 2.0, 0.8]
FLOW = [1.0, 0.93, 0.82, 0.7, 0.5, 0.3, 0.12, 0.0]
FLOW_PART = [0.8, 0.6, 0.45, 0.2, 0.0]
FLOW_OPEN = [1.0, 0.9, 0.75, 0.5]


class Sampling(ms.ModelSamplingDiscrete, ms.EPS):
    pass


class Flow(ms.ModelSamplingDiscreteFlow, ms.CONST):
    pass


class Model:
    """What a sampler sees as model.inner_model (guider) and .inner_model.inner_model (model)."""

    def __init__(self, sampling):
        self.model_sampling, self.inner_model, self.model_patcher = sampling, self, self

    def get_model_object(self, name):
        return getattr(self, name)

    def scale_latent_inpaint(self, sigma, noise, latent_image, **_):
        return self.model_sampling.noise_scaling(sigma, noise, latent_image)

    def __call__(self, x, sigma, model_options={}, seed=None):
        i = torch.arange(x.numel(), dtype=torch.float32).reshape(x.shape)
        s = sigma.reshape(-1, *[1] * (x.ndim - 1))
        cond, uncond = (0.9 * torch.sin(0.37 * i + p) + 0.1 * torch.tanh(x / torch.sqrt(1 + s * s)) for p in (0.0, 0.5))
        out = uncond + (cond - uncond) * CFG
        for hook in model_options.get("sampler_post_cfg_function", []):
            out = hook({"denoised": out, "uncond_denoised": uncond})
        return out


def record(name, kind, sigmas, options=None, latent=False, mask=False):
    sampling = Sampling() if kind == "eps" else Flow()
    if kind == "flow3":
        sampling.set_parameters(shift=3.0)
    options = options or {}
    native = dict(options)
    if name == "er_sde" and "solver_type" in native:
        power = native.pop("eta", 1.0) + 1
        if native.pop("solver_type") == "ODE":
            power, native["s_noise"] = 1.0, 0.0
        native["noise_scaler"] = lambda v: v ** power
    if name.startswith("sa_solver") and "eta" in native:
        start, end = (sampling.percent_to_sigma(native.pop(k)) for k in ("sde_start_percent", "sde_end_percent"))
        native["tau_func"] = kd.sa_solver.get_tau_interval_func(start, end, eta=native.pop("eta"))
    sampler = cs.KSAMPLER(adv.sample_euler_pp) if name == "euler_pp" else cs.sampler_object(name)
    sampler.extra_options = native
    torch.manual_seed(SEED)
    noise = torch.randn(SHAPE)
    i = torch.arange(noise.numel(), dtype=torch.float32).reshape(SHAPE)
    base = torch.cos(0.9 * i) if latent else torch.zeros(SHAPE)
    known = (i % 4) / 3 if mask else None
    out = sampler.sample(Model(sampling), torch.tensor(sigmas), {"seed": SEED, "model_options": {}}, None, noise, base,
                         known, True)
    return {"sampler": name, "model": kind, "sigmas": sigmas, "options": options, "latent": latent, "mask": mask,
            "result": [float("%.9g" % v) for v in out.flatten()]}


def cases():
    names = cs.SAMPLER_NAMES
    for name in names:
        yield name, "flow3", FLOW, {}
        yield name, "flow1", FLOW_PART, {}, True
        yield name, "eps", EPS_TOP, {}, True, True
        yield name, "flow3", FLOW, {}, True, True
        if name not in ("dpm_adaptive", "dpm_fast"):
            yield name, "eps", EPS_OPEN, {}
            yield name, "flow3", FLOW_OPEN, {}, True
    for name in names:
        if "ancestral" in name or name in ("dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde", "seeds_2", "seeds_3"):
            for kind, sigmas in (("eps", EPS), ("flow3", FLOW)):
                yield name, kind, sigmas, {"eta": 0.6, "s_noise": 1.1}
                yield name, kind, sigmas, {"eta": 0.0}
    for kind, sigmas in (("eps", EPS), ("flow3", FLOW)):
        for name in ("dpmpp_sde", "seeds_2"):
            yield name, kind, sigmas, {"r": 0.7}
        yield "dpmpp_2m_sde", kind, sigmas, {"solver_type": "heun"}
        yield "lms", kind, sigmas, {"order": 2}
        yield "lms", kind, sigmas, {"order": 6}
        yield "gradient_estimation", kind, sigmas, {"ge_gamma": 3.0}
        for stage in (1, 2):
            yield "er_sde", kind, sigmas, {"max_stage": stage}
        yield "er_sde", kind, sigmas, {"solver_type": "Reverse-time SDE", "eta": 0.5, "s_noise": 0.9}
        yield "er_sde", kind, sigmas, {"solver_type": "ODE", "eta": 0.0}
        for name in ("sa_solver", "sa_solver_pece"):
            yield name, kind, sigmas, {"simple_order_2": True, "predictor_order": 2, "corrector_order": 2}
            yield name, kind, sigmas, {"predictor_order": 1, "corrector_order": 0}
            yield name, kind, sigmas, {"predictor_order": 5, "corrector_order": 6}
            yield name, kind, sigmas, {"eta": 0.5, "sde_start_percent": 0.1, "sde_end_percent": 0.9, "s_noise": 1.1}
        for name in ("euler", "heun", "dpm_2", "heunpp2"):
            yield name, kind, sigmas, {"s_churn": 1.5, "s_noise": 1.02}
        yield "euler", kind, sigmas, {"s_churn": 9.0, "s_tmin": 0.3, "s_tmax": 5.0}
    yield "dpm_adaptive", "flow1", FLOW_PART, {"order": 2, "rtol": 0.1, "pcoeff": 0.2, "dcoeff": 0.1}
    yield "euler_pp", "flow3", FLOW, {}, True
    yield "euler_pp", "eps", EPS, {}
    yield "euler_pp", "eps", EPS_OPEN, {}, True, True
    yield "dpm_adaptive", "flow1", FLOW_PART, {"eta": 0.5, "h_init": 0.1, "s_noise": 0.9}


if __name__ == "__main__":
    rows = []
    for case in cases():
        with torch.no_grad():
            row = record(*case)
        if all(v == v for v in row["result"]):  # dpm_2_ancestral at eta 0 on a flow model is NaN in ComfyUI
            rows.append(row)
    about = "ComfyUI %s on torch %s, CPU; tools/golden/comfy_samplers.py" % (VERSION, torch.__version__)
    print('{"about": %s, "cases": [' % json.dumps(about))
    print(",\n".join(json.dumps(row) for row in rows))
    print("]}")
