// SPDX-License-Identifier: Apache-2.0
// fast_elem.c - elementwise slots and copies over a table of leaves.
// Idea: the same pieces of rows as plain C (at_cpu_nd), with vector leaves; a transposing copy
// walks square blocks so that both sides stay in the first cache.
// Owns nothing.
#include <string.h>

#include "base/thread.h"
#include "cpu/cpu_impl.h"
#include "cpu/kernels.h"

typedef struct elem_job {
    const at_cpu_kernels *k;
    const at_view *out, *x, *y, *gate;
    const at_lincomb_args *sum;
    at_act act;
    at_binary_op op;
} elem_job;

static float *piece_out(const elem_job *j, float *buf, const int64_t *off, const int64_t *step)
{
    return j->out->dtype == AT_F32 && step[0] == 1 ? (float *)j->out->data + off[0] : buf;
}

static const float *piece_in(const elem_job *j, const at_view *v, float *buf, int64_t off,
                             int64_t step, int64_t n)
{
    if (step == 0 && n > 1) { // one value for the whole piece
        float one;
        at_cpu_load(&one, v->data, v->dtype, off, 1, 1);
        for (int64_t i = 0; i < n; i++)
            buf[i] = one;
        return buf;
    }
    return at_cpu_row(j->k, buf, v->data, v->dtype, off, step, n);
}

static void give(const elem_job *j, const float *y, const int64_t *off, const int64_t *step,
                 int64_t n)
{
    if (y == (const float *)j->out->data + off[0] && j->out->dtype == AT_F32 && step[0] == 1)
        return;
    j->k->store(j->out->data, j->out->dtype, off[0], step[0], y, n);
}

static void unary_piece(void *ctx, const int64_t *off, const int64_t *step, int64_t n)
{
    const elem_job *j = ctx;
    at_cpu_finish f = {.scale = 1.0f, .act = j->act};
    float buf[AT_CPU_PIECE], *y = piece_out(j, buf, off, step);
    const float *x = piece_in(j, j->x, y, off[1], step[1], n);

    j->k->finish(y, x, n, &f);
    give(j, y, off, step, n);
}

at_status at_cpu_fast_unary(const at_cpu_kernels *k, const at_view *x, const at_view *out,
                            at_act act)
{
    elem_job j = {.k = k, .out = out, .x = x, .act = act};
    const at_view *views[] = {out, x};
    at_cpu_nd nd;

    at_cpu_nd_init(&nd, 2, views);
    at_cpu_nd_run(&nd, unary_piece, &j);
    return AT_OK;
}

static void binary_piece(void *ctx, const int64_t *off, const int64_t *step, int64_t n)
{
    const elem_job *j = ctx;
    at_cpu_finish f = {.scale = 1.0f, .act = j->act};
    float buf[AT_CPU_PIECE], other[AT_CPU_PIECE], *y = piece_out(j, buf, off, step);
    const float *x = piece_in(j, j->x, y, off[1], step[1], n);
    const float *b = piece_in(j, j->y, other, off[2], step[2], n);

    j->k->finish(y, x, n, &f);
    j->k->binary(y, b, n, j->op);
    give(j, y, off, step, n);
}

at_status at_cpu_fast_binary(const at_cpu_kernels *k, const at_binary_args *a)
{
    elem_job j = {.k = k, .out = &a->out, .x = &a->a, .y = &a->b, .act = a->act_a, .op = a->op};
    const at_view *views[] = {&a->out, &a->a, &a->b};
    at_cpu_nd nd;

    at_cpu_nd_init(&nd, 3, views);
    at_cpu_nd_run(&nd, binary_piece, &j);
    return AT_OK;
}

static void gate_add_piece(void *ctx, const int64_t *off, const int64_t *step, int64_t n)
{
    const elem_job *j = ctx;
    float buf[AT_CPU_PIECE], yb[AT_CPU_PIECE], gb[AT_CPU_PIECE],
        *out = piece_out(j, buf, off, step);
    const float *x = piece_in(j, j->x, out, off[1], step[1], n);
    const float *y = piece_in(j, j->y, yb, off[2], step[2], n);
    const float *g = piece_in(j, j->gate, gb, off[3], step[3], n);

    if (x != out) memcpy(out, x, (size_t)n * sizeof *out);
    j->k->mul_add(out, g, y, n);
    give(j, out, off, step, n);
}

at_status at_cpu_fast_gate_add(const at_cpu_kernels *k, const at_gate_add_args *a)
{
    at_view out = at_cpu_rank(&a->out, 3), gate = at_cpu_rank(&a->gate, 2);
    const at_view *views[] = {&out, &a->x, &a->y, &gate};
    elem_job j = {.k = k, .out = &a->out, .x = &a->x, .y = &a->y, .gate = &a->gate};
    at_cpu_nd nd;

    gate.rank = 3; // [batch, 1, dim] broadcasts over tokens
    gate.shape[2] = gate.shape[1];
    gate.stride[2] = gate.stride[1];
    gate.shape[1] = 1;
    at_cpu_nd_init(&nd, 4, views);
    at_cpu_nd_run(&nd, gate_add_piece, &j);
    return AT_OK;
}

static void lincomb_piece(void *ctx, const int64_t *off, const int64_t *step, int64_t n)
{
    const elem_job *j = ctx;
    const at_lincomb_args *a = j->sum;
    float total[AT_CPU_PIECE] = {0}, buf[AT_CPU_PIECE];

    (void)step;
    for (int i = 0; i < a->n; i++)
        j->k->axpy(total, a->coef[i],
                   at_cpu_row(j->k, buf, a->in[i].data, a->in[i].dtype, off[0], 1, n), n);
    j->k->store(a->out.data, a->out.dtype, off[0], 1, total, n);
}

at_status at_cpu_fast_lincomb(const at_cpu_kernels *k, const at_lincomb_args *a)
{
    elem_job j = {.k = k, .sum = a};
    const at_view *views[] = {&a->out};
    at_cpu_nd nd;

    at_cpu_nd_init(&nd, 1, views);
    at_cpu_nd_run(&nd, lincomb_piece, &j);
    return AT_OK;
}

// --- copy ---------------------------------------------------------------------------------------
static bool is_float(at_dtype t)
{
    return t == AT_F32 || t == AT_F16 || t == AT_BF16 || t == AT_F8E4M3 || t == AT_F8E5M2;
}

static void convert_piece(void *ctx, const int64_t *off, const int64_t *step, int64_t n)
{
    const elem_job *j = ctx;
    float buf[AT_CPU_PIECE], *y = piece_out(j, buf, off, step);

    if (j->x->dtype == AT_F32 && step[1] == 1) {
        j->k->store(j->out->data, j->out->dtype, off[0], step[0],
                    (const float *)j->x->data + off[1], n);
        return;
    }
    j->k->load(y, j->x->data, j->x->dtype, off[1], step[1], n);
    give(j, y, off, step, n);
}

enum { EDGE = 32 };

typedef struct transpose_job {
    const at_view *src, *dst;
    const at_cpu_nd *nd;
    int64_t blocks; // along the last dimension but one
} transpose_job;

#define TRANSPOSE_BLOCK(type)                                                                      \
    for (int64_t r = r0; r < r1; r++) {                                                            \
        type *d = (type *)j->dst->data + off[0] + r * ds;                                          \
        const type *s = (const type *)j->src->data + off[1] + r * ss;                              \
        for (int64_t c = c0; c < c1; c++)                                                          \
            d[c * nd->stride[0][nd->rank - 1]] = s[c * nd->stride[1][nd->rank - 1]];               \
    }

// Elements [r0, r1) x [c0, c1) of the last two dimensions.
static void transpose_block(const transpose_job *j, const int64_t *off, int64_t r0, int64_t r1,
                            int64_t c0, int64_t c1)
{
    const at_cpu_nd *nd = j->nd;
    int64_t ds = nd->stride[0][nd->rank - 2], ss = nd->stride[1][nd->rank - 2];

    switch (at_cpu_dtype_bytes(j->dst->dtype)) {
    case 1: TRANSPOSE_BLOCK(uint8_t) break;
    case 2: TRANSPOSE_BLOCK(uint16_t) break;
    case 4: TRANSPOSE_BLOCK(uint32_t) break;
    default: TRANSPOSE_BLOCK(uint64_t) break;
    }
}

static void transpose_range(void *ctx, int64_t begin, int64_t end)
{
    const transpose_job *j = ctx;
    const at_cpu_nd *nd = j->nd;
    int64_t tall = nd->shape[nd->rank - 2];

    for (int64_t i = begin; i < end; i++) {
        int64_t off[AT_CPU_ND_VIEWS], r0 = i % j->blocks * EDGE;
        int64_t r1 = r0 + EDGE < tall ? r0 + EDGE : tall;
        at_cpu_nd_offsets(nd, i / j->blocks * tall, off);
        for (int64_t c0 = 0; c0 < nd->row; c0 += EDGE)
            transpose_block(j, off, r0, r1, c0, c0 + EDGE < nd->row ? c0 + EDGE : nd->row);
    }
}

at_status at_cpu_fast_copy(const at_cpu_kernels *k, const at_view *src, const at_view *dst)
{
    elem_job j = {.k = k, .out = dst, .x = src};
    const at_view *views[] = {dst, src};
    at_cpu_nd nd;

    at_cpu_nd_init(&nd, 2, views);
    if (src->dtype == dst->dtype) {
        transpose_job t = {src, dst, &nd, 0};
        bool rows = nd.stride[0][nd.rank - 1] == 1 && nd.stride[1][nd.rank - 1] == 1;
        if (rows || nd.rank < 2 || nd.rows == 0) return at_cpu_ref_copy(NULL, src, dst);
        t.blocks = (nd.shape[nd.rank - 2] + EDGE - 1) / EDGE;
        at_parallel_for(nd.rows / nd.shape[nd.rank - 2] * t.blocks, 1 + 512 / (nd.row + 1),
                        transpose_range, &t);
        return AT_OK;
    }
    if (!is_float(src->dtype) || !is_float(dst->dtype)) return at_cpu_ref_copy(NULL, src, dst);
    at_cpu_nd_run(&nd, convert_piece, &j);
    return AT_OK;
}
