// SPDX-License-Identifier: Apache-2.0
// editor.h - the parts of the editor-format reader that its files share.
// Ownership: a scope owns its two maps; everything else is borrowed from the workflow's tree.
#ifndef AT_FLOW_EDITOR_H
#define AT_FLOW_EDITOR_H

#include "flow/graph.h"

// One level of the drawing: the workflow itself, or one instance of a subgraph.
typedef struct at_scope {
    const struct at_scope *up; // NULL: the workflow
    const json_t *instance;    // the node of `up` that stands for this subgraph
    const json_t *graph;       // nodes, links, outputs
    json_t *nodes, *links;     // by id as text
    char *prefix;              // "12:" before the ids of its nodes, "" above
    int depth;
} at_scope;

typedef struct at_editor {
    const char *label;
    const at_registry *registry;
    json_t *subgraphs; // definitions by id
    json_t *out;       // the prompt under construction
    size_t hops;       // steps of link chasing so far: bounds hostile drawings
    int nest;          // borders of subgraphs crossed by the link that is being followed
} at_editor;

at_status at_editor_no_memory(const at_editor *e);
at_status at_scope_open(at_editor *e, const at_scope *up, const json_t *instance,
                        const json_t *graph, at_scope *out);
void at_scope_close(at_scope *s);
bool at_scope_key(const json_t *id, char out[64]); // an id as text; false if it is none
const json_t *at_editor_subgraph(const at_editor *e, const json_t *node); // NULL: a plain node
bool at_editor_virtual(const json_t *node);                               // drawn, but not executed
int at_editor_mode(const json_t *node); // 0 always, 2 muted, 4 bypassed

// --- editor_links.c: where does the value of a link come from? New reference: a link ["id", slot],
// a constant, or NULL in *value for nothing (muted, or cut).
at_status at_editor_resolve(at_editor *e, const at_scope *s, const json_t *link_id, json_t **value);

// --- editor_widgets.c: the constants of a node, by name, into `inputs`.
at_status at_editor_widgets(const at_editor *e, const json_t *node, json_t *inputs);
// A constant as the API wants it: lists are wrapped as {"__value__": list}. New; NULL if out of
// memory.
json_t *at_editor_constant(json_t *value);

#endif
