// SPDX-License-Identifier: Apache-2.0
// solvers_dpmpp.c - DPM-Solver++ : multistep, single step and their SDE forms.
// Idea: with lambda = half log SNR, x0 is integrated exactly against exp(lambda); the SDE forms go
// on Brownian increments so that neighbouring step counts see the same path.
// Sources: comfyui-contract section 5.6; Lu et al. 2022 (arXiv:2211.01095); CFG++
// (arXiv:2406.08070).
// Owns nothing. past[0] is the newest x0 (2m_cfg_pp: of the negative prompt).
#include <math.h>

#include "sample/solver.h"

// --- 2S ancestral --------------------------------------------------------------------------------
static at_tensor *flow_2s(at_run *r, at_tensor *x0, double s, double t)
{
    at_flow_split a = at_flow_ancestral(s, t, r->opt.eta);
    bool noisy = r->opt.eta > 0;
    // Half way in log SNR; at sigma 1 that is minus infinity, and ComfyUI takes a sigma beside it.
    double mid = s == 1 ? 0.9999 : at_sigma_of(r, 0.5 * (at_lambda(r, s) + at_lambda(r, a.down)));
    at_tensor *u = at_toward(r->o, r->x, x0, s, mid);
    at_denoised d2 = at_run_eval(r, u, mid);
    double q = a.down / s, keep = noisy ? a.keep : 1;

    return at_mix(r->o, {keep * q, r->x}, {keep * (1 - q), d2.out},
                  {noisy ? a.up * r->opt.s_noise : 0, noisy ? at_run_noise(r) : NULL});
}

at_tensor *at_step_dpmpp_2s_ancestral(at_run *r, int i)
{
    double s = r->s[i], t = r->s[i + 1];
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    if (t == 0) return d.out;
    if (at_run_is_flow(r)) return flow_2s(r, d.out, s, t);
    at_split a = at_ancestral(s, t, r->opt.eta);
    double up = a.up * r->opt.s_noise;
    if (a.down == 0) return at_mix(r->o, {1, d.out}, {up, at_run_noise(r)});
    double mid = (float)sqrt(s * a.down), q = mid / s, q2 = a.down / s;
    at_tensor *x2 = at_mix(r->o, {q, r->x}, {1 - q, d.out});
    at_denoised d2 = at_run_eval(r, x2, mid);
    return at_mix(r->o, {q2, r->x}, {1 - q2, d2.out}, {up, at_run_noise(r)});
}

at_tensor *at_step_dpmpp_2s_cfg_pp(at_run *r, int i)
{
    double s = r->s[i], t = r->s[i + 1];
    at_split a = at_ancestral(s, t, r->opt.eta);
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    if (t == 0) return d.out;
    double up = a.up * r->opt.s_noise;
    if (a.down == 0) return at_mix(r->o, {1, d.out}, {up, at_run_noise(r)});
    double mid = (float)sqrt(s * a.down), q = mid / s, q2 = a.down / s;
    at_tensor *x2 = at_mix(r->o, {q, r->x}, {1, d.out}, {-q, d.uncond});
    at_denoised d2 = at_run_eval(r, x2, mid);
    // ComfyUI reads the negative prompt's x0 half way here, not at the start.
    return at_mix(r->o, {q2, r->x}, {q2, d.out}, {-q2, d2.uncond}, {1 - q2, d2.out},
                  {up, at_run_noise(r)});
}

// --- 2M ------------------------------------------------------------------------------------------
at_tensor *at_step_dpmpp_2m(at_run *r, int i)
{
    double s = r->s[i], t = r->s[i + 1], q = t / s;
    at_denoised d = at_run_eval(r, r->x, s);
    at_tensor *x;

    at_run_report(r, i, r->x, d.out);
    if (t == 0)
        x = d.out;
    else if (!r->past_n)
        x = at_mix(r->o, {q, r->x}, {1 - q, d.out});
    else {
        double ratio = log(r->s[i - 1] / s) / log(s / t), g = (1 - q) / (2 * ratio);
        x = at_mix(r->o, {q, r->x}, {1 - q + g, d.out}, {-g, r->past[0]});
    }
    at_run_push(r, d.out);
    return x;
}

at_tensor *at_step_dpmpp_2m_cfg_pp(at_run *r, int i)
{
    double s = r->s[i], t = r->s[i + 1], q = t / s, g = 0;
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    if (r->past_n && t != 0) g = (1 - q) * log(s / t) / (2 * log(r->s[i - 1] / s));
    at_tensor *old = g != 0 ? r->past[0] : NULL;
    at_tensor *x = at_mix(r->o, {1 + g, d.out}, {-q, d.uncond}, {q, r->x}, {-g, old});
    at_run_push(r, d.uncond);
    return x;
}

// --- SDE -----------------------------------------------------------------------------------------
// In ComfyUI the middle sigma passes through f32 four times before it names a point of the path.
static double middle_sigma(const at_run *r, double lambda_s, double lambda_t, double share,
                           double *lambda_mid)
{
    float h = (float)lambda_t - (float)lambda_s, m = (float)lambda_s + (float)share * h;
    *lambda_mid = m;
    return at_sigma_of(r, m);
}

// r is where the middle evaluation lies, as a share of the step.
at_status at_begin_dpmpp_sde(at_run *r)
{
    if (r->opt.r > 0) return AT_OK;
    return at_fail(AT_EINVAL, "%s: r %g, expected above 0", r->solver->name, r->opt.r);
}

at_tensor *at_step_dpmpp_sde(at_run *r, int i)
{
    double s = r->s[i], t = r->s[i + 1], eta = r->opt.eta, share = r->opt.r, fac = 1 / (2 * share);
    bool noisy = eta > 0 && r->opt.s_noise > 0;
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    if (t == 0) return d.out;
    double ls = at_lambda(r, s), lt = at_lambda(r, t), lm;
    double mid = middle_sigma(r, ls, lt, share, &lm);
    double as = s * exp(ls), am = mid * exp(lm), at = t * exp(lt);

    at_split a = at_ancestral(exp(-ls), exp(-lm), eta);
    double q = a.down / exp(-ls); // exp(-h) with h to the lower point
    at_tensor *x2 =
        at_mix(r->o, {am / as * q, r->x}, {am * (1 - q), d.out},
               {noisy ? am * a.up * r->opt.s_noise : 0, noisy ? at_run_path(r, s, mid) : NULL});
    at_denoised d2 = at_run_eval(r, x2, mid);

    a = at_ancestral(exp(-ls), exp(-lt), eta);
    q = a.down / exp(-ls);
    double g = at * (1 - q);
    return at_mix(r->o, {at / as * q, r->x}, {g * (1 - fac), d.out}, {g * fac, d2.out},
                  {noisy ? at * a.up * r->opt.s_noise : 0, noisy ? at_run_path(r, s, t) : NULL});
}

// Noise of an SDE step of length h, and its factor.
static at_term sde_noise(at_run *r, double s, double t, double h)
{
    double eta = r->opt.eta;
    if (!(eta > 0) || !(r->opt.s_noise > 0)) return (at_term){0, NULL};
    return (at_term){t * sqrt(-expm1(-2 * h * eta)) * r->opt.s_noise, at_run_path(r, s, t)};
}

// num[0]: h of the step before.
at_tensor *at_step_dpmpp_2m_sde(at_run *r, int i)
{
    double s = r->s[i], t = r->s[i + 1], eta = r->opt.eta;
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    if (t == 0) return d.out;
    double lt = at_lambda(r, t), h = lt - at_lambda(r, s), he = h * (1 + eta), at = t * exp(lt);
    double base = -expm1(-he), g = 0;
    if (r->past_n) {
        bool heun = r->opt.solver_type[0] == 'h';
        g = at * (heun ? base / -he + 1 : 0.5 * base) * h / r->num[0];
    }
    at_term n = sde_noise(r, s, t, h);
    at_tensor *x = at_mix(r->o, {t / s * exp(-h * eta), r->x}, {at * base + g, d.out},
                          {-g, g != 0 ? r->past[0] : NULL}, n);
    at_run_push(r, d.out);
    r->num[0] = h;
    return x;
}

// num[0], num[1]: h of the last two steps.
at_tensor *at_step_dpmpp_3m_sde(at_run *r, int i)
{
    double s = r->s[i], t = r->s[i + 1], eta = r->opt.eta;
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    if (t == 0) return d.out;
    double lt = at_lambda(r, t), h = lt - at_lambda(r, s), he = h * (1 + eta), at = t * exp(lt);
    double phi2 = expm1(-he) / he + 1, phi3 = phi2 / he - 0.5;
    double k0 = at * -expm1(-he), k1 = 0, k2 = 0; // of x0 now, one and two steps ago
    if (r->past_n >= 2) {
        double r0 = r->num[0] / h, r1 = r->num[1] / h, w = r0 / (r0 + r1), v = 1 / (r0 + r1);
        // With a = (D - D1) / r0 and b = (D1 - D2) / r1: d1 = (1 + w) a - w b, d2 = v (a - b).
        double ka = at * (phi2 * (1 + w) - phi3 * v) / r0, kb = at * (-phi2 * w + phi3 * v) / r1;
        k0 += ka;
        k1 = kb - ka;
        k2 = -kb;
    } else if (r->past_n == 1) {
        k1 = -at * phi2 * h / r->num[0];
        k0 -= k1;
    }
    at_term n = sde_noise(r, s, t, h);
    at_tensor *x = at_mix(r->o, {t / s * exp(-h * eta), r->x}, {k0, d.out},
                          {k1, k1 != 0 ? r->past[0] : NULL}, {k2, k2 != 0 ? r->past[1] : NULL}, n);
    at_run_push(r, d.out);
    r->num[1] = r->num[0];
    r->num[0] = h;
    return x;
}
