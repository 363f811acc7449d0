# SPDX-License-Identifier: Apache-2.0
"""Record ComfyUI's nodes that make and change schedules, and what model sampling nodes make of a model.

    python sigma_nodes.py COMFYUI_FOLDER > tests/nodes/sigma_cases.h
    python sigma_nodes.py COMFYUI_FOLDER predictions > src/sample/predictions_test.h

Needs torch, scipy and a ComfyUI 0.3.64 checkout. The model behind the nodes is Flux (tests/nodes/tiny.c).
"""
import sys

import comfyui

VERSION = comfyui.enable(sys.argv[1])

import torch  # noqa: E402

torch.set_num_threads(1)
import comfy.latent_formats  # noqa: E402
import comfy.model_sampling as ms  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy_extras.nodes_align_your_steps as ays  # noqa: E402
import comfy_extras.nodes_custom_sampler as cust  # noqa: E402
import comfy_extras.nodes_gits as gits  # noqa: E402
import comfy_extras.nodes_model_advanced as adv  # noqa: E402
import comfy_extras.nodes_optimalsteps as opt  # noqa: E402


class Flux(ms.ModelSamplingFlux, ms.CONST):
    pass


class Config:
    def __init__(self, **settings):
        self.sampling_settings = settings


class Model:
    """As much of a ModelPatcher as these nodes touch."""

    def __init__(self, patches=None):
        self.patches = patches or {"model_sampling": Flux(Config()),
                                   "latent_format": comfy.latent_formats.Flux()}
        self.model, self.model_config = self, Config()

    def clone(self):
        return Model(dict(self.patches))

    def add_object_patch(self, name, value):
        self.patches[name] = value

    def get_model_object(self, name):
        if name == "process_latent_in":
            return self.patches["latent_format"].process_in
        if name == "process_latent_out":
            return self.patches["latent_format"].process_out
        return self.patches[name]


MODEL = Model()
V3 = {"AlignYourStepsScheduler": ays.AlignYourStepsScheduler,
      "OptimalStepsScheduler": opt.OptimalStepsScheduler, "GITSScheduler": gits.GITSScheduler}
S = torch.tensor
GIVEN = {"up": S([14.5, 9.25, 4.0, 1.5, 0.5, 0.0]), "none": S([]), "one": S([2.5]),
         "open": S([3.0, 2.0, 1.0])}
B = dict(sigma_max=14.614642, sigma_min=0.0291675)
DISCRETE = [dict(sampling=s, zsnr=z) for s, z in (("eps", False), ("v_prediction", True),
                                                  ("lcm", False), ("lcm", True))]


def chain(*nodes):
    """Nodes that each take the model of the one before."""
    return nodes


CASES = [
    ("KarrasScheduler", dict(steps=7, rho=7.0, **B)),
    ("KarrasScheduler", dict(steps=1, rho=7.0, **B)),
    ("KarrasScheduler", dict(steps=4, rho=2.5, sigma_max=10.0, sigma_min=0.0)),
    ("ExponentialScheduler", dict(steps=6, **B)),
    ("ExponentialScheduler", dict(steps=3, sigma_max=0.1, sigma_min=2.0)),
    ("PolyexponentialScheduler", dict(steps=6, rho=1.0, **B)),
    ("PolyexponentialScheduler", dict(steps=5, rho=0.4, **B)),
    ("PolyexponentialScheduler", dict(steps=5, rho=0.0, **B)),
    ("LaplaceScheduler", dict(steps=9, mu=0.0, beta=0.5, **B)),
    ("LaplaceScheduler", dict(steps=4, mu=1.3, beta=2.0, **B)),
    ("LaplaceScheduler", dict(steps=4, mu=0.0, beta=0.5, sigma_max=0.1, sigma_min=0.7)),
    ("VPScheduler", dict(steps=6, beta_d=19.9, beta_min=0.1, eps_s=0.001)),
    ("VPScheduler", dict(steps=3, beta_d=3.0, beta_min=0.0, eps_s=0.5)),
    ("AlignYourStepsScheduler", dict(model_type="SD1", steps=10, denoise=1.0)),
    ("AlignYourStepsScheduler", dict(model_type="SDXL", steps=10, denoise=0.45)),
    ("AlignYourStepsScheduler", dict(model_type="SDXL", steps=7, denoise=1.0)),
    ("AlignYourStepsScheduler", dict(model_type="SVD", steps=14, denoise=0.5)),
    ("AlignYourStepsScheduler", dict(model_type="SD1", steps=1, denoise=1.0)),
    ("AlignYourStepsScheduler", dict(model_type="SD1", steps=10, denoise=0.02)),
    ("AlignYourStepsScheduler", dict(model_type="SD1", steps=10, denoise=0.0)),
    ("OptimalStepsScheduler", dict(model_type="FLUX", steps=10, denoise=1.0)),
    ("OptimalStepsScheduler", dict(model_type="Wan", steps=12, denoise=0.75)),
    ("OptimalStepsScheduler", dict(model_type="Chroma", steps=5, denoise=1.0)),
    ("GITSScheduler", dict(coeff=0.8, steps=2, denoise=1.0)),
    ("GITSScheduler", dict(coeff=1.2, steps=10, denoise=1.0)),
    ("GITSScheduler", dict(coeff=1.15, steps=20, denoise=0.3)),
    ("GITSScheduler", dict(coeff=1.5, steps=17, denoise=1.0)),
    ("GITSScheduler", dict(coeff=0.95, steps=26, denoise=0.5)),
    ("SDTurboScheduler", dict(model="@ms", steps=4, denoise=1.0),
     ("ModelSamplingDiscrete", DISCRETE[0])),
    ("SDTurboScheduler", dict(model="@ms", steps=10, denoise=0.55),
     ("ModelSamplingDiscrete", DISCRETE[1])),
    ("SDTurboScheduler", dict(model="@ms", steps=2, denoise=0.0),
     ("ModelSamplingDiscrete", DISCRETE[0])),
    ("BetaSamplingScheduler", dict(model="@m", steps=6, alpha=0.6, beta=0.6)),
    ("BetaSamplingScheduler", dict(model="@ms", steps=5, alpha=1.7, beta=0.4),
     ("ModelSamplingDiscrete", DISCRETE[0])),
    ("SplitSigmas", dict(sigmas="@up", step=2)),
    ("SplitSigmas", dict(sigmas="@up", step=9)),
    ("SplitSigmas", dict(sigmas="@none", step=1)),
    ("SplitSigmasDenoise", dict(sigmas="@up", denoise=0.5)),
    ("SplitSigmasDenoise", dict(sigmas="@up", denoise=0.0)),
    ("SplitSigmasDenoise", dict(sigmas="@up", denoise=1.0)),
    ("SplitSigmasDenoise", dict(sigmas="@none", denoise=1.0)),
    ("FlipSigmas", dict(sigmas="@up")),
    ("FlipSigmas", dict(sigmas="@open")),
    ("FlipSigmas", dict(sigmas="@none")),
    ("SetFirstSigma", dict(sigmas="@up", sigma=136.0)),
    ("ExtendIntermediateSigmas", dict(sigmas="@up", steps=3, start_at_sigma=-1.0,
                                      end_at_sigma=2.0, spacing="linear")),
    ("ExtendIntermediateSigmas", dict(sigmas="@up", steps=4, start_at_sigma=9.25,
                                      end_at_sigma=4.0, spacing="cosine")),
    ("ExtendIntermediateSigmas", dict(sigmas="@up", steps=2, start_at_sigma=5.0,
                                      end_at_sigma=0.0, spacing="sine")),
    ("ExtendIntermediateSigmas", dict(sigmas="@none", steps=2, start_at_sigma=-1.0,
                                      end_at_sigma=0.0, spacing="sine")),
]
PATCHES = [("ModelSamplingDiscrete", d) for d in DISCRETE] + [
    ("ModelSamplingSD3", dict(shift=3.0)),
    ("ModelSamplingAuraFlow", dict(shift=1.73)),
    ("ModelSamplingFlux", dict(max_shift=1.3, base_shift=0.4, width=832, height=1216)),
    ("ModelSamplingContinuousEDM", dict(sampling="v_prediction", sigma_max=120.0, sigma_min=0.002)),
    ("ModelSamplingContinuousEDM", dict(sampling="edm", sigma_max=80.0, sigma_min=0.01)),
    ("ModelSamplingContinuousEDM", dict(sampling="cosmos_rflow", sigma_max=80.0, sigma_min=0.002)),
    ("ModelSamplingContinuousV", dict(sampling="v_prediction", sigma_max=500.0, sigma_min=0.03)),
]
# sgm_uniform and normal go through sigma(timestep); of Cosmos they land on its pole
for p in PATCHES:
    for name in ("simple", "sgm_uniform", "beta", "ddim_uniform"):
        if p[1].get("sampling") != "cosmos_rflow" or name in ("simple", "beta"):
            CASES.append(("BasicScheduler", dict(model="@ms", scheduler=name, steps=5, denoise=1.0), p))
PERCENTS = [("@m", 0.0, False, None), ("@m", 0.0, True, None), ("@m", 1.0, True, None),
            ("@m", 0.35, True, None)] + [("@ms", x, t, p) for p in PATCHES
                                        for x, t in ((0.0, False), (0.3, False), (1.0, True))]


def find(name):
    for m in (cust.NODE_CLASS_MAPPINGS, adv.NODE_CLASS_MAPPINGS):
        if name in m:
            return m[name]
    return V3[name]


def run(name, inputs, patch=None):
    def given(v):
        if v == "@ms":
            return run(*patch)[0]
        if v == "@m":
            return MODEL
        return GIVEN[v[1:]] if isinstance(v, str) and v.startswith("@") else v
    if name.startswith("ModelSampling"):
        inputs = dict(model=MODEL, **inputs)
    values = {k: given(v) for k, v in inputs.items()}
    cls = find(name)
    if name in V3:
        return cls.execute(**values).result
    return getattr(cls(), cls.FUNCTION)(**values)


def literal(v):
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, str):
        return f"['{v[1:]}',0]" if v.startswith("@") else f"'{v}'"
    return repr(v)


def node(key, name, inputs):
    body = ",".join(f"'{k}':{literal(v)}" for k, v in inputs.items())
    return f"'{key}':{{'class_type':'{name}','inputs':{{{body}}}}}"


def graph(name, inputs, patch=None):
    text = node("t", name, inputs)
    return text if not patch else node("ms", patch[0], dict(model="@m", **patch[1])) + "," + text


def numbers(t):
    return "{%s}" % (", ".join("%.9g" % v for v in t.tolist()) or "0")


def print_cases():
    print("static const sigma_case sigma_cases[] = {")
    for c in CASES:
        for slot, t in enumerate(run(*c)):
            print(f'    {{"{graph(*c)}", {slot}, {t.numel()}, {numbers(t)}}},')
    print("};\n\nstatic const percent_case percent_cases[] = {")
    for m, x, actual, patch in PERCENTS:
        inputs = dict(model=m, sampling_percent=x, return_actual_sigma=actual)
        v = run("SamplingPercentToSigma", inputs, patch)[0]
        print(f'    {{"{graph("SamplingPercentToSigma", inputs, patch)}", {float(v)!r}}},')
    print("};\n\n// AddNoise of RandomNoise(5) to latents of sin(0.37 i) * 2, [1, 16, 2, 3]")
    print("static const noise_case noise_cases[] = {")
    x = (torch.sin(torch.arange(96, dtype=torch.float64) * 0.37) * 2).float().reshape(1, 16, 2, 3)
    for key, latent, patch in (("up", x, None), ("one", x * 0, None),
                               ("open", x, ("ModelSamplingDiscrete", DISCRETE[0]))):
        m = run(*patch)[0] if patch else MODEL
        out = cust.AddNoise().add_noise(m, cust.Noise_RandomNoise(5), GIVEN[key],
                                        {"samples": latent})[0]["samples"].reshape(-1)
        text = node("ms", patch[0], dict(model="@m", **patch[1])) + "," if patch else ""
        text += node("t", "AddNoise", dict(model="@ms" if patch else "@m", noise="@no",
                                           sigmas="@" + key,
                                           latent_image="@x" if latent.any() else "@z"))
        print(f'    {{"{text}", {numbers(out[::19])}}},')
    print("};")


def print_predictions():
    """x0, scaled input and noised latent of every prediction type, as numbers for one value each."""
    def both(base, kind, **parameters):
        class Sampling(base, kind):
            pass
        s = Sampling(Config(**parameters.pop("settings", {})))
        if parameters:
            s.set_parameters(**parameters)
        return s
    D, E, V = ms.ModelSamplingDiscrete, ms.ModelSamplingContinuousEDM, ms.ModelSamplingContinuousV
    edm = dict(sigma_min=0.002, sigma_max=120.0)
    kinds = [
        ("eps", both(D, ms.EPS)), ("v", both(D, ms.V_PREDICTION)), ("x0", both(D, ms.X0)),
        ("img_to_img", both(D, ms.IMG_TO_IMG)),
        ("lcm", both(adv.ModelSamplingDiscreteDistilled, adv.LCM)),
        ("edm", both(E, ms.EDM, sigma_data=0.5, **edm)),
        ("v_edm", both(E, ms.V_PREDICTION, sigma_data=1.0, **edm)),
        ("v_continuous", both(V, ms.V_PREDICTION, sigma_data=1.0, sigma_min=0.03, sigma_max=500.0)),
        ("cosmos", both(ms.ModelSamplingCosmosRFlow, ms.COSMOS_RFLOW, sigma_data=1.0, **edm)),
        ("flow", both(ms.ModelSamplingDiscreteFlow, ms.CONST, shift=3.0)),
        ("cosine", both(D, ms.EPS, settings=dict(beta_schedule="cosine"))),
        ("sqrt_linear", both(D, ms.EPS, settings=dict(beta_schedule="sqrt_linear"))),
        ("sqrt", both(D, ms.EPS, settings=dict(beta_schedule="sqrt"))),
        ("zsnr", both(D, ms.EPS, settings=dict(zsnr=True))),
    ]
    x, out, latent, noise = (torch.tensor([v]) for v in (0.7, -0.3, 0.2, 1.1))
    print("static const prediction_case prediction_cases[] = {")
    for name, s in kinds:
        for sigma in (0.04, 0.9, 11.0):
            g = torch.tensor([sigma])
            v = [s.calculate_input(g, x), s.calculate_denoised(g, out, x),
                 s.noise_scaling(g, noise, latent), s.noise_scaling(g, noise, latent, True),
                 s.timestep(g).float()]
            print('    {"%s", %g, {%s}},' % (name, sigma, ", ".join("%.9g" % a.item() for a in v)))
    print("};\n\nstatic const table_case table_cases[] = {")
    for name, s in kinds:
        t = s.sigmas
        at = [0, 1, len(t) // 3, len(t) // 2, len(t) - 2, len(t) - 1]
        print('    {"%s", %d, {%s}},' % (name, len(t), ", ".join("%.9g" % t[i].item() for i in at)))
    print("};")


print("// SPDX-License-Identifier: Apache-2.0")
if sys.argv[2:] == ["predictions"]:
    print(f"// predictions_test.h - made by tools/golden/sigma_nodes.py from ComfyUI {VERSION}: for")
    print("// x 0.7, output -0.3, latent 0.2, noise 1.1 the network's input, x0, the latent noised, noised")
    print("// at the most, and the timestep; of each table the values 0, 1, n/3, n/2, n-2, n-1.")
    print_predictions()
else:
    print(f"// sigma_cases.h - made by tools/golden/sigma_nodes.py from ComfyUI {VERSION}: what node t")
    print("// puts out, on the model of tiny_dev.safetensors (Flux) as m.")
    print_cases()
