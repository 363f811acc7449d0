// SPDX-License-Identifier: Apache-2.0
// graph.c - from JSON text to a workflow: nodes by id, each with its table.
// Source: comfyui-contract 3.1. What is wrong inside nodes is at_check's affair: only text that is
// no JSON object of nodes is refused here.
// Ownership: see graph.h.
#include "flow/graph.h"

#include <string.h>

#include "base/mem.h"
#include "json/json.h"

#define MAX_TEXT ((size_t)100 << 20) // ComfyUI's --max-upload-size default

bool at_is_link(const json_t *v)
{
    const json_t *slot;
    const char *odd;

    if (!json_is_array(v) || json_array_size(v) != 2) return false;
    slot = json_array_get(v, 1);
    odd = at_json_odd(slot);
    return at_json_is_text(json_array_get(v, 0)) &&
           (json_is_number(slot) || json_is_boolean(slot) || odd);
}

size_t at_graph_find(const at_graph *g, const char *id)
{
    return at_names_find(&g->ids, id);
}

const at_in *at_find_row(const at_node *n, const char *name, bool hidden)
{
    for (size_t i = 0; n && i < n->n_in; i++) {
        if (!hidden && (n->in[i].flags & AT_INF_HIDDEN)) continue;
        if (strcmp(n->in[i].name, name) == 0) return &n->in[i];
    }
    return NULL;
}

bool at_link_of(const at_graph *g, const at_node *spec, const char *input, const json_t *value,
                at_link *out)
{
    if (!at_is_link(value)) return false;
    out->input = input;
    out->row = at_find_row(spec, input, false);
    out->from = at_graph_find(g, json_string_value(json_array_get(value, 0)));
    out->slot = json_array_get(value, 1);
    return true;
}

static at_status index_nodes(at_graph *g)
{
    at_status st = AT_OK;
    const char *id, *class_type;
    json_t *node;

    g->nodes = at_calloc(json_object_size(g->prompt) + 1, sizeof *g->nodes);
    if (!g->nodes) {
        return at_fail(AT_ENOMEM, "no memory for %zu nodes", json_object_size(g->prompt));
    }
    json_object_foreach(g->prompt, id, node)
    {
        json_t *inputs = json_object_get(node, "inputs");

        class_type = NULL;
        if (at_json_is_text(json_object_get(node, "class_type"))) {
            class_type = json_string_value(json_object_get(node, "class_type"));
        }
        g->nodes[g->count] = (at_graph_node){
            .id = id,
            .json = node,
            .inputs = json_is_object(inputs) ? inputs : NULL,
            .spec = class_type ? at_registry_find(g->registry, class_type) : NULL,
        };
        AT_TRY(at_names_add(&g->ids, id, g->count));
        g->count++;
    }
out:
    return st;
}

at_status at_graph_from_json(json_t *prompt, const at_registry *r, at_graph **out)
{
    at_status st = AT_OK;
    at_graph *g = NULL;

    *out = NULL;
    if (!json_is_object(prompt)) {
        AT_TRY(at_fail(AT_EWORKFLOW, "a workflow is a JSON object of nodes by id, not %s",
                       json_is_array(prompt) ? "a list" : "a plain value"));
    }
    g = at_calloc(1, sizeof *g);
    if (!g) AT_TRY(at_fail(AT_ENOMEM, "no memory for a workflow"));
    g->prompt = json_incref(prompt);
    g->registry = r;
    AT_TRY(index_nodes(g));
    *out = g;
    g = NULL;
out:
    at_graph_free(g);
    return st;
}

at_status at_graph_clone(const at_graph *g, at_graph **out)
{
    at_status st = AT_OK;
    at_graph *c = at_calloc(1, sizeof *c);

    *out = NULL;
    if (!c) return at_fail(AT_ENOMEM, "no memory for a workflow");
    c->prompt = json_incref(g->prompt);
    c->registry = g->registry;
    c->nodes = at_calloc(g->count + 1, sizeof *c->nodes);
    if (!c->nodes) AT_TRY(at_fail(AT_ENOMEM, "no memory for %zu nodes", g->count));
    memcpy(c->nodes, g->nodes, g->count * sizeof *c->nodes);
    for (; c->count < g->count; c->count++)
        AT_TRY(at_names_add(&c->ids, c->nodes[c->count].id, c->count));
    *out = c;
    c = NULL;
out:
    at_graph_free(c);
    return st;
}

// {"prompt": {...}} as clients post it, or the prompt itself. A node called "prompt" has a
// class_type.
static json_t *unwrap(json_t *v)
{
    json_t *inner = json_object_get(v, "prompt");

    if (json_is_object(inner) && !json_object_get(inner, "class_type")) return inner;
    return v;
}

at_status at_graph_parse(const char *label, const char *text, size_t n, const at_registry *r,
                         at_graph **out)
{
    at_status st = AT_OK;
    json_t *whole = NULL, *converted = NULL;

    *out = NULL;
    if (n > MAX_TEXT) {
        AT_TRY(at_fail(AT_EWORKFLOW, "%s: %zu bytes, a workflow may have %zu", label, n, MAX_TEXT));
    }
    AT_TRY(at_json_load(label, text, n, &whole));
    if (at_editor_is(whole)) {
        AT_TRY(at_editor_convert(label, whole, r, &converted));
        AT_TRY(at_graph_from_json(converted, r, out));
    } else {
        st = at_graph_from_json(unwrap(whole), r, out);
        if (st != AT_OK) AT_TRY(at_fail_context(st, "%s: ", label));
    }
out:
    json_decref(whole);
    json_decref(converted);
    return st;
}

void at_graph_free(at_graph *g)
{
    if (!g) return;
    at_names_free(&g->ids);
    at_free(g->nodes);
    json_decref(g->prompt);
    at_free(g);
}

size_t at_graph_count(const at_graph *g)
{
    return g->count;
}

const json_t *at_graph_json(const at_graph *g)
{
    return g->prompt;
}
