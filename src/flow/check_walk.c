// SPDX-License-Identifier: Apache-2.0
// check_walk.c - ComfyUI's walk from an output upwards: links, constants, the node's own validator.
// Idea: ComfyUI recurses; here an explicit stack of visits does the same, so a chain of any length
// is fine. A visit that hits an exception (a missing node, a slot out of range) is abandoned and
// blamed as ComfyUI blames it: on the output itself, or as an "inner" error where the link was
// followed.
// Easy to get wrong: a cycle is an error without words (ComfyUI runs into its recursion limit, and
// the unwinding visits overwrite the reason): the nodes on it are just not valid.
// Source: ComfyUI 0.3.64 execution.py validate_inputs; comfyui-contract 3.2. Order of errors inside
// a node: ours is the table's (a Python set there).
// Ownership: the walk owns its stack and the verdicts.
#include "flow/check.h"

#include <string.h>

#include "base/mem.h"
#include "flow/fill.h"
#include "flow/object_info.h"
#include "flow/run.h"

static at_status enter(at_walk *w, size_t node)
{
    size_t cap = w->cap ? w->cap * 2 : 64;
    at_visit *grown;

    if (w->depth == w->cap) {
        grown = at_realloc(w->stack, cap * sizeof *grown);
        if (!grown) return at_check_no_memory();
        w->stack = grown;
        w->cap = cap;
    }
    w->stack[w->depth] = (at_visit){.node = node, .valid = true, .errors = json_array()};
    if (!w->stack[w->depth].errors) return at_check_no_memory();
    w->depth++;
    w->verdicts[node].seen = true;
    return AT_OK;
}

// Leave the top visit with a verdict; takes `reasons`.
static void leave(at_walk *w, bool valid, json_t *reasons)
{
    at_visit *v = &w->stack[--w->depth];
    at_verdict *d = &w->verdicts[v->node];

    json_decref(v->errors);
    *d = (at_verdict){.seen = true, .done = true, .valid = valid, .reasons = reasons};
    w->order[w->order_count++] = v->node;
    if (w->depth && !valid) w->stack[w->depth - 1].valid = false;
}

// Is this input one that the node's own validator looks at?
static bool own_business(const at_node *n, const at_in *row)
{
    const char *list = n->validates;
    size_t len = strlen(row->name), m;

    if (!n->validate) return false;
    if (!list) return row->type == AT_IN_COMBO && row->list;
    if (strcmp(list, "*") == 0) return true;
    for (; list; list = list[m] ? list + m + 1 : NULL) {
        list += strspn(list, " ");
        m = strcspn(list, ",");
        if (m == len && memcmp(list, row->name, len) == 0) return true;
    }
    return false;
}

static at_status complain(at_visit *v, const at_node *n, const at_in *row, json_t *error)
{
    if (own_business(n, row)) v->spared = true;
    return at_check_append(v->errors, error);
}

// --- links --------------------------------------------------------------------------------------
static at_status raise_key(at_walk *w, const json_t *key)
{
    at_str s = {0};
    at_status st;

    if (json_is_array(key) || json_is_object(key)) {
        return at_py_raise(&w->raised, "TypeError", "unhashable type: '%s'", at_py_type_name(key));
    }
    at_py_repr(&s, key);
    st = at_py_raise(&w->raised, "KeyError", "%s", at_str_text(&s));
    at_str_free(&s);
    return st;
}

static at_status bad_link(at_walk *w, at_visit *v, const at_graph_node *n, const at_in *row)
{
    json_t *extra = at_extra(row->name), *error;

    if (extra && (!at_extra_put(extra, "input_config", at_checker_config(&w->c, n->spec, row)) ||
                  !at_extra_put(extra, "received_value", json_incref(v->link)))) {
        json_decref(extra);
        extra = NULL;
    }
    error = at_error("bad_linked_input",
                     "Bad linked input, must be a length-2 list of [node_id, slot_index]",
                     at_strdup(row->name), extra);
    return complain(v, n->spec, row, error);
}

static at_status mismatch(at_walk *w, at_visit *v, const at_graph_node *n, const at_in *row,
                          const char *received)
{
    const char *socket = at_in_socket(n->spec, row);
    json_t *extra = at_extra(row->name), *config = at_checker_config(&w->c, n->spec, row);
    at_str details = {0};

    at_str_printf(&details, "%s, received_type(%s) mismatch input_type(", row->name, received);
    if (socket) {
        at_str_append(&details, socket);
    } else {
        at_py_repr(&details, json_array_get(config, 0));
    }
    at_str_append(&details, ")");
    if (!extra) {
        json_decref(config);
    } else if (!at_extra_put(extra, "input_config", config) ||
               !at_extra_put(extra, "received_type", json_string_nocheck(received)) ||
               !at_extra_put(extra, "linked_node", json_incref(v->link))) {
        json_decref(extra);
        extra = NULL;
    }
    return complain(v, n->spec, row,
                    at_error("return_type_mismatch", "Return type mismatch between linked nodes",
                             at_str_take(&details), extra));
}

// AT_EINVAL: an exception was raised.
static at_status follow(at_walk *w, at_visit *v, const at_graph_node *n, const at_in *row)
{
    const json_t *id = json_array_get(v->link, 0);
    const at_graph_node *source;
    const char *received;
    size_t from, slot;
    at_status st;

    if (json_array_size(v->link) != 2) return bad_link(w, v, n, row);
    from = at_json_is_text(id) ? at_graph_find(w->c.graph, json_string_value(id)) : AT_NO_INDEX;
    if (from == AT_NO_INDEX) return raise_key(w, id);
    source = &w->c.graph->nodes[from];
    st = at_py_index(json_array_get(v->link, 1), source->spec->n_out,
                     source->spec->flags & AT_NODE_V3, &slot, &w->raised);
    if (st != AT_OK) return st;
    received = source->spec->out[slot].type_name;
    if (!at_types_meet(received, at_in_socket(n->spec, row)))
        return mismatch(w, v, n, row, received);
    v->through = row;
    if (!w->verdicts[from].seen) return enter(w, from); // v may have moved: do not touch it again
    if (!w->verdicts[from].done || !w->verdicts[from].valid) v->valid = false;
    return AT_OK;
}

// --- the node's own validator -------------------------------------------------------------------
static at_status report_custom(at_visit *v, const at_graph_node *n, const char *reason)
{
    at_status st = AT_OK;
    const at_in *row;
    const char *name;
    json_t *value;
    char *details;

    json_object_foreach(n->inputs, name, value)
    {
        row = at_find_row(n->spec, name, false);
        if (!row || !own_business(n->spec, row)) continue;
        details = reason[0] ? at_strprintf("%s - %s", name, reason) : at_strdup(name);
        AT_TRY(at_check_append(v->errors, at_error("custom_validation_failed",
                                                   "Custom validation failed for node", details,
                                                   at_extra(name))));
    }
out:
    return st;
}

static at_status ask_node(at_walk *w, at_visit *v, const at_graph_node *n)
{
    at_status st = AT_OK;
    at_constants k = {0};
    at_node_ctx ctx = {.node = n->spec, .id = n->id, .job = "", .engine = w->c.engine};
    char *reason = NULL;

    w->c.outside = true;
    at_error_clear();
    st = at_constants_make(n, &k);
    ctx.linked = k.linked;
    if (st == AT_OK) st = n->spec->validate(&ctx, k.in);
    if (st == AT_OK || st == AT_ENOMEM) goto out;
    reason = at_strdup(at_error_text());
    if (!reason) {
        st = at_check_no_memory();
        goto out;
    }
    AT_TRY(report_custom(v, n, reason));
out:
    at_free(reason);
    at_constants_free(&k);
    return st;
}

// --- one visit ----------------------------------------------------------------------------------
static at_status check_row(at_walk *w, at_visit *v, at_graph_node *n, const at_in *row)
{
    json_t *value = json_object_get(n->inputs, row->name), *error = NULL;
    at_status st;

    if (!value) {
        if (row->flags & AT_INF_OPTIONAL) return AT_OK;
        return complain(v, n->spec, row,
                        at_error("required_input_missing", "Required input is missing",
                                 at_strdup(row->name), at_extra(row->name)));
    }
    if (json_is_array(value)) {
        v->link = value;
        return follow(w, v, n, row);
    }
    st = at_check_constant(&w->c, n, row, own_business(n->spec, row), &error);
    if (st != AT_OK) return st;
    return error ? complain(v, n->spec, row, error) : AT_OK;
}

static at_status finish(at_walk *w, at_visit *v, at_graph_node *n)
{
    json_t *reasons = NULL;
    at_status st;

    if (n->spec->validate && !v->spared) {
        st = ask_node(w, v, n);
        if (st != AT_OK) return st;
    }
    if (json_array_size(v->errors)) reasons = json_incref(v->errors);
    leave(w, v->valid && !reasons, reasons);
    return AT_OK;
}

// One row further, or the end of the visit. AT_EINVAL: an exception was raised.
static at_status step(at_walk *w)
{
    at_visit *v = &w->stack[w->depth - 1];
    at_graph_node *n = &w->c.graph->nodes[v->node];
    const at_in *row;

    if (v->row == 0 && !n->inputs) {
        const json_t *inputs = json_object_get(n->json, "inputs");
        if (!inputs) return at_py_raise(&w->raised, "KeyError", "'inputs'");
        if (!json_is_array(inputs) && !at_json_is_text(inputs)) {
            return at_py_raise(&w->raised, "TypeError", "argument of type '%s' is not iterable",
                               at_py_type_name(inputs));
        }
    }
    while (v->row < n->spec->n_in && (n->spec->in[v->row].flags & AT_INF_HIDDEN))
        v->row++;
    if (v->row == n->spec->n_in) return finish(w, v, n);
    row = &n->spec->in[v->row++];
    return check_row(w, v, n, row);
}

// A list of one error that says which exception ended the top visit.
static json_t *blame(at_walk *w)
{
    bool inner = w->depth > 1;
    const at_visit *up = inner ? &w->stack[w->depth - 2] : NULL;
    json_t *extra = at_extra(inner ? up->through->name : NULL), *reasons = json_array(), *error;
    bool good = extra && reasons;

    if (good && inner) {
        const at_graph_node *n = &w->c.graph->nodes[up->node];
        good =
            at_extra_put(extra, "input_config", at_checker_config(&w->c, n->spec, up->through)) &&
            at_extra_put(extra, "exception_message", json_string_nocheck(w->raised.text));
    }
    good = good && at_extra_put(extra, "exception_type", json_string_nocheck(w->raised.type)) &&
           at_extra_put(extra, "traceback", json_array());
    if (good && inner) good = at_extra_put(extra, "linked_node", json_incref(up->link));
    if (!good) {
        json_decref(extra);
        extra = NULL;
    }
    error =
        at_error(inner ? "exception_during_inner_validation" : "exception_during_validation",
                 inner ? "Exception when validating inner node" : "Exception when validating node",
                 at_strdup(w->raised.text), extra);
    if (error && reasons && !json_array_append_new(reasons, error)) return reasons;
    if (error && !reasons) json_decref(error);
    json_decref(reasons);
    return NULL;
}

at_status at_walk_output(at_walk *w, size_t node)
{
    at_status st = AT_OK;
    json_t *reasons;

    if (w->verdicts[node].seen) return AT_OK;
    AT_TRY(enter(w, node));
    while (w->depth) {
        st = step(w);
        if (st == AT_EINVAL && w->raised.type) {
            reasons = blame(w);
            if (!reasons) AT_TRY(at_check_no_memory());
            leave(w, false, reasons);
            at_pyerr_clear(&w->raised);
            st = AT_OK;
        }
        AT_TRY(st);
    }
out:
    return st;
}
