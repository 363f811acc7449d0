// SPDX-License-Identifier: Apache-2.0
// solvers_sde.c - stochastic exponential solvers: er_sde and SEEDS.
// Idea: the drift is integrated exactly in half log SNR; the noise of a step is drawn in pieces
// that stages share, each piece damped by the way that is left.
// Sources: comfyui-contract section 5.6; Cui et al. 2023 (arXiv:2309.06169, ER-SDE); Gonzalez et
// al. 2023 (arXiv:2305.14267, SEEDS). Owns nothing.
#include <math.h>
#include <string.h>

#include "sample/solver.h"

// --- ER-SDE --------------------------------------------------------------------------------------
#define ER_POINTS 200

// How much noise the SDE carries at noise-to-signal ratio v.
static double er_scale(const at_run *r, double v)
{
    if (strcmp(r->opt.solver_type, "ODE") == 0) return v;
    if (strcmp(r->opt.solver_type, "Reverse-time SDE") == 0) return pow(v, r->opt.eta + 1);
    return v * (exp(pow(v, 0.3)) + 10);
}

static double er_ratio(const at_run *r, int i)
{
    return (float)exp(-at_lambda(r, r->s[i]));
}

// Left Riemann sums over (to, from): of 1 / scale, and of (v - from) / scale.
static void er_integrals(const at_run *r, double from, double to, double *plain, double *linear)
{
    double step = (from - to) / ER_POINTS;

    *plain = *linear = 0;
    for (int k = 0; k < ER_POINTS; k++) {
        double v = to + k * step, f = 1 / er_scale(r, v);
        *plain += f * step;
        *linear += (v - from) * f * step;
    }
}

// past[0]: the last x0; slot 0: the last first difference of x0.
at_tensor *at_step_er_sde(at_run *r, int i)
{
    double s = r->s[i], t = r->s[i + 1];
    bool still = strcmp(r->opt.solver_type, "ODE") == 0 ||
                 (strcmp(r->opt.solver_type, "Reverse-time SDE") == 0 && r->opt.eta == 0);
    double s_noise = still ? 0 : r->opt.s_noise;
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    if (t == 0) return d.out;
    double from = er_ratio(r, i), to = er_ratio(r, i + 1), alpha_s = s / from, alpha_t = t / to;
    double ratio = er_scale(r, to) / er_scale(r, from), dt = to - from, plain, linear;
    double k1 = 0, k2 = 0; // of the first and second differences
    int stage = i + 1 < r->opt.max_stage ? i + 1 : r->opt.max_stage;
    at_tensor *diff = NULL, *diff2 = NULL;

    er_integrals(r, from, to, &plain, &linear);
    if (stage >= 2) {
        double w = 1 / (from - er_ratio(r, i - 1));
        diff = at_mix(r->o, {w, d.out}, {-w, r->past[0]});
        k1 = alpha_t * (dt + plain * er_scale(r, to));
    }
    if (stage >= 3 && r->slot[0]) {
        double w = 2 / (from - er_ratio(r, i - 2));
        diff2 = at_mix(r->o, {w, diff}, {-w, r->slot[0]});
        k2 = alpha_t * (dt * dt / 2 + linear * er_scale(r, to));
    }
    double power = to * to - from * from * ratio * ratio;
    double up = s_noise > 0 && power > 0 ? alpha_t * s_noise * sqrt(power) : 0;
    at_tensor *n = s_noise > 0 ? at_run_noise(r) : NULL;
    at_tensor *x = at_mix(r->o, {alpha_t / alpha_s * ratio, r->x}, {alpha_t * (1 - ratio), d.out},
                          {k1, diff}, {k2, diff2}, {up, n});
    if (diff) at_run_put(r, 0, diff);
    at_run_push(r, d.out);
    return x;
}

// --- SEEDS ---------------------------------------------------------------------------------------
static double phi_2(double h)
{
    return (expm1(h) - h) / h;
}

typedef struct seeds {
    double h, he, eta, s_noise, lambda, ratio; // ratio: 1 / sigma at the start
    bool noisy;
} seeds;

static seeds seeds_of(at_run *r, int i)
{
    seeds q = {.eta = r->opt.eta, .s_noise = r->opt.s_noise, .lambda = at_lambda(r, r->s[i])};

    q.h = at_lambda(r, r->s[i + 1]) - q.lambda;
    q.he = q.h * (1 + q.eta);
    q.ratio = 1 / r->s[i];
    q.noisy = q.eta > 0 && q.s_noise > 0;
    return q;
}

// The noise gathered from the start to share b, given that up to share a (NULL at the start).
static at_tensor *seeds_noise(at_run *r, const seeds *q, double a, double b,
                              const at_tensor *before)
{
    double way = (a - b) * q->h * q->eta;

    if (!q->noisy) return NULL;
    at_tensor *n = at_run_noise(r);
    return at_mix(r->o, {before ? exp(way) : 0, before}, {sqrt(-expm1(2 * way)), n});
}

// Factor of x, and of the noise, when arriving at `sigma`, share b of the way.
static double seeds_keep(const seeds *q, double sigma, double b)
{
    return sigma * q->ratio * exp(-b * q->h * q->eta);
}

at_tensor *at_step_seeds_2(at_run *r, int i)
{
    double s = r->s[i], t = r->s[i + 1], m = r->opt.r, fac = 1 / (2 * m);
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    if (t == 0) return d.out;
    seeds q = seeds_of(r, i);
    double lambda = q.lambda + m * q.h, mid = at_sigma_of(r, lambda);
    double am = mid * exp(lambda), at = at_alpha(r, t), noise = q.noisy ? q.s_noise : 0;

    at_tensor *n = seeds_noise(r, &q, 0, m, NULL);
    at_tensor *x2 = at_mix(r->o, {seeds_keep(&q, mid, m), r->x}, {-am * expm1(-m * q.he), d.out},
                           {noise * mid, n});
    at_denoised d2 = at_run_eval(r, x2, mid);
    double g = -at * expm1(-q.he);
    n = seeds_noise(r, &q, m, 1, n);
    return at_mix(r->o, {seeds_keep(&q, t, 1), r->x}, {g * (1 - fac), d.out}, {g * fac, d2.out},
                  {noise * t, n});
}

at_tensor *at_step_seeds_3(at_run *r, int i)
{
    const double r1 = 1.0 / 3, r2 = 2.0 / 3;
    double s = r->s[i], t = r->s[i + 1];
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    if (t == 0) return d.out;
    seeds q = seeds_of(r, i);
    double l1 = q.lambda + r1 * q.h, l2 = q.lambda + r2 * q.h;
    double s1 = at_sigma_of(r, l1), s2 = at_sigma_of(r, l2), noise = q.noisy ? q.s_noise : 0;
    double a1 = s1 * exp(l1), a2 = s2 * exp(l2), at = at_alpha(r, t);

    at_tensor *n = seeds_noise(r, &q, 0, r1, NULL);
    at_tensor *x2 = at_mix(r->o, {seeds_keep(&q, s1, r1), r->x}, {-a1 * expm1(-r1 * q.he), d.out},
                           {noise * s1, n});
    at_denoised d2 = at_run_eval(r, x2, s1);

    double a32 = r2 / r1 * phi_2(-r2 * q.he), a31 = expm1(-r2 * q.he) - a32;
    n = seeds_noise(r, &q, r1, r2, n);
    at_tensor *x3 = at_mix(r->o, {seeds_keep(&q, s2, r2), r->x}, {-a2 * a31, d.out},
                           {-a2 * a32, d2.out}, {noise * s2, n});
    at_denoised d3 = at_run_eval(r, x3, s2);

    double b3 = phi_2(-q.he) / r2, b1 = expm1(-q.he) - b3;
    n = seeds_noise(r, &q, r2, 1, n);
    return at_mix(r->o, {seeds_keep(&q, t, 1), r->x}, {-at * b1, d.out}, {-at * b3, d3.out},
                  {noise * t, n});
}
