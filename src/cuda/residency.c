// SPDX-License-Identifier: Apache-2.0
// residency.c - see residency.h. Two lists, each from the newest touch to the oldest.
#include "cuda/residency.h"

static at_residency_list *list_of(at_residency *r, const at_resident *x)
{
    return x->bytes < AT_RESIDENT_SMALL ? &r->small : &r->large;
}

static void unlink_one(at_residency *r, at_resident *x)
{
    at_residency_list *l = list_of(r, x);
    if (x->newer)
        x->newer->older = x->older;
    else
        l->newest = x->older;
    if (x->older)
        x->older->newer = x->newer;
    else
        l->oldest = x->newer;
}

// `used`: it counts as a touch. What is brought ahead does not: however much comes, what the call in preparation
// has touched stays within the window.
static void link_newest(at_residency *r, at_resident *x, unsigned long epoch, bool used)
{
    at_residency_list *l = list_of(r, x);
    x->newer = NULL;
    x->older = l->newest;
    if (l->newest)
        l->newest->newer = x;
    else
        l->oldest = x;
    l->newest = x;
    x->epoch = epoch;
    if (used) r->tick++;
    x->tick = r->tick;
}

void at_residency_add(at_residency *r, at_resident *x, unsigned long epoch)
{
    link_newest(r, x, epoch, !x->wanted);
    r->bytes += x->bytes;
}

void at_residency_touch(at_residency *r, at_resident *x, unsigned long epoch)
{
    unlink_one(r, x);
    link_newest(r, x, epoch, true);
}

void at_residency_remove(at_residency *r, at_resident *x)
{
    unlink_one(r, x);
    r->bytes -= x->bytes;
    x->newer = x->older = NULL;
}

static bool may_go(const at_resident *x, size_t like)
{
    return !x->busy && (!like || x->bytes == like);
}

// The longest unused of a list that `epoch` has not touched. Epochs only grow, so the first that it has touched ends
// the search.
static at_resident *idle_of(const at_residency_list *l, unsigned long epoch, size_t like)
{
    for (at_resident *x = l->oldest; x && x->epoch != epoch; x = x->newer)
        if (may_go(x, like)) return x;
    return NULL;
}

at_resident *at_residency_victim(const at_residency *r, unsigned long epoch, at_residency_who who,
                                 size_t like)
{
    if (who == AT_GO_IDLE) {
        at_resident *large = idle_of(&r->large, epoch, like);
        at_resident *small = idle_of(&r->small, epoch, like);
        return !large || (small && small->tick < large->tick) ? small : large;
    }
    for (at_resident *x = r->large.newest; x; x = x->older)
        if (x->tick + AT_RESIDENT_NOW <= r->tick && x->wanted == (who == AT_GO_WANTED) &&
            may_go(x, like))
            return x;
    return NULL;
}

size_t at_residency_idle(const at_residency *r, unsigned long epoch)
{
    size_t bytes = 0;
    for (const at_resident *x = r->large.oldest; x && x->epoch != epoch; x = x->newer)
        bytes += x->bytes;
    for (const at_resident *x = r->small.oldest; x && x->epoch != epoch; x = x->newer)
        bytes += x->bytes;
    return bytes;
}
