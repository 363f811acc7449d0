// SPDX-License-Identifier: Apache-2.0
// routes.c - which function answers which request, who may ask, and what every answer carries.
// Idea: a route is a row of a family's table; each exists bare and below /api.
// Easy to get wrong: a browser lets any page post to 127.0.0.1. A page's Origin must be the Host that it asks, and
// where only this machine may connect, the Host must be a name of this machine: else a foreign name that resolves
// to 127.0.0.1 would pass (DNS rebinding).
// Source: comfyui-contract 1.0; ComfyUI 0.3.64, behaviour of its middleware.
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/file.h"
#include "serve/server.h"

static const at_route *const families[] = {
    at_routes_prompt,   at_routes_jobs,      at_routes_logs,  at_routes_metrics, at_routes_usage,
    at_routes_info,     at_routes_models,    at_routes_files, at_routes_upload,  at_routes_users,
    at_routes_userdata, at_routes_templates, at_routes_page,
};

// --- matching ----------------------------------------------------------------------------------------
static void clear_params(at_request *rq)
{
    for (int i = 0; i < AT_ROUTE_PARAMS; i++) {
        at_free(rq->param[i]);
        rq->param[i] = NULL;
    }
}

// {} takes one part, {*} the rest, or what stands before the literal that follows it.
static bool matches(const char *pattern, const char *path, at_request *rq)
{
    int param = 0;
    while (*pattern) {
        if (*pattern != '{') {
            if (*pattern++ != *path++) return false;
            continue;
        }
        bool rest = pattern[1] == '*';
        pattern = strchr(pattern, '}') + 1;
        size_t n = strcspn(path, "/");
        if (rest) {
            n = strlen(path);
            if (*pattern) { // "{*}/move/{*}": the first place where the literal stands
                char literal[32];
                snprintf(literal, sizeof literal, "%.*s", (int)strcspn(pattern, "{"), pattern);
                const char *at = strstr(path, literal);
                if (!at) return false;
                n = (size_t)(at - path);
            }
        }
        if (!n || param == AT_ROUTE_PARAMS) return false;
        rq->param[param++] = at_strndup(path, n);
        path += n;
    }
    return *path == 0;
}

// "/api/x" is "/x", but for /internal, which has no twin.
static const char *bare(const char *path)
{
    if (strncmp(path, "/api/", 5) != 0 || strncmp(path, "/api/internal/", 14) == 0) return path;
    return path + 4;
}

const at_route *at_route_find(at_request *rq, int *status)
{
    const char *path = bare(rq->path);
    *status = 404;
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        for (const at_route *r = families[f]; r->pattern; r++) {
            bool here = matches(r->pattern, path, rq);
            if (here && (r->methods & rq->method)) return r;
            // The page's catch-all does not make a POST to an unknown path a wrong method.
            if (here && strcmp(r->pattern, "/{*}") != 0) *status = 405;
            clear_params(rq);
        }
    return NULL;
}

void at_route_dress(const at_server *s, const at_request *rq, at_response *rs, at_status st)
{
    if (st != AT_OK) {
        at_log(AT_WARN, "HTTP-FAILED", "%s: %s", rq->path, at_error_text());
        at_str_free(&rs->head);
        rs->head = (at_str){0};
        if (st == AT_ENOMEM)
            at_reply_status(rs, 503);
        else // as aiohttp answers when a handler raises
            (void)at_reply_text(rs, 500,
                                st == AT_EIO
                                    ? "500 Internal Server Error\n\nThe disk cannot be used"
                                    : "500 Internal Server Error\n\nServer got itself in trouble");
    }
    if (!rs->status) rs->status = 200;
    at_response_squeeze(s, rq, rs);
    at_response_dress(s, rq, rs);
}

void at_route_answer(at_server *s, const at_route *r, at_request *rq, at_response *rs)
{
    at_status st = r->run(s, rq, rs);
    if (!rs->held) at_route_dress(s, rq, rs, st);
}

// --- who may ask -------------------------------------------------------------------------------------
// "host[:port]" in lower case: the name alone, and the port behind it ("" if none).
static void split_host(const char *text, char host[256], char port[8])
{
    size_t n = 0;
    const char *end = *text == '[' ? strchr(text, ']') : NULL;
    const char *colon = end ? (end[1] == ':' ? end + 1 : NULL) : strrchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : strlen(text);
    for (; n < len && n < 255; n++)
        host[n] = text[n] >= 'A' && text[n] <= 'Z' ? (char)(text[n] | 32) : text[n];
    host[n] = 0;
    snprintf(port, 8, "%s", colon ? colon + 1 : "");
}

static bool is_address(const char *host)
{
    char plain[256];
    unsigned char bytes[16];
    size_t n = strlen(host);
    if (inet_pton(AF_INET, host, bytes) == 1) return true;
    if (n > 2 && host[0] == '[' && host[n - 1] == ']')
        snprintf(plain, sizeof plain, "%.*s", (int)n - 2, host + 1);
    else
        snprintf(plain, sizeof plain, "%s", host);
    return inet_pton(AF_INET, plain, bytes) == 1 || inet_pton(AF_INET6, plain, bytes) == 1;
}

static bool is_loopback(const char *host)
{
    return strcmp(host, "localhost") == 0 || at_ends_with(host, ".localhost") ||
           strcmp(host, "[::1]") == 0 || strcmp(host, "::1") == 0 ||
           (strncmp(host, "127.", 4) == 0 && is_address(host));
}

static bool is_allowed_name(const at_serve_config *c, const char *host)
{
    for (size_t i = 0; i < c->allowed_host_count; i++)
        if (at_equal_nocase(c->allowed_hosts[i], host)) return true;
    return is_loopback(host) || is_address(host);
}

bool at_listens_inside(const at_serve_config *c)
{
    const char *list = c->listen ? c->listen : "127.0.0.1";
    while (*list) {
        char address[64];
        size_t n = strcspn(list, ",");
        snprintf(address, sizeof address, "%.*s", (int)n, list);
        if (n && !is_loopback(address)) return false;
        list += n + (list[n] == ',');
    }
    return true;
}

int at_request_refused(const at_server *s, const at_request *rq)
{
    char host[256], origin[256], host_port[8], origin_port[8];
    if (!rq->header[AT_HEADER_HOST]) return 0; // no browser
    split_host(rq->header[AT_HEADER_HOST], host, host_port);
    if (s->inside && !is_allowed_name(s->config, host)) {
        at_log(AT_WARN, "HTTP-HOST",
               "a request for host %s is refused; --allowed-host %s would let it in", host, host);
        return 403;
    }
    const char *page = rq->header[AT_HEADER_ORIGIN];
    if (s->config->cors || !page || !is_loopback(host)) return 0;
    const char *name = strstr(page, "://"); // "null" (a sandboxed frame, a local file) has none
    split_host(name ? name + 3 : "", origin, origin_port);
    if (strcmp(host, origin) == 0 &&
        (!*host_port || !*origin_port || strcmp(host_port, origin_port) == 0))
        return 0;
    at_log(AT_WARN, "HTTP-ORIGIN", "a request of a page from %s for host %s is refused", page,
           host);
    return 403;
}

bool at_server_separates(const at_server *s)
{
    return s->tokens && s->config->multi_user;
}

const char *at_request_owner(const at_server *s, const at_request *rq)
{
    return at_server_separates(s) ? rq->user : NULL;
}

// Those who may do all see all, unless they ask for one user.
const char *at_request_scope(const at_server *s, const at_request *rq)
{
    if (!at_server_separates(s)) return NULL;
    return rq->role == AT_ROLE_ADMIN && !rq->header[AT_HEADER_USER] ? NULL : rq->user;
}

int at_request_identify(const at_server *s, at_request *rq)
{
    const char *named = s->config->multi_user ? rq->header[AT_HEADER_USER] : NULL, *user = NULL;

    rq->role = AT_ROLE_ADMIN;
    if (s->tokens) {
        char *token =
            at_token_of(rq->header[AT_HEADER_AUTHORIZATION], rq->header[AT_HEADER_COOKIE]);
        rq->role = at_tokens_find(s->tokens, token, &user);
        at_free(token);
        if (rq->role == AT_ROLE_NONE) return 0; // who that is does not matter
        if (named && strcmp(named, user) != 0) {
            if (rq->role != AT_ROLE_ADMIN || !at_tokens_knows(s->tokens, named)) return 403;
            user = named;
        }
    } else if (named) {
        user = named;
    }
    rq->user = at_strdup(user ? user : "default");
    return rq->user ? 0 : 503;
}

int at_request_limited(at_server *s, const at_route *r, const at_request *rq, at_response *rs)
{
    char seconds[16];
    bool known = s->tokens || s->config->multi_user; // else an address is all that there is

    if (!s->limits || !r->limited) return 0;
    int wait = at_limits_take(s->limits, known ? rq->user : rq->peer, at_now());
    if (!wait) return 0;
    at_log(AT_INFO, "HTTP-LIMITED", "%s for %s at %s: %d s", rq->path, rq->user, rq->peer, wait);
    snprintf(seconds, sizeof seconds, "%d", wait);
    at_response_header(rs, "Retry-After", seconds);
    atomic_fetch_add(&s->metrics.refused, 1);
    return 429;
}

// "/?token=X" from a browser: the token moves into a cookie, and out of the address.
static bool takes_token(const at_server *s, const at_request *rq, at_response *rs)
{
    const char *token = at_request_query(rq, "token");
    if (!token || strcmp(rq->path, "/") != 0 || rq->method != AT_HTTP_GET ||
        strpbrk(token, ";, \"\\\r\n") || at_tokens_find(s->tokens, token, NULL) == AT_ROLE_NONE)
        return false;
    char *cookie = at_strprintf(AT_TOKEN_COOKIE "=%s; Path=/; HttpOnly; SameSite=Strict%s", token,
                                s->config->tls_key ? "; Secure" : "");
    if (cookie) at_response_header(rs, "Set-Cookie", cookie);
    at_response_header(rs, "Location", "/");
    at_response_header(rs, "Referrer-Policy", "no-referrer");
    at_free(cookie);
    return cookie != NULL;
}

int at_route_forbidden(const at_server *s, const at_route *r, const at_request *rq, at_response *rs)
{
    bool probe = strcmp(r->pattern, "/health") == 0 || strcmp(r->pattern, "/ready") == 0;
    if (!s->tokens || probe) return 0;
    if (takes_token(s, rq, rs)) return 303;
    at_role wanted = r->role ? r->role : rq->method == AT_HTTP_GET ? AT_ROLE_VIEW : AT_ROLE_SUBMIT;
    if ((at_role)rq->role >= wanted) return 0;
    at_log(AT_INFO, "HTTP-DENIED", "%s for %s at %s", rq->path,
           rq->user ? rq->user : "nobody we know", rq->peer);
    if (rq->role != AT_ROLE_NONE) return 403;
    at_response_header(rs, "WWW-Authenticate", "Bearer realm=\"atelier\"");
    return 401;
}

// --- what every answer carries -----------------------------------------------------------------------
static const char *cache_rule(const at_request *rq, int status)
{
    static const char *const pictures[] = {".jpg", ".jpeg", ".png",  ".ppm", ".bmp",
                                           ".pgm", ".tif",  ".tiff", ".webp"};
    const char *path = rq->path, *ext = at_path_ext(path), *last = at_path_base(path);
    if (at_equal_nocase(ext, ".js") || at_equal_nocase(ext, ".css") ||
        (at_starts_with(last, "index") && at_equal_nocase(ext, ".json")))
        return "no-cache";
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++)
        if (at_equal_nocase(ext, pictures[i])) {
            if (status == 404) return "public, max-age=3600";
            if (status == 302 || status == 303 || status == 307) return "no-cache";
            if ((status >= 200 && status <= 206) || status == 301 || status == 308)
                return "public, max-age=86400";
        }
    return NULL;
}

void at_response_dress(const at_server *s, const at_request *rq, at_response *rs)
{
    const char *cache = cache_rule(rq, rs->status);
    if (cache && !strstr(at_str_text(&rs->head), "Cache-Control: "))
        at_response_header(rs, "Cache-Control", cache);
    at_response_header(rs, "X-Content-Type-Options", "nosniff");
    if (!s->config->cors) return;
    at_response_header(rs, "Access-Control-Allow-Origin", s->config->cors);
    at_response_header(rs, "Access-Control-Allow-Methods", "POST, GET, DELETE, PUT, OPTIONS");
    at_response_header(rs, "Access-Control-Allow-Headers", "Content-Type, Authorization");
    at_response_header(rs, "Access-Control-Allow-Credentials", "true");
}
