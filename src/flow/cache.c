// SPDX-License-Identifier: Apache-2.0
// cache.c - the result cache in ComfyUI's three modes.
// Idea: classic keeps only what the present prompt names; lru keeps the N entries used last, by
// generation (one per prompt); none starts empty, and execute.c drops a result when nobody needs
// it.
// Source: ComfyUI 0.3.64 comfy_execution/caching.py; comfyui-contract 3.6.
// Ownership: see cache.h.
#include "flow/cache.h"

#include <stdint.h>

#include "base/mem.h"

typedef struct entry {
    at_digest key;
    at_result *result; // NULL: free slot
    uint64_t used;     // generation
} entry;

struct at_cache {
    at_cache_mode mode;
    size_t limit, count, cap; // cap: a power of two; open addressing, at most half full
    entry *entries;
    uint64_t generation, oldest;
};

at_result *at_result_new(size_t slots)
{
    at_result *r = at_calloc(1, sizeof *r);

    if (!r) return NULL;
    r->refs = 1;
    r->count = slots;
    r->slots = at_calloc(slots + 1, sizeof *r->slots);
    if (!r->slots) {
        at_free(r);
        return NULL;
    }
    return r;
}

void at_result_release(at_result *r)
{
    if (!r || --r->refs) return;
    for (size_t i = 0; i < r->count; i++)
        at_value_list_clear(&r->slots[i]);
    at_free(r->slots);
    at_free(r->ui);
    at_free(r);
}

at_status at_cache_new(at_cache_mode mode, size_t lru_entries, at_cache **out)
{
    *out = at_calloc(1, sizeof **out);
    if (!*out) return at_fail(AT_ENOMEM, "no memory for the result cache");
    (*out)->mode = mode;
    (*out)->limit = lru_entries;
    return AT_OK;
}

void at_cache_clear(at_cache *c)
{
    for (size_t i = 0; i < c->cap; i++)
        at_result_release(c->entries[i].result);
    at_free(c->entries);
    c->entries = NULL;
    c->count = c->cap = 0;
}

void at_cache_free(at_cache *c)
{
    if (!c) return;
    at_cache_clear(c);
    at_free(c);
}

at_cache_mode at_cache_get_mode(const at_cache *c)
{
    return c->mode;
}

static size_t place(const entry *entries, size_t cap, at_digest key)
{
    size_t i = (size_t)key.a & (cap - 1);

    while (entries[i].result && (entries[i].key.a != key.a || entries[i].key.b != key.b)) {
        i = (i + 1) & (cap - 1);
    }
    return i;
}

static at_status grow(at_cache *c)
{
    size_t cap = c->cap ? c->cap * 2 : 32;
    entry *bigger = at_calloc(cap, sizeof *bigger);

    if (!bigger) return at_fail(AT_ENOMEM, "no memory for a cache of %zu results", cap);
    for (size_t i = 0; i < c->cap; i++) {
        if (c->entries[i].result) bigger[place(bigger, cap, c->entries[i].key)] = c->entries[i];
    }
    at_free(c->entries);
    c->entries = bigger;
    c->cap = cap;
    return AT_OK;
}

// Empty slot i and close the gap behind it (Knuth, TAOCP 6.4, algorithm R).
static void remove_at(at_cache *c, size_t i)
{
    size_t mask = c->cap - 1, j = i, home;

    at_result_release(c->entries[i].result);
    c->count--;
    for (;;) {
        c->entries[i].result = NULL;
        do {
            j = (j + 1) & mask;
            if (!c->entries[j].result) return;
            home = (size_t)c->entries[j].key.a & mask;
        } while (i <= j ? (i < home && home <= j) : (i < home || home <= j));
        c->entries[i] = c->entries[j];
        i = j;
    }
}

static void drop_unused(at_cache *c, uint64_t generation)
{
    // A removal moves later entries here: look at the same slot again.
    for (size_t i = 0; i < c->cap;) {
        if (c->entries[i].result && c->entries[i].used < generation) {
            remove_at(c, i);
        } else {
            i++;
        }
    }
}

void at_cache_begin(at_cache *c, const at_digest *keys, size_t count)
{
    c->generation++;
    for (size_t i = 0; i < count && c->cap; i++) {
        entry *e = &c->entries[place(c->entries, c->cap, keys[i])];
        if (e->result) e->used = c->generation;
    }
    switch (c->mode) {
    case AT_CACHE_CLASSIC: drop_unused(c, c->generation); break;
    case AT_CACHE_LRU:
        while (c->count > c->limit && c->oldest < c->generation)
            drop_unused(c, ++c->oldest);
        break;
    case AT_CACHE_NONE: at_cache_clear(c); break;
    }
}

at_result *at_cache_get(at_cache *c, at_digest key)
{
    entry *e;

    if (!c->cap) return NULL;
    e = &c->entries[place(c->entries, c->cap, key)];
    if (e->result) e->used = c->generation;
    return e->result;
}

at_status at_cache_put(at_cache *c, at_digest key, at_result *r)
{
    at_status st;
    entry *e;

    if ((c->count + 1) * 2 > c->cap) {
        st = grow(c);
        if (st != AT_OK) return st;
    }
    e = &c->entries[place(c->entries, c->cap, key)];
    r->refs++;
    if (e->result) {
        at_result_release(e->result);
    } else {
        c->count++;
    }
    *e = (entry){.key = key, .result = r, .used = c->generation};
    return AT_OK;
}

void at_cache_drop(at_cache *c, at_digest key)
{
    size_t i;

    if (!c->cap) return;
    i = place(c->entries, c->cap, key);
    if (c->entries[i].result) remove_at(c, i);
}
