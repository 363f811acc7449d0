// SPDX-License-Identifier: Apache-2.0
// serve.c - opening, running and closing a server; see serve.h.
// Easy to get wrong: the order. The executor ends first, since it wakes the net; then the net, whose workers use the
// queue; then what both used.
#include "serve/serve.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/claims.h"
#include "serve/repeat.h"
#include "serve/net.h"
#include "serve/sweep.h"

static void queue_changed(void *ctx, size_t remaining)
{
    at_server *s = ctx;
    if (at_hub_sessions(s->hub)) at_hub_post_status(s->hub, remaining);
}

// The hub is there before the sockets are: until then nobody needs waking.
typedef struct waker {
    _Atomic(at_net *) net;
} waker;
static void wake(void *ctx)
{
    at_net *n = atomic_load(&((waker *)ctx)->net);
    if (n) at_net_wake(n);
}

// The frontend lists both before anything was saved, and reports a missing folder as an error.
static at_status make_user_folders(const at_server *s)
{
    at_status st = AT_OK;
    static const char *const names[] = {"default/workflows", "default/subgraphs"};

    for (size_t i = 0; i < 2 && st == AT_OK && !s->config->multi_user; i++) {
        char *path = at_path_join(s->user_dir, names[i]);
        st = path ? at_make_dirs(path) : at_fail(AT_ENOMEM, "server: no memory");
        at_free(path);
    }
    return st;
}

static at_status open_folders(at_server *s)
{
    const at_serve_config *c = s->config;
    at_status st = AT_OK;

    s->user_dir = c->user_dir ? at_strdup(c->user_dir)
                              : at_path_join(c->engine.base_dir ? c->engine.base_dir : ".", "user");
    if (c->front_end_root) s->page_dir = at_strdup(c->front_end_root);
    if (!s->user_dir || (c->front_end_root && !s->page_dir))
        AT_TRY(at_fail(AT_ENOMEM, "server: no memory"));
    if (s->page_dir && !at_path_is_dir(s->page_dir))
        AT_TRY(at_fail(AT_ENOTFOUND, "--front-end-root %s: no such folder", s->page_dir));
    if (c->templates_dir && !at_path_is_dir(c->templates_dir))
        AT_TRY(at_fail(AT_ENOTFOUND, "--workflow-templates %s: no such folder", c->templates_dir));
    if (!!c->tls_key != !!c->tls_cert)
        AT_TRY(at_fail(AT_EUSAGE, "--tls-keyfile and --tls-certfile go together"));
    AT_TRY(at_make_dirs(s->user_dir));
    AT_TRY(make_user_folders(s));
    AT_TRY(at_make_dirs(at_engine_env(s->engine)->input_dir));
    AT_TRY(at_make_dirs(at_engine_env(s->engine)->output_dir));
    AT_TRY(at_make_dirs(at_engine_env(s->engine)->temp_dir));
out:
    return st;
}

static void warn_if_open(const at_serve_config *c)
{
    if (c->token_file || at_listens_inside(c)) return;
    at_log(AT_WARN, "LISTEN-OPEN",
           "--listen %s: anybody who reaches this address can run jobs, read pictures and fill the "
           "disk; --token-file keeps them out",
           c->listen);
}

static at_status open_queue(at_server *s)
{
    char *path = s->config->no_persist ? NULL : at_path_join(s->user_dir, "atelier.db");
    at_queue_config q = {
        .path = path, .max_pending = s->config->max_queue, .changed = queue_changed, .ctx = s};
    at_status st = path || s->config->no_persist ? at_queue_open(&q, &s->queue)
                                                 : at_fail(AT_ENOMEM, "server: no memory");
    at_free(path);
    return st;
}

// What jobs had written that have ended since: a crash came between the end and the removal.
static at_status open_claims(at_server *s)
{
    at_list l = {0};
    if (s->config->no_persist) return AT_OK;
    s->claims_dir = at_path_join(s->user_dir, "claims");
    if (!s->claims_dir) return at_fail(AT_ENOMEM, "server: no memory");
    at_status st =
        at_path_is_dir(s->claims_dir) ? at_list_files(s->claims_dir, false, 100000, &l) : AT_OK;
    for (size_t i = 0; st == AT_OK && i < l.count; i++) {
        char *path = at_path_join(s->claims_dir, l.items[i]);
        if (path && !at_queue_keeps(s->queue, strtoll(l.items[i], NULL, 10))) at_claims_sweep(path);
        at_free(path);
    }
    at_list_free(&l);
    return st;
}

static void say_ready(const at_server *s, int port)
{
    const at_serve_config *c = s->config;
    char url[128], first[64];
    const char *list = c->listen ? c->listen : "127.0.0.1";

    snprintf(first, sizeof first, "%.*s", (int)strcspn(list, ","), list);
    if (strcmp(first, "0.0.0.0") == 0) strcpy(first, "127.0.0.1");
    bool six = strchr(first, ':') != NULL;
    snprintf(url, sizeof url, "%s://%s%s%s:%d", c->tls_key ? "https" : "http", six ? "[" : "",
             first, six ? "]" : "", port);
    if (c->ready) c->ready(c->ctx, url);
}

// What the executor's thread says of the engine.
typedef struct opening {
    at_server *server;
    at_net *net;
    at_status status; // of the engine's start
    char why[1024];
} opening;

static void engine_ready(void *ctx, at_status st, const char *why)
{
    opening *o = ctx;
    o->status = st;
    snprintf(o->why, sizeof o->why, "%s", why);
    atomic_store(&o->server->ready, st == AT_OK);
    if (st == AT_OK) say_ready(o->server, o->net->port);
    if (st != AT_OK || o->server->config->quick_test) at_net_stop(o->net);
}

static void drained(void *ctx)
{
    at_net_stop(((opening *)ctx)->net);
}

// This process opens no GPU where another one runs the jobs.
static at_status open_engines(at_server *s)
{
    at_status st = AT_OK;
    at_engine_config here = s->config->engine;
    at_runner_config r = {.argv = s->config->engine_argv};

    if (r.argv) { // nor one that a flag names
        here.device = "cpu";
        here.devices = here.parallel = here.shares = here.text_device = here.vae_device = NULL;
        here.cpu_ranks = 0;
    }
    if (r.argv) AT_TRY(at_runner_open(&r, &s->runner)); // it opens its device meanwhile
    AT_TRY(at_engine_open(&here, &s->engine));
    r.engine = s->engine;
    if (!r.argv) AT_TRY(at_runner_open(&r, &s->runner));
out:
    return st;
}

static at_status start_executor(at_server *s, opening *o)
{
    int preview = s->config->preview_size;
    at_executor_config c = {.runner = s->runner,
                            .engine_argv = s->config->engine_argv,
                            .lanes = s->config->engine_argv ? s->config->lanes : 1,
                            .registry = at_engine_registry(s->engine),
                            .queue = s->queue,
                            .hub = s->hub,
                            .metrics = &s->metrics,
                            .claims_dir = s->claims_dir,
                            .gives_way = s->config->engine_argv != NULL,
                            .separate = at_server_separates(s),
                            .preview_size = preview ? preview : 512,
                            .up = &s->ready,
                            .ready = engine_ready,
                            .drained = drained,
                            .ctx = o};
    return at_executor_start(&c, &s->executor);
}

at_status at_serve(const at_serve_config *config)
{
    at_status st = AT_OK;
    at_server s = {.config = config, .metrics = {.started = at_now()}};
    opening o = {.server = &s};
    waker w = {0};
    at_net *net = NULL;

    json_object_seed(0); // before there are threads
    at_max_upload_bytes =
        (size_t)llround((config->max_upload_mb > 0 ? config->max_upload_mb : 100) * 1024 * 1024);
    AT_TRY(at_journal_open(config->json_log, wake, &w, &s.journal));
    s.inside = at_listens_inside(config);
    warn_if_open(config);
    AT_TRY(open_engines(&s));
    AT_TRY(open_folders(&s));
    if (config->token_file) AT_TRY(at_tokens_load(config->token_file, &s.tokens));
    if (config->rate_limit > 0) AT_TRY(at_limits_new(config->rate_limit, &s.limits));
    AT_TRY(at_hub_new(wake, &w, &s.hub));
    AT_TRY(open_queue(&s)); // nobody else serves from this folder
    at_sweep(at_engine_env(s.engine)->temp_dir);
    AT_TRY(open_claims(&s));
    s.repeats = at_repeats_new();
    AT_TRY(at_net_open(&s, &net));
    atomic_store(&w.net, net);
    o.net = net;
    AT_TRY(start_executor(&s, &o));
    st = at_net_run(net);
out:
    at_executor_stop(s.executor);
    if (st == AT_OK && o.status != AT_OK) st = at_fail(o.status, "%s", o.why);
    atomic_store(&w.net, NULL);
    at_net_close(net);
    at_hub_free(s.hub);
    at_queue_close(s.queue);
    at_runner_close(s.runner);
    at_engine_close(s.engine);
    at_journal_close(s.journal);
    at_tokens_free(s.tokens);
    at_limits_free(s.limits);
    at_repeats_free(s.repeats);
    at_free(s.user_dir);
    at_free(s.claims_dir);
    at_free(s.page_dir);
    return st;
}
