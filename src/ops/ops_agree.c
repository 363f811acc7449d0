// SPDX-License-Identifier: Apache-2.0
// ops_agree.c - ranks that meet inside a forward settle how to do it.
// Idea: the smallest number wins, along one axis after the other; what a rank can do alone (it has a recording,
// its weights are there) is not known to the others. Owns: see ops.h.
#include "ops/ops_private.h"

static at_status agree_along(at_comm *c, int *mine)
{
    at_status st = AT_OK;
    int all[OPS_MAX_RANKS];

    if (c->size == 1) return AT_OK;
    if (c->size > OPS_MAX_RANKS)
        return at_fail(AT_EUNSUPPORTED, "%d ranks; %d are the most", c->size, OPS_MAX_RANKS);
    AT_TRY(c->ops->tell(c, mine, all, sizeof *mine));
    for (int i = 0; i < c->size; i++)
        if (all[i] < *mine) *mine = all[i];
out:
    return st;
}

bool at_ops_meets(const at_ops *o)
{
    return o->mesh.tokens->size > 1 || o->mesh.axis[AT_AXIS_TP]->size > 1 ||
           o->mesh.axis[AT_AXIS_PATCH]->size > 1 || o->mesh.axis[AT_AXIS_PIPE]->size > 1;
}

int at_ops_agree(at_ops *o, int mine)
{
    at_status st = AT_OK;

    if (!at_ops_meets(o)) return mine;
    if (o->st != AT_OK) return 0;
    AT_TRY(agree_along(o->mesh.tokens, &mine));
    AT_TRY(agree_along(o->mesh.axis[AT_AXIS_TP], &mine));
    AT_TRY(agree_along(o->mesh.axis[AT_AXIS_PATCH], &mine));
    AT_TRY(agree_along(o->mesh.axis[AT_AXIS_PIPE], &mine));
out:
    if (st != AT_OK) {
        at_ops_poison(o, st, "%s", at_error_text());
        o->told = true;
        mine = 0;
    }
    return mine;
}
