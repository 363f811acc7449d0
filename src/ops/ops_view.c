// SPDX-License-Identifier: Apache-2.0
// ops_view.c - doors that make, move and re-read tensors.
// Idea: a reshape finds strides for the new shape over the old bytes and copies only when there are
// none. Owns: see ops.h.
#include "ops/ops_private.h"

#include <string.h>

#include "base/mem.h"

// --- making and moving -----------------------------------------------------------------------
at_tensor *at_empty(at_ops *o, at_dtype dtype, int rank, const int64_t *shape)
{
    at_status st;
    at_tensor *out = NULL;
    op_pass p;

    if (!op_enter(&p, o, "empty", &o->stats.seconds_other)) return NULL;
    st = op_make(o, dtype, rank, shape, &out);
    return op_leave(&p, st, out);
}

at_tensor *at_zeros(at_ops *o, at_dtype dtype, int rank, const int64_t *shape)
{
    at_status st = AT_OK;
    at_tensor *out = NULL;
    at_view v;
    op_pass p;

    if (!op_enter(&p, o, "zeros", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_has(&p, o->be->fill != NULL));
    AT_TRY(op_make(o, dtype, rank, shape, &out));
    v = at_tensor_as_view(out);
    AT_TRY(o->be->fill(o->dev->stream, &v, 0));
out:
    return op_leave(&p, st, out);
}

at_tensor *at_from_host(at_ops *o, at_dtype dtype, int rank, const int64_t *shape,
                        const void *bytes)
{
    at_status st = AT_OK;
    at_tensor *out = NULL;
    op_pass p;

    if (!op_enter(&p, o, "from_host", &o->stats.seconds_other)) return NULL;
    AT_TRY(at_tensor_from_host(o->dev, dtype, rank, shape, bytes, &out));
    AT_TRY(op_own(o, out));
out:
    return op_leave(&p, st, out);
}

// A contiguous copy of x as `dtype`.
static at_status convert(const op_pass *p, const at_tensor *x, at_dtype dtype, at_tensor **out)
{
    at_status st = AT_OK;
    at_view from, to;

    AT_TRY(op_has(p, p->o->be->copy != NULL));
    AT_TRY(op_make(p->o, dtype, x->rank, x->shape, out));
    from = at_tensor_as_view(x);
    to = at_tensor_as_view(*out);
    op_like(*out, x);
    if (at_view_count(&from)) AT_TRY(p->o->be->copy(p->o->dev->stream, &from, &to));
out:
    return st;
}

// The same tensor under its non-const name: results are not written to once they were handed out.
static at_tensor *same(const at_tensor *x)
{
    return (at_tensor *)(uintptr_t)x;
}

at_tensor *at_cast(at_ops *o, const at_tensor *x, at_dtype dtype)
{
    at_status st = AT_OK;
    at_tensor *out = NULL;
    op_pass p;

    if (!op_enter(&p, o, "cast", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    out = same(x);
    if (x->dtype != dtype) AT_TRY(convert(&p, x, dtype, &out));
out:
    return op_leave(&p, st, out);
}

at_tensor *at_contiguous(at_ops *o, const at_tensor *x)
{
    at_status st = AT_OK;
    at_tensor *out = NULL;
    op_pass p;

    if (!op_enter(&p, o, "contiguous", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    out = same(x);
    if (!at_tensor_contiguous(x)) AT_TRY(convert(&p, x, x->dtype, &out));
out:
    return op_leave(&p, st, out);
}

static void release_store(void *ctx)
{
    at_store *s = ctx;

    at_store_release(&s);
}

// The weight's own bytes as a tensor that keeps the store alive.
static at_status wrap_weight(const at_weight *w, at_tensor **out)
{
    at_store *s = w->store ? at_store_retain(w->store) : NULL;
    at_status st = at_tensor_wrap((void *)(uintptr_t)w->data, w->dtype, w->rank, w->shape,
                                  s ? release_store : NULL, s, out);

    if (st != AT_OK) at_store_release(&s);
    return st;
}

// The weight's values as a new f32 tensor on the op device.
static at_status expand_weight(at_ops *o, const at_weight *w, at_tensor **out)
{
    at_status st = AT_OK;
    size_t bytes = (size_t)at_weight_elements(w) * sizeof(float);
    float *values = at_alloc(bytes);

    if (!values) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %zu bytes", w->name, bytes));
    at_weight_read_f32(w, 0, at_weight_elements(w), values);
    AT_TRY(at_tensor_from_host(o->dev, AT_F32, w->rank, w->shape, values, out));
out:
    at_free(values);
    return st;
}

at_tensor *at_weight_tensor(at_ops *o, const at_weight *w, at_dtype dtype)
{
    at_status st = AT_OK;
    at_tensor *out = NULL;
    op_pass p;

    if (!op_enter(&p, o, "weight_tensor", &o->stats.seconds_other)) return NULL;
    if (!w) AT_TRY(at_fail(AT_EINVAL, "the weight is missing"));
    AT_TRY(at_weight_ready(w));
    if (!w->data) AT_TRY(at_fail(AT_EUNSUPPORTED, "%s is a shape without bytes", w->name));
    if (w->dtype == dtype && w->scale == 1.0f && o->dev->host) {
        AT_TRY(wrap_weight(w, &out));
    } else {
        AT_TRY(expand_weight(o, w, &out));
    }
    AT_TRY(op_own(o, out));
    if (out->dtype != dtype) AT_TRY(convert(&p, out, dtype, &out));
out:
    return op_leave(&p, st, out);
}

// --- views -----------------------------------------------------------------------------------
// Replace one -1 by what is left over.
static at_status solve_shape(const at_tensor *x, int rank, const int64_t *shape, int64_t *out)
{
    int64_t known = 1, count = at_tensor_count(x);
    int open = -1;
    char from[128], to[128];

    if (rank < 0 || rank > AT_MAX_RANK) return at_fail(AT_EINVAL, "to rank %d", rank);
    for (int i = 0; i < rank; i++) {
        out[i] = shape[i];
        if (shape[i] == -1 && open < 0) {
            open = i;
        } else if (shape[i] < 0 || __builtin_mul_overflow(known, shape[i], &known)) {
            return at_fail(AT_EINVAL, "to %s", at_shape_text(x->dtype, rank, shape, to));
        }
    }
    if (open >= 0 && known > 0 && count % known == 0) {
        out[open] = count / known;
        known = count;
    } else if (open >= 0) {
        known = -1;
    }
    if (known == count) return AT_OK;
    return at_fail(AT_EINVAL, "%s does not fit %s",
                   at_shape_text(x->dtype, x->rank, x->shape, from),
                   at_shape_text(x->dtype, rank, shape, to));
}

// Strides that read x's elements in order under a new shape of the same count; false if there are
// none. Runs of old dimensions that lie behind each other in memory are one piece; a new dimension
// must not cross the border of a piece.
static bool solve_strides(const at_tensor *x, int rank, const int64_t *shape, int64_t *stride)
{
    int old = x->rank - 1;
    int64_t left = 1, step = 1; // elements left in the current piece, and their distance

    for (int i = rank - 1; i >= 0; i--) {
        stride[i] = step;
        if (shape[i] == 1) continue;
        while (left == 1) { // begin the next piece
            if (old < 0) return false;
            left = x->shape[old];
            step = x->stride[old];
            old--;
            while (left > 1 && old >= 0 && (x->shape[old] == 1 || x->stride[old] == left * step)) {
                left *= x->shape[old--];
            }
        }
        if (left % shape[i] != 0) return false;
        stride[i] = step;
        step *= shape[i];
        left /= shape[i];
    }
    return true;
}

at_tensor *at_reshape(at_ops *o, const at_tensor *x, int rank, const int64_t *shape)
{
    at_status st = AT_OK;
    at_tensor *out = NULL, *copy = NULL;
    int64_t full[AT_MAX_RANK] = {0}, stride[AT_MAX_RANK] = {0};
    op_pass p;

    if (!op_enter(&p, o, "reshape", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    AT_TRY(solve_shape(x, rank, shape, full));
    if (at_tensor_contiguous(x)) {
        AT_TRY(at_tensor_reshape(x, rank, full, &out));
    } else if (solve_strides(x, rank, full, stride)) {
        AT_TRY(at_tensor_view(x, rank, full, stride, 0, &out));
    } else {
        AT_TRY(convert(&p, x, x->dtype, &copy));
        AT_TRY(at_tensor_reshape(copy, rank, full, &out));
    }
    AT_TRY(op_own(o, out));
    AT_TRY(op_reshaped_run(x, out));
out:
    return op_leave(&p, st, out);
}

at_tensor *at_permute(at_ops *o, const at_tensor *x, const int *order)
{
    at_status st = AT_OK;
    at_tensor *out = NULL;
    op_pass p;

    if (!op_enter(&p, o, "permute", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    if (x->run.rows) AT_TRY(at_fail(AT_EUNSUPPORTED, "of some rows of a map: gather them first"));
    AT_TRY(at_tensor_permute(x, order, &out));
    AT_TRY(op_own(o, out));
out:
    return op_leave(&p, st, out);
}

at_tensor *at_narrow(at_ops *o, const at_tensor *x, int dim, int64_t start, int64_t length)
{
    at_status st = AT_OK;
    at_tensor *out = NULL;
    op_pass p;

    if (!op_enter(&p, o, "narrow", &o->stats.seconds_other)) return NULL;
    if (!x || !at_tensor_rows8_part(x, dim)) AT_TRY(op_takes(&p, "x", x));
    if (x->run.rows && dim == 1)
        AT_TRY(at_fail(AT_EUNSUPPORTED, "rows of some rows of a map: gather them first"));
    AT_TRY(at_tensor_narrow(x, dim, start, length, &out));
    AT_TRY(op_own(o, out));
    op_like(out, x);
out:
    return op_leave(&p, st, out);
}

at_tensor *at_concat(at_ops *o, int dim, int n, const at_tensor *const *in)
{
    at_status st = AT_OK;
    int64_t shape[AT_MAX_RANK] = {0}, start = 0;
    char first[128], text[128];
    at_tensor *out = NULL;
    at_view whole;
    op_pass p;

    if (!op_enter(&p, o, "concat", &o->stats.seconds_other)) return NULL;
    if (n < 1) AT_TRY(at_fail(AT_EINVAL, "of %d tensors", n));
    for (int i = 0; i < n; i++)
        AT_TRY(op_takes(&p, "a part", in[i]));
    if (dim < 0 || dim >= in[0]->rank) {
        AT_TRY(at_fail(AT_EINVAL, "%s along %d",
                       at_shape_text(in[0]->dtype, in[0]->rank, in[0]->shape, first), dim));
    }
    memcpy(shape, in[0]->shape, sizeof shape);
    shape[dim] = 0;
    for (int i = 0; i < n; i++) {
        if (in[i]->run.rows != in[0]->run.rows || (dim == 1 && in[i]->run.rows))
            AT_TRY(at_fail(AT_EUNSUPPORTED, "part %d holds other rows of a map than part 0", i));
        bool same_rest = in[i]->rank == in[0]->rank;

        for (int d = 0; d < in[0]->rank && same_rest; d++) {
            same_rest = d == dim || in[i]->shape[d] == shape[d];
        }
        if (!same_rest) {
            AT_TRY(at_fail(AT_EINVAL, "part %d %s does not continue %s along %d", i,
                           at_shape_text(in[i]->dtype, in[i]->rank, in[i]->shape, text),
                           at_shape_text(in[0]->dtype, in[0]->rank, in[0]->shape, first), dim));
        }
        shape[dim] += in[i]->shape[dim];
    }
    AT_TRY(op_has(&p, o->be->copy != NULL));
    AT_TRY(op_make(o, in[0]->dtype, in[0]->rank, shape, &out));
    op_like(out, in[0]);
    whole = at_tensor_as_view(out);
    for (int i = 0; i < n; i++) {
        at_view from = at_tensor_as_view(in[i]), to = op_part(whole, dim, start, in[i]->shape[dim]);

        if (in[i]->shape[dim]) AT_TRY(o->be->copy(o->dev->stream, &from, &to));
        start += in[i]->shape[dim];
    }
out:
    return op_leave(&p, st, out);
}
