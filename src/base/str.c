// SPDX-License-Identifier: Apache-2.0
// str.c - the growing string and small string helpers.
// Idea: capacity doubles; the first failed growth marks the string and later appends do nothing.
// Owns: the string owns its bytes until taken or freed.
#include "base/str.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

// Make room for `extra` more bytes and the terminator.
static bool reserve(at_str *s, size_t extra)
{
    size_t need, cap = s->cap ? s->cap : 64;
    char *grown;

    if (s->failed) return false;
    if (!at_add_size(s->len, extra, &need) || !at_add_size(need, 1, &need) || need > SIZE_MAX / 2) {
        s->failed = true;
        return false;
    }
    if (s->data && need <= s->cap) return true;
    while (cap < need)
        cap *= 2;
    grown = at_realloc(s->data, cap);
    if (!grown) {
        s->failed = true;
        return false;
    }
    s->data = grown;
    s->cap = cap;
    return true;
}

void at_str_append(at_str *s, const char *text)
{
    at_str_append_n(s, text, strlen(text));
}

void at_str_append_n(at_str *s, const void *bytes, size_t n)
{
    if (!reserve(s, n)) return;
    if (n) memcpy(s->data + s->len, bytes, n);
    s->len += n;
    s->data[s->len] = '\0';
}

void at_str_printf(at_str *s, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    at_str_vprintf(s, fmt, args);
    va_end(args);
}

void at_str_vprintf(at_str *s, const char *fmt, va_list args)
{
    va_list again;
    int n;

    va_copy(again, args);
    n = vsnprintf(NULL, 0, fmt, args);
    if (n < 0) s->failed = true;
    if (n >= 0 && reserve(s, (size_t)n)) {
        vsnprintf(s->data + s->len, (size_t)n + 1, fmt, again);
        s->len += (size_t)n;
    }
    va_end(again);
}

void at_str_clear(at_str *s)
{
    s->len = 0;
    s->failed = false;
    if (s->data) s->data[0] = '\0';
}

void at_str_free(at_str *s)
{
    at_free(s->data);
    *s = (at_str){0};
}

const char *at_str_text(const at_str *s)
{
    return s->data ? s->data : "";
}

char *at_str_take(at_str *s)
{
    char *out = NULL;

    if (!s->failed) out = s->data ? s->data : at_strdup("");
    if (out != s->data) at_free(s->data);
    *s = (at_str){0};
    return out;
}

bool at_has_word(const char *list, const char *word)
{
    size_t n = strlen(word);

    while (list && *list) {
        size_t length = strcspn(list, ",");
        if (length == n && memcmp(list, word, n) == 0) return true;
        list += length + (list[length] == ',');
    }
    return false;
}

bool at_starts_with(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool at_ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);

    return n >= k && memcmp(s + n - k, suffix, k) == 0;
}

static int lower(int c)
{
    return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

bool at_equal_nocase(const char *a, const char *b)
{
    while (*a && lower((unsigned char)*a) == lower((unsigned char)*b)) {
        a++;
        b++;
    }
    return *a == '\0' && *b == '\0';
}

// Bytes that follow the lead byte `c`, with the range that the first of them must lie in (this is
// what keeps out overlong forms, surrogates and code points above U+10FFFF; Unicode table 3-7). -1:
// not a lead.
static int utf8_tail(unsigned char c, unsigned char *lo, unsigned char *hi)
{
    *lo = 0x80;
    *hi = 0xbf;
    if (c < 0x80) return 0;
    if (c >= 0xc2 && c <= 0xdf) return 1;
    if (c >= 0xe0 && c <= 0xef) {
        if (c == 0xe0) *lo = 0xa0;
        if (c == 0xed) *hi = 0x9f;
        return 2;
    }
    if (c >= 0xf0 && c <= 0xf4) {
        if (c == 0xf0) *lo = 0x90;
        if (c == 0xf4) *hi = 0x8f;
        return 3;
    }
    return -1;
}

bool at_utf8_valid(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t i = 0;

    while (i < n) {
        unsigned char lo, hi;
        int tail = utf8_tail(p[i++], &lo, &hi);

        if (tail < 0 || (size_t)tail > n - i) return false;
        for (int k = 0; k < tail; k++, i++) {
            if (p[i] < lo || p[i] > hi) return false;
            lo = 0x80;
            hi = 0xbf;
        }
    }
    return true;
}

void at_human_bytes(double bytes, char out[16])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t u = 0;

    while ((bytes >= 1023.95 || bytes <= -1023.95) && u + 1 < sizeof units / sizeof *units) {
        bytes /= 1024.0;
        u++;
    }
    snprintf(out, 16, "%.1f %s", bytes, units[u]);
}

size_t at_utf8_put(char out[4], uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}
