// SPDX-License-Identifier: Apache-2.0
// plans.c - a table from a problem's bytes to what a library chose for it.
// Idea: open addressing over a copy of the key; a process sees some hundreds of problems, and asks
// tens of thousands of times.
#include <string.h>

#include "base/mem.h"
#include "cuda/cuda.h"

typedef struct entry {
    void *key, *plan;
    size_t bytes;
    uint64_t hash;
} entry;

struct at_cuda_plans {
    entry *entries; // a power of two of them; key NULL: free
    size_t cap, count;
};

at_status at_cuda_plans_new(at_cuda_plans **out)
{
    at_cuda_plans *p = at_calloc(1, sizeof *p);
    if (p) p->entries = at_calloc(p->cap = 64, sizeof *p->entries);
    if (!p || !p->entries) {
        at_free(p);
        return at_fail(AT_ENOMEM, "cuda: no memory for a plan table");
    }
    *out = p;
    return AT_OK;
}

// FNV-1a
static uint64_t hash_of(const void *key, size_t bytes)
{
    const unsigned char *k = key;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++)
        h = (h ^ k[i]) * 0x100000001b3u;
    return h;
}

static entry *place(entry *entries, size_t cap, const void *key, size_t bytes, uint64_t h)
{
    for (size_t i = h & (cap - 1);; i = (i + 1) & (cap - 1)) {
        entry *e = &entries[i];
        if (!e->key || (e->hash == h && e->bytes == bytes && memcmp(e->key, key, bytes) == 0))
            return e;
    }
}

void *at_cuda_plans_find(at_cuda_plans *p, const void *key, size_t bytes)
{
    entry *e = place(p->entries, p->cap, key, bytes, hash_of(key, bytes));
    return e->key ? e->plan : NULL;
}

static at_status grow(at_cuda_plans *p)
{
    size_t cap = p->cap * 2;
    entry *fresh = at_calloc(cap, sizeof *fresh);
    if (!fresh) return at_fail(AT_ENOMEM, "cuda: no memory for a plan table");
    for (size_t i = 0; i < p->cap; i++) {
        entry *e = &p->entries[i];
        if (e->key) *place(fresh, cap, e->key, e->bytes, e->hash) = *e;
    }
    at_free(p->entries);
    p->entries = fresh;
    p->cap = cap;
    return AT_OK;
}

size_t at_cuda_plans_count(const at_cuda_plans *p)
{
    return p->count;
}

at_status at_cuda_plans_add(at_cuda_plans *p, const void *key, size_t bytes, void *plan)
{
    at_status st = p->count * 2 >= p->cap ? grow(p) : AT_OK;
    void *copy = st == AT_OK ? at_alloc(bytes) : NULL;
    if (st != AT_OK) return st;
    if (!copy) return at_fail(AT_ENOMEM, "cuda: no memory for a plan");
    memcpy(copy, key, bytes);
    uint64_t h = hash_of(key, bytes);
    *place(p->entries, p->cap, key, bytes, h) = (entry){copy, plan, bytes, h};
    p->count++;
    return AT_OK;
}
