// SPDX-License-Identifier: Apache-2.0
// expand.c - what a node says of nodes in its place, and how they join the run. See expand.h.
#include "flow/expand.h"

#include <string.h>

#include "base/mem.h"
#include "flow/fill.h"
#include "flow/signature.h"
#include "json/json.h"

static at_status no_memory(void)
{
    return at_fail(AT_ENOMEM, "no memory for nodes that a node made");
}

// A node that holds a value that is no JSON: its result is there from the start.
static const at_out held_out[] = {{.type_name = "*", .name = "value"}};
static const at_node held_node = {
    .class_type = "a value", .out = held_out, .n_out = 1, .in_size = 1};

void at_expansion_free(at_expansion *e)
{
    for (size_t i = 0; i < e->count; i++) {
        at_free(e->nodes[i].id);
        at_free(e->nodes[i].display);
        json_decref(e->nodes[i].json);
        at_value_clear(&e->nodes[i].given);
    }
    for (size_t i = 0; i < e->later_count; i++)
        at_free(e->later[i].from);
    at_free(e->nodes);
    at_free(e->later);
    at_free(e->text);
    *e = (at_expansion){0};
}

void at_partial_free(at_partial *p)
{
    if (!p) return;
    for (size_t i = 0; i < p->count; i++)
        at_free(p->later[i].from);
    at_free(p->later);
    at_result_release(p->result);
    json_decref(p->uis);
    at_free(p);
}

// --- what a run function says -------------------------------------------------------------------
static at_status expansion_of(at_node_ctx *c, at_expansion **out)
{
    *out = c->expansion;
    return *out ? AT_OK
                : at_fail(AT_EINTERNAL, "%s makes nodes outside its run function",
                          c->node->class_type);
}

static at_new_node *find_new(at_expansion *e, const char *id)
{
    for (size_t i = e->count; i > 0; i--)
        if (strcmp(e->nodes[i - 1].id, id) == 0) return &e->nodes[i - 1];
    return NULL;
}

// Takes id, also on failure.
static at_status add_node(at_expansion *e, char *id, const char *class_type, at_new_node **out)
{
    at_status st = AT_OK;
    json_t *json = json_pack("{s:s, s:{}}", "class_type", class_type, "inputs");

    if (!id || !json) AT_TRY(no_memory());
    if (find_new(e, id)) AT_TRY(at_fail(AT_EINTERNAL, "a second new node is called %s", id));
    if (e->count == e->cap) {
        size_t cap = e->cap ? 2 * e->cap : 8;
        at_new_node *grown = at_realloc(e->nodes, cap * sizeof *grown);
        if (!grown) AT_TRY(no_memory());
        e->nodes = grown;
        e->cap = cap;
    }
    *out = &e->nodes[e->count++];
    **out = (at_new_node){.id = id, .json = json};
    return AT_OK;
out:
    at_free(id);
    json_decref(json);
    return st;
}

at_status at_expand_node(at_node_ctx *c, const char *class_type, const char *id, const char **full)
{
    at_expansion *e;
    at_status st = expansion_of(c, &e);
    at_new_node *n;

    if (st != AT_OK) return st;
    st = add_node(e,
                  id ? at_strprintf("%s.%zu.0.%s", e->maker, e->call, id)
                     : at_strprintf("%s.%zu.0.%zu", e->maker, e->call, ++e->numbered),
                  class_type, &n);
    if (st != AT_OK) return st;
    *full = n->id;
    return AT_OK;
}

// Takes value.
static at_status set_input(at_node_ctx *c, const char *node, const char *input, json_t *value)
{
    at_expansion *e;
    at_status st = AT_OK;
    at_new_node *n = NULL;

    AT_TRY(expansion_of(c, &e));
    if (!value) AT_TRY(no_memory());
    n = find_new(e, node);
    if (!n) AT_TRY(at_fail(AT_EINTERNAL, "%s is no new node of this call", node));
    if (json_object_set_nocheck(json_object_get(n->json, "inputs"), input, value))
        AT_TRY(no_memory());
out:
    json_decref(value);
    return st;
}

at_status at_expand_link(at_node_ctx *c, const char *node, const char *input, const char *from,
                         int64_t slot)
{
    return set_input(c, node, input, json_pack("[s, I]", from, (json_int_t)slot));
}

at_status at_expand_json(at_node_ctx *c, const char *node, const char *input, const char *json)
{
    json_t *value = NULL;
    at_status st = at_json_load(input, json, strlen(json), &value);

    return st == AT_OK ? set_input(c, node, input, value) : st;
}

at_status at_expand_value(at_node_ctx *c, const char *node, const char *input, const at_value *v)
{
    at_expansion *e;
    at_status st = AT_OK;
    at_new_node *holder;
    char *name = NULL; // a copy: the list of new nodes may move

    AT_TRY(expansion_of(c, &e));
    if (v->kind == AT_VAL_JSON) return at_expand_json(c, node, input, v->s);
    if (v->kind != AT_VAL_OBJECT && v->kind != AT_VAL_BLOCKER)
        return set_input(c, node, input, at_value_to_json(v));
    name = at_strprintf("%s.%zu.held.%zu", e->maker, e->call, ++e->held);
    AT_TRY(add_node(e, at_strdup(name ? name : ""), held_node.class_type, &holder));
    holder->holds = true;
    holder->given = at_value_copy(v);
    if (!name || holder->given.kind != v->kind) AT_TRY(no_memory());
    AT_TRY(at_expand_link(c, node, input, name, 0));
out:
    at_free(name);
    return st;
}

at_status at_expand_display(at_node_ctx *c, const char *node, const char *display)
{
    at_expansion *e;
    at_status st = expansion_of(c, &e);
    at_new_node *n = st == AT_OK ? find_new(e, node) : NULL;

    if (st != AT_OK) return st;
    if (!n) return at_fail(AT_EINTERNAL, "%s is no new node of this call", node);
    at_free(n->display);
    n->display = at_strdup(display);
    return n->display ? AT_OK : no_memory();
}

at_status at_expand_answer(at_node_ctx *c, size_t slot, const char *from, int64_t from_slot)
{
    at_expansion *e;
    at_status st = expansion_of(c, &e);

    if (st != AT_OK) return st;
    if (slot >= c->node->n_out)
        return at_fail(AT_EINTERNAL, "%s answers for output %zu of %zu", c->node->class_type, slot,
                       c->node->n_out);
    if (e->later_count == e->later_cap) {
        size_t cap = e->later_cap ? 2 * e->later_cap : 8;
        at_later *grown = at_realloc(e->later, cap * sizeof *grown);
        if (!grown) return no_memory();
        e->later = grown;
        e->later_cap = cap;
    }
    e->later[e->later_count] =
        (at_later){.slot = slot, .from = at_strdup(from), .from_slot = from_slot};
    return e->later[e->later_count].from ? (e->later_count++, AT_OK) : no_memory();
}

char *at_node_of_workflow(const at_node_ctx *c, const char *id)
{
    const at_graph *g = c->expansion ? c->expansion->run->graph : NULL;
    size_t i = g ? at_graph_find(g, id) : AT_NO_INDEX;

    return i == AT_NO_INDEX ? NULL : at_json_dump(g->nodes[i].json, AT_JSON_COMPACT);
}

// --- joining the run -----------------------------------------------------------------------------
const at_origin *at_run_origin(const at_run *r, size_t node)
{
    return node != AT_NO_INDEX && node >= r->given_count ? &r->origins[node - r->given_count]
                                                         : NULL;
}

size_t at_run_real(const at_run *r, size_t node)
{
    while (node != AT_NO_INDEX && node >= r->given_count)
        node = r->origins[node - r->given_count].maker;
    return node;
}

// *array grown to `count` entries of `size`, the new ones zero.
static bool grow(void *array, size_t size, size_t old, size_t count)
{
    void **at = array;
    char *grown = at_realloc(*at, (count + 1) * size);

    if (!grown) return false;
    memset(grown + old * size, 0, (count + 1 - old) * size);
    *at = grown;
    return true;
}

static at_status make_room(at_run *r, size_t count)
{
    at_status st = AT_OK;
    size_t old = r->graph->count;

    if (!r->own_graph) {
        AT_TRY(at_graph_clone(r->graph, &r->own_graph));
        r->graph = r->own_graph;
    }
    if (!r->made && !(r->made = json_array())) AT_TRY(no_memory());
    if (!grow(&r->graph->nodes, sizeof *r->graph->nodes, old, count) ||
        !grow(&r->keys, sizeof *r->keys, old, count) ||
        !grow(&r->changed, sizeof *r->changed, old, count) ||
        !grow(&r->never, sizeof *r->never, old, count) ||
        !grow(&r->nodes, sizeof *r->nodes, old, count) ||
        !grow(&r->users, sizeof *r->users, old, count) ||
        !grow(&r->held, sizeof *r->held, old, count) ||
        !grow(&r->partial, sizeof *r->partial, old, count) ||
        !grow(&r->due, sizeof *r->due, old, count) ||
        !grow(&r->origins, sizeof *r->origins, old - r->given_count, count - r->given_count))
        AT_TRY(no_memory());
out:
    return st;
}

// Takes the node's strings, JSON and value.
static at_status join(at_run *r, size_t maker, at_new_node *n)
{
    at_status st = AT_OK;
    at_graph *g = r->graph;
    size_t i = g->count;
    const char *class_type = json_string_value(json_object_get(n->json, "class_type"));
    at_origin *o = &r->origins[i - r->given_count];

    if (json_array_append(r->made, n->json)) AT_TRY(no_memory());
    if (n->holds) {
        r->held[i] = at_result_new(1);
        if (!r->held[i]) AT_TRY(no_memory());
        AT_TRY(at_value_list_push(&r->held[i]->slots[0], n->given));
        n->given = (at_value){0};
    }
    g->nodes[i] =
        (at_graph_node){.id = n->id,
                        .json = n->json,
                        .inputs = json_object_get(n->json, "inputs"),
                        .spec = n->holds ? &held_node : at_registry_find(g->registry, class_type)};
    if (!g->nodes[i].spec)
        AT_TRY(at_fail(AT_EWORKFLOW, "there is no node of class %s", class_type));
    AT_TRY(at_names_add(&g->ids, n->id, i));
    *o = (at_origin){.id = n->id, .display = n->display, .maker = maker};
    n->id = n->display = NULL;
    g->count++;
    r->never[i] = n->holds; // equal to nothing
out:
    if (st != AT_OK) at_result_release(r->held[i]);
    if (st != AT_OK) r->held[i] = NULL;
    return st;
}

static at_status link_new(at_run *r, size_t first)
{
    at_graph *g = r->graph;
    size_t links = 0;
    at_order_link *next, **lists;
    const char *name;
    json_t *value;
    at_link link;

    for (size_t i = first; i < g->count; i++)
        links += json_object_size(g->nodes[i].inputs);
    lists = at_realloc(r->link_lists, (r->link_list_count + 1) * sizeof *lists);
    if (!lists) return no_memory();
    r->link_lists = lists;
    next = r->link_lists[r->link_list_count] = at_calloc(links + 1, sizeof *next);
    if (!next) return no_memory();
    r->link_list_count++;
    for (size_t i = first; i < g->count; i++) {
        at_order_node *o = &r->nodes[i];
        *o = (at_order_node){.links = next, .output = g->nodes[i].spec->flags & AT_NODE_OUTPUT};
        json_object_foreach(g->nodes[i].inputs, name, value)
        {
            if (!at_link_of(g, g->nodes[i].spec, name, value, &link)) continue;
            if (link.from == AT_NO_INDEX || !g->nodes[link.from].spec) continue;
            *next++ = (at_order_link){link.from, link.row && (link.row->flags & AT_INF_LAZY)};
            o->link_count++;
            r->users[link.from]++;
        }
    }
    return AT_OK;
}

at_status at_expansion_install(at_run *r, size_t node, at_expansion *e, const at_later *later,
                               size_t later_count, bool *any)
{
    at_status st = AT_OK;
    size_t first = r->graph->count, from;

    *any = e->count || later_count;
    if (!*any) return AT_OK;
    AT_TRY(make_room(r, first + e->count));
    for (size_t i = 0; i < e->count; i++)
        AT_TRY(join(r, node, &e->nodes[i]));
    for (size_t i = first; i < r->graph->count; i++)
        AT_TRY(at_run_fingerprint(r, i));
    AT_TRY(at_signatures_add(r->graph, first, r->changed, r->never, r->keys));
    AT_TRY(link_new(r, first));
    AT_TRY(at_order_grow(r->order, r->nodes, r->graph->count));
    for (size_t i = first; i < r->graph->count; i++)
        if (r->nodes[i].output) AT_TRY(at_order_add(r->order, i));
    for (size_t i = 0; i < later_count; i++) {
        from = at_graph_find(r->graph, later[i].from);
        if (from == AT_NO_INDEX || !r->graph->nodes[from].spec)
            AT_TRY(at_fail(AT_EWORKFLOW, "Node %s not found", later[i].from));
        r->users[from]++;
        AT_TRY(at_order_require(r->order, from, node));
    }
out:
    return st;
}

// --- putting the result together -----------------------------------------------------------------
static at_status values_of(at_run *r, const at_later *l, at_value_list *to)
{
    at_status st = AT_OK;
    size_t from = at_graph_find(r->graph, l->from);
    at_result *result = from == AT_NO_INDEX ? NULL : at_run_result(r, from);

    if (!result || l->from_slot < 0 || (size_t)l->from_slot >= result->count)
        return at_fail(AT_EWORKFLOW, "output %lld of node %s has no value", (long long)l->from_slot,
                       l->from);
    const at_value_list *s = &result->slots[l->from_slot];
    for (size_t i = 0; i < s->count; i++) {
        at_value copy = at_value_copy(&s->items[i]);
        if (copy.kind != s->items[i].kind) AT_TRY(no_memory());
        AT_TRY(at_value_list_push(to, copy));
    }
    if (at_cache_get_mode(r->cache) == AT_CACHE_NONE && r->users[from] && --r->users[from] == 0)
        at_cache_drop(r->cache, r->keys[from]);
out:
    return st;
}

at_status at_partial_resolve(at_run *r, at_partial *p)
{
    at_status st = AT_OK;

    for (size_t slot = 0; slot < p->result->count; slot++) {
        at_value_list *old = &p->result->slots[slot], whole = {0};
        for (size_t i = 0; i < old->count && st == AT_OK; i++) {
            const at_later *l = NULL;
            for (size_t k = 0; k < p->count && !l; k++)
                if (p->later[k].slot == slot && p->later[k].at == i) l = &p->later[k];
            if (l) {
                st = values_of(r, l, &whole);
            } else {
                st = at_value_list_push(&whole, old->items[i]);
                old->items[i] = (at_value){0};
            }
        }
        at_value_list_clear(old);
        *old = whole;
    }
    return st;
}
