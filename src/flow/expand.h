// SPDX-License-Identifier: Apache-2.0
// expand.h - nodes that a node puts in its own place.
// Idea: what a call makes is gathered beside the running workflow (at_expansion) and joins it in one go when
// the node has been visited: a copy of the graph grows, with keys, order and links of the new nodes. The node
// itself waits for them and is visited again to put its result together.
// Source: ComfyUI 0.3.64 execution.py execute (pending_subgraph_results), comfy_execution/graph_utils.py
// GraphBuilder, graph.py DynamicPrompt.
// Easy to get wrong: a value that is no JSON (a picture) reaches a new node over a link to a node that holds it
// (at_given); records of nodes move when the graph grows.
#ifndef AT_FLOW_EXPAND_H
#define AT_FLOW_EXPAND_H

#include "flow/execute.h"

// Output `slot` has, at place `at`, all values of output `from_slot` of node `from`.
typedef struct at_later {
    size_t slot, at;
    char *from;
    int64_t from_slot;
} at_later;

typedef struct at_new_node {
    char *id, *display; // display NULL: the maker's
    json_t *json;       // {"class_type", "inputs"}
    at_value given;     // of a node that only holds a value
    bool holds;
} at_new_node;

typedef struct at_expansion {
    const at_run *run;
    const char *maker;
    size_t call, numbered, held;
    at_new_node *nodes;
    size_t count, cap;
    at_later *later; // of this call; moved to the node's when the call is over
    size_t later_count, later_cap;
    char *text; // what at_expand_node gave back last
} at_expansion;

// What a node that waits for nodes of its own has so far.
typedef struct at_partial {
    at_result *result;
    at_later *later;
    size_t count;
    json_t *uis;
} at_partial;
void at_partial_free(at_partial *p); // NULL is fine

void at_expansion_free(at_expansion *e);
// The new nodes join the run and `node` waits for those that answer for it. *any false: there were none.
at_status at_expansion_install(at_run *r, size_t node, at_expansion *e, const at_later *later,
                               size_t later_count, bool *any);
// The lists of p->result with the values of the nodes that answer, at their places.
at_status at_partial_resolve(at_run *r, at_partial *p);

#endif
