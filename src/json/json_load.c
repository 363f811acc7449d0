// SPDX-License-Identifier: Apache-2.0
// json_load.c - reads JSON text as Python's json.loads does (RFC 8259 and Python's NaN, Infinity).
// Idea: one cursor, recursive descent with a depth limit, errors with line and column.
// Owns nothing but a scratch string for the text of the current literal.
#include "json/json.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

typedef struct reader {
    const char *label, *text, *p, *end;
    at_str scratch;
    int depth;
} reader;

static at_status read_value(reader *r, json_t **out);

// Before main: no tree may be made with one allocator and freed with another.
__attribute__((constructor)) static void use_house_memory(void)
{
    json_set_alloc_funcs(at_alloc, at_free);
}

static at_status bad(const reader *r, const char *at, const char *what)
{
    size_t line = 1, column = 1;

    for (const char *p = r->text; p < at; p++) {
        if (*p == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)*p & 0xc0) != 0x80) {
            column++;
        }
    }
    return at_fail(AT_EWORKFLOW, "%s: not valid JSON: %s: line %zu column %zu (byte %zu of %zu)",
                   r->label, what, line, column, (size_t)(at - r->text),
                   (size_t)(r->end - r->text));
}

static at_status no_memory(const reader *r)
{
    return at_fail(AT_ENOMEM, "%s: no memory for the workflow of %zu bytes", r->label,
                   (size_t)(r->end - r->text));
}

static void skip_space(reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r'))
        r->p++;
}

static bool digit(const reader *r, const char *p)
{
    return p < r->end && *p >= '0' && *p <= '9';
}

static bool word(reader *r, const char *w)
{
    size_t n = strlen(w);

    if ((size_t)(r->end - r->p) < n || memcmp(r->p, w, n) != 0) return false;
    r->p += n;
    return true;
}

// The end of the number that starts at r->p, NULL if there is none; *real: has a fraction or
// exponent.
static const char *number_end(const reader *r, bool *real)
{
    const char *p = r->p, *q;

    *real = false;
    if (p < r->end && *p == '-') p++;
    if (!digit(r, p)) return NULL;
    if (*p == '0') {
        p++;
    } else {
        while (digit(r, p))
            p++;
    }
    if (p < r->end && *p == '.' && digit(r, p + 1)) {
        *real = true;
        for (p++; digit(r, p);)
            p++;
    }
    if (p < r->end && (*p == 'e' || *p == 'E')) {
        q = p + 1;
        if (q < r->end && (*q == '+' || *q == '-')) q++;
        if (digit(r, q)) {
            *real = true;
            for (p = q; digit(r, p);)
                p++;
        }
    }
    return p;
}

static at_status read_number(reader *r, json_t **out)
{
    bool real;
    const char *start = r->p, *end = number_end(r, &real), *text;
    long long i;

    if (!end) return bad(r, r->p, "expecting value");
    if (!real && end - start > AT_JSON_MAX_DIGITS) {
        return bad(r, start, "integer of more than 4300 digits");
    }
    at_str_clear(&r->scratch);
    at_str_append_n(&r->scratch, start, (size_t)(end - start));
    if (r->scratch.failed) return no_memory(r);
    text = at_str_text(&r->scratch);
    r->p = end;
    if (real) {
        *out = at_json_new_float(strtod(text, NULL));
    } else {
        errno = 0;
        i = strtoll(text, NULL, 10);
        *out = errno == ERANGE ? at_json_new_odd(text) : json_integer(i);
    }
    return *out ? AT_OK : no_memory(r);
}

static int hex4(const reader *r, const char *p)
{
    int v = 0;

    if (r->end - p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0) return -1;
        v = v * 16 + d;
    }
    return v;
}

static void append_utf8(at_str *s, uint32_t c)
{
    char b[4];
    at_str_append_n(s, b, at_utf8_put(b, c));
}

// r->p stands behind "\u".
static at_status read_unicode(reader *r)
{
    int c = hex4(r, r->p), low;

    if (c < 0) return bad(r, r->p - 2, "invalid \\uXXXX escape");
    if (c == 0) return bad(r, r->p - 2, "a NUL character in a string is not supported");
    r->p += 4;
    if (c >= 0xd800 && c <= 0xdbff && r->end - r->p >= 6 && r->p[0] == '\\' && r->p[1] == 'u') {
        low = hex4(r, r->p + 2);
        if (low >= 0xdc00 && low <= 0xdfff) {
            r->p += 6;
            append_utf8(&r->scratch, 0x10000u + (uint32_t)(((c - 0xd800) << 10) | (low - 0xdc00)));
            return AT_OK;
        }
    }
    append_utf8(&r->scratch, c >= 0xd800 && c <= 0xdfff ? 0xfffd : (uint32_t)c);
    return AT_OK;
}

static at_status read_escape(reader *r)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *found;

    if (r->p + 1 >= r->end) return bad(r, r->p, "unterminated string");
    if (r->p[1] == 'u') {
        r->p += 2;
        return read_unicode(r);
    }
    found = r->p[1] ? strchr(from, r->p[1]) : NULL;
    if (!found) return bad(r, r->p, "invalid \\escape");
    at_str_append_n(&r->scratch, &to[found - from], 1);
    r->p += 2;
    return AT_OK;
}

// The text of a string literal into r->scratch; r->p stands on the quote.
static at_status read_text(reader *r)
{
    const char *open = r->p++, *run;
    at_status st;

    at_str_clear(&r->scratch);
    at_str_append_n(&r->scratch, "", 0);
    for (;;) {
        for (run = r->p; r->p < r->end && *r->p != '"' && *r->p != '\\'; r->p++) {
            if ((unsigned char)*r->p < 0x20) return bad(r, r->p, "control character in a string");
        }
        if (!at_utf8_valid(run, (size_t)(r->p - run))) return bad(r, run, "text is not UTF-8");
        at_str_append_n(&r->scratch, run, (size_t)(r->p - run));
        if (r->p >= r->end) return bad(r, open, "unterminated string");
        if (*r->p == '"') break;
        st = read_escape(r);
        if (st != AT_OK) return st;
    }
    r->p++;
    return r->scratch.failed ? no_memory(r) : AT_OK;
}

static at_status read_array(reader *r, json_t **out)
{
    at_status st = AT_OK;
    json_t *array = json_array(), *item;

    if (!array) AT_TRY(no_memory(r));
    r->p++;
    skip_space(r);
    if (r->p < r->end && *r->p == ']') {
        r->p++;
        goto done;
    }
    for (;;) {
        AT_TRY(read_value(r, &item));
        if (json_array_append_new(array, item)) AT_TRY(no_memory(r));
        skip_space(r);
        if (r->p < r->end && *r->p == ',') {
            r->p++;
            continue;
        }
        if (r->p < r->end && *r->p == ']') break;
        AT_TRY(bad(r, r->p, "expecting ',' or ']'"));
    }
    r->p++;
done:
    *out = array;
    array = NULL;
out:
    json_decref(array);
    return st;
}

static at_status read_member(reader *r, json_t *object)
{
    at_status st = AT_OK;
    json_t *value = NULL;
    char *key = NULL;

    skip_space(r);
    if (r->p >= r->end || *r->p != '"') {
        AT_TRY(bad(r, r->p, "expecting property name in double quotes"));
    }
    AT_TRY(read_text(r));
    key = at_strdup(at_str_text(&r->scratch));
    if (!key) AT_TRY(no_memory(r));
    skip_space(r);
    if (r->p >= r->end || *r->p != ':') AT_TRY(bad(r, r->p, "expecting ':'"));
    r->p++;
    AT_TRY(read_value(r, &value));
    if (json_object_set_new_nocheck(object, key, value)) AT_TRY(no_memory(r));
out:
    at_free(key);
    return st;
}

static at_status read_object(reader *r, json_t **out)
{
    at_status st = AT_OK;
    json_t *object = json_object();

    if (!object) AT_TRY(no_memory(r));
    r->p++;
    skip_space(r);
    if (r->p < r->end && *r->p == '}') {
        r->p++;
        goto done;
    }
    for (;;) {
        AT_TRY(read_member(r, object));
        skip_space(r);
        if (r->p < r->end && *r->p == ',') {
            r->p++;
            continue;
        }
        if (r->p < r->end && *r->p == '}') break;
        AT_TRY(bad(r, r->p, "expecting ',' or '}'"));
    }
    r->p++;
done:
    *out = object;
    object = NULL;
out:
    json_decref(object);
    return st;
}

static at_status read_word(reader *r, json_t **out)
{
    if (word(r, "true")) {
        *out = json_true();
    } else if (word(r, "false")) {
        *out = json_false();
    } else if (word(r, "null")) {
        *out = json_null();
    } else if (word(r, "NaN")) {
        *out = at_json_new_odd("NaN");
    } else if (word(r, "Infinity")) {
        *out = at_json_new_odd("Infinity");
    } else if (word(r, "-Infinity")) {
        *out = at_json_new_odd("-Infinity");
    } else {
        return read_number(r, out);
    }
    return *out ? AT_OK : no_memory(r);
}

static at_status read_value(reader *r, json_t **out)
{
    at_status st;

    *out = NULL;
    skip_space(r);
    if (r->p >= r->end) return bad(r, r->p, "expecting value");
    if (*r->p == '"') {
        st = read_text(r);
        if (st != AT_OK) return st;
        *out = json_stringn_nocheck(at_str_text(&r->scratch), r->scratch.len);
        return *out ? AT_OK : no_memory(r);
    }
    if (*r->p != '{' && *r->p != '[') return read_word(r, out);
    if (r->depth == AT_JSON_MAX_DEPTH) return bad(r, r->p, "nested deeper than 500 levels");
    r->depth++;
    st = *r->p == '{' ? read_object(r, out) : read_array(r, out);
    r->depth--;
    return st;
}

at_status at_json_load(const char *label, const char *text, size_t n, json_t **out)
{
    at_status st = AT_OK;
    reader r = {.label = label, .text = text, .p = text, .end = text + n};
    json_t *value = NULL;

    *out = NULL;
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) r.p += 3;
    AT_TRY(read_value(&r, &value));
    skip_space(&r);
    if (r.p < r.end) AT_TRY(bad(&r, r.p, "extra data"));
    *out = value;
    value = NULL;
out:
    json_decref(value);
    at_str_free(&r.scratch);
    return st;
}
