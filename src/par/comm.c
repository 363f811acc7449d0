// SPDX-License-Identifier: Apache-2.0
// comm.c - what every carrier shares, and the comm of a single rank.
// Owns nothing.
#include "par/comm.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"

static at_status self_copy(at_comm *c, const void *send, void *recv, size_t bytes)
{
    (void)c;
    if (bytes && recv != send) memcpy(recv, send, bytes);
    return AT_OK;
}

static at_status self_exchange(at_comm *c, const at_comm_part *send, const at_comm_part *recv)
{
    return self_copy(c, send->data, recv->data, send->bytes);
}

static at_status self_split(at_comm *c, int colour, at_comm **out)
{
    (void)colour;
    *out = c;
    return AT_OK;
}

static at_status self_sum(at_comm *c, float *inout, size_t count)
{
    (void)c;
    (void)inout;
    (void)count;
    return AT_OK;
}

static at_status self_vote(at_comm *c, int mine, int *result)
{
    (void)c;
    *result = mine;
    return AT_OK;
}

static void self_abort(at_comm *c, int code)
{
    (void)c;
    (void)code;
}

static void self_free(at_comm *c)
{
    (void)c;
}

static const at_comm_ops self_ops = {
    .all_gather = self_copy,
    .all_to_all = self_copy,
    .exchange = self_exchange,
    .tell = self_copy,
    .split = self_split,
    .all_reduce_sum = self_sum,
    .vote = self_vote,
    .abort = self_abort,
    .free = self_free,
};

at_comm *at_comm_self(void)
{
    static at_comm self = {.ops = &self_ops, .rank = 0, .size = 1}; // never written

    return &self;
}

at_status at_comm_gather_parts(at_comm *c, const void *send, void *recv, size_t bytes)
{
    at_comm_part from[AT_COMM_RANKS], to[AT_COMM_RANKS];

    for (int i = 0; i < c->size; i++) {
        from[i] = (at_comm_part){(void *)(uintptr_t)send, bytes};
        to[i] = (at_comm_part){bytes ? (char *)recv + (size_t)i * bytes : NULL, bytes};
    }
    return c->ops->exchange(c, from, to);
}

at_status at_comm_swap_parts(at_comm *c, const void *send, void *recv, size_t bytes)
{
    at_comm_part from[AT_COMM_RANKS], to[AT_COMM_RANKS];

    for (int i = 0; i < c->size; i++) {
        from[i] = (at_comm_part){(char *)(uintptr_t)send + (size_t)i * bytes, bytes};
        to[i] = (at_comm_part){(char *)recv + (size_t)i * bytes, bytes};
    }
    return c->ops->exchange(c, from, to);
}

void at_comm_free(at_comm *c)
{
    if (c) c->ops->free(c);
}
