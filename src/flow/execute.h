// SPDX-License-Identifier: Apache-2.0
// execute.h - one run of a workflow, for the files of flow/ that make it.
// Ownership: an at_run lives for one at_execute; everything borrowed comes from its arguments.
#ifndef AT_FLOW_EXECUTE_H
#define AT_FLOW_EXECUTE_H

#include "flow/cache.h"
#include "flow/graph.h"
#include "flow/order.h"
#include "flow/run.h"

typedef struct at_run {
    const at_execute_args *args;
    at_graph *graph;
    at_cache *cache, *own_cache; // own_cache: made for this run when the caller has none
    at_digest *keys;             // per node
    char **changed;              // per node: the fingerprint as JSON text, NULL if it has none
    bool *never;                 // per node: its fingerprint failed
    at_order_node *nodes;        // per node, for the order
    at_order_link *links;
    size_t *users; // per node: nodes that still may read its result (cache mode none)
    at_order *order;
    json_t *executed;       // ids, in the order of their ends
    json_t *uis;            // {id: ui} of this run
    char *prompt, *pnginfo; // texts of hidden inputs, made when first asked for
} at_run;

// --- prepare.c ----------------------------------------------------------------------------------
at_status at_run_prepare(at_run *r, const at_execute_args *args);
void at_run_free(at_run *r);
at_status at_run_hidden(at_run *r, const at_in *row, const char *id, const char **text);

// --- inputs.c: the lists on a node's inputs -----------------------------------------------------
typedef struct at_inputs {
    const at_node *node;
    at_values *rows;   // per row
    at_value *singles; // per row: storage of constants
    bool *present;     // per row: part of ComfyUI's input_data_all
    bool *missing;     // per row: linked, but there is no value yet
    bool *linked;      // per row
    size_t count, calls;
    void *in; // the struct of the present call
} at_inputs;
at_status at_inputs_gather(at_run *r, size_t node, at_inputs *out);
void at_inputs_free(at_inputs *in);
// The first blocker among the values of call i; NULL if none.
const at_value *at_inputs_blocker(const at_inputs *in, size_t i);
at_status at_inputs_fill(at_inputs *in, size_t i);
json_t *at_inputs_json(const at_inputs *in); // "current_inputs"

// --- visit.c: one node --------------------------------------------------------------------------
// *again: lazy inputs were asked for, the node runs later.
at_status at_run_visit(at_run *r, size_t node, at_inputs *in, bool *again);

// --- events.c -----------------------------------------------------------------------------------
void at_run_emit(const at_run *r, at_event_kind kind, size_t node, const char *text);
void at_run_emit_cached(const at_run *r);
void at_run_emit_blocked(const at_run *r, size_t node, const char *message);
// The event that ends a failed run: interrupted or error. `cause` is the message, `in` may be
// empty.
void at_run_emit_failure(const at_run *r, at_status st, const char *type, size_t node,
                         const char *cause, const at_inputs *in);

#endif
