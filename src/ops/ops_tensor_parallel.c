// SPDX-License-Identifier: Apache-2.0
// ops_tensor_parallel.c - layers whose weights are shared out along the mesh's tp axis (Megatron-LM, Shoeybi et al.
// 2019, arXiv:1909.08053).
// Idea: how a weight may be cut stands with the weight (weight/cut.h), so the doors know by themselves: a layer cut by
// rows gives this rank's features of the result, what follows works on those (attention on this rank's heads), and
// a layer cut by columns reads them and ends in a sum over the ranks. Everything else is the same on every rank.
// Easy to get wrong: bias and residual belong to one part of the sum, the gate to every part; a rank without heads or
// units has empty tensors, and still takes part in every sum.
// Sums run in rank order in f32: the same bits on every rank.
// Owns: see ops.h. Buffers of a sum die with the door.
#include "ops/ops_private.h"

#include <string.h>

enum { AT_ONCE = 32 << 10 }; // bytes: below, everybody adds everything, which is one exchange less

static at_comm *tp(const at_ops *o)
{
    return o->mesh.axis[AT_AXIS_TP];
}

bool op_sums(const at_ops *o, const at_weight *w)
{
    const at_cutting *how = tp(o)->size > 1 ? at_weight_how_cut(w) : NULL;
    return how && how->columns;
}

int64_t at_ops_own_heads(const at_ops *o, int64_t heads)
{
    int64_t first;
    return at_cut_share((at_cut_run){heads, 1}, tp(o)->rank, tp(o)->size, &first);
}

int64_t at_ops_own_units(const at_ops *o, int64_t width)
{
    int64_t first;
    return at_cut_share((at_cut_run){width, AT_CUT_UNIT}, tp(o)->rank, tp(o)->size, &first);
}

int64_t at_ops_own_features(const at_ops *o, const at_weight *w)
{
    int64_t shape[AT_MAX_RANK];
    at_weight_share_shape(w, tp(o)->rank, tp(o)->size, shape);
    return shape[0];
}

at_tensor *at_share_heads(at_ops *o, const at_tensor *x, int dim)
{
    int64_t first, n;

    if (!x || tp(o)->size == 1) return (at_tensor *)(uintptr_t)x;
    n = at_cut_share((at_cut_run){x->shape[dim], 1}, tp(o)->rank, tp(o)->size, &first);
    return at_narrow(o, x, dim, first, n);
}

// --- the whole of what is shared ---------------------------------------------------------------
// Parts [b, t, own, d] of all ranks, each from a block of its own, to their heads of out.
static at_status gather_heads(const op_pass *p, const at_tensor *x, at_tensor *out)
{
    at_ops *o = p->o;
    at_comm *c = tp(o);
    at_status st = AT_OK;
    at_comm_part send[OPS_MAX_RANKS], recv[OPS_MAX_RANKS];
    at_tensor *mine, *all;
    size_t size = at_dtype_size(x->dtype);
    int64_t heads = out->shape[2], each = heads ? at_tensor_count(out) / heads : 0, first, n;

    AT_TRY(op_has(p, o->be->copy != NULL));
    AT_TRY(op_make(o, x->dtype, 4, x->shape, &mine));
    AT_TRY(op_make(o, x->dtype, 1, (int64_t[]){at_tensor_count(out)}, &all));
    at_view from = at_tensor_as_view(x), to = at_tensor_as_view(mine);
    if (at_view_count(&from)) AT_TRY(o->be->copy(o->dev->stream, &from, &to));
    for (int i = 0; i < c->size; i++) {
        n = at_cut_share((at_cut_run){heads, 1}, i, c->size, &first);
        send[i] = (at_comm_part){at_tensor_data(mine), at_tensor_bytes(mine)};
        recv[i] = (at_comm_part){(char *)at_tensor_data(all) + (size_t)(first * each) * size,
                                 (size_t)(n * each) * size};
    }
    AT_TRY(op_exchange(o, c, send, recv));
    for (int i = 0; i < c->size; i++) {
        n = at_cut_share((at_cut_run){heads, 1}, i, c->size, &first);
        if (!n || !each) continue;
        to = op_part(at_tensor_as_view(out), 2, first, n);
        from = to;
        from.data = recv[i].data;
        from.stride[3] = 1;
        from.stride[2] = from.shape[3];
        from.stride[1] = n * from.stride[2];
        from.stride[0] = from.shape[1] * from.stride[1];
        AT_TRY(o->be->copy(o->dev->stream, &from, &to));
    }
out:
    return st;
}

at_tensor *at_gather_heads(at_ops *o, const at_tensor *x, int64_t heads)
{
    at_status st = AT_OK;
    at_tensor *out = NULL;
    char text[128];
    op_pass p;

    if (!op_enter(&p, o, "gather_heads", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    if (x->rank != 4 || x->shape[2] != at_ops_own_heads(o, heads))
        AT_TRY(at_fail(AT_EINVAL, "x %s is not this rank's share of %lld heads",
                       at_shape_text(x->dtype, x->rank, x->shape, text), (long long)heads));
    if (tp(o)->size == 1) {
        out = (at_tensor *)(uintptr_t)x;
        goto out;
    }
    if (tp(o)->size > OPS_MAX_RANKS)
        AT_TRY(at_fail(AT_EUNSUPPORTED, "%d ranks; %d are the most", tp(o)->size, OPS_MAX_RANKS));
    AT_TRY(
        op_make(o, x->dtype, 4, (int64_t[]){x->shape[0], x->shape[1], heads, x->shape[3]}, &out));
    op_like(out, x);
    at_scope_begin(o);
    st = gather_heads(&p, x, out);
    at_scope_end(o, NULL);
out:
    return op_leave(&p, st, out);
}

// --- sums ----------------------------------------------------------------------------------------
// The n parts, in rank order, into `out` (one of them, or other memory): contiguous runs of `count` elements.
static at_status add_parts(const op_pass *p, char *const *part, int n, at_dtype dtype,
                           int64_t count, char *out)
{
    at_ops *o = p->o;
    at_status st = AT_OK;
    at_view one = {.dtype = dtype, .rank = 1, .shape = {count}, .stride = {1}};
    at_tensor *more = NULL; // what the first of many come to

    if (!count) return AT_OK;
    AT_TRY(op_has(p, o->be->lincomb != NULL));
    if (n > AT_LINCOMB_MAX) AT_TRY(op_make(o, AT_F32, 1, &count, &more));
    for (int i = 0; i < n;) {
        at_lincomb_args a = {.out = one};

        if (i) {
            a.coef[a.n] = 1;
            a.in[a.n++] = at_tensor_as_view(more);
        }
        for (; i < n && a.n < AT_LINCOMB_MAX; i++) {
            a.coef[a.n] = 1;
            a.in[a.n] = one;
            a.in[a.n++].data = part[i];
        }
        a.out.data = out;
        if (i < n) a.out = at_tensor_as_view(more);
        AT_TRY(o->be->lincomb(o->dev->stream, &a));
    }
out:
    return st;
}

// Everybody gets all parts and adds them.
static at_status sum_at_once(const op_pass *p, at_comm *c, at_tensor *x)
{
    at_status st = AT_OK;
    at_comm_part send[OPS_MAX_RANKS], recv[OPS_MAX_RANKS];
    char *part[OPS_MAX_RANKS], *mine = at_tensor_data(x);
    int64_t count = at_tensor_count(x);
    size_t bytes = at_tensor_bytes(x);
    at_tensor *all;

    AT_TRY(op_make(p->o, x->dtype, 1, (int64_t[]){c->size * count}, &all));
    for (int i = 0; i < c->size; i++) {
        part[i] = i == c->rank ? mine : (char *)at_tensor_data(all) + (size_t)i * bytes;
        send[i] = (at_comm_part){mine, bytes};
        recv[i] = (at_comm_part){part[i], bytes};
    }
    AT_TRY(op_exchange(p->o, c, send, recv));
    AT_TRY(add_parts(p, part, c->size, x->dtype, count, mine));
out:
    return st;
}

// Everybody adds a run of it, and then has everybody's runs.
static at_status sum_by_runs(const op_pass *p, at_comm *c, at_tensor *x)
{
    at_status st = AT_OK;
    at_comm_part send[OPS_MAX_RANKS], recv[OPS_MAX_RANKS], run[OPS_MAX_RANKS];
    char *part[OPS_MAX_RANKS];
    int64_t count = at_tensor_count(x), first, own;
    size_t size = at_dtype_size(x->dtype);
    at_tensor *all;

    own = at_cut_share((at_cut_run){count, AT_CUT_UNIT}, c->rank, c->size, &first);
    AT_TRY(op_make(p->o, x->dtype, 1, (int64_t[]){c->size * own}, &all));
    for (int i = 0; i < c->size; i++) {
        int64_t n = at_cut_share((at_cut_run){count, AT_CUT_UNIT}, i, c->size, &first);

        run[i] = (at_comm_part){(char *)at_tensor_data(x) + (size_t)first * size, (size_t)n * size};
    }
    for (int i = 0; i < c->size; i++) {
        send[i] = run[i];
        part[i] =
            i == c->rank ? run[i].data : (char *)at_tensor_data(all) + (size_t)(i * own) * size;
        recv[i] = (at_comm_part){part[i], (size_t)own * size};
    }
    AT_TRY(op_exchange(p->o, c, send, recv));
    AT_TRY(add_parts(p, part, c->size, x->dtype, own, run[c->rank].data));
    for (int i = 0; i < c->size; i++)
        send[i] = run[c->rank];
    AT_TRY(op_exchange(p->o, c, send, run));
out:
    return st;
}

// x, contiguous, becomes the sum of all ranks' x.
static at_status sum_of_ranks(const op_pass *p, at_tensor *x)
{
    at_comm *c = tp(p->o);

    if (c->size == 1 || at_tensor_count(x) == 0) return AT_OK;
    if (c->size > OPS_MAX_RANKS)
        return at_fail(AT_EUNSUPPORTED, "%d ranks; %d are the most", c->size, OPS_MAX_RANKS);
    if (c->ops->sum)
        return op_sum_of(p->o, c, x->dtype, at_tensor_data(x), (size_t)at_tensor_count(x));
    if (c->size == 2 || at_tensor_bytes(x) <= AT_ONCE) return sum_at_once(p, c, x);
    return sum_by_runs(p, c, x);
}

// --- layers cut by columns -----------------------------------------------------------------------
// This rank's part of the sum into x [.., n] contiguous: the gate is in every part, what is added once in rank 0's.
static at_status own_part(const op_pass *p, const at_linear_args *a, at_tensor *x)
{
    at_linear_args part = *a;
    at_view all = at_tensor_as_view(x);

    part.out = op_rows(x);
    if (tp(p->o)->rank != 0) {
        part.bias = (at_wview){.scale = 1};
        part.residual = (at_view){0};
    }
    if (part.w.v.shape[1] > 0) {
        p->o->stats.flops_linear += 2.0 * (double)at_tensor_count(x) * (double)part.w.v.shape[1];
        return p->o->be->linear(p->o->dev->stream, &part);
    }
    // Nothing of it is this rank's (rank 0 has something, where there is anything).
    at_status st = op_has(p, p->o->be->fill != NULL);
    return st == AT_OK ? p->o->be->fill(p->o->dev->stream, &all, 0) : st;
}

at_status op_linear_summed(const op_pass *p, at_linear_args *a, at_tensor *out)
{
    at_ops *o = p->o;
    at_status st = AT_OK;
    at_tensor *sum = out;
    at_view from, to;

    if (at_tensor_count(out) == 0) return AT_OK;
    at_scope_begin(o);
    if (a->act != AT_ACT_NONE)
        AT_TRY(at_fail(AT_EUNSUPPORTED, "an activation behind a layer that ranks sum"));
    if (!at_tensor_contiguous(out)) AT_TRY(op_make(o, out->dtype, out->rank, out->shape, &sum));
    AT_TRY(own_part(p, a, sum));
    AT_TRY(sum_of_ranks(p, sum));
    if (sum == out) goto out;
    from = op_rows(sum);
    to = a->out;
    AT_TRY(op_has(p, o->be->copy != NULL));
    AT_TRY(o->be->copy(o->dev->stream, &from, &to));
out:
    at_scope_end(o, NULL);
    return st;
}
