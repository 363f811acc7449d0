// SPDX-License-Identifier: Apache-2.0
// tally.c - see tally.h.
// Easy to get wrong: a sampler's first step pays for what comes once (reading weights, tuning): the pace is that of the
// steps behind it.
#include "serve/tally.h"

#include <string.h>

#include "base/file.h"
#include "json/json.h"

static void count_step(at_tally *t, double value)
{
    double now = at_now();
    if (value <= t->steps) t->steps = 0; // the next sampler inside one node
    if (value > t->steps)
        atomic_fetch_add(&t->metrics->steps, (unsigned long long)(value - t->steps));
    if (t->steps == 0) {
        t->first = value;
        t->since = now;
    } else if (now > t->since) {
        double pace = (value - t->first) / (now - t->since);
        atomic_store(&t->metrics->pace, (unsigned long long)(pace * 1e3));
    }
    t->steps = value;
}

static size_t length_of(const char *list)
{
    json_t *v = NULL;
    size_t n =
        list && at_json_load("cached", list, strlen(list), &v) == AT_OK ? json_array_size(v) : 0;
    json_decref(v);
    return n;
}

void at_tally_hear(void *ctx, const at_event *e)
{
    at_tally *t = ctx;
    if (e->kind == AT_EV_EXECUTING) {
        atomic_fetch_add(&t->metrics->nodes_run, 1);
        t->steps = 0;
    }
    if (e->kind == AT_EV_CACHED) atomic_fetch_add(&t->metrics->nodes_kept, length_of(e->text));
    if (e->kind == AT_EV_PROGRESS && t->meter->now == AT_STAGE_SAMPLING) count_step(t, e->value);
    at_sink_emit(t->next, e);
}

void at_tally_end(at_tally *t, const at_cost *cost)
{
    for (int i = 0; i < AT_STAGES; i++)
        atomic_fetch_add(&t->metrics->stage_ms[i], (unsigned long long)(cost->stage[i] * 1e3));
    if (cost->joules > 0)
        atomic_fetch_add(&t->metrics->millijoules, (unsigned long long)(cost->joules * 1e3));
}
