// SPDX-License-Identifier: Apache-2.0
// cpu_elem.c - elementwise slots in plain C: unary, binary, gated sum, linear combination.
// Idea: a piece of a row is converted to f32, worked on, and converted back; at_cpu_nd does the
// rest. Owns nothing.
#include "cpu/cpu_impl.h"

typedef struct unary_job {
    const at_view *x, *out;
    at_act act;
} unary_job;

static void unary_piece(void *ctx, const int64_t *off, const int64_t *step, int64_t n)
{
    const unary_job *j = ctx;
    float x[AT_CPU_PIECE];

    at_cpu_load(x, j->x->data, j->x->dtype, off[1], step[1], n);
    for (int64_t i = 0; i < n; i++)
        x[i] = at_cpu_apply(x[i], j->act);
    at_cpu_store(j->out->data, j->out->dtype, off[0], step[0], x, n);
}

at_status at_cpu_ref_unary(void *stream, const at_view *x, const at_view *out, at_act act)
{
    unary_job j = {x, out, act};
    const at_view *views[] = {out, x};
    at_cpu_nd nd;

    (void)stream;
    at_cpu_nd_init(&nd, 2, views);
    at_cpu_nd_run(&nd, unary_piece, &j);
    return AT_OK;
}

static float combine(float a, float b, at_binary_op op)
{
    switch (op) {
    case AT_ADD: return a + b;
    case AT_SUB: return a - b;
    case AT_MUL: return a * b;
    case AT_DIV: return a / b;
    }
    return a;
}

static void binary_piece(void *ctx, const int64_t *off, const int64_t *step, int64_t n)
{
    const at_binary_args *a = ctx;
    float x[AT_CPU_PIECE], y[AT_CPU_PIECE];

    at_cpu_load(x, a->a.data, a->a.dtype, off[1], step[1], n);
    at_cpu_load(y, a->b.data, a->b.dtype, off[2], step[2], n);
    for (int64_t i = 0; i < n; i++)
        x[i] = combine(at_cpu_apply(x[i], a->act_a), y[i], a->op);
    at_cpu_store(a->out.data, a->out.dtype, off[0], step[0], x, n);
}

at_status at_cpu_ref_binary(void *stream, const at_binary_args *a)
{
    at_binary_args job = *a;
    const at_view *views[] = {&a->out, &a->a, &a->b};
    at_cpu_nd nd;

    (void)stream;
    at_cpu_nd_init(&nd, 3, views);
    at_cpu_nd_run(&nd, binary_piece, &job);
    return AT_OK;
}

static void gate_add_piece(void *ctx, const int64_t *off, const int64_t *step, int64_t n)
{
    const at_gate_add_args *a = ctx;
    float x[AT_CPU_PIECE], y[AT_CPU_PIECE], g[AT_CPU_PIECE];

    at_cpu_load(x, a->x.data, a->x.dtype, off[1], step[1], n);
    at_cpu_load(y, a->y.data, a->y.dtype, off[2], step[2], n);
    at_cpu_load(g, a->gate.data, a->gate.dtype, off[3], step[3], n);
    for (int64_t i = 0; i < n; i++)
        x[i] += g[i] * y[i];
    at_cpu_store(a->out.data, a->out.dtype, off[0], step[0], x, n);
}

// [batch, dim] as [batch, 1, dim], so that it broadcasts over tokens.
static at_view over_tokens(const at_view *gate)
{
    at_view g = at_cpu_rank(gate, 2), r = g;
    r.rank = 3;
    r.shape[2] = g.shape[1];
    r.stride[2] = g.stride[1];
    r.shape[1] = 1;
    r.stride[1] = 0;
    return r;
}

at_status at_cpu_ref_gate_add(void *stream, const at_gate_add_args *a)
{
    at_gate_add_args job = *a;
    at_view out = at_cpu_rank(&a->out, 3), gate = over_tokens(&a->gate);
    const at_view *views[] = {&out, &a->x, &a->y, &gate};
    at_cpu_nd nd;

    (void)stream;
    at_cpu_nd_init(&nd, 4, views);
    at_cpu_nd_run(&nd, gate_add_piece, &job);
    return AT_OK;
}

static void lincomb_piece(void *ctx, const int64_t *off, const int64_t *step, int64_t n)
{
    const at_lincomb_args *a = ctx;
    float sum[AT_CPU_PIECE] = {0}, x[AT_CPU_PIECE];

    (void)step;
    for (int k = 0; k < a->n; k++) {
        at_cpu_load(x, a->in[k].data, a->in[k].dtype, off[0], 1, n);
        for (int64_t i = 0; i < n; i++)
            sum[i] += a->coef[k] * x[i];
    }
    at_cpu_store(a->out.data, a->out.dtype, off[0], 1, sum, n);
}

at_status at_cpu_ref_lincomb(void *stream, const at_lincomb_args *a)
{
    at_lincomb_args job = *a;
    const at_view *views[] = {&a->out};
    at_cpu_nd nd;

    (void)stream;
    at_cpu_nd_init(&nd, 1, views); // contiguous: one row, its offset serves all
    at_cpu_nd_run(&nd, lincomb_piece, &job);
    return AT_OK;
}
