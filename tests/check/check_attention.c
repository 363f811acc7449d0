// SPDX-License-Identifier: Apache-2.0
// check_attention.c - rows of attention: shapes, masks, strided q k v; truth by the full softmax.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

enum {
    CAUSAL = 1,
    BIAS = 2,       // finite additive bias for every head
    MASK = 4,       // zeros and -inf, rows may be masked everywhere
    BIAS_ONE = 8,   // the bias broadcasts over heads
    FUSED_QKV = 16, // q, k and v lie in one buffer
    STRIDED = 32,
    BENCH = 64,
    BIAS_LINE = 128, // a bias by distance: every row is a window on one line of its head
    FP8 = 256,       // with leave to round to e4m3
    TURNED = 512,    // q and k are normalised and rotated first, in two runs of tokens
    ROWS8 = 1024,    // into fp8 rows
    LSE = 2048       // a log-sum-exp is wanted too (check_lse.c judges it)
};

typedef struct attention_row {
    int64_t b, tq, tk, h, d;
    at_dtype in, out;
    unsigned flags;
    ck_fill fill;
} attention_row;

static const attention_row rows[] = {
    {1, 1, 1, 1, 1, AT_F32, AT_F32},
    {1, 3, 5, 2, 4, AT_F32, AT_F32},
    {2, 7, 7, 3, 32, AT_F32, AT_F32, CAUSAL},
    {1, 65, 130, 2, 64, AT_F32, AT_F32},
    {2, 33, 77, 2, 40, AT_F32, AT_F32, BIAS | STRIDED},
    {1, 77, 77, 3, 64, AT_F32, AT_F32, CAUSAL | BIAS},
    {1, 5, 9, 2, 64, AT_F32, AT_F32, CAUSAL},
    {1, 9, 5, 2, 64, AT_F32, AT_F32, CAUSAL}, // the first rows see nothing
    {1, 20, 65, 2, 64, AT_F32, AT_F32, MASK},
    {2, 4, 3, 2, 16, AT_F32, AT_F32, MASK},
    {2, 50, 50, 3, 64, AT_F32, AT_F32, BIAS | BIAS_ONE},
    {1, 320, 320, 3, 64, AT_F32, AT_F32, FUSED_QKV},
    {2, 100, 100, 2, 128, AT_F32, AT_F32, FUSED_QKV},
    {1, 90, 90, 1, 80, AT_F32, AT_F32},
    {1, 60, 61, 1, 160, AT_F32, AT_F32},
    {1, 70, 200, 1, 512, AT_F32, AT_F32},
    {1, 66, 66, 1, 33, AT_F32, AT_F32, STRIDED},
    {1, 40, 300, 2, 64, AT_F32, AT_F32, 0, CK_WIDE},     // sharp softmax
    {1, 40, 300, 2, 64, AT_F32, AT_F32, BIAS, CK_LARGE}, // one key wins
    {1, 40, 300, 2, 64, AT_F32, AT_F32, 0, CK_SMALL},    // all keys equal
    {1, 65, 130, 2, 64, AT_BF16, AT_BF16},
    {2, 33, 77, 2, 128, AT_BF16, AT_F32, FUSED_QKV},
    {1, 33, 77, 2, 40, AT_BF16, AT_BF16, BIAS | STRIDED | CAUSAL},
    {1, 70, 130, 1, 512, AT_BF16, AT_BF16},
    {1, 33, 40, 2, 64, AT_F16, AT_F16, MASK},
    {2, 70, 77, 2, 80, AT_BF16, AT_BF16},
    {2, 64, 77, 3, 160, AT_F32, AT_F32},
    {1, 130, 300, 2, 40, AT_BF16, AT_BF16, MASK},
    {1, 40, 300, 2, 64, AT_BF16, AT_BF16, 0, CK_WIDE},
    // 16 bits, every head size and mask: tails of queries and keys, whole tiles, views
    {2, 129, 193, 3, 64, AT_BF16, AT_BF16, BIAS_LINE},
    {1, 128, 128, 2, 64, AT_F16, AT_F16, BIAS_LINE},
    {1, 77, 77, 3, 64, AT_BF16, AT_BF16, CAUSAL | FUSED_QKV},
    {2, 130, 130, 2, 64, AT_F16, AT_F16, CAUSAL},
    {1, 9, 150, 2, 64, AT_BF16, AT_BF16, CAUSAL},
    {1, 150, 9, 2, 64, AT_BF16, AT_BF16, CAUSAL}, // the first rows see nothing
    {1, 65, 65, 2, 128, AT_BF16, AT_BF16, CAUSAL | BIAS | FUSED_QKV},
    {2, 65, 129, 2, 64, AT_BF16, AT_BF16, BIAS | BIAS_ONE},
    {2, 65, 129, 2, 128, AT_BF16, AT_F32, MASK},
    {1, 129, 65, 2, 40, AT_F16, AT_F16, BIAS},
    {1, 129, 77, 2, 8, AT_BF16, AT_BF16, BIAS},
    {1, 70, 77, 2, 48, AT_BF16, AT_BF16, MASK},
    {1, 70, 77, 2, 80, AT_F16, AT_F16, BIAS | FUSED_QKV},
    {1, 70, 77, 2, 88, AT_BF16, AT_BF16, MASK},
    {1, 70, 77, 2, 96, AT_BF16, AT_BF16, BIAS_LINE},
    {1, 70, 130, 2, 104, AT_BF16, AT_BF16, CAUSAL | FUSED_QKV},
    {1, 70, 130, 2, 128, AT_F16, AT_F16, BIAS_LINE},
    {1, 70, 77, 2, 160, AT_BF16, AT_BF16, MASK},
    {1, 70, 130, 1, 192, AT_BF16, AT_BF16, BIAS},
    {1, 70, 130, 1, 256, AT_F16, AT_F16, CAUSAL | MASK},
    {1, 70, 130, 1, 256, AT_BF16, AT_BF16, MASK},
    {2, 300, 300, 2, 64, AT_F16, AT_F16, FUSED_QKV},
    {1, 301, 301, 2, 128, AT_BF16, AT_BF16, FUSED_QKV},
    {1, 40, 300, 2, 64, AT_F16, AT_F16, BIAS, CK_LARGE},
    {1, 40, 300, 2, 64, AT_BF16, AT_BF16, BIAS, CK_SMALL},
    {1, 40, 300, 2, 64, AT_BF16, AT_BF16, CAUSAL, CK_WIDE},
    // heads of 40 and 64 on Hopper's matrix units: tails of queries and keys, one tile and several
    {2, 300, 333, 3, 40, AT_F16, AT_F16},
    {1, 192, 1300, 2, 40, AT_BF16, AT_BF16, 0, CK_WIDE},
    {2, 193, 193, 2, 40, AT_F16, AT_F16, FUSED_QKV},
    {1, 3, 161, 2, 40, AT_BF16, AT_BF16, STRIDED},
    {2, 300, 700, 3, 64, AT_BF16, AT_BF16},
    {1, 257, 1025, 2, 64, AT_F16, AT_F16, 0, CK_WIDE},
    {1, 301, 310, 3, 64, AT_BF16, AT_BF16, BIAS_LINE},
    {2, 512, 512, 2, 64, AT_F16, AT_F16, BIAS_LINE},
    {1, 40, 300, 2, 64, AT_BF16, AT_BF16, BIAS_LINE, CK_LARGE},
    // heads of 40 and 64 on Hopper's matrix units: tails of queries and keys, one tile and several
    {2, 300, 333, 3, 40, AT_F16, AT_F16},
    {1, 192, 1300, 2, 40, AT_BF16, AT_BF16, 0, CK_WIDE},
    {2, 193, 193, 2, 40, AT_F16, AT_F16, FUSED_QKV},
    {1, 3, 161, 2, 40, AT_BF16, AT_BF16, STRIDED},
    {2, 300, 700, 3, 64, AT_BF16, AT_BF16},
    {1, 257, 1025, 2, 64, AT_F16, AT_F16, 0, CK_WIDE},
    {1, 301, 310, 3, 64, AT_BF16, AT_BF16, BIAS_LINE},
    {2, 512, 512, 2, 64, AT_F16, AT_F16, BIAS_LINE},
    {1, 40, 300, 2, 64, AT_BF16, AT_BF16, BIAS_LINE, CK_LARGE},
    // few keys, several tiles of queries a block
    {2, 260, 77, 70, 40, AT_F16, AT_F16},
    {2, 257, 80, 70, 64, AT_BF16, AT_BF16},
    {2, 250, 9, 70, 72, AT_BF16, AT_BF16},
    // wide heads and f32: by matmuls
    {2, 70, 131, 2, 512, AT_F16, AT_F16, CAUSAL},
    {1, 70, 131, 2, 512, AT_BF16, AT_F32, MASK | FUSED_QKV},
    {2, 70, 131, 1, 512, AT_F32, AT_F32, BIAS_LINE | STRIDED},
    {1, 3, 2050, 1, 512, AT_BF16, AT_BF16},
    {1, 3, 6000, 1, 512, AT_BF16, AT_BF16},
    {1, 3, 16381, 1, 264, AT_F16, AT_F16},
    {1, 3, 17001, 1, 264, AT_BF16, AT_BF16},
    {1, 3, 18000, 1, 16, AT_F32, AT_F32, CAUSAL},
    {1, 70, 70, 3, 264, AT_BF16, AT_BF16, CAUSAL | FUSED_QKV},
    {1, 33, 1, 2, 512, AT_BF16, AT_BF16},
    {1, 1, 33, 2, 264, AT_F16, AT_F16, BIAS},
    // with a log-sum-exp, which chooses other kernels
    {2, 129, 77, 2, 64, AT_BF16, AT_BF16, LSE},
    {1, 301, 301, 2, 128, AT_BF16, AT_BF16, FUSED_QKV | LSE},
    {2, 33, 77, 2, 40, AT_F32, AT_F32, LSE},
    {1, 2051, 2051, 1, 128, AT_BF16, AT_BF16, FP8 | FUSED_QKV | LSE},
    // in e4m3, where a backend does it at all
    {1, 2048, 2051, 1, 128, AT_BF16, AT_BF16, FP8 | FUSED_QKV},
    {1, 2050, 2048, 1, 128, AT_F16, AT_F16, FP8, CK_WIDE},
    {1, 2048, 2048, 1, 128, AT_BF16, AT_BF16, FP8 | FUSED_QKV | TURNED},
    {1, 2051, 2051, 1, 128, AT_F16, AT_F16, FP8 | FUSED_QKV | TURNED},
    {2, 50, 50, 3, 64, AT_BF16, AT_BF16, FP8 | FUSED_QKV | TURNED}, // too short to be worth it
    {1, 2048, 2048, 1, 128, AT_BF16, AT_F8E4M3, FP8 | FUSED_QKV | TURNED | ROWS8},
    {1, 50, 50, 1, 128, AT_BF16, AT_F8E4M3, FP8 | FUSED_QKV | TURNED | ROWS8},
    // Stable Diffusion at 512x512, two images
    {2, 4096, 4096, 8, 40, AT_F32, AT_F32, BENCH},
    {2, 1024, 1024, 8, 80, AT_F32, AT_F32, BENCH},
    {2, 256, 256, 8, 160, AT_F32, AT_F32, BENCH},
    {2, 4096, 77, 8, 40, AT_F32, AT_F32, BENCH},
    {2, 1024, 77, 8, 80, AT_F32, AT_F32, BENCH},
    {2, 1024, 1024, 10, 64, AT_F32, AT_F32, BENCH},
    {2, 4096, 4096, 8, 40, AT_BF16, AT_BF16, BENCH},
    {2, 1024, 1024, 8, 80, AT_BF16, AT_BF16, BENCH},
    {2, 256, 256, 8, 160, AT_BF16, AT_BF16, BENCH},
    {2, 4096, 77, 8, 40, AT_BF16, AT_BF16, BENCH},
    {1, 4096, 4096, 1, 512, AT_F32, AT_F32, BENCH},
    {1, 4096, 4096, 1, 512, AT_BF16, AT_BF16, BENCH},
    {1, 320, 320, 4, 64, AT_F32, AT_F32, BENCH | FUSED_QKV},
    {1, 320, 320, 4, 64, AT_BF16, AT_BF16, BENCH | FUSED_QKV},
    {1, 4608, 4608, 4, 128, AT_BF16, AT_BF16, BENCH | FUSED_QKV},
    {1, 4608, 4608, 4, 128, AT_F32, AT_F32, BENCH | FUSED_QKV},
    {1, 1024, 1024, 1, 512, AT_F32, AT_F32, BENCH | FUSED_QKV},
    {1, 1024, 1024, 1, 64, AT_F32, AT_F32, BENCH | FUSED_QKV},
    {1, 77, 77, 12, 64, AT_F32, AT_F32, BENCH | FUSED_QKV | CAUSAL},
    {1, 77, 77, 12, 64, AT_BF16, AT_BF16, BENCH | FUSED_QKV | CAUSAL},
    {1, 512, 512, 64, 64, AT_BF16, AT_BF16, BENCH | BIAS_LINE},
    {1, 512, 512, 64, 64, AT_BF16, AT_BF16, BENCH | BIAS | FUSED_QKV},
    {1, 16384, 16384, 1, 512, AT_BF16, AT_BF16, BENCH},
    {2, 4096, 4096, 10, 64, AT_F16, AT_F16, BENCH},
    {2, 1024, 1024, 20, 64, AT_F16, AT_F16, BENCH},
    {2, 4096, 77, 10, 64, AT_F16, AT_F16, BENCH},
    {2, 1024, 77, 20, 64, AT_F16, AT_F16, BENCH},
    {2, 4096, 4096, 8, 40, AT_F16, AT_F16, BENCH},
    {2, 4096, 77, 8, 40, AT_F16, AT_F16, BENCH},
    {1, 4608, 4608, 24, 128, AT_BF16, AT_BF16, BENCH | FUSED_QKV},
    {1, 4608, 4608, 24, 128, AT_BF16, AT_BF16, BENCH | FUSED_QKV | FP8},
    {1, 4608, 4608, 24, 128, AT_BF16, AT_BF16, BENCH | FUSED_QKV | FP8 | TURNED},
    {1, 4608, 4608, 24, 128, AT_BF16, AT_F8E4M3, BENCH | FUSED_QKV | FP8 | TURNED | ROWS8},
    {1, 4609, 4609, 24, 128, AT_BF16, AT_BF16, BENCH | FUSED_QKV},
    // half of Flux.1 1024x1024: all keys, half of the heads, half of the keys
    {1, 2304, 4608, 24, 128, AT_BF16, AT_BF16, BENCH},
    {1, 4608, 4608, 12, 128, AT_BF16, AT_BF16, BENCH},
    {1, 2304, 2304, 24, 128, AT_BF16, AT_BF16, BENCH},
    {1, 2304, 2304, 24, 128, AT_BF16, AT_BF16, BENCH | LSE},
    {1, 2304, 2304, 24, 128, AT_BF16, AT_BF16, BENCH | FP8 | LSE},
    // ... and of four and eight ranks: by ring, by Ulysses, of 2048 x 2048 too.
    {1, 1152, 4608, 24, 128, AT_BF16, AT_BF16, BENCH},
    {1, 576, 4608, 24, 128, AT_BF16, AT_BF16, BENCH},
    {1, 4608, 4608, 6, 128, AT_BF16, AT_BF16, BENCH},
    {1, 4608, 4608, 3, 128, AT_BF16, AT_BF16, BENCH},
    {1, 2304, 4608, 6, 128, AT_BF16, AT_BF16, BENCH},
    {1, 1152, 4608, 24, 128, AT_BF16, AT_BF16, BENCH | FP8},
    {1, 576, 4608, 24, 128, AT_BF16, AT_BF16, BENCH | FP8},
    {1, 16896, 16896, 24, 128, AT_BF16, AT_BF16, BENCH},
    {1, 4224, 16896, 24, 128, AT_BF16, AT_BF16, BENCH},
    {1, 2112, 16896, 24, 128, AT_BF16, AT_BF16, BENCH},
    {1, 4224, 4224, 24, 128, AT_BF16, AT_BF16, BENCH | LSE},
    {1, 2112, 2112, 24, 128, AT_BF16, AT_BF16, BENCH | LSE},
    {1, 256, 256, 8, 64, AT_F32, AT_F32, BENCH | FUSED_QKV | BIAS},
};

static const char *label(int row, char out[160])
{
    const attention_row *r = &rows[row];
    snprintf(out, 160, "b%lld q%lld k%lld h%lld d%lld %s%s%s%s%s%s%s%s%s%s fill%d", (long long)r->b,
             (long long)r->tq, (long long)r->tk, (long long)r->h, (long long)r->d,
             ck_dtype_name(r->in), r->flags & CAUSAL ? " causal" : "",
             r->flags & BIAS ? " bias" : "", r->flags & MASK ? " mask" : "",
             r->flags & BIAS_LINE ? " line" : "", r->flags & FP8 ? " fp8" : "",
             r->flags & FUSED_QKV ? " qkv" : "", r->flags & TURNED ? " turned" : "",
             r->flags & ROWS8 ? " rows8" : "", r->flags & LSE ? " lse" : "", (int)r->fill);
    return out;
}

static bool bench_only(int row)
{
    return rows[row].flags & BENCH;
}

// q, k and v as thirds of one [b, t, 3, h, d] buffer.
static void build_fused(ck_run *r, const attention_row *c)
{
    at_attention_args *a = &r->a.attention;
    int64_t t = c->tq > c->tk ? c->tq : c->tk, hd = c->h * c->d;
    at_view all = ck_make(r, c->in, CK_SHAPE(c->b, t, 3 * hd), (ck_layout){0}, c->fill);
    at_view part = {.dtype = c->in,
                    .rank = 4,
                    .shape = {c->b, t, c->h, c->d},
                    .stride = {t * 3 * hd, 3 * hd, c->d, 1}};
    size_t bytes = (size_t)hd * (c->in == AT_F32 ? 4 : 2);

    part.data = all.data;
    a->q = part;
    a->q.shape[1] = c->tq;
    part.data = (char *)all.data + bytes;
    a->k = part;
    a->k.shape[1] = c->tk;
    part.data = (char *)all.data + 2 * bytes;
    a->v = part;
    a->v.shape[1] = c->tk;
}

// Text's q and k, then the picture's: a run of the first tokens and one of the rest.
static void build_turns(ck_run *r, const attention_row *c)
{
    at_attention_args *a = &r->a.attention;
    int64_t text = c->tq / 9 + 1;

    r->t[r->n - 1].also_written = true; // q and k may be turned in place
    for (int i = 0; i < AT_ROPES; i++) {
        at_rope_args *turn = &r->turns[i];
        int64_t first = i < 2 ? 0 : text, n = i < 2 ? text : c->tq - text;
        at_view x = i % 2 ? a->k : a->q;

        x.data = (char *)x.data + (size_t)(first * x.stride[1]) * ck_size(x.dtype);
        x.shape[1] = n;
        *turn = (at_rope_args){.x = x, .out = x, .eps = 1e-6f};
        turn->weight = ck_weight(r, AT_BF16, CK_SHAPE(c->d), CK_UNIT, 1);
        turn->cos = ck_make(r, AT_F32, CK_SHAPE(n, c->d / 2), (ck_layout){0}, CK_UNIT);
        turn->sin = i % 2 ? r->turns[i - 1].cos : turn->cos;
    }
    a->n_turns = AT_ROPES;
}

static void build(ck_run *r, int row)
{
    const attention_row *c = &rows[row];
    at_attention_args *a = &r->a.attention;
    ck_layout l = {.pad = c->flags & STRIDED ? 3 : 0, .shift = c->flags & STRIDED ? 1 : 0};

    a->out = ck_make(r, c->out, CK_SHAPE(c->b, c->tq, c->h, c->d), l, CK_UNIT);
    if (c->flags & FUSED_QKV) {
        build_fused(r, c);
        if (c->flags & TURNED) build_turns(r, c);
    } else {
        a->q = ck_make(r, c->in, CK_SHAPE(c->b, c->tq, c->h, c->d), l, c->fill);
        a->k = ck_make(r, c->in, CK_SHAPE(c->b, c->tk, c->h, c->d), l, CK_UNIT);
        a->v = ck_make(r, c->in, CK_SHAPE(c->b, c->tk, c->h, c->d), l, CK_UNIT);
    }
    if (c->flags & (BIAS | MASK)) {
        l.broadcast = c->flags & BIAS_ONE ? 2 : 0;
        a->bias = ck_make(r, AT_F32, CK_SHAPE(c->flags & BIAS_ONE ? 1 : c->b, c->h, c->tq, c->tk),
                          l, c->flags & MASK ? CK_MASK : CK_UNIT);
    }
    if (c->flags & BIAS_LINE) {
        int64_t each = c->tq + c->tk - 1;
        at_view lines = ck_make(r, AT_F32, CK_SHAPE(c->h, each), (ck_layout){0}, CK_UNIT);
        a->bias = (at_view){.data = (float *)lines.data + c->tq - 1,
                            .dtype = AT_F32,
                            .rank = 4,
                            .shape = {1, c->h, c->tq, c->tk},
                            .stride = {c->h * each, each, -1, 1}};
    }
    if (c->flags & LSE) {
        a->lse = ck_make(r, AT_F32, CK_SHAPE(c->b, c->h, c->tq), (ck_layout){0}, CK_UNIT);
        r->t[r->n - 1].also_written = true;
    }
    if (c->flags & ROWS8) a->out_scale = ck_make_scales(r, c->b * c->tq);
    a->scale = (float)(1 / sqrt((double)c->d));
    a->causal = c->flags & CAUSAL;
    a->fp8 = c->flags & FP8;
    r->flops = 4.0 * (double)(c->b * c->h * c->tq) * (double)(c->tk * c->d);
}

static at_status turn_and_attend(const at_backend *b, ck_run *r, at_attention_args a)
{
    at_status st = AT_OK;

    for (int i = 0; i < a.n_turns && st == AT_OK; i++) // one after the other, as ops/ does it
        st = b->rope(r->stream, &r->turns[i]);
    a.n_turns = 0;
    return st == AT_OK ? b->attention(r->stream, &a) : st;
}

// What a backend without fp8 rows is spared: the result in floats, rounded here.
static at_status floats_to_rows8(const at_backend *b, ck_run *r, at_attention_args a)
{
    int64_t tokens = a.out.shape[1], d = a.out.shape[2] * a.out.shape[3];
    float *wide = malloc((size_t)(tokens * d) * sizeof *wide);
    if (!wide) return at_fail(AT_ENOMEM, "no memory for a row of the check");
    a.out.data = wide;
    a.out.dtype = AT_F32;
    a.out_scale.data = NULL;
    at_status st = turn_and_attend(b, r, a);
    if (st == AT_OK)
        ck_to_rows8(wide, tokens, d, r->a.attention.out.data, r->a.attention.out_scale.data);
    free(wide);
    return st;
}

static at_status call(const at_backend *b, ck_run *r)
{
    at_attention_args a = r->a.attention;

    a.turns = r->turns;
    if (b->turns) return b->attention(r->stream, &a);
    return a.out_scale.data ? floats_to_rows8(b, r, a) : turn_and_attend(b, r, a);
}

static double at4(const at_view *v, int64_t i, int64_t j, int64_t k, int64_t l)
{
    int64_t first = v->shape[0] == 1 ? 0 : i * v->stride[0];
    return ck_value(v, first + j * v->stride[1] + k * v->stride[2] + l * v->stride[3]);
}

// q, k or v as doubles, one head after the other: [b, h, t, d]. The caller frees.
static double *values(const at_view *v)
{
    int64_t t = v->shape[1], h = v->shape[2], d = v->shape[3], n = v->shape[0] * t * h * d;
    double *out = malloc((size_t)(n ? n : 1) * sizeof *out);

    for (int64_t i = 0; out && i < n; i++)
        out[i] = at4(v, i / d / t / h, i / d % t, i / d / t % h, i % d);
    return out;
}

// A head's channels x, normalised and rotated by row `row` of a turn's tables.
static void turn_head(const at_rope_args *a, int64_t row, double *x, int64_t d)
{
    double squares = 0, rstd;

    for (int64_t c = 0; c < d; c++)
        squares += x[c] * x[c] / (double)d;
    rstd = 1 / sqrt(squares + (double)a->eps);
    for (int64_t c = 0; c < d; c += 2) {
        double u = x[c] * rstd * ck_value(&a->weight.v, c);
        double v = x[c + 1] * rstd * ck_value(&a->weight.v, c + 1);
        double cs = ck_value(&a->cos, row * d / 2 + c / 2);
        double sn = ck_value(&a->sin, row * d / 2 + c / 2);
        x[c] = u * cs - v * sn;
        x[c + 1] = v * cs + u * sn;
    }
}

// q (odd 0) or k (odd 1) of values() after the turns.
static void turn_values(const ck_run *r, int odd, double *x)
{
    const at_attention_args *a = &r->a.attention;
    int64_t t = a->q.shape[1], d = a->q.shape[3], text = r->turns[0].x.shape[1];

    for (int64_t i = 0; a->n_turns && x && i < a->q.shape[0] * a->q.shape[2] * t; i++) {
        int64_t token = i % t;
        const at_rope_args *turn = &r->turns[(token < text ? 0 : 2) + odd];
        turn_head(turn, token < text ? token : token - text, x + i * d, d);
    }
}

// Of the scores of a row, the largest: sum of absolute products, and of squared ones.
typedef struct sizes {
    double mag, squares;
} sizes;

// Scores of query i of a head into s; q is that query, k the head's first key.
static sizes scores(const at_attention_args *a, const double *q, const double *k, int64_t b,
                    int64_t h, int64_t i, double *s)
{
    int64_t tk = a->k.shape[1], d = a->q.shape[3];
    sizes most = {0, 0};

    for (int64_t t = 0; t < tk; t++) {
        double sum = 0, mag = 0, squares = 0;
        for (int64_t c = 0; c < d; c++) {
            double p = q[c] * k[t * d + c] * (double)a->scale;
            sum += p;
            mag += fabs(p);
            squares += p * p;
        }
        if (a->bias.data) {
            double bias = at4(&a->bias, b, h, i, t);
            sum += bias;
            if (isfinite(bias)) mag += fabs(bias);
        }
        if (a->causal && t > i + tk - a->q.shape[1]) sum = -INFINITY;
        if (mag > most.mag) most.mag = mag;
        if (squares > most.squares) most.squares = squares;
        s[t] = sum;
    }
    return most;
}

// What rounding inside may do to a sum with `squares` of its terms. An operand rounded errs by up to `most` of itself,
// uniformly, so a deviation is most / sqrt(3) of a term; six of them are the bound. Heads of 16 bits may round
// their probabilities (2^-8 in bf16, 2^-11 in f16). In e4m3 (2^-4) probabilities, values, and through the scores q and
// k are rounded; so is the result, which may lie among e4m3's subnormals.
static double rounded(const at_attention_args *a, sizes of, double squares, double sum)
{
    double most = a->q.dtype == AT_BF16 ? 0x1p-8 : a->q.dtype == AT_F16 ? 0x1p-11 : 0;
    double f8 = 0x1p-4 / sqrt(3);
    if (!a->fp8) return 6 * most / sqrt(3) * sqrt(squares);
    return 6 * f8 * sqrt(squares * (2 + 2 * of.squares)) + 0x1p-4 * fabs(sum) + 0x1p-9;
}

static void truth(ck_run *r)
{
    const at_attention_args *a = &r->a.attention;
    int64_t tq = a->q.shape[1], tk = a->k.shape[1], heads = a->q.shape[2], d = a->q.shape[3];
    double *s = malloc((size_t)tk * sizeof *s);
    double *q = values(&a->q), *k = values(&a->k), *v = values(&a->v);

    turn_values(r, 0, q);
    turn_values(r, 1, k);
    for (int64_t row = 0; s && q && k && v && row < a->q.shape[0] * tq * heads; row++) {
        int64_t h = row % heads, i = row / heads % tq, b = row / heads / tq, head = b * heads + h;
        sizes of = scores(a, q + (head * tq + i) * d, k + head * tk * d, b, h, i, s);
        double max = -INFINITY, total = 0;
        for (int64_t t = 0; t < tk; t++)
            max = s[t] > max ? s[t] : max;
        for (int64_t t = 0; t < tk; t++)
            total += s[t] = max == -INFINITY ? 0 : exp(s[t] - max);
        for (int64_t c = 0; c < d; c++) {
            double sum = 0, mag = 0, squares = 0;
            for (int64_t t = 0; t < tk; t++) {
                double x = total > 0 ? s[t] / total * v[(head * tk + t) * d + c] : 0;
                sum += x;
                mag += fabs(x);
                squares += x * x;
            }
            r->truth[row * d + c] = sum;
            r->mag[row * d + c] = mag * (1 + of.mag) // an error e of a score is a factor 1 + e
                                  + rounded(a, of, squares, sum) / ck_attention.sum;
        }
    }
    free(s);
    free(q);
    free(k);
    free(v);
}

// 1e-6 of the magnitude: see linear; the exponential adds 2 ulps.
const ck_op ck_attention = {.name = "attention",
                            .slot = offsetof(at_backend, attention),
                            .sum = 1e-6,
                            .rows = sizeof rows / sizeof *rows,
                            .label = label,
                            .bench_only = bench_only,
                            .build = build,
                            .call = call,
                            .truth = truth};
