// SPDX-License-Identifier: Apache-2.0
// editor_widgets.c - the values of a drawn node's widgets get their names.
// Idea: widgets_values is a list in the order in which the class declares its widgets (required,
// then optional), also of those that a link replaced. Two kinds of extra values stand between: what
// happens to a seed after each run, and the upload button behind the required inputs.
// Source: comfyui-contract 3.8. Some packs store an object of values by name instead.
// Owns nothing: values are shared with the drawing.
#include "flow/editor.h"

#include <string.h>

#include "json/json.h"

json_t *at_editor_constant(json_t *value)
{
    json_t *wrapped;

    if (!json_is_array(value)) return json_incref(value);
    wrapped = json_object();
    if (json_object_set(wrapped, "__value__", value)) {
        json_decref(wrapped);
        return NULL;
    }
    return wrapped;
}

static bool is_widget(const at_in *row)
{
    if (row->flags & (AT_INF_HIDDEN | AT_INF_FORCE_INPUT)) return false;
    return row->type != AT_IN_OBJECT && row->type != AT_IN_ANY;
}

static bool has_control(const at_in *row)
{
    if (row->flags & AT_INF_CONTROL) return true;
    return (row->type == AT_IN_INT || row->type == AT_IN_U64) &&
           (strcmp(row->name, "seed") == 0 || strcmp(row->name, "noise_seed") == 0);
}

static bool is_control(const json_t *v)
{
    static const char *const words[] = {"fixed", "increment", "decrement", "randomize",
                                        "increment-wrap"};
    for (size_t i = 0; at_json_is_text(v) && i < AT_COUNT(words); i++) {
        if (strcmp(json_string_value(v), words[i]) == 0) return true;
    }
    return false;
}

static at_status put(const at_editor *e, json_t *inputs, const char *name, json_t *value)
{
    json_t *constant = at_editor_constant(value);

    if (!constant || json_object_set_new(inputs, name, constant)) return at_editor_no_memory(e);
    return AT_OK;
}

static at_status put_by_name(const at_editor *e, const json_t *values, json_t *inputs)
{
    at_status st = AT_OK;
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)values, name, value) AT_TRY(put(e, inputs, name, value));
out:
    return st;
}

at_status at_editor_widgets(const at_editor *e, const json_t *node, json_t *inputs)
{
    at_status st = AT_OK;
    const json_t *values = json_object_get(node, "widgets_values");
    const at_node *n =
        at_registry_find(e->registry, json_string_value(json_object_get(node, "type")));
    bool upload = false;
    size_t at = 0;

    if (json_is_object(values)) return put_by_name(e, values, inputs);
    if (!n) return AT_OK; // at_check will name the unknown class
    for (int optional = 0; optional <= 1; optional++) {
        for (size_t i = 0; i < n->n_in && at < json_array_size(values); i++) {
            const at_in *row = &n->in[i];
            if (!is_widget(row) || !(row->flags & AT_INF_OPTIONAL) == (bool)optional) continue;
            AT_TRY(put(e, inputs, row->name, json_array_get(values, at++)));
            if (has_control(row) && is_control(json_array_get(values, at))) at++;
            upload |= (row->flags & AT_INF_IMAGE_UPLOAD) ||
                      (row->extra && strstr(row->extra, "_upload\""));
        }
        if (!optional && upload) at++; // the button
    }
out:
    return st;
}
