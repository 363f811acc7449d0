// SPDX-License-Identifier: Apache-2.0
// prepare.c - before the first node runs: fingerprints, signatures, the cache's turn, the execution
// list.
// Source: ComfyUI 0.3.64 execution.py execute_async, IsChangedCache; comfyui-contract 3.3, 3.6.
// Easy to get wrong: fingerprints of all nodes of the prompt are taken, also of those that will not
// run; a node that brings "is_changed" along is believed; ComfyUI leaves the value in the prompt,
// so that the PNG's copy of the workflow shows it.
// Ownership: the run owns what is made here.
#include <string.h>

#include "base/mem.h"
#include "flow/execute.h"
#include "flow/expand.h"
#include "flow/fill.h"
#include "json/json.h"
#include "flow/signature.h"

static at_status no_memory(void)
{
    return at_fail(AT_ENOMEM, "no memory for the run of a workflow");
}

// --- fingerprints -------------------------------------------------------------------------------
static at_status keep_fingerprint(at_run *r, size_t i, const char *text)
{
    json_t *list = json_array();

    if (!list || json_array_append_new(list, json_string_nocheck(text))) {
        json_decref(list);
        return no_memory();
    }
    r->changed[i] = at_json_dump(list, 0);
    json_decref(list);
    return r->changed[i] ? AT_OK : no_memory();
}

static at_status take_fingerprint(at_run *r, size_t i)
{
    const at_graph_node *n = &r->graph->nodes[i];
    at_node_ctx ctx = {
        .node = n->spec, .id = n->id, .job = r->args->job, .engine = r->args->engine};
    at_constants k = {0};
    char *text = NULL;
    at_status st = at_constants_make(n, &k);

    ctx.linked = k.linked;
    if (st == AT_OK) st = n->spec->fingerprint(&ctx, k.in, &text);
    if (st == AT_OK) {
        st = keep_fingerprint(r, i, text ? text : "");
    } else if (st != AT_ENOMEM) {
        r->never[i] = true;
        st = AT_OK;
    }
    at_free(text);
    at_constants_free(&k);
    return st;
}

at_status at_run_fingerprint(at_run *r, size_t i)
{
    const at_graph_node *n = &r->graph->nodes[i];
    const json_t *given;

    if (!n->spec || !n->spec->fingerprint) return AT_OK;
    given = json_object_get(n->json, "is_changed");
    if (!given) return take_fingerprint(r, i);
    r->changed[i] = at_json_dump(given, AT_JSON_SORTED);
    return r->changed[i] ? AT_OK : no_memory();
}

static at_status take_fingerprints(at_run *r)
{
    at_status st = AT_OK;

    for (size_t i = 0; i < r->graph->count; i++)
        AT_TRY(at_run_fingerprint(r, i));
out:
    return st;
}

// What an output node shows names files in its owner's folder: another owner's job must write its own.
static void keep_owners_apart(at_run *r)
{
    at_digest key;
    at_hash h;

    if (!r->args->owner) return;
    at_hash_key(&key);
    for (size_t i = 0; i < r->graph->count; i++) {
        const at_node *n = r->graph->nodes[i].spec;
        if (!n || !(n->flags & AT_NODE_OUTPUT)) continue;
        at_hash_start(&h, key);
        at_hash_text(&h, r->args->owner);
        at_hash_u64(&h, r->keys[i].a);
        at_hash_u64(&h, r->keys[i].b);
        r->keys[i] = at_hash_end(&h);
    }
}

// --- the execution list -------------------------------------------------------------------------
static size_t count_links(const at_graph *g)
{
    size_t n = 0;
    const char *name;
    json_t *value;

    for (size_t i = 0; i < g->count; i++) {
        json_object_foreach(g->nodes[i].inputs, name, value) n += at_is_link(value);
    }
    return n;
}

// The links of all nodes in the order of their inputs; a link to a node that is not there waits for
// nobody.
static at_status link_nodes(at_run *r)
{
    at_graph *g = r->graph;
    at_order_link *next;
    const char *name;
    json_t *value;
    at_link link;

    r->nodes = at_calloc(g->count + 1, sizeof *r->nodes);
    r->links = at_calloc(count_links(g) + 1, sizeof *r->links);
    r->users = at_calloc(g->count + 1, sizeof *r->users);
    if (!r->nodes || !r->links || !r->users) return no_memory();
    next = r->links;
    for (size_t i = 0; i < g->count; i++) {
        at_order_node *o = &r->nodes[i];
        *o = (at_order_node){.links = next,
                             .output =
                                 g->nodes[i].spec && (g->nodes[i].spec->flags & AT_NODE_OUTPUT)};
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

at_result *at_run_result(at_run *r, size_t node)
{
    return r->held[node] ? r->held[node] : at_cache_get(r->cache, r->keys[node]);
}

bool at_run_cached(void *run, size_t node)
{
    return at_run_result(run, node) != NULL;
}

at_status at_run_prepare(at_run *r, const at_execute_args *args)
{
    at_status st = AT_OK;
    size_t n = args->graph->count;

    *r = (at_run){.args = args, .graph = args->graph, .cache = args->cache, .given_count = n};
    if (!r->cache) {
        AT_TRY(at_cache_new(AT_CACHE_NONE, 0, &r->own_cache));
        r->cache = r->own_cache;
    }
    r->keys = at_calloc(n + 1, sizeof *r->keys);
    r->changed = at_calloc(n + 1, sizeof *r->changed);
    r->never = at_calloc(n + 1, sizeof *r->never);
    r->held = at_calloc(n + 1, sizeof *r->held);
    r->partial = at_calloc(n + 1, sizeof *r->partial);
    r->due = at_calloc(n + 1, sizeof *r->due);
    r->executed = json_array();
    r->uis = json_object();
    if (!r->keys || !r->changed || !r->never || !r->held || !r->partial || !r->due ||
        !r->executed || !r->uis)
        AT_TRY(no_memory());
    AT_TRY(take_fingerprints(r));
    AT_TRY(at_signatures(r->graph, r->changed, r->never, r->keys));
    keep_owners_apart(r);
    at_cache_begin(r->cache, r->keys, n);
    AT_TRY(link_nodes(r));
    AT_TRY(at_order_new(r->nodes, n, at_run_cached, r, &r->order));
out:
    return st;
}

void at_run_free(at_run *r)
{
    size_t n = r->graph ? r->graph->count : 0;

    for (size_t i = 0; r->changed && i < n; i++)
        at_free(r->changed[i]);
    for (size_t i = 0; r->held && i < n; i++)
        at_result_release(r->held[i]);
    for (size_t i = 0; r->partial && i < n; i++)
        at_partial_free(r->partial[i]);
    for (size_t i = r->given_count; i < n; i++) {
        at_free(r->origins[i - r->given_count].id);
        at_free(r->origins[i - r->given_count].display);
    }
    for (size_t i = 0; i < r->link_list_count; i++)
        at_free(r->link_lists[i]);
    at_graph_free(r->own_graph);
    at_free(r->held);
    at_free(r->partial);
    at_free(r->due);
    at_free(r->waiting);
    at_free(r->origins);
    at_free(r->link_lists);
    json_decref(r->made);
    at_free(r->changed);
    at_free(r->never);
    at_free(r->keys);
    at_free(r->nodes);
    at_free(r->links);
    at_free(r->users);
    at_order_free(r->order);
    at_cache_free(r->own_cache);
    json_decref(r->executed);
    json_decref(r->uis);
    at_free(r->prompt);
    at_free(r->pnginfo);
}

// --- hidden inputs ------------------------------------------------------------------------------
// The prompt as json.dumps prints it, with the fingerprints that ComfyUI leaves in it.
static char *prompt_text(const at_run *r)
{
    at_str s = {0};
    const char *key;
    json_t *value;

    at_str_append(&s, "{");
    for (size_t i = 0; i < r->given_count; i++) {
        const at_graph_node *n = &r->graph->nodes[i];
        json_t *id = json_string_nocheck(n->id);
        bool first = true;
        if (i) at_str_append(&s, ", ");
        at_json_append(&s, id, 0);
        s.failed |= !id;
        json_decref(id);
        if (!json_is_object(n->json) || (!r->changed[i] && !r->never[i])) {
            at_str_append(&s, ": ");
            at_json_append(&s, n->json, 0);
            continue;
        }
        at_str_append(&s, ": {");
        json_object_foreach(n->json, key, value)
        {
            if (strcmp(key, "is_changed") == 0) continue;
            id = json_string_nocheck(key);
            s.failed |= !id;
            if (!first) at_str_append(&s, ", ");
            at_json_append(&s, id, 0);
            at_str_append(&s, ": ");
            at_json_append(&s, value, 0);
            json_decref(id);
            first = false;
        }
        at_str_printf(&s, "%s\"is_changed\": %s}", first ? "" : ", ",
                      r->changed[i] ? r->changed[i] : "NaN");
    }
    at_str_append(&s, "}");
    return at_str_take(&s);
}

at_status at_run_hidden(at_run *r, const at_in *row, const char *id, const char **text)
{
    const char *kind = row->type_name ? row->type_name : "";

    *text = NULL;
    if (strcmp(kind, "UNIQUE_ID") == 0) {
        *text = id;
    } else if (strcmp(kind, "PROMPT") == 0) {
        if (!r->prompt) r->prompt = prompt_text(r);
        if (!r->prompt) return no_memory();
        *text = r->prompt;
    } else if (strcmp(kind, "EXTRA_PNGINFO") == 0 && r->args->extra_pnginfo) {
        if (!r->pnginfo) r->pnginfo = at_json_dump(r->args->extra_pnginfo, 0);
        if (!r->pnginfo) return no_memory();
        *text = r->pnginfo;
    }
    return AT_OK;
}
