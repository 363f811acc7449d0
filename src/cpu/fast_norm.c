// SPDX-License-Identifier: Apache-2.0
// fast_norm.c - layer, RMS and group norm, and rope, over a table of leaves.
// Idea: rows are taken in pieces that fit the first cache; moments of pieces are summed in double.
// Group norm reads its input twice: blocks of pixels give per-channel means and squares around them,
// merged by Chan, Golub & LeVeque (1983); then one affine map per channel, with the activation.
// Owns nothing; scratch lives for one call.
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/thread.h"
#include "cpu/cpu_impl.h"
#include "cpu/kernels.h"

enum { PIECE = 1024 };

static int64_t at_most(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

typedef struct norm_job {
    const at_cpu_kernels *k;
    const at_norm_args *a;
    at_view x, out, scale, shift;
    const float *weight, *bias; // f32, weight scale applied
    int64_t tokens, dim;
} norm_job;

typedef struct moments {
    float mean, rstd;
} moments;

static moments row_moments(const norm_job *j, int64_t first)
{
    double sum = 0, sq = 0, n = (double)j->dim;
    float buf[PIECE], mean = 0;

    for (int pass = j->a->rms ? 1 : 0; pass < 2; pass++) {
        for (int64_t c = 0; c < j->dim; c += PIECE) {
            int64_t len = at_most(PIECE, j->dim - c);
            const float *x = at_cpu_row(j->k, buf, j->x.data, j->x.dtype, first + c, 1, len);
            if (pass == 0) {
                sum += (double)j->k->sum(x, len);
            } else {
                sq += (double)j->k->squares(x, mean, len);
            }
        }
        if (pass == 0) mean = (float)(sum / n);
    }
    // The mean was rounded to f32; take away what that added.
    if (!j->a->rms) sq -= n * ((double)mean - sum / n) * ((double)mean - sum / n);
    return (moments){mean, (float)(1.0 / sqrt(sq / n + (double)j->a->eps))};
}

static const float *modulation(const norm_job *j, const at_view *v, int64_t b, int64_t c, int64_t n,
                               float *buf)
{
    if (!v->data) return NULL;
    return at_cpu_row(j->k, buf, v->data, v->dtype, b * at_cpu_step(v, 0) + c * v->stride[1],
                      v->stride[1], n);
}

static void norm_range(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    float y[PIECE], s[PIECE], t[PIECE];

    for (int64_t r = begin; r < end; r++) {
        int64_t b = r / j->tokens, token = r % j->tokens;
        int64_t xo = b * at_cpu_step(&j->x, 0) + token * at_cpu_step(&j->x, 1);
        int64_t oo = b * at_cpu_step(&j->out, 0) + token * at_cpu_step(&j->out, 1);
        moments m = row_moments(j, xo);
        for (int64_t c = 0; c < j->dim; c += PIECE) {
            int64_t n = at_most(PIECE, j->dim - c);
            const float *x = at_cpu_row(j->k, y, j->x.data, j->x.dtype, xo + c, 1, n);
            float *to = j->out.dtype == AT_F32 ? (float *)j->out.data + oo + c : y;
            j->k->norm(to, x, n, m.mean, m.rstd, j->weight ? j->weight + c : NULL,
                       j->bias ? j->bias + c : NULL, modulation(j, &j->scale, b, c, n, s),
                       modulation(j, &j->shift, b, c, n, t));
            if (to == y) j->k->store(j->out.data, j->out.dtype, oo + c, 1, y, n);
        }
    }
}

// An optional vector of a weight as f32 with its scale; `out` is where it goes.
static const float *vector(const at_cpu_kernels *k, const at_wview *w, int64_t n, float *out)
{
    if (!w->v.data) return NULL;
    k->load(out, w->v.data, w->v.dtype, 0, 1, n);
    if (w->scale != 1.0f) k->scale(out, w->scale, n);
    return out;
}

at_status at_cpu_fast_norm(const at_cpu_kernels *k, const at_norm_args *a)
{
    norm_job j = {.k = k,
                  .a = a,
                  .x = at_cpu_rank(&a->x, 3),
                  .out = at_cpu_rank(&a->out, 3),
                  .scale = at_cpu_rank(&a->mod_scale, 2),
                  .shift = at_cpu_rank(&a->mod_shift, 2)};
    float *vectors;

    j.tokens = j.x.shape[1];
    j.dim = j.x.shape[2];
    vectors = at_alloc((size_t)(2 * j.dim) * sizeof *vectors);
    if (!vectors)
        return at_fail(AT_ENOMEM, "norm: no memory for %lld floats", (long long)(2 * j.dim));
    j.weight = vector(k, &a->weight, j.dim, vectors);
    j.bias = vector(k, &a->bias, j.dim, vectors + j.dim);
    at_parallel_for(j.x.shape[0] * j.tokens, 1 + 8192 / (j.dim + 1), norm_range, &j);
    at_free(vectors);
    return AT_OK;
}

// --- group norm ---------------------------------------------------------------------------------------
enum { BLOCK_FLOATS = 8192 }; // of one block of pixels: 32 KiB, and a block is read twice

typedef struct group_job {
    const at_cpu_kernels *k;
    const at_group_norm_args *a;
    at_view x, out;
    int64_t batch, pixels, channels, block, blocks; // pixels in a block, blocks in an image
    float *mean, *squares;                          // [batch][blocks][channels]
    float *mul, *add;                               // [batch][channels]
    at_cpu_oom oom;
} group_job;

static const float *pixel(const group_job *j, int64_t b, int64_t p, float *buf)
{
    int64_t first = b * at_cpu_step(&j->x, 0) + p * at_cpu_step(&j->x, 1);
    return at_cpu_row(j->k, buf, j->x.data, j->x.dtype, first, 1, j->channels);
}

static void stats_range(void *ctx, int64_t begin, int64_t end)
{
    group_job *j = ctx;
    int64_t ch = j->channels;
    float *buf = at_cpu_scratch(&j->oom, at_alloc((size_t)ch * sizeof *buf));

    if (!buf) return;
    for (int64_t i = begin; i < end; i++) {
        int64_t b = i / j->blocks, p0 = i % j->blocks * j->block;
        int64_t n = at_most(j->block, j->pixels - p0);
        float *mean = j->mean + i * ch, *sq = j->squares + i * ch;
        memset(mean, 0, (size_t)ch * sizeof *mean);
        memset(sq, 0, (size_t)ch * sizeof *sq);
        for (int64_t p = 0; p < n; p++)
            j->k->channel_sum(mean, pixel(j, b, p0 + p, buf), ch);
        j->k->scale(mean, 1.0f / (float)n, ch);
        for (int64_t p = 0; p < n; p++)
            j->k->channel_squares(sq, pixel(j, b, p0 + p, buf), mean, ch);
    }
    at_free(buf);
}

// Merge the blocks of one group: total squares = squares within + squares between the block means.
static moments merge_group(const group_job *j, int64_t b, int64_t c0, int64_t per)
{
    double mean = 0, sq = 0, total = (double)(j->pixels * per);

    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < j->blocks; i++) {
            int64_t row = (b * j->blocks + i) * j->channels;
            double n = (double)at_most(j->block, j->pixels - i * j->block);
            for (int64_t c = c0; c < c0 + per; c++) {
                double d = (double)j->mean[row + c] - mean;
                if (pass == 0) sq += n * d;
                if (pass == 1) sq += n * d * d + (double)j->squares[row + c];
            }
        }
        if (pass == 0) {
            mean = sq / total;
            sq = 0;
        }
    }
    return (moments){(float)mean, (float)(1.0 / sqrt(sq / total + (double)j->a->eps))};
}

static void merge_range(void *ctx, int64_t begin, int64_t end)
{
    const group_job *j = ctx;
    const at_group_norm_args *a = j->a;
    int64_t per = j->channels / a->groups;

    for (int64_t g = begin; g < end; g++) {
        int64_t b = g / a->groups, c0 = g % a->groups * per;
        moments m = merge_group(j, b, c0, per);
        for (int64_t c = c0; c < c0 + per; c++) {
            float w = a->weight.v.data ? at_cpu_get(&a->weight.v, c) * a->weight.scale : 1.0f;
            float s = a->bias.v.data ? at_cpu_get(&a->bias.v, c) * a->bias.scale : 0.0f;
            j->mul[b * j->channels + c] = m.rstd * w;
            j->add[b * j->channels + c] =
                (float)((double)s - (double)m.mean * (double)m.rstd * (double)w);
        }
    }
}

static void apply_range(void *ctx, int64_t begin, int64_t end)
{
    group_job *j = ctx;
    int64_t ch = j->channels;
    float *buf = at_cpu_scratch(&j->oom, at_alloc((size_t)ch * sizeof *buf));

    if (!buf) return;
    for (int64_t i = begin; i < end; i++) {
        int64_t b = i / j->pixels, p = i % j->pixels;
        int64_t to = b * at_cpu_step(&j->out, 0) + p * at_cpu_step(&j->out, 1);
        float *y = j->out.dtype == AT_F32 ? (float *)j->out.data + to : buf;
        j->k->channel_affine(y, pixel(j, b, p, buf), j->mul + b * ch, j->add + b * ch, ch,
                             j->a->act);
        if (y == buf) j->k->store(j->out.data, j->out.dtype, to, 1, buf, ch);
    }
    at_free(buf);
}

at_status at_cpu_fast_group_norm(const at_cpu_kernels *k, const at_group_norm_args *a)
{
    group_job j = {.k = k, .a = a, .x = at_cpu_rank(&a->x, 3), .out = at_cpu_rank(&a->out, 3)};
    int64_t stats;
    float *scratch;

    j.batch = j.x.shape[0];
    j.pixels = j.x.shape[1];
    j.channels = j.x.shape[2];
    if (!j.batch || !j.pixels || !j.channels) return AT_OK;
    j.block = 1 + BLOCK_FLOATS / j.channels;
    j.blocks = (j.pixels + j.block - 1) / j.block;
    stats = j.batch * j.blocks * j.channels;
    scratch = at_alloc((size_t)(2 * (stats + j.batch * j.channels)) * sizeof *scratch);
    if (!scratch)
        return at_fail(AT_ENOMEM, "group_norm: no memory for %lld sums", (long long)stats);
    j.mean = scratch;
    j.squares = scratch + stats;
    j.mul = scratch + 2 * stats;
    j.add = j.mul + j.batch * j.channels;
    at_parallel_for(j.batch * j.blocks, 2, stats_range, &j);
    at_parallel_for(j.batch * a->groups, 1 + 4096 / (j.blocks + 1), merge_range, &j);
    at_parallel_for(j.batch * j.pixels, 1 + 16384 / j.channels, apply_range, &j);
    at_free(scratch);
    return at_cpu_oom_status(&j.oom, "group_norm");
}
