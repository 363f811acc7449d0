// SPDX-License-Identifier: Apache-2.0
// comm_traced.c - see comm_traced.h.
// Easy to get wrong: all ranks meet or none, so whether they do depends on how the comm was made, not on whether a
// trace goes on at this moment. Words between steps are
// no exchanges and pass through; a vote is all waiting.
#include "par/comm_traced.h"

#include "base/mem.h"
#include "base/trace.h"
#include "tensor/dtype.h"

typedef struct traced_comm {
    at_comm base;
    at_comm *to;
    at_comm_ops ops; // with the slots that the carrier has
} traced_comm;

static at_comm *to(at_comm *c)
{
    return ((traced_comm *)c)->to;
}

// Everybody is here: what this rank did until then was waiting. Fails as an exchange does.
static at_status meet(at_comm *c)
{
    char mine = 0, all[AT_COMM_RANKS];
    double began = at_trace_begin();
    at_status st = to(c)->ops->tell(to(c), &mine, all, 1);

    at_trace_end(began, "wait", "wait for %d ranks", c->size);
    return st;
}

static void sent(double began, const char *what, double bytes)
{
    at_trace_end_bytes(began, "send", bytes, "%s", what);
}

static double view_bytes(const at_view *v)
{
    double n = v->data ? (double)at_dtype_size(v->dtype) : 0;

    for (int i = 0; i < v->rank; i++)
        n *= (double)v->shape[i];
    return n;
}

// What goes to others, not to itself.
static double views_bytes(const at_comm *c, const at_view *send)
{
    double sum = 0;

    for (int i = 0; i < c->size; i++)
        sum += i == c->rank ? 0 : view_bytes(&send[i]);
    return sum;
}

static at_status traced_all_gather(at_comm *c, const void *send, void *recv, size_t bytes)
{
    at_status st = AT_OK;

    AT_TRY(meet(c));
    double began = at_trace_begin();
    st = to(c)->ops->all_gather(to(c), send, recv, bytes);
    sent(began, "gather", (double)bytes * (c->size - 1));
out:
    return st;
}

static at_status traced_all_to_all(at_comm *c, const void *send, void *recv, size_t bytes)
{
    at_status st = AT_OK;

    AT_TRY(meet(c));
    double began = at_trace_begin();
    st = to(c)->ops->all_to_all(to(c), send, recv, bytes);
    sent(began, "all to all", (double)bytes * (c->size - 1));
out:
    return st;
}

static at_status traced_exchange(at_comm *c, const at_comm_part *send, const at_comm_part *recv)
{
    at_status st = AT_OK;
    double bytes = 0;

    for (int i = 0; i < c->size; i++)
        bytes += i == c->rank ? 0 : (double)send[i].bytes;
    AT_TRY(meet(c));
    double began = at_trace_begin();
    st = to(c)->ops->exchange(to(c), send, recv);
    sent(began, "exchange", bytes);
out:
    return st;
}

static at_status scatter_by(at_comm *c, const at_view *send, const at_view *recv,
                            at_status (*how)(at_comm *c, const at_view *send, const at_view *recv))
{
    at_status st = AT_OK;

    AT_TRY(meet(c));
    double began = at_trace_begin();
    st = how(to(c), send, recv);
    sent(began, "scatter", views_bytes(c, send));
out:
    return st;
}

static at_status traced_scatter(at_comm *c, const at_view *send, const at_view *recv)
{
    return scatter_by(c, send, recv, to(c)->ops->scatter);
}

static at_status traced_scatter_begin(at_comm *c, const at_view *send, const at_view *recv)
{
    return scatter_by(c, send, recv, to(c)->ops->scatter_begin);
}

static at_status traced_scatter_end(at_comm *c)
{
    return to(c)->ops->scatter_end(to(c));
}

static at_status traced_all_reduce_sum(at_comm *c, float *inout, size_t count)
{
    at_status st = AT_OK;

    AT_TRY(meet(c));
    double began = at_trace_begin();
    st = to(c)->ops->all_reduce_sum(to(c), inout, count);
    sent(began, "sum", 2.0 * (c->size - 1) / c->size * (double)count * sizeof *inout);
out:
    return st;
}

static at_status traced_sum(at_comm *c, at_dtype dtype, void *inout, size_t count)
{
    at_status st = AT_OK;

    AT_TRY(meet(c));
    double began = at_trace_begin();
    st = to(c)->ops->sum(to(c), dtype, inout, count);
    sent(began, "sum",
         2.0 * (c->size - 1) / c->size * (double)count * (double)at_dtype_size(dtype));
out:
    return st;
}

static at_status traced_spent(at_comm *c, at_wire_spent *out)
{
    return to(c)->ops->spent(to(c), out);
}

static at_status traced_vote(at_comm *c, int mine, int *result)
{
    double began = at_trace_begin();
    at_status st = to(c)->ops->vote(to(c), mine, result);

    at_trace_end(began, "wait", "vote");
    return st;
}

static at_status traced_tell(at_comm *c, const void *send, void *recv, size_t bytes)
{
    return to(c)->ops->tell(to(c), send, recv, bytes);
}

static at_status traced_split(at_comm *c, int colour, at_comm **out)
{
    at_status st = to(c)->ops->split(to(c), colour, out);

    if (st != AT_OK || *out == at_comm_self()) return st;
    st = at_comm_traced(out);
    if (st == AT_OK) return st;
    to(c)->ops->abort(to(c), (int)st); // the others have theirs, and would meet in them
    at_comm_free(*out);
    *out = NULL;
    return st;
}

static void traced_abort(at_comm *c, int code)
{
    to(c)->ops->abort(to(c), code);
}

static void traced_watch(at_comm *c, void (*fn)(void *ctx), void *ctx, bool on)
{
    to(c)->ops->watch(to(c), fn, ctx, on);
}

static void traced_free(at_comm *c)
{
    at_comm_free(to(c));
    at_free(c);
}

at_status at_comm_traced(at_comm **c)
{
    at_comm *inner = *c;
    const at_comm_ops *has = inner->ops;
    traced_comm *t;

    if (inner->on_device || inner->size < 2) return AT_OK;
    t = at_calloc(1, sizeof *t);
    if (!t) return at_fail(AT_ENOMEM, "no memory to trace exchanges");
    t->to = inner;
    t->base = (at_comm){.ops = &t->ops, .rank = inner->rank, .size = inner->size};
    t->ops = (at_comm_ops){
        .all_gather = traced_all_gather,
        .all_to_all = traced_all_to_all,
        .exchange = traced_exchange,
        .scatter = has->scatter ? traced_scatter : NULL,
        .scatter_begin = has->scatter_begin ? traced_scatter_begin : NULL,
        .scatter_end = has->scatter_end ? traced_scatter_end : NULL,
        .all_reduce_sum = traced_all_reduce_sum,
        .sum = has->sum ? traced_sum : NULL,
        .spent = has->spent ? traced_spent : NULL,
        .vote = traced_vote,
        .tell = traced_tell,
        .split = traced_split,
        .abort = traced_abort,
        .watch = has->watch ? traced_watch : NULL,
        .free = traced_free,
    };
    *c = &t->base;
    return AT_OK;
}
