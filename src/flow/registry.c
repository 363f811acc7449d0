// SPDX-License-Identifier: Apache-2.0
// registry.c - every node this process knows, by class name, in order of registration.
// Owns: the table; the nodes are const and borrowed.
#include "flow/flow.h"

#include "base/mem.h"
#include "flow/names.h"

struct at_registry {
    const at_node **nodes;
    size_t count, cap;
    at_names names;
};

at_status at_registry_new(at_registry **out)
{
    *out = at_calloc(1, sizeof **out);
    return *out ? AT_OK : at_fail(AT_ENOMEM, "no memory for the table of nodes");
}

void at_registry_free(at_registry *r)
{
    if (!r) return;
    at_names_free(&r->names);
    at_free(r->nodes);
    at_free(r);
}

static at_status add_one(at_registry *r, const at_node *n)
{
    const at_node **grown;
    size_t cap;
    at_status st;

    if (r->count == r->cap) {
        cap = r->cap ? r->cap * 2 : 64;
        grown = at_realloc(r->nodes, cap * sizeof *grown);
        if (!grown) return at_fail(AT_ENOMEM, "no memory for a table of %zu nodes", cap);
        r->nodes = grown;
        r->cap = cap;
    }
    st = at_names_add(&r->names, n->class_type, r->count);
    if (st == AT_EINVAL) {
        return at_fail(AT_EINTERNAL, "two nodes are called %s; rename one", n->class_type);
    }
    if (st != AT_OK) return st;
    r->nodes[r->count++] = n;
    return AT_OK;
}

at_status at_registry_add(at_registry *r, const at_node *const *nodes)
{
    at_status st = AT_OK;

    for (; *nodes && st == AT_OK; nodes++)
        st = add_one(r, *nodes);
    return st;
}

const at_node *at_registry_find(const at_registry *r, const char *class_type)
{
    size_t i = at_names_find(&r->names, class_type);
    return i == AT_NO_INDEX ? NULL : r->nodes[i];
}

size_t at_registry_count(const at_registry *r)
{
    return r->count;
}

const at_node *at_registry_at(const at_registry *r, size_t i)
{
    return i < r->count ? r->nodes[i] : NULL;
}
