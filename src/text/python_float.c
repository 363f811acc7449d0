// SPDX-License-Identifier: Apache-2.0
// python_float.c - see python_float.h. Source: Python 3 reference, float() and its grammar.
// Owns nothing.
#include "text/python_float.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <utf8proc.h>

#include "text/utf8.h"

#define MAX_DIGITS 1000 // a longer number is not a weight that a person wrote

// Value of a decimal digit (category Nd), -1 for others. Unicode keeps each script's ten in a row, and
// the row before a zero never belongs to the same script's digits of another ten but in one block.
static int digit(uint32_t c)
{
    uint32_t zero = c;

    if (c < 0x80) return c >= '0' && c <= '9' ? (int)(c - '0') : -1;
    if (utf8proc_category((utf8proc_int32_t)c) != UTF8PROC_CATEGORY_ND) return -1;
    if (c >= 0x1d7ce && c <= 0x1d7ff) return (int)((c - 0x1d7ce) % 10); // five alphabets in a row
    while (c - zero < 9 && utf8proc_category((utf8proc_int32_t)zero - 1) == UTF8PROC_CATEGORY_ND)
        zero--;
    return (int)(c - zero);
}

static bool strip(const char **text, size_t *n)
{
    const char *s = *text, *last = s, *end = s + *n;
    bool started = false;
    uint32_t cp;

    for (const char *p = s; p < end;) {
        size_t len = at_utf8_next(p, (size_t)(end - p), &cp);
        bool space = at_is_space(cp) || (cp >= 0x1c && cp <= 0x1f);
        if (!space && !started) s = p;
        started |= !space;
        p += len;
        if (!space) last = p;
    }
    *text = s;
    *n = started ? (size_t)(last - s) : 0;
    return started;
}

// ASCII form of the number without its underscores; false if it has another shape.
static bool plain(const char *text, size_t n, char *out)
{
    char before = 0, *q = out;

    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int d;
        i += at_utf8_next(text + i, n - i, &cp);
        d = digit(cp);
        if (q - out >= MAX_DIGITS) return false;
        if (d >= 0) {
            *q++ = before = (char)('0' + d);
        } else if (cp == '_') { // between two digits only
            uint32_t next = 0;
            if (i < n) at_utf8_next(text + i, n - i, &next);
            if (!(before >= '0' && before <= '9') || digit(next) < 0) return false;
            before = '_';
        } else if (cp < 0x80 && strchr("+-.eE", (int)cp) && cp) {
            *q++ = before = (char)cp;
        } else {
            return false;
        }
    }
    *q = 0;
    return q > out;
}

static bool word(const char *text, size_t n, double *out)
{
    static const char *const names[] = {"inf", "infinity", "nan"};
    bool minus = n && *text == '-';

    if (n && (*text == '+' || *text == '-')) text++, n--;
    for (int i = 0; i < 3; i++) {
        if (n != strlen(names[i]) || strncasecmp(text, names[i], n) != 0) continue;
        *out = i == 2 ? NAN : minus ? -INFINITY : INFINITY;
        return true;
    }
    return false;
}

bool at_python_float(const char *text, size_t n, double *out)
{
    char ascii[MAX_DIGITS + 1], *end;

    if (!strip(&text, &n)) return false;
    if (word(text, n, out)) return true;
    if (!plain(text, n, ascii)) return false;
    *out = strtod(ascii, &end); // no hexadecimal: 'x' did not pass
    return end > ascii && *end == 0;
}
