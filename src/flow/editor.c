// SPDX-License-Identifier: Apache-2.0
// editor.c - the editor's drawing (nodes with positions, links, widgets) becomes an API workflow.
// Idea: walk the nodes of each level; subgraph instances open a level of their own whose ids get
// the instance's id in front ("12:3"); what is only drawn (notes, reroutes, primitives), muted or
// bypassed is left out, and links are followed through it.
// Source: comfyui-contract 3.8 (ComfyUI's frontend does this before it posts a workflow); schemas
// 0.4 (links are lists) and 1.0 (links are objects).
// Easy to get wrong: inputs are ordered widgets first, then links: that order decides which node
// runs first.
// Ownership: see editor.h.
#include "flow/editor.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "json/json.h"

#define MAX_DEPTH 32
#define MAX_NODES 1000000

at_status at_editor_no_memory(const at_editor *e)
{
    return at_fail(AT_ENOMEM, "%s: no memory to read the drawing", e->label);
}

bool at_editor_is(const json_t *v)
{
    return json_is_array(json_object_get(v, "nodes"));
}

bool at_scope_key(const json_t *id, char out[64])
{
    if (json_is_integer(id)) {
        snprintf(out, 64, "%" JSON_INTEGER_FORMAT, json_integer_value(id));
        return true;
    }
    if (!at_json_is_text(id) || json_string_length(id) > 63) return false;
    snprintf(out, 64, "%s", json_string_value(id));
    return true;
}

int at_editor_mode(const json_t *node)
{
    return (int)json_integer_value(json_object_get(node, "mode"));
}

static bool is_type(const json_t *node, const char *type)
{
    const char *have = json_string_value(json_object_get(node, "type"));
    return have && strcmp(have, type) == 0;
}

bool at_editor_virtual(const json_t *node)
{
    return is_type(node, "Reroute") || is_type(node, "PrimitiveNode") || is_type(node, "Note") ||
           is_type(node, "MarkdownNote");
}

const json_t *at_editor_subgraph(const at_editor *e, const json_t *node)
{
    const char *type = json_string_value(json_object_get(node, "type"));
    return type ? json_object_get(e->subgraphs, type) : NULL;
}

// --- levels -------------------------------------------------------------------------------------
// Items of a list by their id (member `name`, or the first element of a list).
static at_status index_by_id(at_editor *e, const json_t *list, json_t **out)
{
    size_t i;
    json_t *item;
    char key[64];

    *out = json_object();
    if (!*out) return at_editor_no_memory(e);
    json_array_foreach(list, i, item)
    {
        const json_t *id =
            json_is_array(item) ? json_array_get(item, 0) : json_object_get(item, "id");
        if (json_is_null(item) || !at_scope_key(id, key)) continue;
        if (json_object_set_nocheck(*out, key, item)) return at_editor_no_memory(e);
    }
    return AT_OK;
}

at_status at_scope_open(at_editor *e, const at_scope *up, const json_t *instance,
                        const json_t *graph, at_scope *out)
{
    at_status st = AT_OK;
    char key[64] = "";

    *out =
        (at_scope){.up = up, .instance = instance, .graph = graph, .depth = up ? up->depth + 1 : 0};
    if (out->depth > MAX_DEPTH) {
        return at_fail(AT_EWORKFLOW, "%s: subgraphs nested deeper than %d levels", e->label,
                       MAX_DEPTH);
    }
    if (up) at_scope_key(json_object_get(instance, "id"), key);
    out->prefix = up ? at_strprintf("%s%s:", up->prefix, key) : at_strdup("");
    if (!out->prefix) AT_TRY(at_editor_no_memory(e));
    AT_TRY(index_by_id(e, json_object_get(graph, "nodes"), &out->nodes));
    AT_TRY(index_by_id(e, json_object_get(graph, "links"), &out->links));
out:
    if (st != AT_OK) at_scope_close(out);
    return st;
}

void at_scope_close(at_scope *s)
{
    json_decref(s->nodes);
    json_decref(s->links);
    at_free(s->prefix);
    *s = (at_scope){0};
}

// --- nodes --------------------------------------------------------------------------------------
static at_status add_links(at_editor *e, const at_scope *s, const json_t *node, json_t *inputs)
{
    at_status st = AT_OK;
    const json_t *list = json_object_get(node, "inputs");
    json_t *slot, *value;
    size_t i;

    json_array_foreach(list, i, slot)
    {
        const char *name = json_string_value(json_object_get(slot, "name"));
        const json_t *link = json_object_get(slot, "link");
        if (!name || !link || json_is_null(link)) continue;
        AT_TRY(at_editor_resolve(e, s, link, &value));
        if (!value) {
            json_object_del(inputs, name); // its source is muted or gone: so is the input
        } else if (json_object_set_new(inputs, name, value)) {
            AT_TRY(at_editor_no_memory(e));
        }
    }
out:
    return st;
}

static at_status add_node(at_editor *e, const at_scope *s, const json_t *node)
{
    at_status st = AT_OK;
    const json_t *title = json_object_get(node, "title");
    json_t *made = json_object(), *inputs = json_object(), *meta = NULL;
    char key[64], *id = NULL;

    if (!made || !inputs) AT_TRY(at_editor_no_memory(e));
    if (!at_scope_key(json_object_get(node, "id"), key)) {
        AT_TRY(at_fail(AT_EWORKFLOW, "%s: a node without an id", e->label));
    }
    id = at_strprintf("%s%s", s->prefix, key);
    if (!id) AT_TRY(at_editor_no_memory(e));
    AT_TRY(at_editor_widgets(e, node, inputs));
    AT_TRY(add_links(e, s, node, inputs));
    if (json_object_set_nocheck(made, "inputs", inputs) ||
        json_object_set_nocheck(made, "class_type", json_object_get(node, "type"))) {
        AT_TRY(at_editor_no_memory(e));
    }
    if (at_json_is_text(title)) {
        meta = json_object();
        if (json_object_set_nocheck(meta, "title", (json_t *)title) ||
            json_object_set_nocheck(made, "_meta", meta)) {
            AT_TRY(at_editor_no_memory(e));
        }
    }
    if (json_object_set_nocheck(e->out, id, made)) AT_TRY(at_editor_no_memory(e));
    if (json_object_size(e->out) > MAX_NODES) {
        AT_TRY(at_fail(AT_EWORKFLOW, "%s: more than %d nodes", e->label, MAX_NODES));
    }
out:
    json_decref(made);
    json_decref(inputs);
    json_decref(meta);
    at_free(id);
    return st;
}

static at_status add_level(at_editor *e, const at_scope *s)
{
    at_status st = AT_OK;
    const json_t *list = json_object_get(s->graph, "nodes"), *definition;
    json_t *node;
    at_scope inner;
    size_t i;

    json_array_foreach(list, i, node)
    {
        if (!at_json_is_text(json_object_get(node, "type"))) {
            AT_TRY(at_fail(AT_EWORKFLOW, "%s: entry %zu of \"nodes\" has no type", e->label, i));
        }
        if (at_editor_virtual(node) || at_editor_mode(node) == 2 || at_editor_mode(node) == 4)
            continue;
        definition = at_editor_subgraph(e, node);
        if (!definition) {
            AT_TRY(add_node(e, s, node));
            continue;
        }
        if (++e->hops > MAX_NODES) {
            AT_TRY(at_fail(AT_EWORKFLOW, "%s: too many subgraph instances", e->label));
        }
        AT_TRY(at_scope_open(e, s, node, definition, &inner));
        st = add_level(e, &inner);
        at_scope_close(&inner);
        AT_TRY(st);
    }
out:
    return st;
}

// Inputs that link to nodes that were not taken over are removed.
static void drop_dangling(json_t *prompt)
{
    const char *id, *name;
    json_t *node, *inputs, *value;
    void *next;

    json_object_foreach(prompt, id, node)
    {
        inputs = json_object_get(node, "inputs");
        json_object_foreach_safe(inputs, next, name, value)
        {
            if (!at_is_link(value)) continue;
            if (json_object_get(prompt, json_string_value(json_array_get(value, 0)))) continue;
            json_object_del(inputs, name);
        }
    }
}

at_status at_editor_convert(const char *label, const json_t *ui, const at_registry *r, json_t **out)
{
    at_status st = AT_OK;
    at_editor e = {.label = label, .registry = r, .out = json_object()};
    at_scope root = {0};

    *out = NULL;
    if (!e.out) AT_TRY(at_editor_no_memory(&e));
    AT_TRY(index_by_id(&e, json_object_get(json_object_get(ui, "definitions"), "subgraphs"),
                       &e.subgraphs));
    AT_TRY(at_scope_open(&e, NULL, NULL, ui, &root));
    AT_TRY(add_level(&e, &root));
    drop_dangling(e.out);
    *out = e.out;
    e.out = NULL;
out:
    at_scope_close(&root);
    json_decref(e.subgraphs);
    json_decref(e.out);
    return st;
}
