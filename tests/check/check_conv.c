// SPDX-License-Identifier: Apache-2.0
// check_conv.c - rows of the 2D convolution: sizes, strides, padding, upsampling; truth in double.
#include <math.h>
#include <stdio.h>

#include "check.h"

enum {
    BIAS = 1,
    RESIDUAL = 2,
    UP = 4,
    STRIDED = 8,
    BENCH = 16,
    PACK = 32,
    NO_PAD = 64,
    ASYM = 128,
    INT8 = 256
};

typedef struct conv_row {
    int64_t b, h, w, cin, cout;
    int k, stride;
    at_dtype x, wt, out;
    unsigned flags;
    at_act act;
    ck_fill fill;
} conv_row;

static const conv_row rows[] = {
    {1, 1, 1, 1, 1, 1, 1, AT_F32, AT_F32, AT_F32, BIAS},
    {1, 1, 1, 3, 2, 3, 1, AT_F32, AT_F32, AT_F32, BIAS},
    {2, 5, 7, 3, 5, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | RESIDUAL | PACK},
    {1, 8, 8, 16, 32, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK},
    {1, 17, 13, 32, 64, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | RESIDUAL | PACK, AT_ACT_SILU},
    {2, 9, 10, 20, 24, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | STRIDED | RESIDUAL},
    {1, 12, 12, 16, 16, 3, 2, AT_F32, AT_F32, AT_F32, BIAS | ASYM | PACK},
    {1, 11, 13, 8, 12, 3, 2, AT_F32, AT_F32, AT_F32, BIAS},
    {1, 10, 9, 32, 48, 1, 1, AT_F32, AT_F32, AT_F32, BIAS | RESIDUAL | PACK},
    {1, 10, 9, 32, 48, 1, 1, AT_F32, AT_F32, AT_F32, BIAS | STRIDED},
    {1, 8, 6, 16, 17, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | UP | PACK},
    {2, 9, 7, 32, 32, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | UP | RESIDUAL | PACK},
    {1, 9, 9, 8, 8, 5, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK},
    {1, 9, 9, 4, 8, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | NO_PAD},
    {1, 16, 16, 64, 3, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK},
    {1, 14, 30, 64, 64, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK, AT_ACT_NONE, CK_MIXED},
    {1, 14, 14, 32, 32, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK, AT_ACT_NONE, CK_LARGE},
    {1, 9, 7, 24, 16, 3, 1, AT_F32, AT_BF16, AT_F32, BIAS | RESIDUAL | PACK},
    {1, 9, 7, 24, 16, 3, 1, AT_BF16, AT_BF16, AT_BF16, BIAS | RESIDUAL | PACK, AT_ACT_SILU},
    {1, 9, 7, 24, 16, 3, 1, AT_BF16, AT_BF16, AT_BF16, BIAS | UP},
    {1, 9, 7, 24, 16, 3, 2, AT_F32, AT_F16, AT_F32, BIAS | PACK},
    {1, 9, 7, 24, 16, 1, 1, AT_F16, AT_F16, AT_F16, BIAS | PACK},
    {1, 20, 20, 128, 64, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK},
    // Winograd: patches over the border, odd sizes, several images, upsampled, few outputs
    {1, 21, 18, 40, 35, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | RESIDUAL | PACK},
    {2, 16, 16, 96, 48, 3, 1, AT_F32, AT_F16, AT_F32, BIAS | PACK, AT_ACT_SILU},
    {2, 9, 17, 24, 130, 3, 1, AT_BF16, AT_BF16, AT_BF16, BIAS | RESIDUAL | STRIDED},
    {1, 15, 11, 33, 20, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | UP},
    {1, 24, 24, 128, 3, 3, 1, AT_F32, AT_F32, AT_F32, BIAS},
    {1, 16, 16, 320, 64, 3, 1, AT_F32, AT_F16, AT_F32, BIAS | PACK},
    {1, 18, 18, 64, 40, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | NO_PAD},
    {1, 20, 20, 64, 32, 3, 1, AT_F32, AT_F32, AT_F32, BIAS, AT_ACT_NONE, CK_SMALL},
    {1, 18, 18, 300, 20, 3, 1, AT_F32, AT_F8E4M3, AT_F32, BIAS, AT_ACT_NONE, CK_UNIT},
    {2, 8, 8, 160, 96, 3, 1, AT_F32, AT_F16, AT_F32, BIAS | PACK},
    {2, 16, 16, 64, 64, 3, 2, AT_F32, AT_F16, AT_F32, BIAS | PACK},
    {2, 16, 16, 64, 96, 1, 1, AT_F32, AT_F16, AT_F32, BIAS | RESIDUAL | PACK},
    {2, 16, 16, 96, 64, 3, 1, AT_BF16, AT_F16, AT_BF16, BIAS | PACK},
    {1, 9, 7, 48, 64, 3, 1, AT_BF16, AT_F16, AT_BF16, BIAS | UP | PACK},
    // what a GPU's library has whole, in phases, and to a few channels
    {2, 18, 14, 64, 96, 3, 1, AT_F16, AT_F16, AT_F16, BIAS | RESIDUAL | PACK},
    {2, 18, 14, 96, 64, 3, 1, AT_BF16, AT_BF16, AT_BF16, BIAS | RESIDUAL | PACK},
    {1, 12, 12, 64, 64, 3, 1, AT_F16, AT_F16, AT_F16, BIAS | PACK, AT_ACT_SILU},
    {1, 12, 12, 64, 64, 3, 1, AT_F16, AT_F16, AT_F16, RESIDUAL | PACK},
    {1, 20, 20, 64, 64, 3, 2, AT_F16, AT_F16, AT_F16, BIAS | ASYM | PACK},
    {2, 8, 8, 320, 64, 3, 1, AT_F16, AT_F16, AT_F16, BIAS | RESIDUAL | PACK},
    {2, 7, 9, 256, 40, 3, 2, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK},
    {1, 9, 5, 288, 24, 3, 1, AT_F16, AT_F16, AT_F16, NO_PAD | PACK},
    {1, 17, 16, 8, 64, 3, 1, AT_F32, AT_F16, AT_F16, BIAS | PACK},
    {2, 9, 11, 16, 136, 3, 1, AT_F32, AT_BF16, AT_BF16, BIAS | PACK},
    {1, 7, 9, 3, 40, 3, 1, AT_F32, AT_F16, AT_F16, NO_PAD},
    {2, 12, 10, 64, 64, 3, 1, AT_F16, AT_F16, AT_F16, BIAS | UP | PACK},
    {1, 11, 13, 128, 64, 3, 1, AT_BF16, AT_BF16, AT_BF16, BIAS | UP | PACK},
    {1, 9, 7, 64, 64, 3, 1, AT_BF16, AT_BF16, AT_BF16, BIAS | UP | RESIDUAL | PACK, AT_ACT_SILU},
    {1, 13, 21, 128, 3, 3, 1, AT_BF16, AT_BF16, AT_F32, BIAS | PACK},
    {2, 9, 10, 320, 4, 3, 1, AT_F16, AT_F16, AT_F16, BIAS | PACK},
    {1, 6, 40, 24, 1, 3, 1, AT_F16, AT_F16, AT_F32, NO_PAD | PACK},
    {1, 16, 16, 64, 32, 3, 1, AT_BF16, AT_BF16, AT_F32, BIAS | PACK},
    {1, 44, 44, 512, 8, 3, 1, AT_BF16, AT_BF16, AT_F32, BIAS | PACK}, // more windows than one go
    {2, 9, 8, 72, 16, 3, 2, AT_F16, AT_F16, AT_F32, BIAS | ASYM | PACK},
    {2, 10, 12, 64, 40, 3, 1, AT_F32, AT_F16, AT_F32, BIAS | PACK | INT8},
    {1, 9, 7, 96, 64, 3, 2, AT_F32, AT_F16, AT_F32, BIAS | RESIDUAL | PACK | INT8},
    {1, 9, 9, 64, 64, 3, 1, AT_BF16, AT_F16, AT_BF16, BIAS | UP | PACK | INT8, AT_ACT_SILU},
    {1, 12, 10, 320, 64, 1, 1, AT_F32, AT_F16, AT_F32, BIAS | PACK | INT8},
    {1, 32, 32, 16, 64, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK | BENCH},
    {1, 32, 32, 64, 64, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK | BENCH},
    {1, 64, 64, 64, 64, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | UP | PACK | BENCH},
    {1, 128, 128, 64, 64, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK | BENCH},
    {1, 256, 256, 32, 32, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | RESIDUAL | PACK | BENCH},
    {1, 256, 256, 32, 32, 3, 1, AT_F32, AT_BF16, AT_F32, BIAS | RESIDUAL | PACK | BENCH},
    {1, 256, 256, 64, 32, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK | BENCH},
    {1, 256, 256, 32, 3, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK | BENCH},
    {1, 64, 64, 512, 512, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK | BENCH},
    {1, 64, 64, 512, 512, 3, 1, AT_BF16, AT_BF16, AT_BF16, BIAS | PACK | BENCH},
    {1, 256, 256, 128, 128, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK | BENCH},
    {1, 64, 64, 320, 320, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK | BENCH},
    {1, 128, 128, 64, 64, 1, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK | BENCH},
    {1, 128, 128, 64, 64, 3, 2, AT_F32, AT_F32, AT_F32, BIAS | PACK | BENCH | ASYM},
    // Stable Diffusion 1.5 at 512x512, two images
    {2, 64, 64, 320, 320, 3, 1, AT_F32, AT_F16, AT_F32, BIAS | PACK | BENCH},
    {2, 64, 64, 960, 320, 3, 1, AT_F32, AT_F16, AT_F32, BIAS | PACK | BENCH},
    {2, 32, 32, 640, 640, 3, 1, AT_F32, AT_F16, AT_F32, BIAS | RESIDUAL | PACK | BENCH},
    {2, 16, 16, 1280, 1280, 3, 1, AT_F32, AT_F16, AT_F32, BIAS | PACK | BENCH},
    {2, 8, 8, 1280, 1280, 3, 1, AT_F32, AT_F16, AT_F32, BIAS | PACK | BENCH},
    {2, 64, 64, 320, 320, 3, 2, AT_F32, AT_F16, AT_F32, BIAS | PACK | BENCH},
    {2, 16, 16, 1280, 1280, 3, 1, AT_F32, AT_F16, AT_F32, BIAS | UP | PACK | BENCH},
    {2, 64, 64, 320, 320, 1, 1, AT_F32, AT_F16, AT_F32, BIAS | RESIDUAL | PACK | BENCH},
    {2, 64, 64, 320, 320, 3, 1, AT_BF16, AT_F16, AT_BF16, BIAS | PACK | BENCH},
    {2, 32, 32, 640, 640, 3, 1, AT_BF16, AT_F16, AT_BF16, BIAS | PACK | BENCH},
    {2, 16, 16, 1280, 1280, 3, 1, AT_BF16, AT_F16, AT_BF16, BIAS | PACK | BENCH},
    {2, 8, 8, 1280, 1280, 3, 1, AT_BF16, AT_F16, AT_BF16, BIAS | PACK | BENCH},
    {2, 32, 32, 640, 640, 3, 1, AT_BF16, AT_F16, AT_BF16, BIAS | PACK | BENCH | INT8},
    // its decoder
    {1, 128, 128, 512, 512, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | RESIDUAL | PACK | BENCH},
    {1, 256, 256, 256, 256, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK | BENCH},
    {1, 512, 512, 128, 128, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK | BENCH},
    {1, 512, 512, 128, 3, 3, 1, AT_F32, AT_F32, AT_F32, BIAS | PACK | BENCH},
    {1, 512, 512, 128, 128, 3, 1, AT_BF16, AT_F16, AT_F32, BIAS | PACK | BENCH},
};

static const char *label(int row, char out[160])
{
    const conv_row *r = &rows[row];
    snprintf(out, 160, "[%lld,%lld,%lld,%lld]->%lld k%d s%d %s*%s%s%s%s%s act%d", (long long)r->b,
             (long long)r->h, (long long)r->w, (long long)r->cin, (long long)r->cout, r->k,
             r->stride, ck_dtype_name(r->x), ck_dtype_name(r->wt),
             r->flags & RESIDUAL ? " res" : "", r->flags & UP ? " up" : "",
             r->flags & STRIDED ? " strided" : "", r->flags & INT8 ? " int8" : "", (int)r->act);
    return out;
}

static bool bench_only(int row)
{
    return rows[row].flags & BENCH;
}

static void set_padding(at_conv2d_args *a, const conv_row *c)
{
    int p = c->flags & NO_PAD ? 0 : c->k / 2;
    a->pad_top = a->pad_left = c->flags & ASYM ? 0 : p;
    a->pad_bottom = a->pad_right = c->flags & ASYM ? 1 : p;
}

static void build(ck_run *r, int row)
{
    const conv_row *c = &rows[row];
    at_conv2d_args *a = &r->a.conv2d;
    ck_layout l = {.pad = c->flags & STRIDED ? 3 : 0, .shift = c->flags & STRIDED ? 1 : 0};
    int up = c->flags & UP ? 2 : 1;
    int64_t oh, ow;

    set_padding(a, c);
    oh = (c->h * up + a->pad_top + a->pad_bottom - c->k) / c->stride + 1;
    ow = (c->w * up + a->pad_left + a->pad_right - c->k) / c->stride + 1;
    a->out = ck_make(r, c->out, CK_SHAPE(c->b, oh, ow, c->cout), l, CK_UNIT);
    a->x = ck_make(r, c->x, CK_SHAPE(c->b, c->h, c->w, c->cin), l, c->fill);
    a->w = ck_weight(r, c->wt, CK_SHAPE(c->cout, c->cin, c->k, c->k), CK_UNIT, 1);
    if (c->flags & PACK) a->w.packed = &r->packed;
    if (c->flags & BIAS) a->bias = ck_weight(r, c->wt, CK_SHAPE(c->cout), CK_UNIT, 1);
    if (c->flags & RESIDUAL)
        a->residual = ck_make(r, c->out, CK_SHAPE(c->b, oh, ow, c->cout), (ck_layout){0}, CK_UNIT);
    a->stride = c->stride;
    a->upsample2x = c->flags & UP;
    a->int8 = c->flags & INT8;
    a->act = c->act;
    r->flops = 2.0 * (double)(c->b * oh * ow * c->cout) * (double)(c->cin * c->k * c->k);
}

static at_status call(const at_backend *b, ck_run *r)
{
    return b->conv2d(r->stream, &r->a.conv2d);
}

static void pixel(const at_conv2d_args *a, const int64_t p[4], double *sum, double *mag, ck_q8 *q)
{
    int64_t cin = a->w.v.shape[1], kh = a->w.v.shape[2], kw = a->w.v.shape[3];
    int up = a->upsample2x ? 2 : 1;

    for (int64_t ky = 0; ky < kh; ky++)
        for (int64_t kx = 0; kx < kw; kx++) {
            int64_t iy = p[1] * a->stride + ky - a->pad_top,
                    ix = p[2] * a->stride + kx - a->pad_left;
            if (iy < 0 || ix < 0 || iy >= a->x.shape[1] * up || ix >= a->x.shape[2] * up) continue;
            for (int64_t c = 0; c < cin; c++) {
                int64_t xo =
                    p[0] * a->x.stride[0] + iy / up * a->x.stride[1] + ix / up * a->x.stride[2] + c;
                double x = ck_value(&a->x, xo);
                double w =
                    ck_value(&a->w.v, ((p[3] * cin + c) * kh + ky) * kw + kx) * (double)a->w.scale;
                *sum += x * w;
                *mag += fabs(x * w);
                ck_q8_add(q, x, w);
            }
        }
}

// Taps that meet the same pixel of a doubled picture may be summed and the sum rounded: as
// ck_bf16_error, in x's format.
static double phase_error(const at_conv2d_args *a, const ck_q8 *q)
{
    if (!a->upsample2x || a->x.dtype == AT_F32) return 0;
    return 6 * (a->x.dtype == AT_BF16 ? 0x1p-9 : 0x1p-12) / sqrt(3) * sqrt(q->xw2);
}

// One rounding of v to the 16-bit format that x and out share (backend.h: bias, and what lies between
// bias and residual, may have it), in units of the bound. A library that rounds the sum before it adds the residual
// answers fl(fl(sum) + residual): off by at most u |sum| + u |result|, u the unit roundoff (2^-11, 2^-8). The second
// term is compare()'s. Seen on a GPU: sum -2.06157785 -> -2.0625, with -0.14746094 a tie, to even -2.2109375; rounded
// once it is -2.20898438.
static double between(const at_conv2d_args *a, double v)
{
    if (a->x.dtype == AT_F32 || a->out.dtype != a->x.dtype) return 0;
    return fabs(v) * ck_store_error(a->x.dtype) / ck_conv2d.sum;
}

static void truth(ck_run *r)
{
    const at_conv2d_args *a = &r->a.conv2d;
    double most = 0;

    for (int64_t i = 0; a->int8 && i < ck_count(&a->x); i++)
        most = fmax(most, fabs(ck_value(&a->x, ck_offset(&a->x, i))));
    for (int64_t i = 0; i < ck_count(&a->out); i++) {
        const int64_t *s = a->out.shape;
        int64_t p[4] = {i / (s[1] * s[2] * s[3]), i / (s[2] * s[3]) % s[1], i / s[3] % s[2],
                        i % s[3]};
        double sum = 0, mag = 0;
        ck_q8 q = {0};
        pixel(a, p, &sum, &mag, &q);
        mag += ck_bf16_error(&q, a->x.dtype, a->w.v.dtype) / ck_conv2d.sum;
        mag += phase_error(a, &q) / ck_conv2d.sum;
        mag += between(a, sum);
        if (a->int8) {
            q.most_x = most; // one step for a block of pixels, at most that of the picture
            mag += ck_q8_error(&q) / ck_conv2d.sum;
        }
        if (a->bias.v.data) {
            sum += ck_value(&a->bias.v, p[3]);
            mag += fabs(ck_value(&a->bias.v, p[3]));
            mag += between(a, ck_value(&a->bias.v, p[3])) + between(a, sum);
        }
        sum = ck_act(sum, a->act);
        mag *= a->act ? 1.2 : 1;
        if (a->residual.data) {
            double v = ck_value(&a->residual, ck_offset(&a->residual, i));
            sum += v;
            mag += fabs(v);
        }
        r->truth[i] = sum;
        r->mag[i] = mag;
    }
}

// 1e-6 as linear; Winograd's F(4x4) on its points loses up to 6e-7 (docs/bench/cpu.md).
const ck_op ck_conv2d = {.name = "conv2d",
                         .slot = offsetof(at_backend, conv2d),
                         .sum = 1e-6,
                         .rows = sizeof rows / sizeof *rows,
                         .label = label,
                         .bench_only = bench_only,
                         .build = build,
                         .call = call,
                         .truth = truth};
