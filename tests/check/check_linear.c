// SPDX-License-Identifier: Apache-2.0
// check_linear.c - rows of the linear layer: shapes, dtypes, epilogues; truth in double.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

enum {
    BIAS = 1,
    GATE = 2,
    RESIDUAL = 4,
    IN_PLACE = 8,   // out is the residual
    GATE_ONE = 16,  // the gate's stride over batch is 0
    STRIDED = 32,   // x, out and residual have padded rows
    UNALIGNED = 64, // and start off the vector grid
    BENCH = 128,    // too large for truth: timed only
    PACK = 256,     // the weight may be packed
    INT8 = 512,     // and multiplied in int8
    FP8 = 1024,     // or in fp8
    SPLIT = 2048,   // two results: the first third of the columns, and the rest
    ROWS8 = 4096,   // x is fp8 rows
    JOIN = 8192,    // the last third of the rows is a weight of its own
    W8 = 16384      // the weight may be kept in fp8
};

typedef struct linear_row {
    int64_t b, t, k, n;
    at_dtype x, w, out;
    unsigned flags;
    at_act act;
    ck_fill fill;
    float scale; // 0 means 1
} linear_row;

#define ALL (BIAS | GATE | RESIDUAL)
static const linear_row rows[] = {
    // the smallest and the odd
    {1, 1, 1, 1, AT_F32, AT_F32, AT_F32},
    {1, 1, 7, 3, AT_F32, AT_F32, AT_F32, ALL},
    {1, 3, 5, 17, AT_F32, AT_F32, AT_F32, BIAS | PACK},
    {2, 3, 64, 16, AT_F32, AT_F32, AT_F32, ALL | PACK},
    {1, 6, 16, 16, AT_F32, AT_F32, AT_F32, PACK},
    {3, 7, 33, 31, AT_F32, AT_F32, AT_F32, ALL | STRIDED | UNALIGNED | PACK, AT_ACT_SILU},
    {2, 5, 129, 65, AT_F32, AT_F32, AT_F32, ALL | GATE_ONE | IN_PLACE, AT_ACT_GELU_TANH},
    {1, 13, 300, 47, AT_F32, AT_F32, AT_F32, BIAS, AT_ACT_GELU_ERF, CK_WIDE},
    {1, 13, 300, 47, AT_F32, AT_F32, AT_F32, BIAS | PACK, AT_ACT_QUICK_GELU, CK_MIXED},
    {1, 200, 513, 129, AT_F32, AT_F32, AT_F32, ALL | IN_PLACE | PACK},
    {2, 100, 1030, 130, AT_F32, AT_F32, AT_F32, RESIDUAL | PACK | STRIDED},
    {1, 77, 256, 768, AT_F32, AT_F32, AT_F32, BIAS | PACK, AT_ACT_RELU},
    {1, 320, 192, 192, AT_F32, AT_F32, AT_F32, ALL | PACK},
    // dtypes
    {2, 9, 96, 40, AT_F32, AT_BF16, AT_F32, ALL},
    {2, 9, 96, 40, AT_F32, AT_BF16, AT_F32, ALL | PACK},
    {2, 9, 96, 40, AT_BF16, AT_BF16, AT_BF16, ALL | PACK},
    {2, 9, 97, 41, AT_BF16, AT_BF16, AT_BF16, ALL | STRIDED | UNALIGNED | PACK, AT_ACT_SILU},
    {1, 40, 97, 41, AT_BF16, AT_BF16, AT_F32, BIAS, AT_ACT_GELU_TANH},
    {1, 64, 640, 96, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK},
    {1, 300, 520, 80, AT_BF16, AT_BF16, AT_BF16, ALL | PACK, AT_ACT_TANH},
    {1, 40, 97, 41, AT_F32, AT_F16, AT_F32, BIAS | PACK, AT_ACT_TANH},
    {1, 40, 96, 48, AT_F16, AT_F16, AT_F16, BIAS | PACK, AT_ACT_SIGMOID},
    {1, 40, 97, 41, AT_F32, AT_F8E4M3, AT_F32, BIAS | PACK, AT_ACT_NONE, CK_UNIT, 0.013f},
    {1, 40, 256, 64, AT_BF16, AT_F8E4M3, AT_BF16, ALL | PACK, AT_ACT_NONE, CK_UNIT, 1.7f},
    {1, 40, 97, 41, AT_F32, AT_F8E5M2, AT_F32, BIAS, AT_ACT_NONE, CK_UNIT, 0.5f},
    {1, 12, 64, 48, AT_BF16, AT_F32, AT_F32, BIAS | PACK},
    {1, 12, 64, 48, AT_F32, AT_F32, AT_BF16, BIAS | PACK},
    {2, 1, 256, 1536, AT_F32, AT_BF16, AT_F32, BIAS | PACK, AT_ACT_SILU},
    {1, 1, 1000, 33, AT_F32, AT_F16, AT_F32, BIAS},
    {1, 2, 1000, 100, AT_BF16, AT_F8E4M3, AT_F32, BIAS | STRIDED},
    // magnitudes
    {1, 20, 400, 50, AT_F32, AT_F32, AT_F32, BIAS, AT_ACT_NONE, CK_LARGE},
    {1, 20, 400, 50, AT_F32, AT_F32, AT_F32, 0, AT_ACT_NONE, CK_SMALL},
    {1, 20, 400, 50, AT_BF16, AT_BF16, AT_F32, BIAS | PACK, AT_ACT_NONE, CK_MIXED},
    {1, 20, 400, 50, AT_F16, AT_F16, AT_F32, BIAS, AT_ACT_NONE, CK_SMALL},
    {0, 20, 8, 8, AT_F32, AT_F32, AT_F32, BIAS},
    {1, 40, 96, 2048, AT_BF16, AT_F16, AT_BF16, ALL | PACK}, // several blocks of columns
    // int8
    {1, 40, 96, 2048, AT_BF16, AT_F16, AT_BF16, ALL | PACK | INT8},
    {1, 30, 64, 40, AT_F32, AT_F32, AT_F32, BIAS | PACK | INT8},
    {2, 33, 320, 129, AT_F32, AT_F16, AT_F32, ALL | PACK | INT8 | STRIDED, AT_ACT_SILU},
    {1, 150, 1030, 70, AT_F32, AT_F16, AT_F32, BIAS | PACK | INT8},
    {1, 77, 2048, 64, AT_BF16, AT_F8E4M3, AT_BF16, BIAS | PACK | INT8, 0, CK_UNIT, 0.3f},
    {1, 40, 96, 48, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK | INT8, 0, CK_MIXED},
    {1, 40, 97, 48, AT_F32, AT_F16, AT_F32, BIAS | PACK | INT8}, // an odd row
    // two results
    {1, 7, 33, 9, AT_F32, AT_F32, AT_F32, BIAS | SPLIT, AT_ACT_SILU},
    {2, 40, 96, 96, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK | SPLIT, AT_ACT_GELU_TANH},
    {2, 33, 128, 384, AT_F16, AT_F16, AT_F16, PACK | SPLIT | STRIDED, AT_ACT_GELU_ERF},
    {1, 20, 64, 30, AT_BF16, AT_F8E4M3, AT_BF16, BIAS | SPLIT, AT_ACT_GELU_TANH, CK_UNIT, 0.3f},
    // several weights
    {1, 7, 33, 9, AT_F32, AT_F32, AT_F32, JOIN},
    {2, 40, 96, 96, AT_BF16, AT_F16, AT_BF16, PACK | JOIN},
    {2, 33, 128, 384, AT_F16, AT_F16, AT_F16, PACK | JOIN | STRIDED},
    {1, 40, 256, 768, AT_F16, AT_F16, AT_F16, PACK | JOIN | FP8},
    {1, 20, 64, 33, AT_BF16, AT_F8E4M3, AT_BF16, JOIN, AT_ACT_NONE, CK_UNIT, 0.3f},
    // weights in fp8
    {1, 40, 256, 512, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK | W8},
    {2, 9, 272, 300, AT_F16, AT_F16, AT_F16, ALL | PACK | W8},
    {1, 3, 256, 256, AT_F32, AT_F32, AT_F32, BIAS | W8, AT_ACT_SILU},
    {1, 40, 256, 768, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK | W8 | SPLIT, AT_ACT_GELU_TANH},
    {1, 40, 256, 768, AT_BF16, AT_BF16, AT_BF16, PACK | W8 | JOIN},
    {1, 40, 256, 304, AT_BF16, AT_F8E4M3, AT_BF16, BIAS | PACK | W8, 0, CK_UNIT, 1.7f},
    // fp8
    {1, 40, 256, 512, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK | FP8},
    {1, 133, 320, 256, AT_BF16, AT_F16, AT_BF16, ALL | PACK | FP8},
    {2, 33, 1024, 272, AT_F16, AT_F16, AT_F16, ALL | PACK | FP8 | GATE_ONE | IN_PLACE},
    {2, 40, 272, 384, AT_BF16, AT_F32, AT_BF16, BIAS | FP8 | STRIDED, AT_ACT_GELU_TANH},
    {1, 40, 256, 304, AT_BF16, AT_F8E4M3, AT_BF16, ALL | PACK | FP8, AT_ACT_NONE, CK_UNIT, 1.7f},
    {1, 40, 256, 304, AT_BF16, AT_F8E5M2, AT_BF16, BIAS | PACK | FP8, AT_ACT_SILU, CK_UNIT, 0.3f},
    {1, 50, 264, 300, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK | FP8}, // no multiple of 16
    {1, 50, 256, 256, AT_BF16, AT_BF16, AT_F32, BIAS | PACK | FP8},
    {2, 40, 256, 768, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK | FP8 | SPLIT, AT_ACT_GELU_TANH},
    {1, 40, 256, 512, AT_F8E4M3, AT_BF16, AT_BF16, BIAS | PACK | FP8 | ROWS8, 0, CK_LARGE},
    {2, 33, 320, 272, AT_F8E4M3, AT_F16, AT_F16, ALL | PACK | FP8 | ROWS8, AT_ACT_SILU, CK_LARGE},
    {2, 40, 256, 768, AT_F8E4M3, AT_BF16, AT_BF16, BIAS | PACK | FP8 | SPLIT | ROWS8,
     AT_ACT_GELU_TANH, CK_LARGE},
    {1, 40, 256, 40, AT_F8E4M3, AT_F32, AT_BF16, BIAS | PACK | ROWS8}, // no leave any more
    {2, 70, 4608, 16, AT_BF16, AT_BF16, AT_BF16, PACK | FP8},          // rows that stream
    {1, 131, 8208, 16, AT_F16, AT_F16, AT_F16, PACK | FP8},
    {1, 33, 15360, 16, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK | FP8, 0, CK_MIXED},
    // timed
    // Stable Diffusion 1.5 at 512x512, two images
    // small tiles on Hopper (AT_ON=own: wherever they can), tails of rows and columns
    {1, 300, 72, 248, AT_F16, AT_F16, AT_F16, BIAS | RESIDUAL},
    {2, 65, 680, 96, AT_BF16, AT_BF16, AT_BF16, RESIDUAL | IN_PLACE},
    {1, 8192, 320, 320, AT_F32, AT_F16, AT_F32, BIAS | RESIDUAL | PACK | BENCH},
    {1, 2048, 640, 640, AT_F32, AT_F16, AT_F32, BIAS | RESIDUAL | PACK | BENCH},
    {1, 512, 1280, 1280, AT_F32, AT_F16, AT_F32, BIAS | RESIDUAL | PACK | BENCH},
    {1, 8192, 1280, 320, AT_F32, AT_F16, AT_F32, BIAS | RESIDUAL | PACK | BENCH},
    {1, 154, 768, 320, AT_F32, AT_F16, AT_F32, PACK | BENCH},
    {1, 8192, 320, 320, AT_F32, AT_F16, AT_F32, BIAS | RESIDUAL | PACK | BENCH | INT8},
    {1, 2048, 640, 640, AT_F32, AT_F16, AT_F32, BIAS | RESIDUAL | PACK | BENCH | INT8},
    {1, 512, 1280, 1280, AT_F32, AT_F16, AT_F32, BIAS | RESIDUAL | PACK | BENCH | INT8},
    {1, 8192, 320, 320, AT_BF16, AT_F16, AT_BF16, BIAS | RESIDUAL | PACK | BENCH},
    {1, 2048, 640, 640, AT_BF16, AT_F16, AT_BF16, BIAS | RESIDUAL | PACK | BENCH},
    {1, 512, 1280, 1280, AT_BF16, AT_F16, AT_BF16, BIAS | RESIDUAL | PACK | BENCH},
    {1, 512, 1280, 1280, AT_BF16, AT_F16, AT_BF16, BIAS | RESIDUAL | PACK | BENCH | INT8},
    {1, 2048, 640, 640, AT_F16, AT_F16, AT_F16, BIAS | RESIDUAL | BENCH},
    {1, 1024, 1280, 1280, AT_F16, AT_F16, AT_F16, BIAS | RESIDUAL | BENCH},
    {1, 1024, 5120, 1280, AT_F16, AT_F16, AT_F16, BIAS | RESIDUAL | BENCH},
    {1, 154, 768, 3072, AT_F32, AT_F16, AT_F32, BIAS | PACK | BENCH, AT_ACT_QUICK_GELU},
    {1, 4608, 3072, 3072, AT_F32, AT_F32, AT_F32, BIAS | PACK | BENCH},
    {1, 4608, 3072, 3072, AT_F32, AT_BF16, AT_F32, BIAS | PACK | BENCH},
    {1, 4608, 3072, 3072, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK | BENCH},
    {1, 4608, 3072, 12288, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK | BENCH, AT_ACT_GELU_TANH},
    {1, 512, 3072, 3072, AT_BF16, AT_F8E4M3, AT_BF16, BIAS | PACK | BENCH},
    {1, 512, 3072, 3072, AT_F32, AT_F16, AT_F32, BIAS | PACK | BENCH},
    {1, 77, 3072, 3072, AT_F32, AT_BF16, AT_F32, BIAS | PACK | BENCH},
    {1, 8, 3072, 3072, AT_F32, AT_BF16, AT_F32, BIAS | PACK | BENCH},
    {1, 1, 3072, 18432, AT_F32, AT_BF16, AT_F32, BIAS | PACK | BENCH},
    // Flux at 1024x1024
    {1, 4608, 3072, 21504, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK | BENCH | SPLIT,
     AT_ACT_GELU_TANH},
    {1, 4608, 15360, 3072, AT_BF16, AT_BF16, AT_BF16, ALL | PACK | BENCH | IN_PLACE},
    {1, 4608, 3072, 21504, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK | BENCH | SPLIT | FP8,
     AT_ACT_GELU_TANH},
    {1, 4608, 15360, 3072, AT_BF16, AT_BF16, AT_BF16, ALL | PACK | BENCH | IN_PLACE | FP8},
    {1, 4096, 3072, 9216, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK | BENCH | FP8},
    {1, 4096, 3072, 9216, AT_F8E4M3, AT_BF16, AT_BF16, BIAS | PACK | BENCH | FP8 | ROWS8},
    {1, 4096, 3072, 3072, AT_BF16, AT_BF16, AT_BF16, ALL | PACK | BENCH | IN_PLACE | FP8},
    {1, 512, 3072, 9216, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK | BENCH | FP8},
    {1, 320, 256, 768, AT_F32, AT_F32, AT_F32, BIAS | PACK | BENCH},
    {1, 320, 256, 768, AT_F32, AT_BF16, AT_F32, BIAS | PACK | BENCH},
    {1, 320, 256, 1024, AT_F32, AT_BF16, AT_F32, BIAS | PACK | BENCH, AT_ACT_GELU_TANH},
    {1, 320, 1024, 256, AT_F32, AT_BF16, AT_F32, ALL | PACK | BENCH},
    {1, 1, 256, 1536, AT_F32, AT_BF16, AT_F32, BIAS | PACK | BENCH},
};

static const char *label(int row, char out[160])
{
    const linear_row *r = &rows[row];
    snprintf(out, 160, "[%lld,%lld,%lld]x%lld %s*%s->%s%s%s%s%s%s%s%s%s%s%s act%d", (long long)r->b,
             (long long)r->t, (long long)r->k, (long long)r->n, ck_dtype_name(r->x),
             ck_dtype_name(r->w), ck_dtype_name(r->out), r->flags & GATE ? " gate" : "",
             r->flags & RESIDUAL ? " res" : "", r->flags & STRIDED ? " strided" : "",
             r->flags & PACK ? " pack" : "", r->flags & INT8 ? " int8" : "",
             r->flags & FP8 ? " fp8" : "", r->flags & SPLIT ? " split" : "",
             r->flags & ROWS8 ? " rows8" : "", r->flags & JOIN ? " join" : "",
             r->flags & W8 ? " w8" : "", (int)r->act);
    return out;
}

static bool bench_only(int row)
{
    return rows[row].flags & BENCH;
}

// Columns of [b, t, n], and rows of [n, k].
static at_view columns(const at_view *v, int64_t first, int64_t n)
{
    at_view part = *v;
    part.data = (char *)v->data + (size_t)first * ck_size(v->dtype);
    part.shape[2] = n;
    return part;
}

static at_wview rows_of(const at_wview *w, int64_t first, int64_t n)
{
    at_wview part = *w;
    if (!w->v.data) return part;
    part.v.data = (char *)w->v.data + (size_t)(first * w->v.stride[0]) * ck_size(w->v.dtype);
    part.v.shape[0] = n;
    part.packed = NULL;
    return part;
}

static void build(ck_run *r, int row)
{
    const linear_row *c = &rows[row];
    at_linear_args *a = &r->a.linear;
    ck_layout l = {.pad = c->flags & STRIDED ? 5 : 0, .shift = c->flags & UNALIGNED ? 3 : 0};

    a->out = ck_make(r, c->out, CK_SHAPE(c->b, c->t, c->n), l, CK_UNIT);
    a->x = ck_make(r, c->x, CK_SHAPE(c->b, c->t, c->k), l, c->fill);
    if (c->flags & ROWS8) {
        int64_t rows_ = c->b * c->t;
        a->x_scale = ck_make(r, AT_F32, 1, &rows_, (ck_layout){0}, CK_POSITIVE);
    }
    a->w = ck_weight(r, c->w, CK_SHAPE(c->n, c->k), CK_UNIT, c->scale ? c->scale : 1);
    if (c->flags & PACK) a->w.packed = &r->packed;
    if (c->flags & BIAS) a->bias = ck_weight(r, c->w, CK_SHAPE(c->n), c->fill, 1);
    if (c->flags & GATE) {
        l.broadcast = c->flags & GATE_ONE ? 1 : 0;
        l.pad = 0;
        a->gate = ck_make(r, c->out, CK_SHAPE(c->b, c->n), l, CK_UNIT);
    }
    l = (ck_layout){.pad = c->flags & STRIDED ? 2 : 0};
    if (c->flags & IN_PLACE) {
        a->residual = a->out;
    } else if (c->flags & RESIDUAL) {
        a->residual = ck_make(r, c->out, CK_SHAPE(c->b, c->t, c->n), l, CK_UNIT);
    }
    a->act = c->act;
    a->int8 = c->flags & INT8;
    a->fp8 = c->flags & FP8;
    a->w8 = c->flags & W8;
    if (c->flags & JOIN) {
        static at_wview last;
        last = rows_of(&a->w, c->n - c->n / 3, c->n / 3);
        if (c->flags & PACK) last.packed = &r->packed2;
        a->w.v.shape[0] -= c->n / 3;
        a->more = &last;
        a->n_more = 1;
    }
    if (c->flags & SPLIT) {
        a->split = c->n / 3;
        a->out2 = columns(&a->out, a->split, c->n - a->split);
        a->out = columns(&a->out, 0, a->split);
    }
    r->flops = 2.0 * (double)(c->b * c->t * c->k) * (double)c->n;
}

// A backend without fp8 rows gets floats.
static at_status call(const at_backend *b, ck_run *r);
static at_status with_floats(const at_backend *b, const ck_run *r)
{
    at_linear_args a = r->a.linear;
    int64_t n = ck_count(&a.x), k = a.x.shape[2];
    float *wide = malloc((size_t)n * sizeof *wide);
    if (!wide) return at_fail(AT_ENOMEM, "no memory for a row of the check");
    for (int64_t i = 0; i < n; i++)
        wide[i] = (float)(ck_value(&a.x, i) * ck_value(&a.x_scale, i / k));
    a.x.data = wide;
    a.x.dtype = AT_F32;
    a.x_scale.data = NULL;
    ck_run floats = {.stream = r->stream, .a.linear = a};
    at_status st = call(b, &floats);
    free(wide);
    return st;
}

// A backend that joins no weights gets two calls.
static at_status apart(const at_backend *b, const ck_run *r)
{
    at_linear_args a = r->a.linear;
    int64_t n = a.w.v.shape[0];
    at_view all = a.out;
    a.n_more = 0;
    a.out = columns(&all, 0, n);
    at_status st = b->linear(r->stream, &a);
    if (st != AT_OK) return st;
    a.w = r->a.linear.more[0];
    a.out = columns(&all, n, a.w.v.shape[0]);
    return b->linear(r->stream, &a);
}

// A backend without split gets two calls.
static at_status call(const at_backend *b, ck_run *r)
{
    if (r->a.linear.n_more && !b->joins) return apart(b, r);
    if (r->a.linear.x_scale.data && !b->fp8_rows) return with_floats(b, r);
    const at_linear_args *a = &r->a.linear;
    at_linear_args part[2] = {*a, *a};
    at_status st = AT_OK;

    if (!a->split || b->splits) return b->linear(r->stream, a);
    part[0].act = AT_ACT_NONE;
    part[1].out = a->out2;
    for (int i = 0; i < 2 && st == AT_OK; i++) {
        int64_t first = i ? a->split : 0, n = part[i].out.shape[2];
        part[i].split = 0;
        part[i].w = rows_of(&a->w, first, n);
        part[i].bias = rows_of(&a->bias, first, n);
        st = b->linear(r->stream, &part[i]);
    }
    return st;
}

static void truth(ck_run *r)
{
    const at_linear_args *a = &r->a.linear;
    int64_t t = a->out.shape[1], n = r->t[0].v.shape[2], kk = a->x.shape[2];

    for (int64_t i = 0; i < ck_count(&r->t[0].v); i++) {
        int64_t row = i / n, col = i % n;
        at_act act = col < a->split ? AT_ACT_NONE : a->act;
        double sum = 0, mag = 0;
        ck_q8 q = {0};
        for (int64_t k = 0; k < kk; k++) {
            double x = ck_value(&a->x, ck_offset(&a->x, row * kk + k));
            if (a->x_scale.data) x *= ck_value(&a->x_scale, row);
            double w = ck_value(&a->w.v, col * kk + k) * (double)a->w.scale;
            sum += x * w;
            mag += fabs(x * w);
            ck_q8_add(&q, x, w);
        }
        mag += ck_bf16_error(&q, a->x.dtype, a->w.v.dtype) / ck_linear.sum;
        if (a->x_scale.data) // both sides in the output's format
            mag += 2 * ck_bf16_error(&q, a->out.dtype, AT_F32) / ck_linear.sum;
        if (a->int8) mag += ck_q8_error(&q) / ck_linear.sum;
        if (a->fp8 || a->w8) mag += ck_f8_error(&q) / ck_linear.sum;
        double bare = fabs(sum);
        if (a->bias.v.data) {
            double bias = ck_value(&a->bias.v, col) * (double)a->bias.scale;
            sum += bias;
            mag += fabs(bias);
        }
        // What follows the sum may start from its rounding to x's 16-bit format, without or with the bias.
        bool later = a->bias.v.data || a->gate.data || a->residual.data || act != AT_ACT_NONE;
        at_dtype sums = a->x_scale.data ? a->out.dtype : a->x.dtype;
        if (later && sums == a->out.dtype && sums != AT_F32)
            mag += ck_store_error(sums) * (bare + fabs(sum)) / ck_linear.sum;
        // A 16-bit result's tanh may be a matrix library's: 11 bits.
        if (act == AT_ACT_GELU_TANH && a->out.dtype != AT_F32)
            mag += 0.5 * fabs(sum) * 0x1p-10 / ck_linear.sum;
        sum = ck_act(sum, act);
        mag *= act ? 1.2 : 1; // the steepest activation has slope 1.13
        if (a->gate.data) {
            double g = ck_value(&a->gate, ck_offset(&a->gate, row / t * n + col));
            sum *= g;
            mag *= fabs(g);
        }
        if (a->residual.data) {
            double v = ck_value(&a->residual, ck_offset(&a->residual, i));
            sum += v;
            mag += fabs(v);
        }
        r->truth[i] = sum;
        r->mag[i] = mag;
    }
}

// 1e-6 = 17 f32 ulps: partial sums of k/16 terms, random signs of the roundings.
const ck_op ck_linear = {.name = "linear",
                         .slot = offsetof(at_backend, linear),
                         .sum = 1e-6,
                         .rows = sizeof rows / sizeof *rows,
                         .label = label,
                         .bench_only = bench_only,
                         .build = build,
                         .call = call,
                         .truth = truth};
