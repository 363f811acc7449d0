// SPDX-License-Identifier: Apache-2.0
// cpu_rope.c - rotary embedding with an optional RMS norm of each head before it, in plain C.
// Source: Su et al. 2021, arXiv:2104.09864. Easy to get wrong: FLUX pairs neighbours, others
// halves. Owns nothing; scratch lives for one range.
#include <math.h>

#include "base/mem.h"
#include "base/thread.h"
#include "cpu/cpu_impl.h"

typedef struct rope_job {
    const at_rope_args *a;
    int64_t tokens, heads, dim;
    bool per_batch; // the tables have a row for each (batch, token)
    at_cpu_oom oom;
} rope_job;

static void rms_row(const rope_job *j, float *x)
{
    const at_wview *w = &j->a->weight;
    double sq = 0;
    float rstd;

    for (int64_t c = 0; c < j->dim; c++)
        sq += (double)x[c] * (double)x[c];
    rstd = (float)(1.0 / sqrt(sq / (double)j->dim + (double)j->a->eps));
    for (int64_t c = 0; c < j->dim; c++)
        x[c] *= rstd * (at_cpu_get(&w->v, c) * w->scale);
}

static void rotate_row(const rope_job *j, float *x, int64_t table_row)
{
    int64_t half = j->dim / 2;
    const float *cs = (const float *)j->a->cos.data + table_row * half;
    const float *sn = (const float *)j->a->sin.data + table_row * half;

    for (int64_t p = 0; p < half; p++) {
        float *u = j->a->halves ? x + p : x + 2 * p;
        float *v = j->a->halves ? x + p + half : x + 2 * p + 1;
        float a = *u, b = *v;
        *u = a * cs[p] - b * sn[p];
        *v = b * cs[p] + a * sn[p];
    }
}

static void rope_range(void *ctx, int64_t begin, int64_t end)
{
    rope_job *j = ctx;
    const at_view *x = &j->a->x, *o = &j->a->out;
    float *row = at_cpu_scratch(&j->oom, at_alloc((size_t)j->dim * sizeof *row));

    if (!row) return;
    for (int64_t r = begin; r < end; r++) {
        int64_t h = r % j->heads, t = r / j->heads % j->tokens, b = r / j->heads / j->tokens;
        at_cpu_load(row, x->data, x->dtype, b * x->stride[0] + t * x->stride[1] + h * x->stride[2],
                    1, j->dim);
        if (j->a->weight.v.data) rms_row(j, row);
        if (j->a->cos.data) rotate_row(j, row, j->per_batch ? b * j->tokens + t : t);
        at_cpu_store(o->data, o->dtype, b * o->stride[0] + t * o->stride[1] + h * o->stride[2], 1,
                     row, j->dim);
    }
    at_free(row);
}

at_status at_cpu_ref_rope(void *stream, const at_rope_args *a)
{
    rope_job j = {.a = a, .tokens = a->x.shape[1], .heads = a->x.shape[2], .dim = a->x.shape[3]};

    (void)stream;
    j.per_batch = a->cos.data && a->x.shape[0] > 1 && a->cos.shape[0] == a->x.shape[0] * j.tokens;
    at_parallel_for(a->x.shape[0] * j.tokens * j.heads, 1 + 4096 / (j.dim + 1), rope_range, &j);
    return at_cpu_oom_status(&j.oom, "rope");
}
