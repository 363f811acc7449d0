// SPDX-License-Identifier: Apache-2.0
// ops_layer.c - the doors of layers that carry weights: linear, norm, group norm, conv,
// embedding. Idea: check every shape against the weight, make the output in the compute dtype, call
// one slot. Owns: see ops.h.
#include "ops/ops_private.h"

#include <string.h>

static const char *shape_of(const at_tensor *t, char out[128])
{
    return at_shape_text(t->dtype, t->rank, t->shape, out);
}

// Layers that are narrow on one side (latents, pixels, embeddings' ends) stay in floats: they cost nothing and
// carry the picture. So do, in fp8, those that see a few rows only (modulation, time and pooled text).
enum { WIDE_ENOUGH = 64, FP8_ROWS = 32, FP8_WIDTH = 256 };
static bool may_int8(const at_ops *o, const at_wview *w)
{
    return o->int8 && w->v.shape[0] >= WIDE_ENOUGH && w->v.shape[1] >= WIDE_ENOUGH;
}

bool op_may_fp8(const at_ops *o, const at_view *x, const at_wview *w)
{
    return o->fp8 && x->shape[0] * x->shape[1] >= FP8_ROWS && w->v.shape[0] >= FP8_WIDTH &&
           w->v.shape[1] >= FP8_WIDTH;
}

bool op_may_w8(const at_ops *o, const at_wview *w)
{
    return o->weights8 && w->v.shape[0] >= FP8_WIDTH && w->v.shape[1] >= FP8_WIDTH;
}

at_view op_scales(const at_tensor *x)
{
    return x->row_scale ? at_tensor_as_view(x->row_scale) : (at_view){0};
}

// --- linear ----------------------------------------------------------------------------------
// The residual and the gate, as views over [batch, tokens, n].
static at_status linear_extra(const op_pass *p, const at_linear_extra *extra, const at_view *out,
                              at_linear_args *a)
{
    at_status st = AT_OK;
    const at_tensor *inner;
    char text[128], want[128];

    if (!extra) return AT_OK;
    a->act = extra->act;
    if (extra->precise) a->int8 = a->fp8 = false;
    AT_TRY(op_takes_modulation(p, "gate", extra->gate, out->shape[0], out->shape[2], &a->gate));
    if (extra->residual) {
        at_view r;

        AT_TRY(op_takes(p, "residual", extra->residual));
        AT_TRY(op_inner_contiguous(p->o, extra->residual, &inner));
        r = op_rows(inner);
        if (r.rank != 3 || memcmp(r.shape, out->shape, 3 * sizeof *r.shape) != 0) {
            AT_TRY(at_fail(AT_EINVAL, "residual %s must have the shape of the result %s",
                           shape_of(extra->residual, text),
                           at_shape_text(out->dtype, out->rank, out->shape, want)));
        }
        a->residual = r;
    }
out:
    return st;
}

// A matrix [n, k] (dimensions of 1 behind it are read away, as in a 1x1 convolution).
static at_status matrix(const op_pass *p, const at_weight *w, at_wview *out)
{
    at_status st = AT_OK;
    char text[256];
    bool flat = true;

    AT_TRY(op_takes_weight(p, "w", w, out));
    for (int i = 2; i < w->rank; i++)
        flat = flat && w->shape[i] == 1;
    if (w->rank < 2 || !flat) {
        AT_TRY(at_fail(AT_EINVAL, "w %s is not a matrix", op_weight_text(w, text)));
    }
    out->v.rank = 2;
    out->v.stride[0] = out->v.shape[1];
    out->v.stride[1] = 1;
out:
    return st;
}

static at_status linear(op_pass *p, const at_tensor *x, at_wview w, at_wview bias,
                        const at_linear_extra *extra, bool sums, at_tensor **out)
{
    at_ops *o = p->o;
    at_status st = AT_OK;
    at_linear_args a = {.w = w, .bias = bias, .int8 = may_int8(o, &w)};
    int64_t shape[3];
    const at_tensor *inner;

    AT_TRY(op_inner_contiguous(o, x, &inner));
    memcpy(shape, x->shape, sizeof shape);
    shape[x->rank - 1] = w.v.shape[0];
    AT_TRY(op_result(p, o->compute, x->rank, shape, out));
    op_like(*out, x);
    a.x = op_rows(inner);
    a.x_scale = op_scales(inner);
    a.out = op_rows(*out);
    a.fp8 = op_may_fp8(o, &a.x, &w);
    a.w8 = op_may_w8(o, &w);
    AT_TRY(linear_extra(p, extra, &a.out, &a));
    AT_TRY(op_has(p, o->be->linear != NULL));
    if (sums) AT_TRY(op_linear_summed(p, &a, *out));
    if (sums || at_tensor_count(*out) == 0) goto out;
    AT_TRY(o->be->linear(o->dev->stream, &a));
    o->stats.flops_linear += 2.0 * (double)at_tensor_count(*out) * (double)w.v.shape[1];
out:
    return st;
}

static at_tensor *linear_door(at_ops *o, const at_tensor *x, const at_weight *w,
                              const at_weight *bias, int64_t first, int64_t rows,
                              const at_linear_extra *extra)
{
    at_status st = AT_OK;
    at_tensor *out = NULL;
    at_wview wv, bv;
    char text[128], weight[256];
    op_pass p;

    if (!op_enter(&p, o, "linear", &o->stats.seconds_linear)) return NULL;
    AT_TRY(op_takes_rows(&p, "x", x));
    AT_TRY(matrix(&p, w, &wv));
    AT_TRY(op_takes_vector(&p, "bias", bias, wv.v.shape[0], &bv));
    if ((x->rank != 2 && x->rank != 3) || x->shape[x->rank - 1] != wv.v.shape[1]) {
        AT_TRY(at_fail(AT_EINVAL, "x %s does not fit w %s: [.., %lld] is wanted", shape_of(x, text),
                       op_weight_text(w, weight), (long long)wv.v.shape[1]));
    }
    if (rows < 0) rows = wv.v.shape[0];
    if (first < 0 || first > wv.v.shape[0] || rows > wv.v.shape[0] - first) {
        AT_TRY(at_fail(AT_EINVAL, "rows [%lld, +%lld) leave w %s", (long long)first,
                       (long long)rows, op_weight_text(w, weight)));
    }
    if (rows != wv.v.shape[0] && (wv.apart || bv.apart))
        AT_TRY(at_fail(AT_EUNSUPPORTED, "some rows of a weight that ranks share in runs"));
    if (rows != wv.v.shape[0]) { // what a backend packs belongs to the whole weight
        wv.v = op_part(wv.v, 0, first, rows);
        wv.packed = NULL;
        if (bias) bv.v = op_part(bv.v, 0, first, rows);
        bv.packed = NULL;
    }
    AT_TRY(linear(&p, x, wv, bv, extra, op_sums(o, w), &out));
out:
    if (st != AT_OK && w) st = at_fail_context(st, "%s: ", w->name);
    return op_leave(&p, st, out);
}

at_tensor *at_linear(at_ops *o, const at_tensor *x, const at_weight *w, const at_weight *bias,
                     const at_linear_extra *extra)
{
    return linear_door(o, x, w, bias, 0, -1, extra);
}

at_tensor *at_linear_rows(at_ops *o, const at_tensor *x, const at_weight *w, const at_weight *bias,
                          int64_t first, int64_t rows, const at_linear_extra *extra)
{
    return linear_door(o, x, w, bias, first, rows < 0 ? INT64_MAX : rows, extra);
}

// --- two results ------------------------------------------------------------------------------
// A backend whose slot knows one result: the whole, of which the first part stays a view.
static at_tensor *split_of_parts(at_ops *o, const at_tensor *x, const at_weight *w,
                                 const at_weight *bias, int64_t split, at_act act, at_tensor *rest)
{
    at_tensor *all = at_linear(o, x, w, bias, NULL);
    if (!all) return NULL;
    int dim = all->rank - 1;
    at_tensor *tail = at_narrow(o, all, dim, split, all->shape[dim] - split);
    at_unary(at_into(o, rest), tail, act);
    return at_narrow(o, all, dim, 0, split);
}

// Both results against w's columns and each other.
static at_status split_shapes(const at_tensor *x, const at_weight *name, const at_wview *w,
                              int64_t split, const at_tensor *rest)
{
    char text[128], want[128], weight[256];
    int64_t shape[AT_MAX_RANK];

    if ((x->rank != 2 && x->rank != 3) || x->shape[x->rank - 1] != w->v.shape[1])
        return at_fail(AT_EINVAL, "x %s does not fit w %s: [.., %lld] is wanted", shape_of(x, text),
                       op_weight_text(name, weight), (long long)w->v.shape[1]);
    if (split < 1 || split >= w->v.shape[0])
        return at_fail(AT_EINVAL, "a split at %lld leaves no two parts of w %s", (long long)split,
                       op_weight_text(name, weight));
    memcpy(shape, x->shape, sizeof shape);
    shape[x->rank - 1] = w->v.shape[0] - split;
    if (rest->rank != x->rank || memcmp(rest->shape, shape, (size_t)x->rank * sizeof *shape) != 0 ||
        (shape[x->rank - 1] > 1 && rest->stride[x->rank - 1] != 1))
        return at_fail(AT_EINVAL, "the rest %s must be %s with a contiguous last dimension",
                       shape_of(rest, text), at_shape_text(rest->dtype, x->rank, shape, want));
    return AT_OK;
}

// The backend writes two results, and so can make them one after the other; else the first call makes both.
static bool in_halves(const at_ops *o, const at_tensor *rest)
{
    return o->be->splits && rest->dtype == o->compute;
}

// Ranks along tp may have one of the parts alone. True: it is done.
static bool one_part(at_ops *o, const at_tensor *x, const at_weight *w, const at_weight *bias,
                     int64_t split, at_act act, at_tensor *rest, int which, at_tensor **head)
{
    if (!x || !w || !rest || o->mesh.axis[AT_AXIS_TP]->size == 1) return false;
    int64_t shape[AT_MAX_RANK], n = at_ops_own_features(o, w);
    at_tensor *into = o->into;
    if (split > 0 && split < n) return false;
    o->into = NULL;
    *head = NULL;
    memcpy(shape, x->shape, sizeof shape);
    shape[x->rank - 1] = split;
    if (split > 0) {
        if (which != 2) *head = at_linear(at_into(o, into), x, w, bias, NULL);
        return true;
    }
    *head = into ? into : at_empty(o, o->compute, x->rank, shape);
    if (which != 1 || !in_halves(o, rest))
        at_linear(at_into(o, rest), x, w, bias, &(at_linear_extra){.act = act});
    return true;
}

static at_tensor *linear_split(at_ops *o, const at_tensor *x, const at_weight *w,
                               const at_weight *bias, int64_t split, at_act act, at_tensor *rest,
                               int which)
{
    at_status st = AT_OK;
    at_linear_args a = {.act = act, .split = split, .part = which};
    at_tensor *out = NULL;
    const at_tensor *inner;
    int64_t shape[AT_MAX_RANK];
    op_pass p;

    if (one_part(o, x, w, bias, split, act, rest, which, &out)) return out;
    if (!op_enter(&p, o, "linear", &o->stats.seconds_linear)) return NULL;
    AT_TRY(op_takes_rows(&p, "x", x));
    AT_TRY(op_takes(&p, "the rest", rest));
    AT_TRY(matrix(&p, w, &a.w));
    AT_TRY(op_takes_vector(&p, "bias", bias, a.w.v.shape[0], &a.bias));
    AT_TRY(split_shapes(x, w, &a.w, split, rest));
    if (!in_halves(o, rest)) {
        at_tensor *head = split_of_parts(o, x, w, bias, split, act, rest);
        return p.into ? at_unary(at_into(o, p.into), head, AT_ACT_NONE) : head;
    }
    AT_TRY(op_inner_contiguous(o, x, &inner));
    memcpy(shape, x->shape, sizeof shape);
    shape[x->rank - 1] = split;
    if (which == 2) { // nothing is written there
        AT_TRY(at_tensor_narrow(rest, x->rank - 1, 0, 1, &out));
        AT_TRY(op_own(o, out));
    } else {
        AT_TRY(op_result(&p, o->compute, x->rank, shape, &out));
        if (out->dtype != o->compute)
            AT_TRY(at_fail(AT_EINVAL, "both results must be %s", at_dtype_name(o->compute)));
        op_like(out, x);
    }
    op_like(rest, x);
    a.x = op_rows(inner);
    a.x_scale = op_scales(inner);
    a.out = op_rows(out);
    a.out2 = op_rows(rest);
    a.int8 = may_int8(o, &a.w);
    a.fp8 = op_may_fp8(o, &a.x, &a.w);
    a.w8 = op_may_w8(o, &a.w);
    if (at_tensor_count(out) == 0) goto out;
    AT_TRY(o->be->linear(o->dev->stream, &a));
    o->stats.flops_linear += 2.0 *
                             (double)((which == 2 ? 0 : at_tensor_count(out)) +
                                      (which == 1 ? 0 : at_tensor_count(rest))) *
                             (double)a.w.v.shape[1];
out:
    if (st != AT_OK && w) st = at_fail_context(st, "%s: ", w->name);
    return op_leave(&p, st, out);
}

at_tensor *at_linear_split(at_ops *o, const at_tensor *x, const at_weight *w, const at_weight *bias,
                           int64_t split, at_act act, at_tensor *rest)
{
    return linear_split(o, x, w, bias, split, act, rest, 0);
}

at_tensor *at_linear_first(at_ops *o, const at_tensor *x, const at_weight *w, const at_weight *bias,
                           int64_t split, at_act act, at_tensor *rest)
{
    return linear_split(o, x, w, bias, split, act, rest, 1);
}

void at_linear_rest(at_ops *o, const at_tensor *x, const at_weight *w, const at_weight *bias,
                    int64_t split, at_act act, at_tensor *rest)
{
    if (rest && in_halves(o, rest)) linear_split(o, x, w, bias, split, act, rest, 2);
}

// --- the gated unit --------------------------------------------------------------------------
// A backend without the slot: both halves as linear layers, then their product in the value's place.
static at_tensor *geglu_of_parts(at_ops *o, at_tensor *into, const at_tensor *x, const at_weight *w,
                                 const at_weight *bias, at_act act)
{
    int64_t n = at_ops_own_features(o, w) / 2;
    at_tensor *gate = at_linear_rows(o, x, w, bias, n, n, NULL);
    at_tensor *value = at_linear_rows(o, x, w, bias, 0, n, NULL);

    return at_binary(at_into(o, into), AT_MUL, gate, value, act);
}

at_tensor *at_geglu(at_ops *o, const at_tensor *x, const at_weight *w, const at_weight *bias,
                    at_act act)
{
    at_status st = AT_OK;
    at_geglu_args a = {.act = act};
    at_tensor *out = NULL;
    const at_tensor *inner;
    char text[128], weight[256];
    int64_t shape[3];
    op_pass p;

    if (!op_enter(&p, o, "geglu", &o->stats.seconds_linear)) return NULL;
    AT_TRY(op_takes_rows(&p, "x", x));
    AT_TRY(matrix(&p, w, &a.w));
    AT_TRY(op_takes_vector(&p, "bias", bias, a.w.v.shape[0], &a.bias));
    if ((x->rank != 2 && x->rank != 3) || x->shape[x->rank - 1] != a.w.v.shape[1] ||
        a.w.v.shape[0] % 2 != 0) {
        AT_TRY(at_fail(AT_EINVAL, "x %s does not fit w %s: [.., %lld] and an even number of rows",
                       shape_of(x, text), op_weight_text(w, weight), (long long)a.w.v.shape[1]));
    }
    if (!o->be->geglu) return geglu_of_parts(o, p.into, x, w, bias, act);
    AT_TRY(op_inner_contiguous(o, x, &inner));
    memcpy(shape, x->shape, sizeof shape);
    shape[x->rank - 1] = a.w.v.shape[0] / 2;
    AT_TRY(op_result(&p, o->compute, x->rank, shape, &out));
    op_like(out, x);
    a.x = op_rows(inner);
    a.x_scale = op_scales(inner);
    a.out = op_rows(out);
    a.int8 = may_int8(o, &a.w);
    a.fp8 = op_may_fp8(o, &a.x, &a.w);
    a.w8 = op_may_w8(o, &a.w);
    if (at_tensor_count(out) == 0) goto out;
    AT_TRY(o->be->geglu(o->dev->stream, &a));
    o->stats.flops_linear += 4.0 * (double)at_tensor_count(out) * (double)a.w.v.shape[1];
out:
    if (st != AT_OK && w) st = at_fail_context(st, "%s: ", w->name);
    return op_leave(&p, st, out);
}

// --- norms -----------------------------------------------------------------------------------
bool op_gives_rows8(const at_ops *o, const at_view *x, const at_weight *then)
{
    if (!then || then->rank != 2 || then->shape[1] != x->shape[2] || !o->be->fp8_rows) return false;
    at_wview w = {.v = {.shape = {at_ops_own_features(o, then), then->shape[1]}}};
    return x->dtype == o->compute && op_may_fp8(o, x, &w) &&
           o->be->fp8_rows(o->dev->stream, w.v.shape[0], w.v.shape[1]);
}

// x += gate * y, inside the norm where the backend knows how, else before it.
static at_status norm_addend(const op_pass *p, const at_tensor *x, const at_tensor *y,
                             const at_tensor *gate, at_norm_args *a)
{
    at_status st = AT_OK;
    at_gate_add_args add = {0};
    const at_tensor *inner;
    char text[128], want[128];

    AT_TRY(op_takes(p, "y", y));
    if (!gate) AT_TRY(at_fail(AT_EINVAL, "gate is missing"));
    if (y->rank != x->rank || memcmp(y->shape, x->shape, (size_t)x->rank * sizeof *x->shape) != 0)
        AT_TRY(at_fail(AT_EINVAL, "x %s and y %s must be of one shape", shape_of(x, want),
                       shape_of(y, text)));
    AT_TRY(op_inner_contiguous(p->o, y, &inner));
    AT_TRY(op_takes_modulation(p, "gate", gate, a->x.shape[0], a->x.shape[2], &add.gate));
    add.x = add.out = a->x;
    add.y = op_rows(inner);
    if (p->o->be->adds) {
        a->y = add.y;
        a->gate = add.gate;
    } else if (at_tensor_count(x) > 0) {
        AT_TRY(op_has(p, p->o->be->gate_add != NULL));
        AT_TRY(p->o->be->gate_add(p->o->dev->stream, &add));
    }
out:
    return st;
}

// y NULL: nothing is added.
static at_tensor *norm_door(at_ops *o, const at_tensor *x, const at_tensor *y,
                            const at_tensor *gate, const at_norm_spec *spec, bool adds)
{
    at_status st = AT_OK;
    at_norm_args a = {.eps = spec->eps, .rms = spec->rms};
    at_tensor *out = NULL;
    const at_tensor *inner;
    char text[128];
    op_pass p;

    if (!op_enter(&p, o, "norm", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    if (x->rank != 2 && x->rank != 3) {
        AT_TRY(at_fail(AT_EINVAL, "x %s must be [b, t, d]", shape_of(x, text)));
    }
    AT_TRY(op_inner_contiguous(o, x, &inner));
    if (adds && inner != x)
        AT_TRY(at_fail(AT_EINVAL, "x %s must have a contiguous last dimension", shape_of(x, text)));
    a.x = op_rows(inner);
    if (adds) AT_TRY(norm_addend(&p, x, y, gate, &a));
    if (op_gives_rows8(o, &a.x, spec->then) && !p.into) {
        AT_TRY(at_tensor_new_rows8(o->dev, x->rank, x->shape, &out));
        AT_TRY(op_own(o, out));
        a.out_scale = at_tensor_as_view(out->row_scale);
    } else {
        AT_TRY(op_result(&p, x->dtype, x->rank, x->shape, &out));
    }
    op_like(out, x);
    a.out = op_rows(out);
    AT_TRY(op_takes_vector(&p, "weight", spec->weight, a.x.shape[2], &a.weight));
    AT_TRY(op_takes_vector(&p, "bias", spec->bias, a.x.shape[2], &a.bias));
    AT_TRY(op_takes_modulation(&p, "mod_scale", spec->mod_scale, a.x.shape[0], a.x.shape[2],
                               &a.mod_scale));
    AT_TRY(op_takes_modulation(&p, "mod_shift", spec->mod_shift, a.x.shape[0], a.x.shape[2],
                               &a.mod_shift));
    AT_TRY(op_has(&p, o->be->norm != NULL));
    if (at_tensor_count(x) > 0) AT_TRY(o->be->norm(o->dev->stream, &a));
out:
    return op_leave(&p, st, out);
}

at_tensor *at_norm(at_ops *o, const at_tensor *x, const at_norm_spec *spec)
{
    return norm_door(o, x, NULL, NULL, spec, false);
}

at_tensor *at_add_norm(at_ops *o, at_tensor *x, const at_tensor *y, const at_tensor *gate,
                       const at_norm_spec *spec)
{
    return norm_door(o, x, y, gate, spec, true);
}

bool at_ops_add_norms(const at_ops *o)
{
    return o->be->adds;
}

// [b, h, w, c] as [b, h * w, c]; copied when rows of pixels do not follow each other.
static at_status flatten_pixels(const op_pass *p, const at_tensor *x, at_view *out)
{
    at_status st = AT_OK;
    const at_tensor *inner;
    at_tensor *copy;
    at_view from, v;

    AT_TRY(op_inner_contiguous(p->o, x, &inner));
    v = from = at_tensor_as_view(inner);
    if (v.shape[1] != 1 && v.stride[1] != v.shape[2] * v.stride[2]) {
        AT_TRY(op_make(p->o, x->dtype, 4, x->shape, &copy));
        v = at_tensor_as_view(copy);
        AT_TRY(p->o->be->copy(p->o->dev->stream, &from, &v));
    }
    *out = (at_view){.data = v.data,
                     .dtype = v.dtype,
                     .rank = 3,
                     .shape = {v.shape[0], v.shape[1] * v.shape[2], v.shape[3]},
                     .stride = {v.stride[0], v.stride[2], v.stride[3]}};
out:
    return st;
}

at_tensor *at_group_norm(at_ops *o, const at_tensor *x, const at_weight *weight,
                         const at_weight *bias, int groups, float eps, at_act act)
{
    return at_add_group_norm(o, x, NULL, weight, bias, groups, eps, act);
}

at_tensor *at_add_group_norm(at_ops *o, const at_tensor *x, const at_tensor *add,
                             const at_weight *weight, const at_weight *bias, int groups, float eps,
                             at_act act)
{
    at_status st = AT_OK;
    at_group_norm_args a = {.groups = groups, .eps = eps, .act = act};
    int64_t pixels[OPS_MAX_RANKS];
    at_tensor *out = NULL;
    char text[128];
    op_pass p;

    if (!op_enter(&p, o, "group_norm", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    if (x->rank != 4) AT_TRY(at_fail(AT_EINVAL, "x %s must be [b, h, w, c]", shape_of(x, text)));
    if (groups < 1 || x->shape[3] % groups != 0) {
        AT_TRY(at_fail(AT_EINVAL, "x %s does not split into %d groups of channels",
                       shape_of(x, text), groups));
    }
    AT_TRY(op_takes_vector(&p, "weight", weight, x->shape[3], &a.weight));
    AT_TRY(op_takes_vector(&p, "bias", bias, x->shape[3], &a.bias));
    AT_TRY(op_takes_modulation(&p, "add", add, x->shape[0], x->shape[3], &a.add));
    AT_TRY(flatten_pixels(&p, x, &a.x));
    AT_TRY(op_run_result(&p, x->dtype, x->shape, x->run, &out));
    AT_TRY(flatten_pixels(&p, out, &a.out));
    AT_TRY(op_has(&p, o->be->group_norm != NULL));
    if (x->run.rows) AT_TRY(op_group_parts(&p, x, &a, pixels));
    if (at_tensor_count(x) > 0) AT_TRY(o->be->group_norm(o->dev->stream, &a));
out:
    if (st != AT_OK && weight) st = at_fail_context(st, "%s: ", weight->name);
    return op_leave(&p, st, out);
}

// --- convolution -----------------------------------------------------------------------------
// The whole result's shape, from checked shapes.
static at_status conv_shape(const at_tensor *x, const at_weight *w, at_conv2d_args *a,
                            int64_t out[4])
{
    int64_t zoom = a->upsample2x ? 2 : 1;
    int64_t h = at_map_rows(x) * zoom + a->pad_top + a->pad_bottom - w->shape[2];
    int64_t wd = x->shape[2] * zoom + a->pad_left + a->pad_right - w->shape[3];
    char text[128], weight[256];

    if (a->stride < 1 || a->pad_top < 0 || a->pad_bottom < 0 || a->pad_left < 0 ||
        a->pad_right < 0 || h < 0 || wd < 0) {
        return at_fail(AT_EINVAL,
                       "x %s with padding %d %d %d %d and stride %d is too small for w %s",
                       shape_of(x, text), a->pad_top, a->pad_left, a->pad_bottom, a->pad_right,
                       a->stride, op_weight_text(w, weight));
    }
    out[0] = x->shape[0];
    out[1] = h / a->stride + 1;
    out[2] = wd / a->stride + 1;
    out[3] = w->shape[0];
    return AT_OK;
}

static at_status conv_residual(const op_pass *p, const at_tensor *residual, const at_tensor *out,
                               at_view *view)
{
    at_status st = AT_OK;
    const at_tensor *inner;
    char text[128], want[128];

    if (!residual) return AT_OK;
    AT_TRY(op_takes(p, "residual", residual));
    if (residual->rank != 4 || memcmp(residual->shape, out->shape, 4 * sizeof *out->shape) != 0) {
        AT_TRY(at_fail(AT_EINVAL, "residual %s must have the shape of the result %s",
                       shape_of(residual, text), shape_of(out, want)));
    }
    AT_TRY(op_inner_contiguous(p->o, residual, &inner));
    *view = at_tensor_as_view(inner);
out:
    return st;
}

static at_status conv_slot(const op_pass *p, at_conv2d_args *a, const at_tensor *x, at_tensor *out)
{
    at_status st = AT_OK;

    a->x = at_tensor_as_view(x);
    a->out = at_tensor_as_view(out);
    AT_TRY(op_has(p, p->o->be->conv2d != NULL));
    if (at_tensor_count(out) > 0) AT_TRY(p->o->be->conv2d(p->o->dev->stream, a));
out:
    return st;
}

// One rank's rows `shape` of a map of `rows`. What comes out may hold a row more at either end.
static at_status conv_run(op_pass *p, const at_tensor *x, at_conv2d_args *a, int64_t *shape,
                          const at_tensor *residual, at_tensor **out)
{
    at_status st = AT_OK;
    int64_t kh = a->w.v.shape[2], rows = shape[1], skip, made;
    const at_tensor *in, *inner;
    at_tensor *more;

    shape[1] = op_own_rows(p->o, rows);
    AT_TRY(op_conv_input(p, x, kh, a, &in, &skip));
    AT_TRY(op_inner_contiguous(p->o, in, &inner));
    made = shape[1] ? op_conv_rows(a, in->shape[1], kh) : 0;
    if (made == shape[1]) {
        AT_TRY(op_run_result(p, p->o->compute, shape, (at_row_run){rows, 1}, out));
        AT_TRY(conv_residual(p, residual, *out, &a->residual));
        AT_TRY(conv_slot(p, a, inner, *out));
        goto out;
    }
    if (residual) AT_TRY(at_fail(AT_EUNSUPPORTED, "an upsampling layer of some rows that adds"));
    AT_TRY(op_run_result(p, p->o->compute, shape, (at_row_run){rows, 1}, out));
    int64_t wider[] = {shape[0], made, shape[2], shape[3]};
    bool fits = skip <= (*out)->room && made - skip - shape[1] <= (*out)->room;
    if (fits) {
        AT_TRY(at_tensor_view(*out, 4, wider, (*out)->stride, -skip * (*out)->stride[1], &more));
        AT_TRY(op_own(p->o, more));
    } else {
        AT_TRY(op_make(p->o, (*out)->dtype, 4, wider, &more));
    }
    AT_TRY(conv_slot(p, a, inner, more));
    if (!fits) {
        at_view from = op_part(at_tensor_as_view(more), 1, skip, shape[1]),
                to = at_tensor_as_view(*out);
        if (shape[1]) AT_TRY(p->o->be->copy(p->o->dev->stream, &from, &to));
    }
out:
    return st;
}

bool at_conv2d_shape(at_ops *o, const at_tensor *x, const at_weight *weight,
                     const at_conv_spec *spec, int64_t out[4])
{
    at_conv2d_args a = op_conv_numbers(spec);
    at_status st = AT_OK;

    if (!x || !weight) return false;
    st = x->rank == 4 && weight->rank == 4 ? conv_shape(x, weight, &a, out)
                                           : at_fail(AT_EINVAL, "conv2d takes maps and kernels");
    if (st != AT_OK) at_ops_poison(o, st, "%s: conv2d: %s", weight->name, at_error_text());
    if (st == AT_OK && x->run.rows) out[1] = op_own_rows(o, out[1]);
    return st == AT_OK;
}

at_tensor *at_conv2d(at_ops *o, const at_tensor *x, const at_weight *weight, const at_weight *bias,
                     const at_conv_spec *spec)
{
    at_conv2d_args a = op_conv_numbers(spec);
    const at_tensor *residual = spec ? spec->residual : NULL, *inner;
    at_status st = AT_OK;
    int64_t shape[4];
    at_tensor *out = NULL;
    char text[128], wtext[256];
    op_pass p;

    if (!op_enter(&p, o, "conv2d", &o->stats.seconds_conv)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    AT_TRY(op_takes_weight(&p, "weight", weight, &a.w));
    if (x->rank != 4 || weight->rank != 4 || x->shape[3] != weight->shape[1]) {
        AT_TRY(at_fail(AT_EINVAL, "x %s does not fit w %s: [b, h, w, cin] and [cout, cin, kh, kw]",
                       shape_of(x, text), op_weight_text(weight, wtext)));
    }
    AT_TRY(op_takes_vector(&p, "bias", bias, weight->shape[0], &a.bias));
    AT_TRY(conv_shape(x, weight, &a, shape));
    a.int8 = may_int8(o, &a.w);
    if (x->run.rows) {
        AT_TRY(conv_run(&p, x, &a, shape, residual, &out));
    } else {
        AT_TRY(op_inner_contiguous(o, x, &inner));
        AT_TRY(op_result(&p, o->compute, 4, shape, &out));
        AT_TRY(conv_residual(&p, residual, out, &a.residual));
        AT_TRY(conv_slot(&p, &a, inner, out));
    }
    int64_t taps = at_weight_elements(weight) / weight->shape[0]; // of one output
    o->stats.flops_conv += 2.0 * (double)at_tensor_count(out) * (double)taps;
out:
    if (st != AT_OK && weight) st = at_fail_context(st, "%s: ", weight->name);
    return op_leave(&p, st, out);
}

// --- embedding -------------------------------------------------------------------------------
at_tensor *at_embedding(at_ops *o, const at_weight *table, const int32_t *ids, int64_t n)
{
    at_status st = AT_OK;
    at_embedding_args a = {0};
    at_tensor *out = NULL, *index = NULL;
    char text[256];
    op_pass p;

    if (!op_enter(&p, o, "embedding", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes_weight(&p, "table", table, &a.table));
    if (table->rank != 2) {
        AT_TRY(at_fail(AT_EINVAL, "%s is not a table", op_weight_text(table, text)));
    }
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] >= 0 && ids[i] < table->shape[0]) continue;
        AT_TRY(at_fail(AT_EINVAL, "id %d at position %lld is outside %s", (int)ids[i], (long long)i,
                       op_weight_text(table, text)));
    }
    AT_TRY(op_result(&p, o->compute, 3, (int64_t[]){1, n, table->shape[1]}, &out));
    AT_TRY(op_has(&p, o->be->embedding != NULL));
    if (at_tensor_count(out) == 0) goto out;
    AT_TRY(at_tensor_from_host(o->dev, AT_I32, 1, &n, ids, &index));
    AT_TRY(op_own(o, index));
    a.ids = at_tensor_as_view(index);
    a.out = at_tensor_as_view(out);
    a.out.rank = 2;
    a.out.shape[0] = n;
    a.out.shape[1] = table->shape[1];
    a.out.stride[0] = out->stride[1];
    a.out.stride[1] = 1;
    AT_TRY(o->be->embedding(o->dev->stream, &a));
out:
    return op_leave(&p, st, out);
}
