// SPDX-License-Identifier: Apache-2.0
// utf8.c - see utf8.h. Source: Unicode 15, table 3-7 (well-formed byte sequences).
#include "text/utf8.h"

#include "base/mem.h"

static bool continues(const char *s, size_t i)
{
    return ((unsigned char)s[i] & 0xc0) == 0x80;
}

size_t at_utf8_next(const char *s, size_t n, uint32_t *cp)
{
    unsigned char c = (unsigned char)s[0];
    uint32_t v;

    if (c < 0x80) {
        *cp = c;
        return 1;
    }
    *cp = AT_REPLACEMENT;
    if (c >= 0xc2 && c <= 0xdf) {
        if (n < 2 || !continues(s, 1)) return 1;
        *cp = (uint32_t)(c & 31) << 6 | ((unsigned char)s[1] & 63);
        return 2;
    }
    if (c >= 0xe0 && c <= 0xef) {
        if (n < 3 || !continues(s, 1) || !continues(s, 2)) return 1;
        v = (uint32_t)(c & 15) << 12 | (uint32_t)((unsigned char)s[1] & 63) << 6 |
            ((unsigned char)s[2] & 63);
        if (v < 0x800 || (v >= 0xd800 && v <= 0xdfff)) return 1;
        *cp = v;
        return 3;
    }
    if (c >= 0xf0 && c <= 0xf4) {
        if (n < 4 || !continues(s, 1) || !continues(s, 2) || !continues(s, 3)) return 1;
        v = (uint32_t)(c & 7) << 18 | (uint32_t)((unsigned char)s[1] & 63) << 12 |
            (uint32_t)((unsigned char)s[2] & 63) << 6 | ((unsigned char)s[3] & 63);
        if (v < 0x10000 || v > 0x10ffff) return 1;
        *cp = v;
        return 4;
    }
    return 1;
}

void at_utf8_append(at_str *s, uint32_t cp)
{
    char bytes[4];

    at_str_append_n(s, bytes, at_utf8_put(bytes, cp));
}

void at_utf8_repair(at_str *out, const char *s, size_t n)
{
    if (at_utf8_valid(s, n)) {
        at_str_append_n(out, s, n);
        return;
    }
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += at_utf8_next(s + i, n - i, &cp);
        at_utf8_append(out, cp);
    }
}

bool at_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

at_status at_cps_push(at_cps *c, uint32_t cp)
{
    if (c->len == c->cap) {
        size_t cap = c->cap ? c->cap * 2 : 256, bytes;
        uint32_t *p;
        if (!at_mul_size(cap, sizeof *p, &bytes) || !(p = at_realloc(c->data, bytes)))
            return at_fail(AT_ENOMEM, "no memory for a text of %zu characters", cap);
        c->data = p;
        c->cap = cap;
    }
    c->data[c->len++] = cp;
    return AT_OK;
}

void at_cps_free(at_cps *c)
{
    at_free(c->data);
    *c = (at_cps){0};
}
