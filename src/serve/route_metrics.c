// SPDX-License-Identifier: Apache-2.0
// route_metrics.c - what operators and their tools ask: counters, and whether it is well.
#include "base/mem.h"
#include "serve/server.h"

static at_status metrics(at_server *s, at_request *rq, at_response *rs)
{
    (void)rq;
    at_device *d = at_engine_env(s->engine)->device;
    at_str text = {0};
    at_gauges g = {.sockets = at_hub_sessions(s->hub), .device = d->name};

    at_queue_counts(s->queue, &g.waiting, &g.running);
    if (d->ops->memory(d, &g.device_free, &g.device_total) != AT_OK)
        g.device_free = g.device_total = 0;
    g.device_held = atomic_load(&d->live_bytes);
    at_metrics_write(&s->metrics, &g, &text);
    size_t n = text.len;
    return at_reply_bytes(rs, "text/plain; version=0.0.4; charset=utf-8", at_str_take(&text), n);
}

// The loop answers: it lives. It is ready from its first answer on.
static at_status health(at_server *s, at_request *rq, at_response *rs)
{
    (void)s, (void)rq;
    return at_reply_json(rs, 200, json_pack("{s:s}", "status", "ok"));
}

const at_route at_routes_metrics[] = {
    {AT_HTTP_GET, "/metrics", metrics, true},
    {AT_HTTP_GET, "/health", health, false},
    {AT_HTTP_GET, "/ready", health, false},
    {0},
};
