// SPDX-License-Identifier: Apache-2.0
// order.h - which node runs next: ComfyUI's execution list, as a pure structure over numbers.
// Idea: a node is pending until it has run; it is ready when nothing pending blocks it. Of several
// ready nodes ComfyUI takes, each in order of insertion: an output; else one that blocks an output;
// else one that blocks a blocker of an output; else the first. Lazy links do not block until they
// are asked for.
// Ownership: the order owns its lists; the nodes' links are borrowed.
#ifndef AT_FLOW_ORDER_H
#define AT_FLOW_ORDER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef struct at_order_link {
    size_t from;
    bool lazy;
} at_order_link;
typedef struct at_order_node {
    const at_order_link *links; // in the order of the node's inputs
    size_t link_count;
    bool output;
} at_order_node;

typedef struct at_order at_order;
// cached(ctx, node): its result is there, so nobody waits for it. NULL: never.
at_status at_order_new(const at_order_node *nodes, size_t count,
                       bool (*cached)(void *ctx, size_t node), void *ctx, at_order **out);
void at_order_free(at_order *o);
// More nodes behind those that are there: `nodes` replaces the list given before, whose entries it repeats.
at_status at_order_grow(at_order *o, const at_order_node *nodes, size_t count);
// This node must run, and all that it needs (not through lazy links).
at_status at_order_add(at_order *o, size_t node);
// A lazy link is needed after all: `to` waits for `from` (unless that is cached).
at_status at_order_require(at_order *o, size_t from, size_t to);
bool at_order_empty(const at_order *o);
// The next node: it stays pending until at_order_done. False: all is done, or only a cycle is left.
bool at_order_next(at_order *o, size_t *node);
at_status at_order_done(at_order *o, size_t node);
// The node came back without a result: it waits for what was required meanwhile.
at_status at_order_again(at_order *o, size_t node);
// The node waits for something outside; nobody else waits for that. It is not the next one until it is woken.
void at_order_sleep(at_order *o, size_t node);
at_status at_order_wake(at_order *o, size_t node);
bool at_order_pending(const at_order *o, size_t node);
bool at_order_blocked(const at_order *o, size_t node);
size_t
at_order_in_cycle(const at_order *o); // the one that ComfyUI blames: first inserted of the rest

#endif
