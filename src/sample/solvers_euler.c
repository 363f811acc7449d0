// SPDX-License-Identifier: Apache-2.0
// solvers_euler.c - solvers of the first order, and Heun's improvements of them.
// Idea: with d = (x - x0) / sigma, an Euler step to t is a straight line: x * t/s + x0 * (1 - t/s).
// Sources: comfyui-contract section 5.6; Karras et al. 2022 (arXiv:2206.00364); CFG++
// (arXiv:2406.08070); Ho et al. 2020 (ddpm); Luo et al. 2023 (lcm); arXiv:2404.12814 (Heun++);
// openreview o2ND9v0CeK (gradient estimation). Owns nothing.
#include <math.h>

#include "sample/guidance.h"
#include "sample/solver.h"

at_tensor *at_step_euler(at_run *r, int i)
{
    const at_tensor *x = r->x;
    double s = at_churn(r, i, &x);
    at_denoised d = at_run_eval(r, x, s);

    at_run_report(r, i, x, d.out);
    return at_toward(r->o, x, d.out, s, r->s[i + 1]);
}

at_tensor *at_step_euler_ancestral(at_run *r, int i)
{
    double s = r->s[i], t = r->s[i + 1], eta = r->opt.eta;
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    if (t == 0) return d.out;
    if (at_run_is_flow(r)) {
        at_flow_split a = at_flow_ancestral(s, t, eta);
        double q = a.down / s, keep = eta > 0 ? a.keep : 1,
               up = eta > 0 ? a.up * r->opt.s_noise : 0;
        at_tensor *n = eta > 0 ? at_run_noise(r) : NULL;
        return at_mix(r->o, {keep * q, r->x}, {keep * (1 - q), d.out}, {up, n});
    }
    at_split a = at_ancestral(s, t, eta);
    if (a.down == 0) return d.out;
    double q = a.down / s;
    return at_mix(r->o, {q, r->x}, {1 - q, d.out}, {a.up * r->opt.s_noise, at_run_noise(r)});
}

// The direction comes from the negative prompt's x0, the anchor from the guided one.
at_tensor *at_step_euler_cfg_pp(at_run *r, int i)
{
    double s = r->s[i], t = r->s[i + 1];
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    if (t == 0) return d.out;
    double alpha_s = at_alpha(r, s), alpha_t = at_alpha(r, t);
    at_split a = at_ancestral(s / alpha_s, t / alpha_t, r->opt.eta);
    bool noisy = r->opt.eta > 0 && r->opt.s_noise > 0;
    double q = alpha_t * a.down / s;
    return at_mix(r->o, {alpha_t, d.out}, {q, r->x}, {-q * alpha_s, d.uncond},
                  {noisy ? alpha_t * a.up * r->opt.s_noise : 0, noisy ? at_run_noise(r) : NULL});
}

// SamplerEulerCFGpp's other version: x moves on as if its noise were that of both prompts together.
at_tensor *at_step_euler_pp(at_run *r, int i)
{
    double s = r->s[i], q = (r->s[i + 1] - s) / s;
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    return at_mix(r->o, {1 + q, r->x}, {-2 * q, d.out}, {q, d.uncond});
}

at_tensor *at_step_heun(at_run *r, int i)
{
    const at_tensor *x = r->x;
    double s = at_churn(r, i, &x), t = r->s[i + 1], h = t - s;
    at_denoised d = at_run_eval(r, x, s);

    at_run_report(r, i, x, d.out);
    at_tensor *x2 = at_toward(r->o, x, d.out, s, t);
    if (t == 0) return x2;
    at_denoised d2 = at_run_eval(r, x2, t);
    double a = h / (2 * s), b = h / (2 * t);
    return at_mix(r->o, {1 + a, x}, {-a, d.out}, {b, x2}, {-b, d2.out});
}

at_tensor *at_step_heunpp2(at_run *r, int i)
{
    const at_tensor *x = r->x;
    double s = at_churn(r, i, &x), t = r->s[i + 1], h = t - s, end = r->s[r->n], top = r->s[0];
    at_denoised d = at_run_eval(r, x, s);

    at_run_report(r, i, x, d.out);
    at_tensor *x2 = at_toward(r->o, x, d.out, s, t);
    if (t == end) return x2;
    at_denoised d2 = at_run_eval(r, x2, t);
    at_tensor *k = at_slope(r->o, x, d.out, s), *k2 = at_slope(r->o, x2, d2.out, t);
    double u = r->s[i + 2]; // exists: t is not the last
    if (u == end) {
        double w2 = t / (2 * top);
        return at_mix(r->o, {1, x}, {(1 - w2) * h, k}, {w2 * h, k2});
    }
    at_tensor *x3 = at_mix(r->o, {1, x2}, {u - t, k2});
    at_denoised d3 = at_run_eval(r, x3, u);
    at_tensor *k3 = at_slope(r->o, x3, d3.out, u);
    double w2 = t / (3 * top), w3 = u / (3 * top);
    return at_mix(r->o, {1, x}, {(1 - w2 - w3) * h, k}, {w2 * h, k2}, {w3 * h, k3});
}

// In variance-preserving coordinates X = x / sqrt(1 + sigma^2).
at_tensor *at_step_ddpm(at_run *r, int i)
{
    double s = r->s[i], t = r->s[i + 1];
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    double bar = 1 / (s * s + 1), bar_t = 1 / (t * t + 1), a = bar / bar_t;
    double scale = t != 0 ? sqrt(1 + t * t) : 1, root = 1 / sqrt(a);
    double eps = root * (1 - a) / sqrt(1 - bar); // of (x - x0) / s
    double up = t > 0 ? sqrt((1 - a) * (1 - bar_t) / (1 - bar)) : 0;
    return at_mix(r->o, {scale * (root * sqrt(bar) - eps / s), r->x}, {scale * eps / s, d.out},
                  {scale * up, t > 0 ? at_run_noise(r) : NULL});
}

at_tensor *at_step_lcm(at_run *r, int i)
{
    double t = r->s[i + 1];
    at_denoised d = at_run_eval(r, r->x, r->s[i]);

    at_run_report(r, i, r->x, d.out);
    if (!(t > 0)) return d.out;
    return at_add_noise(r->o, r->ms, (float)t, at_run_noise(r), d.out, false);
}

// Euler plus a share of how the direction changed; past[0] is the last direction.
at_tensor *at_step_gradient_estimation(at_run *r, int i)
{
    bool pp = r->solver->flags & AT_SOLVER_UNCOND;
    double s = r->s[i], t = r->s[i + 1], gain = (r->opt.ge_gamma - 1) * (t - s);
    at_denoised d = at_run_eval(r, r->x, s);
    at_tensor *k = at_slope(r->o, r->x, pp ? d.uncond : d.out, s);

    at_run_report(r, i, r->x, d.out);
    at_tensor *old = r->past_n ? r->past[0] : NULL, *x;
    if (!old) gain = 0;
    if (t == 0)
        x = d.out;
    else if (pp)
        x = at_mix(r->o, {1, d.out}, {t + gain, k}, {-gain, old});
    else
        x = at_mix(r->o, {1, r->x}, {t - s + gain, k}, {-gain, old});
    at_run_push(r, k);
    return x;
}
