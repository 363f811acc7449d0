// SPDX-License-Identifier: Apache-2.0
// visit.c - one node: its inputs, the lazy question, the calls, the result.
// Source: ComfyUI 0.3.64 execution.py execute, merge_result_data, get_output_from_returns;
// comfyui-contract 2.3, 3.4, 3.5.
// Easy to get wrong: a call with a blocker among its inputs is skipped and gives blockers; if the
// blocker has a message it is told once, here, and passed on silent. Blocked results are cached
// like others.
// Ownership: a result belongs to the cache; what a failed call left behind is released here.
#include <string.h>

#include "base/mem.h"
#include "base/trace.h"
#include "flow/execute.h"
#include "json/json.h"
#include "flow/python.h"

static at_status check_cancel(const at_run *r)
{
    return at_sink_cancelled(r->args->sink) ? at_fail(AT_ECANCELLED, "interrupted") : AT_OK;
}

// --- lazy inputs --------------------------------------------------------------------------------
static at_status require_input(at_run *r, size_t node, const at_inputs *in, const char *name,
                               bool *asked)
{
    const at_graph_node *n = &r->graph->nodes[node];
    const json_t *value = json_object_get(n->inputs, name);
    const at_in *row = at_find_row(n->spec, name, false);
    at_link link;

    if (row && in->present[row - n->spec->in] && !in->missing[row - n->spec->in]) return AT_OK;
    if (!value) {
        return at_fail(AT_EWORKFLOW,
                       "Node %s says it needs input %s, but there is no input to that node at all",
                       n->id, name);
    }
    if (!at_link_of(r->graph, n->spec, name, value, &link)) {
        return at_fail(AT_EWORKFLOW, "Node %s says it needs input %s, but that value is a constant",
                       n->id, name);
    }
    *asked = true;
    if (link.from == AT_NO_INDEX || !r->graph->nodes[link.from].spec) {
        return at_fail(AT_EWORKFLOW, "Node %s not found",
                       json_string_value(json_array_get(value, 0)));
    }
    return at_order_require(r->order, link.from, node);
}

static at_status ask_lazy(at_run *r, size_t node, at_inputs *in, at_node_ctx *ctx, bool *again)
{
    at_status st = AT_OK;
    size_t index;
    json_t *name;

    ctx->needed = json_array();
    if (!ctx->needed) AT_TRY(at_fail(AT_ENOMEM, "no memory for a list of inputs"));
    for (size_t i = 0; i < in->calls; i++) {
        AT_TRY(check_cancel(r));
        if (at_inputs_blocker(in, i)) continue;
        AT_TRY(at_inputs_fill(in, i));
        AT_TRY(ctx->node->lazy(ctx, in->in));
    }
    json_array_foreach(ctx->needed, index, name)
    {
        AT_TRY(require_input(r, node, in, json_string_value(name), again));
    }
    if (*again && !at_order_blocked(r->order, node)) {
        AT_TRY(at_fail(AT_EWORKFLOW, "the lazy inputs of node %s have no value and never will",
                       r->graph->nodes[node].id));
    }
out:
    json_decref(ctx->needed);
    ctx->needed = NULL;
    return st;
}

// --- calls --------------------------------------------------------------------------------------
static at_status push_blockers(at_result *result)
{
    at_status st = AT_OK;

    for (size_t i = 0; i < result->count && st == AT_OK; i++) {
        st = at_value_list_push(&result->slots[i], at_value_blocker(NULL));
    }
    return st;
}

// What one call left in `out` and in the emitted lists goes into the result.
static at_status collect(at_node_ctx *ctx, at_value *out, at_result *result)
{
    at_status st = AT_OK;

    for (size_t i = 0; i < result->count; i++) {
        at_value_list *from = &ctx->emitted[i];
        for (size_t k = 0; k < from->count && st == AT_OK; k++) {
            st = at_value_list_push(&result->slots[i], from->items[k]);
            from->items[k] = (at_value){0};
        }
        if (st == AT_OK && (!ctx->node->out[i].is_list || out[i].kind != AT_VAL_NONE)) {
            st = at_value_list_push(&result->slots[i], out[i]);
            out[i] = (at_value){0};
        }
    }
    return st;
}

static at_status call(at_node_ctx *ctx, const at_inputs *in, at_result *result)
{
    size_t n = ctx->node->n_out;
    at_value *out = at_calloc(n + 1, sizeof *out);
    at_status st;

    if (!out) return at_fail(AT_ENOMEM, "no memory for %zu outputs", n);
    st = ctx->node->run(ctx, in->in, out);
    if (st == AT_OK) st = collect(ctx, out, result);
    for (size_t i = 0; i < n; i++) {
        at_value_clear(&out[i]);
        at_value_list_clear(&ctx->emitted[i]);
    }
    at_free(out);
    return st;
}

static at_status run_calls(at_run *r, size_t node, at_inputs *in, at_node_ctx *ctx,
                           at_result *result)
{
    at_status st = AT_OK;
    const at_value *blocker;

    for (size_t i = 0; i < in->calls; i++) {
        AT_TRY(check_cancel(r));
        blocker = at_inputs_blocker(in, i);
        if (blocker) {
            if (blocker->s) at_run_emit_blocked(r, node, blocker->s);
            AT_TRY(push_blockers(result));
            continue;
        }
        AT_TRY(at_inputs_fill(in, i));
        AT_TRY(call(ctx, in, result));
    }
out:
    return st;
}

// --- ui -----------------------------------------------------------------------------------------
// Concatenate the lists of all calls under the keys of the first one.
static at_status merge_uis(const json_t *uis, json_t **out)
{
    at_status st = AT_OK;
    json_t *all = json_object(), *value, *list, *part;
    const char *key;
    size_t i, k;

    *out = NULL;
    if (!all) AT_TRY(at_fail(AT_ENOMEM, "no memory for a node's ui"));
    json_object_foreach(json_array_get(uis, 0), key, value)
    {
        list = json_array();
        if (json_object_set_new_nocheck(all, key, list))
            AT_TRY(at_fail(AT_ENOMEM, "no memory for a node's ui"));
        json_array_foreach(uis, i, part)
        {
            json_t *items = json_object_get(part, key), *item;
            if (!json_is_array(items))
                AT_TRY(at_fail(AT_EINTERNAL, "the node's ui has no list %s", key));
            json_array_foreach(items, k, item)
            {
                if (json_array_append(list, item))
                    AT_TRY(at_fail(AT_ENOMEM, "no memory for a node's ui"));
            }
        }
    }
    *out = all;
    all = NULL;
out:
    json_decref(all);
    return st;
}

static at_status show(at_run *r, size_t node, const json_t *uis, at_result *result)
{
    at_status st = AT_OK;
    json_t *ui = NULL;

    if (!json_array_size(uis)) return AT_OK;
    AT_TRY(merge_uis(uis, &ui));
    if (!json_object_size(ui)) goto out;
    result->ui = at_json_dump(ui, 0);
    if (!result->ui || json_object_set_nocheck(r->uis, r->graph->nodes[node].id, ui)) {
        AT_TRY(at_fail(AT_ENOMEM, "no memory for a node's ui"));
    }
    at_run_emit(r, AT_EV_EXECUTED, node, result->ui);
out:
    json_decref(ui);
    return st;
}

// --- the visit ----------------------------------------------------------------------------------
// Without a cache a result goes when the last of its readers has run.
static void release_sources(at_run *r, size_t node)
{
    const at_order_node *o = &r->nodes[node];

    if (at_cache_get_mode(r->cache) != AT_CACHE_NONE) return;
    for (size_t i = 0; i < o->link_count; i++) {
        size_t from = o->links[i].from;
        if (--r->users[from] == 0) at_cache_drop(r->cache, r->keys[from]);
    }
}

static at_status produce(at_run *r, size_t node, at_inputs *in, at_node_ctx *ctx)
{
    at_status st = AT_OK;
    const at_graph_node *n = &r->graph->nodes[node];
    at_result *result = at_result_new(n->spec->n_out);

    ctx->emitted = at_calloc(n->spec->n_out + 1, sizeof *ctx->emitted);
    ctx->uis = json_array();
    if (!result || !ctx->emitted || !ctx->uis) AT_TRY(at_fail(AT_ENOMEM, "no memory for a result"));
    AT_TRY(run_calls(r, node, in, ctx, result));
    AT_TRY(show(r, node, ctx->uis, result));
    AT_TRY(at_cache_put(r->cache, r->keys[node], result));
    if (json_array_append_new(r->executed, json_string_nocheck(n->id))) {
        AT_TRY(at_fail(AT_ENOMEM, "no memory for the list of executed nodes"));
    }
    release_sources(r, node);
    at_run_emit(r, AT_EV_FINISHED, node, NULL);
out:
    at_free(ctx->emitted);
    json_decref(ctx->uis);
    at_result_release(result);
    return st;
}

at_status at_run_visit(at_run *r, size_t node, at_inputs *in, bool *again)
{
    at_status st = AT_OK;
    const at_graph_node *n = &r->graph->nodes[node];
    at_result *known = at_cache_get(r->cache, r->keys[node]);
    at_node_ctx ctx = {.node = n->spec,
                       .id = n->id,
                       .job = r->args->job,
                       .sink = r->args->sink,
                       .engine = r->args->engine};

    double began;

    *again = false;
    if (known) {
        at_run_emit(r, AT_EV_EXECUTED, node, known->ui);
        at_run_emit(r, AT_EV_FINISHED, node, NULL);
        return AT_OK;
    }
    at_run_emit(r, AT_EV_EXECUTING, node, NULL);
    AT_TRY(at_inputs_gather(r, node, in));
    ctx.linked = in->linked;
    if (n->spec->lazy) AT_TRY(ask_lazy(r, node, in, &ctx, again));
    began = at_trace_begin();
    if (!*again) st = produce(r, node, in, &ctx);
    at_trace_end(began, "node", "%s %s", n->spec->class_type, n->id);
out:
    return st;
}
