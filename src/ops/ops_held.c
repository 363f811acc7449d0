// SPDX-License-Identifier: Apache-2.0
// ops_held.c - keys and values that outlive a forward, and attention over those of the one before.
// Idea: from step to step a picture changes little. Behind a few exact evaluations a rank reads the other ranks' keys
// and values as they were one evaluation ago, while its own travel to them beside the layers that follow: stale keys
// and values (DistriFusion, arXiv:2402.19481). Where the blocks, not the tokens, are shared out, pieces of the picture
// go through them one behind the other, and each reads the others' keys and values as its rank last saw them
// (PipeFusion, arXiv:2405.14430): models/pipe.c. Both are one buffer for each attention of a forward: all tokens' keys
// and values, of which the fresh ones have been written over.
// Easy to get wrong:
//   - the others write into this rank's buffer: a send is begun behind the attention that reads the old contents, and
//     ends before the next exchange of any kind (op_held_settle), at the latest with the tokens' gather
//   - a forward's attentions are told apart by their order: who leaves some out (patches) must work exactly
//   - ranks must agree on `displaced`; whether one has a buffer at all is its own matter while all work exactly
// Owns: an at_held is its maker's (models/session.c); the op context borrows it.
#include "ops/ops_private.h"

#include "base/mem.h"

enum { PARTS = 2, MOST_HELD = 512 }; // k and v; attentions of a forward

struct at_held {
    int n;
    at_tensor *kv[MOST_HELD]; // [t][b][k, v][heads][d], flat
};

at_held *at_held_new(void)
{
    return at_calloc(1, sizeof(at_held));
}

void at_held_free(at_held *h)
{
    if (!h) return;
    for (int i = 0; i < h->n; i++)
        at_tensor_release(&h->kv[i]);
    at_free(h);
}

void at_ops_hold(at_ops *o, at_held *h, bool displaced)
{
    if (o->st != AT_OK) o->held.pending = NULL; // nobody meets any more
    o->held.h = h;
    o->held.displaced = h && displaced;
    o->held.next = 0;
    o->held.first = o->held.total = 0;
}

bool at_ops_displaced(const at_ops *o)
{
    return o->held.displaced;
}

void at_ops_hold_first(at_ops *o)
{
    o->held.next = 0;
}

void at_ops_hold_part(at_ops *o, int64_t first, int64_t total)
{
    o->held.next = 0;
    o->held.first = first;
    o->held.total = o->held.h ? total : 0;
}

int at_ops_held_place(at_ops *o, uint64_t name)
{
    for (int i = 0; i < o->held.n_places; i++)
        if (o->held.places[i] == name) return i;
    if (o->held.n_places == OPS_HELD_PLACES) return -1;
    o->held.places[o->held.n_places] = name;
    return o->held.n_places++;
}

at_status op_held_settle(at_ops *o)
{
    at_comm *c = o->held.pending;

    o->held.pending = NULL;
    return c ? op_scatter_end(o, c) : AT_OK;
}

// --- buffers -----------------------------------------------------------------------------------
typedef struct keys {
    int64_t b, t, h, d; // of k and v; t: all tokens
    at_tensor *all;
} keys;

static int64_t token(const keys *x)
{
    return x->b * PARTS * x->h * x->d;
}

static char *place(const keys *x, int64_t at)
{
    return (char *)at_tensor_data(x->all) + (size_t)(at * token(x)) * at_dtype_size(x->all->dtype);
}

// Tokens [at, at + n) of k (part 0) or v (part 1), [b, n, h, d].
static at_view part_of(const keys *x, int64_t at, int64_t n, int part)
{
    int64_t row = PARTS * x->h * x->d;

    return (at_view){.data =
                         place(x, at) + (size_t)(part * x->h * x->d) * at_dtype_size(x->all->dtype),
                     .dtype = x->all->dtype,
                     .rank = 4,
                     .shape = {x->b, n, x->h, x->d},
                     .stride = {row, x->b * row, x->d, 1}};
}

static at_status room(at_ops *o, const keys *x, at_dtype dtype, at_tensor **out)
{
    return op_make(o, dtype, 1, (int64_t[]){x->t * token(x)}, out);
}

// The buffer of this attention: kept, or with nobody to keep it the scope's.
static at_status buffer(at_ops *o, keys *x, at_dtype dtype)
{
    at_status st = AT_OK;
    at_held *h = o->held.h;
    int i = o->held.next++;
    bool known;

    if (!h || i >= MOST_HELD) {
        if (o->held.displaced || o->held.total)
            return at_fail(AT_EUNSUPPORTED, "more than %d attentions in a forward", MOST_HELD);
        return room(o, x, dtype, &x->all);
    }
    known = i < h->n && h->kv[i]->dtype == dtype && at_tensor_count(h->kv[i]) == x->t * token(x);
    if (!known && (o->held.displaced || i > h->n))
        return at_fail(AT_EINTERNAL, "attention %d has no keys and values of the forward before",
                       i);
    if (!known) {
        AT_TRY(room(o, x, dtype, &x->all));
        if (i == h->n)
            h->n++;
        else
            at_tensor_release(&h->kv[i]);
        h->kv[i] = at_ops_keep(o, x->all);
    }
    x->all = h->kv[i];
out:
    return st;
}

static at_status begin(const op_pass *p, const at_attention_args *a, int64_t tokens, keys *x)
{
    if (a->causal || a->bias.data)
        return at_fail(AT_EUNSUPPORTED, "kept keys and values with a mask");
    if (a->k.dtype != a->v.dtype)
        return at_fail(AT_EUNSUPPORTED, "kept keys and values of two dtypes");
    *x = (keys){.b = a->k.shape[0], .t = tokens, .h = a->k.shape[2], .d = a->k.shape[3]};
    return buffer(p->o, x, a->k.dtype);
}

// The fresh ones over those of their tokens.
static at_status put(const op_pass *p, const keys *x, const at_attention_args *a, int64_t first)
{
    at_status st = op_has(p, p->o->be->copy != NULL);
    const at_view *fresh[] = {&a->k, &a->v};
    int64_t n = a->k.shape[1];

    for (int i = 0; i < PARTS && st == AT_OK && at_view_count(&a->k); i++) {
        at_view to = part_of(x, first, n, i);
        st = p->o->be->copy(p->o->dev->stream, fresh[i], &to);
    }
    return st;
}

static at_status attend(const op_pass *p, const keys *x, const at_attention_args *a)
{
    at_attention_args whole = *a;

    whole.k = part_of(x, 0, x->t, 0);
    whole.v = part_of(x, 0, x->t, 1);
    return op_attention_slot(p, &whole);
}

// --- tokens or rows that are shared ------------------------------------------------------------
// Own keys and values into the others' buffers, and theirs into this one.
static at_status swap(at_ops *o, at_comm *c, const keys *x, const int64_t *counts)
{
    at_status st = AT_OK;
    at_comm_part send[OPS_MAX_RANKS], recv[OPS_MAX_RANKS];
    size_t size = at_dtype_size(x->all->dtype);
    int64_t at = 0;

    for (int i = 0; i < c->size; at += counts[i++])
        recv[i] = (at_comm_part){place(x, at), (size_t)(counts[i] * token(x)) * size};
    for (int i = 0; i < c->size; i++)
        send[i] = recv[c->rank];
    AT_TRY(op_exchange(o, c, send, recv));
out:
    return st;
}

// The same, beside what is queued from now on.
static at_status swap_beside(at_ops *o, at_comm *c, const keys *x, const int64_t *counts)
{
    at_status st = AT_OK;
    at_view send[OPS_MAX_RANKS], recv[OPS_MAX_RANKS];
    int64_t at = 0;

    for (int i = 0; i < c->size; at += counts[i++])
        recv[i] = (at_view){.data = place(x, at),
                            .dtype = x->all->dtype,
                            .rank = 1,
                            .shape = {counts[i] * token(x)},
                            .stride = {1}};
    for (int i = 0; i < c->size; i++)
        send[i] = recv[c->rank];
    send[c->rank].data = recv[c->rank].data = NULL; // it is there
    AT_TRY(op_scatter_begin(o, c, send, recv));
    o->held.pending = c;
out:
    return st;
}

at_status op_attention_stale(const op_pass *p, at_attention_args *a, const at_row_run *run)
{
    at_status st = AT_OK;
    at_ops *o = p->o;
    at_comm *c = o->mesh.axis[run->rows ? AT_AXIS_PATCH : AT_AXIS_RING];
    int64_t counts[OPS_MAX_RANKS], first = 0, all = 0;
    bool displaced = o->held.displaced;
    keys x;

    if (run->rows)
        op_row_counts(o, run, counts);
    else
        op_split_counts(o, counts);
    for (int i = 0; i < c->size; i++) {
        if (i < c->rank) first += counts[i];
        all += counts[i];
    }
    if (a->q.shape[1] != counts[c->rank] || a->k.shape[1] != counts[c->rank])
        return at_fail(AT_EINTERNAL,
                       "q has %lld and k %lld tokens, and rank %d's sequence has %lld",
                       (long long)a->q.shape[1], (long long)a->k.shape[1], c->rank,
                       (long long)counts[c->rank]);
    AT_TRY(begin(p, a, all, &x));
    AT_TRY(put(p, &x, a, first));
    if (!displaced) AT_TRY(swap(o, c, &x, counts));
    AT_TRY(attend(p, &x, a));
    if (displaced)
        AT_TRY(c->ops->scatter_begin ? swap_beside(o, c, &x, counts) : swap(o, c, &x, counts));
out:
    return st;
}

// --- parts of a sequence in a pipe of blocks ---------------------------------------------------
at_status op_attention_part(const op_pass *p, at_attention_args *a)
{
    at_status st = AT_OK;
    const at_ops *o = p->o;
    keys x;

    if (o->held.first + a->k.shape[1] > o->held.total)
        return at_fail(AT_EINTERNAL, "%lld tokens from %lld on are more than %lld",
                       (long long)a->k.shape[1], (long long)o->held.first,
                       (long long)o->held.total);
    AT_TRY(begin(p, a, o->held.total, &x));
    AT_TRY(put(p, &x, a, o->held.first));
    AT_TRY(attend(p, &x, a));
out:
    return st;
}

void at_ops_own_blocks(const at_ops *o, int blocks, int *first, int *n)
{
    const at_comm *c = o->mesh.axis[AT_AXIS_PIPE];
    int64_t from, length;

    op_share(blocks, c->rank, c->size, &from, &length);
    *first = (int)from;
    *n = (int)length;
}

static at_comm_part bytes_of(at_tensor *t)
{
    return t ? (at_comm_part){at_tensor_data(t), at_tensor_bytes(t)} : (at_comm_part){0};
}

// A tensor as it travels: itself, or one of its bytes behind each other.
static at_status dense(const op_pass *p, at_tensor *t, at_tensor **out)
{
    *out = t;
    if (!t || at_tensor_contiguous(t)) return AT_OK;
    return op_make(p->o, t->dtype, t->rank, t->shape, out);
}

static at_status copy(const op_pass *p, at_tensor *from, at_tensor *to)
{
    at_view a, b;

    if (!from || from == to || at_tensor_count(from) == 0) return AT_OK;
    a = at_tensor_as_view(from);
    b = at_tensor_as_view(to);
    return p->o->be->copy(p->o->dev->stream, &a, &b);
}

void at_pass_on(at_ops *o, at_tensor *give, at_tensor *take)
{
    at_status st = AT_OK;
    at_comm *c = o->mesh.axis[AT_AXIS_PIPE];
    at_comm_part send[OPS_MAX_RANKS] = {0}, recv[OPS_MAX_RANKS] = {0};
    at_tensor *from, *to;
    op_pass p;

    if (!op_enter(&p, o, "pass_on", &o->stats.seconds_other)) return;
    at_scope_begin(o);
    AT_TRY(op_has(&p, o->be->copy != NULL));
    AT_TRY(dense(&p, give, &from));
    AT_TRY(dense(&p, take, &to));
    AT_TRY(copy(&p, give, from));
    if (c->rank + 1 < c->size) send[c->rank + 1] = bytes_of(from);
    if (c->rank > 0) recv[c->rank - 1] = bytes_of(to);
    AT_TRY(op_exchange(o, c, send, recv));
    AT_TRY(copy(&p, to, take));
out:
    at_scope_end(o, NULL);
    (void)op_leave(&p, st, NULL);
}

void at_from_last(at_ops *o, at_tensor *x)
{
    at_status st = AT_OK;
    at_comm *c = o->mesh.axis[AT_AXIS_PIPE];
    at_comm_part send[OPS_MAX_RANKS] = {0}, recv[OPS_MAX_RANKS] = {0};
    int last = c->size - 1;
    op_pass p;

    if (!op_enter(&p, o, "from_last", &o->stats.seconds_other)) return;
    AT_TRY(op_takes(&p, "x", x));
    if (!at_tensor_contiguous(x)) AT_TRY(at_fail(AT_EINTERNAL, "x has gaps"));
    for (int i = 0; i < last && c->rank == last; i++)
        send[i] = bytes_of(x);
    if (c->rank != last) recv[last] = bytes_of(x);
    if (c->size > 1) AT_TRY(op_exchange(o, c, send, recv));
out:
    (void)op_leave(&p, st, NULL);
}
