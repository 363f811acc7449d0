// SPDX-License-Identifier: Apache-2.0
// sigmas.c - tables of noise levels, and timestep <-> sigma for every kind of model.
// Idea: one switch per question over at_sigma_kind; nothing is cached, the largest table costs less
// than one op. Easy to get wrong: which steps ComfyUI does in f64 (beta tables, percent) and which
// in f32 (flow and continuous kinds), because a sigma one ulp off moves the SDE samplers' Brownian
// path.
// Source: comfyui-contract section 5.3. Owns nothing.
#include <math.h>

#include "base/mem.h"
#include "sample/linspace.h"
#include "sample/sigmas.h"

#define FLUX_POINTS       10000
#define FLOW_POINTS       1000
#define CONTINUOUS_POINTS 1000
#define LCM_STEPS         50          // of a model distilled for latent consistency
#define COSINE_S          8e-3        // Nichol & Dhariwal 2021
#define BEYOND_ALL_NOISE  999999999.9 // ComfyUI's "before the first step"

static int discrete_count(const at_model_sampling *m)
{
    return m->timesteps < 2 ? 2 : m->timesteps > AT_TIMESTEPS_MAX ? AT_TIMESTEPS_MAX : m->timesteps;
}

// Lin et al. 2023 (arXiv:2305.08891): shift sqrt(alpha bar) so that the last step is pure noise.
// The last value is a small number instead of 0, as ComfyUI keeps sigma finite.
static void rescale_zero_snr(double *sigma, int n)
{
    for (int i = 0; i < n; i++)
        sigma[i] = sqrt(1 / (sigma[i] * sigma[i] + 1));
    double first = sigma[0], last = sigma[n - 1];
    for (int i = 0; i < n; i++) {
        double root = (sigma[i] - last) * (first / (first - last));
        double bar = i == n - 1 ? 4.8973451890853435e-08 : root * root;
        sigma[i] = sqrt((1 - bar) / bar);
    }
}

static void discrete_betas(const at_model_sampling *m, int n, double *beta)
{
    bool rooted = m->beta_schedule == AT_BETA_LINEAR;
    double a = rooted ? sqrt(m->beta_start) : m->beta_start;
    double b = rooted ? sqrt(m->beta_end) : m->beta_end, step = (b - a) / (n - 1), last = 1;

    for (int i = 0; i < n; i++) {
        double v = i < n / 2 ? a + step * i : b - step * (n - 1 - i);
        switch (m->beta_schedule) {
        case AT_BETA_LINEAR: beta[i] = v * v; break;
        case AT_BETA_SQRT_LINEAR: beta[i] = v; break;
        case AT_BETA_SQRT: beta[i] = sqrt(v); break;
        case AT_BETA_COSINE: {
            double first = cos(COSINE_S / (1 + COSINE_S) * M_PI / 2);
            double now = cos(((double)(i + 1) / n + COSINE_S) / (1 + COSINE_S) * M_PI / 2);
            now = now * now / (first * first);
            beta[i] = fmin(fmax(1 - now / last, 0), 0.999);
            last = now;
            break;
        }
        }
    }
}

// sigma[discrete_count(m)] in f64.
static void discrete_sigmas(const at_model_sampling *m, double *sigma)
{
    int n = discrete_count(m);
    double bar = 1;

    discrete_betas(m, n, sigma);
    for (int i = 0; i < n; i++) {
        bar *= 1 - sigma[i];
        sigma[i] = sqrt((1 - bar) / bar);
    }
    if (m->zsnr) rescale_zero_snr(sigma, n);
}

// What a discrete model steps through: sigmas and their logarithms; the distilled kind keeps every
// skip-th of the f32 values, from the end.
typedef struct steps {
    int n, skip;
    double sigma[AT_TIMESTEPS_MAX];
    float log_sigma[AT_TIMESTEPS_MAX];
} steps;

static void discrete_steps(const at_model_sampling *m, steps *s)
{
    s->n = discrete_count(m);
    s->skip = 1;
    discrete_sigmas(m, s->sigma);
    if (m->kind == AT_SIGMA_DISCRETE_LCM) {
        int first = s->n - 1;
        s->skip = s->n / LCM_STEPS > 0 ? s->n / LCM_STEPS : 1;
        s->n = s->n < LCM_STEPS ? s->n : LCM_STEPS;
        first -= (s->n - 1) * s->skip;
        for (int i = 0; i < s->n; i++)
            s->sigma[i] = (float)s->sigma[first + i * s->skip];
    }
    for (int i = 0; i < s->n; i++)
        s->log_sigma[i] = (float)log(s->sigma[i]);
}

static float flow_shift(double shift, float t)
{
    if (shift == 1.0) return t;
    return (float)shift * t / (1.0f + (float)(shift - 1) * t);
}

// torch computes scalar / tensor as reciprocal times scalar.
static float flux_shift(double mu, float t)
{
    float e = (float)exp(mu), inverse = 1.0f / t;
    return 1.0f / (e + (inverse - 1.0f)) * e;
}

static float continuous_sigma(const at_model_sampling *m, int i)
{
    float x =
        at_linspace_f32((float)log(m->sigma_min), (float)log(m->sigma_max), CONTINUOUS_POINTS, i);
    return (float)exp((double)x);
}

static size_t table_size(const at_model_sampling *m)
{
    switch (m->kind) {
    case AT_SIGMA_DISCRETE: return (size_t)m->timesteps;
    case AT_SIGMA_DISCRETE_LCM: return LCM_STEPS;
    case AT_SIGMA_DISCRETE_FLOW: return FLOW_POINTS;
    case AT_SIGMA_FLUX: return FLUX_POINTS;
    case AT_SIGMA_CONTINUOUS_EDM:
    case AT_SIGMA_COSMOS_RFLOW:
    case AT_SIGMA_CONTINUOUS_V: return CONTINUOUS_POINTS;
    }
    return 0;
}

static bool is_discrete(const at_model_sampling *m)
{
    return m->kind == AT_SIGMA_DISCRETE || m->kind == AT_SIGMA_DISCRETE_LCM;
}

at_status at_sigma_check(const at_model_sampling *m)
{
    switch (m->kind) {
    case AT_SIGMA_DISCRETE:
    case AT_SIGMA_DISCRETE_LCM: {
        int least = m->kind == AT_SIGMA_DISCRETE ? 2 : LCM_STEPS;
        if (m->timesteps < least || m->timesteps > AT_TIMESTEPS_MAX)
            return at_fail(AT_EINVAL, "model sampling: %d timesteps, expected %d..%d", m->timesteps,
                           least, AT_TIMESTEPS_MAX);
        if (!(m->beta_start > 0) || !(m->beta_end >= m->beta_start) || !(m->beta_end < 1))
            return at_fail(AT_EINVAL, "model sampling: betas %g..%g, expected 0 < start <= end < 1",
                           m->beta_start, m->beta_end);
        return AT_OK;
    }
    case AT_SIGMA_DISCRETE_FLOW:
        if (!(m->multiplier > 0) || !(m->shift > 0))
            return at_fail(AT_EINVAL, "model sampling: shift %g, multiplier %g, expected positive",
                           m->shift, m->multiplier);
        return AT_OK;
    case AT_SIGMA_FLUX:
        if (!isfinite(m->shift))
            return at_fail(AT_EINVAL, "model sampling: shift %g is no number", m->shift);
        return AT_OK;
    case AT_SIGMA_CONTINUOUS_EDM:
    case AT_SIGMA_CONTINUOUS_V:
    case AT_SIGMA_COSMOS_RFLOW:
        if (!(m->sigma_min > 0) || !(m->sigma_max >= m->sigma_min) || !isfinite(m->sigma_max))
            return at_fail(AT_EINVAL, "model sampling: sigmas %g..%g, expected 0 < min <= max",
                           m->sigma_min, m->sigma_max);
        return AT_OK;
    }
    return at_fail(AT_EINVAL, "model sampling: unknown kind %d", (int)m->kind);
}

at_status at_sigma_table(const at_model_sampling *m, float **out, size_t *n)
{
    at_status st = AT_OK;
    steps s;
    float *t = NULL;

    *out = NULL;
    *n = 0;
    AT_TRY(at_sigma_check(m));
    size_t count = table_size(m);
    t = at_calloc(count, sizeof *t);
    if (!t) AT_TRY(at_fail(AT_ENOMEM, "no memory for a table of %zu sigmas", count));
    if (is_discrete(m)) discrete_steps(m, &s);
    for (size_t i = 0; i < count; i++) {
        float share = (float)(i + 1) / (float)count;
        switch (m->kind) {
        case AT_SIGMA_DISCRETE:
        case AT_SIGMA_DISCRETE_LCM: t[i] = (float)s.sigma[i]; break;
        case AT_SIGMA_DISCRETE_FLOW:
            t[i] = at_timestep_to_sigma(m, share * (float)m->multiplier);
            break;
        case AT_SIGMA_FLUX: t[i] = flux_shift(m->shift, share); break;
        case AT_SIGMA_CONTINUOUS_EDM:
        case AT_SIGMA_COSMOS_RFLOW:
        case AT_SIGMA_CONTINUOUS_V: t[i] = continuous_sigma(m, (int)i); break;
        }
    }
    *out = t;
    *n = count;
out:
    return st;
}

// Index of the nearest log sigma, the first of equals.
static float discrete_timestep(const at_model_sampling *m, float sigma)
{
    steps s;
    int best = 0;
    float x = (float)log((double)sigma), nearest = INFINITY;

    discrete_steps(m, &s);
    for (int i = 0; i < s.n; i++) {
        float d = fabsf(x - s.log_sigma[i]);
        if (d < nearest) {
            nearest = d;
            best = i;
        }
    }
    return (float)(best * s.skip + s.skip - 1);
}

static float discrete_sigma(const at_model_sampling *m, float timestep)
{
    steps s;

    discrete_steps(m, &s);
    float t = (timestep - (float)(s.skip - 1)) / (float)s.skip;
    t = !(t > 0) ? 0 : t > (float)(s.n - 1) ? (float)(s.n - 1) : t;
    int low = (int)floorf(t), high = (int)ceilf(t);
    float w = t - (float)low, x = (1.0f - w) * s.log_sigma[low] + w * s.log_sigma[high];
    return (float)exp((double)x);
}

static float cosmos_sigma(const at_model_sampling *m, float t)
{
    float most = at_sigma_max(m);
    return t >= most / (most + 1) ? most : t / (1 - t);
}

float at_sigma_to_timestep(const at_model_sampling *m, float sigma)
{
    switch (m->kind) {
    case AT_SIGMA_DISCRETE:
    case AT_SIGMA_DISCRETE_LCM: return discrete_timestep(m, sigma);
    case AT_SIGMA_DISCRETE_FLOW: return sigma * (float)m->multiplier;
    case AT_SIGMA_FLUX: return sigma;
    case AT_SIGMA_CONTINUOUS_EDM: return 0.25f * (float)log((double)sigma);
    case AT_SIGMA_CONTINUOUS_V: return (float)atan((double)sigma) / (float)M_PI * 2.0f;
    case AT_SIGMA_COSMOS_RFLOW: return sigma / (sigma + 1);
    }
    return sigma;
}

float at_timestep_to_sigma(const at_model_sampling *m, float timestep)
{
    switch (m->kind) {
    case AT_SIGMA_DISCRETE:
    case AT_SIGMA_DISCRETE_LCM: return discrete_sigma(m, timestep);
    case AT_SIGMA_DISCRETE_FLOW: return flow_shift(m->shift, timestep / (float)m->multiplier);
    case AT_SIGMA_FLUX: return flux_shift(m->shift, timestep);
    case AT_SIGMA_CONTINUOUS_EDM: return (float)exp((double)(timestep / 0.25f));
    case AT_SIGMA_CONTINUOUS_V: return (float)tan((double)(timestep * (float)M_PI / 2.0f));
    case AT_SIGMA_COSMOS_RFLOW: return cosmos_sigma(m, timestep);
    }
    return timestep;
}

double at_percent_to_sigma(const at_model_sampling *m, double percent)
{
    bool flow = m->kind == AT_SIGMA_DISCRETE_FLOW || m->kind == AT_SIGMA_FLUX;
    double t = 1.0 - percent;

    if (percent <= 0) return flow ? 1.0 : BEYOND_ALL_NOISE;
    if (percent >= 1) return 0;
    switch (m->kind) {
    case AT_SIGMA_DISCRETE:
    case AT_SIGMA_DISCRETE_LCM: return discrete_sigma(m, (float)(t * 999.0));
    case AT_SIGMA_DISCRETE_FLOW:
        return m->shift == 1.0 ? t : m->shift * t / (1 + (m->shift - 1) * t);
    case AT_SIGMA_FLUX: return exp(m->shift) / (exp(m->shift) + (1 / t - 1));
    case AT_SIGMA_CONTINUOUS_EDM:
    case AT_SIGMA_COSMOS_RFLOW:
    case AT_SIGMA_CONTINUOUS_V: {
        double low = log((double)at_sigma_min(m)), high = log((double)at_sigma_max(m));
        return exp((high - low) * t + low);
    }
    }
    return 0;
}

static float table_end(const at_model_sampling *m, bool last)
{
    steps s;
    float share;

    switch (m->kind) {
    case AT_SIGMA_DISCRETE:
    case AT_SIGMA_DISCRETE_LCM: discrete_steps(m, &s); return (float)s.sigma[last ? s.n - 1 : 0];
    case AT_SIGMA_DISCRETE_FLOW:
        share = last ? 1.0f : 1.0f / FLOW_POINTS;
        return at_timestep_to_sigma(m, share * (float)m->multiplier);
    case AT_SIGMA_FLUX: return flux_shift(m->shift, last ? 1.0f : 1.0f / FLUX_POINTS);
    case AT_SIGMA_CONTINUOUS_EDM:
    case AT_SIGMA_COSMOS_RFLOW:
    case AT_SIGMA_CONTINUOUS_V: return continuous_sigma(m, last ? CONTINUOUS_POINTS - 1 : 0);
    }
    return 0;
}

float at_sigma_min(const at_model_sampling *m)
{
    return table_end(m, false);
}

float at_sigma_max(const at_model_sampling *m)
{
    return table_end(m, true);
}
