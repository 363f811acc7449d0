// SPDX-License-Identifier: Apache-2.0
// fill.c - literals and linked values into the fields of a node's input struct.
// Idea: at_check has converted what it saw; here stands the last guard, because inputs may also
// come over wildcard links or from nodes that no check visited. A value of the wrong kind is
// refused.
// Ownership: see fill.h.
#include "flow/fill.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "flow/object_info.h"
#include "flow/python.h"

static at_status take_text(char *s, at_value_kind kind, at_value *out)
{
    if (!s) return at_fail(AT_ENOMEM, "no memory for an input's value");
    *out = (at_value){.kind = kind, .s = s};
    return AT_OK;
}

static at_status from_odd(const char *odd, at_value *out)
{
    char *end;
    unsigned long long u;

    if (strcmp(odd, "NaN") == 0 || strstr(odd, "Infinity")) {
        *out = at_value_float(strtod(odd, NULL));
        return AT_OK;
    }
    errno = 0;
    u = strtoull(odd, &end, 10);
    if (odd[0] != '-' && errno == 0) {
        *out = (at_value){.kind = AT_VAL_UINT, .u = u};
        return AT_OK;
    }
    return take_text(at_strdup(odd), AT_VAL_JSON, out);
}

at_status at_value_from_json(const json_t *v, at_value *out)
{
    *out = (at_value){0};
    if (!v || json_is_null(v)) return AT_OK;
    if (at_json_odd(v)) return from_odd(at_json_odd(v), out);
    if (json_is_boolean(v)) {
        *out = at_value_bool(json_is_true(v));
    } else if (json_is_integer(v)) {
        *out = at_value_int(json_integer_value(v));
    } else if (json_is_real(v)) {
        *out = at_value_float(json_real_value(v));
    } else if (json_is_string(v)) {
        return take_text(at_strdup(json_string_value(v)), AT_VAL_STRING, out);
    } else {
        return take_text(at_json_dump(v, AT_JSON_COMPACT), AT_VAL_JSON, out);
    }
    return AT_OK;
}

json_t *at_value_to_json(const at_value *v)
{
    char *s;
    json_t *out;

    switch (v->kind) {
    case AT_VAL_NONE: return json_null();
    case AT_VAL_INT: return json_integer(v->i);
    case AT_VAL_UINT: return at_json_new_u64(v->u);
    case AT_VAL_FLOAT: return at_json_new_float(v->f);
    case AT_VAL_BOOL: return json_boolean(v->b);
    case AT_VAL_STRING:
    case AT_VAL_JSON: return json_string_nocheck(v->s);
    case AT_VAL_BLOCKER: return json_string_nocheck("<ExecutionBlocker>");
    case AT_VAL_OBJECT: break;
    }
    s = at_strprintf("<%s object>", v->o->type->name);
    out = s ? json_string_nocheck(s) : NULL;
    at_free(s);
    return out;
}

static const char *kind_name(const at_value *v)
{
    static const char *const names[] = {"nothing",   "an integer",   "an integer",
                                        "a float",   "a boolean",    "text",
                                        "an object", "a JSON value", "a blocker"};
    return v->kind == AT_VAL_OBJECT ? v->o->type->name : names[v->kind];
}

static at_status wrong_kind(const at_in *row, const at_value *v, const char *wanted)
{
    return at_fail(AT_EINVAL, "input %s: expected %s, got %s", row->name, wanted, kind_name(v));
}

static at_status fill_default(const at_in *row, void *field)
{
    switch (row->type) {
    case AT_IN_INT:
        *(int64_t *)field = row->def >= 0x1p63    ? INT64_MAX
                            : row->def <= -0x1p63 ? INT64_MIN
                                                  : (int64_t)row->def;
        break;
    case AT_IN_U64:
        *(uint64_t *)field = row->def >= 0x1p64 ? UINT64_MAX
                             : row->def > 0     ? (uint64_t)row->def
                                                : 0;
        break;
    case AT_IN_FLOAT: *(double *)field = row->def; break;
    case AT_IN_BOOL: *(bool *)field = row->def != 0; break;
    case AT_IN_STRING:
    case AT_IN_COMBO: *(const char **)field = row->sdef; break;
    case AT_IN_OBJECT: *(at_object **)field = NULL; break;
    case AT_IN_ANY: *(at_value *)field = (at_value){0}; break;
    }
    return AT_OK;
}

static at_status fill_integer(const at_in *row, const at_value *v, void *field)
{
    bool wide = row->type == AT_IN_U64, negative = false, big = false;
    uint64_t u = 0;

    switch (v->kind) {
    case AT_VAL_INT:
        negative = v->i < 0;
        u = (uint64_t)v->i;
        break;
    case AT_VAL_UINT:
        u = v->u;
        big = u > INT64_MAX;
        break;
    case AT_VAL_BOOL: u = v->b; break;
    case AT_VAL_FLOAT:
        if (!(fabs(v->f) < 0x1p63)) return wrong_kind(row, v, "an integer of 64 bits");
        negative = v->f <= -1;
        u = (uint64_t)(int64_t)v->f;
        break;
    default: return wrong_kind(row, v, "an integer of 64 bits");
    }
    if (wide ? negative : big) {
        return at_fail(AT_EINVAL, "input %s: %s", row->name,
                       wide ? "a negative number where only positive ones fit"
                            : "the number does not fit 64 bits");
    }
    memcpy(field, &u, sizeof u);
    return AT_OK;
}

static at_status fill_float(const at_in *row, const at_value *v, double *field)
{
    switch (v->kind) {
    case AT_VAL_INT: *field = (double)v->i; return AT_OK;
    case AT_VAL_UINT: *field = (double)v->u; return AT_OK;
    case AT_VAL_BOOL: *field = v->b; return AT_OK;
    case AT_VAL_FLOAT: *field = v->f; return AT_OK;
    default: return wrong_kind(row, v, "a number");
    }
}

static at_status fill_bool(const at_in *row, const at_value *v, bool *field)
{
    switch (v->kind) {
    case AT_VAL_INT: *field = v->i != 0; return AT_OK;
    case AT_VAL_UINT: *field = v->u != 0; return AT_OK;
    case AT_VAL_BOOL: *field = v->b; return AT_OK;
    case AT_VAL_FLOAT: *field = v->f != 0; return AT_OK;
    case AT_VAL_STRING: *field = v->s[0] != '\0'; return AT_OK;
    default: return wrong_kind(row, v, "a boolean");
    }
}

// Combos of V3 schemas are not checked by at_check (ComfyUI 0.3.64 does not), so they are here.
static at_status check_choice(const at_node *n, const at_in *row, const char *text)
{
    at_str list = {0};
    at_status st;

    if (row->type != AT_IN_COMBO || !row->choices || !at_in_socket(n, row)) return AT_OK;
    for (const char *const *c = row->choices; *c; c++)
        if (strcmp(*c, text) == 0) return AT_OK;
    for (const char *const *c = row->choices; *c; c++) {
        if (list.len) at_str_append(&list, ", ");
        at_py_repr_text(&list, *c);
    }
    st = at_fail(AT_EINVAL, "input %s: '%s' not in [%s]", row->name, text, at_str_text(&list));
    at_str_free(&list);
    return st;
}

static at_status fill_text(const at_node *n, const at_in *row, const at_value *v,
                           const char **field)
{
    if (v->kind != AT_VAL_STRING && !(v->kind == AT_VAL_JSON && row->type == AT_IN_STRING)) {
        return wrong_kind(row, v, "text");
    }
    *field = v->s;
    return v->kind == AT_VAL_STRING ? check_choice(n, row, v->s) : AT_OK;
}

// True if `name` is one of the comma-separated types, or the wildcard is among them.
static bool type_listed(const char *types, const char *name)
{
    size_t n = strlen(name), len;

    for (const char *p = types; p; p = p[len] ? p + len + 1 : NULL) {
        while (*p == ' ')
            p++;
        len = strcspn(p, ",");
        if ((len == n && memcmp(p, name, n) == 0) || (len == 1 && *p == '*')) return true;
    }
    return false;
}

static at_status fill_object(const at_in *row, const at_value *v, at_object **field)
{
    const char *wanted = row->type_name ? row->type_name : "*";

    if (v->kind != AT_VAL_OBJECT || !type_listed(wanted, v->o->type->name)) {
        return wrong_kind(row, v, wanted);
    }
    *field = v->o;
    return AT_OK;
}

at_status at_fill_row(const at_node *n, const at_in *row, const at_value *v, void *in)
{
    void *field = (char *)in + row->offset;

    if (!v || v->kind == AT_VAL_NONE) return fill_default(row, field);
    switch (row->type) {
    case AT_IN_INT:
    case AT_IN_U64: return fill_integer(row, v, field);
    case AT_IN_FLOAT: return fill_float(row, v, field);
    case AT_IN_BOOL: return fill_bool(row, v, field);
    case AT_IN_STRING:
    case AT_IN_COMBO: return fill_text(n, row, v, field);
    case AT_IN_OBJECT: return fill_object(row, v, field);
    case AT_IN_ANY: *(at_value *)field = *v; return AT_OK;
    }
    return AT_OK;
}

void at_fill_list(const at_in *row, at_values v, void *in)
{
    *(at_values *)((char *)in + row->offset) = v;
}

static at_status fill_constant(const at_graph_node *n, size_t i, at_constants *c)
{
    const at_in *row = &n->spec->in[i];
    const json_t *literal = json_object_get(n->inputs, row->name);
    at_status st = AT_OK;

    bool hidden = (row->flags & AT_INF_HIDDEN) && row->type != AT_IN_ANY;
    c->linked[i] = at_is_link(literal);
    if (hidden || c->linked[i]) literal = NULL;
    AT_TRY(at_value_from_json(literal, &c->values[i]));
    if (n->spec->flags & AT_NODE_INPUT_IS_LIST) {
        at_fill_list(row, (at_values){&c->values[i], literal ? 1 : 0}, c->in);
    } else if (hidden) {
        *(const char **)((char *)c->in + row->offset) = NULL;
    } else if (!c->linked[i]) { // linked fields stay zero
        AT_TRY(at_fill_row(n->spec, row, &c->values[i], c->in));
    }
out:
    return st;
}

at_status at_constants_make(const at_graph_node *n, at_constants *out)
{
    at_status st = AT_OK;
    const at_node *spec = n->spec;

    *out = (at_constants){.count = spec->n_in};
    out->in = at_calloc(1, spec->in_size + 1);
    out->values = at_calloc(spec->n_in + 1, sizeof *out->values);
    out->linked = at_calloc(spec->n_in + 1, sizeof *out->linked);
    if (!out->in || !out->values || !out->linked) {
        AT_TRY(at_fail(AT_ENOMEM, "no memory for the inputs of %s", spec->class_type));
    }
    for (size_t i = 0; i < spec->n_in; i++)
        AT_TRY(fill_constant(n, i, out));
out:
    if (st != AT_OK) at_constants_free(out);
    return st;
}

void at_constants_free(at_constants *c)
{
    for (size_t i = 0; c->values && i < c->count; i++)
        at_value_clear(&c->values[i]);
    at_free(c->values);
    at_free(c->linked);
    at_free(c->in);
    *c = (at_constants){0};
}
