// SPDX-License-Identifier: Apache-2.0
// check_rope.c - rows of the rotary embedding with its norm, and of table look-up.
#include <math.h>
#include <stdio.h>

#include "check.h"

enum {
    HALVES = 1,
    NORM = 2,
    NO_ROTATION = 4,
    PER_BATCH = 8,
    STRIDED = 16,
    IN_PLACE = 32,
    BENCH = 64,
    FUSED = 128 // heads of q inside a qkv
};

typedef struct rope_row {
    int64_t b, t, h, d;
    at_dtype in, out;
    unsigned flags;
    ck_fill fill;
} rope_row;

static const rope_row rows[] = {
    {1, 1, 1, 2, AT_F32, AT_F32, 0},
    {1, 3, 2, 4, AT_F32, AT_F32, NORM},
    {2, 5, 3, 64, AT_F32, AT_F32, NORM | IN_PLACE},
    {2, 5, 3, 64, AT_F32, AT_F32, NORM | HALVES},
    {2, 5, 2, 34, AT_F32, AT_F32, NORM | HALVES | STRIDED},
    {2, 5, 2, 34, AT_F32, AT_F32, STRIDED | IN_PLACE},
    {2, 6, 2, 128, AT_F32, AT_F32, PER_BATCH},
    {1, 6, 2, 128, AT_F32, AT_F32, NORM | NO_ROTATION},
    {2, 6, 2, 128, AT_BF16, AT_BF16, NORM | IN_PLACE},
    {2, 6, 2, 70, AT_BF16, AT_F32, NORM | HALVES | STRIDED},
    {1, 6, 2, 64, AT_F16, AT_F16, NORM},
    {2, 9, 3, 128, AT_BF16, AT_BF16, NORM | IN_PLACE | FUSED},
    {1, 9, 24, 128, AT_F16, AT_F16, NORM | IN_PLACE | FUSED},
    {1, 9, 5, 64, AT_BF16, AT_BF16, FUSED},
    {2, 300, 24, 128, AT_BF16, AT_BF16, NORM | IN_PLACE | FUSED}, // a warp a token
    {1, 50, 48, 64, AT_F16, AT_F16, NORM},
    {2, 1000, 13, 128, AT_BF16, AT_BF16, NORM | PER_BATCH}, // lanes without a head
    {2, 7, 24, 128, AT_BF16, AT_BF16, NORM | NO_ROTATION | IN_PLACE},
    {1, 7, 12, 256, AT_F16, AT_F16, FUSED},
    {1, 7, 5, 32, AT_BF16, AT_F32, NORM | FUSED},
    {2, 7, 3, 256, AT_F32, AT_F32, NORM | PER_BATCH},
    {1, 6, 2, 64, AT_F32, AT_F32, NORM, CK_LARGE},
    {1, 6, 2, 64, AT_F32, AT_F32, NORM, CK_SMALL},
    {1, 320, 4, 64, AT_F32, AT_F32, NORM | BENCH},
    {1, 4608, 24, 128, AT_F32, AT_F32, NORM | BENCH},
    {1, 4608, 24, 128, AT_BF16, AT_BF16, NORM | BENCH},
    {1, 4608, 24, 128, AT_BF16, AT_BF16, NORM | IN_PLACE | FUSED | BENCH}, // Flux, single block
    {1, 4096, 24, 128, AT_BF16, AT_BF16, NORM | IN_PLACE | FUSED | BENCH}, // double block
    {1, 512, 24, 128, AT_BF16, AT_BF16, NORM | IN_PLACE | FUSED | BENCH},
};

static const char *label(int row, char out[160])
{
    const rope_row *r = &rows[row];
    snprintf(out, 160, "[%lld,%lld,%lld,%lld] in%d out%d%s%s%s%s fill%d", (long long)r->b,
             (long long)r->t, (long long)r->h, (long long)r->d, r->in, r->out,
             r->flags & NORM ? " norm" : "", r->flags & HALVES ? " halves" : "",
             r->flags & PER_BATCH ? " batch" : "",
             r->flags & STRIDED ? " strided"
             : r->flags & FUSED ? " fused"
                                : "",
             (int)r->fill);
    return out;
}

static bool bench_only(int row)
{
    return rows[row].flags & BENCH;
}

static void build(ck_run *r, int row)
{
    const rope_row *c = &rows[row];
    at_rope_args *a = &r->a.rope;
    ck_layout l = {.pad = c->flags & STRIDED ? 6 : 0,
                   .shift = c->flags & STRIDED ? 1 : 0,
                   .slab = c->flags & FUSED ? 2 * (int)(c->h * c->d) : 0};
    ck_layout odd = {.shift = c->flags & STRIDED ? 1 : 0};
    int64_t table = c->flags & PER_BATCH ? c->b * c->t : c->t;

    a->out = ck_make(r, c->out, CK_SHAPE(c->b, c->t, c->h, c->d), l, c->fill);
    a->x = c->flags & IN_PLACE ? a->out
                               : ck_make(r, c->in, CK_SHAPE(c->b, c->t, c->h, c->d), l, c->fill);
    if (c->flags & NORM) a->weight = ck_weight(r, AT_BF16, CK_SHAPE(c->d), CK_UNIT, 1);
    if (c->flags & BENCH) a->weight.packed = &r->packed; // in a model it is made resident once
    if (!(c->flags & NO_ROTATION)) {
        a->cos = ck_make(r, AT_F32, CK_SHAPE(table, c->d / 2), odd, CK_UNIT);
        a->sin = ck_make(r, AT_F32, CK_SHAPE(table, c->d / 2), odd, CK_UNIT);
    }
    a->eps = 1e-6f;
    a->halves = c->flags & HALVES;
    r->bytes = (double)(c->b * c->t * c->h * c->d) *
               ((c->in == AT_F32 ? 4 : 2) + (c->out == AT_F32 ? 4 : 2));
}

static at_status call(const at_backend *b, ck_run *r)
{
    return b->rope(r->stream, &r->a.rope);
}

// Head `row` of x, row-major; its angles are those of row `angle` of the tables.
static void head_truth(ck_run *r, const at_rope_args *a, const at_view *x, int64_t row,
                       int64_t angle)
{
    int64_t d = x->shape[3], half = d / 2;
    double sq = 0, rstd = 1;

    for (int64_t c = 0; c < d; c++)
        sq += pow(ck_value(x, ck_offset(x, row * d + c)), 2) / (double)d;
    if (a->weight.v.data) rstd = 1 / sqrt(sq + (double)a->eps);
    for (int64_t c = 0; c < d; c++) {
        int64_t pair = a->halves ? c % half : c / 2, second = a->halves ? c >= half : c % 2;
        int64_t other = a->halves ? (second ? c - half : c + half) : (second ? c - 1 : c + 1);
        double u = ck_value(x, ck_offset(x, row * d + c)) * rstd, v = 0, cs = 1, sn = 0;
        if (other < d) v = ck_value(x, ck_offset(x, row * d + other)) * rstd;
        if (a->weight.v.data) {
            u *= ck_value(&a->weight.v, c);
            v *= ck_value(&a->weight.v, other);
        }
        if (a->cos.data) {
            cs = ck_value(&a->cos, angle * half + pair);
            sn = ck_value(&a->sin, angle * half + pair);
        }
        r->truth[row * d + c] = second ? u * cs + v * sn : u * cs - v * sn;
        r->mag[row * d + c] = fabs(u * cs) + fabs(v * sn);
    }
}

static void truth(ck_run *r)
{
    const at_rope_args *a = &r->a.rope;
    int64_t d = a->x.shape[3], heads = a->x.shape[2], t = a->x.shape[1];
    bool per_batch = a->cos.data && a->cos.shape[0] != t;

    for (int64_t row = 0; row < ck_count(&a->x) / d; row++)
        head_truth(r, a, &a->x, row, per_batch ? row / heads : row / heads % t);
}

// 4e-7: seven roundings.
const ck_op ck_rope = {.name = "rope",
                       .slot = offsetof(at_backend, rope),
                       .sum = 4e-7,
                       .rows = sizeof rows / sizeof *rows,
                       .label = label,
                       .bench_only = bench_only,
                       .build = build,
                       .call = call,
                       .truth = truth};

// --- q and k of two streams in one go
// ----------------------------------------------------------------------------------------
static const struct {
    int64_t b, text, image, h, d; // one buffer [b, text + image, 2 * h, d]: q, then k
    at_dtype type;
    bool halves, bench;
} joint[] = {
    {1, 1, 1, 1, 2, AT_F32, false},
    {2, 3, 5, 3, 128, AT_BF16, false},
    {1, 3, 5, 24, 128, AT_F16, false},
    {1, 0, 4, 2, 64, AT_F32, false},
    {2, 3, 4, 3, 34, AT_F32, false},
    {1, 3, 4, 2, 64, AT_BF16, true},
    {1, 512, 4096, 24, 128, AT_BF16, false, true}, // Flux, double block
};

static const char *joint_label(int row, char out[160])
{
    snprintf(out, 160, "[%lld,%lld+%lld,%lld,%lld] %s%s", (long long)joint[row].b,
             (long long)joint[row].text, (long long)joint[row].image, (long long)joint[row].h,
             (long long)joint[row].d, ck_dtype_name(joint[row].type),
             joint[row].halves ? " halves" : "");
    return out;
}

static bool joint_bench(int row)
{
    return joint[row].bench;
}

static at_view part(at_view v, int dim, int64_t first, int64_t n)
{
    v.data = (char *)v.data + first * v.stride[dim] * (v.dtype == AT_F32 ? 4 : 2);
    v.shape[dim] = n;
    return v;
}

static void joint_build(ck_run *r, int row)
{
    int64_t b = joint[row].b, text = joint[row].text, n = text + joint[row].image;
    int64_t h = joint[row].h, d = joint[row].d;
    at_view all = ck_make(r, joint[row].type, CK_SHAPE(b, n, 2 * h, d), (ck_layout){0}, CK_UNIT);
    at_view cos = ck_make(r, AT_F32, CK_SHAPE(n, d / 2), (ck_layout){0}, CK_UNIT);
    at_view sin = ck_make(r, AT_F32, CK_SHAPE(n, d / 2), (ck_layout){0}, CK_UNIT);

    for (int i = 0; i < AT_ROPES; i++) { // text's q and k, then the picture's
        at_rope_args *a = &r->a.ropes[i];
        int64_t first = i < 2 ? 0 : text, tokens = i < 2 ? text : n - text;
        a->x = a->out = part(part(all, 1, first, tokens), 2, i % 2 * h, h);
        a->weight = ck_weight(r, AT_BF16, CK_SHAPE(d), CK_UNIT, 1);
        if (joint[row].bench) a->weight.packed = i % 2 ? &r->packed : &r->packed2;
        a->cos = part(cos, 0, first, tokens);
        a->sin = part(sin, 0, first, tokens);
        a->eps = 1e-6f;
        a->halves = joint[row].halves;
    }
    r->bytes = (double)ck_count(&all) * (all.dtype == AT_F32 ? 8 : 4);
}

static at_status joint_call(const at_backend *b, ck_run *r)
{
    at_rope_args *a = r->a.ropes;
    int skip = a[0].x.shape[1] ? 0 : 2;
    if (b->ropes) return b->ropes(r->stream, a + skip, AT_ROPES - skip);
    at_status st = AT_OK;
    for (int i = skip; i < AT_ROPES && st == AT_OK; i++)
        st = b->rope(r->stream, &a[i]);
    return st;
}

static void joint_truth(ck_run *r)
{
    const at_view *all = &r->t[0].v;
    int64_t d = all->shape[3], heads = all->shape[2], tokens = all->shape[1];
    int64_t text = r->a.ropes[0].x.shape[1];

    for (int64_t row = 0; row < ck_count(all) / d; row++) {
        int64_t head = row % heads, token = row / heads % tokens;
        const at_rope_args *a = &r->a.ropes[(token < text ? 0 : 2) + (head < heads / 2 ? 0 : 1)];
        head_truth(r, a, all, row, token < text ? token : token - text);
    }
}

const ck_op ck_ropes = {.name = "ropes",
                        .slot = offsetof(at_backend, rope),
                        .sum = 4e-7,
                        .rows = sizeof joint / sizeof *joint,
                        .label = joint_label,
                        .bench_only = joint_bench,
                        .build = joint_build,
                        .call = joint_call,
                        .truth = joint_truth};

// --- embedding
// ----------------------------------------------------------------------------------------
static const struct {
    int64_t rows, dim, n;
    at_dtype table, out;
    float scale;
} lookups[] = {
    {1, 1, 1, AT_F32, AT_F32, 1},         {50, 33, 7, AT_F32, AT_F32, 1},
    {50, 768, 77, AT_BF16, AT_F32, 1},    {50, 600, 9, AT_F16, AT_BF16, 1},
    {50, 40, 9, AT_F8E4M3, AT_F32, 0.3f}, {9, 64, 20, AT_BF16, AT_BF16, 1},
};

static const char *lookup_label(int row, char out[160])
{
    snprintf(out, 160, "%lld of [%lld,%lld] table%d out%d", (long long)lookups[row].n,
             (long long)lookups[row].rows, (long long)lookups[row].dim, lookups[row].table,
             lookups[row].out);
    return out;
}

static bool never(int row)
{
    (void)row;
    return false;
}

static void lookup_build(ck_run *r, int row)
{
    at_embedding_args *a = &r->a.embedding;
    int64_t n = lookups[row].n, dim = lookups[row].dim, count = lookups[row].rows;

    a->out = ck_make(r, lookups[row].out, CK_SHAPE(n, dim), (ck_layout){.pad = 3}, CK_UNIT);
    a->table = ck_weight(r, lookups[row].table, CK_SHAPE(count, dim), CK_UNIT, lookups[row].scale);
    a->ids = ck_make(r, AT_I32, CK_SHAPE(n), (ck_layout){0}, CK_UNIT);
    for (int64_t i = 0; i < n; i++)
        ((int32_t *)a->ids.data)[i] = (int32_t)(ck_uniform() * (double)count);
}

static at_status lookup_call(const at_backend *b, ck_run *r)
{
    return b->embedding(r->stream, &r->a.embedding);
}

static void lookup_truth(ck_run *r)
{
    const at_embedding_args *a = &r->a.embedding;
    int64_t dim = a->out.shape[1];

    for (int64_t i = 0; i < ck_count(&a->out); i++) {
        int64_t id = ((const int32_t *)a->ids.data)[i / dim];
        r->truth[i] = ck_value(&a->table.v, id * dim + i % dim) * (double)a->table.scale;
        r->mag[i] = fabs(r->truth[i]);
    }
}

// 6e-8: one product in f32.
const ck_op ck_embedding = {.name = "embedding",
                            .slot = offsetof(at_backend, embedding),
                            .sum = 6e-8,
                            .exact = true,
                            .rows = sizeof lookups / sizeof *lookups,
                            .label = lookup_label,
                            .bench_only = never,
                            .build = lookup_build,
                            .call = lookup_call,
                            .truth = lookup_truth};
