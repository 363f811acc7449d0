// SPDX-License-Identifier: Apache-2.0
// cpu_norm.c - layer, RMS and group norm in plain C.
// Idea: mean first, then the squares around it (no cancellation), both summed in double.
// Owns nothing.
#include <math.h>

#include "base/status.h"
#include "base/thread.h"
#include "cpu/cpu_impl.h"

typedef struct norm_job {
    const at_norm_args *a;
    at_view x, out, scale, shift;
    int64_t tokens, dim;
} norm_job;

typedef struct moments {
    float mean, rstd;
} moments;

static moments row_moments(const at_view *x, int64_t first, int64_t dim, float eps, bool rms)
{
    double sum = 0, sq = 0, mean = 0;
    float buf[AT_CPU_PIECE];

    for (int pass = rms ? 1 : 0; pass < 2; pass++) {
        for (int64_t c = 0; c < dim; c += AT_CPU_PIECE) {
            int64_t n = dim - c < AT_CPU_PIECE ? dim - c : AT_CPU_PIECE;
            at_cpu_load(buf, x->data, x->dtype, first + c, 1, n);
            for (int64_t i = 0; i < n; i++) {
                double v = (double)buf[i] - mean;
                if (pass == 0) sum += v;
                if (pass == 1) sq += v * v;
            }
        }
        if (pass == 0) mean = sum / (double)dim;
    }
    return (moments){(float)mean, (float)(1.0 / sqrt(sq / (double)dim + (double)eps))};
}

static void norm_piece(const norm_job *j, int64_t b, int64_t c, int64_t n, moments m, float *y)
{
    const at_norm_args *a = j->a;
    float p[AT_CPU_PIECE];

    for (int64_t i = 0; i < n; i++)
        y[i] = (y[i] - m.mean) * m.rstd;
    if (a->weight.v.data) {
        at_cpu_load(p, a->weight.v.data, a->weight.v.dtype, c, 1, n);
        for (int64_t i = 0; i < n; i++)
            y[i] *= p[i] * a->weight.scale;
    }
    if (a->bias.v.data) {
        at_cpu_load(p, a->bias.v.data, a->bias.v.dtype, c, 1, n);
        for (int64_t i = 0; i < n; i++)
            y[i] += p[i] * a->bias.scale;
    }
    if (j->scale.data) {
        at_cpu_load(p, j->scale.data, j->scale.dtype,
                    b * at_cpu_step(&j->scale, 0) + c * j->scale.stride[1], j->scale.stride[1], n);
        for (int64_t i = 0; i < n; i++)
            y[i] *= 1.0f + p[i];
    }
    if (j->shift.data) {
        at_cpu_load(p, j->shift.data, j->shift.dtype,
                    b * at_cpu_step(&j->shift, 0) + c * j->shift.stride[1], j->shift.stride[1], n);
        for (int64_t i = 0; i < n; i++)
            y[i] += p[i];
    }
}

static void norm_range(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    float y[AT_CPU_PIECE];

    for (int64_t r = begin; r < end; r++) {
        int64_t b = r / j->tokens, t = r % j->tokens;
        int64_t xo = b * at_cpu_step(&j->x, 0) + t * at_cpu_step(&j->x, 1);
        int64_t oo = b * at_cpu_step(&j->out, 0) + t * at_cpu_step(&j->out, 1);
        moments m = row_moments(&j->x, xo, j->dim, j->a->eps, j->a->rms);
        for (int64_t c = 0; c < j->dim; c += AT_CPU_PIECE) {
            int64_t n = j->dim - c < AT_CPU_PIECE ? j->dim - c : AT_CPU_PIECE;
            at_cpu_load(y, j->x.data, j->x.dtype, xo + c, 1, n);
            norm_piece(j, b, c, n, m, y);
            at_cpu_store(j->out.data, j->out.dtype, oo + c, 1, y, n);
        }
    }
}

at_status at_cpu_ref_norm(void *stream, const at_norm_args *a)
{
    norm_job j = {.a = a,
                  .x = at_cpu_rank(&a->x, 3),
                  .out = at_cpu_rank(&a->out, 3),
                  .scale = at_cpu_rank(&a->mod_scale, 2),
                  .shift = at_cpu_rank(&a->mod_shift, 2)};
    (void)stream;
    j.tokens = j.x.shape[1];
    j.dim = j.x.shape[2];
    at_parallel_for(j.x.shape[0] * j.tokens, 1 + 4096 / (j.dim + 1), norm_range, &j);
    return AT_OK;
}

typedef struct group_job {
    const at_group_norm_args *a;
    at_view x, out;
    int64_t pixels, channels, per; // channels in a group
} group_job;

static float added(const at_group_norm_args *a, int64_t b, int64_t c)
{
    return a->add.data ? at_cpu_get(&a->add, b * at_cpu_step(&a->add, 0) + c) : 0.0f;
}

at_cpu_spread at_cpu_merge_parts(const at_group_norm_args *a, int64_t b, int64_t group)
{
    const float *parts = a->parts.data;
    int64_t n = a->parts.shape[0], batch = a->parts.shape[1];
    double mean = 0, sq = 0, pixels = 0, per = (double)(a->x.shape[a->x.rank - 1] / a->groups);

    for (int64_t i = 0; i < n; i++)
        pixels += (double)a->part_pixels[i];
    for (int pass = 0; pass < 2; pass++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) {
            const float *s = parts + 2 * ((i * batch + b) * a->groups + group);
            double count = (double)a->part_pixels[i], d = (double)s[0] - mean;
            if (count == 0) continue;
            if (pass == 0) sum += count * d;
            if (pass == 1) sq += count * per * d * d + (double)s[1];
        }
        if (pass == 0) mean = sum / pixels;
    }
    return (at_cpu_spread){mean, sq / (pixels * per)};
}

static at_cpu_spread group_spread(const group_job *j, int64_t b, int64_t xo, int64_t c0)
{
    double sum = 0, sq = 0, mean = 0, count = (double)(j->pixels * j->per);

    for (int pass = 0; pass < 2; pass++) {
        for (int64_t p = 0; p < j->pixels; p++) {
            for (int64_t c = 0; c < j->per; c++) {
                double v = (double)at_cpu_get(&j->x, xo + p * j->x.stride[1] + c0 + c) +
                           (double)added(j->a, b, c0 + c) - mean;
                if (pass == 0) sum += v;
                if (pass == 1) sq += v * v;
            }
        }
        if (pass == 0) mean = sum / count;
    }
    return (at_cpu_spread){mean, sq / count};
}

static moments group_moments(const group_job *j, int64_t b, int64_t xo, int64_t c0)
{
    at_cpu_spread s =
        j->a->parts.data ? at_cpu_merge_parts(j->a, b, c0 / j->per) : group_spread(j, b, xo, c0);
    return (moments){(float)s.mean, (float)(1.0 / sqrt(s.variance + (double)j->a->eps))};
}

static void group_range(void *ctx, int64_t begin, int64_t end)
{
    const group_job *j = ctx;
    const at_group_norm_args *a = j->a;

    for (int64_t g = begin; g < end; g++) {
        int64_t b = g / a->groups, c0 = g % a->groups * j->per;
        int64_t xo = b * at_cpu_step(&j->x, 0), oo = b * at_cpu_step(&j->out, 0);
        moments m = group_moments(j, b, xo, c0);
        for (int64_t c = c0; c < c0 + j->per; c++) {
            float w = a->weight.v.data ? at_cpu_get(&a->weight.v, c) * a->weight.scale : 1.0f;
            float s = a->bias.v.data ? at_cpu_get(&a->bias.v, c) * a->bias.scale : 0.0f;
            float more = added(a, b, c);
            for (int64_t p = 0; p < j->pixels; p++) {
                float v = at_cpu_get(&j->x, xo + p * j->x.stride[1] + c) + more;
                v = at_cpu_apply((v - m.mean) * m.rstd * w + s, a->act);
                at_cpu_store(j->out.data, j->out.dtype, oo + p * j->out.stride[1] + c, 1, &v, 1);
            }
        }
    }
}

at_status at_cpu_ref_group_norm(void *stream, const at_group_norm_args *a)
{
    group_job j = {.a = a, .x = at_cpu_rank(&a->x, 3), .out = at_cpu_rank(&a->out, 3)};

    (void)stream;
    j.pixels = j.x.shape[1];
    j.channels = j.x.shape[2];
    j.per = j.channels / a->groups;
    at_parallel_for(j.x.shape[0] * a->groups, 1, group_range, &j);
    return AT_OK;
}

static void stats_range(void *ctx, int64_t begin, int64_t end)
{
    const group_job *j = ctx;

    for (int64_t g = begin; g < end; g++) {
        int64_t b = g / j->a->groups, c0 = g % j->a->groups * j->per;
        at_cpu_spread s = group_spread(j, b, b * at_cpu_step(&j->x, 0), c0);
        float *out = (float *)j->a->out.data + 2 * g;
        out[0] = (float)s.mean;
        out[1] = (float)(s.variance * (double)(j->pixels * j->per));
    }
}

at_status at_cpu_ref_group_stats(void *stream, const at_group_norm_args *a)
{
    group_job j = {.a = a, .x = at_cpu_rank(&a->x, 3)};

    (void)stream;
    j.pixels = j.x.shape[1];
    j.channels = j.x.shape[2];
    j.per = j.channels / a->groups;
    at_parallel_for(j.x.shape[0] * a->groups, 1, stats_range, &j);
    return AT_OK;
}
