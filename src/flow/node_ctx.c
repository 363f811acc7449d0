// SPDX-License-Identifier: Apache-2.0
// node_ctx.c - what a node's functions may ask and say while they run.
// Ownership: see run.h. Called on the job's thread only.
#include "flow/execute.h"

#include <string.h>

#include "base/mem.h"
#include "json/json.h"

at_status at_value_list_push(at_value_list *l, at_value v)
{
    size_t cap = l->cap ? l->cap * 2 : 1; // nearly always one value
    at_value *grown;

    if (l->count == l->cap) {
        grown = at_realloc(l->items, cap * sizeof *grown);
        if (!grown) {
            at_value_clear(&v);
            return at_fail(AT_ENOMEM, "no memory for a list of %zu values", cap);
        }
        l->items = grown;
        l->cap = cap;
    }
    l->items[l->count++] = v;
    return AT_OK;
}

void at_value_list_clear(at_value_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        at_value_clear(&l->items[i]);
    at_free(l->items);
    *l = (at_value_list){0};
}

at_status at_node_emit(at_node_ctx *c, size_t slot, at_value v)
{
    if (!c->emitted || slot >= c->node->n_out) {
        at_value_clear(&v);
        return at_fail(AT_EINTERNAL, "%s emits a value for output %zu of %zu", c->node->class_type,
                       slot, c->node->n_out);
    }
    return at_value_list_push(&c->emitted[slot], v);
}

at_status at_node_need(at_node_ctx *c, const char *input)
{
    if (!c->needed) {
        return at_fail(AT_EINTERNAL, "%s asks for input %s outside its lazy function",
                       c->node->class_type, input);
    }
    if (json_array_append_new(c->needed, json_string_nocheck(input))) {
        return at_fail(AT_ENOMEM, "no memory for the name of input %s", input);
    }
    return AT_OK;
}

bool at_node_linked(const at_node_ctx *c, const char *input)
{
    for (size_t i = 0; c->linked && i < c->node->n_in; i++) {
        if (strcmp(c->node->in[i].name, input) == 0) return c->linked[i];
    }
    return false;
}

const at_value *at_node_more(const at_node_ctx *c, const char *input)
{
    return c->inputs ? at_inputs_more(c->inputs, input, c->call) : NULL;
}

const char *at_node_id(const at_node_ctx *c)
{
    return c->id;
}

const at_sink *at_node_sink(const at_node_ctx *c)
{
    return c->sink;
}

void *at_node_engine(const at_node_ctx *c)
{
    return c->engine;
}

void at_node_progress(at_node_ctx *c, double value, double max)
{
    at_sink_emit(c->sink, &(at_event){.kind = AT_EV_PROGRESS,
                                      .job = c->job,
                                      .node = c->id,
                                      .display = c->display,
                                      .parent = c->parent,
                                      .real = c->real,
                                      .class_type = c->node->class_type,
                                      .value = value,
                                      .max = max});
}

static void show(at_node_ctx *c, const char *how, const void *rgb8, int width, int height)
{
    at_sink_emit(c->sink, &(at_event){.kind = AT_EV_PREVIEW,
                                      .job = c->job,
                                      .node = c->id,
                                      .display = c->display,
                                      .parent = c->parent,
                                      .class_type = c->node->class_type,
                                      .text = how,
                                      .value = width,
                                      .max = height,
                                      .data = rgb8,
                                      .bytes = (size_t)width * (size_t)height * 3});
}

void at_node_preview(at_node_ctx *c, const void *rgb8, int width, int height)
{
    show(c, NULL, rgb8, width, height);
}

void at_node_show(at_node_ctx *c, const void *rgb8, int width, int height)
{
    show(c, "png", rgb8, width, height);
}

at_status at_node_ui(at_node_ctx *c, const char *json)
{
    json_t *ui = NULL;
    at_status st;

    if (!c->uis) {
        return at_fail(AT_EINTERNAL, "%s shows a result outside its run function",
                       c->node->class_type);
    }
    st = at_json_load(c->node->class_type, json, strlen(json), &ui);
    if (st != AT_OK)
        return st == AT_ENOMEM ? st : at_fail_context(AT_EINTERNAL, "ui of the node: ");
    if (!json_is_object(ui)) {
        json_decref(ui);
        return at_fail(AT_EINTERNAL, "%s: the ui is no JSON object: %.80s", c->node->class_type,
                       json);
    }
    if (json_array_append_new(c->uis, ui)) return at_fail(AT_ENOMEM, "no memory for a node's ui");
    return AT_OK;
}
