// SPDX-License-Identifier: Apache-2.0
// editor_links.c - follows a drawn link back to the node or constant that feeds it.
// Idea: step by step: through reroutes, bypassed nodes (the input of the output's type), primitives
// (their value), into subgraphs by their outputs and out of them by their inputs (node ids -10 and
// -20 in a subgraph's links stand for its own inputs and outputs).
// Ownership: levels that are entered on the way live until the answer is found.
#include "flow/editor.h"

#include <string.h>

#include "base/mem.h"
#include "json/json.h"

#define MAX_HOPS        5000000
#define MAX_NEST        200
#define SUBGRAPH_INPUT  (-10)
#define SUBGRAPH_OUTPUT (-20)

typedef struct origin {
    const json_t *id;
    size_t slot;
} origin;

static bool origin_of(const at_scope *s, const json_t *link_id, origin *out)
{
    char key[64];
    const json_t *link = at_scope_key(link_id, key) ? json_object_get(s->links, key) : NULL, *slot;

    if (!link) return false;
    out->id = json_is_array(link) ? json_array_get(link, 1) : json_object_get(link, "origin_id");
    slot = json_is_array(link) ? json_array_get(link, 2) : json_object_get(link, "origin_slot");
    if (!json_is_integer(slot) || json_integer_value(slot) < 0) return false;
    out->slot = (size_t)json_integer_value(slot);
    return true;
}

static const json_t *link_at(const json_t *node, size_t input)
{
    return json_object_get(json_array_get(json_object_get(node, "inputs"), input), "link");
}

static const json_t *type_at(const json_t *node, const char *side, size_t slot)
{
    return json_object_get(json_array_get(json_object_get(node, side), slot), "type");
}

// The link that feeds output `slot` of a bypassed node: an input of its type, the same place first.
static const json_t *bypass(const json_t *node, size_t slot)
{
    const json_t *want = type_at(node, "outputs", slot);
    size_t n = json_array_size(json_object_get(node, "inputs"));

    if (slot < n && json_equal(type_at(node, "inputs", slot), want)) return link_at(node, slot);
    for (size_t i = 0; i < n; i++) {
        if (json_equal(type_at(node, "inputs", i), want)) return link_at(node, i);
    }
    return NULL;
}

// A subgraph's input without a link: the value of the widget that the instance shows for it, if
// any.
static json_t *promoted(const json_t *instance, size_t input)
{
    const json_t *inputs = json_object_get(instance, "inputs");
    const json_t *values = json_object_get(instance, "widgets_values");
    size_t place = 0;
    json_t *v;

    if (!json_object_get(json_array_get(inputs, input), "widget")) return NULL;
    for (size_t i = 0; i < input; i++) {
        if (json_object_get(json_array_get(inputs, i), "widget")) place++;
    }
    v = json_is_array(values) ? json_array_get(values, place) : NULL;
    return v && !json_is_null(v) ? at_editor_constant(v) : NULL;
}

// The link inside a subgraph that feeds its output `slot`.
static const json_t *inner_link(const at_scope *s, size_t slot)
{
    const char *key;
    json_t *link;

    json_object_foreach(s->links, key, link)
    {
        const json_t *id =
            json_is_array(link) ? json_array_get(link, 3) : json_object_get(link, "target_id");
        const json_t *to =
            json_is_array(link) ? json_array_get(link, 4) : json_object_get(link, "target_slot");
        if (json_integer_value(id) == SUBGRAPH_OUTPUT && json_is_integer(to) &&
            json_integer_value(to) == (json_int_t)slot) {
            return json_is_array(link) ? json_array_get(link, 0) : json_object_get(link, "id");
        }
    }
    return NULL;
}

static at_status make_link(at_editor *e, const at_scope *s, const origin *from, json_t **value)
{
    char key[64], *id;

    if (!at_scope_key(from->id, key)) return AT_OK;
    id = at_strprintf("%s%s", s->prefix, key);
    *value = json_array();
    if (!id || !*value || json_array_append_new(*value, json_string(id)) ||
        json_array_append_new(*value, json_integer((json_int_t)from->slot))) {
        at_free(id);
        json_decref(*value);
        *value = NULL;
        return at_editor_no_memory(e);
    }
    at_free(id);
    return AT_OK;
}

static at_status circle(const at_editor *e)
{
    return at_fail(AT_EWORKFLOW, "%s: its links go round in a circle", e->label);
}

static at_status enter(at_editor *e, const at_scope *s, const json_t *node, size_t slot,
                       json_t **value)
{
    const json_t *link;
    at_scope inner;
    at_status st;

    if (e->nest == MAX_NEST) return circle(e);
    st = at_scope_open(e, s, node, at_editor_subgraph(e, node), &inner);
    if (st != AT_OK) return st;
    e->hops += json_object_size(inner.links) + json_object_size(inner.nodes);
    link = inner_link(&inner, slot);
    e->nest++;
    if (link) st = at_editor_resolve(e, &inner, link, value);
    e->nest--;
    at_scope_close(&inner);
    return st;
}

static at_status leave(at_editor *e, const at_scope *s, size_t slot, json_t **value)
{
    const json_t *link = s->up ? link_at(s->instance, slot) : NULL;
    at_status st = AT_OK;

    if (!link || json_is_null(link)) {
        *value = s->up ? promoted(s->instance, slot) : NULL;
    } else if (e->nest == MAX_NEST) {
        st = circle(e);
    } else {
        e->nest++;
        st = at_editor_resolve(e, s->up, link, value);
        e->nest--;
    }
    return st;
}

static bool primitive_value(at_editor *e, const json_t *node, json_t **value, at_status *st)
{
    const char *type = json_string_value(json_object_get(node, "type"));
    json_t *v = json_array_get(json_object_get(node, "widgets_values"), 0);

    if (!type || strcmp(type, "PrimitiveNode") != 0) return false;
    *st = AT_OK;
    if (v) *value = at_editor_constant(v);
    if (v && !*value) *st = at_editor_no_memory(e);
    return true;
}

at_status at_editor_resolve(at_editor *e, const at_scope *s, const json_t *link_id, json_t **value)
{
    const json_t *node;
    char key[64];
    origin from;
    at_status st;

    *value = NULL;
    while (link_id && origin_of(s, link_id, &from)) {
        if (++e->hops > MAX_HOPS) return circle(e);
        if (json_is_integer(from.id) && json_integer_value(from.id) == SUBGRAPH_INPUT) {
            return leave(e, s, from.slot, value);
        }
        node = at_scope_key(from.id, key) ? json_object_get(s->nodes, key) : NULL;
        if (!node || at_editor_mode(node) == 2) return AT_OK;
        if (at_editor_mode(node) == 4) {
            link_id = bypass(node, from.slot);
        } else if (primitive_value(e, node, value, &st)) {
            return st;
        } else if (at_editor_virtual(node)) {
            link_id = link_at(node, 0); // a reroute
        } else if (at_editor_subgraph(e, node)) {
            return enter(e, s, node, from.slot, value);
        } else {
            return make_link(e, s, &from, value);
        }
    }
    return AT_OK;
}
