// SPDX-License-Identifier: Apache-2.0
// residency.c - see residency.h. A list from the newest touch to the oldest.
#include "cuda/residency.h"

static void unlink_one(at_residency *r, at_resident *x)
{
    if (x->newer)
        x->newer->older = x->older;
    else
        r->newest = x->older;
    if (x->older)
        x->older->newer = x->newer;
    else
        r->oldest = x->newer;
}

// `used`: it counts as a touch. What is brought ahead does not: however much comes, what the call in preparation
// has touched stays within the window.
static void link_newest(at_residency *r, at_resident *x, unsigned long epoch, bool used)
{
    x->newer = NULL;
    x->older = r->newest;
    if (r->newest)
        r->newest->newer = x;
    else
        r->oldest = x;
    r->newest = x;
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

at_resident *at_residency_victim(const at_residency *r, unsigned long epoch, at_residency_who who,
                                 size_t like)
{
    if (who == AT_GO_IDLE) {
        for (at_resident *x = r->oldest; x; x = x->newer)
            if (x->epoch != epoch && may_go(x, like)) return x;
        return NULL;
    }
    for (at_resident *x = r->newest; x; x = x->older)
        if (x->tick + AT_RESIDENT_NOW <= r->tick && x->bytes >= AT_RESIDENT_SMALL &&
            x->wanted == (who == AT_GO_WANTED) && may_go(x, like))
            return x;
    return NULL;
}
