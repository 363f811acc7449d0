// SPDX-License-Identifier: Apache-2.0
// header_scan.c - see header_scan.h.
// Easy to get wrong: a decoded string never takes more room than its JSON form (an escape is always
// longer than what it stands for, and the two quotes leave room for the NUL), so one buffer as long
// as the header holds every string of it.
#include "weight/header_scan.h"

#include <string.h>

#include "base/str.h"

at_status at_scan_fail(const at_scan *s, const char *what)
{
    return at_fail(AT_EFORMAT, "%s: header is not valid at byte %zu: %s", s->label,
                   (size_t)(s->p - s->begin), what);
}

int at_scan_peek(at_scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
        s->p++;
    return s->p < s->end ? *s->p : -1;
}

bool at_scan_take(at_scan *s, char c)
{
    if (at_scan_peek(s) != (unsigned char)c) return false;
    s->p++;
    return true;
}

at_status at_scan_expect(at_scan *s, char c)
{
    char what[] = "expected ' '";

    if (at_scan_take(s, c)) return AT_OK;
    what[10] = c;
    return at_scan_fail(s, what);
}

static bool hex4(const at_scan *s, const uint8_t *p, uint32_t *out)
{
    uint32_t v = 0;

    if (s->end - p < 4) return false;
    for (int i = 0; i < 4; i++) {
        int c = p[i];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0) return false;
        v = v << 4 | (uint32_t)d;
    }
    *out = v;
    return true;
}

// s->p stands on the 'u' of "\uXXXX".
static at_status unicode_escape(at_scan *s, char *out, size_t *n)
{
    uint32_t c, low;

    if (!hex4(s, s->p + 1, &c)) return at_scan_fail(s, "bad \\u escape");
    s->p += 5;
    if (c >= 0xd800 && c < 0xdc00) {
        if (s->end - s->p < 6 || s->p[0] != '\\' || s->p[1] != 'u' || !hex4(s, s->p + 2, &low) ||
            low < 0xdc00 || low > 0xdfff)
            return at_scan_fail(s, "half of a surrogate pair");
        s->p += 6;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    } else if (c >= 0xdc00 && c <= 0xdfff) {
        return at_scan_fail(s, "half of a surrogate pair");
    }
    if (c == 0) return at_scan_fail(s, "a NUL in a string");
    *n += at_utf8_put(out + *n, c);
    return AT_OK;
}

static at_status escape(at_scan *s, char *out, size_t *n)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *hit;

    s->p++; // the backslash
    if (s->p >= s->end) return at_scan_fail(s, "string without end");
    if (*s->p == 'u') return unicode_escape(s, out, n);
    hit = *s->p ? strchr(from, *s->p) : NULL;
    if (!hit) return at_scan_fail(s, "unknown escape");
    out[(*n)++] = to[hit - from];
    s->p++;
    return AT_OK;
}

at_status at_scan_string(at_scan *s, const char **out)
{
    char *dst = s->strings + s->used;
    size_t n = 0;
    at_status st;

    if (at_scan_peek(s) != '"') return at_scan_fail(s, "expected a string");
    s->p++;
    for (;;) {
        if (s->p >= s->end) return at_scan_fail(s, "string without end");
        if (*s->p == '"') break;
        if (*s->p < 0x20) return at_scan_fail(s, "control character in a string");
        if (*s->p == '\\') {
            st = escape(s, dst, &n);
            if (st != AT_OK) return st;
        } else {
            dst[n++] = (char)*s->p++;
        }
    }
    s->p++;
    dst[n] = 0;
    s->used += n + 1;
    *out = dst;
    return AT_OK;
}

at_status at_scan_u64(at_scan *s, uint64_t *out)
{
    int c = at_scan_peek(s);
    const uint8_t *first = s->p;
    uint64_t v = 0;

    if (c == '-') return at_scan_fail(s, "a negative number");
    if (c < '0' || c > '9') return at_scan_fail(s, "expected a whole number");
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++)
        if (__builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*s->p - '0'), &v))
            return at_scan_fail(s, "number above 2^64 - 1");
    if (*first == '0' && s->p - first > 1) return at_scan_fail(s, "number with a leading zero");
    if (s->p < s->end && (*s->p == '.' || *s->p == 'e' || *s->p == 'E'))
        return at_scan_fail(s, "expected a whole number, not a fraction");
    *out = v;
    return AT_OK;
}

// A number of any form or one of the three words.
static at_status skip_scalar(at_scan *s)
{
    static const char *const words[] = {"true", "false", "null"};
    const uint8_t *first = s->p;
    size_t left = (size_t)(s->end - s->p);

    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t n = strlen(words[i]);
        if (left >= n && !memcmp(s->p, words[i], n)) {
            s->p += n;
            return AT_OK;
        }
    }
    while (s->p < s->end && *s->p && strchr("+-.0123456789eE", *s->p))
        s->p++;
    return s->p > first ? AT_OK : at_scan_fail(s, "expected a value");
}

static at_status skip_members(at_scan *s, int depth, bool object)
{
    char close = object ? '}' : ']';
    size_t mark = s->used;
    const char *key;
    at_status st = AT_OK;

    s->p++;
    if (at_scan_take(s, close)) return AT_OK;
    do {
        if (object) {
            AT_TRY(at_scan_string(s, &key));
            AT_TRY(at_scan_expect(s, ':'));
        }
        AT_TRY(at_scan_skip(s, depth + 1));
    } while (at_scan_take(s, ','));
    AT_TRY(at_scan_expect(s, close));
out:
    s->used = mark;
    return st;
}

at_status at_scan_skip(at_scan *s, int depth)
{
    int c = at_scan_peek(s);
    size_t mark = s->used;
    const char *text;
    at_status st;

    if (c == '{' || c == '[') {
        if (depth >= AT_SCAN_MAX_DEPTH) return at_scan_fail(s, "nested deeper than 8");
        return skip_members(s, depth, c == '{');
    }
    if (c != '"') return skip_scalar(s);
    st = at_scan_string(s, &text);
    s->used = mark;
    return st;
}
