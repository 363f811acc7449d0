// SPDX-License-Identifier: Apache-2.0
// solvers_multistep.c - solvers that remember directions: lms, ipndm, ipndm_v, deis, res_multistep.
// Idea: past[0 .. ] are the last directions d = (x - x0) / sigma, newest first; a step adds
// sum c_j d_j. The families differ in the c_j only.
// Sources: comfyui-contract section 5.6; Karras' k-diffusion (lms); Zhang & Chen 2023
// (arXiv:2204.13902, deis and ipndm); Zhou et al. 2023 (variable-step ipndm); arXiv:2308.02157
// (res).
// Owns: deis and lms fill r->table, four and `order` coefficients per step.
#include <math.h>

#include "base/mem.h"
#include "sample/linspace.h"
#include "sample/solver.h"

// One step along the remembered directions; d is pushed first, so coefficient j meets past[j].
static at_tensor *multistep(at_run *r, const at_tensor *x0, double s, const double *c, int n)
{
    at_tensor *x = r->x;

    at_run_push(r, at_slope(r->o, r->x, x0, s));
    for (int j = 0; j < n && at_ops_status(r->o) == AT_OK; j++) // a few terms: n is 4 but for lms
        x = at_mix(r->o, {1, x}, {c[j], r->past[j]});
    return x;
}

// --- lms -----------------------------------------------------------------------------------------
#define LMS_MAX 100

// Gauss-Legendre nodes and weights on [-1, 1], exact for the polynomials of order 2n - 1.
static void gauss_legendre(int n, double *node, double *weight)
{
    for (int i = 0; i < n; i++) {
        double x = cos(M_PI * (i + 0.75) / (n + 0.5)), slope = 1;
        for (int k = 0; k < 50; k++) {
            double p0 = 1, p1 = x;
            for (int m = 2; m <= n; m++) {
                double p2 = ((2 * m - 1) * x * p1 - (m - 1) * p0) / m;
                p0 = p1;
                p1 = p2;
            }
            slope = n == 1 ? 1 : n * (x * p1 - p0) / (x * x - 1);
            double dx = p1 / slope;
            x -= dx;
            if (fabs(dx) < 1e-16) break;
        }
        node[i] = x;
        weight[i] = n == 1 ? 2 : 2 / ((1 - x * x) * slope * slope);
    }
}

at_status at_begin_lms(at_run *r)
{
    int order = r->opt.order;

    if (order < 1 || order > LMS_MAX)
        return at_fail(AT_EINVAL, "lms: order %d, expected 1..%d", order, LMS_MAX);
    r->past_max = order;
    return at_run_table(r, (size_t)order);
}

// Integral from s_i to s_(i+1) of the Lagrange basis polynomial j over the last `order` sigmas.
static void lms_coefficients(const double *s, int i, int order, double *c)
{
    double node[LMS_MAX], weight[LMS_MAX], mid = 0.5 * (s[i + 1] + s[i]),
                                           half = 0.5 * (s[i + 1] - s[i]);
    int n = order / 2 + 1;

    gauss_legendre(n, node, weight);
    for (int j = 0; j < order; j++) {
        c[j] = 0;
        for (int q = 0; q < n; q++) {
            double tau = mid + half * node[q], product = half * weight[q];
            for (int k = 0; k < order; k++)
                if (k != j) product *= (tau - s[i - k]) / (s[i - j] - s[i - k]);
            c[j] += product;
        }
    }
}

at_tensor *at_step_lms(at_run *r, int i)
{
    int order = i + 1 < r->opt.order ? i + 1 : r->opt.order;
    at_denoised d = at_run_eval(r, r->x, r->s[i]);

    at_run_report(r, i, r->x, d.out);
    if (r->s[i + 1] == 0) return d.out;
    lms_coefficients(r->s, i, order, r->table);
    return multistep(r, d.out, r->s[i], r->table, order);
}

// --- ipndm ---------------------------------------------------------------------------------------
at_tensor *at_step_ipndm(at_run *r, int i)
{
    static const double adams[4][4] = {{1},
                                       {3.0 / 2, -1.0 / 2},
                                       {23.0 / 12, -16.0 / 12, 5.0 / 12},
                                       {55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24}};
    double s = r->s[i], t = r->s[i + 1], c[4];
    int order = i < 3 ? i + 1 : 4;
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    if (t == 0) return d.out;
    for (int j = 0; j < order; j++)
        c[j] = (t - s) * adams[order - 1][j];
    return multistep(r, d.out, s, c, order);
}

// Adams-Bashforth for steps of unequal length: h the coming one, h1, h2, h3 the ones before.
static void variable_adams(const double *s, int i, int order, double c[4])
{
    double h = s[i + 1] - s[i], h1 = order > 1 ? s[i] - s[i - 1] : 0;
    double h2 = order > 2 ? s[i - 1] - s[i - 2] : 0, h3 = order > 3 ? s[i - 2] - s[i - 3] : 0;
    double a = 1 - h / (3 * (h + h1)), t1 = 0, t2 = 0, p = 0;

    c[0] = 1;
    if (order > 2) t1 = (1 - h / (3 * (h + h1)) * (h * (h + h1)) / (h1 * (h1 + h2))) / 2;
    if (order > 3) {
        t2 = (a / 2 + (1 - h / (2 * (h + h1))) * h / (6 * (h + h1 + h2))) *
             (h * (h + h1) * (h + h1 + h2)) / (h1 * (h1 + h2) * (h1 + h2 + h3));
        p = h1 * (h1 + h2) / (h2 * (h2 + h3));
    }
    if (order > 1) {
        c[0] = (2 + h / h1) / 2 + t1 + t2;
        c[1] = -(h / h1) / 2;
    }
    if (order > 2) {
        c[1] -= (1 + h1 / h2) * t1 + (order > 3 ? (1 + h1 / h2 + p) * t2 : 0);
        c[2] = t1 * h1 / h2 + (order > 3 ? (h1 / h2 + p * (1 + h2 / h3)) * t2 : 0);
    }
    if (order > 3) c[3] = -t2 * p * h1 / h2;
    for (int j = 0; j < order; j++)
        c[j] *= h;
}

at_tensor *at_step_ipndm_v(at_run *r, int i)
{
    double c[4] = {0};
    int order = i < 3 ? i + 1 : 4;
    at_denoised d = at_run_eval(r, r->x, r->s[i]);

    at_run_report(r, i, r->x, d.out);
    if (r->s[i + 1] == 0) return d.out;
    variable_adams(r->s, i, order, c);
    return multistep(r, d.out, r->s[i], c, order);
}

// --- deis ----------------------------------------------------------------------------------------
#define DEIS_POINTS 10000
#define DEIS_ORDER  3

// The variance-preserving SDE whose noise runs from sigma 0.002 at t = 1e-3 to 80 at t = 1. ComfyUI
// takes the two logarithms in f32, where 1 + 0.002^2 has lost most of its digits.
typedef struct vp_sde {
    double beta_0, beta_1;
} vp_sde;

static vp_sde deis_sde(void)
{
    float low = logf(0.002f * 0.002f + 1.0f), high = logf(80.0f * 80.0f + 1.0f);
    float d = 2.0f * (low / 1e-3f - high) / (1e-3f - 1.0f), least = high - 0.5f * d;
    return (vp_sde){least, d + least};
}

static float deis_time(const vp_sde *v, double sigma)
{
    float s = (float)sigma, d = (float)v->beta_1 - (float)v->beta_0, b = (float)v->beta_0;
    return (sqrtf(b * b + 2.0f * d * logf(s * s + 1.0f)) - b) / d;
}

// Coefficients of the step from t[i]: the Lagrange basis over the last `order` times, integrated
// against d sigma(t) / dt by points as dense as ComfyUI's.
static void deis_coefficients(const vp_sde *v, const float *t, int i, int order, double *c)
{
    double slope = v->beta_1 - v->beta_0, step = ((double)t[i + 1] - t[i]) / DEIS_POINTS;

    for (int j = 0; j < order; j++)
        c[j] = 0;
    for (int k = 0; k < DEIS_POINTS; k++) {
        double tau = at_linspace_f32(t[i], t[i + 1], DEIS_POINTS, k);
        double alpha = exp(-0.5 * tau * tau * slope - tau * v->beta_0);
        double f = 0.5 * (tau * slope + v->beta_0) / sqrt(alpha * (1 - alpha)) * step;
        for (int j = 0; j < order; j++) {
            double p = f;
            for (int m = 0; m < order; m++)
                if (m != j) p *= (tau - t[i - m]) / ((double)t[i - j] - t[i - m]);
            c[j] += p;
        }
    }
}

at_status at_begin_deis(at_run *r)
{
    vp_sde v = deis_sde();
    at_status st = at_run_table(r, (size_t)r->n * DEIS_ORDER);

    if (st != AT_OK) return st;
    float *t = at_calloc((size_t)r->n + 1, sizeof *t);
    if (!t) return at_fail(AT_ENOMEM, "deis: no memory for %d times", r->n + 1);
    for (int i = 0; i <= r->n; i++)
        t[i] = deis_time(&v, r->s[i]);
    for (int i = 1; i < r->n; i++) // the first step, and one to 0, are Euler's
        if (r->s[i + 1] > 0)
            deis_coefficients(&v, t, i, i + 1 < DEIS_ORDER ? i + 1 : DEIS_ORDER,
                              r->table + (size_t)i * DEIS_ORDER);
    at_free(t);
    return AT_OK;
}

at_tensor *at_step_deis(at_run *r, int i)
{
    double s = r->s[i], t = r->s[i + 1], euler = t - s;
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    if (t <= 0) return d.out;
    if (i == 0) return multistep(r, d.out, s, &euler, 1);
    return multistep(r, d.out, s, r->table + (size_t)i * DEIS_ORDER,
                     i + 1 < DEIS_ORDER ? i + 1 : DEIS_ORDER);
}

// --- res -----------------------------------------------------------------------------------------
// past[0]: the last x0 (cfg_pp: of the negative prompt); num[0]: the last step's lower sigma.
at_tensor *at_step_res_multistep(at_run *r, int i)
{
    bool pp = r->solver->flags & AT_SOLVER_UNCOND;
    double s = r->s[i], t = r->s[i + 1];
    at_split a = at_ancestral(s, t, r->opt.eta);
    at_denoised d = at_run_eval(r, r->x, s);
    at_tensor *base = pp ? d.uncond : d.out, *x, *old = r->past_n ? r->past[0] : NULL;
    double up = t > 0 ? a.up * r->opt.s_noise : 0;
    at_tensor *n =
        t > 0 ? at_run_noise(r) : NULL; // drawn at every step, also where it weighs nothing

    at_run_report(r, i, r->x, d.out);
    if (a.down == 0 || !old) {
        double q = a.down / s;
        if (pp)
            x = at_mix(r->o, {1, d.out}, {q, r->x}, {-q, d.uncond}, {up, n});
        else
            x = at_mix(r->o, {q, r->x}, {1 - q, d.out}, {up, n});
    } else {
        double h = log(s / a.down), c2 = log(r->num[0] / r->s[i - 1]) / h;
        double phi1 = expm1(-h) / -h, phi2 = (phi1 - 1) / -h;
        double b1 = phi1 - phi2 / c2, b2 = phi2 / c2, q = exp(-h);
        if (!isfinite(b1)) b1 = 0;
        if (!isfinite(b2)) b2 = 0;
        x = at_mix(r->o, {q, r->x}, {pp ? q : 0, d.out}, {pp ? -q : 0, d.uncond}, {h * b1, base},
                   {h * b2, old}, {up, n});
    }
    at_run_push(r, base);
    r->num[0] = a.down;
    return x;
}
