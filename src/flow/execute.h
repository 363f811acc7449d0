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
    size_t given_count;  // nodes of the workflow as it was given; those behind were made by nodes
    at_graph *own_graph; // the copy that grew, NULL while none did
    at_result **held;    // per node: the value of one that only holds it, or NULL
    struct at_partial **partial; // per node: what waits for nodes of its own, or NULL
    double *due;                 // per node: when it has waited long enough; 0: it does not wait
    struct at_wait *waiting;     // nodes that sleep
    size_t waiting_count;
    struct at_origin *origins;  // of the nodes behind given_count
    at_order_link **link_lists; // of them
    size_t link_list_count;
    json_t *made;           // their JSON
    json_t *executed;       // ids, in the order of their ends
    json_t *uis;            // {id: ui} of this run
    char *prompt, *pnginfo; // texts of hidden inputs, made when first asked for
} at_run;

// Who made a node, and whom people see in its place (ids; owned).
typedef struct at_origin {
    char *id, *display;
    size_t maker;
} at_origin;
typedef struct at_wait {
    size_t node;
    double since, seconds;
} at_wait;
const at_origin *at_run_origin(const at_run *r, size_t node); // NULL: of the workflow itself
size_t at_run_real(const at_run *r, size_t node); // the node of the workflow that it comes from

// --- prepare.c ----------------------------------------------------------------------------------
at_status at_run_prepare(at_run *r, const at_execute_args *args);
void at_run_free(at_run *r);
at_status at_run_fingerprint(at_run *r, size_t node);
at_status at_run_hidden(at_run *r, const at_in *row, const char *id, const char **text);

// --- inputs.c: the lists on a node's inputs -----------------------------------------------------
typedef struct at_inputs {
    const at_node *node;
    const char **more; // names of inputs beside the table (AT_NODE_VARIADIC), borrowed
    at_values *more_values;
    size_t more_count;
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
// The value in call i of an input beside the table; NULL if there is none.
const at_value *at_inputs_more(const at_inputs *in, const char *name, size_t i);
// The first blocker among the values of call i; NULL if none.
const at_value *at_inputs_blocker(const at_inputs *in, size_t i);
at_status at_inputs_fill(at_inputs *in, size_t i);
json_t *at_inputs_json(const at_inputs *in); // "current_inputs"

// --- visit.c: one node --------------------------------------------------------------------------
typedef enum at_visit_end {
    AT_VISIT_DONE,
    AT_VISIT_AGAIN, // it waits for other nodes: lazy inputs, or nodes of its own
    AT_VISIT_SLEEPS // it waits for its time
} at_visit_end;
at_status at_run_visit(at_run *r, size_t node, at_inputs *in, at_visit_end *end);
bool at_run_cached(void *run, size_t node);       // its result is there
at_result *at_run_result(at_run *r, size_t node); // borrowed; NULL if absent

// --- events.c -----------------------------------------------------------------------------------
void at_run_emit(const at_run *r, at_event_kind kind, size_t node, const char *text);
// What an event says of a node that was made by one; nothing of others.
void at_run_name_origin(const at_run *r, size_t node, at_event *e);
void at_run_emit_cached(const at_run *r);
void at_run_emit_blocked(const at_run *r, size_t node, const char *message);
// The event that ends a failed run: interrupted or error. `cause` is the message, `in` may be
// empty.
void at_run_emit_failure(const at_run *r, at_status st, const char *type, size_t node,
                         const char *cause, const at_inputs *in);

#endif
