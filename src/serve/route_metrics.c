// SPDX-License-Identifier: Apache-2.0
// route_metrics.c - what operators and their tools ask: counters, and whether it is well.
#include "base/mem.h"
#include "serve/server.h"

static at_status metrics(at_server *s, at_request *rq, at_response *rs)
{
    (void)rq;
    at_device_state d;
    at_str text = {0};

    at_runner_device(s->runner, &d);
    at_gauges g = {.sockets = at_hub_sessions(s->hub), .device = &d};
    at_queue_counts(s->queue, &g.waiting, &g.running);
    at_metrics_write(&s->metrics, &g, &text);
    size_t n = text.len;
    return at_reply_bytes(rs, "text/plain; version=0.0.4; charset=utf-8", at_str_take(&text), n);
}

// The loop answers: it lives.
static at_status health(at_server *s, at_request *rq, at_response *rs)
{
    (void)s, (void)rq;
    return at_reply_json(rs, 200, json_pack("{s:s}", "status", "ok"));
}

// It takes jobs and can run them.
static at_status ready(at_server *s, at_request *rq, at_response *rs)
{
    bool draining = atomic_load(&s->draining);
    (void)rq;
    if (atomic_load(&s->ready) && !draining) return health(s, rq, rs);
    at_response_header(rs, "Retry-After", "1");
    return at_reply_json(rs, 503, json_pack("{s:s}", "status", draining ? "draining" : "starting"));
}

const at_route at_routes_metrics[] = {
    {AT_HTTP_GET, "/metrics", metrics, true},
    {AT_HTTP_GET, "/health", health, false},
    {AT_HTTP_GET, "/ready", ready, false},
    {0},
};
