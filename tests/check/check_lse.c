// SPDX-License-Identifier: Apache-2.0
// check_lse.c - rows of what ring attention adds: a row's log-sum-exp, and two results that become one.
// Idea: attention_lse judges the log-sum-exp of the attention slot (its result is judged by check_attention.c);
// attention_merge judges either what it makes of two results or of their log-sum-exps. Truth in double.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

enum {
    CAUSAL = 1,
    MASK = 2, // zeros and -inf, rows may be masked everywhere
    FP8 = 4,
    STRIDED = 8,
    IN_PLACE = 16,
    JUDGE_LSE = 32, // of a merge: its log-sum-exp is what is looked at
    UNSEEN = 64,    // of a merge: some rows have seen nothing on either side, or on both
    BENCH = 128
};

typedef struct lse_row {
    int64_t b, tq, tk, h, d;
    at_dtype in;
    unsigned flags;
    ck_fill fill;
} lse_row;

static const lse_row lse_rows[] = {
    {1, 1, 1, 1, 1, AT_F32},
    {2, 33, 77, 3, 40, AT_F32},
    {1, 9, 5, 2, 64, AT_F32, CAUSAL}, // the first rows see nothing
    {2, 20, 65, 2, 64, AT_F32, MASK},
    {2, 70, 300, 2, 512, AT_F32}, // wide heads: by matmuls
    {1, 3, 17001, 2, 264, AT_BF16},
    {1, 130, 301, 3, 128, AT_BF16},
    {2, 129, 193, 2, 64, AT_F16},
    {2, 65, 40, 2, 64, AT_BF16}, // few keys
    {1, 70, 77, 2, 80, AT_BF16, MASK},
    {1, 70, 130, 1, 256, AT_F16, CAUSAL},
    {1, 40, 300, 2, 64, AT_BF16, 0, CK_WIDE},
    {2, 17, 0, 2, 64, AT_F32},
    {1, 17, 0, 2, 64, AT_BF16},
    {1, 2048, 2051, 1, 128, AT_BF16, FP8},
};

static const char *lse_label(int row, char out[160])
{
    const lse_row *r = &lse_rows[row];
    snprintf(out, 160, "b%lld q%lld k%lld h%lld d%lld %s%s%s%s fill%d", (long long)r->b,
             (long long)r->tq, (long long)r->tk, (long long)r->h, (long long)r->d,
             ck_dtype_name(r->in), r->flags & CAUSAL ? " causal" : "",
             r->flags & MASK ? " mask" : "", r->flags & FP8 ? " fp8" : "", (int)r->fill);
    return out;
}

static bool lse_bench(int row)
{
    return lse_rows[row].flags & BENCH;
}

static void lse_build(ck_run *r, int row)
{
    const lse_row *c = &lse_rows[row];
    at_attention_args *a = &r->a.attention;

    a->lse = ck_make(r, AT_F32, CK_SHAPE(c->b, c->h, c->tq), (ck_layout){0}, CK_UNIT);
    a->out = ck_make(r, c->in, CK_SHAPE(c->b, c->tq, c->h, c->d), (ck_layout){0}, CK_UNIT);
    r->t[1].also_written = true;
    a->q = ck_make(r, c->in, CK_SHAPE(c->b, c->tq, c->h, c->d), (ck_layout){0}, c->fill);
    a->k = ck_make(r, c->in, CK_SHAPE(c->b, c->tk, c->h, c->d), (ck_layout){0}, CK_UNIT);
    a->v = ck_make(r, c->in, CK_SHAPE(c->b, c->tk, c->h, c->d), (ck_layout){0}, CK_UNIT);
    if (c->flags & MASK)
        a->bias = ck_make(r, AT_F32, CK_SHAPE(c->b, c->h, c->tq, c->tk), (ck_layout){0}, CK_MASK);
    a->scale = (float)(1 / sqrt((double)c->d));
    a->causal = c->flags & CAUSAL;
    a->fp8 = c->flags & FP8;
    r->flops = 2.0 * (double)(c->b * c->h * c->tq) * (double)(c->tk * c->d);
}

static at_status lse_call(const at_backend *b, ck_run *r)
{
    return b->attention(r->stream, &r->a.attention);
}

// A tensor [b, t, h, d] of the row, which is dense, as doubles; NULL: no memory.
static double *values(const at_view *v)
{
    int64_t n = ck_count(v);
    double *out = malloc((size_t)(n + 1) * sizeof *out);

    for (int64_t i = 0; out && i < n; i++)
        out[i] = ck_value(v, i);
    return out;
}

// Scores of a query over all keys into s; *mag: the largest sum of their terms' sizes, *squares: of their squares.
static double scores(const at_attention_args *a, const double *q, const double *k, int64_t row,
                     double *s, double *mag, double *squares)
{
    int64_t tq = a->q.shape[1], tk = a->k.shape[1], heads = a->q.shape[2], d = a->q.shape[3];
    int64_t i = row % tq, h = row / tq % heads, b = row / tq / heads;
    const double *x = q + ((b * tq + i) * heads + h) * d;
    double most = -INFINITY;

    *mag = *squares = 0;
    for (int64_t t = 0; t < tk; t++) {
        const double *y = k + ((b * tk + t) * heads + h) * d;
        double sum = 0, m = 0, sq = 0;
        for (int64_t c = 0; c < d; c++) {
            double p = x[c] * y[c] * (double)a->scale;
            sum += p;
            m += fabs(p);
            sq += p * p;
        }
        if (a->bias.data) sum += ck_value(&a->bias, row * tk + t);
        s[t] = a->causal && t > i + tk - tq ? -INFINITY : sum;
        *mag = fmax(*mag, m);
        *squares = fmax(*squares, sq);
        most = fmax(most, s[t]);
    }
    return most;
}

// An error of a score is one of the result, as are six deviations of its terms where q and k are rounded to e4m3
// (see check_attention.c); each exponential errs by a few ulps, which is an error of their sum's logarithm.
static void lse_truth(ck_run *r)
{
    const at_attention_args *a = &r->a.attention;
    int64_t tk = a->k.shape[1];
    double *s = malloc((size_t)(tk + 1) * sizeof *s), *q = values(&a->q), *k = values(&a->k);

    for (int64_t row = 0; s && q && k && row < ck_count(&a->lse); row++) {
        double mag, squares, sum = 0, max = scores(a, q, k, row, s, &mag, &squares);
        for (int64_t t = 0; t < tk && max > -INFINITY; t++)
            sum += exp(s[t] - max);
        r->truth[row] = sum > 0 ? max + log(sum) : -INFINITY;
        r->mag[row] = 1 + mag;
        if (a->fp8) r->mag[row] += 6 * 0x1p-4 / sqrt(3) * sqrt(2 * squares) / ck_attention_lse.sum;
    }
    free(s);
    free(q);
    free(k);
}

// 2e-6: as attention, and the logarithm.
const ck_op ck_attention_lse = {.name = "attention_lse",
                                .slot = offsetof(at_backend, attention),
                                .sum = 2e-6,
                                .rows = sizeof lse_rows / sizeof *lse_rows,
                                .label = lse_label,
                                .bench_only = lse_bench,
                                .build = lse_build,
                                .call = lse_call,
                                .truth = lse_truth};

// --- merging -------------------------------------------------------------------------------------
static const struct {
    int64_t b, t, h, d;
    at_dtype a, part, out;
    unsigned flags;
} merge_rows[] = {
    {1, 1, 1, 1, AT_F32, AT_F32, AT_F32},
    {2, 5, 3, 40, AT_F32, AT_F32, AT_F32},
    {2, 5, 3, 40, AT_F32, AT_F32, AT_F32, JUDGE_LSE},
    {2, 7, 3, 33, AT_F32, AT_F32, AT_F32, IN_PLACE | STRIDED | UNSEEN},
    {2, 7, 3, 33, AT_F32, AT_BF16, AT_F32, JUDGE_LSE | UNSEEN},
    {1, 77, 4, 128, AT_BF16, AT_BF16, AT_BF16, IN_PLACE},
    {1, 77, 4, 128, AT_F32, AT_BF16, AT_BF16},
    {1, 77, 4, 128, AT_BF16, AT_BF16, AT_F32, UNSEEN},
    {2, 31, 2, 512, AT_F32, AT_BF16, AT_F32, IN_PLACE | JUDGE_LSE},
    {1, 31, 2, 264, AT_F16, AT_F16, AT_F16, STRIDED},
    {1, 2304, 24, 128, AT_BF16, AT_BF16, AT_BF16, IN_PLACE | BENCH}, // half of Flux.1 1024x1024
    {1, 2304, 24, 128, AT_F32, AT_BF16, AT_F32, IN_PLACE | BENCH},
};

static const char *merge_label(int row, char out[160])
{
    snprintf(out, 160, "[%lld,%lld,%lld,%lld] a%d b%d out%d flags%u", (long long)merge_rows[row].b,
             (long long)merge_rows[row].t, (long long)merge_rows[row].h,
             (long long)merge_rows[row].d, merge_rows[row].a, merge_rows[row].part,
             merge_rows[row].out, merge_rows[row].flags);
    return out;
}

static bool merge_bench(int row)
{
    return merge_rows[row].flags & BENCH;
}

// In every fifth row one side has seen nothing, in every tenth neither.
static void unsee(at_view lse, int side)
{
    for (int64_t i = 0; i < ck_count(&lse); i++)
        if (i % 10 == 0 || i % 5 == 2 * side) ((float *)lse.data)[i] = -INFINITY;
}

static void merge_build(ck_run *r, int row)
{
    at_attention_merge_args *a = &r->a.merge;
    int64_t b = merge_rows[row].b, t = merge_rows[row].t, h = merge_rows[row].h,
            d = merge_rows[row].d;
    unsigned flags = merge_rows[row].flags;
    ck_layout l = {.pad = flags & STRIDED ? 3 : 0}, dense = {0};

    if (flags & JUDGE_LSE) a->out_lse = ck_make(r, AT_F32, CK_SHAPE(b, h, t), dense, CK_WIDE);
    a->out = ck_make(r, merge_rows[row].out, CK_SHAPE(b, t, h, d), l, CK_UNIT);
    r->t[r->n - 1].also_written = true;
    if (!(flags & JUDGE_LSE)) {
        a->out_lse = ck_make(r, AT_F32, CK_SHAPE(b, h, t), dense, CK_WIDE);
        r->t[r->n - 1].also_written = true;
    }
    a->a =
        flags & IN_PLACE ? a->out : ck_make(r, merge_rows[row].a, CK_SHAPE(b, t, h, d), l, CK_UNIT);
    a->a_lse =
        flags & IN_PLACE ? a->out_lse : ck_make(r, AT_F32, CK_SHAPE(b, h, t), dense, CK_WIDE);
    a->b = ck_make(r, merge_rows[row].part, CK_SHAPE(b, t, h, d), l, CK_UNIT);
    a->b_lse = ck_make(r, AT_F32, CK_SHAPE(b, h, t), dense, CK_WIDE);
    if (flags & UNSEEN) unsee(a->a_lse, 0);
    if (flags & UNSEEN) unsee(a->b_lse, 1);
    r->bytes = (double)(b * t * h * d) *
               (double)(ck_size(a->a.dtype) + ck_size(a->b.dtype) + ck_size(a->out.dtype));
}

static at_status merge_call(const at_backend *b, ck_run *r)
{
    return b->attention_merge(r->stream, &r->a.merge);
}

static void merge_truth(ck_run *r)
{
    const at_attention_merge_args *a = &r->a.merge;
    int64_t t = a->out.shape[1], h = a->out.shape[2], d = a->out.shape[3];
    bool lse = r->t[0].v.rank == 3;

    for (int64_t i = 0; i < ck_count(&r->t[0].v); i++) {
        int64_t up = i / d, row = lse ? i : (up / h / t * h + up % h) * t + up / h % t;
        double x = ck_value(&a->a_lse, row), y = ck_value(&a->b_lse, row), max = fmax(x, y);
        double wx = max > -INFINITY ? exp(x - max) : 0, wy = max > -INFINITY ? exp(y - max) : 0;
        if (lse) {
            r->truth[i] = max > -INFINITY ? max + log(wx + wy) : -INFINITY;
            r->mag[i] = 1 + (max > -INFINITY ? fabs(max) : 0);
            continue;
        }
        double sum = wx + wy > 0 ? wx + wy : 1;
        double u = wx / sum * ck_value(&a->a, ck_offset(&a->a, i));
        double v = wy / sum * ck_value(&a->b, ck_offset(&a->b, i));
        r->truth[i] = u + v;
        r->mag[i] = fabs(u) + fabs(v);
    }
}

// A weight errs by that of a difference of up to 24: two ulps of it, and a few of the exponential.
const ck_op ck_attention_merge = {.name = "attention_merge",
                                  .slot = offsetof(at_backend, attention_merge),
                                  .sum = 4e-6,
                                  .rows = sizeof merge_rows / sizeof *merge_rows,
                                  .label = merge_label,
                                  .bench_only = merge_bench,
                                  .build = merge_build,
                                  .call = merge_call,
                                  .truth = merge_truth};
