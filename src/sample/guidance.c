// SPDX-License-Identifier: Apache-2.0
// guidance.c - prediction types and classifier-free guidance.
// Idea: every prediction type is a pair of numbers, x0 = a * x + b * out, and noising another pair.
// Source: comfyui-contract section 5.2; Karras et al. 2022 (preconditioning); Salimans & Ho 2022
// (v); Luo et al. 2023, arXiv:2310.04378 (lcm).
// Owns nothing.
#include <math.h>

#include "sample/guidance.h"
#include "sample/sigmas.h"

static at_tensor *mix2(at_ops *o, double a, const at_tensor *x, double b, const at_tensor *y)
{
    const float coef[2] = {(float)a, (float)b};
    const at_tensor *const in[2] = {x, y};
    return at_lincomb(o, 2, coef, in);
}

static at_tensor *scaled(at_ops *o, double a, const at_tensor *x)
{
    const float coef = (float)a;
    return at_lincomb(o, 1, &coef, &x);
}

at_tensor *at_cfg(at_ops *o, const at_tensor *cond, const at_tensor *uncond, double scale)
{
    if (!uncond) return scaled(o, 1, cond);
    return mix2(o, scale, cond, 1 - scale, uncond);
}

// Python's math.isclose(scale, 1.0): relative to the larger of the two.
bool at_cfg_needs_uncond(double scale, bool want_uncond)
{
    return want_uncond || !(fabs(scale - 1) <= 1e-9 * fmax(fabs(scale), 1));
}

// Spread of the data that the network was trained on; 0 in a zeroed struct means 1.
static double data_scale(const at_model_sampling *m)
{
    return m->sigma_data > 0 ? m->sigma_data : 1;
}

at_tensor *at_model_input(at_ops *o, const at_model_sampling *m, const at_tensor *x, float sigma)
{
    double s = sigma, d = data_scale(m);

    switch (m->prediction) {
    case AT_PRED_CONST:
    case AT_PRED_IMG_TO_IMG: return (at_tensor *)x;
    case AT_PRED_EPS:
    case AT_PRED_V:
    case AT_PRED_EDM:
    case AT_PRED_LCM:
    case AT_PRED_X0: return scaled(o, 1 / sqrt(s * s + d * d), x);
    case AT_PRED_COSMOS_RFLOW: return scaled(o, 1 / (s + 1), x);
    }
    return at_ops_poison(o, AT_EINVAL, "unknown prediction type %d", (int)m->prediction);
}

// Between x and the picture that eps gives: at small timesteps x itself (Luo et al. 2023).
static at_tensor *lcm_x0(at_ops *o, const at_model_sampling *m, const at_tensor *x,
                         const at_tensor *out, float sigma)
{
    const double data = 0.5;
    double t = (double)at_sigma_to_timestep(m, sigma) * 10, power = t * t + data * data;
    double keep = data * data / power, give = t / sqrt(power);
    return mix2(o, keep + give, x, -give * (double)sigma, out);
}

at_tensor *at_model_x0(at_ops *o, const at_model_sampling *m, const at_tensor *x,
                       const at_tensor *out, float sigma)
{
    double s = sigma, d = data_scale(m), power = s * s + d * d;

    switch (m->prediction) {
    case AT_PRED_EPS:
    case AT_PRED_CONST: return mix2(o, 1, x, -s, out);
    case AT_PRED_V: return mix2(o, d * d / power, x, -s * d / sqrt(power), out);
    case AT_PRED_EDM: return mix2(o, d * d / power, x, s * d / sqrt(power), out);
    case AT_PRED_X0:
    case AT_PRED_IMG_TO_IMG: return (at_tensor *)out;
    case AT_PRED_LCM: return lcm_x0(o, m, x, out, sigma);
    case AT_PRED_COSMOS_RFLOW: return mix2(o, 1 / (s + 1), x, -s / (s + 1), out);
    }
    return at_ops_poison(o, AT_EINVAL, "unknown prediction type %d", (int)m->prediction);
}

at_tensor *at_add_noise(at_ops *o, const at_model_sampling *m, float sigma, const at_tensor *noise,
                        const at_tensor *latent, bool all_noise)
{
    double s = sigma;

    if (m->prediction == AT_PRED_CONST) return mix2(o, s, noise, 1 - s, latent);
    if (m->prediction == AT_PRED_COSMOS_RFLOW) all_noise = false;
    return mix2(o, all_noise ? sqrt(1 + s * s) : s, noise, 1, latent);
}

at_tensor *at_unscale_noise(at_ops *o, const at_model_sampling *m, float sigma, at_tensor *x)
{
    if (m->prediction != AT_PRED_CONST || sigma == 0) return x;
    if (sigma == 1)
        return at_ops_poison(o, AT_EINVAL,
                             "sampling ends at sigma 1: nothing but noise is left, and the latent "
                             "cannot be scaled back; end at a lower sigma");
    return scaled(o, 1 / (1 - (double)sigma), x);
}

bool at_is_max_denoise(const at_model_sampling *m, float first_sigma)
{
    double most = at_sigma_max(m), s = first_sigma;
    return s > most || fabs(most - s) <= 1e-5 * fmax(fabs(most), fabs(s));
}
