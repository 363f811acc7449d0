// SPDX-License-Identifier: Apache-2.0
// ops_attention_ranks.c - attention over tokens that are split over ranks.
// Idea: each rank holds some tokens of all heads. Along the Ulysses axis one exchange turns that into all
// tokens of some heads (DeepSpeed-Ulysses, arXiv:2309.14509), attention runs there, and a second one turns
// the result back. Along the ring axis keys and values of the other runs of tokens are brought together, or go
// round (ops_attention_ring.c).
// Blocks travel in their true sizes, q, k and v in one, token by token: what arrives lies behind each other
// and is read in place by its strides.
// Easy to get wrong: neither tokens nor heads need divide; a rank may have none of either and still takes
// part in every exchange. A block for oneself is packed where it would arrive.
// Owns: see ops.h. Buffers of the exchanges die with the door.
#include "ops/ops_ranks.h"

#include <string.h>

enum { PARTS = 3 }; // q, k, v

static at_status copy_view(const op_pass *p, at_view from, at_view to)
{
    if (at_view_count(&from) == 0) return AT_OK;
    return p->o->be->copy(p->o->dev->stream, &from, &to);
}

static char *byte_at(const at_tensor *buffer, int64_t element)
{
    return (char *)at_tensor_data(buffer) + (size_t)element * at_dtype_size(buffer->dtype);
}

// Along the Ulysses axis; rows of a map are not shared by heads.
static void share_heads(const op_ranks *x, int rank, int64_t *first, int64_t *heads)
{
    at_share_of(x->p->o->mesh.share[AT_AXIS_ULYSSES], x->h, rank, x->heads->size, first, heads);
}

static at_status measure(op_ranks *x, const op_pass *p, const at_attention_args *a,
                         const at_row_run *run)
{
    at_ops *o = p->o;
    bool rows =
        run->rows != 0; // the tokens are pixels of a map: keys and values are brought together
    at_comm *patch = o->mesh.axis[AT_AXIS_PATCH];
    int rank = rows ? patch->rank : o->mesh.tokens->rank;
    int64_t here;

    *x = (op_ranks){.p = p,
                    .heads = rows ? at_comm_self() : o->mesh.axis[AT_AXIS_ULYSSES],
                    .ring = rows ? patch : o->mesh.axis[AT_AXIS_RING],
                    .b = a->q.shape[0],
                    .h = a->q.shape[2],
                    .d = a->q.shape[3]};
    if (a->causal || a->bias.data)
        return at_fail(AT_EUNSUPPORTED, "split tokens with a mask: gather them first");
    if (rows) {
        op_row_counts(o, run, x->counts);
    } else {
        op_split_counts(o, x->counts);
    }
    here = x->counts[rank];
    if (a->q.shape[1] != here || a->k.shape[1] != here)
        return at_fail(AT_EINTERNAL,
                       "q has %lld and k %lld tokens, and rank %d's sequence has %lld",
                       (long long)a->q.shape[1], (long long)a->k.shape[1], rank, (long long)here);
    x->mine = x->counts + x->ring->rank * x->heads->size;
    for (int i = 0; i < x->heads->size; i++)
        x->all += x->mine[i];
    share_heads(x, x->heads->rank, &x->first_head, &x->own_heads);
    return AT_OK;
}

// --- Ulysses -----------------------------------------------------------------------------------
int64_t op_token(const op_ranks *x, int64_t heads, int parts)
{
    return x->b * parts * heads * x->d;
}

at_view op_travelling(const op_ranks *x, void *data, at_dtype dtype, int64_t t, int64_t heads,
                      int part, int parts)
{
    int64_t row = parts * heads * x->d;

    return (at_view){.data = (char *)data + (size_t)(part * heads * x->d) * at_dtype_size(dtype),
                     .dtype = dtype,
                     .rank = 4,
                     .shape = {x->b, t, heads, x->d},
                     .stride = {row, x->b * row, x->d, 1}};
}

bool op_evenly_apart(const at_view *v, int parts)
{
    int64_t step = (char *)v[1].data - (char *)v[0].data, size = (int64_t)at_dtype_size(v->dtype);
    bool even = step > 0 && step % size == 0 && step / size < v[0].stride[1];

    for (int i = 1; i < parts && even; i++)
        even = v[i].dtype == v[0].dtype && (char *)v[i].data - (char *)v[i - 1].data == step &&
               memcmp(v[i].stride, v[0].stride, sizeof *v->stride * 4) == 0;
    return even;
}

// v[0 .. parts) as they can be copied as one: as they lie, or packed. What they travel as does not tell, so each rank
// decides for itself: a rank with one token or none cannot know how the others' lie.
static at_status as_one(const op_ranks *x, const at_view *v, int parts, int64_t heads, at_view *out)
{
    at_status st = AT_OK;
    at_tensor *packed = NULL;
    int64_t t = v->shape[1];

    for (int i = 0; i < parts; i++)
        out[i] = v[i];
    if (op_evenly_apart(v, parts)) return AT_OK;
    AT_TRY(op_make(x->p->o, v->dtype, 1, (int64_t[]){t * op_token(x, heads, parts)}, &packed));
    AT_TRY(op_pack(x, v, parts, 0, heads, at_tensor_data(packed)));
    for (int i = 0; i < parts; i++)
        out[i] = op_travelling(x, at_tensor_data(packed), v->dtype, t, heads, i, parts);
out:
    return st;
}

at_view op_together(const at_view *v, int parts, int64_t first, int64_t n)
{
    at_view one = op_part(v[0], 2, first, n);

    one.rank = 5;
    one.shape[4] = one.shape[3];
    one.stride[4] = one.stride[3];
    one.shape[3] = n;
    one.stride[3] = one.stride[2];
    one.shape[2] = parts;
    one.stride[2] = ((char *)v[1].data - (char *)v[0].data) / (int64_t)at_dtype_size(v->dtype);
    return one;
}

at_view op_together_there(const op_ranks *x, void *block, at_dtype dtype, int64_t t, int64_t n,
                          int parts)
{
    at_view one = op_travelling(x, block, dtype, t, n, 0, parts);

    one.rank = 5;
    one.shape[4] = x->d;
    one.stride[4] = 1;
    one.shape[3] = n;
    one.stride[3] = x->d;
    one.shape[2] = parts;
    one.stride[2] = n * x->d;
    return one;
}

at_status op_pack(const op_ranks *x, const at_view *v, int parts, int64_t first, int64_t n,
                  void *block)
{
    at_status st = AT_OK;
    int64_t t = v->shape[1];

    if (parts > 1 && op_evenly_apart(v, parts))
        return copy_view(x->p, op_together(v, parts, first, n),
                         op_together_there(x, block, v->dtype, t, n, parts));
    for (int i = 0; i < parts; i++)
        AT_TRY(copy_view(x->p, op_part(v[i], 2, first, n),
                         op_travelling(x, block, v->dtype, t, n, i, parts)));
out:
    return st;
}

// This rank's tokens of all heads -> its group's tokens, in rank order, of this rank's heads.
static at_status heads_in(const op_ranks *x, const at_view *v, int parts, at_view *out)
{
    at_status st = AT_OK;
    int n = x->heads->size, me = x->heads->rank;
    at_comm_part send[OPS_MAX_RANKS], recv[OPS_MAX_RANKS];
    size_t size = at_dtype_size(v->dtype);
    int64_t here = x->mine[me], row = op_token(x, x->own_heads, parts), at = 0;
    at_tensor *packed, *arrived;

    AT_TRY(op_make(x->p->o, v->dtype, 1, (int64_t[]){here * op_token(x, x->h, parts)}, &packed));
    AT_TRY(op_make(x->p->o, v->dtype, 1, (int64_t[]){x->all * row}, &arrived));
    for (int i = 0; i < n; i++) {
        recv[i] = (at_comm_part){byte_at(arrived, at * row), (size_t)(x->mine[i] * row) * size};
        at += x->mine[i];
    }
    for (int i = 0; i < n; i++) {
        int64_t first, heads;

        share_heads(x, i, &first, &heads);
        send[i] = (at_comm_part){byte_at(packed, here * op_token(x, first, parts)),
                                 (size_t)(here * op_token(x, heads, parts)) * size};
        if (i == me) send[i] = recv[i];
        AT_TRY(op_pack(x, v, parts, first, heads, send[i].data));
    }
    AT_TRY(op_exchange(x->p->o, x->heads, send, recv));
    for (int i = 0; i < parts; i++)
        out[i] =
            op_travelling(x, at_tensor_data(arrived), v->dtype, x->all, x->own_heads, i, parts);
out:
    return st;
}

// The same where the carrier takes strided parts: nothing is packed that need not be.
static at_status send_in_place(const op_ranks *x, const at_view *v, bool ahead, at_tensor **out)
{
    at_status st = AT_OK;
    at_ops *o = x->p->o;
    int n = x->heads->size;
    at_view send[OPS_MAX_RANKS], recv[OPS_MAX_RANKS];
    at_view one[PARTS];
    int64_t row = op_token(x, x->own_heads, PARTS), at = 0;
    at_tensor *arrived;

    AT_TRY(op_make(x->p->o, v->dtype, 1, (int64_t[]){x->all * row}, &arrived));
    AT_TRY(as_one(x, v, PARTS, x->h, one));
    for (int i = 0; i < n; i++) {
        int64_t first, heads;

        share_heads(x, i, &first, &heads);
        send[i] = op_together(one, PARTS, first, heads);
        recv[i] = op_together_there(x, byte_at(arrived, at * row), v->dtype, x->mine[i],
                                    x->own_heads, PARTS);
        at += x->mine[i];
    }
    *out = arrived;
    AT_TRY(ahead ? op_scatter_begin(o, x->heads, send, recv) : op_scatter(o, x->heads, send, recv));
out:
    return st;
}

// What was sent ahead has the given address, and is waited for.
static at_status take_ahead(const op_ranks *x, at_comm *c, const void *q, at_tensor **arrived)
{
    at_ops *o = x->p->o;

    *arrived = o->ahead.arrived;
    o->ahead.arrived = NULL;
    if (o->ahead.q != q) return at_fail(AT_EINTERNAL, "another q is on its way than the one given");
    return op_scatter_end(o, c);
}

static at_status heads_in_place(const op_ranks *x, const at_view *v, at_view *out)
{
    at_status st = AT_OK;
    at_tensor *arrived = NULL;

    if (x->p->o->ahead.arrived)
        AT_TRY(take_ahead(x, x->heads, v[0].data, &arrived));
    else
        AT_TRY(send_in_place(x, v, false, &arrived));
    for (int i = 0; i < PARTS; i++)
        out[i] =
            op_travelling(x, at_tensor_data(arrived), v->dtype, x->all, x->own_heads, i, PARTS);
out:
    return st;
}

static at_status heads_out_place(const op_ranks *x, const at_tensor *done, at_view out)
{
    int n = x->heads->size;
    at_view send[OPS_MAX_RANKS], recv[OPS_MAX_RANKS];
    int64_t row = op_token(x, x->own_heads, 1), at = 0;

    for (int i = 0; i < n; i++) {
        int64_t first, heads;

        share_heads(x, i, &first, &heads);
        send[i] =
            op_travelling(x, byte_at(done, at * row), done->dtype, x->mine[i], x->own_heads, 0, 1);
        recv[i] = op_part(out, 2, first, heads);
        at += x->mine[i];
    }
    return op_scatter(x->p->o, x->heads, send, recv);
}

// A result over the group's tokens of this rank's heads, as op_travelling() has it with one part -> this rank's
// tokens of all heads, written to `out`.
static at_status heads_out(const op_ranks *x, const at_tensor *done, at_view out)
{
    at_status st = AT_OK;
    int n = x->heads->size, me = x->heads->rank;
    at_comm_part send[OPS_MAX_RANKS], recv[OPS_MAX_RANKS];
    size_t size = at_dtype_size(done->dtype);
    int64_t here = x->mine[me], row = op_token(x, x->own_heads, 1), at = 0;
    at_tensor *arrived;

    AT_TRY(op_make(x->p->o, done->dtype, 1, (int64_t[]){here * op_token(x, x->h, 1)}, &arrived));
    for (int i = 0; i < n; i++) {
        int64_t first, heads;

        share_heads(x, i, &first, &heads);
        send[i] = (at_comm_part){byte_at(done, at * row), (size_t)(x->mine[i] * row) * size};
        recv[i] = (at_comm_part){byte_at(arrived, here * op_token(x, first, 1)),
                                 (size_t)(here * op_token(x, heads, 1)) * size};
        if (i == me) recv[i] = send[i];
        at += x->mine[i];
    }
    AT_TRY(op_exchange(x->p->o, x->heads, send, recv));
    for (int i = 0; i < n; i++) {
        int64_t first, heads;

        share_heads(x, i, &first, &heads);
        AT_TRY(copy_view(x->p, op_travelling(x, recv[i].data, done->dtype, here, heads, 0, 1),
                         op_part(out, 2, first, heads)));
    }
out:
    return st;
}

// --- ring --------------------------------------------------------------------------------------
// Keys and values of every ring's tokens, one behind the other: how they go, and where.
typedef struct ring_parts {
    int64_t tokens[OPS_MAX_RANKS], total; // of each ring
    at_tensor *all;
} ring_parts;

int64_t op_ring_tokens(const op_ranks *x, int i)
{
    int u = x->heads->size;
    int64_t n = 0;

    for (int j = 0; j < u; j++)
        n += x->counts[i * u + j];
    return n;
}

static at_status ring_room(const op_ranks *x, at_dtype dtype, ring_parts *r)
{
    r->total = 0;
    for (int i = 0; i < x->ring->size; i++) {
        r->tokens[i] = op_ring_tokens(x, i);
        r->total += r->tokens[i];
    }
    return op_make(x->p->o, dtype, 1, (int64_t[]){r->total * op_token(x, x->own_heads, 2)},
                   &r->all);
}

// By strided parts, without packing.
static at_status ring_in_place(const op_ranks *x, const at_view *kv, bool ahead, at_tensor **out)
{
    at_status st = AT_OK;
    at_ops *o = x->p->o;
    at_view send[OPS_MAX_RANKS], recv[OPS_MAX_RANKS];
    at_view one[2];
    int64_t row = op_token(x, x->own_heads, 2), before = 0;
    ring_parts r;

    AT_TRY(ring_room(x, kv->dtype, &r));
    AT_TRY(as_one(x, kv, 2, x->own_heads, one));
    for (int i = 0; i < x->ring->size; i++) {
        send[i] = op_together(one, 2, 0, x->own_heads);
        recv[i] = op_together_there(x, byte_at(r.all, before * row), kv->dtype, r.tokens[i],
                                    x->own_heads, 2);
        before += r.tokens[i];
    }
    *out = r.all;
    AT_TRY(ahead ? op_scatter_begin(o, x->ring, send, recv) : op_scatter(o, x->ring, send, recv));
out:
    return st;
}

static at_status ring_packed(const op_ranks *x, const at_view *kv, at_tensor **out)
{
    at_status st = AT_OK;
    at_comm_part send[OPS_MAX_RANKS], recv[OPS_MAX_RANKS];
    size_t size = at_dtype_size(kv->dtype);
    int64_t row = op_token(x, x->own_heads, 2), before = 0;
    ring_parts r;

    AT_TRY(ring_room(x, kv->dtype, &r));
    for (int i = 0; i < x->ring->size; i++) {
        recv[i] = (at_comm_part){byte_at(r.all, before * row), (size_t)(r.tokens[i] * row) * size};
        before += r.tokens[i];
    }
    for (int i = 0; i < x->ring->size; i++)
        send[i] = recv[x->ring->rank];
    AT_TRY(op_pack(x, kv, 2, 0, x->own_heads, recv[x->ring->rank].data));
    AT_TRY(op_exchange(x->p->o, x->ring, send, recv));
    *out = r.all;
out:
    return st;
}

static at_status rings_in(const op_ranks *x, const void *q, at_view *k, at_view *v)
{
    at_status st = AT_OK;
    at_view kv[2] = {*k, *v};
    at_tensor *all = NULL;
    int64_t total = 0;

    for (int i = 0; i < x->ring->size * x->heads->size; i++)
        total += x->counts[i];
    if (x->p->o->ahead.arrived)
        AT_TRY(take_ahead(x, x->ring, q, &all));
    else if (x->ring->ops->scatter)
        AT_TRY(ring_in_place(x, kv, false, &all));
    else
        AT_TRY(ring_packed(x, kv, &all));
    *k = op_travelling(x, at_tensor_data(all), kv->dtype, total, x->own_heads, 0, 2);
    *v = op_travelling(x, at_tensor_data(all), kv->dtype, total, x->own_heads, 1, 2);
out:
    return st;
}

// Keys and values go round; the first hop may be under way.
static at_status around(const op_ranks *x, const void *q, const at_attention_args *a)
{
    at_status st = AT_OK;
    at_tensor *arrives = x->p->o->ahead.arrived;
    at_view kv[2] = {a->k, a->v};

    x->p->o->ahead.arrived = NULL;
    if (!arrives)
        AT_TRY(op_ring_begin(x, kv, &arrives));
    else if (x->p->o->ahead.q != q)
        AT_TRY(at_fail(AT_EINTERNAL, "another q is on its way than the one given"));
    AT_TRY(op_ring_attend(x, a, arrives));
out:
    return st;
}

at_status op_attention_ahead(const op_pass *p, const at_attention_args *a)
{
    at_status st = AT_OK;
    op_ranks x;
    const at_row_run none = {0};
    at_view qkv[PARTS] = {a->q, a->k, a->v};
    at_tensor **to = &p->o->ahead.arrived;

    AT_TRY(measure(&x, p, a, &none));
    p->o->ahead.q = a->q.data;
    if (x.heads->size > 1) {
        if (x.heads->ops->scatter_begin) AT_TRY(send_in_place(&x, qkv, true, to));
    } else if (x.ring->size > 1) {
        if (op_ring_hops(&x, a->k.dtype))
            AT_TRY(op_ring_begin(&x, qkv + 1, to));
        else if (x.ring->ops->scatter_begin)
            AT_TRY(ring_in_place(&x, qkv + 1, true, to));
    }
out:
    return st;
}

at_status op_attention_split(const op_pass *p, at_attention_args *a, const at_row_run *run)
{
    op_ranks x;
    at_status st = AT_OK;
    at_attention_args whole = *a;
    at_view qkv[PARTS] = {a->q, a->k, a->v};
    at_tensor *done = NULL;

    AT_TRY(op_has(p, p->o->be->copy != NULL));
    AT_TRY(measure(&x, p, a, run));
    bool in_place = x.heads->ops->scatter != NULL;
    if (x.heads->size > 1) {
        bool same = a->q.dtype == a->k.dtype && a->k.dtype == a->v.dtype;

        if (same && in_place)
            AT_TRY(heads_in_place(&x, qkv, qkv));
        else if (same)
            AT_TRY(heads_in(&x, qkv, PARTS, qkv));
        for (int i = 0; i < PARTS && !same; i++)
            AT_TRY(heads_in(&x, qkv + i, 1, qkv + i));
        AT_TRY(op_make(p->o, a->out.dtype, 1, (int64_t[]){x.all * op_token(&x, x.own_heads, 1)},
                       &done));
        whole.out = op_travelling(&x, at_tensor_data(done), done->dtype, x.all, x.own_heads, 0, 1);
    }
    bool hops = x.ring->size > 1 && op_ring_hops(&x, a->k.dtype);
    if (x.ring->size > 1 && !hops) AT_TRY(rings_in(&x, a->q.data, qkv + 1, qkv + 2));
    whole.q = qkv[0];
    whole.k = qkv[1];
    whole.v = qkv[2];
    AT_TRY(hops ? around(&x, a->q.data, &whole) : op_attention_slot(p, &whole));
    if (done) AT_TRY(in_place ? heads_out_place(&x, done, a->out) : heads_out(&x, done, a->out));
out:
    return st;
}
