// SPDX-License-Identifier: Apache-2.0
// check_elem.c - rows of the elementwise slots: unary, binary, gate_add, lincomb.
#include <math.h>
#include <stdio.h>

#include "check.h"

enum { STRIDED = 1, IN_PLACE = 2, BENCH = 4, ALIGNED = 8 };

// --- unary
// --------------------------------------------------------------------------------------------
typedef struct unary_row {
    int64_t rows, n;
    at_dtype in, out;
    at_act act;
    unsigned flags;
    ck_fill fill;
} unary_row;

#define EACH_ACT(...)                                                                              \
    {__VA_ARGS__, AT_ACT_SILU, 0, CK_WIDE}, {__VA_ARGS__, AT_ACT_GELU_TANH, 0, CK_WIDE},           \
        {__VA_ARGS__, AT_ACT_GELU_ERF, 0, CK_WIDE}, {__VA_ARGS__, AT_ACT_QUICK_GELU, 0, CK_WIDE},  \
        {__VA_ARGS__, AT_ACT_RELU, 0, CK_WIDE}, {__VA_ARGS__, AT_ACT_TANH, 0, CK_WIDE},            \
    {                                                                                              \
        __VA_ARGS__, AT_ACT_SIGMOID, 0, CK_WIDE                                                    \
    }
#define SMALL_ACT(...)                                                                             \
    {__VA_ARGS__, AT_ACT_SILU, 0, CK_MIXED}, {__VA_ARGS__, AT_ACT_GELU_TANH, 0, CK_MIXED},         \
        {__VA_ARGS__, AT_ACT_GELU_ERF, 0, CK_MIXED}, {__VA_ARGS__, AT_ACT_TANH, 0, CK_SMALL},      \
        {__VA_ARGS__, AT_ACT_TANH, 0, CK_UNIT}, {__VA_ARGS__, AT_ACT_GELU_ERF, 0, CK_UNIT},        \
        {__VA_ARGS__, AT_ACT_SILU, 0, CK_LARGE}, {__VA_ARGS__, AT_ACT_GELU_TANH, 0, CK_LARGE},     \
        {__VA_ARGS__, AT_ACT_GELU_ERF, 0, CK_LARGE},                                               \
    {                                                                                              \
        __VA_ARGS__, AT_ACT_SIGMOID, 0, CK_LARGE                                                   \
    }

static const unary_row unary_rows[] = {
    {1, 1, AT_F32, AT_F32, AT_ACT_NONE},
    EACH_ACT(3, 20011, AT_F32, AT_F32),
    SMALL_ACT(3, 5003, AT_F32, AT_F32),
    EACH_ACT(2, 77, AT_BF16, AT_BF16),
    {5, 33, AT_F32, AT_BF16, AT_ACT_SILU, STRIDED},
    {5, 33, AT_F16, AT_F32, AT_ACT_TANH, STRIDED},
    {5, 33, AT_F32, AT_F32, AT_ACT_GELU_ERF, STRIDED | IN_PLACE},
    {1, 1 << 22, AT_F32, AT_F32, AT_ACT_SILU, BENCH},
    {1, 1 << 22, AT_F32, AT_F32, AT_ACT_GELU_TANH, BENCH},
    {1, 1 << 22, AT_F32, AT_F32, AT_ACT_GELU_ERF, BENCH},
    {1, 1 << 22, AT_BF16, AT_BF16, AT_ACT_SILU, BENCH},
    {2304, 12288, AT_BF16, AT_BF16, AT_ACT_GELU_TANH, BENCH}, // half of a Flux single block
    {1, 2 * 1280, AT_F16, AT_F16, AT_ACT_SILU, BENCH},
};

static const char *unary_label(int row, char out[160])
{
    const unary_row *r = &unary_rows[row];
    snprintf(out, 160, "[%lld,%lld] in%d out%d act%d%s fill%d", (long long)r->rows, (long long)r->n,
             r->in, r->out, (int)r->act, r->flags & STRIDED ? " strided" : "", (int)r->fill);
    return out;
}

static bool unary_bench(int row)
{
    return unary_rows[row].flags & BENCH;
}

static void unary_build(ck_run *r, int row)
{
    const unary_row *c = &unary_rows[row];
    ck_layout l = {.pad = c->flags & STRIDED ? 3 : 0,
                   .shift = c->flags & STRIDED ? 1 : 0,
                   .gap = c->flags & STRIDED ? 1 : 0};
    r->a.simple.out = ck_make(r, c->out, CK_SHAPE(c->rows, c->n), l, c->fill);
    r->a.simple.x = c->flags & IN_PLACE ? r->a.simple.out
                                        : ck_make(r, c->in, CK_SHAPE(c->rows, c->n), l, c->fill);
    r->a.simple.act = c->act;
    r->bytes = (double)(c->rows * c->n) * ((c->in == AT_F32 ? 4 : 2) + (c->out == AT_F32 ? 4 : 2));
}

static at_status unary_call(const at_backend *b, ck_run *r)
{
    return b->unary(r->stream, &r->a.simple.x, &r->a.simple.out, r->a.simple.act);
}

static void unary_truth(ck_run *r)
{
    for (int64_t i = 0; i < ck_count(&r->a.simple.out); i++) {
        double x = ck_value(&r->a.simple.x, ck_offset(&r->a.simple.x, i));
        at_act act = r->a.simple.act;
        r->truth[i] = ck_act(x, act);
        // Relative to the result; where 1 + erf or tanh cancels, and where 1.702 x is rounded
        // before the exponential, f32 itself cannot do better than this.
        r->mag[i] = fabs(r->truth[i]) + 1e-29; // exp(-x) overflows at x < -88
        if (act == AT_ACT_GELU_ERF || act == AT_ACT_GELU_TANH) r->mag[i] = fabs(x);
        if (act == AT_ACT_QUICK_GELU) r->mag[i] *= 1 + fabs(x);
    }
}

// 2e-7: three f32 ulps.
const ck_op ck_unary = {.name = "unary",
                        .slot = offsetof(at_backend, unary),
                        .sum = 2e-7,
                        .rows = sizeof unary_rows / sizeof *unary_rows,
                        .label = unary_label,
                        .bench_only = unary_bench,
                        .build = unary_build,
                        .call = unary_call,
                        .truth = unary_truth};

// --- binary
// -------------------------------------------------------------------------------------------
typedef struct binary_row {
    int64_t s0, s1, s2;
    at_dtype a, b, out;
    at_binary_op op;
    at_act act;
    unsigned broadcast; // dimensions of b with stride 0
    unsigned flags;
} binary_row;

static const binary_row binary_rows[] = {
    {1, 1, 1, AT_F32, AT_F32, AT_F32, AT_ADD},
    {2, 3, 700, AT_F32, AT_F32, AT_F32, AT_ADD, AT_ACT_NONE, 0, IN_PLACE},
    {2, 3, 700, AT_F32, AT_F32, AT_F32, AT_SUB, AT_ACT_NONE, 1},
    {2, 3, 70, AT_F32, AT_F32, AT_F32, AT_MUL, AT_ACT_SILU, 2},
    {2, 3, 70, AT_F32, AT_F32, AT_F32, AT_DIV, AT_ACT_NONE, 7},
    {2, 3, 71, AT_F32, AT_F32, AT_F32, AT_MUL, AT_ACT_GELU_TANH, 0, STRIDED},
    {4, 3, 71, AT_BF16, AT_BF16, AT_BF16, AT_MUL, AT_ACT_GELU_ERF, 0, STRIDED},
    {4, 3, 64, AT_BF16, AT_F32, AT_BF16, AT_ADD, AT_ACT_NONE, 3},
    {4, 3, 64, AT_F32, AT_BF16, AT_F32, AT_MUL, AT_ACT_NONE, 4},
    {4, 3, 64, AT_F16, AT_F16, AT_F16, AT_ADD, AT_ACT_NONE, 0, IN_PLACE},
    {1, 1, 1 << 22, AT_F32, AT_F32, AT_F32, AT_ADD, AT_ACT_NONE, 0, BENCH},
    {1, 1, 1 << 22, AT_BF16, AT_BF16, AT_BF16, AT_MUL, AT_ACT_SILU, 0, BENCH},
    {1, 512, 10240, AT_BF16, AT_BF16, AT_BF16, AT_MUL, AT_ACT_NONE, 0, BENCH}, // T5's MLP
    {1, 4608, 3072, AT_BF16, AT_BF16, AT_BF16, AT_ADD, AT_ACT_NONE, 0, BENCH}, // ControlNet
    {2, 16384, 320, AT_F16, AT_F16, AT_F16, AT_ADD, AT_ACT_NONE, 2, BENCH},    // time embedding
    {2, 16384, 320, AT_F16, AT_F16, AT_F16, AT_ADD, AT_ACT_NONE, 0, BENCH},
};

static const char *binary_label(int row, char out[160])
{
    const binary_row *r = &binary_rows[row];
    snprintf(out, 160, "[%lld,%lld,%lld] a%d b%d out%d op%d act%d broadcast%u%s", (long long)r->s0,
             (long long)r->s1, (long long)r->s2, r->a, r->b, r->out, (int)r->op, (int)r->act,
             r->broadcast, r->flags & STRIDED ? " strided" : "");
    return out;
}

static bool binary_bench(int row)
{
    return binary_rows[row].flags & BENCH;
}

static void binary_build(ck_run *r, int row)
{
    const binary_row *c = &binary_rows[row];
    at_binary_args *a = &r->a.binary;
    ck_layout l = {.pad = c->flags & STRIDED ? 3 : 0, .gap = c->flags & STRIDED ? 2 : 0};

    a->out = ck_make(r, c->out, CK_SHAPE(c->s0, c->s1, c->s2), l, CK_UNIT);
    a->a =
        c->flags & IN_PLACE ? a->out : ck_make(r, c->a, CK_SHAPE(c->s0, c->s1, c->s2), l, CK_UNIT);
    l.broadcast = c->broadcast;
    a->b = ck_make(r, c->b, CK_SHAPE(c->s0, c->s1, c->s2), l, CK_POSITIVE);
    a->op = c->op;
    a->act_a = c->act;
    r->bytes = (double)(c->s0 * c->s1 * c->s2) * (c->out == AT_F32 ? 12 : 6);
}

static at_status binary_call(const at_backend *b, ck_run *r)
{
    return b->binary(r->stream, &r->a.binary);
}

static void binary_truth(ck_run *r)
{
    const at_binary_args *a = &r->a.binary;
    for (int64_t i = 0; i < ck_count(&a->out); i++) {
        double raw = ck_value(&a->a, ck_offset(&a->a, i)), x = ck_act(raw, a->act_a);
        double y = ck_value(&a->b, ck_offset(&a->b, i));
        r->truth[i] = a->op == AT_ADD   ? x + y
                      : a->op == AT_SUB ? x - y
                      : a->op == AT_MUL ? x * y
                                        : x / y;
        r->mag[i] = a->op <= AT_SUB ? fabs(x) + fabs(y) : fabs(r->truth[i]);
        if (a->act_a) r->mag[i] += fabs(raw) * 2; // b lies in [0.5, 1.5)
    }
}

// 2e-7: three f32 ulps.
const ck_op ck_binary = {.name = "binary",
                         .slot = offsetof(at_backend, binary),
                         .sum = 2e-7,
                         .rows = sizeof binary_rows / sizeof *binary_rows,
                         .label = binary_label,
                         .bench_only = binary_bench,
                         .build = binary_build,
                         .call = binary_call,
                         .truth = binary_truth};

// --- gate_add and lincomb
// -------------------------------------------------------------------------------
static const struct {
    int64_t b, t, d;
    at_dtype type;
    unsigned flags, broadcast;
} gate_rows[] = {
    {1, 1, 1, AT_F32, 0, 0},
    {2, 3, 70, AT_F32, IN_PLACE, 0},
    {2, 3, 71, AT_F32, STRIDED, 1},
    {2, 3, 600, AT_BF16, IN_PLACE, 0},
    {2, 5, 64, AT_F16, STRIDED, 0},
    {2, 9, 2056, AT_BF16, IN_PLACE, 0},
    {1, 4608, 3072, AT_F32, BENCH, 0},
    {1, 4608, 3072, AT_BF16, BENCH, 0},
    {1, 4608, 3072, AT_BF16, BENCH | IN_PLACE, 0},
};

static const char *gate_label(int row, char out[160])
{
    snprintf(out, 160, "[%lld,%lld,%lld] dtype%d flags%u", (long long)gate_rows[row].b,
             (long long)gate_rows[row].t, (long long)gate_rows[row].d, gate_rows[row].type,
             gate_rows[row].flags);
    return out;
}

static bool gate_bench(int row)
{
    return gate_rows[row].flags & BENCH;
}

static void gate_build(ck_run *r, int row)
{
    at_gate_add_args *a = &r->a.gate_add;
    int64_t b = gate_rows[row].b, t = gate_rows[row].t, d = gate_rows[row].d;
    at_dtype type = gate_rows[row].type;
    ck_layout l = {.pad = gate_rows[row].flags & STRIDED ? 3 : 0};

    a->out = ck_make(r, type, CK_SHAPE(b, t, d), l, CK_UNIT);
    a->x =
        gate_rows[row].flags & IN_PLACE ? a->out : ck_make(r, type, CK_SHAPE(b, t, d), l, CK_UNIT);
    a->y = ck_make(r, type, CK_SHAPE(b, t, d), l, CK_UNIT);
    l.broadcast = gate_rows[row].broadcast;
    a->gate = ck_make(r, type, CK_SHAPE(b, d), l, CK_UNIT);
    r->bytes = (double)(b * t * d) * (type == AT_F32 ? 12 : 6);
}

static at_status gate_call(const at_backend *b, ck_run *r)
{
    return b->gate_add(r->stream, &r->a.gate_add);
}

static void gate_truth(ck_run *r)
{
    const at_gate_add_args *a = &r->a.gate_add;
    int64_t t = a->out.shape[1], d = a->out.shape[2];
    for (int64_t i = 0; i < ck_count(&a->out); i++) {
        double x = ck_value(&a->x, ck_offset(&a->x, i));
        double y = ck_value(&a->y, ck_offset(&a->y, i)) *
                   ck_value(&a->gate, ck_offset(&a->gate, i / d / t * d + i % d));
        r->truth[i] = x + y;
        r->mag[i] = fabs(x) + fabs(y);
    }
}

// 1.2e-7: two roundings.
const ck_op ck_gate_add = {.name = "gate_add",
                           .slot = offsetof(at_backend, gate_add),
                           .sum = 1.2e-7,
                           .rows = sizeof gate_rows / sizeof *gate_rows,
                           .label = gate_label,
                           .bench_only = gate_bench,
                           .build = gate_build,
                           .call = gate_call,
                           .truth = gate_truth};

static const struct {
    int64_t count;
    int n;
    at_dtype in, out;
    unsigned flags;
} sums[] = {{1, 1, AT_F32, AT_F32, 0},
            {5003, 2, AT_F32, AT_F32, IN_PLACE},
            {1000, 8, AT_F32, AT_F32, 0},
            {777, 3, AT_BF16, AT_F32, 0},
            {777, 3, AT_F32, AT_BF16, 0},
            {8 * 999, 2, AT_BF16, AT_BF16, ALIGNED | IN_PLACE}, // sums of ranks
            {8 * 100, 8, AT_F16, AT_F16, ALIGNED},
            {8 * 100 + 3, 3, AT_BF16, AT_BF16, ALIGNED | IN_PLACE},
            {4 * 300, 3, AT_F32, AT_F32, ALIGNED},
            {4608 * 3072, 2, AT_BF16, AT_BF16, BENCH | ALIGNED | IN_PLACE},
            {1 << 22, 3, AT_F32, AT_F32, BENCH},
            {16 * 128 * 128, 3, AT_F32, AT_F32, BENCH}};

static const char *sum_label(int row, char out[160])
{
    snprintf(out, 160, "%d x %lld in%d out%d", sums[row].n, (long long)sums[row].count,
             sums[row].in, sums[row].out);
    return out;
}

static bool sum_bench(int row)
{
    return sums[row].flags & BENCH;
}

static void sum_build(ck_run *r, int row)
{
    at_lincomb_args *a = &r->a.lincomb;
    a->n = sums[row].n;
    a->out = ck_make(r, sums[row].out, CK_SHAPE(sums[row].count), (ck_layout){0}, CK_UNIT);
    for (int i = 0; i < a->n; i++) {
        a->coef[i] = (float)(2 * ck_uniform() - 1);
        a->in[i] = i == 0 && sums[row].flags & IN_PLACE
                       ? a->out
                       : ck_make(r, sums[row].in, CK_SHAPE(sums[row].count),
                                 (ck_layout){.shift = sums[row].flags & ALIGNED ? 0 : i}, CK_UNIT);
    }
    int in = sums[row].in == AT_F32 ? 4 : 2, out = sums[row].out == AT_F32 ? 4 : 2;
    r->bytes = (double)sums[row].count * (double)(a->n * in + out);
}

static at_status sum_call(const at_backend *b, ck_run *r)
{
    return b->lincomb(r->stream, &r->a.lincomb);
}

static void sum_truth(ck_run *r)
{
    const at_lincomb_args *a = &r->a.lincomb;
    for (int64_t i = 0; i < ck_count(&a->out); i++) {
        r->truth[i] = r->mag[i] = 0;
        for (int k = 0; k < a->n; k++) {
            double v = (double)a->coef[k] * ck_value(&a->in[k], i);
            r->truth[i] += v;
            r->mag[i] += fabs(v);
        }
    }
}

// 2e-7: up to eight terms in order.
const ck_op ck_lincomb = {.name = "lincomb",
                          .slot = offsetof(at_backend, lincomb),
                          .sum = 2e-7,
                          .rows = sizeof sums / sizeof *sums,
                          .label = sum_label,
                          .bench_only = sum_bench,
                          .build = sum_build,
                          .call = sum_call,
                          .truth = sum_truth};
