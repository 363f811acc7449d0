// SPDX-License-Identifier: Apache-2.0
// net_http.c - one HTTP request on its way in and its answer on its way out.
// Idea: headers come first: what may not be here, or is too long, is answered before a byte of the body is kept.
// Easy to get wrong: libwebsockets hands over a chunked body as it stands on the wire, and reads no further request
// behind it: such a connection ends with its answer. A request behind a body is not served either: see pipelined.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "serve/net.h"

enum { ALL_BODIES = 1 << 30 }; // of all requests together
// A peer may take a minute, and then as long as this many bytes a second allow.
enum { PATIENCE = 60, SLOWEST = 1024 };

// --- the request -------------------------------------------------------------------------------------
static at_status copy_header(struct lws *wsi, enum lws_token_indexes token, char **out)
{
    int n = lws_hdr_total_length(wsi, token);
    if (n <= 0) return AT_OK;
    *out = at_alloc((size_t)n + 1);
    if (!*out) return at_fail(AT_ENOMEM, "no memory for a header");
    if (lws_hdr_copy(wsi, *out, n + 1, token) < 0) **out = 0;
    return AT_OK;
}

static at_status copy_custom(struct lws *wsi, const char *name, char **out)
{
    int n = lws_hdr_custom_length(wsi, name, (int)strlen(name));
    if (n <= 0) return AT_OK;
    *out = at_alloc((size_t)n + 1);
    if (!*out) return at_fail(AT_ENOMEM, "no memory for a header");
    if (lws_hdr_custom_copy(wsi, *out, n + 1, name, (int)strlen(name)) < 0) **out = 0;
    return AT_OK;
}

// "key=value", decoded by libwebsockets already.
static at_status copy_query(struct lws *wsi, at_request *rq)
{
    int len;
    for (int i = 0; (len = lws_hdr_fragment_length(wsi, WSI_TOKEN_HTTP_URI_ARGS, i)) > 0; i++) {
        at_query *grown = at_realloc(rq->query, (rq->query_count + 1) * sizeof *grown);
        char *text = at_alloc((size_t)len + 2);
        if (grown) rq->query = grown;
        if (!grown || !text) {
            at_free(text);
            return at_fail(AT_ENOMEM, "no memory for a query");
        }
        int got = lws_hdr_copy_fragment(wsi, text, len + 2, WSI_TOKEN_HTTP_URI_ARGS, i);
        text[got > 0 ? got : 0] = 0;
        char *eq = strchr(text, '=');
        at_query *q = &rq->query[rq->query_count++];
        q->value = at_strdup(eq ? eq + 1 : "");
        if (eq) *eq = 0;
        q->key = text;
        if (!q->value) return at_fail(AT_ENOMEM, "no memory for a query");
    }
    return AT_OK;
}

at_status at_net_request(struct lws *wsi, at_request *rq)
{
    static const struct {
        enum lws_token_indexes token;
        at_method method;
    } lines[] = {
        {WSI_TOKEN_GET_URI, AT_HTTP_GET},         {WSI_TOKEN_HEAD_URI, AT_HTTP_GET},
        {WSI_TOKEN_POST_URI, AT_HTTP_POST},       {WSI_TOKEN_PUT_URI, AT_HTTP_PUT},
        {WSI_TOKEN_PATCH_URI, AT_HTTP_PATCH},     {WSI_TOKEN_DELETE_URI, AT_HTTP_DELETE},
        {WSI_TOKEN_OPTIONS_URI, AT_HTTP_OPTIONS},
    };
    at_status st = AT_OK;

    rq->method = AT_HTTP_OTHER;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (lws_hdr_total_length(wsi, lines[i].token) > 0) {
            rq->method = lines[i].method;
            rq->head = lines[i].token == WSI_TOKEN_HEAD_URI;
            AT_TRY(copy_header(wsi, lines[i].token, &rq->path));
            break;
        }
    if (!rq->path) rq->path = at_strdup("/");
    if (!rq->path) AT_TRY(at_fail(AT_ENOMEM, "no memory for a path"));
    AT_TRY(copy_query(wsi, rq));
    AT_TRY(copy_header(wsi, WSI_TOKEN_HOST, &rq->header[AT_HEADER_HOST]));
    AT_TRY(copy_header(wsi, WSI_TOKEN_ORIGIN, &rq->header[AT_HEADER_ORIGIN]));
    AT_TRY(copy_header(wsi, WSI_TOKEN_HTTP_CONTENT_TYPE, &rq->header[AT_HEADER_CONTENT_TYPE]));
    AT_TRY(copy_header(wsi, WSI_TOKEN_HTTP_RANGE, &rq->header[AT_HEADER_RANGE]));
    AT_TRY(copy_header(wsi, WSI_TOKEN_HTTP_IF_NONE_MATCH, &rq->header[AT_HEADER_IF_NONE_MATCH]));
    AT_TRY(copy_header(wsi, WSI_TOKEN_HTTP_AUTHORIZATION, &rq->header[AT_HEADER_AUTHORIZATION]));
    AT_TRY(copy_header(wsi, WSI_TOKEN_HTTP_COOKIE, &rq->header[AT_HEADER_COOKIE]));
    AT_TRY(
        copy_header(wsi, WSI_TOKEN_HTTP_ACCEPT_ENCODING, &rq->header[AT_HEADER_ACCEPT_ENCODING]));
    AT_TRY(copy_custom(wsi, "comfy-user:", &rq->header[AT_HEADER_USER]));
out:
    return st;
}

// --- the body ----------------------------------------------------------------------------------------
static at_net *net_of(const at_exchange *x)
{
    return lws_context_user(lws_get_context(x->socket));
}

static bool add_body(void *ctx, const char *bytes, size_t n)
{
    at_exchange *x = ctx;
    size_t need = x->rq.bytes + n + 1;

    if (x->rq.bytes + n > x->limit) return false;
    if (need > x->body_cap) {
        size_t cap = x->body_cap * 2 > need ? x->body_cap * 2 : need;
        char *grown = at_realloc(x->rq.body, cap);
        if (!grown) return false;
        atomic_fetch_add(&net_of(x)->bodies, cap - x->body_cap);
        x->rq.body = grown;
        x->body_cap = cap;
    }
    memcpy(x->rq.body + x->rq.bytes, bytes, n);
    x->rq.bytes += n;
    x->rq.body[x->rq.bytes] = 0;
    return true;
}

// --- the answer --------------------------------------------------------------------------------------
static void answer_at_once(at_exchange *x, int status, const char *text)
{
    if (text)
        (void)at_reply_text(&x->rs, status, text);
    else
        (void)at_reply_status(&x->rs, status);
    at_response_dress(x->server, &x->rq, &x->rs);
    x->answered = true;
    lws_callback_on_writable(x->socket);
}

static int too_large(at_exchange *x)
{
    char text[96];
    x->close_after = true;
    snprintf(text, sizeof text, "Maximum request body size %zu exceeded", x->limit);
    answer_at_once(x, 413, text);
    return 0;
}

static void dispatch(at_net *n, at_exchange *x)
{
    x->dispatched = true;
    lws_set_timeout(x->socket, NO_PENDING_TIMEOUT, 0); // ours to answer now
    if (x->route->slow) {
        at_net_work(n, x);
        return;
    }
    at_route_answer(n->server, x->route, &x->rq, &x->rs);
    if (x->rs.held) {
        at_net_hold(n, x);
        return;
    }
    x->answered = true;
    lws_callback_on_writable(x->socket);
}

// HTTP/1.0: libwebsockets would keep the connection open without saying so.
static bool is_old(struct lws *wsi)
{
    char version[16] = "";
    return lws_hdr_copy(wsi, version, sizeof version, WSI_TOKEN_HTTP) > 0 &&
           strncmp(version, "HTTP/1.0", 8) == 0;
}

// Asked for once a connection: an at_conn lives for one request, the socket's own pointer until at_net_http_gone.
static void peer_of(struct lws *wsi, char *peer, size_t size)
{
    const char *known = lws_get_opaque_user_data(wsi);
    if (!known) {
        (void)lws_get_peer_simple(wsi, peer, size);
        lws_set_opaque_user_data(wsi, at_strdup(peer));
    } else {
        snprintf(peer, size, "%s", known);
    }
}

void at_net_http_gone(struct lws *wsi)
{
    at_free(lws_get_opaque_user_data(wsi));
    lws_set_opaque_user_data(wsi, NULL);
}

static int begins(at_net *n, struct lws *wsi, at_conn *c)
{
    char *length = NULL, *coding = NULL;
    at_exchange *x = at_calloc(1, sizeof *x);
    int status = 0;

    at_exchange_release(c->x);
    c->x = x;
    if (!x) return -1;
    x->refs = 1;
    x->since = at_now();
    x->socket = wsi;
    x->server = n->server;
    x->limit = n->max_body;
    x->began = at_now();
    if (at_net_request(wsi, &x->rq) != AT_OK ||
        copy_header(wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH, &length) != AT_OK ||
        copy_header(wsi, WSI_TOKEN_HTTP_TRANSFER_ENCODING, &coding) != AT_OK)
        return -1;
    peer_of(wsi, x->rq.peer, sizeof x->rq.peer);
    x->chunked = coding && at_equal_nocase(coding, "chunked");
    unsigned long long bytes = length ? strtoull(length, NULL, 10) : 0;
    bool body = bytes > 0 || x->chunked;
    at_free(length);
    at_free(coding);
    x->close_after = x->chunked || is_old(wsi);
    status = at_request_refused(n->server, &x->rq);
    if (!status) status = at_request_identify(n->server, &x->rq);
    if (!status && x->rq.method == AT_HTTP_OPTIONS) status = 200;
    if (!status) x->route = at_route_find(&x->rq, &status);
    if (x->route && (status = at_route_forbidden(n->server, x->route, &x->rq, &x->rs)))
        x->route = NULL;
    if (x->route && (status = at_request_limited(n->server, x->route, &x->rq, &x->rs)))
        x->route = NULL;
    if (!x->route) {
        x->close_after = x->close_after || body;
        answer_at_once(x, status,
                       status == 404   ? "404: Not Found"
                       : status == 405 ? "405: Method Not Allowed"
                       : status == 401
                           ? "401: Unauthorized\n\nThis server wants a token. A browser opens "
                             "/?token=YOUR-TOKEN once; a program sends the header "
                             "\"Authorization: Bearer YOUR-TOKEN\"."
                       : status == 429 ? "429: Too Many Requests"
                                       : NULL);
        return 0;
    }
    if (bytes > x->limit) return too_large(x);
    if (bytes && atomic_load(&n->bodies) + bytes > ALL_BODIES) {
        x->close_after = true;
        answer_at_once(x, 503, "The server holds too many request bodies; try again later");
        return 0;
    }
    if (!body) dispatch(n, x);
    return 0;
}

static bool too_slow(const at_exchange *x, size_t bytes)
{
    return at_now() - x->since > PATIENCE + (double)bytes / SLOWEST;
}

static int body_comes(at_net *n, at_exchange *x, const char *in, size_t len)
{
    if (!x || x->answered || x->dispatched) return 0; // answered already: the rest is not read
    if (too_slow(x, x->rq.bytes + len)) return -1;
    if (!x->chunked) return add_body(x, in, len) ? 0 : too_large(x);
    if (!at_chunks_feed(&x->chunks, in, len, add_body, x)) {
        if (x->rq.bytes + len > x->limit) return too_large(x);
        answer_at_once(x, 400, "400: Bad Request");
    } else if (x->chunks.at == AT_CHUNK_END) {
        dispatch(n, x);
    }
    return 0;
}

// whole: the body goes with it, in one write; the caller knows that it fits.
static int send_head(struct lws *wsi, at_exchange *x, bool whole)
{
    at_response *rs = &x->rs;
    at_net *n = net_of(x);
    unsigned char *start = n->piece + LWS_PRE, *p = start, *end = n->piece + sizeof n->piece - 1;
    const char *line = at_str_text(&rs->head);
    bool bodyless = rs->status == 204 || rs->status == 304;

    if (lws_add_http_header_status(wsi, (unsigned)rs->status, &p, end)) return -1;
    if (rs->type && lws_add_http_header_by_token(wsi, WSI_TOKEN_HTTP_CONTENT_TYPE,
                                                 (const unsigned char *)rs->type,
                                                 (int)strlen(rs->type), &p, end))
        return -1;
    if (rs->head.failed || rs->head.len > (size_t)(end - p)) return -1;
    memcpy(p, line,
           rs->head.len); // lines as they stand in HTTP/1.1, the only one that is spoken here
    p += rs->head.len;
    if (!bodyless && lws_add_http_header_content_length(wsi, rs->bytes, &p, end)) return -1;
    if (x->close_after && lws_add_http_header_by_name(wsi, (const unsigned char *)"connection:",
                                                      (const unsigned char *)"close", 5, &p, end))
        return -1;
    x->head_sent = true;
    if (rs->status >= 100 && rs->status < 600)
        atomic_fetch_add(&x->server->metrics.http[rs->status / 100], 1);
    at_histogram_add(&x->server->metrics.answer, at_now() - x->began);
    if (!whole) return lws_finalize_write_http_header(wsi, start, &p, end);
    if (lws_finalize_http_header(wsi, &p, end)) return -1;
    memcpy(p, rs->body, rs->bytes);
    size_t n_bytes = (size_t)(p - start) + rs->bytes;
    return lws_write(wsi, start, n_bytes, LWS_WRITE_HTTP_HEADERS) == (int)n_bytes ? 0 : -1;
}

// The next piece into the scratch; its length, or -1.
static int next_piece(at_exchange *x, unsigned char *to)
{
    size_t left = x->rs.bytes - x->sent, n = left < AT_NET_PIECE ? left : AT_NET_PIECE;
    if (!x->rs.is_file) {
        memcpy(to, x->rs.body + x->sent, n);
        return (int)n;
    }
    ssize_t got = pread(x->rs.file, to, n, (off_t)(x->rs.offset + x->sent));
    return got == (ssize_t)n ? (int)n
                             : -1; // a file that got shorter: the connection tells it by ending
}

static int ends(struct lws *wsi, at_conn *c)
{
    bool close = c->x->close_after;
    atomic_fetch_sub(&net_of(c->x)->bodies, c->x->body_cap);
    c->x->body_cap = 0;
    c->x->socket = NULL;
    at_exchange_release(c->x);
    c->x = NULL;
    if (close) return -1;
    return lws_http_transaction_completed(wsi) ? -1 : 0;
}

static int writes(struct lws *wsi, at_conn *c)
{
    at_exchange *x = c->x;
    at_net *n;

    if (!x || !x->answered) return 0; // a worker has it
    n = net_of(x);
    bool bodyless = x->rq.head || x->rs.status == 204 || x->rs.status == 304 || !x->rs.bytes;
    if (!x->head_sent) {
        x->since = at_now();
        bool whole = !bodyless && !x->rs.is_file && x->rs.bytes <= AT_NET_PIECE / 2;
        if (send_head(wsi, x, whole)) return -1;
        if (bodyless || whole) return ends(wsi, c);
        lws_set_timeout(wsi, PENDING_TIMEOUT_HTTP_CONTENT, 60);
        lws_callback_on_writable(wsi);
        return 0;
    }
    int len = next_piece(x, n->piece + LWS_PRE);
    if (len < 0) return -1;
    if (too_slow(x, x->sent)) return -1;
    bool last = x->sent + (size_t)len == x->rs.bytes;
    if (lws_write(wsi, n->piece + LWS_PRE, (size_t)len,
                  last ? LWS_WRITE_HTTP_FINAL : LWS_WRITE_HTTP) != len)
        return -1;
    x->sent += (size_t)len;
    if (last) return ends(wsi, c);
    lws_set_timeout(wsi, PENDING_TIMEOUT_HTTP_CONTENT, 60); // a client may be slow, not gone
    lws_callback_on_writable(wsi);
    return 0;
}

// libwebsockets 4.1 says it again, without end and without returning to its loop, while bytes of a next request lie
// behind a body: what is answered already goes out, then the connection must end.
static int pipelined(struct lws *wsi, at_conn *c)
{
    at_exchange *x = c->x;
    if (x->rs.held) at_net_settle(net_of(x));
    if (x->answered && !x->head_sent) {
        x->close_after = true;
        if (writes(wsi, c) == 0 && c->x && c->x->head_sent) (void)writes(wsi, c);
    }
    return -1;
}

int at_net_http(at_net *n, struct lws *wsi, enum lws_callback_reasons reason, at_conn *c, void *in,
                size_t len)
{
    if (!c) return 0;
    switch (reason) {
    case LWS_CALLBACK_HTTP: return begins(n, wsi, c);
    case LWS_CALLBACK_HTTP_BODY: return body_comes(n, c->x, in, len);
    case LWS_CALLBACK_HTTP_BODY_COMPLETION:
        if (c->x && ++c->x->completions > 1) return pipelined(wsi, c);
        if (c->x && c->x->route && !c->x->answered && !c->x->dispatched && !c->x->chunked)
            dispatch(n, c->x);
        return 0;
    case LWS_CALLBACK_HTTP_WRITEABLE: return writes(wsi, c);
    default: // closed, or given to another protocol
        if (c->x) {
            atomic_fetch_sub(&n->bodies, c->x->body_cap);
            c->x->body_cap = 0;
            c->x->socket = NULL;
            at_exchange_release(c->x);
            c->x = NULL;
        }
        return 0;
    }
}
