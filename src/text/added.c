// SPDX-License-Identifier: Apache-2.0
// added.c - see added.h. A plain scan: vocabularies have about a hundred of them, nearly all with '<'.
#include "text/added.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

at_status at_added_push(at_added *a, const char *text, size_t n, at_added_token how)
{
    at_added_token *items;

    if (n == 0) return AT_OK; // would match everywhere
    if (a->count == a->cap) {
        size_t cap = a->cap ? a->cap * 2 : 128;
        if (!(items = at_realloc(a->items, cap * sizeof *items)))
            return at_fail(AT_ENOMEM, "no memory for %zu added tokens", cap);
        a->items = items;
        a->cap = cap;
    }
    how.text = at_strndup(text, n);
    how.len = n;
    if (!how.text) return at_fail(AT_ENOMEM, "no memory for an added token");
    a->items[a->count++] = how;
    return AT_OK;
}

static int longest_first(const void *pa, const void *pb)
{
    const at_added_token *a = pa, *b = pb;

    if (a->len != b->len) return a->len > b->len ? -1 : 1;
    return memcmp(a->text, b->text, a->len);
}

void at_added_sort(at_added *a)
{
    if (a->count) qsort(a->items, a->count, sizeof *a->items, longest_first);
}

static bool is_word_byte(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (unsigned char)c >= 0x80;
}

static bool is_space_byte(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool stands_at(const at_added_token *t, bool normalized, const char *text, size_t n,
                      size_t i)
{
    if (t->normalized != normalized || t->len > n - i || memcmp(text + i, t->text, t->len) != 0)
        return false;
    if (!t->single_word) return true;
    return !(i && is_word_byte(text[i - 1])) && !(i + t->len < n && is_word_byte(text[i + t->len]));
}

int64_t at_added_next(const at_added *a, bool normalized, const char *text, size_t n, size_t from,
                      size_t *begin, size_t *end)
{
    bool first[256] = {0};

    for (size_t k = 0; k < a->count; k++)
        if (a->items[k].normalized == normalized) first[(unsigned char)a->items[k].text[0]] = true;
    for (size_t i = from; i < n; i++) {
        if (!first[(unsigned char)text[i]]) continue;
        for (size_t k = 0; k < a->count; k++) {
            const at_added_token *t = &a->items[k];
            if (!stands_at(t, normalized, text, n, i)) continue;
            *begin = i;
            *end = i + t->len;
            while (t->lstrip && *begin > from && is_space_byte(text[*begin - 1]))
                --*begin;
            while (t->rstrip && *end < n && is_space_byte(text[*end]))
                ++*end;
            return (int64_t)k;
        }
    }
    return -1;
}

size_t at_added_prefix(const at_added *a, const char *text, size_t n)
{
    for (size_t k = 0; k < a->count; k++) {
        const at_added_token *t = &a->items[k];
        if (t->len <= n && *t->text == *text && !memcmp(text, t->text, t->len)) return t->len;
    }
    return 0;
}

void at_added_free(at_added *a)
{
    for (size_t i = 0; i < a->count; i++)
        at_free(a->items[i].text);
    at_free(a->items);
    *a = (at_added){0};
}
