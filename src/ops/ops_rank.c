// SPDX-License-Identifier: Apache-2.0
// ops_rank.c - several ranks on one picture: tokens shared out and gathered, failures voted.
// Idea: rank r of n holds a run of tokens, its share (par/shares.h). Between the
// first split and the next gather attention exchanges heads for tokens (ops_attention.c). Every rank knows every
// other's share without asking, so that a forward is a fixed sequence of work and exchanges, which a device can
// record. Owns: see ops.h.
#include "ops/ops_private.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

void op_share(int64_t total, int rank, int size, int64_t *first, int64_t *length)
{
    static const int equal[1];

    at_share_of(equal, total, rank, size, first, length);
}

static void token_share(const at_ops *o, int64_t total, int rank, int64_t *first, int64_t *length)
{
    at_share_of(o->mesh.token_share, total, rank, o->mesh.tokens->size, first, length);
}

// What the carrier reads must be there: one that works on the device's stream waits in it.
static at_status ready(at_ops *o, const at_comm *c)
{
    at_status st = op_held_settle(o);

    return st != AT_OK || c->on_device ? st : o->dev->ops->synchronize(o->dev);
}

static at_status heard(at_ops *o, at_status st)
{
    if (st != AT_OK) o->told = true;
    return st;
}

at_status op_all_gather(at_ops *o, at_comm *c, const void *send, void *recv, size_t bytes)
{
    at_status st = ready(o, c);
    return st == AT_OK ? heard(o, c->ops->all_gather(c, send, recv, bytes)) : st;
}

at_status op_exchange(at_ops *o, at_comm *c, const at_comm_part *send, const at_comm_part *recv)
{
    at_status st = ready(o, c);
    return st == AT_OK ? heard(o, c->ops->exchange(c, send, recv)) : st;
}

at_status op_scatter(at_ops *o, at_comm *c, const at_view *send, const at_view *recv)
{
    at_status st = ready(o, c);
    return st == AT_OK ? heard(o, c->ops->scatter(c, send, recv)) : st;
}

at_status op_scatter_begin(at_ops *o, at_comm *c, const at_view *send, const at_view *recv)
{
    at_status st = ready(o, c);
    return st == AT_OK ? heard(o, c->ops->scatter_begin(c, send, recv)) : st;
}

at_status op_scatter_end(at_ops *o, at_comm *c)
{
    return heard(o, c->ops->scatter_end(c));
}

at_status op_sum(at_ops *o, at_comm *c, float *inout, size_t count)
{
    at_status st = ready(o, c);
    return st == AT_OK ? heard(o, c->ops->all_reduce_sum(c, inout, count)) : st;
}

at_status op_sum_of(at_ops *o, at_comm *c, at_dtype dtype, void *inout, size_t count)
{
    at_status st = ready(o, c);
    return st == AT_OK ? heard(o, c->ops->sum(c, dtype, inout, count)) : st;
}

int at_ops_token_ranks(const at_ops *o)
{
    return o->mesh.tokens->size;
}

const at_mesh *at_ops_mesh(const at_ops *o)
{
    return &o->mesh;
}

void op_split_counts(const at_ops *o, int64_t *counts)
{
    int n = o->mesh.tokens->size;

    for (int i = 0; i < n; i++) {
        int64_t first, length;

        counts[i] = 0;
        for (int k = 0; k < o->split.n; k++) {
            token_share(o, o->split.total[k], i, &first, &length);
            counts[i] += length;
        }
    }
}

static at_tensor *share(at_ops *o, const char *door, const at_tensor *x, bool sequence)
{
    at_status st = AT_OK;
    at_comm *c = o->mesh.tokens;
    int64_t first, length;
    at_tensor *out = NULL;
    char text[128];
    op_pass p;

    if (!op_enter(&p, o, door, &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    if (x->rank < 2) {
        AT_TRY(at_fail(AT_EINVAL, "x %s has no token dimension",
                       at_shape_text(x->dtype, x->rank, x->shape, text)));
    }
    if (c->size == 1) {
        out = (at_tensor *)(uintptr_t)x;
        goto out;
    }
    if (c->size > OPS_MAX_RANKS)
        AT_TRY(at_fail(AT_EUNSUPPORTED, "%d ranks; %d are the most", c->size, OPS_MAX_RANKS));
    if (sequence && !o->split.open) o->split.n = 0;
    if (sequence && o->split.n == OPS_MAX_RUNS)
        AT_TRY(at_fail(AT_EINTERNAL, "more than %d runs of tokens in one sequence", OPS_MAX_RUNS));
    if (sequence) {
        o->split.open = true;
        o->split.total[o->split.n++] = x->shape[1];
    }
    token_share(o, x->shape[1], c->rank, &first, &length);
    AT_TRY(at_tensor_narrow(x, 1, first, length, &out));
    AT_TRY(op_own(o, out));
out:
    return op_leave(&p, st, out);
}

at_tensor *at_split_tokens(at_ops *o, const at_tensor *x)
{
    return share(o, "split_tokens", x, true);
}

at_tensor *at_share_tokens(at_ops *o, const at_tensor *x)
{
    return share(o, "share_tokens", x, false);
}

// Every rank's share to every rank: of one picture straight to its place, of several through blocks.
static at_status gather(const op_pass *p, const at_tensor *x, int64_t total, at_tensor *out)
{
    at_ops *o = p->o;
    at_comm *c = o->mesh.tokens;
    at_status st = AT_OK;
    at_comm_part send[OPS_MAX_RANKS], recv[OPS_MAX_RANKS];
    at_tensor *mine = (at_tensor *)(uintptr_t)x, *all = out;
    size_t row = at_tensor_bytes(out) / (size_t)total; // of one token of all pictures
    at_view from, to;

    AT_TRY(op_has(p, o->be->copy != NULL));
    if (!at_tensor_contiguous(x)) {
        AT_TRY(op_make(o, x->dtype, x->rank, x->shape, &mine));
        from = at_tensor_as_view(x);
        to = at_tensor_as_view(mine);
        if (at_view_count(&from)) AT_TRY(o->be->copy(o->dev->stream, &from, &to));
    }
    if (x->shape[0] != 1) AT_TRY(op_make(o, x->dtype, out->rank, out->shape, &all));
    for (int i = 0; i < c->size; i++) {
        int64_t first, length;

        token_share(o, total, i, &first, &length);
        send[i] = (at_comm_part){at_tensor_data(mine), at_tensor_bytes(mine)};
        recv[i] =
            (at_comm_part){(char *)at_tensor_data(all) + (size_t)first * row, (size_t)length * row};
    }
    AT_TRY(op_exchange(o, c, send, recv));
    for (int i = 0; i < c->size && all != out; i++) {
        int64_t first, length;

        token_share(o, total, i, &first, &length);
        if (!length) continue;
        to = op_part(at_tensor_as_view(out), 1, first, length);
        from = to; // a block is as dense as a share
        from.data = recv[i].data;
        int64_t dense = 1;
        for (int k = from.rank - 1; k >= 0; k--) {
            from.stride[k] = dense;
            dense *= from.shape[k];
        }
        AT_TRY(o->be->copy(o->dev->stream, &from, &to));
    }
out:
    return st;
}

at_tensor *at_gather_tokens(at_ops *o, const at_tensor *x, int64_t total)
{
    at_status st = AT_OK;
    at_comm *c = o->mesh.tokens;
    at_tensor *out = NULL;
    int64_t shape[AT_MAX_RANK], first, length;
    char text[128];
    op_pass p;

    o->split.open = false;
    if (!op_enter(&p, o, "gather_tokens", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    token_share(o, total, c->rank, &first, &length);
    if (x->rank < 2 || total < 0 || x->shape[1] != length) {
        AT_TRY(at_fail(AT_EINVAL, "x %s is not rank %d's share (%lld) of %lld tokens",
                       at_shape_text(x->dtype, x->rank, x->shape, text), c->rank, (long long)length,
                       (long long)total));
    }
    if (c->size == 1) {
        out = (at_tensor *)(uintptr_t)x;
        goto out;
    }
    memcpy(shape, x->shape, sizeof shape);
    shape[1] = total;
    AT_TRY(op_make(o, x->dtype, x->rank, shape, &out));
    at_scope_begin(o);
    if (at_tensor_count(out) > 0) st = gather(&p, x, total, out);
    at_scope_end(o, NULL);
out:
    return op_leave(&p, st, out);
}

void at_end_tokens(at_ops *o)
{
    o->split.open = false;
}

at_tensor *at_gather_runs(at_ops *o, at_axis axis, at_tensor *buffer, const int64_t *lengths)
{
    at_status st = AT_OK;
    at_comm *c = o->mesh.axis[axis];
    at_comm_part send[OPS_MAX_RANKS], recv[OPS_MAX_RANKS];
    int64_t at = 0;
    op_pass p;

    if (!op_enter(&p, o, "gather_runs", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "buffer", buffer));
    if (c->size == 1) goto out;
    for (int i = 0; i < c->size && c->size <= OPS_MAX_RANKS; i++) {
        recv[i] = (at_comm_part){(char *)at_tensor_data(buffer) +
                                     (size_t)at * at_dtype_size(buffer->dtype),
                                 (size_t)lengths[i] * at_dtype_size(buffer->dtype)};
        at += lengths[i];
    }
    if (c->size > OPS_MAX_RANKS || buffer->rank != 1 || !at_tensor_contiguous(buffer) ||
        at != buffer->shape[0])
        AT_TRY(at_fail(AT_EINVAL, "%lld elements in the runs of %d ranks do not fill the buffer",
                       (long long)at, c->size));
    for (int i = 0; i < c->size; i++)
        send[i] = recv[c->rank];
    AT_TRY(op_exchange(o, c, send, recv));
out:
    return op_leave(&p, st, buffer);
}

// What a rank brings to a failed vote, so that all can say why.
typedef struct ballot {
    int code;
    int told;
    char text[OPS_ERROR_BYTES];
} ballot;

// The failure of this rank becomes `st` with words of another rank, or none.
static void take_reason(at_ops *o, at_status st, int rank, const char *text)
{
    o->st = st;
    o->told = true;
    if (text) {
        snprintf(o->error, sizeof o->error, "rank %d: %.1000s", rank, text);
    } else {
        snprintf(o->error, sizeof o->error, "another rank failed: %s", at_status_facts(st)->name);
    }
}

// All ranks know that the vote failed: exchange the words. A rank without a failure of its own takes
// those of the first rank that brought the winning code by itself. Without the memory for that the code
// alone must do.
static void learn_reason(at_ops *o, at_status result)
{
    at_comm *c = o->comm;
    ballot mine = {.code = (int)o->st, .told = o->told};
    ballot *all = at_calloc((size_t)c->size, sizeof *all);
    int deaf = all == NULL, anybody_deaf = 0;
    bool own = o->st != AT_OK && !o->told;

    snprintf(mine.text, sizeof mine.text, "%s", o->error);
    if (!own && o->st == AT_OK) take_reason(o, result, 0, NULL);
    if (c->ops->vote(c, deaf, &anybody_deaf) == AT_OK && !anybody_deaf && !deaf &&
        c->ops->tell(c, &mine, all, sizeof mine) == AT_OK) {
        for (int i = 0; i < c->size && !own; i++) {
            if (all[i].code != (int)result || all[i].told) continue;
            take_reason(o, result, i, all[i].text);
            break;
        }
    }
    at_free(all);
}

at_status at_ops_vote(at_ops *o)
{
    at_comm *c = o->comm;
    at_status st;
    int result = 0;

    if (o->st == AT_OK && at_sink_cancelled(o->sink)) {
        o->st = AT_ECANCELLED;
        snprintf(o->error, sizeof o->error, "cancelled");
    }
    st = c->ops->vote(c, (int)o->st, &result);
    if (st != AT_OK && o->st == AT_OK) {
        at_ops_poison(o, st, "vote: %s", at_error_text());
    } else if (result != AT_OK && c->size > 1) {
        learn_reason(o, (at_status)result);
    }
    return result != AT_OK ? at_fail((at_status)result, "%s", o->error) : at_ops_status(o);
}
