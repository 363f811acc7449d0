// SPDX-License-Identifier: Apache-2.0
// lora_names.c - the list of names by which a model's layers go.
// Idea: names are appended; before the list is used, later entries of a name replace the target of
// the first, as assignments to a Python dict do.
// Owns: see lora.h.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "weight/lora_impl.h"

enum { MAX_NAME = 512 };

at_status at_lora_names_new(at_lora_names **out)
{
    *out = at_calloc(1, sizeof **out);
    return *out ? AT_OK : at_fail(AT_ENOMEM, "no memory for names of layers");
}

void at_lora_names_free(at_lora_names *n)
{
    if (!n) return;
    for (size_t i = 0; i < n->count; i++) {
        at_free(n->items[i].name);
        at_free(n->items[i].record);
    }
    at_free(n->items);
    at_free(n);
}

static bool room(at_lora_names *n)
{
    size_t want = n->cap ? n->cap * 2 : 256, bytes;
    at_lora_name *p = NULL;

    if (n->count < n->cap) return true;
    if (at_mul_size(want, sizeof *p, &bytes)) p = at_realloc(n->items, bytes);
    if (!p) return false;
    n->items = p;
    n->cap = want;
    return true;
}

void at_lora_names_add(at_lora_names *n, const at_lora_target *to, const char *name)
{
    at_lora_name item = {.order = n->count, .to = *to};

    if (n->failed) return;
    item.name = at_strdup(name);
    item.record = at_strdup(to->record);
    item.to.record = item.record;
    if (!item.name || !item.record || !room(n)) {
        at_free(item.name);
        at_free(item.record);
        n->failed = true;
        return;
    }
    n->items[n->count++] = item;
    n->settled = false;
}

void at_lora_names_addf(at_lora_names *n, const at_lora_target *to, const char *fmt, ...)
{
    char name[MAX_NAME];
    va_list args;

    va_start(args, fmt);
    int len = vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    // A longer name is nobody's: no file's layer goes by it.
    if (len > 0 && len < MAX_NAME) at_lora_names_add(n, to, name);
}

static int by_name(const void *a, const void *b)
{
    const at_lora_name *x = a, *y = b;
    int c = strcmp(x->name, y->name);

    return c ? c : (x->order > y->order) - (x->order < y->order);
}

static int by_order(const void *a, const void *b)
{
    const at_lora_name *x = a, *y = b;

    return (x->order > y->order) - (x->order < y->order);
}

at_status at_lora_names_settle(at_lora_names *n)
{
    size_t kept = 0;

    if (n->failed) return at_fail(AT_ENOMEM, "no memory for %zu names of layers", n->count);
    if (n->settled || !n->count) return AT_OK;
    qsort(n->items, n->count, sizeof *n->items, by_name);
    for (size_t i = 0; i < n->count; i++) {
        if (kept > 0 && !strcmp(n->items[kept - 1].name, n->items[i].name)) {
            size_t order =
                n->items[kept - 1].order; // the place of the first, the target of the last
            at_free(n->items[kept - 1].name);
            at_free(n->items[kept - 1].record);
            n->items[kept - 1] = n->items[i];
            n->items[kept - 1].order = order;
        } else {
            n->items[kept++] = n->items[i];
        }
    }
    n->count = kept;
    qsort(n->items, n->count, sizeof *n->items, by_order);
    n->settled = true;
    return AT_OK;
}

size_t at_lora_names_count(const at_lora_names *n)
{
    return n->count;
}

const char *at_lora_names_at(const at_lora_names *n, size_t i, at_lora_target *to)
{
    *to = n->items[i].to;
    return n->items[i].name;
}
