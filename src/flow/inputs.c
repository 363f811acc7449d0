// SPDX-License-Identifier: Apache-2.0
// inputs.c - what lies on the inputs of a node that is about to run, and the struct of each call.
// Idea: every value is a list. A constant is a list of one. Without INPUT_IS_LIST the node runs as
// often as the longest list is long, and shorter lists repeat their last value.
// Source: ComfyUI 0.3.64 execution.py get_input_data, _async_map_node_over_list; comfyui-contract
// 3.4.
// Ownership: lists are borrowed from the results in the cache; constants belong to the at_inputs.
#include <string.h>

#include "base/mem.h"
#include "flow/execute.h"
#include "flow/fill.h"
#include "flow/python.h"

static const at_value nothing = {.kind = AT_VAL_NONE};

// The values of output `slot` of node `from`; false if there are none yet.
static at_status linked_values(at_run *r, const at_link *link, at_values *out, bool *there)
{
    at_result *result = NULL;
    at_pyerr why = {0};
    at_status st;
    size_t slot;

    *there = false;
    if (link->from != AT_NO_INDEX) result = at_run_result(r, link->from);
    if (!result) return AT_OK;
    st = at_py_index(link->slot, result->count, true, &slot, &why);
    if (st == AT_OK) {
        *out = (at_values){result->slots[slot].items, result->slots[slot].count};
        *there = true;
    }
    at_pyerr_clear(&why);
    return st == AT_EINVAL ? AT_OK : st; // an output that is not there stays missing
}

static at_status gather_row(at_run *r, const at_graph_node *n, size_t i, at_inputs *in)
{
    const at_in *row = &in->node->in[i];
    const json_t *literal = json_object_get(n->inputs, row->name);
    const char *text = NULL;
    at_link link;
    bool there;
    at_status st;

    in->rows[i] = (at_values){&in->singles[i], 1};
    if ((row->flags & AT_INF_HIDDEN) && row->type != AT_IN_ANY) {
        in->present[i] = !(in->node->flags & AT_NODE_V3);
        st = at_run_hidden(r, row, n->id, &text);
        if (st != AT_OK || !text) return st;
        in->singles[i] = at_value_string(text);
        return in->singles[i].kind ? AT_OK : at_fail(AT_ENOMEM, "no memory for %s", row->name);
    }
    in->present[i] = literal != NULL;
    if (!literal) return AT_OK;
    if ((row->flags & AT_INF_RAW_LINK) ||
        !at_link_of(r->graph, in->node, row->name, literal, &link)) {
        return at_value_from_json(literal, &in->singles[i]);
    }
    in->linked[i] = true;
    st = linked_values(r, &link, &in->rows[i], &there);
    in->missing[i] = !there;
    return st;
}

// Linked inputs that the table does not know.
static at_status gather_more(at_run *r, const at_graph_node *n, at_inputs *in)
{
    at_status st = AT_OK;
    size_t count = json_object_size(n->inputs);
    const char *name;
    json_t *value;
    at_link link;
    bool there;

    if (!(n->spec->flags & AT_NODE_VARIADIC)) return AT_OK;
    in->more = at_calloc(count + 1, sizeof *in->more);
    in->more_values = at_calloc(count + 1, sizeof *in->more_values);
    if (!in->more || !in->more_values) return at_fail(AT_ENOMEM, "no memory for %zu inputs", count);
    json_object_foreach(n->inputs, name, value)
    {
        at_values *v = &in->more_values[in->more_count];
        if (at_find_row(n->spec, name, true) || !at_link_of(r->graph, NULL, name, value, &link))
            continue;
        AT_TRY(linked_values(r, &link, v, &there));
        if (!there) continue;
        if (v->count > in->calls && !(n->spec->flags & AT_NODE_INPUT_IS_LIST)) in->calls = v->count;
        in->more[in->more_count++] = name;
    }
out:
    return st;
}

at_status at_inputs_gather(at_run *r, size_t node, at_inputs *out)
{
    at_status st = AT_OK;
    const at_graph_node *n = &r->graph->nodes[node];
    size_t count = n->spec->n_in;
    bool *flags = at_calloc(3 * count + 1, sizeof *flags);

    *out = (at_inputs){.node = n->spec, .count = count, .present = flags};
    out->rows = at_calloc(count + 1, sizeof *out->rows);
    out->singles = at_calloc(count + 1, sizeof *out->singles);
    out->in = at_calloc(1, n->spec->in_size + 1);
    if (!flags || !out->rows || !out->singles || !out->in) {
        AT_TRY(at_fail(AT_ENOMEM, "no memory for %zu inputs", count));
    }
    out->missing = flags + count;
    out->linked = flags + 2 * count;
    out->calls = n->spec->flags & AT_NODE_INPUT_IS_LIST ? 1 : 0;
    for (size_t i = 0; i < count; i++) {
        AT_TRY(gather_row(r, n, i, out));
        if (out->present[i] && out->rows[i].count > out->calls &&
            !(n->spec->flags & AT_NODE_INPUT_IS_LIST)) {
            out->calls = out->rows[i].count;
        }
    }
    AT_TRY(gather_more(r, n, out));
    for (size_t i = 0; i < count && !out->calls; i++) {
        if (out->present[i])
            AT_TRY(at_fail(AT_EINVAL, "input %s: an empty list", out->node->in[i].name));
    }
    if (!out->calls) out->calls = 1; // no inputs at all
out:
    return st;
}

void at_inputs_free(at_inputs *in)
{
    for (size_t i = 0; in->singles && i < in->count; i++)
        at_value_clear(&in->singles[i]);
    at_free(in->singles);
    at_free(in->rows);
    at_free(in->more);
    at_free(in->more_values);
    at_free(in->present); // the three arrays of flags are one
    at_free(in->in);
    *in = (at_inputs){0};
}

static const at_value *value_of(const at_inputs *in, size_t row, size_t i)
{
    const at_values *v = &in->rows[row];

    if (!v->count) return &nothing;
    return &v->items[i < v->count ? i : v->count - 1];
}

const at_value *at_inputs_more(const at_inputs *in, const char *name, size_t i)
{
    for (size_t k = 0; k < in->more_count; k++) {
        const at_values *v = &in->more_values[k];
        if (strcmp(in->more[k], name) == 0 && v->count)
            return &v->items[i < v->count ? i : v->count - 1];
    }
    return NULL;
}

const at_value *at_inputs_blocker(const at_inputs *in, size_t i)
{
    bool whole = in->node->flags & AT_NODE_INPUT_IS_LIST;

    for (size_t k = 0; k < in->count; k++) {
        if (!in->present[k]) continue;
        for (size_t j = whole ? 0 : i; j < (whole ? in->rows[k].count : i + 1); j++) {
            const at_value *v = value_of(in, k, j);
            if (v->kind == AT_VAL_BLOCKER) return v;
        }
    }
    for (size_t k = 0; k < in->more_count; k++) {
        const at_value *v = at_inputs_more(in, in->more[k], i);
        if (v && v->kind == AT_VAL_BLOCKER) return v;
    }
    return NULL;
}

at_status at_inputs_fill(at_inputs *in, size_t i)
{
    at_status st = AT_OK;

    memset(in->in, 0, in->node->in_size);
    for (size_t k = 0; k < in->count; k++) {
        const at_in *row = &in->node->in[k];
        const at_value *v = value_of(in, k, i);
        if (in->node->flags & AT_NODE_INPUT_IS_LIST) {
            bool empty = !in->present[k] && v->kind == AT_VAL_NONE;
            at_values none = {0};
            at_fill_list(row, empty ? none : in->rows[k], in->in);
        } else if ((row->flags & AT_INF_HIDDEN) && row->type != AT_IN_ANY) {
            *(const char **)((char *)in->in + row->offset) = v->kind ? v->s : NULL;
        } else if (in->present[k] && !in->rows[k].count) {
            AT_TRY(
                at_fail(AT_EINVAL, "input %s: list index out of range (an empty list)", row->name));
        } else if (!in->missing[k]) { // a lazy input that is not there stays zero
            AT_TRY(at_fill_row(in->node, row, v, in->in));
        }
    }
out:
    return st;
}

json_t *at_inputs_json(const at_inputs *in)
{
    json_t *all = json_object();

    for (size_t k = 0; all && k < in->count; k++) {
        json_t *list = in->present[k] ? json_array() : NULL;
        if (!in->present[k]) continue;
        for (size_t j = 0; list && j < in->rows[k].count; j++) {
            if (!json_array_append_new(list, at_value_to_json(&in->rows[k].items[j]))) continue;
            json_decref(list);
            list = NULL;
        }
        if (json_object_set_new_nocheck(all, in->node->in[k].name, list)) {
            json_decref(all);
            all = NULL;
        }
    }
    return all;
}
