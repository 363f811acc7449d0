// SPDX-License-Identifier: Apache-2.0
// run.h - the inside of at_node_ctx, for flow/ alone; nodes use the functions in atelier/node.h.
// Ownership: a context lives for one visit of a node; it owns what the node gave it until taken.
#ifndef AT_FLOW_RUN_H
#define AT_FLOW_RUN_H

#include "flow/flow.h"

// A growing list of values: what travels on one output ("every output value travels as a list").
typedef struct at_value_list {
    at_value *items;
    size_t count, cap;
} at_value_list;
at_status at_value_list_push(at_value_list *l, at_value v); // takes v, also on failure
void at_value_list_clear(at_value_list *l);

struct at_node_ctx {
    const at_node *node;
    const char *id, *job;
    const at_sink *sink;
    void *engine;
    const bool *linked;             // per row of the table
    at_value_list *emitted;         // per output; NULL outside run
    json_t *uis;                    // array of what at_node_ui gave; NULL outside run
    json_t *needed;                 // array of names; NULL outside lazy
    struct at_expansion *expansion; // what this call made, NULL outside run (expand.h)
    const struct at_inputs *inputs; // for inputs beside the table; NULL outside run
    size_t call;
    const char *display, *parent, *real; // as in at_event
};

#endif
