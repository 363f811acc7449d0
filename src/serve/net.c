// SPDX-License-Identifier: Apache-2.0
// net.c - the loop, the addresses, the workers; see net.h.
#include "serve/net.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/mem.h"
#include "serve/submit.h"

void at_exchange_release(at_exchange *x)
{
    if (!x || atomic_fetch_sub_explicit(&x->refs, 1, memory_order_acq_rel) != 1) return;
    at_request_free(&x->rq);
    at_submission_free(x->rs.held);
    at_response_free(&x->rs);
    at_free(x);
}

void at_net_wake(void *net)
{
    at_net *n = net;
    if (n->context) lws_cancel_service(n->context);
}

// --- workers -----------------------------------------------------------------------------------------
static void *work(void *ctx)
{
    at_net *n = ctx;

    for (;;) {
        pthread_mutex_lock(&n->lock);
        while (!n->todo && !atomic_load(&n->stop))
            pthread_cond_wait(&n->wake, &n->lock);
        at_exchange *x = n->todo;
        if (x) {
            n->todo = x->next;
            if (!n->todo) n->todo_last = &n->todo;
        }
        pthread_mutex_unlock(&n->lock);
        if (!x) return NULL;
        at_route_answer(x->server, x->route, &x->rq, &x->rs);
        pthread_mutex_lock(&n->lock);
        x->next = n->done;
        n->done = x;
        pthread_mutex_unlock(&n->lock);
        at_net_wake(n);
    }
}

void at_net_work(at_net *n, at_exchange *x)
{
    atomic_fetch_add(&x->refs, 1);
    x->next = NULL;
    pthread_mutex_lock(&n->lock);
    *n->todo_last = x;
    n->todo_last = &x->next;
    pthread_cond_signal(&n->wake);
    pthread_mutex_unlock(&n->lock);
}

static void take_done(at_net *n)
{
    pthread_mutex_lock(&n->lock);
    at_exchange *x = n->done, *next;
    n->done = NULL;
    pthread_mutex_unlock(&n->lock);
    for (; x; x = next) {
        next = x->next;
        x->answered = true;
        if (x->socket) lws_callback_on_writable(x->socket);
        at_exchange_release(x);
    }
}

// --- the end of a turn -------------------------------------------------------------------------------
void at_net_hold(at_net *n, at_exchange *x)
{
    atomic_fetch_add(&x->refs, 1);
    x->next = NULL;
    *n->held_last = x;
    n->held_last = &x->next;
    n->held_count++;
}

void at_net_settle(at_net *n)
{
    at_exchange *x = n->held, *next;
    at_held few[64], *all = n->held_count > 64 ? at_alloc(n->held_count * sizeof *all) : few;
    size_t count = 0;

    if (!x) return;
    n->held = NULL;
    n->held_last = &n->held;
    n->held_count = 0;
    for (at_exchange *h = x; h; h = h->next) {
        at_held one = {&h->rq, &h->rs};
        if (all)
            all[count++] = one;
        else
            at_submit_commit(n->server, &one, 1); // no memory for a list: one by one
    }
    if (count) at_submit_commit(n->server, all, count);
    if (all != few) at_free(all);
    for (; x; x = next) {
        next = x->next;
        x->answered = true;
        if (x->socket) lws_callback_on_writable(x->socket);
        at_exchange_release(x);
    }
}

static void session_ready(void *ctx, at_session *s)
{
    (void)ctx;
    lws_callback_on_writable(s->socket);
}

// --- the end -----------------------------------------------------------------------------------------
void at_net_stop(at_net *n)
{
    atomic_store(&n->stop, true);
    at_net_wake(n);
}

static void patience_ends(lws_sorted_usec_list_t *sul)
{
    at_net *n = lws_container_of(sul, at_net, patience);
    at_log(AT_INFO, "SERVER-END", "the running job goes back to the queue");
    at_net_stop(n);
}

// The first signal: no more jobs; what runs may come to its end for a while. The next: at once.
static void drain(at_net *n)
{
    at_server *s = n->server;
    double seconds = s->config->drain_seconds;

    if (atomic_load(&n->signals) > 1 || !s->executor || seconds <= 0) {
        atomic_store(&n->stop, true);
        return;
    }
    if (atomic_exchange(&s->draining, true)) return;
    at_log(AT_INFO, "SERVER-DRAIN", "no more jobs are taken; the running one has %.0f s", seconds);
    at_executor_drain(s->executor);
    lws_sul_schedule(n->context, 0, &n->patience, patience_ends,
                     (lws_usec_t)(seconds * LWS_US_PER_SEC));
}

// --- libwebsockets -----------------------------------------------------------------------------------
static int callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
                    size_t len)
{
    at_net *n = lws_context_user(lws_get_context(wsi));

    switch (reason) {
    case LWS_CALLBACK_EVENT_WAIT_CANCELLED:
        if (atomic_load(&n->signals)) drain(n);
        take_done(n);
        at_journal_flush(n->server->journal, n->server->hub);
        at_hub_deliver(n->server->hub, session_ready, NULL);
        return 0;
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
    case LWS_CALLBACK_ESTABLISHED:
    case LWS_CALLBACK_RECEIVE:
    case LWS_CALLBACK_SERVER_WRITEABLE:
    case LWS_CALLBACK_CLOSED: return at_net_socket(n, wsi, reason, user, in, len);
    case LWS_CALLBACK_HTTP:
    case LWS_CALLBACK_HTTP_BODY:
    case LWS_CALLBACK_HTTP_BODY_COMPLETION:
    case LWS_CALLBACK_HTTP_WRITEABLE:
    case LWS_CALLBACK_CLOSED_HTTP:
    case LWS_CALLBACK_HTTP_DROP_PROTOCOL: return at_net_http(n, wsi, reason, user, in, len);
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE: // of a name that it does not know libwebsockets 4.1
        // has answered, dropped the headers, and would read that name in them: that connection ends
        return lws_hdr_total_length(wsi, WSI_TOKEN_UPGRADE) > 0 ? 0 : -1;
    case LWS_CALLBACK_WSI_DESTROY: at_net_http_gone(wsi); return 0;
    default: return 0;
    }
}

static const struct lws_protocols protocols[] = {
    {.name = "http", .callback = callback, .per_session_data_size = sizeof(at_conn)},
    {0},
};

static void write_log(int level, const char *line)
{
    size_t n = strcspn(line, "\n");
    at_log(level & LLL_ERR ? AT_WARN : AT_INFO, "LWS", "%.*s", (int)n, line);
}

static at_net *g_net; // for the signal handlers; one server a process

static void on_signal(int number)
{
    (void)number;
    if (!g_net) return;
    atomic_fetch_add(&g_net->signals, 1);
    lws_cancel_service(g_net->context);
}

static at_status listen_on(at_net *n, const char *address)
{
    const at_serve_config *c = n->server->config;
    struct lws_context_creation_info info = {0};
    bool six = strchr(address, ':') != NULL;

    info.port = n->port;
    info.iface = address;
    info.protocols = protocols;
    info.vhost_name = address;
    info.server_string = "atelier";
    info.keepalive_timeout = 75;
    info.ka_time = c->keepalive_seconds ? c->keepalive_seconds : 60; // a peer that vanished: the
    info.ka_probes = 3;                                              // kernel asks for it
    info.ka_interval = info.ka_time < 10 ? info.ka_time : 10;
    info.timeout_secs = 30;
    info.options = six ? LWS_SERVER_OPTION_IPV6_V6ONLY_MODIFY | LWS_SERVER_OPTION_IPV6_V6ONLY_VALUE
                       : LWS_SERVER_OPTION_DISABLE_IPV6;
    info.options |= LWS_SERVER_OPTION_FAIL_UPON_UNABLE_TO_BIND;
    if (c->tls_key && c->tls_cert) {
        info.options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
        info.ssl_cert_filepath = c->tls_cert;
        info.ssl_private_key_filepath = c->tls_key;
        info.alpn = "http/1.1";
    }
    struct lws_vhost *v = lws_create_vhost(n->context, &info);
    if (!v)
        return at_fail(AT_EIO,
                       "%s port %d cannot be opened: another program may have it; --port takes "
                       "another one%s",
                       address, n->port, c->tls_key ? ", or the certificate cannot be read" : "");
    if (!n->port) n->port = lws_get_vhost_listen_port(v); // the other addresses take the same
    return AT_OK;
}

static at_status listen_all(at_net *n)
{
    const char *list = n->server->config->listen ? n->server->config->listen : "127.0.0.1";
    at_status st = AT_OK;

    while (*list && st == AT_OK) {
        char address[64];
        size_t len = strcspn(list, ",");
        if (len >= sizeof address)
            return at_fail(AT_EUSAGE, "--listen %s: that is no address", list);
        snprintf(address, sizeof address, "%.*s", (int)len, list);
        if (len) st = listen_on(n, strcmp(address, "localhost") == 0 ? "127.0.0.1" : address);
        list += len + (list[len] == ',');
    }
    return st;
}

// Most systems give a process 1024 files and let it have more: as many sockets as a workshop needs.
static unsigned raise_files(void)
{
    enum { ENOUGH = 8192 };
    struct rlimit files = {1024, 1024};

    getrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < ENOUGH && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max < ENOUGH ? files.rlim_max : ENOUGH;
        setrlimit(RLIMIT_NOFILE, &files);
        getrlimit(RLIMIT_NOFILE, &files);
    }
    return files.rlim_cur > ENOUGH ? ENOUGH : (unsigned)files.rlim_cur;
}

at_status at_net_open(at_server *s, at_net **out)
{
    at_status st = AT_OK;
    at_net *n = at_calloc(1, sizeof *n);
    struct lws_context_creation_info info = {0};

    if (!n) AT_TRY(at_fail(AT_ENOMEM, "server: no memory"));
    n->server = s;
    n->port = s->config->port;
    n->todo_last = &n->todo;
    n->held_last = &n->held;
    n->max_body = at_max_upload_bytes;
    n->lock_made = pthread_mutex_init(&n->lock, NULL) == 0;
    n->wake_made = pthread_cond_init(&n->wake, NULL) == 0;
    if (!n->lock_made || !n->wake_made) AT_TRY(at_fail(AT_ENOMEM, "server: no lock"));
    lws_set_log_level(LLL_ERR | LLL_WARN, write_log);
    info.fd_limit_per_thread = raise_files(); // its table of sockets is as long
    info.options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS;
    info.user = n;
    info.max_http_header_data = 16384;
    info.max_http_header_pool = 256;
    info.pt_serv_buf_size = 16384;
    if (s->config->tls_key && s->config->tls_cert)
        info.options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
    at_net_memory_set();
    n->context = lws_create_context(&info);
    if (!n->context) AT_TRY(at_fail(AT_EIO, "server: libwebsockets does not start"));
    AT_TRY(listen_all(n));
    for (int i = 0; i < AT_NET_WORKERS; i++) {
        if (pthread_create(&n->workers[i], NULL, work, n) != 0)
            AT_TRY(at_fail(AT_ENOMEM, "server: a worker thread could not be started"));
        n->worker_count++;
    }
    *out = n;
    n = NULL;
out:
    at_net_close(n);
    return st;
}

at_status at_net_run(at_net *n)
{
    struct sigaction act = {.sa_handler = on_signal}, old_int, old_term, old_pipe, old_size;
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    g_net = n;
    sigaction(SIGINT, &act, &old_int);
    sigaction(SIGTERM, &act, &old_term);
    sigaction(SIGPIPE, &ignore, &old_pipe);
    sigaction(SIGXFSZ, &ignore, &old_size);
    while (!atomic_load(&n->stop) && lws_service(n->context, 0) >= 0)
        at_net_settle(n);
    at_net_settle(n);
    sigaction(SIGINT, &old_int, NULL);
    sigaction(SIGTERM, &old_term, NULL);
    sigaction(SIGPIPE, &old_pipe, NULL);
    sigaction(SIGXFSZ, &old_size, NULL);
    g_net = NULL;
    return AT_OK;
}

void at_net_close(at_net *n)
{
    if (!n) return;
    if (n->lock_made && n->wake_made) {
        pthread_mutex_lock(&n->lock);
        atomic_store(&n->stop, true);
        pthread_cond_broadcast(&n->wake);
        pthread_mutex_unlock(&n->lock);
    }
    for (int i = 0; i < n->worker_count; i++)
        pthread_join(n->workers[i], NULL);
    if (n->context) lws_context_destroy(n->context); // tells every connection that it ends
    at_net_memory_drop();
    n->context = NULL;
    for (at_exchange *x = n->todo, *next; x; x = next)
        next = x->next, at_exchange_release(x);
    for (at_exchange *x = n->done, *next; x; x = next)
        next = x->next, at_exchange_release(x);
    if (n->wake_made) pthread_cond_destroy(&n->wake);
    if (n->lock_made) pthread_mutex_destroy(&n->lock);
    at_free(n);
}
