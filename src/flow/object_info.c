// SPDX-License-Identifier: Apache-2.0
// object_info.c - prints a node's table as ComfyUI's /object_info does.
// Idea: two dialects. V1 classes give INPUT_TYPES() as it is: combos are lists, options may be
// absent. V3 schemas always print options, combos as ["COMBO", {"options": [...]}], hidden inputs
// as lists, and the keys output_tooltips, deprecated, experimental, api_node. Source: ComfyUI
// 0.3.64 server.py node_info and comfy_api/latest/_io.py get_v1_info; comfyui-contract 1.4.
// Owns nothing: every function gives a new reference or NULL.
#include "flow/object_info.h"

#include <math.h>
#include <string.h>

#include "json/json.h"

// A json object or array under construction: the first failure sticks.
typedef struct maker {
    json_t *v;
    bool failed;
} maker;

static void put(maker *m, const char *key, json_t *value)
{
    if (m->failed) {
        json_decref(value);
    } else if (json_object_set_new_nocheck(m->v, key, value)) {
        m->failed = true;
    }
}

static void push(maker *m, json_t *value)
{
    if (m->failed) {
        json_decref(value);
    } else if (json_array_append_new(m->v, value)) {
        m->failed = true;
    }
}

static json_t *made(maker *m)
{
    if (!m->failed) return m->v;
    json_decref(m->v);
    return NULL;
}

static json_t *text_or_null(const char *s)
{
    return s ? json_string_nocheck(s) : json_null();
}

static bool v3(const at_node *n)
{
    return n->flags & AT_NODE_V3;
}

static bool combo_by_name(const at_node *n, const at_in *row)
{
    return v3(n) || (row->flags & AT_INF_COMBO_OPTIONS);
}

const char *at_in_socket(const at_node *n, const at_in *row)
{
    switch (row->type) {
    case AT_IN_INT:
    case AT_IN_U64: return "INT";
    case AT_IN_FLOAT: return "FLOAT";
    case AT_IN_BOOL: return "BOOLEAN";
    case AT_IN_STRING: return "STRING";
    case AT_IN_COMBO: return combo_by_name(n, row) ? "COMBO" : NULL;
    case AT_IN_OBJECT: return row->type_name ? row->type_name : "*";
    case AT_IN_ANY: return row->type_name ? row->type_name : "*";
    }
    return "*";
}

// A name that is not UTF-8 is left out: nobody could send it back in JSON.
static void push_name(void *ctx, const char *name)
{
    if (at_utf8_valid(name, strlen(name))) push(ctx, json_string_nocheck(name));
}

json_t *at_in_choices(const at_in *row, const at_file_lists *files)
{
    maker m = {.v = json_array()};

    if (!m.v) return NULL;
    for (const char *const *c = row->choices; c && *c; c++)
        push(&m, json_string_nocheck(*c));
    if (row->list && files && files->list) {
        if (files->list(files->ctx, row->list, push_name, &m) == AT_ENOMEM) m.failed = true;
    }
    return made(&m);
}

json_t *at_in_number(const at_in *row, double value, unsigned alt)
{
    bool integer = row->type == AT_IN_INT || row->type == AT_IN_U64;

    if (row->type == AT_IN_FLOAT && (row->flags & AT_INF_INT_LIMITS) &&
        (alt == AT_ALT_MIN || alt == AT_ALT_MAX)) {
        integer = true;
    }
    if (row->alt & alt) integer = !integer;
    if (!integer) return at_json_new_float(value);
    // The extremes of Python's tables: 2^64 - 1 and sys.maxsize, which a double cannot hold.
    if (value >= 0x1p64) return at_json_new_odd("18446744073709551615");
    if (value <= -0x1p64) return at_json_new_odd("-18446744073709551615");
    if (value >= 0x1p63) return json_integer(INT64_MAX);
    if (value <= -0x1p63) return json_integer(-INT64_MAX);
    return json_integer((json_int_t)value);
}

static void put_default(maker *m, const at_in *row)
{
    if (row->flags & AT_INF_NO_DEFAULT) return;
    switch (row->type) {
    case AT_IN_INT:
    case AT_IN_U64:
    case AT_IN_FLOAT: put(m, "default", at_in_number(row, row->def, AT_ALT_DEF)); break;
    case AT_IN_BOOL: put(m, "default", json_boolean(row->def != 0)); break;
    case AT_IN_STRING: put(m, "default", json_string_nocheck(row->sdef ? row->sdef : "")); break;
    case AT_IN_COMBO:
        if (row->sdef) put(m, "default", json_string_nocheck(row->sdef));
        break;
    case AT_IN_OBJECT:
    case AT_IN_ANY: break;
    }
}

static void put_numbers(maker *m, const at_in *row)
{
    if (row->flags & AT_INF_HAS_MIN) put(m, "min", at_in_number(row, row->min, AT_ALT_MIN));
    if (row->flags & AT_INF_HAS_MAX) put(m, "max", at_in_number(row, row->max, AT_ALT_MAX));
    if (row->flags & AT_INF_HAS_STEP) put(m, "step", at_in_number(row, row->step, AT_ALT_STEP));
    if (row->flags & AT_INF_HAS_ROUND) put(m, "round", at_in_number(row, row->round, AT_ALT_ROUND));
    if (row->flags & AT_INF_ROUND_FALSE) put(m, "round", json_false());
}

static void put_extra(maker *m, const at_in *row)
{
    json_t *extra = NULL, *value;
    const char *key;

    if (!row->extra) return;
    if (at_json_load(row->name, row->extra, strlen(row->extra), &extra) != AT_OK) m->failed = true;
    json_object_foreach(extra, key, value) put(m, key, json_incref(value));
    json_decref(extra);
}

static json_t *options(const at_node *n, const at_in *row, json_t *choices)
{
    static const struct {
        unsigned flag;
        const char *key;
    } marks[] = {{AT_INF_CONTROL, "control_after_generate"},
                 {AT_INF_MULTILINE, "multiline"},
                 {AT_INF_DYNAMIC, "dynamicPrompts"},
                 {AT_INF_FORCE_INPUT, "forceInput"},
                 {AT_INF_LAZY, "lazy"},
                 {AT_INF_IMAGE_UPLOAD, "image_upload"},
                 {AT_INF_ADVANCED, "advanced"}};
    maker m = {.v = json_object()};

    if (!m.v) return NULL;
    put_default(&m, row);
    put_numbers(&m, row);
    if (row->type == AT_IN_COMBO && combo_by_name(n, row)) {
        if (v3(n)) put(&m, "multiselect", json_false());
        if (row->choices || row->list) put(&m, "options", json_incref(choices));
    }
    if (row->flags & AT_INF_SINGLE_LINE) put(&m, "multiline", json_false());
    for (size_t i = 0; i < AT_COUNT(marks); i++) {
        if (row->flags & marks[i].flag) put(&m, marks[i].key, json_true());
    }
    if (row->display) put(&m, "display", json_string_nocheck(row->display));
    put_extra(&m, row);
    if (row->tip) put(&m, "tooltip", json_string_nocheck(row->tip));
    return made(&m);
}

json_t *at_in_config(const at_node *n, const at_in *row, json_t *choices, bool full)
{
    const char *socket = at_in_socket(n, row);
    maker m = {.v = json_array()};

    if (!m.v) return NULL;
    push(&m, socket ? json_string_nocheck(socket) : json_incref(choices));
    if (full || v3(n) || !(row->flags & AT_INF_NO_OPTIONS)) push(&m, options(n, row, choices));
    return made(&m);
}

static json_t *hidden_config(const at_node *n, const at_in *row)
{
    json_t *name = json_string_nocheck(row->type_name ? row->type_name : "");
    maker m;

    if (!v3(n)) return name;
    m = (maker){.v = json_array()};
    push(&m, name);
    return made(&m);
}

static const char *section(const at_in *row)
{
    return row->flags & AT_INF_HIDDEN     ? "hidden"
           : row->flags & AT_INF_OPTIONAL ? "optional"
                                          : "required";
}

static void put_row(maker *input, maker *order, const at_node *n, const at_in *row,
                    const at_file_lists *files)
{
    json_t *choices = row->type == AT_IN_COMBO ? at_in_choices(row, files) : NULL;
    maker in = {.v = json_object_get(input->v, section(row))};
    maker names = {.v = json_object_get(order->v, section(row))};

    if (row->type == AT_IN_COMBO && !choices) input->failed = true;
    if (!in.v) {
        put(input, section(row), in.v = json_object());
        put(order, section(row), names.v = json_array());
    }
    if (!input->failed && !order->failed) {
        put(&in, row->name,
            row->flags & AT_INF_HIDDEN ? hidden_config(n, row)
                                       : at_in_config(n, row, choices, false));
        push(&names, json_string_nocheck(row->name));
        input->failed |= in.failed || names.failed;
    }
    json_decref(choices);
}

static void put_inputs(maker *info, const at_node *n, const at_file_lists *files)
{
    maker input = {.v = json_object()}, order = {.v = json_object()};

    put(&input, "required", json_object());
    put(&order, "required", json_array());
    for (int pass = 0; pass < 3; pass++) { // required, optional, hidden
        for (size_t i = 0; i < n->n_in && !input.failed && !order.failed; i++) {
            const char *s = section(&n->in[i]);
            if (s[0] == "roh"[pass]) put_row(&input, &order, n, &n->in[i], files);
        }
    }
    put(info, "input", made(&input));
    put(info, "input_order", made(&order));
}

static void put_tips(maker *info, const at_node *n)
{
    maker tips = {.v = json_array()};

    for (size_t i = 0; i < n->n_out; i++)
        push(&tips, text_or_null(n->out[i].tip));
    put(info, "output_tooltips", made(&tips));
}

static void put_outputs(maker *info, const at_node *n)
{
    maker types = {.v = json_array()}, lists = {.v = json_array()}, names = {.v = json_array()};
    bool any_tip = v3(n);

    for (size_t i = 0; i < n->n_out; i++) {
        const at_out *o = &n->out[i];
        push(&types, json_string_nocheck(o->type_name));
        push(&lists, json_boolean(o->is_list));
        push(&names, json_string_nocheck(o->name ? o->name : o->type_name));
        any_tip |= o->tip != NULL;
    }
    put(info, "output", made(&types));
    put(info, "output_is_list", made(&lists));
    put(info, "output_name", made(&names));
    if (any_tip) put_tips(info, n);
}

json_t *at_object_info(const at_node *n, const at_file_lists *files)
{
    maker m;

    m = (maker){.v = json_object()};
    if (!m.v) return NULL;
    put_inputs(&m, n, files);
    put_outputs(&m, n);
    put(&m, "name", json_string_nocheck(n->class_type));
    put(&m, "display_name",
        n->display || v3(n) ? text_or_null(n->display) : json_string_nocheck(n->class_type));
    put(&m, "description", json_string_nocheck(n->description ? n->description : ""));
    put(&m, "python_module", json_string_nocheck(n->python_module ? n->python_module : "nodes"));
    put(&m, "category", json_string_nocheck(n->category ? n->category : "sd"));
    put(&m, "output_node", json_boolean(n->flags & AT_NODE_OUTPUT));
    if (v3(n) || (n->flags & AT_NODE_DEPRECATED)) {
        put(&m, "deprecated", json_boolean(n->flags & AT_NODE_DEPRECATED));
    }
    if (v3(n) || (n->flags & AT_NODE_EXPERIMENTAL)) {
        put(&m, "experimental", json_boolean(n->flags & AT_NODE_EXPERIMENTAL));
    }
    if (v3(n)) put(&m, "api_node", json_false());
    return made(&m);
}

json_t *at_object_info_all(const at_registry *r, const at_file_lists *files)
{
    maker m;

    m = (maker){.v = json_object()};
    if (!m.v) return NULL;
    for (size_t i = 0; i < at_registry_count(r); i++) {
        const at_node *n = at_registry_at(r, i);
        put(&m, n->class_type, at_object_info(n, files));
    }
    return made(&m);
}
