// SPDX-License-Identifier: Apache-2.0
// py_convert.c - int(), float() and indexing with Python's rules and Python's complaints.
// Easy to get wrong: int(64.7) is 64, int("1_000") is 1000, int(" 7 ") is 7, int("64.7") fails,
// float("nan") works.
// Owns nothing: results are new references.
#include "flow/python.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static at_status keep(json_t *v, json_t **out)
{
    *out = v;
    return v ? AT_OK : at_fail(AT_ENOMEM, "no memory for a number");
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}

// `text` without spaces around it and without single underscores between digits; NULL in *out if an
// underscore stands elsewhere. Fresh memory.
static at_status plain_digits(const char *text, char **out)
{
    size_t n;
    char *s, *w;

    *out = NULL;
    while (is_space(*text))
        text++;
    n = strlen(text);
    while (n && is_space(text[n - 1]))
        n--;
    s = w = at_strndup(text, n);
    if (!s) return at_fail(AT_ENOMEM, "no memory for a number of %zu characters", n);
    for (size_t i = 0; i < n; i++) {
        if (text[i] != '_') {
            *w++ = text[i];
        } else if (i == 0 || i + 1 >= n || text[i - 1] < '0' || text[i - 1] > '9' ||
                   text[i + 1] < '0' || text[i + 1] > '9') {
            at_free(s);
            return AT_OK;
        }
    }
    *w = '\0';
    *out = s;
    return AT_OK;
}

static at_status raise_text(at_pyerr *e, const char *before, const char *text)
{
    at_str s = {0};
    at_status st;

    at_py_repr_text(&s, text);
    st = at_py_raise(e, "ValueError", "%s%s", before, at_str_text(&s));
    at_str_free(&s);
    return st;
}

static at_status int_of_digits(const char *digits, json_t **out)
{
    bool minus = *digits == '-';
    const char *p = digits + (*digits == '-' || *digits == '+');
    char *canonical;
    at_status st;

    while (p[0] == '0' && p[1])
        p++;
    if (strlen(p) <= 18) return keep(json_integer((minus ? -1 : 1) * strtoll(p, NULL, 10)), out);
    canonical = at_strprintf("%s%s", minus ? "-" : "", p);
    if (!canonical) return at_fail(AT_ENOMEM, "no memory for a number");
    if (strlen(p) == 19 && (strcmp(p, "9223372036854775807") <= 0 ||
                            (minus && strcmp(p, "9223372036854775808") == 0))) {
        st = keep(json_integer(strtoll(canonical, NULL, 10)), out);
    } else {
        st = keep(at_json_new_odd(canonical), out);
    }
    at_free(canonical);
    return st;
}

static at_status int_of_text(const char *text, json_t **out, at_pyerr *e)
{
    static const char complaint[] = "invalid literal for int() with base 10: ";
    char *digits;
    size_t n, sign;
    at_status st = plain_digits(text, &digits);

    if (st != AT_OK) return st;
    if (!digits) return raise_text(e, complaint, text);
    sign = *digits == '-' || *digits == '+';
    n = strlen(digits + sign);
    if (n == 0 || strspn(digits + sign, "0123456789") != n) {
        st = raise_text(e, complaint, text);
    } else if (n > AT_JSON_MAX_DIGITS) {
        st = at_py_raise(e, "ValueError",
                         "Exceeds the limit (%d digits) for integer string conversion: value has "
                         "%zu digits; use sys.set_int_max_str_digits() to increase the limit",
                         AT_JSON_MAX_DIGITS, n);
    } else {
        st = int_of_digits(digits, out);
    }
    at_free(digits);
    return st;
}

static at_status int_of_float(double v, json_t **out, at_pyerr *e)
{
    char digits[340]; // 1.8e308 has 309

    if (isnan(v)) return at_py_raise(e, "ValueError", "cannot convert float NaN to integer");
    if (isinf(v)) {
        return at_py_raise(e, "OverflowError", "cannot convert float infinity to integer");
    }
    if (fabs(v) < 9.2e18) return keep(json_integer((json_int_t)v), out);
    snprintf(digits, sizeof digits, "%.0f", v);
    return int_of_digits(digits, out);
}

at_status at_py_int(const json_t *v, json_t **out, at_pyerr *e)
{
    const char *odd = at_json_odd(v);

    *out = NULL;
    if (odd && strcmp(at_py_type_name(v), "float") == 0) {
        return int_of_float(strtod(odd, NULL), out, e);
    }
    if (odd || json_is_integer(v)) return keep(json_incref((json_t *)v), out);
    if (json_is_boolean(v)) return keep(json_integer(json_is_true(v)), out);
    if (json_is_real(v)) return int_of_float(json_real_value(v), out, e);
    if (json_is_string(v)) return int_of_text(json_string_value(v), out, e);
    return at_py_raise(e, "TypeError",
                       "int() argument must be a string, a bytes-like object or a real number, "
                       "not '%s'",
                       at_py_type_name(v));
}

static bool is_word(const char *s, const char *lower)
{
    for (; *s && *lower; s++, lower++) {
        if ((*s | 0x20) != *lower) return false;
    }
    return *s == *lower;
}

// A decimal that strtod may read: no hexadecimal, no words but inf, infinity and nan.
static bool looks_like_float(const char *s)
{
    size_t digits = 0;

    s += *s == '-' || *s == '+';
    if (is_word(s, "inf") || is_word(s, "infinity") || is_word(s, "nan")) return true;
    for (; *s >= '0' && *s <= '9'; s++)
        digits++;
    if (*s == '.') s++;
    for (; *s >= '0' && *s <= '9'; s++)
        digits++;
    if (!digits) return false;
    if (*s == 'e' || *s == 'E') {
        s++;
        s += *s == '-' || *s == '+';
        if (*s < '0' || *s > '9') return false;
        while (*s >= '0' && *s <= '9')
            s++;
    }
    return *s == '\0';
}

static at_status float_of_text(const char *text, json_t **out, at_pyerr *e)
{
    char *digits;
    at_status st = plain_digits(text, &digits);

    if (st != AT_OK) return st;
    if (digits && looks_like_float(digits)) {
        st = keep(at_json_new_float(strtod(digits, NULL)), out);
    } else {
        st = raise_text(e, "could not convert string to float: ", text);
    }
    at_free(digits);
    return st;
}

at_status at_py_float(const json_t *v, json_t **out, at_pyerr *e)
{
    const char *odd = at_json_odd(v);
    double d;

    *out = NULL;
    if (odd && strcmp(at_py_type_name(v), "int") == 0) {
        d = strtod(odd, NULL);
        if (isinf(d)) return at_py_raise(e, "OverflowError", "int too large to convert to float");
        return keep(json_real(d), out);
    }
    if (odd || json_is_real(v)) return keep(json_incref((json_t *)v), out);
    if (json_is_boolean(v)) return keep(json_real(json_is_true(v)), out);
    if (json_is_integer(v)) return keep(json_real((double)json_integer_value(v)), out);
    if (json_is_string(v)) return float_of_text(json_string_value(v), out, e);
    return at_py_raise(e, "TypeError",
                       "float() argument must be a string or a real number, not '%s'",
                       at_py_type_name(v));
}

at_status at_py_index(const json_t *index, size_t count, bool list, size_t *out, at_pyerr *e)
{
    const char *kind = list ? "list" : "tuple", *odd = at_json_odd(index);
    json_int_t i = json_is_integer(index) ? json_integer_value(index) : json_is_true(index);

    if (odd && strcmp(at_py_type_name(index), "int") == 0) {
        return at_py_raise(e, "IndexError", "cannot fit 'int' into an index-sized integer");
    }
    if (odd || (!json_is_integer(index) && !json_is_boolean(index))) {
        return at_py_raise(e, "TypeError", "%s indices must be integers or slices, not %s", kind,
                           at_py_type_name(index));
    }
    if (i < 0) i += (json_int_t)count;
    if (i < 0 || (uint64_t)i >= count) {
        return at_py_raise(e, "IndexError", "%s index out of range", kind);
    }
    *out = (size_t)i;
    return AT_OK;
}
