// SPDX-License-Identifier: Apache-2.0
// ops_rank.c - several ranks on one picture: tokens shared out and gathered, failures voted.
// Idea: rank r of n holds a run of tokens; the first total % n ranks hold one more. Between the
// first split and the next gather attention exchanges heads for tokens (ops_attention.c). Owns: see
// ops.h.
#include "ops/ops_private.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

void op_share(int64_t total, int rank, int size, int64_t *first, int64_t *length)
{
    int64_t base = total / size, rest = total % size;

    *first = base * rank + (rank < rest ? rank : rest);
    *length = base + (rank < rest);
}

at_status op_all_gather(at_ops *o, const void *send, void *recv, size_t bytes)
{
    at_status st = o->dev->ops->synchronize(o->dev);

    if (st != AT_OK) return st;
    st = o->comm->ops->all_gather(o->comm, send, recv, bytes);
    if (st != AT_OK) o->told = true;
    return st;
}

at_status op_all_to_all(at_ops *o, const void *send, void *recv, size_t bytes)
{
    at_status st = o->dev->ops->synchronize(o->dev);

    if (st != AT_OK) return st;
    st = o->comm->ops->all_to_all(o->comm, send, recv, bytes);
    if (st != AT_OK) o->told = true;
    return st;
}

at_tensor *at_split_tokens(at_ops *o, const at_tensor *x)
{
    at_status st = AT_OK;
    int64_t first, length;
    at_tensor *out = NULL;
    char text[128];
    op_pass p;

    o->tokens_split = o->comm->size > 1;
    if (!op_enter(&p, o, "split_tokens", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    if (x->rank < 2) {
        AT_TRY(at_fail(AT_EINVAL, "x %s has no token dimension",
                       at_shape_text(x->dtype, x->rank, x->shape, text)));
    }
    if (o->comm->size == 1) {
        out = (at_tensor *)(uintptr_t)x;
        goto out;
    }
    op_share(x->shape[1], o->comm->rank, o->comm->size, &first, &length);
    AT_TRY(at_tensor_narrow(x, 1, first, length, &out));
    AT_TRY(op_own(o, out));
out:
    return op_leave(&p, st, out);
}

// Every rank's tokens, padded to the largest share, then put together without the padding.
static at_status gather(const op_pass *p, const at_tensor *x, int64_t total, at_tensor **out)
{
    at_ops *o = p->o;
    at_comm *c = o->comm;
    at_status st = AT_OK;
    int64_t shape[AT_MAX_RANK], block[AT_MAX_RANK + 1], most = (total + c->size - 1) / c->size;
    at_tensor *send, *recv;
    at_view from, to;

    AT_TRY(op_has(p, o->be->copy && o->be->fill));
    memcpy(shape, x->shape, sizeof shape);
    shape[1] = most;
    block[0] = c->size;
    memcpy(block + 1, shape, sizeof shape);
    if (x->rank == AT_MAX_RANK) AT_TRY(at_fail(AT_EINVAL, "x of rank %d", x->rank));
    AT_TRY(op_make(o, x->dtype, x->rank, shape, &send));
    AT_TRY(op_make(o, x->dtype, x->rank + 1, block, &recv));
    from = at_tensor_as_view(x);
    to = at_tensor_as_view(send);
    AT_TRY(o->be->fill(o->dev->stream, &to, 0));
    to = op_part(to, 1, 0, x->shape[1]);
    AT_TRY(o->be->copy(o->dev->stream, &from, &to));
    AT_TRY(o->dev->ops->synchronize(o->dev));
    AT_TRY(
        c->ops->all_gather(c, at_tensor_data(send), at_tensor_data(recv), at_tensor_bytes(send)));
    to = at_tensor_as_view(*out);
    for (int i = 0; i < c->size; i++) {
        int64_t first, length;
        at_view whole = to;

        op_share(total, i, c->size, &first, &length);
        from = at_tensor_as_view(send);
        from.data = (char *)at_tensor_data(recv) + (size_t)i * at_tensor_bytes(send);
        from = op_part(from, 1, 0, length);
        whole = op_part(whole, 1, first, length);
        AT_TRY(o->be->copy(o->dev->stream, &from, &whole));
    }
out:
    return st;
}

at_tensor *at_gather_tokens(at_ops *o, const at_tensor *x, int64_t total)
{
    at_status st = AT_OK;
    at_tensor *out = NULL;
    int64_t shape[AT_MAX_RANK], first, length;
    char text[128];
    op_pass p;

    o->tokens_split = false;
    if (!op_enter(&p, o, "gather_tokens", &o->stats.seconds_other)) return NULL;
    AT_TRY(op_takes(&p, "x", x));
    op_share(total, o->comm->rank, o->comm->size, &first, &length);
    if (x->rank < 2 || total < 0 || x->shape[1] != length) {
        AT_TRY(at_fail(AT_EINVAL, "x %s is not rank %d's share (%lld) of %lld tokens",
                       at_shape_text(x->dtype, x->rank, x->shape, text), o->comm->rank,
                       (long long)length, (long long)total));
    }
    if (o->comm->size == 1) {
        out = (at_tensor *)(uintptr_t)x;
        goto out;
    }
    memcpy(shape, x->shape, sizeof shape);
    shape[1] = total;
    AT_TRY(op_make(o, x->dtype, x->rank, shape, &out));
    at_scope_begin(o);
    if (at_tensor_count(out) > 0) st = gather(&p, x, total, &out);
    at_scope_end(o, NULL);
out:
    return op_leave(&p, st, out);
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
        c->ops->all_gather(c, &mine, all, sizeof mine) == AT_OK) {
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
