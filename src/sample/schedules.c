// SPDX-License-Identifier: Apache-2.0
// schedules.c - the nine schedulers, KSampler's rules around them, and the schedules of single
// nodes.
// Idea: one row per name: a function that appends sigmas to a list. Rows get the model's table, so
// that simple, ddim_uniform and beta index exactly what ComfyUI indexes.
// Source: comfyui-contract section 5.4; Karras et al. 2022; arXiv:2407.12173 (beta); Mochi
// (linear_quadratic). Owns: the list is the caller's on success.
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "sample/incbeta.h"
#include "sample/linspace.h"
#include "sample/sample.h"
#include "sample/sigmas.h"

typedef struct plan {
    const at_model_sampling *m;
    const float *table;
    size_t table_n;
    int steps;
    double alpha, beta; // of the beta distribution
    float *out;         // room for capacity values
    size_t n, capacity;
} plan;

static void push(plan *p, double sigma)
{
    if (p->n < p->capacity) p->out[p->n++] = (float)sigma;
}

static void simple(plan *p)
{
    double stride = (double)p->table_n / p->steps;

    for (int i = 0; i < p->steps; i++) {
        size_t back = 1 + (size_t)(i * stride);
        push(p, p->table[back > p->table_n ? 0 : p->table_n - back]);
    }
    push(p, 0);
}

// From noise to picture over a stride of the table; the count follows from the stride.
static void ddim_uniform(plan *p)
{
    bool ends_at_zero = fabs((double)p->table[1]) <= 1e-5;
    size_t steps = (size_t)p->steps + ends_at_zero;
    size_t stride = p->table_n / steps > 1 ? p->table_n / steps : 1;
    size_t last = 1 + (p->table_n - 2) / stride * stride;

    for (size_t i = last; i >= 1; i -= i == 1 ? 1 : stride)
        push(p, p->table[i]);
    if (!ends_at_zero) push(p, 0);
}

static void by_timestep(plan *p, bool sgm)
{
    float start = at_sigma_to_timestep(p->m, at_sigma_max(p->m));
    float end = at_sigma_to_timestep(p->m, at_sigma_min(p->m));
    bool ends_at_zero = !sgm && fabs((double)at_timestep_to_sigma(p->m, end)) <= 1e-5;
    int points = p->steps + (sgm || ends_at_zero), used = sgm ? p->steps : points;

    for (int i = 0; i < used; i++)
        push(p, at_timestep_to_sigma(p->m, at_linspace_f32(start, end, points, i)));
    if (!ends_at_zero) push(p, 0);
}

static void normal(plan *p)
{
    by_timestep(p, false);
}

static void sgm_uniform(plan *p)
{
    by_timestep(p, true);
}

static void karras_between(plan *p, double low, double high, double rho)
{
    double a = pow(low, 1 / rho), b = pow(high, 1 / rho);

    for (int i = 0; i < p->steps; i++) {
        float ramp = at_linspace_f32(0, 1, p->steps, i);
        push(p, pow((double)((float)b + ramp * (float)(a - b)), rho));
    }
    push(p, 0);
}

static void karras(plan *p)
{
    karras_between(p, at_sigma_min(p->m), at_sigma_max(p->m), 7);
}

static void exponential_between(plan *p, double low, double high)
{
    float a = (float)log(high), b = (float)log(low);

    for (int i = 0; i < p->steps; i++)
        push(p, exp((double)at_linspace_f32(a, b, p->steps, i)));
    push(p, 0);
}

static void exponential(plan *p)
{
    exponential_between(p, at_sigma_min(p->m), at_sigma_max(p->m));
}

static void beta(plan *p)
{
    double last = -1;

    for (int i = 0; i < p->steps; i++) {
        double share = 1 - i * (1.0 / p->steps);
        double at = rint(at_beta_quantile(share, p->alpha, p->beta) * (double)(p->table_n - 1));
        if (at != last) push(p, p->table[(size_t)at]);
        last = at;
    }
    push(p, 0);
}

// A slow linear start up to a threshold, then a quadratic that arrives at 1; sigma is what is left.
static void linear_quadratic(plan *p)
{
    const double threshold = 0.025;
    int n = p->steps, linear = n / 2, rest = n - linear;
    float top = at_sigma_max(p->m);

    if (n == 1) {
        push(p, top);
        push(p, 0);
        return;
    }
    double d = linear - threshold * n, q = d / ((double)linear * ((double)rest * rest));
    double l = threshold / linear - 2 * d / ((double)rest * rest),
           c = q * ((double)linear * linear);
    for (int i = 0; i < n; i++) {
        double v = i < linear ? i * threshold / linear : q * ((double)i * i) + l * i + c;
        push(p, (float)(1 - v) * top);
    }
    push(p, 0);
}

// One step is 0/0 in ComfyUI, which paints NaN; here it starts at sigma_max.
static void kl_optimal(plan *p)
{
    float low = (float)atan((double)at_sigma_min(p->m)),
          high = (float)atan((double)at_sigma_max(p->m));

    for (int i = 0; i < p->steps; i++) {
        float a = p->steps > 1 ? (float)i / (float)(p->steps - 1) : 0;
        push(p, tan((double)(a * low + (1.0f - a) * high)));
    }
    push(p, 0);
}

static const struct {
    const char *name;
    void (*fill)(plan *p);
} rows[] = {{"simple", simple},
            {"sgm_uniform", sgm_uniform},
            {"karras", karras},
            {"exponential", exponential},
            {"ddim_uniform", ddim_uniform},
            {"beta", beta},
            {"normal", normal},
            {"linear_quadratic", linear_quadratic},
            {"kl_optimal", kl_optimal}};

const char *const at_scheduler_names[] = {
    "simple", "sgm_uniform", "karras",           "exponential", "ddim_uniform",
    "beta",   "normal",      "linear_quadratic", "kl_optimal",  NULL};
const size_t at_scheduler_count = sizeof rows / sizeof *rows;

int at_scheduler_find(const char *name)
{
    for (size_t i = 0; name && i < at_scheduler_count; i++)
        if (strcmp(rows[i].name, name) == 0) return (int)i;
    return -1;
}

// Room for `capacity` values; *out and *n are the plan's once it is filled.
static at_status begin(plan *p, int steps, size_t capacity)
{
    if (steps < 0 || steps > AT_STEPS_MAX)
        return at_fail(AT_EINVAL, "schedule: %d steps, expected 0..%d", steps, AT_STEPS_MAX);
    p->steps = steps;
    p->capacity = capacity;
    p->out = at_calloc(capacity, sizeof *p->out);
    if (!p->out) return at_fail(AT_ENOMEM, "schedule: no memory for %zu sigmas", capacity);
    return AT_OK;
}

static at_status fill_from_table(plan *p, void (*fill)(plan *), int steps, float **sigmas,
                                 size_t *n)
{
    at_status st = AT_OK;
    float *table = NULL;

    *sigmas = NULL;
    *n = 0;
    AT_TRY(at_sigma_table(p->m, &table, &p->table_n));
    p->table = table;
    // ddim_uniform may give as many values as the table has.
    AT_TRY(begin(p, steps, (size_t)(steps < 0 ? 0 : steps) + 3 + p->table_n));
    if (steps > 0) fill(p);
    *sigmas = p->out;
    *n = p->n;
out:
    at_free(table);
    return st;
}

at_status at_schedule(const char *scheduler, const at_model_sampling *m, int steps, float **sigmas,
                      size_t *n)
{
    plan p = {.m = m, .alpha = 0.6, .beta = 0.6};
    int row = at_scheduler_find(scheduler);

    *sigmas = NULL;
    *n = 0;
    if (row < 0)
        return at_fail(AT_EINVAL, "scheduler \"%s\" is unknown", scheduler ? scheduler : "(none)");
    return fill_from_table(&p, rows[row].fill, steps, sigmas, n);
}

at_status at_schedule_beta(const at_model_sampling *m, int steps, double alpha, double b,
                           float **sigmas, size_t *n)
{
    plan p = {.m = m, .alpha = alpha, .beta = b};

    *sigmas = NULL;
    *n = 0;
    if (!(alpha > 0) || !(b > 0))
        return at_fail(AT_EINVAL, "beta schedule: alpha %g, beta %g, expected positive", alpha, b);
    return fill_from_table(&p, beta, steps, sigmas, n);
}

at_status at_ksampler_sigmas(const char *sampler, const char *scheduler, const at_model_sampling *m,
                             int steps, double denoise, float **sigmas, size_t *n)
{
    at_status st = AT_OK;
    bool drop = sampler && at_sampler_drops_penultimate(sampler);
    bool whole = !(denoise <= 0.9999); // NaN too, as Python compares

    *sigmas = NULL;
    *n = 0;
    if (denoise <= 0) return AT_OK;
    double wanted = whole ? steps : floor(steps / denoise);
    if (steps < 0 || wanted + drop > AT_STEPS_MAX)
        return at_fail(AT_EINVAL,
                       "%d steps at denoise %g make a schedule of %.0f steps, expected at most %d",
                       steps, denoise, wanted, AT_STEPS_MAX);
    AT_TRY(at_schedule(scheduler, m, (int)wanted + drop, sigmas, n));
    if (drop && *n >= 2) {
        (*sigmas)[*n - 2] = (*sigmas)[*n - 1];
        *n -= 1;
    }
    if (!whole && *n > (size_t)steps + 1) {
        memmove(*sigmas, *sigmas + (*n - (size_t)steps - 1), ((size_t)steps + 1) * sizeof **sigmas);
        *n = (size_t)steps + 1;
    }
out:
    return st;
}

size_t at_sigmas_window(float *sigmas, size_t n, int64_t start, int64_t last, bool leave_noise)
{
    if (last >= 0 && last + 1 < (int64_t)n) {
        n = (size_t)last + 1;
        if (!leave_noise) sigmas[n - 1] = 0;
    }
    if (start < 0) return n; // no start given
    if (start + 1 >= (int64_t)n) return 0;
    memmove(sigmas, sigmas + start, (n - (size_t)start) * sizeof *sigmas);
    return n - (size_t)start;
}

// --- schedules with numbers of their own ---------------------------------------------------------
// `least`: the lowest sigma that the formula can take.
static at_status begin_between(plan *p, int steps, double low, double high, double least)
{
    if (!(low >= least) || !(high >= least) || !isfinite(low) || !isfinite(high))
        return at_fail(AT_EINVAL, "schedule: sigmas %g..%g, expected finite and %s", low, high,
                       least > 0 ? "above 0" : "at least 0");
    return begin(p, steps, (size_t)(steps < 0 ? 0 : steps) + 1);
}

static at_status finish(plan *p, float **sigmas, size_t *n)
{
    *sigmas = p->out;
    *n = p->n;
    return AT_OK;
}

at_status at_schedule_karras(int steps, double sigma_min, double sigma_max, double rho,
                             float **sigmas, size_t *n)
{
    plan p = {0};
    at_status st = AT_OK;

    *sigmas = NULL;
    *n = 0;
    if (!(rho > 0)) return at_fail(AT_EINVAL, "Karras' schedule: rho %g, expected above 0", rho);
    st = begin_between(&p, steps, sigma_min, sigma_max, 0);
    if (st != AT_OK) return st;
    karras_between(&p, sigma_min, sigma_max, rho);
    return finish(&p, sigmas, n);
}

at_status at_schedule_exponential(int steps, double sigma_min, double sigma_max, float **sigmas,
                                  size_t *n)
{
    plan p = {0};
    at_status st = begin_between(&p, steps, sigma_min, sigma_max, DBL_TRUE_MIN);

    *sigmas = NULL;
    *n = 0;
    if (st != AT_OK) return st;
    exponential_between(&p, sigma_min, sigma_max);
    return finish(&p, sigmas, n);
}

at_status at_schedule_polyexponential(int steps, double sigma_min, double sigma_max, double rho,
                                      float **sigmas, size_t *n)
{
    plan p = {0};
    at_status st = begin_between(&p, steps, sigma_min, sigma_max, DBL_TRUE_MIN);

    *sigmas = NULL;
    *n = 0;
    if (st != AT_OK) return st;
    for (int i = 0; i < steps; i++) {
        float ramp = (float)pow((double)at_linspace_f32(1, 0, steps, i), rho);
        push(&p, exp((double)(ramp * (float)(log(sigma_max) - log(sigma_min)) +
                              (float)log(sigma_min))));
    }
    push(&p, 0);
    return finish(&p, sigmas, n);
}

at_status at_schedule_laplace(int steps, double sigma_min, double sigma_max, double mu, double b,
                              float **sigmas, size_t *n)
{
    plan p = {0};
    at_status st = begin_between(&p, steps, sigma_min, sigma_max, 0);

    *sigmas = NULL;
    *n = 0;
    if (st != AT_OK) return st;
    for (int i = 0; i < steps; i++) {
        float x = 0.5f - at_linspace_f32(0, 1, steps, i);
        float sign = x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f;
        float lambda = (float)mu - (float)b * sign * logf(1.0f - 2.0f * fabsf(x) + 1e-5f);
        double s = exp((double)lambda);
        push(&p, fmin(fmax(s, sigma_min), sigma_max));
    }
    return finish(&p, sigmas, n);
}

at_status at_schedule_vp(int steps, double beta_d, double beta_min, double eps, float **sigmas,
                         size_t *n)
{
    plan p = {0};
    at_status st = begin(&p, steps, (size_t)(steps < 0 ? 0 : steps) + 1);

    *sigmas = NULL;
    *n = 0;
    if (st != AT_OK) return st;
    for (int i = 0; i < steps; i++) {
        double t = at_linspace_f32(1, (float)eps, steps, i);
        push(&p, sqrt(expm1(beta_d * t * t / 2 + beta_min * t)));
    }
    push(&p, 0);
    return finish(&p, sigmas, n);
}
