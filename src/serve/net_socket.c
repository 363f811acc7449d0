// SPDX-License-Identifier: Apache-2.0
// net_socket.c - WebSockets: joining the hub, hearing the first message, sending what waits.
// Source: RFC 6455 as libwebsockets does it; comfyui-contract 2.1.
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "serve/net.h"

_Static_assert(AT_MESSAGE_ROOM >= LWS_PRE, "room for a frame's head before each message");
enum { MAX_FRAME = 64 << 10 }; // only the first text message is read at all

// Only /ws and /api/ws, and only from pages that may; the rest is answered and closed.
static int may_open(at_net *n, struct lws *wsi)
{
    at_request rq = {0};
    int status = at_net_request(wsi, &rq) == AT_OK ? 0 : 503;

    if (!status && strcmp(rq.path, "/ws") != 0 && strcmp(rq.path, "/api/ws") != 0) status = 404;
    if (!status) status = at_request_refused(n->server, &rq);
    if (!status) status = at_request_identify(n->server, &rq);
    if (!status && rq.role < AT_ROLE_VIEW) status = 401;
    at_request_free(&rq);
    if (status) (void)lws_return_http_status(wsi, (unsigned)status, NULL);
    return status ? -1 : 0;
}

static int joins(at_net *n, struct lws *wsi, at_conn *c)
{
    at_request rq = {0};

    size_t remaining = at_queue_remaining(n->server->queue), now;

    at_exchange_release(c->x);
    *c = (at_conn){0};
    if (at_net_request(wsi, &rq) == AT_OK && at_request_identify(n->server, &rq) == 0)
        c->session = at_hub_join(n->server->hub, at_request_owner(n->server, &rq),
                                 at_request_query(&rq, "clientId"), wsi, remaining);
    at_request_free(&rq);
    if (!c->session) return -1;
    now = at_queue_remaining(n->server->queue); // while nobody listened, nobody was told
    if (now != remaining) at_hub_post_status(n->server->hub, now);
    lws_callback_on_writable(wsi);
    return 0;
}

static int hears(at_net *n, struct lws *wsi, at_conn *c, const char *in, size_t len)
{
    if (!c->session || c->session->heard || lws_frame_is_binary(wsi)) return 0;
    if (c->frame.len + len <= MAX_FRAME) at_str_append_n(&c->frame, in, len);
    if (lws_is_final_fragment(wsi) && !lws_remaining_packet_payload(wsi)) {
        if (!c->frame.failed && c->frame.len)
            at_hub_heard(n->server->hub, c->session, c->frame.data, c->frame.len);
        at_str_free(&c->frame);
        c->frame = (at_str){0};
        if (c->session->count) lws_callback_on_writable(wsi);
    }
    return 0;
}

static int sends(struct lws *wsi, at_conn *c)
{
    if (!c->session) return 0;
    if (c->session->overrun) {
        at_log(AT_WARN, "WS-SLOW", "client %s does not read: %zu bytes wait, it is dropped",
               c->session->id, c->session->waiting_bytes);
        return -1;
    }
    while (!lws_send_pipe_choked(wsi)) {
        at_message *m = at_session_next(c->session);
        if (!m) return 0;
        int sent = lws_write(wsi, m->data, m->bytes, m->binary ? LWS_WRITE_BINARY : LWS_WRITE_TEXT);
        bool whole = sent >= (int)m->bytes;
        at_message_release(m);
        if (!whole) return -1;
    }
    if (c->session->count) lws_callback_on_writable(wsi);
    return 0;
}

int at_net_socket(at_net *n, struct lws *wsi, enum lws_callback_reasons reason, at_conn *c,
                  void *in, size_t len)
{
    switch (reason) {
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION: return may_open(n, wsi);
    case LWS_CALLBACK_ESTABLISHED: return joins(n, wsi, c);
    case LWS_CALLBACK_RECEIVE: return hears(n, wsi, c, in, len);
    case LWS_CALLBACK_SERVER_WRITEABLE: return sends(wsi, c);
    case LWS_CALLBACK_CLOSED:
        if (c && c->session) at_hub_leave(n->server->hub, c->session);
        if (c) at_str_free(&c->frame);
        if (c) *c = (at_conn){0};
        return 0;
    default: return 0;
    }
}
