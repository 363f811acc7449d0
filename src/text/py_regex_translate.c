// SPDX-License-Identifier: Apache-2.0
// py_regex_translate.c - a pattern of Python's re as one of PCRE2.
// Idea: one token after the other: escapes become code points or classes that are exactly Python's, groups and
// quantifiers are checked against what Python has, everything else passes.
// Easy to get wrong: PCRE2 knows more than Python (\h, \K, (?R), (*VERB), [:alpha:]); a pattern that uses it
// is an error in Python, or means plain characters.
#include <string.h>

#include "text/py_regex.h"

// str.isspace, \w without marks: what \s and \w are to Python.
#define SPACE                                                                                      \
    "\\x09-\\x0d\\x1c-\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"      \
    "\\x{205f}\\x{3000}"
#define WORD "\\p{L}\\p{N}_"

typedef struct walk {
    const char *p;
    at_str *out;
    bool any;      // something other than global flags came before
    bool repeated; // a quantifier came last
} walk;

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}
static bool is_octal(char c)
{
    return c >= '0' && c <= '7';
}
static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static at_status bad(const walk *w, const char *what)
{
    return at_fail(AT_EFORMAT, "regex: %s at \"%.20s\"", what, w->p);
}

static void put_point(walk *w, unsigned long c)
{
    at_str_printf(w->out, "\\x{%lx}", c);
}

// \xHH, \uHHHH, \UHHHHHHHH; p stands on the letter.
static at_status hexadecimal(walk *w)
{
    int digits = *w->p == 'x' ? 2 : *w->p == 'u' ? 4 : 8;
    unsigned long value = 0;
    for (int i = 1; i <= digits; i++) {
        char c = w->p[i];
        int d = is_digit(c)            ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0) return bad(w, "incomplete escape");
        value = value * 16 + (unsigned long)d;
    }
    if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return bad(w, "bad escape");
    put_point(w, value);
    w->p += digits + 1;
    return AT_OK;
}

// Up to three octal digits as a code point.
static at_status octal(walk *w)
{
    unsigned long value = 0;
    int i = 0;
    for (; i < 3 && is_octal(w->p[i]); i++)
        value = value * 8 + (unsigned long)(w->p[i] - '0');
    if (value > 0377) return bad(w, "octal escape value outside of range 0-0o377");
    put_point(w, value);
    w->p += i;
    return AT_OK;
}

// Escapes that are the same in and outside of a class; *done false: another one.
static at_status common_escape(walk *w, bool *done)
{
    static const char from[] = "afnrtv";
    static const char *const to[] = {"\\x07", "\\x0c", "\\x0a", "\\x0d", "\\x09", "\\x0b"};
    char c = *w->p;
    const char *plain = c ? strchr(from, c) : NULL;
    *done = true;
    if (!c) return bad(w, "bad escape (end of pattern)");
    if (c == 'x' || c == 'u' || c == 'U') return hexadecimal(w);
    if (c == 'N')
        return at_fail(AT_EUNSUPPORTED, "regex: characters by name, \\N{...}, are not known here");
    if (plain) {
        at_str_append(w->out, to[plain - from]);
    } else if (c == 'd' || c == 'D') {
        at_str_printf(w->out, "\\%c", c);
    } else if (!is_letter(c) && !is_digit(c)) {
        if ((unsigned char)c < 0x80) at_str_append(w->out, "\\");
        at_str_append_n(w->out, w->p, 1);
    } else {
        *done = false;
        return AT_OK;
    }
    w->p++;
    return AT_OK;
}

// p stands behind the backslash.
static at_status escape(walk *w)
{
    bool done;
    char c = *w->p;
    at_status st = common_escape(w, &done);
    if (st != AT_OK || done) return st;
    if (c == '0' || (is_octal(c) && is_octal(w->p[1]) && is_octal(w->p[2]))) return octal(w);
    if (is_digit(c)) {
        int n = is_digit(w->p[1]) ? 2 : 1;
        at_str_printf(w->out, "\\g{%.*s}", n, w->p);
        w->p += n;
        return AT_OK;
    }
    switch (c) {
    case 'A':
    case 'b':
    case 'B': at_str_printf(w->out, "\\%c", c); break;
    case 'Z': at_str_append(w->out, "\\z"); break;
    case 's': at_str_append(w->out, "[" SPACE "]"); break;
    case 'S': at_str_append(w->out, "[^" SPACE "]"); break;
    case 'w': at_str_append(w->out, "[" WORD "]"); break;
    case 'W': at_str_append(w->out, "[^" WORD "]"); break;
    default: w->p--; return bad(w, "bad escape");
    }
    w->p++;
    return AT_OK;
}

static at_status class_escape(walk *w)
{
    bool done;
    char c = *w->p;
    at_status st = common_escape(w, &done);
    if (st != AT_OK || done) return st;
    if (is_octal(c)) return octal(w);
    switch (c) {
    case 'b': at_str_append(w->out, "\\x08"); break;
    case 's': at_str_append(w->out, SPACE); break;
    case 'w': at_str_append(w->out, WORD); break;
    case 'S':
    case 'W': at_str_printf(w->out, "\\%c", c); break;
    default: w->p--; return bad(w, "bad escape");
    }
    w->p++;
    return AT_OK;
}

// [...]; p stands behind the bracket.
static at_status class(walk *w)
{
    at_status st = AT_OK;
    at_str_append(w->out, "[");
    if (*w->p == '^') {
        at_str_append(w->out, "^");
        w->p++;
    }
    for (bool first = true; *w->p && (first || *w->p != ']'); first = false) {
        char c = *w->p++;
        if (c == '\\') {
            st = class_escape(w);
            if (st != AT_OK) return st;
        } else {
            if (c == '[' || c == ']') at_str_append(w->out, "\\");
            at_str_append_n(w->out, &c, 1);
        }
    }
    if (!*w->p) return bad(w, "unterminated character set");
    at_str_append(w->out, "]");
    w->p++;
    return AT_OK;
}

// (?flags) at the start, (?flags-flags: anywhere; p stands on the first letter.
static at_status flags(walk *w)
{
    size_t n = strspn(w->p, "aiLmsux-");
    char end = w->p[n];
    if (end != ')' && end != ':') return bad(w, "unknown extension");
    for (size_t i = 0; i < n; i++)
        if (w->p[i] == 'a' || w->p[i] == 'L')
            return at_fail(AT_EUNSUPPORTED, "regex: the flags a and L are not known here");
    if (end == ')' && w->any) return bad(w, "global flags not at the start of the expression");
    if (end == ')' && (n == 0 || memchr(w->p, '-', n))) return bad(w, "missing :");
    at_str_append(w->out, "(?");
    for (size_t i = 0; i < n; i++)
        if (w->p[i] != 'u') at_str_append_n(w->out, w->p + i, 1);
    at_str_append_n(w->out, &end, 1);
    w->p += n + 1;
    return AT_OK;
}

static size_t name_length(const char *s)
{
    size_t n = 0;
    while (is_letter(s[n]) || s[n] == '_' || (n && is_digit(s[n])) || (unsigned char)s[n] >= 0x80)
        n++;
    return n;
}

// (?P<name>, (?P=name), (?(name) and (?(1); p stands behind the question mark.
static at_status named(walk *w)
{
    bool condition = *w->p == '(';
    const char *name = w->p + (condition ? 1 : 2);
    size_t n = condition && is_digit(*name) ? strspn(name, "0123456789") : name_length(name);
    char end = name[n];
    bool opens = !condition && w->p[1] == '<';
    if (!condition && w->p[1] != '<' && w->p[1] != '=') return bad(w, "unknown extension");
    if (!n || end != (opens ? '>' : ')')) return bad(w, "bad character in group name");
    if (condition)
        at_str_printf(w->out, is_digit(*name) ? "(?(%.*s)" : "(?(<%.*s>)", (int)n, name);
    else
        at_str_printf(w->out, opens ? "(?P<%.*s>" : "(?P=%.*s)", (int)n, name);
    w->p = name + n + 1;
    return AT_OK;
}

// p stands behind the parenthesis.
static at_status group(walk *w)
{
    static const char *const plain[] = {"?:", "?=", "?!", "?<=", "?<!", "?>"};
    if (*w->p == '*') return bad(w, "nothing to repeat");
    if (*w->p != '?') {
        at_str_append(w->out, "(");
        return AT_OK;
    }
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strncmp(w->p, plain[i], strlen(plain[i])) == 0) {
            at_str_printf(w->out, "(%s", plain[i]);
            w->p += strlen(plain[i]);
            return AT_OK;
        }
    w->p++;
    if (*w->p == 'P' || *w->p == '(') return named(w);
    if (*w->p != '#') return flags(w);
    const char *end = strchr(w->p, ')');
    if (!end) return bad(w, "missing ), unterminated comment");
    w->p = end + 1;
    return AT_OK;
}

// {m}, {m,}, {,n}, {m,n}; anything else is a brace. p stands behind it.
static at_status brace(walk *w, bool *repeats)
{
    size_t low = strspn(w->p, "0123456789"), high = 0;
    const char *end = w->p + low, *more = NULL;
    if (*end == ',') {
        more = end + 1;
        high = strspn(more, "0123456789");
        end = more + high;
    }
    *repeats = *end == '}' && (low || more);
    if (!*repeats) {
        at_str_append(w->out, "\\{");
        return AT_OK;
    }
    at_str_printf(w->out, "{%.*s", low ? (int)low : 1, low ? w->p : "0");
    if (more) at_str_printf(w->out, ",%.*s", (int)high, more);
    at_str_append(w->out, "}");
    w->p = end + 1;
    return AT_OK;
}

static at_status quantifier(walk *w, char c)
{
    bool repeats = true;
    at_status st = AT_OK;
    if (c == '{')
        st = brace(w, &repeats);
    else
        at_str_append_n(w->out, &c, 1);
    if (repeats && w->repeated) return bad(w, "multiple repeat");
    if (repeats && (*w->p == '?' || *w->p == '+')) at_str_append_n(w->out, w->p++, 1);
    w->repeated = repeats;
    return st;
}

at_status at_py_regex_translate(const char *pattern, at_str *out)
{
    at_status st = AT_OK;
    walk w = {.p = pattern, .out = out};

    while (*w.p && st == AT_OK) {
        const char *token = w.p;
        char c = *w.p++;
        bool repeated = w.repeated;
        w.repeated = false;
        switch (c) {
        case '\\': st = escape(&w); break;
        case '[': st = class(&w); break;
        case '(': st = group(&w); break;
        case '{':
        case '*':
        case '+':
        case '?':
            w.repeated = repeated;
            st = quantifier(&w, c);
            break;
        default: at_str_append_n(out, &c, 1);
        }
        // Global flags may follow each other.
        w.any |= !(c == '(' && token[1] == '?' && w.p[-1] == ')' && strchr("aiLmsux", token[2]));
    }
    return st;
}
