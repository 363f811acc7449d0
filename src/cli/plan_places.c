// SPDX-License-Identifier: Apache-2.0
// plan_places.c - see plan_places.h.
#include "cli/plan_places.h"

#include <stdio.h>

#include "base/str.h"
#include "engine/places.h"

void at_plan_places_print(at_engine *e, const at_plan *p)
{
    const at_env *env = at_engine_env(e);
    const at_places *places = at_engine_places(e);

    if (env->ranks.n < 2 || env->ranks.device[0]->host) return;
    if (*at_places_why(places)) printf("  %s\n", at_places_why(places));
    for (int i = 0; i < env->ranks.n; i++) {
        at_device *d = env->ranks.device[i];
        at_places_load l = at_places_load_of(places, env, p, i);
        uint64_t rest = 0, all = 0;
        char a[16], b[16], c[16];

        at_human_bytes(l.weights, a);
        at_human_bytes(l.peak, b);
        if (d->ops->memory(d, &rest, &all) != AT_OK) continue;
        at_human_bytes((double)rest, c);
        printf("  %-8s holds %s of weights, %s at its peak, of %s that are free\n", d->name, a, b,
               c);
    }
}
