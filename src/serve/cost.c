// SPDX-License-Identifier: Apache-2.0
// cost.c - see cost.h.
#include "serve/cost.h"

#include <string.h>

#include "base/file.h"
#include "base/str.h"
#include "json/json.h"

static const char *const names[AT_STAGES] = {"loading", "conditioning", "sampling", "vae", "other"};

const char *at_stage_name(int stage)
{
    return names[stage];
}

static at_stage stage_of(const at_registry *r, const char *class_type)
{
    const at_node *n = class_type ? at_registry_find(r, class_type) : NULL;
    if (!n || !n->category) return AT_STAGE_OTHER;
    if (at_starts_with(class_type, "VAE") && !strstr(class_type, "Loader")) return AT_STAGE_VAE;
    if (strstr(n->category, "loaders")) return AT_STAGE_LOADING;
    if (strstr(n->category, "conditioning")) return AT_STAGE_CONDITIONING;
    return strstr(n->category, "sampling") ? AT_STAGE_SAMPLING : AT_STAGE_OTHER;
}

void at_meter_end(at_meter *m)
{
    double now = at_now();
    if (m->since > 0) m->cost->stage[m->now] += now - m->since;
    m->since = 0;
}

void at_meter_hear(void *ctx, const at_event *e)
{
    at_meter *m = ctx;
    if (e->kind == AT_EV_EXECUTING || e->kind == AT_EV_FINISHED) at_meter_end(m);
    if (e->kind == AT_EV_EXECUTING) {
        m->now = stage_of(m->registry, e->class_type);
        m->since = at_now();
    }
    at_sink_emit(m->next, e);
}

// To the microsecond.
char *at_cost_text(const at_cost *c)
{
    at_str s = {0};
    at_str_printf(&s, "{\"waited\": %.6f, \"device_seconds\": %.6f, \"joules\": ", c->waited,
                  c->seconds);
    if (c->joules < 0)
        at_str_append(&s, "null");
    else
        at_str_printf(&s, "%.6f", c->joules);
    at_str_append(&s, ", \"stages\": {");
    for (int i = 0; i < AT_STAGES; i++)
        at_str_printf(&s, "%s\"%s\": %.6f", i ? ", " : "", names[i], c->stage[i]);
    at_str_append(&s, "}}");
    return at_str_take(&s);
}
