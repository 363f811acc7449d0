// SPDX-License-Identifier: Apache-2.0
// execute.c - runs a checked workflow to its end, an error or a cancel.
// Idea: take the next node of the execution list, visit it, tell the sink; the first failure ends
// the run and what was shown until then stays.
// Source: ComfyUI 0.3.64 execution.py PromptExecutor.execute_async; comfyui-contract 2.3, 3.3.
// Ownership: see execute.h.
#include "flow/execute.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/mem.h"
#include "json/json.h"

// Say why the run ends at `node` and give the status its message.
static at_status fail_at(at_run *r, at_status st, const char *type, size_t node,
                         const at_inputs *in)
{
    node = at_run_real(r, node);
    const at_graph_node *n = &r->graph->nodes[node];
    char cause[2048]; // a copy without allocation: memory may be what is missing

    snprintf(cause, sizeof cause, "%s", at_error_text());
    at_run_emit_failure(r, st, type, node, cause, in);
    return at_fail(st, "node %s (%s): %s", n->id, n->spec ? n->spec->class_type : "?", cause);
}

static at_status start_list(at_run *r)
{
    const at_check_result *check = r->args->check;
    at_status st = AT_OK;
    size_t node;

    for (size_t i = 0; i < check->output_count; i++) {
        node = at_graph_find(r->graph, check->outputs[i]);
        if (node == AT_NO_INDEX || !r->graph->nodes[node].spec) {
            return at_fail(AT_EINTERNAL, "output %s is no node of this workflow",
                           check->outputs[i]);
        }
        AT_TRY(at_order_add(r->order, node));
    }
out:
    return st;
}

static at_status run_one(at_run *r, size_t node)
{
    at_inputs in = {0};
    at_visit_end end;
    at_status st = at_run_visit(r, node, &in, &end);

    if (st == AT_OK && end == AT_VISIT_DONE) st = at_order_done(r->order, node);
    if (st == AT_OK && end == AT_VISIT_AGAIN) st = at_order_again(r->order, node);
    if (st != AT_OK) st = fail_at(r, st, NULL, node, &in);
    at_inputs_free(&in);
    return st;
}

// Nodes whose time has come are ready again; *asleep: how many are not.
static at_status wake_due(at_run *r, size_t *asleep)
{
    at_status st = AT_OK;
    double now = at_now();
    size_t left = 0;

    for (size_t i = 0; i < r->waiting_count; i++) {
        at_wait w = r->waiting[i];
        if (now < w.since + w.seconds)
            r->waiting[left++] = w;
        else
            AT_TRY(at_order_wake(r->order, w.node));
    }
    r->waiting_count = *asleep = left;
out:
    return st;
}

// Nothing to do until one of the waiting nodes wakes: say how far they are, and look again soon.
static at_status rest(at_run *r)
{
    if (at_sink_cancelled(r->args->sink)) {
        at_fail(AT_ECANCELLED, "interrupted");
        return fail_at(r, AT_ECANCELLED, NULL, r->waiting[0].node, &(at_inputs){0});
    }
    for (size_t i = 0; i < r->waiting_count; i++) {
        const at_wait *w = &r->waiting[i];
        at_event e = {.kind = AT_EV_PROGRESS,
                      .job = r->args->job,
                      .node = r->graph->nodes[w->node].id,
                      .value = at_now() - w->since,
                      .max = w->seconds};
        at_run_name_origin(r, w->node, &e);
        at_sink_emit(r->args->sink, &e);
    }
    nanosleep(&(struct timespec){0, 10000000}, NULL);
    return AT_OK;
}

// The node that a cycle is blamed on: what made the first of its nodes that a node made, else the first.
static size_t blamed(const at_run *r)
{
    for (size_t i = r->given_count; i < r->graph->count; i++)
        if (at_order_pending(r->order, i)) return at_run_real(r, i);
    return at_order_in_cycle(r->order);
}

static at_status run_all(at_run *r)
{
    at_status st = AT_OK;
    size_t node, asleep;

    at_run_emit_cached(r);
    AT_TRY(start_list(r));
    while (!at_order_empty(r->order)) {
        AT_TRY(wake_due(r, &asleep));
        if (at_order_next(r->order, &node)) {
            AT_TRY(run_one(r, node));
        } else if (asleep) {
            AT_TRY(rest(r));
        } else {
            at_fail(AT_EWORKFLOW, "Dependency cycle detected");
            AT_TRY(
                fail_at(r, AT_EWORKFLOW, "graph.DependencyCycleError", blamed(r), &(at_inputs){0}));
        }
    }
    at_run_emit(r, AT_EV_SUCCESS, AT_NO_INDEX, NULL);
out:
    return st;
}

// {"id": ui} of every node of the prompt that has one, of this run or of the cache.
static at_status gather_outputs(at_run *r, json_t **outputs)
{
    at_status st = AT_OK;
    json_t *all = json_object(), *ui;
    at_result *result;

    if (!all) AT_TRY(at_fail(AT_ENOMEM, "no memory for the outputs"));
    for (size_t i = 0; i < r->graph->count; i++) {
        ui = json_incref(json_object_get(r->uis, r->graph->nodes[i].id));
        result = ui ? NULL : at_cache_get(r->cache, r->keys[i]);
        if (result && result->ui) {
            AT_TRY(at_json_load("ui", result->ui, strlen(result->ui), &ui));
        }
        if (ui && json_object_set_new_nocheck(all, r->graph->nodes[i].id, ui)) {
            AT_TRY(at_fail(AT_ENOMEM, "no memory for the outputs"));
        }
    }
    *outputs = all;
    all = NULL;
out:
    json_decref(all);
    return st;
}

at_status at_execute(const at_execute_args *args, json_t **outputs)
{
    at_run r;
    at_status st, told;

    if (outputs) *outputs = NULL;
    at_sink_emit(args->sink, &(at_event){.kind = AT_EV_START, .job = args->job});
    st = at_run_prepare(&r, args);
    if (st == AT_OK) {
        st = run_all(&r);
        if (outputs) { // also after a failure: what was shown until then
            char cause[2048];
            snprintf(cause, sizeof cause, "%s", at_error_text());
            told = gather_outputs(&r, outputs);
            if (st != AT_OK) {
                at_fail(st, "%s", cause);
            } else {
                st = told;
            }
        }
    }
    at_run_free(&r);
    return st;
}
