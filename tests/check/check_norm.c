// SPDX-License-Identifier: Apache-2.0
// check_norm.c - rows of layer, RMS and group norm; truth in double with two passes.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

enum {
    RMS = 1,
    AFFINE = 2,
    MOD = 4,
    MOD_ONE = 8,
    STRIDED = 16,
    IN_PLACE = 32,
    BENCH = 64,
    ADDED = 128,
    ROWS8 = 256,  // into fp8 rows
    PARTS = 1024, // cut over devices
    GROUP_PARTS = 3,
    GATED = 512 // x += gate * y first; x and out are halves of one tensor, so that both are judged
};

typedef struct norm_row {
    int64_t b, t, d;
    at_dtype in, w, out;
    unsigned flags;
    ck_fill fill;
} norm_row;

static const norm_row rows[] = {
    {1, 1, 1, AT_F32, AT_F32, AT_F32, AFFINE},
    {1, 1, 2, AT_F32, AT_F32, AT_F32, RMS | AFFINE},
    {2, 3, 7, AT_F32, AT_F32, AT_F32, AFFINE | MOD},
    {2, 5, 192, AT_F32, AT_F32, AT_F32, MOD},
    {2, 5, 256, AT_F32, AT_BF16, AT_F32, AFFINE | MOD | MOD_ONE | STRIDED},
    {1, 77, 768, AT_F32, AT_F32, AT_F32, AFFINE | IN_PLACE},
    {1, 9, 1025, AT_F32, AT_F32, AT_F32, RMS | AFFINE | STRIDED},
    {1, 4, 3072, AT_F32, AT_F32, AT_F32, MOD},
    {1, 4, 640, AT_F32, AT_F32, AT_F32, AFFINE, CK_OFFSET},
    {1, 4, 640, AT_F32, AT_F32, AT_F32, AFFINE, CK_LARGE},
    {1, 4, 640, AT_F32, AT_F32, AT_F32, RMS, CK_MIXED},
    {1, 4, 640, AT_F32, AT_F32, AT_F32, RMS, CK_SMALL}, // eps decides
    {2, 5, 256, AT_BF16, AT_BF16, AT_BF16, MOD},
    {2, 5, 255, AT_BF16, AT_BF16, AT_BF16, AFFINE | MOD | STRIDED | IN_PLACE},
    {2, 5, 2048, AT_F32, AT_BF16, AT_F32, RMS | AFFINE},
    {2, 5, 100, AT_F16, AT_F16, AT_F16, AFFINE},
    // widths of UNets and text encoders: teams of lanes, one row each or two
    {2, 37, 320, AT_F16, AT_F16, AT_F16, AFFINE},
    {2, 21, 640, AT_BF16, AT_BF16, AT_BF16, AFFINE | STRIDED},
    {3, 7, 1280, AT_F16, AT_F16, AT_F16, AFFINE | IN_PLACE},
    {1, 6403, 320, AT_F16, AT_F16, AT_F16, AFFINE},
    {1, 1701, 1280, AT_BF16, AT_BF16, AT_BF16, AFFINE},
    {2, 77, 768, AT_F32, AT_F32, AT_F16, AFFINE},
    {1, 5, 1024, AT_F32, AT_F32, AT_BF16, AFFINE, CK_OFFSET},
    {1, 77, 1280, AT_F32, AT_F32, AT_F16, AFFINE},
    {1, 33, 4096, AT_F32, AT_F32, AT_BF16, RMS | AFFINE},
    {2, 5, 100, AT_F32, AT_F32, AT_BF16, RMS | AFFINE | MOD},
    {2, 5, 256, AT_BF16, AT_BF16, AT_F8E4M3, MOD | ROWS8},
    {1, 7, 3072, AT_F16, AT_F16, AT_F8E4M3, AFFINE | MOD | MOD_ONE | ROWS8},
    {1, 9, 4096, AT_F32, AT_F32, AT_F8E4M3, RMS | AFFINE | ROWS8},
    {2, 3, 640, AT_BF16, AT_BF16, AT_F8E4M3, ROWS8, CK_OFFSET},
    {1, 1, 8, AT_F32, AT_F32, AT_F32, GATED},
    {2, 5, 256, AT_F32, AT_F32, AT_F32, GATED | AFFINE | MOD},
    {2, 5, 256, AT_BF16, AT_BF16, AT_BF16, GATED | MOD},
    {1, 40, 3072, AT_BF16, AT_BF16, AT_BF16, GATED | MOD},
    {2, 7, 640, AT_F16, AT_F16, AT_F16, GATED | RMS | AFFINE},
    {2, 301, 3072, AT_F16, AT_F16, AT_F16,
     GATED | MOD | AFFINE}, // a warp a row, more rows than warps
    {1, 1700, 3072, AT_BF16, AT_BF16, AT_BF16, GATED | RMS | AFFINE},
    {2, 9, 3072, AT_BF16, AT_BF16, AT_BF16, GATED | MOD | STRIDED},
    {2, 200, 3072, AT_BF16, AT_BF16, AT_F8E4M3, GATED | MOD | ROWS8},
    {1, 33, 3072, AT_F16, AT_F16, AT_F8E4M3, GATED | MOD | AFFINE | ROWS8},
    {2, 5, 37, AT_BF16, AT_BF16, AT_BF16, GATED | MOD},
    {1, 320, 256, AT_F32, AT_F32, AT_F32, MOD | BENCH},
    {1, 4608, 3072, AT_F32, AT_F32, AT_F32, MOD | BENCH},
    {1, 4608, 3072, AT_BF16, AT_BF16, AT_BF16, MOD | BENCH},
    {1, 4608, 3072, AT_BF16, AT_BF16, AT_F8E4M3, MOD | ROWS8 | BENCH},
    {1, 4608, 3072, AT_BF16, AT_BF16, AT_BF16, GATED | MOD | BENCH},
    {1, 4608, 3072, AT_BF16, AT_BF16, AT_F8E4M3, GATED | MOD | ROWS8 | BENCH},
    {1, 512, 3072, AT_BF16, AT_BF16, AT_BF16, GATED | MOD | BENCH},
    {1, 512, 4096, AT_F32, AT_BF16, AT_F32, RMS | AFFINE | BENCH},
    {1, 512, 4096, AT_F32, AT_BF16, AT_BF16, RMS | AFFINE | BENCH}, // T5-XXL
    {1, 4096, 3072, AT_BF16, AT_BF16, AT_BF16, MOD | BENCH},        // Flux, picture
    {1, 512, 3072, AT_BF16, AT_BF16, AT_BF16, MOD | BENCH},         // Flux, text
    {2, 4096, 640, AT_F16, AT_F16, AT_F16, AFFINE | BENCH},         // SDXL
    {2, 1024, 1280, AT_F16, AT_F16, AT_F16, AFFINE | BENCH},
    {2, 4096, 320, AT_F16, AT_F16, AT_F16, AFFINE | BENCH}, // SD1.5
    {2, 1024, 640, AT_F16, AT_F16, AT_F16, AFFINE | BENCH},
    {2, 256, 1280, AT_F16, AT_F16, AT_F16, AFFINE | BENCH},
    {1, 77, 768, AT_F16, AT_F16, AT_F16, AFFINE | BENCH}, // CLIP-L
};

static const char *label(int row, char out[160])
{
    const norm_row *r = &rows[row];
    snprintf(out, 160, "[%lld,%lld,%lld] in%d w%d out%d%s%s%s%s%s fill%d", (long long)r->b,
             (long long)r->t, (long long)r->d, r->in, r->w, r->out, r->flags & RMS ? " rms" : "",
             r->flags & AFFINE ? " affine" : "", r->flags & MOD ? " mod" : "",
             r->flags & STRIDED ? " strided" : "", r->flags & GATED ? " gated" : "", (int)r->fill);
    return out;
}

static bool bench_only(int row)
{
    return rows[row].flags & BENCH;
}

static void build(ck_run *r, int row)
{
    const norm_row *c = &rows[row];
    at_norm_args *a = &r->a.norm;
    ck_layout l = {.pad = c->flags & STRIDED ? 3 : 0, .shift = c->flags & STRIDED ? 1 : 0};

    if (c->flags & GATED && !(c->flags & ROWS8)) {
        at_view both = ck_make(r, c->out, CK_SHAPE(c->b, 2 * c->t, c->d), l, c->fill);
        a->x = a->out = both;
        a->x.shape[1] = a->out.shape[1] = c->t;
        a->out.data = (char *)both.data + (size_t)(c->t * both.stride[1]) * (size_t)ck_size(c->out);
    } else {
        a->out = ck_make(r, c->out, CK_SHAPE(c->b, c->t, c->d), l, c->fill);
        a->x = c->flags & IN_PLACE ? a->out
                                   : ck_make(r, c->in, CK_SHAPE(c->b, c->t, c->d), l, c->fill);
        if (c->flags & GATED) r->t[r->n - 1].also_written = true;
    }
    if (c->flags & GATED) {
        a->y = ck_make(r, c->in, CK_SHAPE(c->b, c->t, c->d), l, CK_UNIT);
        a->gate = ck_make(r, c->in, CK_SHAPE(c->b, c->d), (ck_layout){0}, CK_UNIT);
    }
    if (c->flags & AFFINE) {
        a->weight = ck_weight(r, c->w, CK_SHAPE(c->d), CK_UNIT, 1);
        if (!(c->flags & RMS)) a->bias = ck_weight(r, c->w, CK_SHAPE(c->d), CK_UNIT, 1);
        if (c->flags & BENCH) { // in a model a vector is made resident once
            a->weight.packed = &r->packed;
            a->bias.packed = &r->packed2;
        }
    }
    if (c->flags & MOD) {
        ck_layout m = {.pad = 2, .broadcast = c->flags & MOD_ONE ? 1 : 0};
        a->mod_scale = ck_make(r, c->in, CK_SHAPE(c->b, c->d), m, CK_UNIT);
        a->mod_shift = ck_make(r, c->in, CK_SHAPE(c->b, c->d), m, CK_UNIT);
    }
    if (c->flags & ROWS8) a->out_scale = ck_make_scales(r, c->b * c->t);
    a->eps = 1e-6f;
    a->rms = c->flags & RMS;
    r->bytes = (double)(c->b * c->t * c->d) *
               (double)(ck_size(c->in) * (c->flags & GATED ? 3 : 1) + ck_size(c->out));
}

// What a backend without fp8 rows is spared: the norm in floats, rounded here.
static at_status floats_to_rows8(const at_backend *b, ck_run *r, at_norm_args a)
{
    int64_t rows_ = a.out.shape[0] * a.out.shape[1], d = a.out.shape[2];
    float *wide = malloc((size_t)(rows_ * d) * sizeof *wide);
    if (!wide) return at_fail(AT_ENOMEM, "no memory for a row of the check");
    a.out.data = wide;
    a.out.dtype = AT_F32;
    a.out_scale.data = NULL;
    at_status st = b->norm(r->stream, &a);
    if (st == AT_OK) ck_to_rows8(wide, rows_, d, r->a.norm.out.data, r->a.norm.out_scale.data);
    free(wide);
    return st;
}

static at_status call(const at_backend *b, ck_run *r)
{
    at_norm_args a = r->a.norm;
    if (a.y.data && !b->adds) { // one after the other, as ops/ does it
        at_gate_add_args add = {.x = a.x, .y = a.y, .gate = a.gate, .out = a.x};
        at_status st = b->gate_add(r->stream, &add);
        a.y.data = a.gate.data = NULL;
        if (st != AT_OK) return st;
    }
    if (a.out_scale.data && !b->fp8_rows) return floats_to_rows8(b, r, a);
    return b->norm(r->stream, &a);
}

static void add_to_mean(double *mean, double *size, double x, double n)
{
    *mean += x / n;
    *size += fabs(x) / n;
}

static double modulation(const at_view *v, int64_t batch, int64_t c)
{
    return v->data ? ck_value(v, ck_offset(v, batch * v->shape[1] + c)) : 0;
}

// One row from its elements x (what was added is in them) to truth and magnitude at `to`.
static void row_truth(ck_run *r, const double *x, int64_t batch, int64_t to)
{
    const at_norm_args *a = &r->a.norm;
    int64_t d = a->out.shape[2];
    // size: mean of |x|, what a mean's error is relative to
    double mean = 0, sq = 0, size = 0, rstd, rounded = 0;

    for (int64_t c = 0; c < d; c++)
        add_to_mean(&mean, &size, x[c], (double)d);
    if (a->rms) mean = size = 0;
    for (int64_t c = 0; c < d; c++)
        sq += pow(x[c] - mean, 2) / (double)d;
    rstd = 1 / sqrt(sq + (double)a->eps);
    if (a->y.data) rounded = ck_store_error(a->x.dtype) / ck_norm.sum; // x may be rounded before
    for (int64_t c = 0; c < d; c++) {
        double y = (x[c] - mean) * rstd, mag = (fabs(x[c]) + size) * rstd * (1 + rounded);
        double w = a->weight.v.data ? ck_value(&a->weight.v, c) : 1;
        double b = a->bias.v.data ? ck_value(&a->bias.v, c) : 0;
        double s = modulation(&a->mod_scale, batch, c), m = modulation(&a->mod_shift, batch, c);
        r->truth[to + c] = (y * w + b) * (1 + s) + m;
        r->mag[to + c] = (mag * fabs(w) + fabs(b)) * (1 + fabs(s)) + fabs(m);
    }
}

static void norm_truth(ck_run *r)
{
    const at_norm_args *a = &r->a.norm;
    int64_t t = a->out.shape[1], d = a->out.shape[2];
    bool both = a->y.data && !a->out_scale.data; // [b, 2 t, d]: the sums, then their norms
    double *x = malloc((size_t)d * sizeof *x);

    if (!x) exit(2);
    for (int64_t row = 0; row < a->out.shape[0] * t; row++) {
        int64_t batch = row / t, to = row * d;
        if (both) to += batch * t * d;
        for (int64_t c = 0; c < d; c++) {
            x[c] = ck_value(&a->x, ck_offset(&a->x, row * d + c));
            if (!a->y.data) continue;
            double add =
                ck_value(&a->y, ck_offset(&a->y, row * d + c)) * modulation(&a->gate, batch, c);
            if (both) r->mag[to + c] = fabs(x[c]) + fabs(add);
            x[c] += add;
            if (both) r->truth[to + c] = x[c];
        }
        row_truth(r, x, batch, both ? to + t * d : to);
    }
    free(x);
}

// 5e-7: eight roundings on the way; sums are carried wider than f32.
const ck_op ck_norm = {.name = "norm",
                       .slot = offsetof(at_backend, norm),
                       .sum = 5e-7,
                       .rows = sizeof rows / sizeof *rows,
                       .label = label,
                       .bench_only = bench_only,
                       .build = build,
                       .call = call,
                       .truth = norm_truth};

// --- group norm
// ---------------------------------------------------------------------------------------
typedef struct group_row {
    int64_t b, p, c;
    int groups;
    at_dtype in, out;
    unsigned flags;
    at_act act;
    ck_fill fill;
} group_row;

static const group_row group_rows[] = {
    {1, 1, 2, 1, AT_F32, AT_F32, AFFINE},
    {2, 5, 12, 3, AT_F32, AT_F32, AFFINE},
    {1, 64, 32, 32, AT_F32, AT_F32, AFFINE, AT_ACT_SILU},
    {2, 100, 64, 32, AT_F32, AT_F32, AFFINE, AT_ACT_SILU},
    {1, 300, 96, 8, AT_F32, AT_F32, AFFINE | STRIDED, AT_ACT_SILU},
    {1, 300, 512, 32, AT_F32, AT_F32, AFFINE | IN_PLACE},
    {1, 37, 33, 3, AT_F32, AT_F32, AFFINE | STRIDED | IN_PLACE, AT_ACT_SILU},
    {1, 400, 64, 32, AT_F32, AT_F32, AFFINE, AT_ACT_SILU, CK_OFFSET},
    {1, 400, 64, 32, AT_F32, AT_F32, 0, AT_ACT_NONE, CK_LARGE},
    {1, 400, 64, 32, AT_F32, AT_F32, AFFINE, AT_ACT_NONE, CK_SMALL},
    {2, 70, 64, 8, AT_BF16, AT_BF16, AFFINE, AT_ACT_SILU},
    {2, 70, 40, 8, AT_F32, AT_BF16, AFFINE | STRIDED, AT_ACT_SILU},
    {1, 70, 40, 8, AT_F16, AT_F16, AFFINE},
    {2, 5, 12, 3, AT_F32, AT_F32, AFFINE | ADDED},
    {2, 70, 64, 8, AT_F32, AT_F32, AFFINE | ADDED | STRIDED, AT_ACT_SILU},
    {2, 70, 64, 8, AT_F32, AT_F32, AFFINE | ADDED | IN_PLACE, AT_ACT_SILU, CK_OFFSET},
    {2, 603, 320, 32, AT_F16, AT_F16, AFFINE | ADDED, AT_ACT_SILU}, // vectors over two groups
    {1, 3001, 128, 32, AT_BF16, AT_BF16, AFFINE, AT_ACT_SILU},      // and over two, evenly
    {3, 41, 2560, 32, AT_F16, AT_F16, AFFINE | ADDED, AT_ACT_GELU_TANH},
    {1, 1500, 40, 8, AT_BF16, AT_F32, ADDED, AT_ACT_SILU},
    {1, 1500, 64, 64, AT_F32, AT_BF16, AFFINE, AT_ACT_NONE, CK_OFFSET},
    {150, 12, 64, 32, AT_F16, AT_F16, AFFINE | ADDED,
     AT_ACT_SILU}, // more samples than a GPU has blocks
    {2, 256, 1280, 32, AT_F16, AT_F16, AFFINE, AT_ACT_SILU},
    // as UNets have them: one block a set of groups, and blocks that share their sums
    {2, 64, 1280, 32, AT_F16, AT_F16, AFFINE | ADDED, AT_ACT_SILU},
    {1, 1100, 640, 32, AT_BF16, AT_BF16, AFFINE | ADDED | IN_PLACE, AT_ACT_SILU},
    {1, 2050, 320, 32, AT_F16, AT_F16, AFFINE, AT_ACT_NONE, CK_OFFSET},
    {1, 700, 960, 32, AT_F16, AT_F16, AFFINE | ADDED, AT_ACT_SILU},
    {1, 300, 1920, 32, AT_BF16, AT_BF16, AFFINE, AT_ACT_SILU},
    {2, 64, 2560, 32, AT_F16, AT_F16, AFFINE, AT_ACT_SILU},
    {1, 5000, 40, 4, AT_F16, AT_F16, 0, AT_ACT_NONE},
    {1, 4200, 320, 32, AT_F16, AT_F16, AFFINE, AT_ACT_SILU},
    {1, 2049, 512, 32, AT_BF16, AT_BF16, AFFINE | IN_PLACE, AT_ACT_SILU},
    {2, 5, 12, 3, AT_F32, AT_F32, AFFINE | ADDED | PARTS},
    {1, 2, 64, 32, AT_BF16, AT_BF16, AFFINE | PARTS, AT_ACT_SILU}, // one part has no pixels
    {2, 603, 320, 32, AT_F16, AT_F16, AFFINE | ADDED | PARTS, AT_ACT_SILU},
    {1, 1400, 64, 32, AT_F32, AT_F32, AFFINE | PARTS, AT_ACT_SILU, CK_OFFSET},
    {1, 300, 96, 8, AT_F32, AT_BF16, AFFINE | STRIDED | PARTS, AT_ACT_GELU_TANH},
    {1, 2049, 512, 32, AT_BF16, AT_BF16, AFFINE | IN_PLACE | PARTS, AT_ACT_SILU},
    {2, 4096, 320, 32, AT_F16, AT_F16, AFFINE | BENCH, AT_ACT_SILU},
    {2, 4096, 640, 32, AT_F16, AT_F16, AFFINE | BENCH, AT_ACT_SILU},
    {2, 4096, 960, 32, AT_F16, AT_F16, AFFINE | BENCH, AT_ACT_SILU},
    {2, 1024, 320, 32, AT_F16, AT_F16, AFFINE | BENCH, AT_ACT_SILU},
    {2, 1024, 640, 32, AT_F16, AT_F16, AFFINE | BENCH, AT_ACT_SILU},
    {2, 1024, 1280, 32, AT_F16, AT_F16, AFFINE | BENCH, AT_ACT_SILU},
    {2, 1024, 1920, 32, AT_F16, AT_F16, AFFINE | BENCH, AT_ACT_SILU},
    {2, 256, 1280, 32, AT_F16, AT_F16, AFFINE | BENCH, AT_ACT_SILU},
    {2, 256, 2560, 32, AT_F16, AT_F16, AFFINE | BENCH, AT_ACT_SILU},
    {2, 64, 1280, 32, AT_F16, AT_F16, AFFINE | BENCH, AT_ACT_SILU},
    {2, 16384, 320, 32, AT_F16, AT_F16, AFFINE | BENCH, AT_ACT_SILU},
    {2, 16384, 640, 32, AT_F16, AT_F16, AFFINE | BENCH, AT_ACT_SILU},
    {1, 65536, 32, 32, AT_F32, AT_F32, AFFINE | BENCH, AT_ACT_SILU},
    {1, 16384, 64, 32, AT_F32, AT_F32, AFFINE | BENCH, AT_ACT_SILU},
    {1, 65536, 128, 32, AT_F32, AT_F32, AFFINE | BENCH, AT_ACT_SILU},
    {1, 65536, 128, 32, AT_BF16, AT_BF16, AFFINE | BENCH, AT_ACT_SILU},
};

static const char *group_label(int row, char out[160])
{
    const group_row *r = &group_rows[row];
    snprintf(out, 160, "[%lld,%lld,%lld] g%d in%d out%d act%d%s%s%s fill%d", (long long)r->b,
             (long long)r->p, (long long)r->c, r->groups, r->in, r->out, (int)r->act,
             r->flags & STRIDED ? " strided" : "", r->flags & ADDED ? " added" : "",
             r->flags & PARTS ? " parts" : "", (int)r->fill);
    return out;
}

static bool group_bench_only(int row)
{
    return group_rows[row].flags & BENCH;
}

static void group_build(ck_run *r, int row)
{
    const group_row *c = &group_rows[row];
    at_group_norm_args *a = &r->a.group_norm;
    ck_layout l = {.pad = c->flags & STRIDED ? 3 : 0, .shift = c->flags & STRIDED ? 1 : 0};

    a->out = ck_make(r, c->out, CK_SHAPE(c->b, c->p, c->c), l, c->fill);
    a->x = c->flags & IN_PLACE ? a->out : ck_make(r, c->in, CK_SHAPE(c->b, c->p, c->c), l, c->fill);
    if (c->flags & ADDED)
        a->add = ck_make(r, c->in, CK_SHAPE(c->b, c->c), (ck_layout){.pad = l.pad}, CK_UNIT);
    if (c->flags & AFFINE) {
        a->weight = ck_weight(r, AT_F32, CK_SHAPE(c->c), CK_UNIT, 1);
        a->bias = ck_weight(r, AT_BF16, CK_SHAPE(c->c), CK_UNIT, 1);
        if (c->flags & BENCH) {
            a->weight.packed = &r->packed;
            a->bias.packed = &r->packed2;
        }
    }
    if (c->flags & PARTS) {
        a->parts =
            ck_make(r, AT_F32, CK_SHAPE(GROUP_PARTS, c->b, c->groups, 2), (ck_layout){0}, CK_UNIT);
        r->t[r->n - 1].also_written = true;
    }
    a->groups = c->groups;
    a->eps = 1e-6f;
    a->act = c->act;
    r->bytes =
        (double)(c->b * c->p * c->c) * ((c->in == AT_F32 ? 4 : 2) + (c->out == AT_F32 ? 4 : 2));
}

// Pixels of part `part` of the three that a row is cut into: a short one, and two that are nearly even.
static int64_t part_of(int64_t pixels, int part)
{
    int64_t cuts[] = {0, pixels / 5, pixels / 5 + (pixels - pixels / 5) / 2, pixels};
    return cuts[part];
}

static at_view pixels_of(at_view v, int64_t first, int64_t end)
{
    v.data = (char *)v.data + first * v.stride[1] * (int64_t)(v.dtype == AT_F32 ? 4 : 2);
    v.shape[1] = end - first;
    return v;
}

// Cut as several devices would hold it: all parts say what they have, then each is normed.
static at_status group_of_parts(const at_backend *b, ck_run *r)
{
    const at_group_norm_args *whole = &r->a.group_norm;
    int64_t pixels = whole->x.shape[1], counts[GROUP_PARTS];
    int64_t stats = whole->x.shape[0] * whole->groups * 2;
    at_status st = AT_OK;

    if (!b->group_stats) return AT_EUNSUPPORTED;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < GROUP_PARTS && st == AT_OK; i++) {
            int64_t first = part_of(pixels, i), end = part_of(pixels, i + 1);
            at_group_norm_args a = *whole;
            a.x = pixels_of(whole->x, first, end);
            counts[i] = end - first;
            if (pass == 0) {
                a.parts.data = NULL;
                a.out = (at_view){.data = (float *)whole->parts.data + i * stats,
                                  .dtype = AT_F32,
                                  .rank = 3,
                                  .shape = {a.x.shape[0], a.groups, 2},
                                  .stride = {a.groups * 2, 2, 1}};
                if (end > first) st = b->group_stats(r->stream, &a);
            } else {
                a.out = pixels_of(whole->out, first, end);
                a.part_pixels = counts;
                if (end > first) st = b->group_norm(r->stream, &a);
            }
        }
    }
    return st;
}

static at_status group_call(const at_backend *b, ck_run *r)
{
    if (r->a.group_norm.parts.data) return group_of_parts(b, r);
    return b->group_norm(r->stream, &r->a.group_norm);
}

// Element `at` of x + add; *size takes the sizes of both, which rounding follows.
static double group_value(const at_group_norm_args *a, int64_t at, double *size)
{
    int64_t ch = a->out.shape[2], b = at / (a->out.shape[1] * ch);
    double x = ck_value(&a->x, ck_offset(&a->x, at)), add = 0;
    if (a->add.data) add = ck_value(&a->add, ck_offset(&a->add, b * ch + at % ch));
    *size = fabs(x) + fabs(add);
    return x + add;
}

static void group_truth(ck_run *r)
{
    const at_group_norm_args *a = &r->a.group_norm;
    int64_t p = a->out.shape[1], ch = a->out.shape[2], per = ch / a->groups;

    for (int64_t g = 0; g < a->out.shape[0] * a->groups; g++) {
        int64_t first = g / a->groups * p * ch + g % a->groups * per;
        double mean = 0, sq = 0, size = 0, n = (double)(p * per), rstd, one;
        for (int64_t i = 0; i < p * per; i++)
            add_to_mean(&mean, &size, group_value(a, first + i / per * ch + i % per, &one), n);
        for (int64_t i = 0; i < p * per; i++)
            sq += pow(group_value(a, first + i / per * ch + i % per, &one) - mean, 2) / n;
        rstd = 1 / sqrt(sq + (double)a->eps);
        for (int64_t i = 0; i < p * per; i++) {
            int64_t at = first + i / per * ch + i % per, c = at % ch;
            double x = group_value(a, at, &one);
            double w = a->weight.v.data ? ck_value(&a->weight.v, c) : 1;
            double b = a->bias.v.data ? ck_value(&a->bias.v, c) : 0;
            r->truth[at] = ck_act((x - mean) * rstd * w + b, a->act);
            r->mag[at] = 1.2 * ((one + size) * rstd * fabs(w) + fabs(b));
        }
    }
}

// 5e-7 as norm.
const ck_op ck_group_norm = {.name = "group_norm",
                             .slot = offsetof(at_backend, group_norm),
                             .sum = 5e-7,
                             .rows = sizeof group_rows / sizeof *group_rows,
                             .label = group_label,
                             .bench_only = group_bench_only,
                             .build = group_build,
                             .call = group_call,
                             .truth = group_truth};
