// SPDX-License-Identifier: Apache-2.0
// check.c - is this workflow valid? The report that ComfyUI sends with status 200 or 400.
// Idea: every output node is walked (check_walk.c); after each bad one the errors known so far are
// added to the report with that output as a dependent, exactly in ComfyUI's order.
// Source: ComfyUI 0.3.64 execution.py validate_prompt; comfyui-contract 1.2.
// Ownership: the result owns what it reports.
#include "flow/check.h"

#include <string.h>

#include "base/mem.h"

static at_status set_error(at_check_result *out, const char *type, const char *message,
                           char *details)
{
    out->error = at_error(type, message, details, json_object());
    return out->error ? AT_OK : AT_ENOMEM;
}

static bool wanted(const char *id, const char *const *targets, size_t count)
{
    for (size_t i = 0; targets && i < count; i++) {
        if (strcmp(targets[i], id) == 0) return true;
    }
    return !targets;
}

// Unknown classes end the check at once. *found: the first unknown node was reported.
static at_status check_classes(const at_graph *g, at_check_result *out)
{
    at_str message = {0};
    const json_t *class_type;
    at_status st;

    for (size_t i = 0; i < g->count; i++) {
        if (g->nodes[i].spec) continue;
        class_type = json_object_get(g->nodes[i].json, "class_type");
        if (class_type) {
            at_str_append(&message, "Cannot execute because node ");
            at_py_str(&message, class_type);
            at_str_append(&message, " does not exist.");
        } else {
            at_str_append(&message,
                          "Cannot execute because a node is missing the class_type property.");
        }
        st = set_error(out, "invalid_prompt", message.failed ? NULL : at_str_text(&message),
                       at_strprintf("Node ID '#%s'", g->nodes[i].id));
        at_str_free(&message);
        return st;
    }
    return AT_OK;
}

// Add the errors known so far to the report of output `o`, as ComfyUI does after each bad output.
static at_status report_output(at_walk *w, size_t o, at_check_result *out, size_t *budget)
{
    const at_graph *g = w->c.graph;

    for (size_t i = 0; i < w->order_count && *budget; i++, --*budget) {
        size_t node = w->order[i];
        json_t *entry = json_object_get(out->node_errors, g->nodes[node].id);

        if (w->verdicts[node].valid || !w->verdicts[node].reasons) continue;
        if (!entry) {
            entry = json_object();
            if (!entry || json_object_set_new_nocheck(out->node_errors, g->nodes[node].id, entry) ||
                json_object_set_nocheck(entry, "errors", w->verdicts[node].reasons) ||
                json_object_set_new_nocheck(entry, "dependent_outputs", json_array()) ||
                json_object_set_new_nocheck(entry, "class_type",
                                            json_string_nocheck(g->nodes[node].spec->class_type))) {
                return at_check_no_memory();
            }
        }
        if (at_check_append(json_object_get(entry, "dependent_outputs"),
                            json_string_nocheck(g->nodes[o].id)) != AT_OK) {
            return AT_ENOMEM;
        }
    }
    return AT_OK;
}

static void add_details(at_str *details, const json_t *reasons)
{
    for (size_t i = 0; i < json_array_size(reasons); i++) {
        const json_t *e = json_array_get(reasons, i);
        if (details->len) at_str_append(details, "\n");
        at_str_printf(details, "%s: %s", json_string_value(json_object_get(e, "message")),
                      json_string_value(json_object_get(e, "details")));
    }
}

static at_status check_outputs(at_walk *w, const char *const *targets, size_t target_count,
                               at_check_result *out)
{
    at_status st = AT_OK;
    at_graph *g = w->c.graph;
    at_str details = {0};
    size_t outputs = 0, budget = (size_t)4 << 20; // steps of the report: bounds a hostile workflow

    for (size_t i = 0; i < g->count; i++) {
        if (!(g->nodes[i].spec->flags & AT_NODE_OUTPUT)) continue;
        if (!wanted(g->nodes[i].id, targets, target_count)) continue;
        outputs++;
        AT_TRY(at_walk_output(w, i));
        if (w->verdicts[i].valid) {
            out->outputs[out->output_count] = at_strdup(g->nodes[i].id);
            if (!out->outputs[out->output_count]) AT_TRY(at_check_no_memory());
            out->output_count++;
        } else {
            add_details(&details, w->verdicts[i].reasons);
            AT_TRY(report_output(w, i, out, &budget));
        }
    }
    out->ok = out->output_count > 0;
    if (!outputs) {
        AT_TRY(set_error(out, "prompt_no_outputs", "Prompt has no outputs", at_strdup("")));
    } else if (!out->ok) {
        AT_TRY(set_error(out, "prompt_outputs_failed_validation",
                         "Prompt outputs failed validation", at_str_take(&details)));
    }
out:
    at_str_free(&details);
    return st;
}

static void walk_free(at_walk *w)
{
    while (w->depth)
        json_decref(w->stack[--w->depth].errors);
    for (size_t i = 0; w->verdicts && i < w->c.graph->count; i++) {
        json_decref(w->verdicts[i].reasons);
    }
    at_free(w->verdicts);
    at_free(w->order);
    at_free(w->stack);
    json_decref(w->c.lists);
    at_pyerr_clear(&w->raised);
}

at_status at_check(at_graph *g, const at_registry *r, const at_file_lists *files,
                   const char *const *targets, size_t target_count, void *engine,
                   at_check_result *out)
{
    at_status st = AT_OK;
    at_walk w = {.c = {.graph = g, .files = files, .engine = engine}};

    (void)r; // the graph was parsed with it
    *out = (at_check_result){.node_errors = json_object()};
    w.c.lists = json_object();
    w.verdicts = at_calloc(g->count + 1, sizeof *w.verdicts);
    w.order = at_calloc(g->count + 1, sizeof *w.order);
    out->outputs = at_calloc(g->count + 1, sizeof *out->outputs);
    if (!out->node_errors || !w.c.lists || !w.verdicts || !w.order || !out->outputs) {
        st = at_check_no_memory();
        goto out;
    }
    AT_TRY(check_classes(g, out));
    if (!out->error) AT_TRY(check_outputs(&w, targets, target_count, out));
    out->pure = !w.c.outside;
out:
    walk_free(&w);
    if (st != AT_OK) at_check_result_free(out);
    return st;
}

at_status at_check_no_prompt(at_check_result *out)
{
    at_status st;

    *out = (at_check_result){.node_errors = json_object()};
    st = out->node_errors ? AT_OK : at_check_no_memory();
    if (st == AT_OK) {
        st = set_error(out, "no_prompt", "No prompt provided", at_strdup("No prompt provided"));
    }
    if (st != AT_OK) at_check_result_free(out);
    return st;
}

void at_check_result_free(at_check_result *c)
{
    for (size_t i = 0; c->outputs && i < c->output_count; i++)
        at_free(c->outputs[i]);
    at_free(c->outputs);
    json_decref(c->error);
    json_decref(c->node_errors);
    *c = (at_check_result){0};
}
