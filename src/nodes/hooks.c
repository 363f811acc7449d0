// SPDX-License-Identifier: Apache-2.0
// hooks.c - sets of guidance hooks.
// Idea: a set is an array of references to counted hooks; adding copies the array.
#include "nodes/hooks.h"

#include <stdatomic.h>

#include "base/mem.h"
#include "nodes/objects.h"

// One hook, shared by every set that holds it.
typedef struct shared {
    atomic_int refs;
    at_hook hook;
} shared;

struct at_hooks {
    atomic_int refs;
    size_t count;
    shared *items[];
};

static void drop(shared *s)
{
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
    (s->hook.ops->free ? s->hook.ops->free : at_free)(s->hook.self);
    at_free(s);
}

at_status at_hooks_add(const at_hooks *set, const at_hook_ops *ops, void *self, at_hooks **out)
{
    size_t n = at_hooks_count(set);
    at_hooks *h = at_calloc(1, sizeof *h + (n + 1) * sizeof *h->items);
    shared *s = at_calloc(1, sizeof *s);

    *out = NULL;
    if (!h || !s) {
        at_free(h);
        at_free(s);
        (ops->free ? ops->free : at_free)(self);
        return at_fail(AT_ENOMEM, "%s: no memory for a model's hook", ops->name);
    }
    atomic_init(&h->refs, 1);
    atomic_init(&s->refs, 1);
    s->hook = (at_hook){ops, self};
    h->count = n + 1;
    for (size_t i = 0; i < n; i++) {
        h->items[i] = set->items[i];
        atomic_fetch_add_explicit(&h->items[i]->refs, 1, memory_order_relaxed);
    }
    h->items[n] = s;
    *out = h;
    return AT_OK;
}

at_hooks *at_hooks_retain(at_hooks *h)
{
    if (h) atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed);
    return h;
}

void at_hooks_release(at_hooks **h)
{
    at_hooks *p = *h;
    *h = NULL;
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1) return;
    for (size_t i = 0; i < p->count; i++)
        drop(p->items[i]);
    at_free(p);
}

size_t at_hooks_count(const at_hooks *h)
{
    return h ? h->count : 0;
}

const at_hook *at_hooks_at(const at_hooks *h, size_t i)
{
    return &h->items[i]->hook;
}

void at_hook_patch_free(void *run)
{
    (void)run;
}

at_status at_obj_model_hook(const at_obj_model *like, const at_hook_ops *ops, void *self,
                            at_object **out)
{
    at_hooks *set = NULL;
    at_status st = at_hooks_add(like->hooks, ops, self, &set);

    *out = NULL;
    if (st != AT_OK) return st;
    *out = at_obj_model_with(like, at_model_retain(like->model));
    if (!*out) {
        at_hooks_release(&set);
        return at_fail(AT_ENOMEM, "%s: no memory for a model", ops->name);
    }
    at_hooks_release(&((at_obj_model *)*out)->hooks);
    ((at_obj_model *)*out)->hooks = set;
    return AT_OK;
}
