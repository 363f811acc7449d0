// SPDX-License-Identifier: Apache-2.0
// solver.c - the arithmetic that solvers share.
// Idea: numbers that ComfyUI computes in f32 are rounded to f32 where it matters: an ancestral
// split cancels, and a middle sigma picks the point on the Brownian path.
// Source: comfyui-contract section 5.6. Owns nothing.
#include <math.h>

#include "sample/solver.h"

at_tensor *at_mix_terms(at_ops *o, size_t n, const at_term *terms)
{
    float coef[AT_LINCOMB_MAX];
    const at_tensor *in[AT_LINCOMB_MAX];
    at_tensor *sum = NULL;
    int k = 0;

    for (size_t i = 0; i < n; i++) {
        bool last = i + 1 == n;
        if (terms[i].k == 0 && !(last && k == 0)) {
            if (!last) continue;
        } else {
            coef[k] = (float)terms[i].k;
            in[k++] = terms[i].t;
        }
        if (!last && k < AT_LINCOMB_MAX) continue;
        sum = at_lincomb(o, k, coef, in);
        coef[0] = 1; // longer sums go on from here
        in[0] = sum;
        k = 1;
    }
    return sum;
}

at_tensor *at_toward(at_ops *o, const at_tensor *x, const at_tensor *x0, double from, double to)
{
    double q = to / from;
    return at_mix(o, {q, x}, {1 - q, x0});
}

at_tensor *at_slope(at_ops *o, const at_tensor *x, const at_tensor *x0, double sigma)
{
    return at_mix(o, {1 / sigma, x}, {-1 / sigma, x0});
}

double at_churn(at_run *r, int i, const at_tensor **x)
{
    const at_sampler_options *p = &r->opt;
    double s = r->s[i], gamma = 0;

    if (p->s_churn > 0 && p->s_tmin <= s && s <= p->s_tmax)
        gamma = fmin(p->s_churn / r->n, M_SQRT2 - 1);
    if (gamma <= 0) return s;
    double hat = s * (gamma + 1);
    *x = at_mix(r->o, {1, *x}, {p->s_noise * sqrt(hat * hat - s * s), at_run_global_noise(r)});
    return hat;
}

at_split at_ancestral(double from, double to, double eta)
{
    float a = (float)from, b = (float)to, a2 = a * a, b2 = b * b;

    if (eta == 0) return (at_split){to, 0};
    float wanted = (float)eta * sqrtf(b2 * (a2 - b2) / a2);
    float up = wanted < b ? wanted : b; // also where sigma rises and `wanted` is NaN
    return (at_split){sqrtf(b2 - up * up), up};
}

at_flow_split at_flow_ancestral(double from, double to, double eta)
{
    float a = (float)from, b = (float)to;
    float down = b * (1.0f + (b / a - 1.0f) * (float)eta);
    float left = 1.0f - b, left_down = 1.0f - down;
    float power = b * b - down * down * (left * left) / (left_down * left_down);
    return (at_flow_split){down, left / left_down, power > 0 ? sqrtf(power) : 0};
}

bool at_run_is_flow(const at_run *r)
{
    return r->ms->prediction == AT_PRED_CONST;
}

double at_lambda(const at_run *r, double sigma)
{
    if (at_run_is_flow(r)) return (float)-log((double)((float)sigma / (1.0f - (float)sigma)));
    return (float)-log(sigma);
}

double at_sigma_of(const at_run *r, double lambda)
{
    if (at_run_is_flow(r)) return (float)(1 / (1 + exp(lambda)));
    return (float)exp(-lambda);
}

double at_alpha(const at_run *r, double sigma)
{
    return at_run_is_flow(r) ? 1 - sigma : 1;
}
