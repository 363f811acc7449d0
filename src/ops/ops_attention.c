// SPDX-License-Identifier: Apache-2.0
// ops_attention.c - the attention door, on one rank or with tokens split over several.
// Idea: with split tokens each rank holds some tokens of all heads; an all-to-all turns that into
// all tokens of some heads (DeepSpeed-Ulysses, arXiv:2309.14509), attention runs there, and a
// second one turns the result back. When the ranks do not divide the heads, keys and values are
// gathered instead. Easy to get wrong: ranks may hold different token counts. Blocks travel padded
// to the largest count; the padding is dropped before any arithmetic, so the result is the same as
// on one rank. Owns: see ops.h. Buffers of the exchange die with the door.
#include "ops/ops_private.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

enum { MOST_RANKS = 256 };

// What every rank tells the others before an exchange.
typedef struct shape_note {
    int64_t b, tq, tk, h, d;
} shape_note;

// The facts of one exchange.
typedef struct exchange {
    const op_pass *p;
    at_comm *comm;
    int64_t b, h, d;
    int64_t tq[MOST_RANKS], tk[MOST_RANKS]; // tokens of each rank
    int64_t most_q, most_k, all_q, all_k;
} exchange;

static at_status run_slot(const op_pass *p, at_attention_args *a)
{
    at_status st = op_has(p, p->o->be->attention != NULL);
    double tq = (double)a->q.shape[1], tk = (double)a->k.shape[1], pairs = tq * tk;

    if (st != AT_OK || at_view_count(&a->out) == 0) return st;
    if (a->causal && tq <= tk) pairs -= tq * (tq - 1) / 2;
    st = p->o->be->attention(p->o->dev->stream, a);
    p->o->stats.flops_attention +=
        4.0 * (double)a->q.shape[0] * (double)a->q.shape[2] * (double)a->q.shape[3] * pairs;
    return st;
}

// --- the exchange ----------------------------------------------------------------------------
static at_view view4(void *data, at_dtype dtype, int64_t b, int64_t t, int64_t h, int64_t d)
{
    return (at_view){.data = data,
                     .dtype = dtype,
                     .rank = 4,
                     .shape = {b, t, h, d},
                     .stride = {t * h * d, h * d, d, 1}};
}

static at_status copy_view(const op_pass *p, at_view from, at_view to)
{
    if (at_view_count(&from) == 0) return AT_OK;
    return p->o->be->copy(p->o->dev->stream, &from, &to);
}

// A buffer of n equal blocks on the op device, as a flat tensor. `padded`: zeroed, because not
// every element will be written before it travels.
static at_status blocks(const op_pass *p, at_dtype dtype, int64_t n, int64_t elements, bool padded,
                        at_tensor **out)
{
    at_status st = AT_OK;
    at_view v;

    AT_TRY(op_make(p->o, dtype, 2, (int64_t[]){n, elements}, out));
    if (!padded || elements == 0) goto out;
    v = at_tensor_as_view(*out);
    AT_TRY(op_has(p, p->o->be->fill != NULL));
    AT_TRY(p->o->be->fill(p->o->dev->stream, &v, 0));
out:
    return st;
}

static void *block_at(const at_tensor *buffer, int64_t i)
{
    return (char *)at_tensor_data(buffer) +
           (size_t)(i * buffer->shape[1]) * at_dtype_size(buffer->dtype);
}

// The ranks' shapes; all must agree but for the token counts.
static at_status compare_shapes(exchange *x, const at_attention_args *a)
{
    at_status st = AT_OK;
    shape_note mine = {a->q.shape[0], a->q.shape[1], a->k.shape[1], a->q.shape[2], a->q.shape[3]};
    shape_note all[MOST_RANKS];

    if (x->comm->size > MOST_RANKS) {
        AT_TRY(at_fail(AT_EUNSUPPORTED, "%d ranks; at most %d", x->comm->size, MOST_RANKS));
    }
    AT_TRY(op_all_gather(x->p->o, &mine, all, sizeof mine));
    x->b = mine.b;
    x->h = mine.h;
    x->d = mine.d;
    for (int i = 0; i < x->comm->size; i++) {
        if (all[i].b != mine.b || all[i].h != mine.h || all[i].d != mine.d) {
            AT_TRY(at_fail(AT_EINTERNAL,
                           "rank %d has [%lld, t, %lld, %lld], rank %d [%lld, t, "
                           "%lld, %lld]: the ranks do not run the same picture",
                           i, (long long)all[i].b, (long long)all[i].h, (long long)all[i].d,
                           x->comm->rank, (long long)mine.b, (long long)mine.h, (long long)mine.d));
        }
        x->tq[i] = all[i].tq;
        x->tk[i] = all[i].tk;
        x->all_q += all[i].tq;
        x->all_k += all[i].tk;
        if (all[i].tq > x->most_q) x->most_q = all[i].tq;
        if (all[i].tk > x->most_k) x->most_k = all[i].tk;
    }
out:
    return st;
}

// This rank's tokens of all heads -> all ranks' tokens, in rank order, of this rank's heads.
static at_status heads_in(const exchange *x, at_view v, const int64_t *counts, int64_t most,
                          int64_t total, at_view *out)
{
    at_status st = AT_OK;
    int n = x->comm->size, me = x->comm->rank;
    int64_t hn = x->h / n, at = 0, elements = x->b * most * hn * x->d;
    at_tensor *send, *recv, *whole;

    AT_TRY(blocks(x->p, v.dtype, n, elements, counts[me] < most, &send));
    AT_TRY(blocks(x->p, v.dtype, n, elements, false, &recv));
    for (int i = 0; i < n; i++) {
        at_view to = view4(block_at(send, i), v.dtype, x->b, most, hn, x->d);

        AT_TRY(copy_view(x->p, op_part(v, 2, i * hn, hn), op_part(to, 1, 0, counts[me])));
    }
    AT_TRY(op_all_to_all(x->p->o, at_tensor_data(send), at_tensor_data(recv),
                         (size_t)elements * at_dtype_size(v.dtype)));
    if (x->b == 1 && most * n == total) { // the blocks already lie behind each other
        *out = view4(at_tensor_data(recv), v.dtype, 1, total, hn, x->d);
        goto out;
    }
    AT_TRY(op_make(x->p->o, v.dtype, 4, (int64_t[]){x->b, total, hn, x->d}, &whole));
    *out = at_tensor_as_view(whole);
    for (int i = 0; i < n; i++) {
        at_view from = view4(block_at(recv, i), v.dtype, x->b, most, hn, x->d);

        AT_TRY(copy_view(x->p, op_part(from, 1, 0, counts[i]), op_part(*out, 1, at, counts[i])));
        at += counts[i];
    }
out:
    return st;
}

// All tokens of this rank's heads -> this rank's tokens of all heads, written to `out`.
static at_status heads_out(const exchange *x, at_view v, at_view out)
{
    at_status st = AT_OK;
    int n = x->comm->size, me = x->comm->rank;
    int64_t hn = x->h / n, at = 0, elements = x->b * x->most_q * hn * x->d;
    at_tensor *send, *recv;

    AT_TRY(blocks(x->p, v.dtype, n, elements, x->all_q < n * x->most_q, &send));
    AT_TRY(blocks(x->p, v.dtype, n, elements, false, &recv));
    for (int i = 0; i < n; i++) {
        at_view to = view4(block_at(send, i), v.dtype, x->b, x->most_q, hn, x->d);

        AT_TRY(copy_view(x->p, op_part(v, 1, at, x->tq[i]), op_part(to, 1, 0, x->tq[i])));
        at += x->tq[i];
    }
    AT_TRY(op_all_to_all(x->p->o, at_tensor_data(send), at_tensor_data(recv),
                         (size_t)elements * at_dtype_size(v.dtype)));
    for (int i = 0; i < n; i++) {
        at_view from = view4(block_at(recv, i), v.dtype, x->b, x->most_q, hn, x->d);

        AT_TRY(copy_view(x->p, op_part(from, 1, 0, x->tq[me]), op_part(out, 2, i * hn, hn)));
    }
out:
    return st;
}

// All ranks' tokens of all heads, in rank order.
static at_status tokens_in(const exchange *x, at_view v, at_view *out)
{
    at_status st = AT_OK;
    int n = x->comm->size;
    int64_t elements = x->b * x->most_k * x->h * x->d, at = 0;
    at_tensor *send, *recv, *whole;
    at_view to;

    AT_TRY(blocks(x->p, v.dtype, 1, elements, x->tk[x->comm->rank] < x->most_k, &send));
    AT_TRY(blocks(x->p, v.dtype, n, elements, false, &recv));
    to = view4(at_tensor_data(send), v.dtype, x->b, x->most_k, x->h, x->d);
    AT_TRY(copy_view(x->p, v, op_part(to, 1, 0, x->tk[x->comm->rank])));
    AT_TRY(op_all_gather(x->p->o, at_tensor_data(send), at_tensor_data(recv),
                         (size_t)elements * at_dtype_size(v.dtype)));
    AT_TRY(op_make(x->p->o, v.dtype, 4, (int64_t[]){x->b, x->all_k, x->h, x->d}, &whole));
    *out = at_tensor_as_view(whole);
    for (int i = 0; i < n; i++) {
        at_view from = view4(block_at(recv, i), v.dtype, x->b, x->most_k, x->h, x->d);

        AT_TRY(copy_view(x->p, op_part(from, 1, 0, x->tk[i]), op_part(*out, 1, at, x->tk[i])));
        at += x->tk[i];
    }
out:
    return st;
}

static at_status run_split(const op_pass *p, at_attention_args *a)
{
    exchange x = {.p = p, .comm = p->o->comm};
    at_status st = AT_OK;
    at_attention_args whole = *a;
    at_tensor *part;

    if (a->causal || a->bias.data) {
        AT_TRY(at_fail(AT_EUNSUPPORTED, "split tokens with a mask: gather them first"));
    }
    AT_TRY(compare_shapes(&x, a));
    if (x.h % x.comm->size != 0) {
        AT_TRY(tokens_in(&x, a->k, &whole.k));
        AT_TRY(tokens_in(&x, a->v, &whole.v));
        AT_TRY(run_slot(p, &whole));
        goto out;
    }
    AT_TRY(heads_in(&x, a->q, x.tq, x.most_q, x.all_q, &whole.q));
    AT_TRY(heads_in(&x, a->k, x.tk, x.most_k, x.all_k, &whole.k));
    AT_TRY(heads_in(&x, a->v, x.tk, x.most_k, x.all_k, &whole.v));
    AT_TRY(
        op_make(p->o, a->out.dtype, 4, (int64_t[]){x.b, x.all_q, x.h / x.comm->size, x.d}, &part));
    whole.out = at_tensor_as_view(part);
    AT_TRY(run_slot(p, &whole));
    AT_TRY(heads_out(&x, whole.out, a->out));
out:
    return st;
}

// --- the door --------------------------------------------------------------------------------
static at_status check(const op_pass *p, const at_tensor *q, const at_tensor *k, const at_tensor *v,
                       const at_tensor *bias)
{
    at_status st = AT_OK;
    char tq[128], tk[128], tv[128];

    AT_TRY(op_takes(p, "q", q));
    AT_TRY(op_takes(p, "k", k));
    AT_TRY(op_takes(p, "v", v));
    if (q->rank != 4 || k->rank != 4 || v->rank != 4 || q->shape[0] != k->shape[0] ||
        q->shape[2] != k->shape[2] || q->shape[3] != k->shape[3] || q->shape[3] < 1 ||
        memcmp(k->shape, v->shape, 4 * sizeof *k->shape) != 0) {
        AT_TRY(at_fail(AT_EINVAL, "q %s, k %s, v %s must be [b, tq, h, d], [b, tk, h, d] twice",
                       at_shape_text(q->dtype, q->rank, q->shape, tq),
                       at_shape_text(k->dtype, k->rank, k->shape, tk),
                       at_shape_text(v->dtype, v->rank, v->shape, tv)));
    }
    if (!bias) goto out;
    AT_TRY(op_takes(p, "bias", bias));
    if (bias->dtype != AT_F32 || bias->rank != 4 ||
        (bias->shape[0] != 1 && bias->shape[0] != q->shape[0]) || bias->shape[1] != q->shape[2] ||
        bias->shape[2] != q->shape[1] || bias->shape[3] != k->shape[1]) {
        AT_TRY(at_fail(AT_EINVAL, "bias %s does not fit q %s, k %s: f32 [1 or b, h, tq, tk]",
                       at_shape_text(bias->dtype, bias->rank, bias->shape, tv),
                       at_shape_text(q->dtype, q->rank, q->shape, tq),
                       at_shape_text(k->dtype, k->rank, k->shape, tk)));
    }
out:
    return st;
}

at_tensor *at_attention(at_ops *o, const at_tensor *q, const at_tensor *k, const at_tensor *v,
                        const at_tensor *bias, float scale, bool causal)
{
    at_attention_args a = {.scale = scale, .causal = causal};
    at_status st = AT_OK;
    at_tensor *out = NULL;
    const at_tensor *part;
    op_pass p;

    if (!op_enter(&p, o, "attention", &o->stats.seconds_attention)) return NULL;
    AT_TRY(check(&p, q, k, v, bias));
    AT_TRY(op_result(&p, o->compute, 3,
                     (int64_t[]){q->shape[0], q->shape[1], q->shape[2] * q->shape[3]}, &out));
    a.fp8 = o->fp8;
    at_scope_begin(o);
    if (scale == 0) a.scale = (float)(1.0 / sqrt((double)q->shape[3]));
    a.out =
        view4(at_tensor_data(out), out->dtype, q->shape[0], q->shape[1], q->shape[2], q->shape[3]);
    a.out.stride[0] = out->stride[0]; // a given result may be part of a wider one
    a.out.stride[1] = out->stride[1];
    st = op_inner_contiguous(o, q, &part);
    if (st == AT_OK) a.q = at_tensor_as_view(part);
    if (st == AT_OK) st = op_inner_contiguous(o, k, &part);
    if (st == AT_OK) a.k = at_tensor_as_view(part);
    if (st == AT_OK) st = op_inner_contiguous(o, v, &part);
    if (st == AT_OK) a.v = at_tensor_as_view(part);
    if (st == AT_OK && bias) a.bias = at_tensor_as_view(bias);
    if (st == AT_OK && o->tokens_split && o->comm->size > 1) {
        st = run_split(&p, &a);
    } else if (st == AT_OK) {
        st = run_slot(&p, &a);
    }
    at_scope_end(o, NULL);
out:
    return op_leave(&p, st, out);
}
