// SPDX-License-Identifier: Apache-2.0
// check_geglu.c - rows of the gated linear unit; truth in double.
#include <math.h>
#include <stdio.h>

#include "check.h"

enum { BIAS = 1, STRIDED = 2, BENCH = 4, PACK = 8, INT8 = 16, FP8 = 32, SPACED = 64 };

typedef struct geglu_row {
    int64_t b, t, k, n; // w is [2n, k]
    at_dtype x, w, out;
    unsigned flags;
    at_act act;
    ck_fill fill;
} geglu_row;

static const geglu_row rows[] = {
    {1, 1, 1, 1, AT_F32, AT_F32, AT_F32, 0, AT_ACT_GELU_ERF},
    {1, 3, 5, 7, AT_F32, AT_F32, AT_F32, BIAS, AT_ACT_GELU_ERF},
    {2, 13, 33, 31, AT_F32, AT_F32, AT_F32, BIAS | STRIDED | PACK, AT_ACT_GELU_ERF},
    {1, 40, 64, 256, AT_F32, AT_F32, AT_F32, BIAS | PACK, AT_ACT_GELU_ERF, CK_WIDE},
    {1, 150, 300, 530, AT_F32, AT_F16, AT_F32, BIAS | PACK, AT_ACT_GELU_ERF},
    {1, 30, 160, 640, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK, AT_ACT_GELU_ERF},
    {2, 9, 97, 41, AT_BF16, AT_BF16, AT_BF16, BIAS | STRIDED | PACK, AT_ACT_GELU_TANH},
    {1, 64, 320, 1280, AT_BF16, AT_F16, AT_BF16, BIAS | PACK, AT_ACT_GELU_ERF},
    {1, 20, 96, 48, AT_F32, AT_BF16, AT_F32, BIAS, AT_ACT_SILU, CK_MIXED},
    {1, 40, 64, 90, AT_F32, AT_F16, AT_F32, BIAS | PACK | INT8, AT_ACT_GELU_ERF},
    {2, 60, 320, 600, AT_BF16, AT_F16, AT_BF16, BIAS | PACK | INT8, AT_ACT_GELU_ERF},
    {2, 60, 320, 256, AT_F16, AT_F16, AT_F16, BIAS | PACK | FP8, AT_ACT_GELU_ERF},
    {1, 33, 256, 300, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK | FP8, AT_ACT_GELU_ERF},
    // one kernel on Hopper: one tile and several a block, tails of rows, columns and depth
    {1, 1, 64, 80, AT_F16, AT_F16, AT_F16, 0, AT_ACT_GELU_ERF},
    {1, 128, 64, 160, AT_F16, AT_F16, AT_F16, BIAS, AT_ACT_GELU_ERF},
    {2, 75, 200, 248, AT_F16, AT_F16, AT_F16, BIAS | SPACED, AT_ACT_GELU_ERF},
    {1, 300, 72, 168, AT_BF16, AT_BF16, AT_BF16, BIAS, AT_ACT_GELU_TANH},
    {3, 45, 1288, 88, AT_BF16, AT_F16, AT_BF16, SPACED, AT_ACT_GELU_TANH, CK_WIDE},
    {1, 1040, 24, 1120, AT_F16, AT_F32, AT_F16, BIAS, AT_ACT_GELU_TANH},
    {1, 8192, 320, 1280, AT_F32, AT_F16, AT_F32, BIAS | PACK | BENCH, AT_ACT_GELU_ERF},
    {1, 8192, 320, 1280, AT_F32, AT_F16, AT_F32, BIAS | PACK | BENCH | INT8, AT_ACT_GELU_ERF},
    {1, 2048, 640, 2560, AT_F32, AT_F16, AT_F32, BIAS | PACK | BENCH, AT_ACT_GELU_ERF},
    {1, 512, 1280, 5120, AT_F32, AT_F16, AT_F32, BIAS | PACK | BENCH, AT_ACT_GELU_ERF},
    {1, 8192, 320, 1280, AT_BF16, AT_F16, AT_BF16, BIAS | PACK | BENCH, AT_ACT_GELU_ERF},
    {1, 8192, 320, 1280, AT_F16, AT_F16, AT_F16, BIAS | BENCH, AT_ACT_GELU_ERF},
    {1, 512, 1280, 5120, AT_F16, AT_F16, AT_F16, BIAS | BENCH, AT_ACT_GELU_ERF},
    {1, 1024, 1280, 5120, AT_F16, AT_F16, AT_F16, BIAS | BENCH, AT_ACT_GELU_ERF},
    {2, 1024, 1280, 5120, AT_F16, AT_F16, AT_F16, BIAS | BENCH, AT_ACT_GELU_ERF},
    {2, 4096, 640, 2560, AT_F16, AT_F16, AT_F16, BIAS | BENCH, AT_ACT_GELU_ERF},
    {1, 512, 4096, 10240, AT_BF16, AT_BF16, AT_BF16, BENCH, AT_ACT_GELU_TANH},
};

static const char *label(int row, char out[160])
{
    const geglu_row *r = &rows[row];
    snprintf(out, 160, "[%lld,%lld,%lld]x2*%lld %s*%s%s%s%s act%d", (long long)r->b,
             (long long)r->t, (long long)r->k, (long long)r->n, ck_dtype_name(r->x),
             ck_dtype_name(r->w), r->flags & (STRIDED | SPACED) ? " strided" : "",
             r->flags & INT8 ? " int8" : "", r->flags & FP8 ? " fp8" : "", (int)r->act);
    return out;
}

static bool bench_only(int row)
{
    return rows[row].flags & BENCH;
}

static void build(ck_run *r, int row)
{
    const geglu_row *c = &rows[row];
    at_geglu_args *a = &r->a.geglu;
    ck_layout l = {.pad = c->flags & STRIDED ? 5 : c->flags & SPACED ? 8 : 0};

    a->out = ck_make(r, c->out, CK_SHAPE(c->b, c->t, c->n), l, CK_UNIT);
    a->x = ck_make(r, c->x, CK_SHAPE(c->b, c->t, c->k), l, c->fill);
    a->w = ck_weight(r, c->w, CK_SHAPE(2 * c->n, c->k), CK_UNIT, 1);
    if (c->flags & PACK) a->w.packed = &r->packed;
    if (c->flags & BIAS) a->bias = ck_weight(r, c->w, CK_SHAPE(2 * c->n), CK_UNIT, 1);
    a->act = c->act;
    a->int8 = c->flags & INT8;
    a->fp8 = c->flags & FP8;
    r->flops = 4.0 * (double)(c->b * c->t * c->k) * (double)c->n;
}

static at_status call(const at_backend *b, ck_run *r)
{
    return b->geglu(r->stream, &r->a.geglu);
}

// One sum and its magnitude: row i of x with row j of w.
static double dot(const at_geglu_args *a, int64_t i, int64_t j, double *mag)
{
    int64_t kk = a->x.shape[2];
    double sum = a->bias.v.data ? ck_value(&a->bias.v, j) : 0;
    ck_q8 q = {0};

    *mag = fabs(sum);
    for (int64_t k = 0; k < kk; k++) {
        double x = ck_value(&a->x, ck_offset(&a->x, i * kk + k)), w = ck_value(&a->w.v, j * kk + k);
        sum += x * w;
        *mag += fabs(x * w);
        ck_q8_add(&q, x, w);
    }
    *mag += ck_bf16_error(&q, a->x.dtype, a->w.v.dtype) / ck_geglu.sum;
    if (a->int8) *mag += ck_q8_error(&q) / ck_geglu.sum;
    if (a->fp8) *mag += ck_f8_error(&q) / ck_geglu.sum;
    // Both halves may be rounded to x's 16-bit format before they meet.
    if (a->x.dtype == a->out.dtype && a->x.dtype != AT_F32)
        *mag += ck_store_error(a->x.dtype) * fabs(sum) / ck_geglu.sum;
    return sum;
}

static void truth(ck_run *r)
{
    const at_geglu_args *a = &r->a.geglu;
    int64_t n = a->out.shape[2];

    for (int64_t i = 0; i < ck_count(&a->out); i++) {
        double mv, mg, v = dot(a, i / n, i % n, &mv), g = dot(a, i / n, n + i % n, &mg);
        r->truth[i] = v * ck_act(g, a->act);
        // Errors of both factors: dv * |act(g)| + |v| * 1.13 * dg, and |act(g)| <= |g| <= mg.
        r->mag[i] = mv * fabs(ck_act(g, a->act)) + fabs(v) * 1.2 * mg;
    }
}

// 1e-6 as linear.
const ck_op ck_geglu = {.name = "geglu",
                        .slot = offsetof(at_backend, geglu),
                        .sum = 1e-6,
                        .rows = sizeof rows / sizeof *rows,
                        .label = label,
                        .bench_only = bench_only,
                        .build = build,
                        .call = call,
                        .truth = truth};
