// SPDX-License-Identifier: Apache-2.0
// symtab.c - see symtab.h. Open addressing, at most half full.
#include "text/symtab.h"

#include <string.h>

#include "base/mem.h"

#define MAX_SYMBOLS (1u << 24)

static uint64_t hash(const char *text, size_t n)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ n;

    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
    h ^= h >> 29; // the low bits of a product depend on low bits only
    h *= 0xbf58476d1ce4e5b9u;
    return h ^ h >> 32;
}

static uint32_t *slot_of(const at_symtab *t, const char *text, size_t n)
{
    uint32_t mask = t->slot_count - 1, i = (uint32_t)hash(text, n) & mask;

    while (t->slots[i]) {
        const at_sym *s = &t->syms[t->slots[i] - 1];
        if (s->len == n && !memcmp(s->text, text, n)) break;
        i = (i + 1) & mask;
    }
    return &t->slots[i];
}

static at_status grow(at_symtab *t)
{
    uint32_t cap = t->cap ? t->cap * 2 : 1024;
    at_sym *syms;
    uint32_t *slots;

    if (cap > MAX_SYMBOLS)
        return at_fail(AT_EFORMAT, "a vocabulary of more than %u entries", MAX_SYMBOLS);
    if (!t->arena && !(t->arena = at_arena_new(64 << 10))) goto nomem;
    if (!(syms = at_realloc(t->syms, cap * sizeof *syms))) goto nomem;
    t->syms = syms;
    if (!(slots = at_calloc(2 * (size_t)cap, sizeof *slots))) goto nomem;
    at_free(t->slots);
    t->slots = slots;
    t->slot_count = 2 * cap;
    t->cap = cap;
    for (uint32_t i = 0; i < t->count; i++)
        *slot_of(t, t->syms[i].text, t->syms[i].len) = i + 1;
    return AT_OK;
nomem:
    return at_fail(AT_ENOMEM, "no memory for a vocabulary of %u entries", cap);
}

int32_t at_symtab_intern(at_symtab *t, const char *text, size_t n, at_status *st)
{
    uint32_t *slot;
    char *copy;

    if (t->count == t->cap && (*st = grow(t)) != AT_OK) return -1;
    slot = slot_of(t, text, n);
    if (*slot) return (int32_t)(*slot - 1);
    copy = n < UINT32_MAX ? at_arena_alloc(t->arena, n + 1) : NULL;
    if (!copy) {
        *st = at_fail(AT_ENOMEM, "no memory for a vocabulary entry of %zu bytes", n);
        return -1;
    }
    memcpy(copy, text, n);
    t->syms[t->count] = (at_sym){copy, (uint32_t)n, -1};
    *slot = ++t->count;
    return (int32_t)(t->count - 1);
}

int32_t at_symtab_find(const at_symtab *t, const char *text, size_t n)
{
    return t->slot_count ? (int32_t)*slot_of(t, text, n) - 1 : -1;
}

void at_symtab_free(at_symtab *t)
{
    at_free(t->syms);
    at_free(t->slots);
    at_arena_free(t->arena);
    *t = (at_symtab){0};
}
