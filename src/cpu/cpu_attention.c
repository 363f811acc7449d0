// SPDX-License-Identifier: Apache-2.0
// cpu_attention.c - scaled dot product attention in plain C, one query row at a time.
// Idea: the online softmax (Milakov & Gimelshein 2018, arXiv:1805.02867): keys come in blocks, sum
// and result are rescaled when the maximum grows, so no score row is ever stored whole. Results over parts
// of the keys become one by the logarithms of their sums. Owns nothing; scratch lives for one range.
#include <math.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/thread.h"
#include "cpu/cpu_impl.h"

enum { KEYS = 64 };

typedef struct attention_job {
    const at_attention_args *a;
    int64_t heads, tq, tk, d, dv;
    at_cpu_oom oom;
} attention_job;

typedef struct softmax_row {
    float max, sum;
    float *q, *kv, *acc; // [d], [max(d, dv)], [dv]
} softmax_row;

static float score(const attention_job *j, softmax_row *r, int64_t b, int64_t h, int64_t i,
                   int64_t t)
{
    const at_attention_args *a = j->a;
    float s = 0;

    if (a->causal && t > i + (j->tk - j->tq)) return -INFINITY;
    at_cpu_load(r->kv, a->k.data, a->k.dtype,
                b * a->k.stride[0] + t * a->k.stride[1] + h * a->k.stride[2], 1, j->d);
    for (int64_t c = 0; c < j->d; c++)
        s += r->q[c] * r->kv[c];
    s *= a->scale;
    if (a->bias.data)
        s += at_cpu_get(&a->bias, b * at_cpu_step(&a->bias, 0) + h * at_cpu_step(&a->bias, 1) +
                                      i * at_cpu_step(&a->bias, 2) + t * at_cpu_step(&a->bias, 3));
    return s;
}

static void take_block(const attention_job *j, softmax_row *r, int64_t b, int64_t h, int64_t i,
                       int64_t t0, int64_t n)
{
    const at_view *v = &j->a->v;
    float s[KEYS], max = r->max, shrink;

    for (int64_t t = 0; t < n; t++) {
        s[t] = score(j, r, b, h, i, t0 + t);
        if (s[t] > max) max = s[t];
    }
    if (max == -INFINITY) return; // nothing seen yet
    shrink = expf(r->max - max);
    r->sum *= shrink;
    for (int64_t c = 0; c < j->dv; c++)
        r->acc[c] *= shrink;
    for (int64_t t = 0; t < n; t++) {
        float p = expf(s[t] - max);
        if (p == 0) continue;
        at_cpu_load(r->kv, v->data, v->dtype,
                    b * v->stride[0] + (t0 + t) * v->stride[1] + h * v->stride[2], 1, j->dv);
        r->sum += p;
        for (int64_t c = 0; c < j->dv; c++)
            r->acc[c] += p * r->kv[c];
    }
    r->max = max;
}

void at_cpu_give_lse(const at_attention_args *a, int64_t head, int64_t i, float max, float sum)
{
    float *lse = a->lse.data;

    if (lse) lse[head * a->q.shape[1] + i] = sum == 0 ? -INFINITY : max + logf(sum);
}

static void attention_range(void *ctx, int64_t begin, int64_t end)
{
    attention_job *j = ctx;
    const at_view *q = &j->a->q, *o = &j->a->out;
    int64_t wide = j->d > j->dv ? j->d : j->dv;
    float *scratch = at_cpu_scratch(&j->oom, at_alloc((size_t)(3 * wide) * sizeof *scratch));

    if (!scratch) return;
    softmax_row r = {.q = scratch, .kv = scratch + wide, .acc = scratch + 2 * wide};
    for (int64_t row = begin; row < end && !at_cancelled(); row++) {
        int64_t i = row % j->tq, h = row / j->tq % j->heads, b = row / j->tq / j->heads;
        r.max = -INFINITY;
        r.sum = 0;
        at_cpu_load(r.q, q->data, q->dtype, b * q->stride[0] + i * q->stride[1] + h * q->stride[2],
                    1, j->d);
        for (int64_t c = 0; c < j->dv; c++)
            r.acc[c] = 0;
        for (int64_t t = 0; t < j->tk; t += KEYS)
            take_block(j, &r, b, h, i, t, j->tk - t < KEYS ? j->tk - t : KEYS);
        for (int64_t c = 0; c < j->dv; c++)
            r.acc[c] = r.sum > 0 ? r.acc[c] / r.sum : r.sum;
        at_cpu_store(o->data, o->dtype, b * o->stride[0] + i * o->stride[1] + h * o->stride[2], 1,
                     r.acc, j->dv);
        at_cpu_give_lse(j->a, b * j->heads + h, i, r.max, r.sum);
    }
    at_free(scratch);
}

at_status at_cpu_ref_attention(void *stream, const at_attention_args *a)
{
    attention_job j = {.a = a,
                       .heads = a->q.shape[2],
                       .tq = a->q.shape[1],
                       .tk = a->k.shape[1],
                       .d = a->q.shape[3],
                       .dv = a->v.shape[3]};
    (void)stream;
    at_parallel_for(a->q.shape[0] * j.heads * j.tq, 4, attention_range, &j);
    return at_cpu_oom_status(&j.oom, "attention");
}

// --- merging -----------------------------------------------------------------------------------
typedef struct merge_job {
    const at_attention_merge_args *a;
    at_cpu_oom oom;
} merge_job;

static int64_t row_of(const at_view *v, int64_t b, int64_t i, int64_t h)
{
    return b * v->stride[0] + i * v->stride[1] + h * v->stride[2];
}

static void merge_range(void *ctx, int64_t begin, int64_t end)
{
    merge_job *j = ctx;
    const at_attention_merge_args *a = j->a;
    const float *la = a->a_lse.data, *lb = a->b_lse.data;
    int64_t t = a->out.shape[1], heads = a->out.shape[2], d = a->out.shape[3];
    float *scratch = at_cpu_scratch(&j->oom, at_alloc((size_t)(2 * d) * sizeof *scratch));

    if (!scratch) return;
    float *x = scratch, *y = scratch + d;
    for (int64_t row = begin; row < end; row++) {
        int64_t i = row % t, h = row / t % heads, b = row / t / heads;
        float max = la[row] > lb[row] ? la[row] : lb[row], wx = 0, wy = 0, sum = 0;

        if (max > -INFINITY) {
            wx = expf(la[row] - max);
            wy = expf(lb[row] - max);
            sum = wx + wy;
            wx /= sum;
            wy /= sum;
        }
        at_cpu_load(x, a->a.data, a->a.dtype, row_of(&a->a, b, i, h), 1, d);
        at_cpu_load(y, a->b.data, a->b.dtype, row_of(&a->b, b, i, h), 1, d);
        for (int64_t c = 0; c < d; c++)
            x[c] = wx * x[c] + wy * y[c];
        at_cpu_store(a->out.data, a->out.dtype, row_of(&a->out, b, i, h), 1, x, d);
        if (a->out_lse.data)
            ((float *)a->out_lse.data)[row] = sum > 0 ? max + logf(sum) : -INFINITY;
    }
    at_free(scratch);
}

at_status at_cpu_ref_attention_merge(void *stream, const at_attention_merge_args *a)
{
    merge_job j = {.a = a};

    (void)stream;
    at_parallel_for(a->out.shape[0] * a->out.shape[1] * a->out.shape[2], 64, merge_range, &j);
    return at_cpu_oom_status(&j.oom, "attention_merge");
}
