// SPDX-License-Identifier: Apache-2.0
// solvers_sa.c - SA-Solver: stochastic Adams predictor and corrector.
// Idea: x0 is interpolated over the last few lambdas; the polynomial is integrated exactly against
// (1 + tau^2) exp((1 + tau^2) lambda). Noise (tau = 1) only in the middle of the way.
// Source: comfyui-contract section 5.6; Xue et al. 2023 (arXiv:2309.05019), eqs. 15 and 18.
// Owns nothing. r->x is the predicted state, slot 0 the corrected one, slot 1 the noise of the last
// prediction; past[] the x0 at the last nodes.
#include <assert.h>
#include <math.h>

#include "sample/solver.h"

#define SA_MAX 6
enum { TAU, H, NOISE_FACTOR, TAU_FROM, TAU_TO }; // r->num

at_status at_begin_sa(at_run *r)
{
    const at_sampler_options *p = &r->opt;

    if (p->predictor_order < 1 || p->predictor_order > SA_MAX || p->corrector_order < 0 ||
        p->corrector_order > SA_MAX)
        return at_fail(AT_EINVAL, "sa_solver: orders %d and %d, expected 1..%d and 0..%d",
                       p->predictor_order, p->corrector_order, SA_MAX, SA_MAX);
    r->past_max = p->predictor_order > p->corrector_order ? p->predictor_order : p->corrector_order;
    bool given = p->sde_from >= 0 && p->sde_to >= 0;
    r->num[TAU_FROM] = given ? p->sde_from : at_percent_to_sigma(r->ms, p->sde_start_percent);
    r->num[TAU_TO] = given ? p->sde_to : at_percent_to_sigma(r->ms, p->sde_end_percent);
    return AT_OK;
}

// out[p] = (1 + tau^2) * integral of exp((1 + tau^2) (x - t)) x^p over [s, t], by parts.
static void exponential_moments(double s, double t, double tau, int n, double *out)
{
    double k = 1 + tau * tau, decay = exp(-k * (t - s)), s_power = 1, t_power = 1;

    for (int p = 0; p < n; p++) {
        out[p] = t_power - s_power * decay - (p ? p / k * out[p - 1] : 0);
        s_power *= s;
        t_power *= t;
    }
}

// Solve sum_j node[j]^p b_j = m[p] for p < n: Bjorck & Pereyra 1970, kind to close nodes.
static void solve_vandermonde(const double *node, int n, const double *m, double *b)
{
    assert(n >= 0 && n <= SA_MAX);
    for (int p = 0; p < n; p++)
        b[p] = m[p];
    for (int k = 0; k < n - 1; k++)
        for (int p = n - 1; p > k; p--)
            b[p] -= node[k] * b[p - 1];
    for (int k = n - 2; k >= 0; k--) {
        for (int p = k + 1; p < n; p++)
            b[p] /= node[p] - node[p - k - 1];
        for (int p = k; p < n - 1; p++)
            b[p] -= b[p + 1];
    }
}

// Weights of past[0 .. n) for going from lambda_s to lambda_t; node j is the lambda of step last -
// j.
static void adams_weights(const at_run *r, int last, int n, double s, double t, double sigma_t,
                          double tau, bool corrector, double *w)
{
    double node[SA_MAX], m[SA_MAX], alpha = sigma_t * exp(t), k = 1 + tau * tau, h = t - s;

    for (int j = 0; j < n; j++)
        node[j] = at_lambda(r, r->s[last - j]);
    if (r->opt.simple_order_2 && n == 2) { // the paper's appendix D
        double all = alpha * -expm1(-h * k), half = alpha * 0.5 * k * h;
        double newest = corrector ? half : all - half * h / (node[1] - s);
        w[0] = newest;
        w[1] = all - newest;
        return;
    }
    // Moments about s keep the powers small; the nodes move along.
    for (int j = 0; j < n; j++)
        node[j] -= s;
    exponential_moments(0, h, tau, n, m);
    solve_vandermonde(node, n, m, w);
    for (int j = 0; j < n; j++)
        w[j] *= alpha;
}

static at_tensor *weighted(at_run *r, double keep, const at_tensor *x, const double *w, int n,
                           at_term noise)
{
    at_term terms[SA_MAX + 2] = {{keep, x}};

    if (at_ops_status(r->o) != AT_OK) return NULL;
    for (int j = 0; j < n; j++)
        terms[1 + j] = (at_term){w[j], r->past[j]};
    terms[1 + n] = noise;
    return at_mix_terms(r->o, (size_t)n + 2, terms);
}

// The state at s_i, from the corrected one before and x0 at the prediction.
static at_tensor *correct(at_run *r, int i, int order)
{
    double w[SA_MAX], s = r->s[i], tau = r->num[TAU], h = r->num[H];
    bool noisy = tau > 0 && r->opt.s_noise > 0;

    adams_weights(r, i, order, at_lambda(r, r->s[i - 1]), at_lambda(r, s), s, tau, true, w);
    return weighted(r, s / r->s[i - 1] * exp(-tau * tau * h), r->slot[0], w, order,
                    (at_term){noisy ? r->num[NOISE_FACTOR] : 0, noisy ? r->slot[1] : NULL});
}

static at_tensor *predict(at_run *r, int i, int order, const at_tensor *x)
{
    double w[SA_MAX], s = r->s[i], t = r->s[i + 1], ls = at_lambda(r, s), lt = at_lambda(r, t),
                      h = lt - ls;
    double tau = r->opt.eta > 0 && r->num[TAU_FROM] >= t && t >= r->num[TAU_TO] ? r->opt.eta : 0;
    bool noisy = tau > 0 && r->opt.s_noise > 0;

    r->num[TAU] = tau;
    r->num[H] = h;
    adams_weights(r, i, order, ls, lt, t, tau, false, w);
    if (noisy) {
        at_run_put(r, 1, at_run_noise(r));
        r->num[NOISE_FACTOR] = t * sqrt(-expm1(-2 * tau * tau * h)) * r->opt.s_noise;
    }
    return weighted(r, t / s * exp(-tau * tau * h), x, w, order,
                    (at_term){noisy ? r->num[NOISE_FACTOR] : 0, noisy ? r->slot[1] : NULL});
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

at_tensor *at_step_sa(at_run *r, int i)
{
    double s = r->s[i], t = r->s[i + 1];
    bool to_zero = r->s[r->n] == 0;
    at_denoised d = at_run_eval(r, r->x, s);

    at_run_report(r, i, r->x, d.out);
    at_run_push(r, d.out);
    if (at_ops_status(r->o) != AT_OK) return NULL;
    int predictor = least(r->opt.predictor_order, r->past_n);
    int corrector = least(r->opt.corrector_order, r->past_n);
    if (i == 0 || (t == 0 && !r->opt.use_pece)) corrector = 0;
    if (to_zero) { // lower orders near the end are steadier
        predictor = least(predictor, r->n - 1 - i);
        corrector = least(corrector, r->n - i);
    }
    at_tensor *x = r->x;
    if (corrector > 0) {
        x = correct(r, i, corrector);
        if (r->opt.use_pece) {
            d = at_run_eval(r, x, s);
            at_tensor_release(&r->past[0]);
            r->past[0] = d.out ? at_ops_keep(r->o, d.out) : NULL;
        }
    }
    at_run_put(r, 0, x);
    if (t == 0) return d.out;
    at_tensor *next = predict(r, i, predictor, x);
    return i == r->n - 1 ? x : next; // ComfyUI forgets a last prediction that is never corrected
}
