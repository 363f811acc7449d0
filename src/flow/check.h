// SPDX-License-Identifier: Apache-2.0
// check.h - the parts of at_check that its files share.
// Ownership: an at_checker lives for one at_check; json results are new references.
#ifndef AT_FLOW_CHECK_H
#define AT_FLOW_CHECK_H

#include "flow/graph.h"
#include "flow/python.h"

typedef struct at_checker {
    at_graph *graph;
    const at_file_lists *files;
    void *engine;
    json_t *lists; // choices of combos over files, by list name: listed once per check
    bool outside;  // files or a node's own validator were asked
} at_checker;

typedef struct at_verdict {
    bool seen, done, valid;
    json_t *reasons; // NULL: none
} at_verdict;

typedef struct at_visit {
    size_t node, row; // row: the next one to look at
    bool valid;
    bool spared; // an input of the node's own validator already failed: do not ask it
    json_t *errors;
    const at_in *through; // the link that is being followed
    json_t *link;
} at_visit;

typedef struct at_walk {
    at_checker c;
    at_verdict *verdicts; // per node
    size_t *order;        // nodes in the order of their verdicts
    size_t order_count;
    at_visit *stack;
    size_t depth, cap;
    at_pyerr raised;
} at_walk;

// --- check_walk.c: from one output upwards ------------------------------------------------------
at_status at_walk_output(at_walk *w, size_t node); // leaves verdicts

// --- check_error.c: one error as ComfyUI sends it; NULL if out of memory ------------------------
// `extra` is taken; NULL stands for a failed allocation.
json_t *at_error(const char *type, const char *message, char *details, json_t *extra);
json_t *at_extra(const char *input); // {"input_name": ...}
// Sets a member of `extra`; takes `value`. False if out of memory (then extra is spoiled: give up).
bool at_extra_put(json_t *extra, const char *key, json_t *value);

at_status at_check_no_memory(void);
at_status at_check_append(json_t *array, json_t *item); // takes item; NULL is AT_ENOMEM

// --- check_input.c: one constant of one input ---------------------------------------------------
json_t *at_checker_choices(at_checker *c, const at_in *row); // borrowed; NULL if out of memory
json_t *at_checker_config(at_checker *c, const at_node *n, const at_in *row); // new; "input_config"
// Converts in place; on a complaint *error is a new error. `lenient`: the node's own validator
// looks at this input, so range and list are left to it.
at_status at_check_constant(at_checker *c, at_graph_node *n, const at_in *row, bool lenient,
                            json_t **error);
bool at_types_meet(const char *received, const char *wanted); // wanted NULL: a list

#endif
