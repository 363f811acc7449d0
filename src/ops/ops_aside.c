// SPDX-License-Identifier: Apache-2.0
// ops_aside.c - work beside work: two products that each leave a device's last wave half empty fill it together.
// Idea: a model says what of its forward does not need what comes next; where the device has a second stream the two
// run at once, elsewhere one behind the other. One piece of work is aside at a time: who comes to a second one while
// there is one goes on without.
// Easy to get wrong: failures are sticky and doors then do nothing, but what has begun must still end and be joined.
// Exchanges meet their peers in the order of one stream, so where doors exchange by themselves (layers shared along tp,
// rows of maps) nothing goes aside.
// Owns nothing.
#include "ops/ops_private.h"

#include <stdlib.h>

#include "base/str.h"

void op_aside_choose(at_ops *o)
{
    const char *off = getenv("AT_OFF"), *on = getenv("AT_ON");
    static const char *const words[] = {"aside-keys", "aside-stream", "aside-mlp"};
    const at_comm *tp = o->mesh.axis[AT_AXIS_TP], *patch = o->mesh.axis[AT_AXIS_PATCH];

    o->aside = 0;
    if (!o->dev->ops->aside || at_has_word(off, "aside") || tp->size > 1 || patch->size > 1) return;
    // A chip at its power limit wins nothing by full waves and pays for two streams (docs/bench/several-gpus.md): what has
    // no exchange to hide is for who asks.
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
        if (i == 0 ? !at_has_word(off, words[i]) : at_has_word(on, words[i])) o->aside |= 1u << i;
}

bool at_ops_has_aside(const at_ops *o, at_beside what)
{
    return (o->aside & (unsigned)what) != 0;
}

static void step(at_ops *o, at_aside what)
{
    at_status st = o->dev->ops->aside(o->dev, what);

    if (st != AT_OK) at_ops_poison(o, st, "work aside: %s", at_error_text());
}

bool at_aside_begin(at_ops *o, at_beside what)
{
    if (o->st != AT_OK || o->aside_state != OPS_ASIDE_NONE || !at_ops_has_aside(o, what))
        return false;
    step(o, AT_ASIDE_BEGIN);
    if (o->st == AT_OK) o->aside_state = OPS_ASIDE_OPEN;
    return o->st == AT_OK;
}

void at_aside_end(at_ops *o, bool begun)
{
    if (!begun || o->aside_state != OPS_ASIDE_OPEN) return;
    o->aside_state = OPS_ASIDE_BESIDE;
    step(o, AT_ASIDE_END);
}

void at_aside_join(at_ops *o, bool begun)
{
    if (!begun || o->aside_state != OPS_ASIDE_BESIDE) return;
    o->aside_state = OPS_ASIDE_NONE;
    step(o, AT_ASIDE_JOIN);
}
