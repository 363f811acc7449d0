// SPDX-License-Identifier: Apache-2.0
// json_dump.c - writes JSON as Python's json.dumps does, and the numbers that jansson cannot hold.
// Idea: floats are the shortest decimal that reads back the same (15, 16 or 17 digits), laid out as
// Python's float_repr: exponent form below 1e-4 and from 1e16 on.
// Owns nothing.
#include "json/json.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

const char *at_json_odd(const json_t *v)
{
    const char *s = json_is_string(v) ? json_string_value(v) : NULL;
    return s && (unsigned char)s[0] == 0xff ? s + 1 : NULL;
}

bool at_json_is_text(const json_t *v)
{
    return json_is_string(v) && !at_json_odd(v);
}

json_t *at_json_new_odd(const char *literal)
{
    json_t *v = NULL;
    char *s = at_strprintf("\xff%s", literal);

    if (s) v = json_string_nocheck(s);
    at_free(s);
    return v;
}

json_t *at_json_new_u64(uint64_t v)
{
    char text[24];

    if (v <= INT64_MAX) return json_integer((json_int_t)v);
    snprintf(text, sizeof text, "%" PRIu64, v);
    return at_json_new_odd(text);
}

json_t *at_json_new_float(double v)
{
    if (isnan(v)) return at_json_new_odd("NaN");
    if (isinf(v)) return at_json_new_odd(v > 0 ? "Infinity" : "-Infinity");
    return json_real(v);
}

// Digits without zeros behind, and the decimal exponent of the first one.
static int shortest(double v, char digits[20], int *exponent)
{
    char e[40];
    int n = 0;

    for (int p = v < DBL_MIN ? 1 : 15; p <= 17; p++) { // subnormals have fewer digits
        snprintf(e, sizeof e, "%.*e", p - 1, v);
        if (strtod(e, NULL) == v) break;
    }
    for (const char *p = e; *p && *p != 'e'; p++) {
        if (*p >= '0' && *p <= '9') digits[n++] = *p;
    }
    while (n > 1 && digits[n - 1] == '0')
        n--;
    digits[n] = '\0';
    *exponent = atoi(strchr(e, 'e') + 1);
    return n;
}

void at_float_repr(double v, char out[32])
{
    char digits[20], text[64] = {0}; // never more than 24 are used; the compiler cannot know
    const char *minus = signbit(v) ? "-" : "";
    int x, n;

    if (isnan(v) || isinf(v)) {
        snprintf(out, 32, "%s", isnan(v) ? "nan" : v > 0 ? "inf" : "-inf");
        return;
    }
    n = shortest(fabs(v), digits, &x);
    if (x < -4 || x >= 16) {
        snprintf(text, sizeof text, "%s%c%s%se%c%02d", minus, digits[0], n > 1 ? "." : "",
                 digits + 1, x < 0 ? '-' : '+', abs(x));
    } else if (x < 0) {
        snprintf(text, sizeof text, "%s0.%.*s%s", minus, -x - 1, "000", digits);
    } else if (n <= x + 1) {
        snprintf(text, sizeof text, "%s%s%.*s.0", minus, digits, x + 1 - n, "0000000000000000");
    } else {
        snprintf(text, sizeof text, "%s%.*s.%s", minus, x + 1, digits, digits + x + 1);
    }
    memcpy(out, text, 31);
    out[31] = '\0';
}

// One UTF-8 character of valid text; returns its length.
static size_t decode(const char *s, uint32_t *c)
{
    unsigned char b = (unsigned char)s[0];
    size_t n = b < 0x80 ? 1 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;

    *c = n == 1 ? b : b & (0x7fu >> n);
    for (size_t i = 1; i < n && s[i]; i++)
        *c = (*c << 6) | ((unsigned char)s[i] & 0x3f);
    return n;
}

// How many bytes from here on print as they are.
static size_t plain_run(const char *text, const char *end)
{
    const char *p = text;
    while (p < end && *p >= 0x20 && *p <= 0x7e && *p != '"' && *p != '\\')
        p++;
    return (size_t)(p - text);
}

static void append_text(at_str *s, const char *text, size_t len, unsigned flags)
{
    const char *end = text + len;
    uint32_t c;
    size_t n;

    at_str_append_n(s, "\"", 1);
    while (text < end) {
        n = plain_run(text, end);
        if (n) {
            at_str_append_n(s, text, n);
            text += n;
            continue;
        }
        n = decode(text, &c);
        if (n > (size_t)(end - text)) break; // cannot be: jansson holds whole characters
        if (c == '"' || c == '\\') {
            at_str_printf(s, "\\%c", (int)c);
        } else if (c == '\n' || c == '\r' || c == '\t' || c == '\b' || c == '\f') {
            at_str_printf(s, "\\%c", "btn?fr"[c - 8]);
        } else if (c < 0x20 || (c > 0x7e && !(flags & AT_JSON_UTF8) && c < 0x10000)) {
            at_str_printf(s, "\\u%04x", c);
        } else if (c >= 0x10000 && !(flags & AT_JSON_UTF8)) {
            at_str_printf(s, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
                          0xdc00 + ((c - 0x10000) & 0x3ff));
        } else {
            at_str_append_n(s, text, n);
        }
        text += n;
    }
    at_str_append_n(s, "\"", 1);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void append_member(at_str *s, const char *key, const json_t *v, bool first, unsigned flags)
{
    bool compact = flags & AT_JSON_COMPACT;

    if (!first) at_str_append(s, compact ? "," : ", ");
    append_text(s, key, strlen(key), flags);
    at_str_append(s, compact ? ":" : ": ");
    at_json_append(s, v, flags);
}

static void append_sorted(at_str *s, const json_t *v, unsigned flags)
{
    size_t n = json_object_size(v), i = 0;
    const char **keys = at_calloc(n ? n : 1, sizeof *keys);
    const char *key;
    json_t *item;

    if (!keys) {
        s->failed = true;
        return;
    }
    json_object_foreach((json_t *)v, key, item) keys[i++] = key;
    qsort(keys, n, sizeof *keys, by_key);
    for (i = 0; i < n; i++)
        append_member(s, keys[i], json_object_get(v, keys[i]), i == 0, flags);
    at_free(keys);
}

static void append_object(at_str *s, const json_t *v, unsigned flags)
{
    const char *key;
    json_t *item;
    bool first = true;

    at_str_append(s, "{");
    if (flags & AT_JSON_SORTED) {
        append_sorted(s, v, flags);
    } else {
        json_object_foreach((json_t *)v, key, item)
        {
            append_member(s, key, item, first, flags);
            first = false;
        }
    }
    at_str_append(s, "}");
}

static void append_array(at_str *s, const json_t *v, unsigned flags)
{
    at_str_append(s, "[");
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (i) at_str_append(s, flags & AT_JSON_COMPACT ? "," : ", ");
        at_json_append(s, json_array_get(v, i), flags);
    }
    at_str_append(s, "]");
}

void at_json_append(at_str *s, const json_t *v, unsigned flags)
{
    char number[32];

    if (!v || json_is_null(v)) {
        at_str_append(s, "null");
    } else if (json_is_boolean(v)) {
        at_str_append(s, json_is_true(v) ? "true" : "false");
    } else if (json_is_integer(v)) {
        at_str_printf(s, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    } else if (json_is_real(v)) {
        at_float_repr(json_real_value(v), number);
        at_str_append(s, number);
    } else if (at_json_odd(v)) {
        at_str_append(s, at_json_odd(v));
    } else if (json_is_string(v)) {
        append_text(s, json_string_value(v), json_string_length(v), flags);
    } else if (json_is_array(v)) {
        append_array(s, v, flags);
    } else {
        append_object(s, v, flags);
    }
}

char *at_json_dump(const json_t *v, unsigned flags)
{
    at_str s = {0};

    at_json_append(&s, v, flags);
    return at_str_take(&s);
}
