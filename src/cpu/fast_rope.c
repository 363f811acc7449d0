// SPDX-License-Identifier: Apache-2.0
// fast_rope.c - RMS norm of each head and rotation over a table of leaves.
// Idea: a head is a short row: it is loaded, normalised and rotated while it lies in one buffer.
// Owns nothing; scratch lives for one range.
#include <math.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/thread.h"
#include "cpu/cpu_impl.h"
#include "cpu/kernels.h"

typedef struct rope_job {
    const at_cpu_kernels *k;
    const at_rope_args *a;
    const float *weight; // f32, scale applied, or NULL
    int64_t tokens, heads, dim;
    bool per_batch;
    at_cpu_oom oom;
} rope_job;

static void rope_head(const rope_job *j, float *row, int64_t from, int64_t to, int64_t table_row)
{
    const at_view *x = &j->a->x, *o = &j->a->out;
    float *y = o->dtype == AT_F32 ? (float *)o->data + to : row;
    const float *v = at_cpu_row(j->k, row, x->data, x->dtype, from, 1, j->dim);

    if (j->weight) {
        double mean = (double)j->k->squares(v, 0, j->dim) / (double)j->dim;
        float rstd = (float)(1.0 / sqrt(mean + (double)j->a->eps));
        j->k->norm(y, v, j->dim, 0, rstd, j->weight, NULL, NULL, NULL);
    } else if (v != y) {
        j->k->store(y, AT_F32, 0, 1, v, j->dim);
    }
    if (j->a->cos.data)
        j->k->rotate(y, (const float *)j->a->cos.data + table_row * (j->dim / 2),
                     (const float *)j->a->sin.data + table_row * (j->dim / 2), j->dim / 2,
                     j->a->halves);
    if (y == row) j->k->store(o->data, o->dtype, to, 1, row, j->dim);
}

static void rope_range(void *ctx, int64_t begin, int64_t end)
{
    rope_job *j = ctx;
    const int64_t *xs = j->a->x.stride, *os = j->a->out.stride;
    float *row = at_cpu_scratch(&j->oom, at_alloc((size_t)j->dim * sizeof *row));

    if (!row) return;
    for (int64_t r = begin; r < end; r++) {
        int64_t t = r % j->tokens, b = r / j->tokens;
        for (int64_t h = 0; h < j->heads; h++)
            rope_head(j, row, b * xs[0] + t * xs[1] + h * xs[2], b * os[0] + t * os[1] + h * os[2],
                      j->per_batch ? r : t);
    }
    at_free(row);
}

at_status at_cpu_fast_rope(const at_cpu_kernels *k, const at_rope_args *a)
{
    rope_job j = {
        .k = k, .a = a, .tokens = a->x.shape[1], .heads = a->x.shape[2], .dim = a->x.shape[3]};
    float *weight = NULL;

    if (a->weight.v.data) {
        weight = at_alloc((size_t)j.dim * sizeof *weight);
        if (!weight) return at_fail(AT_ENOMEM, "rope: no memory for %lld floats", (long long)j.dim);
        k->load(weight, a->weight.v.data, a->weight.v.dtype, 0, 1, j.dim);
        if (a->weight.scale != 1.0f) k->scale(weight, a->weight.scale, j.dim);
        j.weight = weight;
    }
    j.per_batch = a->cos.data && a->x.shape[0] > 1 && a->cos.shape[0] == a->x.shape[0] * j.tokens;
    at_parallel_for(a->x.shape[0] * j.tokens, 1 + 8192 / (j.heads * j.dim + 1), rope_range, &j);
    at_free(weight);
    return at_cpu_oom_status(&j.oom, "rope");
}
