// SPDX-License-Identifier: Apache-2.0
// stores.c - model files that are open.
#include "engine/stores.h"

#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/trace.h"

typedef struct entry {
    char *path;
    at_store *store;
    off_t size;
    struct timespec changed;
} entry;

struct at_stores {
    entry *items;
    size_t count;
};

at_status at_stores_new(at_stores **out)
{
    *out = at_calloc(1, sizeof **out);
    return *out ? AT_OK : at_fail(AT_ENOMEM, "model files: no memory");
}

static void drop(entry *e)
{
    at_store_release(&e->store);
    at_free(e->path);
}

void at_stores_forget(at_stores *s)
{
    while (s->count > 0)
        drop(&s->items[--s->count]);
}

void at_stores_free(at_stores *s)
{
    if (!s) return;
    at_stores_forget(s);
    at_free(s->items);
    at_free(s);
}

static bool same_file(const entry *e, const struct stat *st)
{
    return e->size == st->st_size && e->changed.tv_sec == st->st_mtim.tv_sec &&
           e->changed.tv_nsec == st->st_mtim.tv_nsec;
}

bool at_stores_refresh(at_stores *s)
{
    bool changed = false;
    for (size_t i = s->count; i-- > 0;) {
        struct stat facts;
        if (stat(s->items[i].path, &facts) == 0 && same_file(&s->items[i], &facts)) continue;
        drop(&s->items[i]);
        s->items[i] = s->items[--s->count];
        changed = true;
    }
    return changed;
}

at_status at_stores_open(at_stores *s, const char *path, at_store **out)
{
    struct stat facts;
    bool have_facts = stat(path, &facts) == 0;

    for (size_t i = 0; i < s->count; i++) {
        if (strcmp(s->items[i].path, path) != 0) continue;
        if (have_facts && same_file(&s->items[i], &facts)) {
            *out = at_store_retain(s->items[i].store);
            return AT_OK;
        }
        drop(&s->items[i]); // changed on disk: users of the old one keep their reference
        s->items[i] = s->items[--s->count];
        break;
    }
    at_store *store = NULL;
    double began = at_trace_begin();
    at_status st = at_store_open(path, &store);
    if (st != AT_OK) return st;
    at_trace_end_bytes(began, "load", (double)at_store_file_bytes(store), "open %s", path);
    entry *grown = at_realloc(s->items, (s->count + 1) * sizeof *grown);
    char *copy = grown ? at_strdup(path) : NULL;
    if (grown) s->items = grown;
    if (!copy || !have_facts) { // still usable, only not remembered
        at_free(copy);
        *out = store;
        return AT_OK;
    }
    s->items[s->count++] = (entry){copy, store, facts.st_size, facts.st_mtim};
    *out = at_store_retain(store);
    return AT_OK;
}
