// SPDX-License-Identifier: Apache-2.0
// patch.c - sets of hooks, and the loops that call them.
// Idea: a patch's own struct is shared by every set that holds it, so it carries a count; a set is
// an array that is copied when one is added (a workflow has a handful).
// Owns: see patch.h.
#include "models/patch.h"

#include <stdatomic.h>

#include "base/mem.h"

typedef struct shared {
    atomic_int refs;
    at_patch patch;
} shared;

struct at_patches {
    atomic_int refs;
    size_t count;
    shared *items[];
};

static void shared_release(shared *s)
{
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
    if (s->patch.ops->free)
        s->patch.ops->free(s->patch.self);
    else
        at_free(s->patch.self);
    at_free(s);
}

at_status at_patches_add(const at_patches *set, const at_patch_ops *ops, void *self,
                         at_patches **out)
{
    size_t n = at_patches_count(set);
    shared *s = at_calloc(1, sizeof *s);
    at_patches *p = at_calloc(1, sizeof *p + (n + 1) * sizeof *p->items);

    *out = NULL;
    if (!s || !p) {
        at_free(s);
        at_free(p);
        if (ops->free)
            ops->free(self);
        else
            at_free(self);
        return at_fail(AT_ENOMEM, "%s: no memory for a model patch", ops->name);
    }
    atomic_init(&s->refs, 1);
    s->patch = (at_patch){ops, self};
    atomic_init(&p->refs, 1);
    p->count = n + 1;
    for (size_t i = 0; i < n; i++) {
        p->items[i] = set->items[i];
        atomic_fetch_add_explicit(&p->items[i]->refs, 1, memory_order_relaxed);
    }
    p->items[n] = s;
    *out = p;
    return AT_OK;
}

at_patches *at_patches_retain(at_patches *set)
{
    if (set) atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
    return set;
}

void at_patches_release(at_patches **set)
{
    at_patches *p = *set;
    *set = NULL;
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1) return;
    for (size_t i = 0; i < p->count; i++)
        shared_release(p->items[i]);
    at_free(p);
}

size_t at_patches_count(const at_patches *set)
{
    return set ? set->count : 0;
}

const at_patch *at_patches_at(const at_patches *set, size_t i)
{
    return &set->items[i]->patch;
}

// --- sites -------------------------------------------------------------------------------------
// Every patch of the set that has the hook, oldest first.
#define EACH(set, hook)                                                                            \
    for (size_t i_ = 0, n_ = at_patches_count(set); i_ < n_; i_++)                                 \
        for (const at_patch *p = at_patches_at(set, i_); p && p->ops->hook; p = NULL)

void at_patch_attn_in(at_ops *o, const at_patches *set, const at_site *s, const at_tensor **q,
                      const at_tensor **k, const at_tensor **v)
{
    EACH(set, attn_in)
    p->ops->attn_in(p->self, o, s, q, k, v);
}

static at_tensor *whole_attn(at_ops *o, const at_patches *set, const at_site *s, const at_tensor *q,
                             const at_tensor *k, const at_tensor *v)
{
    for (size_t i = at_patches_count(set); i-- > 0;) {
        const at_patch *p = at_patches_at(set, i);
        at_tensor *out = p->ops->attn ? p->ops->attn(p->self, o, s, q, k, v) : NULL;
        if (out) return out;
    }
    return at_attention(o, q, k, v, NULL, 0, false);
}

// Patches see all heads, also where each rank has made some of them.
at_tensor *at_patch_attn(at_ops *o, const at_patches *set, const at_site *s, const at_tensor *q,
                         const at_tensor *k, const at_tensor *v)
{
    if (!at_patches_count(set) || at_ops_mesh(o)->axis[AT_AXIS_TP]->size == 1)
        return whole_attn(o, set, s, q, k, v);
    q = at_gather_heads(o, q, s->heads);
    k = at_gather_heads(o, k, s->heads);
    v = at_gather_heads(o, v, s->heads);
    at_tensor *y = whole_attn(o, set, s, q, k, v);
    if (!y) return NULL;
    int64_t b = y->shape[0], t = y->shape[1], own = at_ops_own_heads(o, s->heads);
    y = at_reshape(o, y, 4, (int64_t[]){b, t, s->heads, s->dim});
    y = at_share_heads(o, y, 2);
    return at_reshape(o, y, 3, (int64_t[]){b, t, own * s->dim});
}

at_tensor *at_patch_attn_out(at_ops *o, const at_patches *set, const at_site *s, at_tensor *x)
{
    EACH(set, attn_out)
    x = p->ops->attn_out(p->self, o, s, x);
    return x;
}

at_tensor *at_patch_between(at_ops *o, const at_patches *set, const at_site *s, at_tensor *x)
{
    EACH(set, between)
    x = p->ops->between(p->self, o, s, x);
    return x;
}

at_tensor *at_patch_before_skip(at_ops *o, const at_patches *set, const at_site *s, at_tensor *x)
{
    EACH(set, before_skip)
    x = p->ops->before_skip(p->self, o, s, x);
    return x;
}

at_tensor *at_patch_after_skip(at_ops *o, const at_patches *set, const at_site *s, at_tensor *x)
{
    EACH(set, after_skip)
    x = p->ops->after_skip(p->self, o, s, x);
    return x;
}

void at_patch_join(at_ops *o, const at_patches *set, const at_site *s, at_tensor **x,
                   at_tensor **skip)
{
    EACH(set, join)
    p->ops->join(p->self, o, s, x, skip);
}

bool at_patch_skips(const at_patches *set, const at_site *s)
{
    EACH(set, skips)
    if (p->ops->skips(p->self, s)) return true;
    return false;
}
