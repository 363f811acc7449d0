// SPDX-License-Identifier: Apache-2.0
// graph.h - the inside of a workflow, for flow/ alone.
// Idea: the JSON tree is the truth (values are converted in place, as ComfyUI does); beside it
// stands one record per node with its table and its place.
// Ownership: the graph owns the tree; ids, names and json pointers below are borrowed from it.
#ifndef AT_FLOW_GRAPH_H
#define AT_FLOW_GRAPH_H

#include "flow/flow.h"
#include "flow/names.h"

typedef struct at_graph_node {
    const char *id;
    json_t *json;        // the node's object, or whatever stood there
    json_t *inputs;      // its "inputs" if that is an object, else NULL
    const at_node *spec; // NULL: unknown class
} at_graph_node;

struct at_graph {
    json_t *prompt;
    at_graph_node *nodes; // in the order of the prompt
    size_t count;
    at_names ids;
    const at_registry *registry;
};

// One input of a node that is a link (is_link() of ComfyUI: [text, number]).
typedef struct at_link {
    const char *input;
    const at_in *row; // NULL: an input that the class does not declare
    size_t from;      // position of the source, AT_NO_INDEX if there is no such node
    const json_t *slot;
} at_link;

bool at_is_link(const json_t *v);
// A workflow of its own over the same JSON, which may grow.
at_status at_graph_clone(const at_graph *g, at_graph **out);
size_t at_graph_find(const at_graph *g, const char *id);
// NULL if absent. Hidden rows are found with `hidden` only.
const at_in *at_find_row(const at_node *n, const char *name, bool hidden);
// The link in this input; false if it is a constant.
bool at_link_of(const at_graph *g, const at_node *spec, const char *input, const json_t *value,
                at_link *out);

// An editor's workflow in API form: new reference. See editor.c.
at_status at_editor_convert(const char *label, const json_t *ui, const at_registry *r,
                            json_t **out);
bool at_editor_is(const json_t *v);

#endif
