// SPDX-License-Identifier: Apache-2.0
// fill.h - from values to the plain struct that a node's functions read.
// Ownership: the struct borrows everything from the values it was filled from.
#ifndef AT_FLOW_FILL_H
#define AT_FLOW_FILL_H

#include "flow/graph.h"

// A literal of the workflow as a value. AT_ENOMEM.
at_status at_value_from_json(const json_t *v, at_value *out);
// A value as JSON for people: scalars as they are, the rest as text ("<IMAGE object>").
json_t *at_value_to_json(const at_value *v);

// Write one field; v NULL or NONE gives the row's default. AT_EINVAL names the input.
at_status at_fill_row(const at_node *n, const at_in *row, const at_value *v, void *in);
void at_fill_list(const at_in *row, at_values v, void *in); // for INPUT_IS_LIST nodes

// The struct of a node with constants only: linked fields are zero.
typedef struct at_constants {
    void *in;
    at_value *values; // per row
    bool *linked;     // per row
    size_t count;
} at_constants;
at_status at_constants_make(const at_graph_node *n, at_constants *out);
void at_constants_free(at_constants *c);

#endif
