// SPDX-License-Identifier: Apache-2.0
// check_input.c - one constant: unwrap, convert as Python would, then range and list.
// Source: ComfyUI 0.3.64 execution.py validate_inputs; comfyui-contract 3.2. The converted value is
// written back into the workflow, also when a later test complains.
// Owns nothing.
#include "flow/check.h"

#include <string.h>

#include "base/mem.h"
#include "flow/object_info.h"

json_t *at_checker_choices(at_checker *c, const at_in *row)
{
    json_t *known;

    if (!row->list || row->choices) return NULL;
    known = json_object_get(c->lists, row->list);
    if (known) return known;
    c->outside = true;
    known = at_in_choices(row, c->files);
    if (!known || json_object_set_new_nocheck(c->lists, row->list, known)) return NULL;
    return known;
}

// New reference to the choices of any combo row, NULL if out of memory.
static json_t *choices_of(at_checker *c, const at_in *row)
{
    if (row->list && !row->choices) return json_incref(at_checker_choices(c, row));
    return at_in_choices(row, c->files);
}

json_t *at_checker_config(at_checker *c, const at_node *n, const at_in *row)
{
    json_t *choices = row->type == AT_IN_COMBO ? choices_of(c, row) : NULL, *config = NULL;

    if (choices || row->type != AT_IN_COMBO) config = at_in_config(n, row, choices, true);
    json_decref(choices);
    return config;
}

bool at_types_meet(const char *received, const char *wanted)
{
    size_t n, m;

    if (strcmp(received, "*") == 0 || (wanted && strcmp(wanted, "*") == 0)) return true;
    if (!wanted) return false;
    for (const char *r = received; r; r = r[n] ? r + n + 1 : NULL) {
        r += strspn(r, " ");
        n = strcspn(r, ",");
        for (const char *w = wanted; w; w = w[m] ? w + m + 1 : NULL) {
            w += strspn(w, " ");
            m = strcspn(w, ",");
            if (n == m && memcmp(r, w, n) == 0) return true;
        }
    }
    return false;
}

// {"input_name", "input_config", "received_value"}; config is taken, NULL prints null if
// `no_config`.
static json_t *extra_of(const char *name, json_t *config, bool no_config, const json_t *value)
{
    json_t *extra = at_extra(name);

    if (no_config) config = json_null();
    if (!extra) {
        json_decref(config);
        return NULL;
    }
    if (at_extra_put(extra, "input_config", config) &&
        at_extra_put(extra, "received_value", json_incref((json_t *)value))) {
        return extra;
    }
    json_decref(extra);
    return NULL;
}

static at_status conversion_error(at_checker *c, at_graph_node *n, const at_in *row,
                                  const json_t *value, const at_pyerr *why, json_t **error)
{
    at_str details = {0}, message = {0};
    json_t *extra = extra_of(row->name, at_checker_config(c, n->spec, row), false, value);

    at_str_printf(&message, "Failed to convert an input value to a %s value",
                  at_in_socket(n->spec, row));
    at_str_printf(&details, "%s, ", row->name);
    at_py_str(&details, value);
    at_str_printf(&details, ", %s", why->text);
    if (extra && !at_extra_put(extra, "exception_message", json_string_nocheck(why->text))) {
        json_decref(extra);
        extra = NULL;
    }
    *error = at_error("invalid_input_type", message.failed ? NULL : at_str_text(&message),
                      at_str_take(&details), extra);
    at_str_free(&message);
    return *error ? AT_OK : AT_ENOMEM;
}

// The value as the socket's type wants it: new reference in *out, or AT_EINVAL with *why.
static at_status convert(const char *socket, const json_t *value, json_t **out, at_pyerr *why)
{
    at_str s = {0};

    if (socket && strcmp(socket, "INT") == 0) return at_py_int(value, out, why);
    if (socket && strcmp(socket, "FLOAT") == 0) return at_py_float(value, out, why);
    if (socket && strcmp(socket, "BOOLEAN") == 0) {
        *out = json_boolean(at_py_truth(value));
        return AT_OK;
    }
    if (socket && strcmp(socket, "STRING") == 0 && !at_json_is_text(value)) {
        at_py_str(&s, value);
        *out = s.failed ? NULL : json_string_nocheck(at_str_text(&s));
        at_str_free(&s);
        return *out ? AT_OK : at_fail(AT_ENOMEM, "no memory for a text");
    }
    *out = json_incref((json_t *)value);
    return AT_OK;
}

static at_status range_error(at_checker *c, at_graph_node *n, const at_in *row, const json_t *value,
                             bool low, json_t **error)
{
    at_str message = {0};
    json_t *limit =
        low ? at_in_number(row, row->min, AT_ALT_MIN) : at_in_number(row, row->max, AT_ALT_MAX);

    at_str_append(&message, "Value ");
    at_py_str(&message, value);
    at_str_append(&message, low ? " smaller than min of " : " bigger than max of ");
    at_py_str(&message, limit);
    *error = at_error(low ? "value_smaller_than_min" : "value_bigger_than_max",
                      message.failed || !limit ? NULL : at_str_text(&message), at_strdup(row->name),
                      extra_of(row->name, at_checker_config(c, n->spec, row), false, value));
    at_str_free(&message);
    json_decref(limit);
    return *error ? AT_OK : AT_ENOMEM;
}

static at_status check_range(at_checker *c, at_graph_node *n, const at_in *row, const json_t *value,
                             json_t **error)
{
    long double v, limit;
    json_t *number;

    if (!at_py_number(value, &v)) return AT_OK;
    for (int low = 1; low >= 0 && !*error; low--) {
        if (!(row->flags & (low ? AT_INF_HAS_MIN : AT_INF_HAS_MAX))) continue;
        number = at_in_number(row, low ? row->min : row->max, low ? AT_ALT_MIN : AT_ALT_MAX);
        if (!number) return at_fail(AT_ENOMEM, "no memory for a limit");
        at_py_number(number, &limit);
        json_decref(number);
        if (low ? v < limit : v > limit) return range_error(c, n, row, value, low, error);
    }
    return AT_OK;
}

static at_status check_list(at_checker *c, at_graph_node *n, const at_in *row, const json_t *value,
                            json_t **error)
{
    json_t *choices = choices_of(c, row), *config = NULL;
    at_str details = {0};
    at_status st = AT_OK;
    bool big;

    if (!choices) return at_fail(AT_ENOMEM, "no memory for the choices of %s", row->name);
    big = json_array_size(choices) > 20; // ComfyUI does not send long lists of files back
    for (size_t i = 0; i < json_array_size(choices); i++) {
        if (at_py_equal(json_array_get(choices, i), value)) goto found;
    }
    at_str_printf(&details, "%s: '", row->name);
    at_py_str(&details, value);
    at_str_append(&details, "' not in ");
    if (big) {
        at_str_printf(&details, "(list of length %zu)", json_array_size(choices));
    } else {
        at_py_repr(&details, choices);
        config = at_in_config(n->spec, row, choices, true);
    }
    *error = at_error("value_not_in_list", "Value not in list", at_str_take(&details),
                      extra_of(row->name, config, big, value));
    if (!*error) st = AT_ENOMEM;
found:
    json_decref(choices);
    at_str_free(&details);
    return st;
}

at_status at_check_constant(at_checker *c, at_graph_node *n, const at_in *row, bool lenient,
                            json_t **error)
{
    at_status st = AT_OK;
    const char *socket = at_in_socket(n->spec, row);
    json_t *value = json_incref(json_object_get(n->inputs, row->name)), *made = NULL;
    at_pyerr why = {0};

    *error = NULL;
    if (json_is_object(value) && json_object_get(value, "__value__")) {
        made = json_incref(json_object_get(value, "__value__"));
        json_decref(value);
        value = made;
        made = NULL;
        if (json_object_set(n->inputs, row->name, value)) goto no_memory;
    }
    st = convert(socket, value, &made, &why);
    if (st == AT_EINVAL) {
        AT_TRY(conversion_error(c, n, row, value, &why, error));
        goto out;
    }
    AT_TRY(st);
    if (made != value && json_object_set(n->inputs, row->name, made)) goto no_memory;
    if (!lenient) {
        AT_TRY(check_range(c, n, row, made, error));
        if (!*error && !socket) AT_TRY(check_list(c, n, row, made, error));
    }
    goto out;
no_memory:
    st = at_fail(AT_ENOMEM, "no memory for the value of %s", row->name);
out:
    json_decref(value);
    json_decref(made);
    at_pyerr_clear(&why);
    return st;
}
