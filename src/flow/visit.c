// SPDX-License-Identifier: Apache-2.0
// visit.c - one node: its inputs, the lazy question, the calls, the result.
// Source: ComfyUI 0.3.64 execution.py execute, merge_result_data, get_output_from_returns;
// comfyui-contract 2.3, 3.4, 3.5.
// Easy to get wrong: a call with a blocker among its inputs is skipped and gives blockers; if the
// blocker has a message it is told once, here, and passed on silent. Blocked results are cached
// like others.
// Ownership: a result belongs to the cache; what a failed call left behind is released here.
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/trace.h"
#include "flow/execute.h"
#include "flow/expand.h"
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

// What stands for outputs of the call that is over: places in the result, to be filled later.
static at_status take_answers(at_node_ctx *ctx, at_result *result, at_partial *p)
{
    at_expansion *e = ctx->expansion;
    at_later *grown;

    if (!e->later_count) return AT_OK;
    grown = at_realloc(p->later, (p->count + e->later_count) * sizeof *grown);
    if (!grown) return at_fail(AT_ENOMEM, "no memory for a result");
    p->later = grown;
    for (size_t i = 0; i < e->later_count;
         i++) { // the call left NONE in their place, a list nothing
        at_value_list *slot = &result->slots[e->later[i].slot];
        if (ctx->node->out[e->later[i].slot].is_list) {
            at_status st = at_value_list_push(slot, (at_value){0});
            if (st != AT_OK) return st;
        }
        p->later[p->count] = e->later[i];
        p->later[p->count++].at = slot->count - 1;
        e->later[i].from = NULL; // it is the result's now
    }
    e->later_count = 0;
    return AT_OK;
}

static at_status run_calls(at_run *r, size_t node, at_inputs *in, at_node_ctx *ctx,
                           at_result *result, at_partial *partial)
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
        ctx->call = ctx->expansion->call = i;
        ctx->expansion->numbered = 0;
        AT_TRY(call(ctx, in, result));
        AT_TRY(take_answers(ctx, result, partial));
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

// The result is whole: show it, keep it, say so.
static at_status conclude(at_run *r, size_t node, at_result *result, const json_t *uis)
{
    at_status st = AT_OK;

    AT_TRY(show(r, node, uis, result));
    AT_TRY(at_cache_put(r->cache, r->keys[node], result));
    if (json_array_append_new(r->executed, json_string_nocheck(r->graph->nodes[node].id))) {
        AT_TRY(at_fail(AT_ENOMEM, "no memory for the list of executed nodes"));
    }
    release_sources(r, node);
    at_run_emit(r, AT_EV_FINISHED, node, NULL);
out:
    return st;
}

static at_status produce(at_run *r, size_t node, at_inputs *in, at_node_ctx *ctx, at_visit_end *end)
{
    at_status st = AT_OK;
    size_t outputs = ctx->node->n_out;
    at_expansion made = {.run = r, .maker = ctx->id};
    at_partial *p = at_calloc(1, sizeof *p);
    bool any;

    ctx->emitted = at_calloc(outputs + 1, sizeof *ctx->emitted);
    ctx->uis = json_array();
    ctx->expansion = &made;
    ctx->inputs = in;
    if (p) p->result = at_result_new(outputs);
    if (!p || !p->result || !ctx->emitted || !ctx->uis)
        AT_TRY(at_fail(AT_ENOMEM, "no memory for a result"));
    AT_TRY(run_calls(r, node, in, ctx, p->result, p));
    AT_TRY(at_expansion_install(r, node, &made, p->later, p->count, &any));
    if (any) {
        p->uis = json_incref(ctx->uis);
        r->partial[node] = p;
        p = NULL;
        *end = AT_VISIT_AGAIN;
        goto out;
    }
    AT_TRY(conclude(r, node, p->result, ctx->uis));
out:
    ctx->expansion = NULL;
    at_expansion_free(&made);
    at_partial_free(p);
    at_free(ctx->emitted);
    json_decref(ctx->uis);
    return st;
}

// Its own nodes have run.
static at_status complete(at_run *r, size_t node)
{
    at_partial *p = r->partial[node];
    at_status st = at_partial_resolve(r, p);

    if (st == AT_OK) st = conclude(r, node, p->result, p->uis);
    r->partial[node] = NULL;
    at_partial_free(p);
    return st;
}

// --- waiting ------------------------------------------------------------------------------------
// Seconds that the longest of the calls waits.
static at_status longest_wait(at_inputs *in, at_node_ctx *ctx, double *seconds)
{
    at_status st = AT_OK;

    *seconds = 0;
    for (size_t i = 0; i < in->calls; i++) {
        if (at_inputs_blocker(in, i)) continue;
        AT_TRY(at_inputs_fill(in, i));
        double s = ctx->node->wait(ctx, in->in);
        if (s > *seconds) *seconds = s;
    }
out:
    return st;
}

static at_status fall_asleep(at_run *r, size_t node, double seconds)
{
    at_wait *grown = at_realloc(r->waiting, (r->waiting_count + 1) * sizeof *grown);

    if (!grown) return at_fail(AT_ENOMEM, "no memory for a node that waits");
    r->waiting = grown;
    grown[r->waiting_count] = (at_wait){.node = node, .since = at_now(), .seconds = seconds};
    r->due[node] = grown[r->waiting_count++].since + seconds;
    at_order_sleep(r->order, node);
    return AT_OK;
}

at_status at_run_visit(at_run *r, size_t node, at_inputs *in, at_visit_end *end)
{
    at_status st = AT_OK;
    const at_graph_node *n = &r->graph->nodes[node];
    at_result *known = at_run_result(r, node);
    at_node_ctx ctx = {.node = n->spec,
                       .id = n->id,
                       .job = r->args->job,
                       .sink = r->args->sink,
                       .engine = r->args->engine};
    at_event origin = {0};
    double began, seconds = 0;
    bool again = false;

    *end = AT_VISIT_DONE;
    at_run_name_origin(r, node, &origin);
    ctx.display = origin.display;
    ctx.parent = origin.parent;
    ctx.real = origin.real;
    if (r->partial[node]) return complete(r, node);
    if (known) {
        at_run_emit(r, AT_EV_EXECUTED, node, known->ui);
        at_run_emit(r, AT_EV_FINISHED, node, NULL);
        return AT_OK;
    }
    if (!r->due[node]) at_run_emit(r, AT_EV_EXECUTING, node, NULL);
    AT_TRY(at_inputs_gather(r, node, in));
    ctx.linked = in->linked;
    if (ctx.node->lazy) AT_TRY(ask_lazy(r, node, in, &ctx, &again));
    if (again) *end = AT_VISIT_AGAIN;
    if (again) goto out;
    if (ctx.node->wait && !r->due[node]) AT_TRY(longest_wait(in, &ctx, &seconds));
    if (seconds > 0) {
        *end = AT_VISIT_SLEEPS;
        AT_TRY(fall_asleep(r, node, seconds));
        goto out;
    }
    r->due[node] = 0;
    began = at_trace_begin();
    st = produce(r, node, in, &ctx, end);
    at_trace_end(began, "node", "%s %s", ctx.node->class_type, ctx.id);
out:
    return st;
}
