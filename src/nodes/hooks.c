// SPDX-License-Identifier: Apache-2.0
// hooks.c - sets of guidance hooks.
#include "nodes/hooks.h"

#include <stdatomic.h>

#include "base/mem.h"

struct at_hooks {
    atomic_int refs;
};

at_hooks *at_hooks_retain(at_hooks *h)
{
    if (h) atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed);
    return h;
}

void at_hooks_release(at_hooks **h)
{
    at_hooks *p = *h;
    *h = NULL;
    if (p && atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1) at_free(p);
}
