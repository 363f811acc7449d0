// SPDX-License-Identifier: Apache-2.0
// py_repr.c - values as Python prints them, and how Python compares and names them.
// Owns nothing.
#include "flow/python.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void at_pyerr_clear(at_pyerr *e)
{
    at_free(e->text);
    *e = (at_pyerr){0};
}

at_status at_py_raise(at_pyerr *e, const char *type, const char *fmt, ...)
{
    at_str s = {0};
    va_list args;

    va_start(args, fmt);
    at_str_vprintf(&s, fmt, args);
    va_end(args);
    at_pyerr_clear(e);
    e->text = at_str_take(&s);
    if (!e->text) return at_fail(AT_ENOMEM, "no memory for the text of a %s", type);
    e->type = type;
    return AT_EINVAL;
}

void at_py_repr_text(at_str *s, const char *text)
{
    bool single = strchr(text, '\''), twice = strchr(text, '"');
    char quote = single && !twice ? '"' : '\'';

    at_str_append_n(s, &quote, 1);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == (unsigned char)quote || *p == '\\') {
            at_str_printf(s, "\\%c", *p);
        } else if (*p == '\n' || *p == '\r' || *p == '\t') {
            at_str_append(s, *p == '\n' ? "\\n" : *p == '\r' ? "\\r" : "\\t");
        } else if (*p < 0x20 || *p == 0x7f) {
            at_str_printf(s, "\\x%02x", *p);
        } else if (*p == 0xc2 && (p[1] <= 0xa0 || p[1] == 0xad)) { // C1 controls, NBSP, soft hyphen
            at_str_printf(s, "\\x%02x", *++p);
        } else {
            at_str_append_n(s, p, 1);
        }
    }
    at_str_append_n(s, &quote, 1);
}

static void repr_items(at_str *s, const json_t *v)
{
    const char *key;
    json_t *item;
    bool first = true;

    if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v); i++) {
            if (i) at_str_append(s, ", ");
            at_py_repr(s, json_array_get(v, i));
        }
        return;
    }
    json_object_foreach((json_t *)v, key, item)
    {
        if (!first) at_str_append(s, ", ");
        at_py_repr_text(s, key);
        at_str_append(s, ": ");
        at_py_repr(s, item);
        first = false;
    }
}

void at_py_repr(at_str *s, const json_t *v)
{
    const char *odd = at_json_odd(v);
    char number[32];

    if (!v || json_is_null(v)) {
        at_str_append(s, "None");
    } else if (json_is_boolean(v)) {
        at_str_append(s, json_is_true(v) ? "True" : "False");
    } else if (json_is_integer(v)) {
        at_str_printf(s, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    } else if (json_is_real(v)) {
        at_float_repr(json_real_value(v), number);
        at_str_append(s, number);
    } else if (odd) {
        at_str_append(s, strcmp(odd, "NaN") == 0         ? "nan"
                         : strcmp(odd, "Infinity") == 0  ? "inf"
                         : strcmp(odd, "-Infinity") == 0 ? "-inf"
                                                         : odd);
    } else if (json_is_string(v)) {
        at_py_repr_text(s, json_string_value(v));
    } else {
        at_str_append(s, json_is_array(v) ? "[" : "{");
        repr_items(s, v);
        at_str_append(s, json_is_array(v) ? "]" : "}");
    }
}

void at_py_str(at_str *s, const json_t *v)
{
    if (at_json_is_text(v)) {
        at_str_append(s, json_string_value(v));
    } else {
        at_py_repr(s, v);
    }
}

static bool odd_is_float(const char *odd)
{
    return strcmp(odd, "NaN") == 0 || strstr(odd, "Infinity") != NULL;
}

const char *at_py_type_name(const json_t *v)
{
    const char *odd = at_json_odd(v);

    if (odd) return odd_is_float(odd) ? "float" : "int";
    if (!v || json_is_null(v)) return "NoneType";
    if (json_is_boolean(v)) return "bool";
    if (json_is_integer(v)) return "int";
    if (json_is_real(v)) return "float";
    if (json_is_string(v)) return "str";
    return json_is_array(v) ? "list" : "dict";
}

bool at_py_number(const json_t *v, long double *out)
{
    const char *odd = at_json_odd(v);

    if (odd) {
        *out = strtold(odd, NULL); // reads NaN and Infinity too
    } else if (json_is_boolean(v)) {
        *out = json_is_true(v);
    } else if (json_is_integer(v)) {
        *out = (long double)json_integer_value(v);
    } else if (json_is_real(v)) {
        *out = (long double)json_real_value(v);
    } else {
        return false;
    }
    return true;
}

bool at_py_truth(const json_t *v)
{
    long double number;

    if (!v || json_is_null(v)) return false;
    if (at_py_number(v, &number)) return number != 0; // NaN is true
    if (json_is_string(v)) return json_string_length(v) > 0;
    return json_is_array(v) ? json_array_size(v) > 0 : json_object_size(v) > 0;
}

bool at_py_equal(const json_t *a, const json_t *b)
{
    long double x, y;

    if (at_py_number(a, &x)) return at_py_number(b, &y) && x == y;
    if (at_py_number(b, &y)) return false;
    return json_equal(a, b);
}
