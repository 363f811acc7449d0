// SPDX-License-Identifier: Apache-2.0
// ops_beside.c - layers of one input whose weights lie apart in the file: q, k and v; the halves of a gated unit.
// Idea: one wide product keeps a device busier than several narrow ones. A backend that joins weights gets
// them in one call; for others every layer writes its columns of the same result.
// Owns: see ops.h.
#include <string.h>

#include "ops/ops_private.h"

static at_status fits(const at_tensor *x, const at_weight *name, const at_wview *w)
{
    char text[128], weight[256];
    if ((x->rank == 2 || x->rank == 3) && w->v.rank == 2 && w->v.shape[1] == x->shape[x->rank - 1])
        return AT_OK;
    return at_fail(AT_EINVAL, "x %s does not fit w %s",
                   at_shape_text(x->dtype, x->rank, x->shape, text), op_weight_text(name, weight));
}

static at_tensor *beside_of_parts(at_ops *o, const at_tensor *x, int n, const at_weight *const *w,
                                  int64_t width)
{
    int64_t shape[AT_MAX_RANK], at = 0;
    int dim = x->rank - 1;
    memcpy(shape, x->shape, sizeof shape);
    shape[dim] = width;
    at_tensor *out = at_empty(o, at_ops_compute(o), x->rank, shape);
    op_like(out, x);
    for (int i = 0; i < n; at += at_ops_own_features(o, w[i++])) {
        at_tensor *part = at_narrow(o, out, dim, at, at_ops_own_features(o, w[i]));
        at_linear(at_into(o, part), x, w[i], NULL, NULL);
    }
    return out;
}

at_tensor *at_linear_beside(at_ops *o, const at_tensor *x, int n, const at_weight *const *w)
{
    at_status st = AT_OK;
    at_wview views[AT_BESIDE_MAX];
    at_tensor *out = NULL;
    const at_tensor *inner;
    int64_t shape[AT_MAX_RANK], width = 0;
    op_pass p;

    if (!op_enter(&p, o, "linear", &o->stats.seconds_linear)) return NULL;
    AT_TRY(op_takes_rows(&p, "x", x));
    if (n < 1 || n > AT_BESIDE_MAX)
        AT_TRY(at_fail(AT_EINVAL, "%d layers side by side; %d are the most", n, AT_BESIDE_MAX));
    for (int i = 0; i < n; i++) {
        AT_TRY(op_takes_weight(&p, "w", w[i], &views[i]));
        AT_TRY(fits(x, w[i], &views[i]));
        width += views[i].v.shape[0];
    }
    if (!o->be->joins || o->int8) return beside_of_parts(o, x, n, w, width);
    AT_TRY(op_inner_contiguous(o, x, &inner));
    memcpy(shape, x->shape, sizeof shape);
    shape[x->rank - 1] = width;
    AT_TRY(op_result(&p, o->compute, x->rank, shape, &out));
    op_like(out, x);
    at_linear_args a = {.x = op_rows(inner),
                        .x_scale = op_scales(inner),
                        .out = op_rows(out),
                        .w = views[0],
                        .bias = {.scale = 1},
                        .more = views + 1,
                        .n_more = n - 1};
    a.fp8 = op_may_fp8(o, &a.x, &a.w);
    a.w8 = op_may_w8(o, &a.w);
    if (at_tensor_count(out) == 0) goto out;
    AT_TRY(o->be->linear(o->dev->stream, &a));
    o->stats.flops_linear += 2.0 * (double)at_tensor_count(out) * (double)a.w.v.shape[1];
out:
    if (st != AT_OK && n > 0 && w[0]) st = at_fail_context(st, "%s: ", w[0]->name);
    return op_leave(&p, st, out);
}

at_tensor *at_geglu_apart(at_ops *o, const at_tensor *x, const at_weight *value,
                          const at_weight *gate, at_act act)
{
    at_status st = AT_OK;
    at_geglu_args a = {.act = act, .bias = {.scale = 1}};
    at_tensor *out = NULL;
    const at_tensor *inner;
    int64_t shape[AT_MAX_RANK];
    op_pass p;

    if (!o->be->joins || !o->be->geglu || o->int8) {
        at_tensor *g = at_linear(o, x, gate, NULL, &(at_linear_extra){.act = act});
        at_tensor *v = at_linear(o, x, value, NULL, NULL);
        return at_mul(at_into(o, g), g, v);
    }
    if (!op_enter(&p, o, "geglu", &o->stats.seconds_linear)) return NULL;
    AT_TRY(op_takes_rows(&p, "x", x));
    AT_TRY(op_takes_weight(&p, "value", value, &a.w));
    AT_TRY(op_takes_weight(&p, "gate", gate, &a.gate));
    AT_TRY(fits(x, value, &a.w));
    AT_TRY(fits(x, gate, &a.gate));
    if (a.w.v.shape[0] != a.gate.v.shape[0])
        AT_TRY(at_fail(AT_EINVAL, "the gate has %lld rows, the value %lld",
                       (long long)a.gate.v.shape[0], (long long)a.w.v.shape[0]));
    AT_TRY(op_inner_contiguous(o, x, &inner));
    memcpy(shape, x->shape, sizeof shape);
    shape[x->rank - 1] = a.w.v.shape[0];
    AT_TRY(op_result(&p, o->compute, x->rank, shape, &out));
    op_like(out, x);
    a.x = op_rows(inner);
    a.x_scale = op_scales(inner);
    a.out = op_rows(out);
    a.fp8 = op_may_fp8(o, &a.x, &a.w);
    a.w8 = op_may_w8(o, &a.w);
    if (at_tensor_count(out) == 0) goto out;
    AT_TRY(o->be->geglu(o->dev->stream, &a));
    o->stats.flops_linear += 4.0 * (double)at_tensor_count(out) * (double)a.w.v.shape[1];
out:
    if (st != AT_OK && value) st = at_fail_context(st, "%s: ", value->name);
    return op_leave(&p, st, out);
}
