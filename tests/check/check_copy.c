// SPDX-License-Identifier: Apache-2.0
// check_copy.c - rows of copy (any dtype to any dtype, any strides) and fill. Twins agree bit for
// bit.
#include <math.h>
#include <stdio.h>

#include "check.h"

enum { STRIDED = 1, PERMUTED = 2, BENCH = 4 };
#define FLOATS AT_I8 // the dtypes below are floating point

typedef struct copy_row {
    int64_t s0, s1, s2;
    unsigned flags;
    ck_fill fill;
} copy_row;

static const copy_row shapes[] = {
    {1, 1, 1, 0, CK_UNIT},         {2, 3, 1000, 0, CK_MIXED},       {2, 3, 37, STRIDED, CK_SMALL},
    {3, 5, 70, PERMUTED, CK_UNIT}, {2, 40, 33, PERMUTED, CK_MIXED}, {2, 2, 300, STRIDED, CK_LARGE},
};
enum { SHAPES = sizeof shapes / sizeof *shapes, PAIRS = AT_DTYPE_COUNT * AT_DTYPE_COUNT };

static const struct {
    at_dtype from, to;
    int64_t rows, n;
    bool permuted;
    int pad; // after each row of the result: a part of a channel join
} timed[] = {
    {AT_F32, AT_F32, 1, 1 << 22, false},
    {AT_BF16, AT_F32, 1, 1 << 22, false},
    {AT_F32, AT_BF16, 1, 1 << 22, false},
    {AT_F32, AT_F16, 1, 1 << 22, false},
    {AT_F8E4M3, AT_F32, 1, 1 << 22, false},
    {AT_F8E4M3, AT_BF16, 1, 1 << 22, false},
    {AT_F32, AT_F8E4M3, 1, 1 << 22, false},
    {AT_F32, AT_F32, 2048, 2048, true},
    {AT_F32, AT_BF16, 16, 128 * 128, true},   // a latent to NHWC
    {AT_F32, AT_BF16, 3, 1 << 20, true},      // a picture
    {AT_BF16, AT_F32, 1 << 20, 3, true},      // back
    {AT_F16, AT_F16, 8192, 1280, false, 640}, // a UNet's skip beside its block
    {AT_F16, AT_F16, 2 * 16384, 640, false, 320},
    {AT_BF16, AT_BF16, 4608, 3072, false, 12288}, // attention beside the MLP
};
enum { TIMED = sizeof timed / sizeof *timed };

static const char *label(int row, char out[160])
{
    int pair = row / SHAPES;
    if (row >= SHAPES * PAIRS) {
        int i = row - SHAPES * PAIRS;
        snprintf(out, 160, "%d -> %d, %lld x %lld%s", timed[i].from, timed[i].to,
                 (long long)timed[i].rows, (long long)timed[i].n,
                 timed[i].permuted ? " permuted" : "");
    } else {
        snprintf(out, 160, "%d -> %d shape %d", pair / AT_DTYPE_COUNT, pair % AT_DTYPE_COUNT,
                 row % SHAPES);
    }
    return out;
}

static bool bench_only(int row)
{
    return row >= SHAPES * PAIRS;
}

static void permute(at_view *v, int a, int b)
{
    int64_t t = v->shape[a];
    v->shape[a] = v->shape[b];
    v->shape[b] = t;
    t = v->stride[a];
    v->stride[a] = v->stride[b];
    v->stride[b] = t;
}

static void build(ck_run *r, int row)
{
    bool bench = bench_only(row);
    int i = row - SHAPES * PAIRS, pair = row / SHAPES;
    at_dtype from = bench ? timed[i].from : (at_dtype)(pair / AT_DTYPE_COUNT);
    at_dtype to = bench ? timed[i].to : (at_dtype)(pair % AT_DTYPE_COUNT);
    copy_row c = bench ? (copy_row){1, timed[i].rows, timed[i].n, timed[i].permuted ? PERMUTED : 0}
                       : shapes[row % SHAPES];
    bool p = c.flags & PERMUTED;
    ck_layout l = {.pad = bench               ? timed[i].pad
                          : c.flags & STRIDED ? 3
                                              : 0,
                   .gap = c.flags & STRIDED ? 1 : 0};

    r->a.simple.out = ck_make(r, to, CK_SHAPE(c.s0, p ? c.s2 : c.s1, p ? c.s1 : c.s2), l, CK_UNIT);
    l.gap = 0;
    if (bench) l.pad = 0;
    l.shift = c.flags & STRIDED ? 1 : 0;
    r->a.simple.x = ck_make(r, from, CK_SHAPE(c.s0, c.s1, c.s2), l, c.fill);
    if (p) permute(&r->a.simple.x, 1, 2);
    r->bytes = (double)(c.s0 * c.s1 * c.s2) * ((from == AT_F32    ? 4
                                                : from <= AT_BF16 ? 2
                                                                  : 1) +
                                               (to == AT_F32    ? 4
                                                : to <= AT_BF16 ? 2
                                                                : 1));
}

static at_status call(const at_backend *b, ck_run *r)
{
    return b->copy(r->stream, &r->a.simple.x, &r->a.simple.out);
}

static double as_stored(double x, at_dtype t)
{
    static const double lo[AT_DTYPE_COUNT] = {
        [AT_I8] = -128, [AT_I16] = -32768, [AT_I32] = -0x1p31, [AT_I64] = -0x1p63};
    static const double hi[AT_DTYPE_COUNT] = {
        [AT_I8] = 127, [AT_U8] = 255, [AT_I16] = 32767, [AT_I32] = 0x1p31 - 1, [AT_I64] = 0x1p63};
    if (t == AT_BOOL) return x != 0;
    if (t < FLOATS) return x;
    x = trunc(x);
    return x < lo[t] ? lo[t] : x > hi[t] ? hi[t] : x;
}

// Integers wrap between each other; everything else saturates.
static double wrap(double x, at_dtype t)
{
    int64_t v = (int64_t)x;
    switch (t) {
    case AT_I8: return (double)(v - (int64_t)floor((double)(v + 128) / 256) * 256);
    case AT_U8: return (double)(v - (int64_t)floor((double)v / 256) * 256);
    case AT_I16: return (double)(v - (int64_t)floor((double)(v + 32768) / 65536) * 65536);
    case AT_BOOL: return v != 0;
    default: return x;
    }
}

static double overflow(double x, at_dtype t)
{
    // The last value that rounds to a finite one: IEEE's for f16 and e5m2, 464 for e4m3fn (then
    // NaN).
    if (t == AT_F16 && fabs(x) >= 65520) return x < 0 ? -INFINITY : INFINITY;
    if (t == AT_F8E5M2 && fabs(x) >= 61440) return x < 0 ? -INFINITY : INFINITY;
    if (t == AT_F8E4M3 && fabs(x) > 464) return NAN;
    return x;
}

static void truth(ck_run *r)
{
    const at_view *x = &r->a.simple.x, *o = &r->a.simple.out;
    bool ints = x->dtype >= FLOATS && o->dtype >= FLOATS;
    for (int64_t i = 0; i < ck_count(o); i++) {
        double v = ck_value(x, ck_offset(x, i));
        r->truth[i] = ints ? wrap(v, o->dtype) : overflow(as_stored(v, o->dtype), o->dtype);
        r->mag[i] = 0;
    }
}

const ck_op ck_copy = {.name = "copy",
                       .slot = offsetof(at_backend, copy),
                       .exact = true,
                       .rows = SHAPES * PAIRS + TIMED,
                       .label = label,
                       .bench_only = bench_only,
                       .build = build,
                       .call = call,
                       .truth = truth};

// --- fill
// ---------------------------------------------------------------------------------------------
static const double values[] = {0, 1, -2.5, 100};
enum { VALUES = sizeof values / sizeof *values };

static const char *fill_label(int row, char out[160])
{
    snprintf(out, 160, "%g as dtype %d%s", values[row % VALUES], row / VALUES % AT_DTYPE_COUNT,
             row / VALUES / AT_DTYPE_COUNT ? " strided" : "");
    return out;
}

static bool never(int row)
{
    (void)row;
    return false;
}

static void fill_build(ck_run *r, int row)
{
    int strided = row / VALUES / AT_DTYPE_COUNT;
    r->a.simple.out = ck_make(r, (at_dtype)(row / VALUES % AT_DTYPE_COUNT), CK_SHAPE(3, 5, 71),
                              (ck_layout){.pad = strided * 3, .gap = strided}, CK_UNIT);
    r->a.simple.value = values[row % VALUES];
}

static at_status fill_call(const at_backend *b, ck_run *r)
{
    return b->fill(r->stream, &r->a.simple.out, r->a.simple.value);
}

static void fill_truth(ck_run *r)
{
    const at_view *o = &r->a.simple.out;
    for (int64_t i = 0; i < ck_count(o); i++) {
        r->truth[i] = as_stored(r->a.simple.value, o->dtype);
        r->mag[i] = 0;
    }
}

const ck_op ck_fill_op = {.name = "fill",
                          .slot = offsetof(at_backend, fill),
                          .exact = true,
                          .rows = 2 * VALUES * AT_DTYPE_COUNT,
                          .label = fill_label,
                          .bench_only = never,
                          .build = fill_build,
                          .call = fill_call,
                          .truth = fill_truth};
