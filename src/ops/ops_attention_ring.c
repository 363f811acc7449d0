// SPDX-License-Identifier: Apache-2.0
// ops_attention_ring.c - ring attention: keys and values go round while attention runs on those at hand.
// Idea (Liu et al. 2023, arXiv:2310.01889): at each step a rank hands the block that it has to the next one, attends
// its queries over that block meanwhile, and merges what it has with the new result by their rows' log-sum-exp
// (attention_merge): exact, and two blocks in memory instead of all of them. With two rings the one exchange hides
// behind the first half of the attention, and ranks wait for each other only where that half ends.
// Easy to get wrong: an exchange begins before the attention over the block that it sends and ends behind it, so a
// buffer is written to again only when the attention that read it stands before that in the stream. Every rank takes
// part in every hop, with or without tokens. Two results of 16 bits make one of 16 bits; of more, the sum so far is
// kept in f32.
// Owns: see ops.h. Buffers die with the door.
#include "ops/ops_ranks.h"

enum { KV = 2 };

// What all keys and values together may take before they go round; fp8 attention over halves loses more than it hides.
static const double gathered_bytes = 48.0 * 1024 * 1024, gathered_bytes_fp8 = 128.0 * 1024 * 1024;

bool op_ring_hops(const op_ranks *x, at_dtype dtype)
{
    const at_ops *o = x->p->o;
    double all = 0;

    if (!o->be->attention_merge || o->ring == OPS_RING_GATHERS) return false;
    if (o->ring == OPS_RING_HOPS) return true;
    for (int i = 0; i < x->ring->size; i++)
        all += (double)op_ring_tokens(x, i);
    return all * (double)op_token(x, x->own_heads, KV) * (double)at_dtype_size(dtype) >
           (o->fp8 ? gathered_bytes_fp8 : gathered_bytes);
}

static at_status new_block(const op_ranks *x, at_dtype dtype, at_tensor **out)
{
    int64_t most = 0;

    for (int i = 0; i < x->ring->size; i++)
        if (op_ring_tokens(x, i) > most) most = op_ring_tokens(x, i);
    return op_make(x->p->o, dtype, 1, (int64_t[]){most * op_token(x, x->own_heads, KV)}, out);
}

// The ring whose keys this rank has at step `step`.
static int source(const op_ranks *x, int step)
{
    return (x->ring->rank - step + x->ring->size) % x->ring->size;
}

// Hop `step`: what is at hand goes to the next ring, `to` takes what is at hand in the next step.
static at_status hop(const op_ranks *x, int step, at_view from, at_tensor *to, bool begin)
{
    at_ops *o = x->p->o;
    at_comm *c = x->ring;
    int n = c->size, next = (c->rank + 1) % n, last = (c->rank + n - 1) % n;
    at_view send[OPS_MAX_RANKS] = {0}, recv[OPS_MAX_RANKS] = {0};
    at_comm_part bytes_out[OPS_MAX_RANKS] = {0}, bytes_in[OPS_MAX_RANKS] = {0};

    send[next] = from;
    recv[last] = op_together_there(x, at_tensor_data(to), to->dtype,
                                   op_ring_tokens(x, source(x, step + 1)), x->own_heads, KV);
    if (begin) return op_scatter_begin(o, c, send, recv);
    if (c->ops->scatter) return op_scatter(o, c, send, recv);
    bytes_out[next] =
        (at_comm_part){from.data, (size_t)at_view_count(&from) * at_dtype_size(from.dtype)};
    bytes_in[last] = (at_comm_part){recv[last].data,
                                    (size_t)at_view_count(&recv[last]) * at_dtype_size(to->dtype)};
    return op_exchange(o, c, bytes_out, bytes_in);
}

at_status op_ring_begin(const op_ranks *x, const at_view *kv, at_tensor **arrives)
{
    at_status st = AT_OK;
    at_tensor *packed = NULL;
    at_view from;

    AT_TRY(new_block(x, kv->dtype, arrives));
    if (x->ring->ops->scatter && op_evenly_apart(kv, KV)) {
        from = op_together(kv, KV, 0, x->own_heads);
    } else {
        AT_TRY(new_block(x, kv->dtype, &packed));
        AT_TRY(op_pack(x, kv, KV, 0, x->own_heads, at_tensor_data(packed)));
        from =
            op_together_there(x, at_tensor_data(packed), kv->dtype, kv->shape[1], x->own_heads, KV);
    }
    AT_TRY(hop(x, 0, from, *arrives, x->ring->ops->scatter_begin != NULL));
out:
    return st;
}

// --- results so far ------------------------------------------------------------------------------
typedef struct sums {
    at_view all, all_lse;   // over the blocks so far
    at_view part, part_lse; // over the one at hand
    at_view out;
} sums;

static at_status new_view(const op_ranks *x, at_dtype dtype, int rank, const int64_t *shape,
                          at_view *out)
{
    at_status st = AT_OK;
    at_tensor *t = NULL;

    AT_TRY(op_make(x->p->o, dtype, rank, shape, &t));
    *out = at_tensor_as_view(t);
out:
    return st;
}

static at_status make_sums(const op_ranks *x, const at_attention_args *a, sums *s)
{
    at_status st = AT_OK;
    const int64_t *q = a->q.shape, lse[] = {q[0], q[2], q[1]};
    bool direct = x->ring->size == 2 || a->out.dtype == AT_F32;

    s->out = s->all = a->out;
    if (!direct) AT_TRY(new_view(x, AT_F32, 4, q, &s->all));
    AT_TRY(new_view(x, a->out.dtype, 4, q, &s->part));
    AT_TRY(new_view(x, AT_F32, 3, lse, &s->all_lse));
    AT_TRY(new_view(x, AT_F32, 3, lse, &s->part_lse));
out:
    return st;
}

// The first block's result stands in s->out, every other one in s->part.
static at_status add_part(const op_ranks *x, const sums *s, int step)
{
    at_ops *o = x->p->o;
    bool last = step == x->ring->size - 1;
    at_attention_merge_args m = {.a = step == 1 ? s->out : s->all,
                                 .a_lse = s->all_lse,
                                 .b = s->part,
                                 .b_lse = s->part_lse,
                                 .out = last ? s->out : s->all,
                                 .out_lse = s->all_lse};

    if (last) m.out_lse.data = NULL;
    if (at_view_count(&s->out) == 0) return AT_OK;
    return o->be->attention_merge(o->dev->stream, &m);
}

static at_status attend_part(const op_ranks *x, const at_attention_args *a, const sums *s, int step)
{
    at_attention_args one = *a;

    if (step) one.out = s->part;
    one.lse = step ? s->part_lse : s->all_lse;
    return op_attention_slot(x->p, &one);
}

// The first block aside, where there is such a thing: the second one's work fills what its last wave leaves empty, from
// the moment on at which the second one's keys are there.
static at_status attend_first(const op_ranks *x, const at_attention_args *a, const sums *s,
                              bool *aside)
{
    at_ops *o = x->p->o;

    *aside = at_aside_begin(o, AT_BESIDE_KEYS);
    at_status st = o->st == AT_OK ? attend_part(x, a, s, 0) : at_ops_status(o);
    at_aside_end(o, *aside);
    return st == AT_OK ? at_ops_status(o) : st;
}

// Step `step`'s block, and the sum of all so far.
static at_status attend_next(const op_ranks *x, const at_attention_args *a, const sums *s, int step,
                             bool *aside)
{
    at_status st = attend_part(x, a, s, step);

    at_aside_join(x->p->o, *aside);
    *aside = false;
    if (st == AT_OK) st = at_ops_status(x->p->o);
    return st == AT_OK ? add_part(x, s, step) : st;
}

at_status op_ring_attend(const op_ranks *x, const at_attention_args *a, at_tensor *arrives)
{
    at_status st = AT_OK;
    int n = x->ring->size;
    bool beside = x->ring->ops->scatter_begin != NULL, aside = false;
    at_tensor *block[2] = {arrives, NULL}; // what comes in step s lies in block[s % 2]
    at_attention_args one = *a;
    sums s;

    AT_TRY(make_sums(x, a, &s));
    if (n > 2) AT_TRY(new_block(x, a->k.dtype, &block[1]));
    for (int step = 0; step < n; step++) {
        if (!step) {
            AT_TRY(attend_first(x, &one, &s, &aside));
        } else {
            AT_TRY(attend_next(x, &one, &s, step, &aside));
        }
        if (step == n - 1) break;
        if (beside) AT_TRY(op_scatter_end(x->p->o, x->ring));
        void *data = at_tensor_data(block[step % 2]);
        int64_t t = op_ring_tokens(x, source(x, step + 1));
        one.k = op_travelling(x, data, a->k.dtype, t, x->own_heads, 0, KV);
        one.v = op_travelling(x, data, a->k.dtype, t, x->own_heads, 1, KV);
        if (step + 1 < n - 1)
            AT_TRY(hop(x, step + 1, op_together_there(x, data, a->k.dtype, t, x->own_heads, KV),
                       block[(step + 1) % 2], beside));
    }
out:
    at_aside_join(x->p->o, aside);
    return st;
}
