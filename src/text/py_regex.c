// SPDX-License-Identifier: Apache-2.0
// py_regex.c - walking over matches as Python's re does, and its replacement templates.
// Easy to get wrong: behind an empty match the next one may not be empty at the same place; behind any other
// it may.
#include "text/py_regex.h"

#include <string.h>

#include "base/mem.h"
#include "text/utf8.h"

at_status at_py_regex_compile(const char *pattern, unsigned flags, at_regex **out)
{
    at_status st = AT_OK;
    at_str s = {0};

    *out = NULL;
    if (!at_utf8_valid(pattern, strlen(pattern)))
        AT_TRY(at_fail(AT_EINVAL, "regex: the pattern is not UTF-8"));
    AT_TRY(at_py_regex_translate(pattern, &s));
    if (s.failed) AT_TRY(at_fail(AT_ENOMEM, "regex: no memory for a pattern"));
    AT_TRY(at_regex_compile_as("regex", at_str_text(&s), flags, out));
out:
    at_str_free(&s);
    return st;
}

at_status at_py_matches_open(const at_regex *re, const char *text, at_py_matches *m)
{
    *m = (at_py_matches){.re = re, .text = text, .n = strlen(text)};
    if (!at_utf8_valid(text, m->n)) return at_fail(AT_EINVAL, "regex: the text is not UTF-8");
    m->ranges = at_calloc(2 * (at_regex_groups(re) + 1), sizeof *m->ranges);
    return m->ranges ? AT_OK : at_fail(AT_ENOMEM, "regex: no memory for a match");
}

bool at_py_matches_next(at_py_matches *m, at_status *st)
{
    if (!at_regex_match(m->re, m->text, m->n, m->at, m->not_empty, m->ranges, st)) return false;
    m->not_empty = m->ranges[0] == m->ranges[1];
    m->at = m->ranges[1];
    return true;
}

void at_py_matches_close(at_py_matches *m)
{
    at_free(m->ranges);
    m->ranges = NULL;
}

// --- templates ---------------------------------------------------------------------------------------
static bool is_octal(char c)
{
    return c >= '0' && c <= '7';
}
static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}
static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// What group `i` matched; a group that took no part gives nothing.
static at_status append_group(const at_py_matches *m, size_t i, at_str *out)
{
    if (i > at_regex_groups(m->re))
        return at_fail(AT_EFORMAT, "regex: invalid group reference %zu in the replacement", i);
    if (m->ranges[2 * i] != SIZE_MAX)
        at_str_append_n(out, m->text + m->ranges[2 * i], m->ranges[2 * i + 1] - m->ranges[2 * i]);
    return AT_OK;
}

// \g<1>, \g<name>; *p stands behind the g.
static at_status named_group(const at_py_matches *m, const char **p, at_str *out)
{
    char name[64];
    const char *end = **p == '<' ? strchr(*p, '>') : NULL;
    size_t n = end ? (size_t)(end - *p - 1) : 0, group = 0;
    if (!end || !n || n >= sizeof name)
        return at_fail(AT_EFORMAT, "regex: \\g without a <group> in the replacement");
    memcpy(name, *p + 1, n);
    name[n] = 0;
    *p = end + 1;
    if (strspn(name, "0123456789") == n) {
        for (size_t i = 0; i < n && group < 1000000; i++)
            group = group * 10 + (size_t)(name[i] - '0');
        return append_group(m, group, out);
    }
    group = at_regex_group_named(m->re, name);
    if (!group) return at_fail(AT_EFORMAT, "regex: unknown group name \"%s\"", name);
    return append_group(m, group, out);
}

// \0, \012, \1, \12; *p stands on the first digit.
static at_status numbered(const at_py_matches *m, const char **p, at_str *out)
{
    const char *s = *p;
    unsigned value = 0;
    if (s[0] == '0' || (is_octal(s[0]) && is_octal(s[1]) && is_octal(s[2]))) {
        int i = 0;
        for (; i < 3 && is_octal(s[i]); i++)
            value = value * 8 + (unsigned)(s[i] - '0');
        *p += i;
        if (value > 0377)
            return at_fail(AT_EFORMAT, "regex: octal escape \\%.3s is beyond \\377", s);
        at_utf8_append(out, value);
        return AT_OK;
    }
    value = (unsigned)(s[0] - '0');
    *p += 1;
    if (is_digit(s[1])) {
        value = value * 10 + (unsigned)(s[1] - '0');
        *p += 1;
    }
    return append_group(m, value, out);
}

static at_status append_template(const at_py_matches *m, const char *with, at_str *out)
{
    static const char from[] = "abfnrtv", to[] = "\a\b\f\n\r\t\v";
    at_status st = AT_OK;
    while (*with && st == AT_OK) {
        if (*with != '\\') {
            at_str_append_n(out, with++, 1);
            continue;
        }
        char c = with[1];
        with += 2;
        const char *plain = c ? strchr(from, c) : NULL;
        if (!c)
            return at_fail(AT_EFORMAT, "regex: the replacement ends in a backslash");
        else if (c == 'g')
            st = named_group(m, &with, out);
        else if (is_digit(c))
            with--, st = numbered(m, &with, out);
        else if (plain)
            at_str_append_n(out, &to[plain - from], 1);
        else if (c == '\\')
            at_str_append(out, "\\");
        else if (is_letter(c))
            return at_fail(AT_EFORMAT, "regex: bad escape \\%c in the replacement", c);
        else
            at_str_append_n(out, with - 2, 2);
    }
    return st;
}

at_status at_py_regex_sub(const at_regex *re, const char *with, const char *text, int64_t count,
                          at_str *out)
{
    at_status st = AT_OK;
    at_py_matches m = {0};
    at_str unused = {0};
    size_t done = 0;
    int64_t made = 0;

    AT_TRY(at_py_matches_open(re, text, &m));
    AT_TRY(append_template(&m, with, &unused)); // Python reads it before it looks for a match
    while ((count == 0 || made < count) && at_py_matches_next(&m, &st)) {
        at_str_append_n(out, text + done, m.ranges[0] - done);
        AT_TRY(append_template(&m, with, out));
        done = m.ranges[1];
        made++;
    }
    AT_TRY(st);
    at_str_append(out, text + done);
out:
    at_str_free(&unused);
    at_py_matches_close(&m);
    return st;
}
