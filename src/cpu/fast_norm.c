// SPDX-License-Identifier: Apache-2.0
// fast_norm.c - layer, RMS and group norm, and rope, over a table of leaves.
// Idea: rows are taken in pieces that fit the first cache; moments of pieces are summed in double.
// Group norm reads its input twice: blocks of pixels give per-channel means and squares around
// them, merged by Chan, Golub & LeVeque (1983); then one affine map per channel, with the
// activation.
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
    at_view x, out;
    const float *weight, *bias; // [dim] f32, weight scale applied
    const float *scale, *shift; // [batch, dim] f32
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

static void norm_range(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    float y[PIECE];

    for (int64_t r = begin; r < end; r++) {
        int64_t b = r / j->tokens, token = r % j->tokens;
        int64_t xo = b * at_cpu_step(&j->x, 0) + token * at_cpu_step(&j->x, 1);
        int64_t oo = b * at_cpu_step(&j->out, 0) + token * at_cpu_step(&j->out, 1);
        moments m = row_moments(j, xo);
        for (int64_t c = 0; c < j->dim; c += PIECE) {
            int64_t n = at_most(PIECE, j->dim - c), mod = b * j->dim + c;
            const float *x = at_cpu_row(j->k, y, j->x.data, j->x.dtype, xo + c, 1, n);
            float *to = j->out.dtype == AT_F32 ? (float *)j->out.data + oo + c : y;
            j->k->norm(to, x, n, m.mean, m.rstd, j->weight ? j->weight + c : NULL,
                       j->bias ? j->bias + c : NULL, j->scale ? j->scale + mod : NULL,
                       j->shift ? j->shift + mod : NULL);
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

// An optional [batch, dim] modulation as contiguous f32 in `out`.
static const float *modulation(const at_cpu_kernels *k, const at_view *v, int64_t batch,
                               int64_t dim, float *out)
{
    at_view m = at_cpu_rank(v, 2);

    if (!v->data) return NULL;
    for (int64_t b = 0; b < batch; b++)
        k->load(out + b * dim, m.data, m.dtype, b * at_cpu_step(&m, 0), m.stride[1], dim);
    return out;
}

at_status at_cpu_fast_norm(const at_cpu_kernels *k, const at_norm_args *a)
{
    norm_job j = {.k = k, .a = a, .x = at_cpu_rank(&a->x, 3), .out = at_cpu_rank(&a->out, 3)};
    int64_t batch = j.x.shape[0], floats;
    float *vectors;

    j.tokens = j.x.shape[1];
    j.dim = j.x.shape[2];
    floats = 2 * (batch + 1) * j.dim;
    vectors = at_alloc((size_t)floats * sizeof *vectors);
    if (!vectors) return at_fail(AT_ENOMEM, "norm: no memory for %lld floats", (long long)floats);
    j.weight = vector(k, &a->weight, j.dim, vectors);
    j.bias = vector(k, &a->bias, j.dim, vectors + j.dim);
    j.scale = modulation(k, &a->mod_scale, batch, j.dim, vectors + 2 * j.dim);
    j.shift = modulation(k, &a->mod_shift, batch, j.dim, vectors + (2 + batch) * j.dim);
    at_parallel_for(batch * j.tokens, 1 + 8192 / (j.dim + 1), norm_range, &j);
    at_free(vectors);
    return AT_OK;
}

// --- group norm ---------------------------------------------------------------------------------
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

// Pixels [p, p + n) of image b as f32 rows: where they lie, or converted into buf. Sets the pitch.
static const float *pixels_at(const group_job *j, int64_t b, int64_t p, int64_t n, float *buf,
                              int64_t *pitch)
{
    int64_t step = at_cpu_step(&j->x, 1), first = b * at_cpu_step(&j->x, 0) + p * step;

    if (j->x.dtype == AT_F32) {
        *pitch = step;
        return (const float *)j->x.data + first;
    }
    *pitch = j->channels;
    if (step == j->channels) {
        j->k->load(buf, j->x.data, j->x.dtype, first, 1, n * j->channels);
    } else {
        for (int64_t i = 0; i < n; i++)
            j->k->load(buf + i * j->channels, j->x.data, j->x.dtype, first + i * step, 1,
                       j->channels);
    }
    return buf;
}

static float *block_scratch(group_job *j)
{
    return at_cpu_scratch(&j->oom, at_alloc((size_t)(j->block * j->channels) * sizeof(float)));
}

static void stats_range(void *ctx, int64_t begin, int64_t end)
{
    group_job *j = ctx;
    int64_t ch = j->channels, pitch;
    float *buf = block_scratch(j);

    if (!buf) return;
    for (int64_t i = begin; i < end; i++) {
        int64_t p = i % j->blocks * j->block, n = at_most(j->block, j->pixels - p);
        const float *x = pixels_at(j, i / j->blocks, p, n, buf, &pitch);
        float *mean = j->mean + i * ch, *sq = j->squares + i * ch;
        memset(mean, 0, (size_t)ch * sizeof *mean);
        memset(sq, 0, (size_t)ch * sizeof *sq);
        j->k->channel_sum(mean, x, ch, n, pitch);
        j->k->scale(mean, 1.0f / (float)n, ch);
        j->k->channel_squares(sq, x, mean, ch, n, pitch);
    }
    at_free(buf);
}

static double added(const at_group_norm_args *a, int64_t b, int64_t c)
{
    return a->add.data ? (double)at_cpu_get(&a->add, b * at_cpu_step(&a->add, 0) + c) : 0;
}

// Merge the blocks of one group: total squares = squares within + squares between the block means.
static at_cpu_spread merge_group(const group_job *j, int64_t b, int64_t c0, int64_t per)
{
    double mean = 0, sq = 0, total = (double)(j->pixels * per);

    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < j->blocks; i++) {
            int64_t row = (b * j->blocks + i) * j->channels;
            double n = (double)at_most(j->block, j->pixels - i * j->block);
            for (int64_t c = c0; c < c0 + per; c++) {
                double d = (double)j->mean[row + c] + added(j->a, b, c) - mean;
                if (pass == 0) sq += n * d;
                if (pass == 1) sq += n * d * d + (double)j->squares[row + c];
            }
        }
        if (pass == 0) {
            mean = sq / total;
            sq = 0;
        }
    }
    return (at_cpu_spread){mean, sq / total};
}

static void tell_range(void *ctx, int64_t begin, int64_t end)
{
    const group_job *j = ctx;
    int64_t groups = j->a->groups, per = j->channels / groups;

    for (int64_t g = begin; g < end; g++) {
        at_cpu_spread s = merge_group(j, g / groups, g % groups * per, per);
        float *out = (float *)j->a->out.data + 2 * g;
        out[0] = (float)s.mean;
        out[1] = (float)(s.variance * (double)(j->pixels * per));
    }
}

static void merge_range(void *ctx, int64_t begin, int64_t end)
{
    const group_job *j = ctx;
    const at_group_norm_args *a = j->a;
    int64_t per = j->channels / a->groups;

    for (int64_t g = begin; g < end; g++) {
        int64_t b = g / a->groups, c0 = g % a->groups * per;
        at_cpu_spread s =
            a->parts.data ? at_cpu_merge_parts(a, b, g % a->groups) : merge_group(j, b, c0, per);
        moments m = {(float)s.mean, (float)(1.0 / sqrt(s.variance + (double)a->eps))};
        for (int64_t c = c0; c < c0 + per; c++) {
            float w = a->weight.v.data ? at_cpu_get(&a->weight.v, c) * a->weight.scale : 1.0f;
            float shift = a->bias.v.data ? at_cpu_get(&a->bias.v, c) * a->bias.scale : 0.0f;
            j->mul[b * j->channels + c] = m.rstd * w;
            j->add[b * j->channels + c] =
                (float)((double)shift +
                        (added(a, b, c) - (double)m.mean) * (double)m.rstd * (double)w);
        }
    }
}

static void apply_range(void *ctx, int64_t begin, int64_t end)
{
    group_job *j = ctx;
    int64_t ch = j->channels, step = at_cpu_step(&j->out, 1), pitch;
    float *buf = block_scratch(j);

    if (!buf) return;
    for (int64_t i = begin; i < end; i++) {
        int64_t b = i / j->blocks, p = i % j->blocks * j->block,
                n = at_most(j->block, j->pixels - p);
        const float *x = pixels_at(j, b, p, n, buf, &pitch);
        int64_t to = b * at_cpu_step(&j->out, 0) + p * step;
        bool f32 = j->out.dtype == AT_F32;
        j->k->channel_affine(f32 ? (float *)j->out.data + to : buf, f32 ? step : ch, x, pitch,
                             j->mul + b * ch, j->add + b * ch, ch, n, j->a->act);
        for (int64_t r = 0; !f32 && r < n; r++)
            j->k->store(j->out.data, j->out.dtype, to + r * step, 1, buf + r * ch, ch);
    }
    at_free(buf);
}

// The sizes of the map and memory for its sums. AT_OK with blocks 0: there is nothing to do.
static at_status group_open(group_job *j, const char *what, float **scratch)
{
    int64_t stats;

    *scratch = NULL;
    j->batch = j->x.shape[0];
    j->pixels = j->x.shape[1];
    j->channels = j->x.shape[2];
    if (!j->batch || !j->pixels || !j->channels) return AT_OK;
    j->block = 1 + BLOCK_FLOATS / j->channels;
    j->blocks = (j->pixels + j->block - 1) / j->block;
    stats = j->batch * j->blocks * j->channels;
    *scratch = at_alloc((size_t)(2 * (stats + j->batch * j->channels)) * sizeof **scratch);
    if (!*scratch) return at_fail(AT_ENOMEM, "%s: no memory for %lld sums", what, (long long)stats);
    j->mean = *scratch;
    j->squares = *scratch + stats;
    j->mul = *scratch + 2 * stats;
    j->add = j->mul + j->batch * j->channels;
    return AT_OK;
}

at_status at_cpu_fast_group_norm(const at_cpu_kernels *k, const at_group_norm_args *a)
{
    group_job j = {.k = k, .a = a, .x = at_cpu_rank(&a->x, 3), .out = at_cpu_rank(&a->out, 3)};
    float *scratch;
    at_status st = group_open(&j, "group_norm", &scratch);

    if (st != AT_OK || !j.blocks) return st;
    if (!a->parts.data) at_parallel_for(j.batch * j.blocks, 2, stats_range, &j);
    at_parallel_for(j.batch * a->groups, 1 + 4096 / (j.blocks + 1), merge_range, &j);
    at_parallel_for(j.batch * j.blocks, 2, apply_range, &j);
    at_free(scratch);
    return at_cpu_oom_status(&j.oom, "group_norm");
}

at_status at_cpu_fast_group_stats(const at_cpu_kernels *k, const at_group_norm_args *a)
{
    group_job j = {.k = k, .a = a, .x = at_cpu_rank(&a->x, 3)};
    float *scratch;
    at_status st = group_open(&j, "group_stats", &scratch);

    if (st != AT_OK || !j.blocks) return st;
    at_parallel_for(j.batch * j.blocks, 2, stats_range, &j);
    at_parallel_for(j.batch * a->groups, 1 + 4096 / (j.blocks + 1), tell_range, &j);
    at_free(scratch);
    return at_cpu_oom_status(&j.oom, "group_stats");
}
