// SPDX-License-Identifier: Apache-2.0
// ops_elem.c - elementwise doors.
// Idea: one slot call each; where a device lacks the slot, the same thing from simpler slots.
// Owns: see ops.h.
#include "ops/ops_private.h"

#include <string.h>

// out = act_a(a) op b; shapes are broadcast by the slot.
static at_status binary_into(const op_pass *p, at_binary_op op, at_view a, at_view b, at_act act_a,
                             const at_tensor *out)
{
    at_binary_args args = {.a = a, .b = b, .out = at_tensor_as_view(out), .op = op, .act_a = act_a};
    at_status st = op_has(p, p->o->be->binary != NULL);

    if (st != AT_OK || at_tensor_count(out) == 0) return st;
    return p->o->be->binary(p->o->dev->stream, &args);
}

at_tensor *at_unary(at_ops *o, const at_tensor *x, at_act act)
{
    at_status st = AT_OK;
    at_tensor *out = NULL, *zero;
    at_view from, to;
    op_pass p;

    if (!op_enter(&p, o, "unary", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    AT_TRY(op_result(&p, x->dtype, x->rank, x->shape, &out));
    op_like(out, x);
    from = at_tensor_as_view(x);
    to = at_tensor_as_view(out);
    if (at_tensor_count(x) == 0) goto out;
    if (o->be->unary) {
        AT_TRY(o->be->unary(o->dev->stream, &from, &to, act));
    } else {
        AT_TRY(op_scalar(o, 0, &zero));
        AT_TRY(binary_into(&p, AT_ADD, from, at_tensor_as_view(zero), act, out));
    }
out:
    return op_leave(&p, st, out);
}

// View v with the result's rank: dimensions of 1, and those that are missing in front, get stride 0.
// False if v does not broadcast to the shape.
static bool broadcast_to(at_view *v, int rank, const int64_t *shape)
{
    at_view wide = {.data = v->data, .dtype = v->dtype, .rank = rank};

    for (int i = rank - 1, k = v->rank - 1; i >= 0; i--, k--) {
        wide.shape[i] = shape[i];
        if (k < 0 || v->shape[k] == 1) continue;
        if (v->shape[k] != shape[i]) return false;
        wide.stride[i] = v->stride[k];
    }
    *v = wide;
    return true;
}

at_tensor *at_binary(at_ops *o, at_binary_op op, const at_tensor *a, const at_tensor *b,
                     at_act act_a)
{
    at_status st = AT_OK;
    int64_t shape[AT_MAX_RANK] = {0};
    at_tensor *out = NULL;
    char text[128], other[128];
    at_view va, vb;
    op_pass p;
    int rank;

    if (!op_enter(&p, o, "binary", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "a", a));
    AT_TRY(op_takes(&p, "b", b));
    AT_TRY(op_row_part(&p, a, &b));
    rank = a->rank > b->rank ? a->rank : b->rank;
    for (int i = 1; i <= rank; i++) { // counted from the right
        int64_t da = i <= a->rank ? a->shape[a->rank - i] : 1;
        int64_t db = i <= b->rank ? b->shape[b->rank - i] : 1;

        shape[rank - i] = da == 1 ? db : da;
    }
    va = at_tensor_as_view(a);
    vb = at_tensor_as_view(b);
    if (!broadcast_to(&va, rank, shape) || !broadcast_to(&vb, rank, shape)) {
        AT_TRY(at_fail(AT_EINVAL, "a %s and b %s do not broadcast",
                       at_shape_text(a->dtype, a->rank, a->shape, text),
                       at_shape_text(b->dtype, b->rank, b->shape, other)));
    }
    AT_TRY(op_result(&p, a->dtype, rank, shape, &out));
    op_like(out, a);
    AT_TRY(binary_into(&p, op, va, vb, act_a, out));
out:
    return op_leave(&p, st, out);
}

at_tensor *at_add(at_ops *o, const at_tensor *a, const at_tensor *b)
{
    return at_binary(o, AT_ADD, a, b, AT_ACT_NONE);
}

at_tensor *at_mul(at_ops *o, const at_tensor *a, const at_tensor *b)
{
    return at_binary(o, AT_MUL, a, b, AT_ACT_NONE);
}

at_tensor *at_affine(at_ops *o, const at_tensor *x, float mul, float add)
{
    at_status st = AT_OK;
    at_tensor *out = NULL, *factor, *term;
    at_view to;
    op_pass p;

    if (!op_enter(&p, o, "affine", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    AT_TRY(op_make(o, x->dtype, x->rank, x->shape, &out));
    op_like(out, x);
    AT_TRY(op_scalar(o, mul, &factor));
    AT_TRY(
        binary_into(&p, AT_MUL, at_tensor_as_view(x), at_tensor_as_view(factor), AT_ACT_NONE, out));
    if (add == 0) goto out;
    to = at_tensor_as_view(out);
    AT_TRY(op_scalar(o, add, &term));
    AT_TRY(binary_into(&p, AT_ADD, to, at_tensor_as_view(term), AT_ACT_NONE, out));
out:
    return op_leave(&p, st, out);
}

// [b, d] as [b, 1, d]
static at_view over_tokens(at_view gate)
{
    at_view v = gate;

    v.rank = 3;
    v.shape[1] = 1;
    v.stride[1] = 0;
    v.shape[2] = gate.shape[1];
    v.stride[2] = gate.stride[1];
    return v;
}

at_tensor *at_gate_add(at_ops *o, const at_tensor *x, const at_tensor *y, const at_tensor *gate)
{
    at_status st = AT_OK;
    at_gate_add_args args = {0};
    at_tensor *out = NULL, *product;
    char tx[128], ty[128];
    op_pass p;

    if (!op_enter(&p, o, "gate_add", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    AT_TRY(op_takes(&p, "y", y));
    if (!gate) AT_TRY(at_fail(AT_EINVAL, "gate is missing"));
    if (x->rank != 3 || y->rank != 3 || memcmp(x->shape, y->shape, 3 * sizeof *x->shape) != 0) {
        AT_TRY(at_fail(AT_EINVAL, "x %s and y %s must be the same [b, t, d]",
                       at_shape_text(x->dtype, x->rank, x->shape, tx),
                       at_shape_text(y->dtype, y->rank, y->shape, ty)));
    }
    AT_TRY(op_takes_modulation(&p, "gate", gate, x->shape[0], x->shape[2], &args.gate));
    AT_TRY(op_make(o, x->dtype, 3, x->shape, &out));
    op_like(out, x);
    if (at_tensor_count(x) == 0) goto out;
    args.x = at_tensor_as_view(x);
    args.y = at_tensor_as_view(y);
    args.out = at_tensor_as_view(out);
    if (o->be->gate_add) {
        AT_TRY(o->be->gate_add(o->dev->stream, &args));
    } else {
        AT_TRY(op_make(o, AT_F32, 3, x->shape, &product));
        args.gate = over_tokens(args.gate);
        if (!broadcast_to(&args.gate, 3, x->shape)) AT_TRY(at_fail(AT_EINTERNAL, "gate's shape"));
        AT_TRY(binary_into(&p, AT_MUL, args.y, args.gate, AT_ACT_NONE, product));
        AT_TRY(binary_into(&p, AT_ADD, args.x, at_tensor_as_view(product), AT_ACT_NONE, out));
    }
out:
    return op_leave(&p, st, out);
}

// What a lincomb may sum: f32, one shape, contiguous (a strided one is copied).
static at_status lincomb_input(const op_pass *p, int i, const at_tensor *const *in, at_view *out)
{
    at_status st = AT_OK;
    const at_tensor *x = in[i];
    at_tensor *copy = NULL;
    at_view from;
    char first[128], text[128];

    AT_TRY(op_takes(p, "an input", x));
    if (x->dtype != AT_F32 || x->rank != in[0]->rank ||
        memcmp(x->shape, in[0]->shape, (size_t)x->rank * sizeof *x->shape) != 0) {
        AT_TRY(at_fail(AT_EINVAL,
                       "input %d is %s; all must be f32 and of one shape, the first is %s", i,
                       at_shape_text(x->dtype, x->rank, x->shape, text),
                       at_shape_text(in[0]->dtype, in[0]->rank, in[0]->shape, first)));
    }
    *out = from = at_tensor_as_view(x);
    if (!at_tensor_contiguous(x)) {
        AT_TRY(op_make(p->o, AT_F32, x->rank, x->shape, &copy));
        *out = at_tensor_as_view(copy);
        AT_TRY(p->o->be->copy(p->o->dev->stream, &from, out));
    }
out:
    return st;
}

// The same sum from binary slots: out = in[0] * coef[0], then out += in[i] * coef[i].
static at_status lincomb_slowly(const op_pass *p, const at_lincomb_args *a, const at_tensor *out,
                                const at_tensor *term)
{
    at_status st = AT_OK;
    at_tensor *coef;

    for (int i = 0; i < a->n; i++) {
        AT_TRY(op_scalar(p->o, a->coef[i], &coef));
        AT_TRY(
            binary_into(p, AT_MUL, a->in[i], at_tensor_as_view(coef), AT_ACT_NONE, i ? term : out));
        if (i) {
            AT_TRY(binary_into(p, AT_ADD, at_tensor_as_view(out), at_tensor_as_view(term),
                               AT_ACT_NONE, out));
        }
    }
out:
    return st;
}

at_tensor *at_lincomb(at_ops *o, int n, const float *coef, const at_tensor *const *in)
{
    at_status st = AT_OK;
    at_lincomb_args args = {.n = n};
    at_tensor *out = NULL, *term;
    op_pass p;

    if (!op_enter(&p, o, "lincomb", &o->stats.seconds_other)) return NULL;
    if (n < 1 || n > AT_LINCOMB_MAX) {
        AT_TRY(at_fail(AT_EINVAL, "of %d tensors; 1 to %d are possible", n, AT_LINCOMB_MAX));
    }
    for (int i = 0; i < n; i++) {
        AT_TRY(lincomb_input(&p, i, in, &args.in[i]));
        args.coef[i] = coef[i];
    }
    AT_TRY(op_make(o, AT_F32, in[0]->rank, in[0]->shape, &out));
    args.out = at_tensor_as_view(out);
    if (at_tensor_count(out) == 0) goto out;
    if (o->be->lincomb) {
        AT_TRY(o->be->lincomb(o->dev->stream, &args));
    } else {
        AT_TRY(op_make(o, AT_F32, out->rank, out->shape, &term));
        AT_TRY(lincomb_slowly(&p, &args, out, term));
    }
out:
    return op_leave(&p, st, out);
}
