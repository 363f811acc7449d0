// SPDX-License-Identifier: Apache-2.0
// client.c - submitting to a server and hearing of it; see client.h.
// Idea: one libwebsockets context, one WebSocket and one HTTP call at a time, served until the job's history is there.
// Easy to get wrong: the socket may break while the job goes on: the history is asked for now and then all the same.
#include "serve/client.h"

#include <libwebsockets.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "json/json.h"
#include "serve/hub.h"
#include "serve/net.h"

enum { TICK_US = 100000, CALL_SECONDS = 30, LOOK_SECONDS = 5 };

typedef struct call {
    const char *method;
    char *body; // NULL: none
    size_t bytes, sent;
    at_str answer;
    int status;
    uintptr_t number; // an older call's connection may still be closing
    bool done;
} call;

typedef struct client {
    struct lws_context *context;
    lws_sorted_usec_list_t tick;
    char host[256], path[256], id[37];
    int port;
    bool tls;
    const at_sink *sink;
    const json_t *prompt;
    char *job;
    enum { SOCKET_OPENING, SOCKET_OPEN, SOCKET_CLOSED } socket;
    at_str frame;
    bool ended, cancelled;
    call call;
} client;

// --- messages become events --------------------------------------------------------------------------
static const char *text_of(const json_t *data, const char *key)
{
    return json_string_value(json_object_get(data, key));
}

static void emit(client *c, at_event_kind kind, const char *node, const json_t *text,
                 const json_t *data)
{
    char *dumped = text ? at_json_dump(text, 0) : NULL;
    const json_t *spec = node ? json_object_get(c->prompt, node) : NULL;
    at_sink_emit(c->sink, &(at_event){.kind = kind,
                                      .job = c->job,
                                      .node = node,
                                      .class_type = text_of(spec, "class_type"),
                                      .text = dumped,
                                      .value = json_number_value(json_object_get(data, "value")),
                                      .max = json_number_value(json_object_get(data, "max"))});
    at_free(dumped);
}

static void hear(client *c, const json_t *message)
{
    const char *type = text_of(message, "type");
    const json_t *data = json_object_get(message, "data");
    const char *job = text_of(data, "prompt_id"), *node = text_of(data, "node");

    if (!type || !job || !c->job || strcmp(job, c->job) != 0) return;
    if (strcmp(type, "execution_start") == 0) emit(c, AT_EV_START, NULL, NULL, NULL);
    if (strcmp(type, "execution_cached") == 0)
        emit(c, AT_EV_CACHED, NULL, json_object_get(data, "nodes"), NULL);
    if (strcmp(type, "executing") == 0 && node) emit(c, AT_EV_EXECUTING, node, NULL, NULL);
    if (strcmp(type, "executing") == 0 && !node) c->ended = true;
    if (strcmp(type, "progress") == 0) emit(c, AT_EV_PROGRESS, node, NULL, data);
    if (strcmp(type, "executed") == 0)
        emit(c, AT_EV_EXECUTED, node, json_object_get(data, "output"), NULL);
    if (strcmp(type, "execution_success") == 0) emit(c, AT_EV_SUCCESS, NULL, NULL, NULL);
    if (strcmp(type, "execution_error") == 0)
        emit(c, AT_EV_ERROR, text_of(data, "node_id"), data, NULL);
    if (strcmp(type, "execution_interrupted") == 0)
        emit(c, AT_EV_INTERRUPTED, text_of(data, "node_id"), data, NULL);
}

// --- libwebsockets -----------------------------------------------------------------------------------
// ATELIER_TOKEN: an argument could be read by everybody on this machine.
static int add_token(struct lws *wsi, unsigned char **p, size_t room)
{
    const char *token = getenv("ATELIER_TOKEN");
    char value[512];
    if (!token || !*token) return 0;
    int n = snprintf(value, sizeof value, "Bearer %s", token);
    if (n >= (int)sizeof value) return -1;
    return lws_add_http_header_by_token(wsi, WSI_TOKEN_HTTP_AUTHORIZATION,
                                        (const unsigned char *)value, n, p, *p + room)
               ? -1
               : 0;
}

static int socket_callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
                           size_t len)
{
    (void)user;
    client *c = lws_context_user(lws_get_context(wsi));
    json_t *message = NULL;

    switch (reason) {
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER: return add_token(wsi, in, len);
    case LWS_CALLBACK_CLIENT_ESTABLISHED: c->socket = SOCKET_OPEN; break;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
    case LWS_CALLBACK_CLIENT_CLOSED: c->socket = SOCKET_CLOSED; break;
    case LWS_CALLBACK_CLIENT_RECEIVE:
        if (lws_frame_is_binary(wsi)) break; // previews are for eyes
        at_str_append_n(&c->frame, in, len);
        if (!lws_is_final_fragment(wsi) || lws_remaining_packet_payload(wsi)) break;
        if (!c->frame.failed && c->frame.len &&
            at_json_load("message", c->frame.data, c->frame.len, &message) == AT_OK)
            hear(c, message);
        json_decref(message);
        at_str_clear(&c->frame);
        break;
    default: break;
    }
    return 0;
}

static int write_body(struct lws *wsi, call *x)
{
    unsigned char piece[LWS_PRE + 4096];
    size_t n = x->bytes - x->sent < 4096 ? x->bytes - x->sent : 4096;
    bool last = x->sent + n == x->bytes;

    memcpy(piece + LWS_PRE, x->body + x->sent, n);
    if (lws_write(wsi, piece + LWS_PRE, n, last ? LWS_WRITE_HTTP_FINAL : LWS_WRITE_HTTP) != (int)n)
        return -1;
    x->sent += n;
    lws_client_http_body_pending(wsi, !last);
    if (!last) lws_callback_on_writable(wsi);
    return 0;
}

static int add_length(struct lws *wsi, const call *x, unsigned char **p, size_t room)
{
    char length[24];
    int n = snprintf(length, sizeof length, "%zu", x->bytes);
    if (!x->body) return 0;
    if (lws_add_http_header_by_token(wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH,
                                     (const unsigned char *)length, n, p, *p + room) ||
        lws_add_http_header_by_token(wsi, WSI_TOKEN_HTTP_CONTENT_TYPE,
                                     (const unsigned char *)"application/json", 16, p, *p + room))
        return -1;
    lws_client_http_body_pending(wsi, 1);
    lws_callback_on_writable(wsi);
    return 0;
}

static int call_callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
                         size_t len)
{
    (void)user;
    client *c = lws_context_user(lws_get_context(wsi));
    call *x = &c->call;
    char buffer[LWS_PRE + 4096], *at = buffer + LWS_PRE;
    int n = 4096;

    if ((uintptr_t)lws_get_opaque_user_data(wsi) != x->number) return 0;
    switch (reason) {
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER:
        return add_token(wsi, in, len) ? -1 : add_length(wsi, x, in, len);
    case LWS_CALLBACK_CLIENT_HTTP_WRITEABLE: return x->body ? write_body(wsi, x) : 0;
    case LWS_CALLBACK_ESTABLISHED_CLIENT_HTTP:
        x->status = (int)lws_http_client_http_response(wsi);
        break;
    case LWS_CALLBACK_RECEIVE_CLIENT_HTTP:
        if (lws_http_client_read(wsi, &at, &n) < 0) return -1;
        break;
    case LWS_CALLBACK_RECEIVE_CLIENT_HTTP_READ: at_str_append_n(&x->answer, in, len); break;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
    case LWS_CALLBACK_CLOSED_CLIENT_HTTP:
    case LWS_CALLBACK_COMPLETED_CLIENT_HTTP: x->done = true; break;
    default: break;
    }
    return 0;
}

static const struct lws_protocols protocols[] = {
    {.name = "call", .callback = call_callback},
    {.name = "socket", .callback = socket_callback},
    {0},
};

static void on_tick(lws_sorted_usec_list_t *tick)
{
    client *c = lws_container_of(tick, client, tick);
    lws_cancel_service(c->context); // so that the loop looks at the cancel flag
    lws_sul_schedule(c->context, 0, &c->tick, on_tick, TICK_US);
}

static bool turn(client *c)
{
    return lws_service(c->context, 0) >= 0;
}

static bool connect_to(client *c, const char *method, const char *path)
{
    struct lws_client_connect_info i = {.context = c->context,
                                        .address = c->host,
                                        .port = c->port,
                                        .path = path,
                                        .host = c->host,
                                        .origin = NULL,
                                        .ssl_connection = c->tls ? LCCSCF_USE_SSL : 0,
                                        .local_protocol_name = method ? "call" : "socket",
                                        .method = method,
                                        .opaque_user_data = (void *)c->call.number};
    char host[300];
    snprintf(host, sizeof host, "%s:%d", c->host, c->port);
    i.host = host;
    return lws_client_connect_via_info(&i) != NULL;
}

// One request: its status, 0 if the server cannot be reached. The answer is in c->call until the next.
static int ask(client *c, const char *method, const char *route, char *body)
{
    char path[512];
    double end = at_now() + CALL_SECONDS;

    at_free(c->call.body);
    at_str_free(&c->call.answer);
    c->call = (call){.number = c->call.number + 1,
                     .method = method,
                     .body = body,
                     .bytes = body ? strlen(body) : 0};
    snprintf(path, sizeof path, "%s%s", c->path, route);
    if (!connect_to(c, method, path)) return 0;
    while (!c->call.done && at_now() < end && turn(c))
        ;
    return c->call.done ? c->call.status : 0;
}

// --- the job -----------------------------------------------------------------------------------------
static at_status read_url(client *c, const char *url)
{
    const char *at = url;
    size_t n;

    c->tls = at_starts_with(at, "https://");
    if (c->tls || at_starts_with(at, "http://")) at = strstr(at, "://") + 3;
    n = *at == '[' ? strcspn(at, "]") + 1 : strcspn(at, ":/");
    bool six = *at == '[';
    if (n == 0 || n >= sizeof c->host || strlen(at) >= sizeof c->path)
        return at_fail(AT_EUSAGE, "--server %s: a URL such as http://127.0.0.1:8188 is wanted",
                       url);
    snprintf(c->host, sizeof c->host, "%.*s", (int)(n - (six ? 2 : 0)), at + six);
    at += n;
    c->port = 8188;
    if (*at == ':') c->port = (int)strtol(at + 1, (char **)(uintptr_t)&at, 10);
    if (c->port < 1 || c->port > 65535 || (*at && *at != '/'))
        return at_fail(AT_EUSAGE, "--server %s: a URL such as http://127.0.0.1:8188 is wanted",
                       url);
    n = strlen(at);
    while (n && at[n - 1] == '/')
        n--;
    snprintf(c->path, sizeof c->path, "%.*s", (int)n, at);
    return AT_OK;
}

static at_status unreachable(const client *c)
{
    return at_fail(AT_EIO, "the server at %s port %d does not answer", c->host, c->port);
}

static at_status take(const json_t *all, const char *key, char **out)
{
    const json_t *v = json_object_get(all, key);
    *out = v ? at_json_dump(v, 0) : NULL;
    return *out || !v ? AT_OK : at_fail(AT_ENOMEM, "no memory for the server's answer");
}

static at_status submit(client *c, json_t *submission, at_job_result *out)
{
    at_status st = AT_OK;
    json_t *answer = NULL;

    // The id is ours, so that messages which overtake the answer are known to be of this job.
    char id[37];
    at_uuid(id, true);
    c->job = at_strdup(id);
    json_object_set_new(submission, "prompt_id", json_string(id));
    json_object_set_new(submission, "client_id", json_string(c->id));
    char *body = at_json_dump(submission, 0);
    if (!body || !c->job) AT_TRY(at_fail(AT_ENOMEM, "no memory for a request"));
    int status = ask(c, "POST", "/prompt", body);
    if (!status) AT_TRY(unreachable(c));
    if (at_json_load("the server's answer", at_str_text(&c->call.answer), c->call.answer.len,
                     &answer) != AT_OK)
        AT_TRY(at_fail(AT_EIO, "the server at %s answers %d: %.200s", c->host, status,
                       at_str_text(&c->call.answer)));
    AT_TRY(take(answer, "node_errors", &out->node_errors));
    const char *given = text_of(answer, "prompt_id");
    if (status == 200 && given) {
        if (strcmp(given, c->job) == 0) goto out;
        at_free(c->job); // a server that gives its own
        c->job = at_strdup(given);
        st = c->job ? AT_OK : at_fail(AT_ENOMEM, "no memory for a job's id");
        goto out;
    }
    AT_TRY(take(answer, "error", &out->error));
    const char *why = text_of(json_object_get(answer, "error"), "message");
    st = at_fail(status == 400 ? AT_EWORKFLOW : AT_EIO, "%s",
                 why ? why : "the server refuses the workflow");
out:
    json_decref(answer);
    return st;
}

// Interrupt it if it runs, and take it out of the queue if it waits.
static void cancel(client *c)
{
    json_t *one = json_pack("{s:s}", "prompt_id", c->job);
    json_t *waiting = json_pack("{s:[s]}", "delete", c->job);
    c->cancelled = true;
    (void)ask(c, "POST", "/queue", waiting ? at_json_dump(waiting, 0) : NULL);
    (void)ask(c, "POST", "/interrupt", one ? at_json_dump(one, 0) : NULL);
    json_decref(one);
    json_decref(waiting);
}

// The job's history entry; NULL: it has none yet. *status 0: the server is gone.
static json_t *history(client *c, int *status)
{
    char route[300];
    json_t *all = NULL, *entry;

    snprintf(route, sizeof route, "/history/%s", c->job);
    *status = ask(c, "GET", route, NULL);
    if (*status != 200 ||
        at_json_load("history", at_str_text(&c->call.answer), c->call.answer.len, &all) != AT_OK)
        return NULL;
    entry = json_incref(json_object_get(all, c->job));
    json_decref(all);
    return entry;
}

static at_status outcome(const json_t *entry)
{
    const json_t *status = json_object_get(entry, "status"), *message;
    size_t i;

    if (json_is_true(json_object_get(status, "completed"))) return AT_OK;
    json_array_foreach(json_object_get(status, "messages"), i, message)
    {
        const char *type = json_string_value(json_array_get(message, 0));
        const json_t *data = json_array_get(message, 1);
        if (type && strcmp(type, "execution_interrupted") == 0)
            return at_fail(AT_ECANCELLED, "the job was interrupted on the server");
        if (type && strcmp(type, "execution_error") == 0)
            return at_fail(AT_EDEVICE, "node %s (%s): %s", text_of(data, "node_id"),
                           text_of(data, "node_type"), text_of(data, "exception_message"));
    }
    return at_fail(AT_EDEVICE, "the job failed on the server");
}

static at_status wait_for_end(client *c, at_job_result *out)
{
    at_status st = AT_OK;
    double next = at_now() + 1;
    json_t *entry = NULL;
    int status = 200, silent = 0;

    while (!entry) {
        if (!turn(c)) AT_TRY(at_fail(AT_EINTERNAL, "libwebsockets' loop ended"));
        if (!c->cancelled && at_sink_cancelled(c->sink)) {
            cancel(c);
            AT_TRY(at_fail(AT_ECANCELLED, "interrupted"));
        }
        if (!c->ended && at_now() < next) continue;
        next = at_now() + (c->socket == SOCKET_OPEN && !c->ended ? LOOK_SECONDS : 1);
        c->ended = false;
        entry = history(c, &status);
        silent = status ? 0 : silent + 1;
        if (silent > 5) AT_TRY(unreachable(c));
    }
    AT_TRY(take(entry, "outputs", &out->outputs));
    st = outcome(entry);
out:
    json_decref(entry);
    return st;
}

at_status at_client_run(const char *server, json_t *submission, const at_sink *sink,
                        at_job_result *out)
{
    at_status st = AT_OK;
    client c = {.sink = sink, .prompt = json_object_get(submission, "prompt")};
    struct lws_context_creation_info info = {.port = CONTEXT_PORT_NO_LISTEN,
                                             .protocols = protocols,
                                             .user = &c,
                                             .fd_limit_per_thread = 64,
                                             .options = LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT};
    char path[320];
    double start = at_now();

    *out = (at_job_result){0};
    lws_set_log_level(0, NULL);
    AT_TRY(read_url(&c, server));
    at_uuid(c.id, false);
    if (!c.tls) info.options = 0;
    at_net_memory_set();
    c.context = lws_create_context(&info);
    if (!c.context) AT_TRY(at_fail(AT_EIO, "libwebsockets does not start"));
    lws_sul_schedule(c.context, 0, &c.tick, on_tick, TICK_US);
    snprintf(path, sizeof path, "%s/ws?clientId=%s", c.path, c.id);
    if (!connect_to(&c, NULL, path)) c.socket = SOCKET_CLOSED;
    while (c.socket == SOCKET_OPENING && at_now() < start + CALL_SECONDS && turn(&c))
        ;
    AT_TRY(submit(&c, submission, out)); // without a socket the history tells of the end
    AT_TRY(wait_for_end(&c, out));
out:
    if (c.context) lws_context_destroy(c.context);
    at_net_memory_drop();
    at_free(c.call.body);
    at_str_free(&c.call.answer);
    at_str_free(&c.frame);
    at_free(c.job);
    out->seconds = at_now() - start;
    return st;
}
