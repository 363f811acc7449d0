// SPDX-License-Identifier: Apache-2.0
// flow.h - the workflow engine: JSON in, checked graph, order, cached execution.
// Idea: ComfyUI's semantics exactly (comfyui-contract section 3), over nodes that are tables.
//   text -> at_graph (nodes, literals, links) -> at_check (ComfyUI's errors as JSON) -> at_execute.
// Ownership: a graph owns its strings; a result cache owns the values of finished nodes.
#ifndef AT_FLOW_FLOW_H
#define AT_FLOW_FLOW_H

#include <jansson.h>

#include "atelier/node.h"

// --- registry -----------------------------------------------------------------------------------
// Lists of nodes are const arrays of pointers that end with NULL; the registry borrows them.
typedef struct at_registry at_registry;
at_status at_registry_new(at_registry **out);
void at_registry_free(at_registry *r);
at_status at_registry_add(at_registry *r,
                          const at_node *const *nodes); // a duplicate name is AT_EINTERNAL
const at_node *at_registry_find(const at_registry *r, const char *class_type);
size_t at_registry_count(const at_registry *r);
const at_node *at_registry_at(const at_registry *r, size_t i); // in order of registration

// Where combos over files get their lines ("checkpoints" -> names): set once by the engine.
typedef struct at_file_lists {
    // Calls `each(each_ctx, name)` for every entry; AT_OK also when the folder is empty.
    at_status (*list)(void *ctx, const char *kind, void (*each)(void *each_ctx, const char *name),
                      void *each_ctx);
    void *ctx;
} at_file_lists;

// ComfyUI's /object_info: one class, or all. New reference; NULL if out of memory. Print it with
// at_json_dump (json/json.h): it holds numbers that jansson's printer does not know.
json_t *at_object_info(const at_node *n, const at_file_lists *files);
json_t *at_object_info_all(const at_registry *r, const at_file_lists *files);

// --- reading and checking -----------------------------------------------------------------------
typedef struct at_graph at_graph;
// Parse API-format JSON: the prompt object itself, or {"prompt": {...}, ...}. Integers up to 2^64-1
// and any depth up to 500. Also accepts the editor's format ({"nodes": [...], "links": [...]})
// and converts it (contract 3.8). AT_EWORKFLOW with line and column, or with ComfyUI's text.
at_status at_graph_parse(const char *label, const char *text, size_t n, const at_registry *r,
                         at_graph **out);
// The same from a parsed prompt object (API format), for a server that has read the body. Shares
// `prompt`.
at_status at_graph_from_json(json_t *prompt, const at_registry *r, at_graph **out);
void at_graph_free(at_graph *g);
size_t at_graph_count(const at_graph *g);
// --set NODE.INPUT=VALUE; NODE is an id, or a class_type or title that occurs once.
at_status at_graph_set(at_graph *g, const char *assignment);
const json_t *
at_graph_json(const at_graph *g); // after conversion of values: what a PNG's `prompt` holds

typedef struct at_check_result {
    bool ok;             // at least one output is good
    json_t *error;       // {"type","message","details","extra_info"} or NULL
    json_t *node_errors; // {"id": {"errors": [...], "dependent_outputs": [...], "class_type": ...}}
    char **outputs;      // ids of good outputs
    size_t output_count;
    bool
        pure; // nothing but the workflow was looked at: the same one is answered the same at any time
} at_check_result;
// engine is what at_node_engine gives to validators. targets NULL: all outputs; else only these.
// AT_OK whenever the check could be made, also of a bad workflow: ask out->ok.
at_status at_check(at_graph *g, const at_registry *r, const at_file_lists *files,
                   const char *const *targets, size_t target_count, void *engine,
                   at_check_result *out);
void at_check_result_free(at_check_result *c);
// The answer to a request that brings no workflow at all.
at_status at_check_no_prompt(at_check_result *out);

// --- running ------------------------------------------------------------------------------------
typedef enum at_cache_mode { AT_CACHE_CLASSIC, AT_CACHE_LRU, AT_CACHE_NONE } at_cache_mode;
typedef struct at_cache at_cache; // of results between runs
at_status at_cache_new(at_cache_mode mode, size_t lru_entries, at_cache **out);
void at_cache_free(at_cache *c);
void at_cache_clear(at_cache *c);

typedef struct at_execute_args {
    const at_registry *registry;
    at_graph *graph;
    const at_check_result *check;
    at_cache *cache; // may be NULL
    const at_sink *sink;
    const char *job; // id for events
    const char *
        owner; // whose files the output nodes write; their results are not another's. NULL: nobody's
    json_t *extra_pnginfo; // borrowed, may be NULL
    void *engine;
} at_execute_args;
// Runs to the end, an error, or a cancel. Events go to the sink in ComfyUI's order; on AT_OK
// *outputs (may be NULL) gets {"node": ui, ...}, after a failure what was shown until then (or
// NULL). Status: AT_OK, AT_ECANCELLED, or the failing node's status with a message that names node,
// class and cause.
at_status at_execute(const at_execute_args *args, json_t **outputs);

#endif
