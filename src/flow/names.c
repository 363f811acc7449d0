// SPDX-License-Identifier: Apache-2.0
// names.c - open addressing with linear probing, at most half full.
#include "flow/names.h"

#include <string.h>

#include "base/mem.h"
#include "flow/digest.h"

struct at_names_slot {
    const char *name;
    size_t value;
};

static size_t place(const at_names *t, const char *name)
{
    at_digest key;
    at_hash h;
    size_t i;

    at_hash_key(&key);
    at_hash_start(&h, key);
    at_hash_text(&h, name);
    i = (size_t)at_hash_end(&h).a & (t->cap - 1);
    while (t->slots[i].name && strcmp(t->slots[i].name, name) != 0)
        i = (i + 1) & (t->cap - 1);
    return i;
}

static at_status grow(at_names *t)
{
    at_names bigger = {.cap = t->cap ? t->cap * 2 : 16};

    bigger.slots = at_calloc(bigger.cap, sizeof *bigger.slots);
    if (!bigger.slots) return at_fail(AT_ENOMEM, "no memory for a table of %zu names", bigger.cap);
    for (size_t i = 0; i < t->cap; i++) {
        if (t->slots[i].name) bigger.slots[place(&bigger, t->slots[i].name)] = t->slots[i];
    }
    bigger.count = t->count;
    at_free(t->slots);
    *t = bigger;
    return AT_OK;
}

at_status at_names_add(at_names *t, const char *name, size_t value)
{
    at_status st;
    size_t i;

    if (t->count * 2 >= t->cap) {
        st = grow(t);
        if (st != AT_OK) return st;
    }
    i = place(t, name);
    if (t->slots[i].name) return AT_EINVAL;
    t->slots[i].name = name;
    t->slots[i].value = value;
    t->count++;
    return AT_OK;
}

size_t at_names_find(const at_names *t, const char *name)
{
    size_t i;

    if (!t->count) return AT_NO_INDEX;
    i = place(t, name);
    return t->slots[i].name ? t->slots[i].value : AT_NO_INDEX;
}

void at_names_free(at_names *t)
{
    at_free(t->slots);
    *t = (at_names){0};
}
