// SPDX-License-Identifier: Apache-2.0
// solvers_unipc.c - UniPC in both variants of B(h).
// Idea: works on X = x / sqrt(1 + sigma^2) with alpha = 1 / sqrt(1 + sigma^2); every step predicts,
// asks the model there, and corrects with the new answer. A last sigma of 0 becomes 0.001, also for
// the scaling at the end.
// Source: comfyui-contract section 5.6; Zhao et al. 2023 (arXiv:2302.04867). f32 where ComfyUI's
// 1 - exp(..) cancels. Owns nothing. past[0 ..] are the x0 of the last sigmas.
#include <math.h>

#include "sample/solver.h"

static float log_alpha(double sigma)
{
    float s = (float)sigma;
    return 0.5f * logf(1.0f / (s * s + 1.0f));
}

static double vp_alpha(double sigma)
{
    return expf(log_alpha(sigma));
}

static double vp_sigma(double sigma)
{
    return sqrtf(1.0f - expf(2.0f * log_alpha(sigma)));
}

static double vp_lambda(double sigma)
{
    float a = log_alpha(sigma);
    return a - 0.5f * logf(1.0f - expf(2.0f * a));
}

at_status at_begin_unipc(at_run *r)
{
    if (r->s[r->n] == 0) r->s[r->n] = (float)0.001;
    r->past_max = 3;
    r->opt.order = r->n - 1 < 3 ? r->n - 1 : 3;
    at_tensor *x = at_mix(r->o, {1 / sqrt(1 + r->s[0] * r->s[0]), r->x});
    if (!x) return AT_OK; // the ops remember why
    at_tensor_release(&r->x);
    r->x = at_ops_keep(r->o, x);
    return AT_OK;
}

static at_tensor *ask(at_run *r, const at_tensor *x, double sigma)
{
    return at_run_eval(r, at_mix(r->o, {sqrt(sigma * sigma + 1), x}), sigma).out;
}

// Gaussian elimination with pivots; n <= 3.
static void solve(int n, double a[3][3], const double *b, double *x)
{
    for (int i = 0; i < n; i++)
        x[i] = b[i];
    for (int i = 0; i < n; i++) {
        int p = i;
        for (int k = i + 1; k < n; k++)
            if (fabs(a[k][i]) > fabs(a[p][i])) p = k;
        for (int j = 0; j < n; j++) {
            double t = a[i][j];
            a[i][j] = a[p][j];
            a[p][j] = t;
        }
        double t = x[i];
        x[i] = x[p];
        x[p] = t;
        for (int k = i + 1; k < n; k++) {
            double f = a[k][i] / a[i][i];
            for (int j = i; j < n; j++)
                a[k][j] -= f * a[i][j];
            x[k] -= f * x[i];
        }
    }
    for (int i = n - 1; i >= 0; i--) {
        for (int j = i + 1; j < n; j++)
            x[i] -= a[i][j] * x[j];
        x[i] /= a[i][i];
    }
}

// rho of the first n rows of R rho = b, rows rk^(i-1).
static void rhos(const double *rk, int n, const double *b, double *rho)
{
    double m[3][3];

    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            m[i][j] = pow(rk[j], i);
    solve(n, m, b, rho);
}

// x at s[k] from x at s[k - 1]. *x0: the model's answer at the prediction, NULL without a
// corrector.
static at_tensor *update(at_run *r, const at_tensor *x, int k, int order, bool corrector,
                         at_tensor **x0)
{
    double from = r->s[k - 1], to = r->s[k], l0 = vp_lambda(from), h = vp_lambda(to) - l0, hh = -h;
    double alpha = vp_alpha(to), keep = vp_sigma(to) / vp_sigma(from), grow = expm1(hh);
    double bh = r->opt.solver_type[2] == '2' ? grow : hh, scale = alpha * bh;
    double rk[3] = {0}, b[3], rho[3] = {0.5}, phi = grow / hh - 1, factorial = 1;
    at_term terms[6] = {{keep, x}};
    int n = order - 1; // differences to older answers

    for (int i = 0; i < order; i++) {
        b[i] = phi * factorial / bh;
        factorial *= i + 2;
        phi = phi / hh - 1 / factorial;
    }
    for (int i = 0; i < n; i++)
        rk[i] = (vp_lambda(r->s[k - 2 - i]) - l0) / h;
    rk[n] = 1;

    if (n == 2) rhos(rk, n, b, rho);
    terms[1] = (at_term){-alpha * grow, r->past[0]};
    for (int i = 0; i < n; i++) {
        terms[1].k += scale * rho[i] / rk[i];
        terms[2 + i] = (at_term){-scale * rho[i] / rk[i], r->past[1 + i]};
    }
    at_tensor *next = at_mix_terms(r->o, (size_t)n + 2, terms);
    *x0 = NULL;
    if (!corrector) return next;

    *x0 = ask(r, next, to);
    if (order == 1)
        rho[0] = 0.5;
    else
        rhos(rk, order, b, rho);
    terms[1].k = -alpha * grow + scale * rho[n];
    for (int i = 0; i < n; i++) {
        terms[1].k += scale * rho[i] / rk[i];
        terms[2 + i].k = -scale * rho[i] / rk[i];
    }
    terms[2 + n] = (at_term){-scale * rho[n], *x0};
    return at_mix_terms(r->o, (size_t)n + 3, terms);
}

static at_tensor *leave(at_run *r, at_tensor *x)
{
    return at_mix(r->o, {1 / vp_alpha(r->s[r->n]), x});
}

at_tensor *at_step_unipc(at_run *r, int i)
{
    int steps = r->n, order = r->opt.order;
    at_tensor *x = r->x, *x0 = NULL;

    if (i == 0) {
        x0 = ask(r, x, r->s[0]);
    } else {
        int now = i < order ? i : order < steps + 1 - i ? order : steps + 1 - i;
        x = update(r, x, i, now, true, &x0);
    }
    at_run_push(r, x0);
    if (at_ops_status(r->o) != AT_OK) return NULL;
    if (i == steps - 1) {
        at_tensor *none;
        if (i > 0) x = update(r, x, steps, 1, false, &none);
        at_run_report(r, i, x, x0);
        return leave(r, x);
    }
    at_run_report(r, i, x, x0);
    return x;
}
