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

char *at_cost_text(const at_cost *c)
{
    json_t *v =
        json_pack("{s:f, s:f, s:o, s:{}}", "waited", c->waited, "device_seconds", c->seconds,
                  "joules", c->joules < 0 ? json_null() : json_real(c->joules), "stages");
    for (int i = 0; v && i < AT_STAGES; i++)
        json_object_set_new(json_object_get(v, "stages"), names[i], json_real(c->stage[i]));
    char *text = v ? at_json_dump(v, 0) : NULL;
    json_decref(v);
    return text;
}
