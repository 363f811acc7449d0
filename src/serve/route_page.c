// SPDX-License-Identifier: Apache-2.0
// route_page.c - what a browser gets at "/": the frontend of --front-end-root, or the page of the house.
// Idea: the last of the families: its patterns take every GET that nobody else wanted.
// Source: comfyui-contract 1.0.
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "serve/page.h"
#include "serve/server.h"

static at_status serve_file(at_server *s, at_request *rq, at_response *rs, const char *name)
{
    char *path = NULL;
    if (!s->page_dir || at_path_join_safe(s->page_dir, name, &path) != AT_OK)
        return at_reply_text(rs, 404, "404: Not Found");
    at_status st = at_reply_file(rq, rs, path, at_mime_type(path));
    if (st == AT_OK && rs->status == 404) st = at_reply_text(rs, 404, "404: Not Found");
    at_free(path);
    return st;
}

// A file that the build put into the program.
static at_status serve_own(at_response *rs, const char *name)
{
    for (const at_page_file *f = at_page_files; f->name; f++)
        if (strcmp(f->name, name) == 0) {
            char *copy = at_alloc(f->n + 1);
            if (copy) memcpy(copy, f->bytes, f->n);
            return at_reply_bytes(rs, at_mime_type(name), copy, f->n);
        }
    return at_reply_text(rs, 404, "404: Not Found");
}

static at_status root(at_server *s, at_request *rq, at_response *rs)
{
    at_response_header(rs, "Cache-Control", "no-cache");
    at_response_header(rs, "Pragma", "no-cache");
    at_response_header(rs, "Expires", "0");
    return s->page_dir ? serve_file(s, rq, rs, "index.html") : serve_own(rs, "index.html");
}

static at_status own(at_server *s, at_request *rq, at_response *rs)
{
    (void)s;
    return serve_own(rs, rq->param[0]);
}

static at_status any(at_server *s, at_request *rq, at_response *rs)
{
    at_status st = serve_file(s, rq, rs, rq->param[0]);
    if (st != AT_OK || rs->status != 404 || strcmp(rq->param[0], "user.css") != 0) return st;
    at_response_free(rs); // the frontend always asks for the user's own style: there is none
    return at_reply_bytes(rs, "text/css", at_strdup(""), 0);
}

static json_t *known(double v, bool is)
{
    return is && v >= 0 ? json_real(v) : json_null();
}

// What each device is and does, for people: numbers of this moment, null where nobody knows.
static at_status devices(at_server *s, at_request *rq, at_response *rs)
{
    (void)rq;
    at_device_state d;

    at_runner_device(s->runner, &d);
    json_t *one =
        json_pack("{s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "name", d.name,
                  "description", d.description, "host", (int)d.host, "total",
                  (json_int_t)d.total_bytes, "free", (json_int_t)d.free_bytes, "held",
                  (json_int_t)d.held_bytes, "peak", (json_int_t)d.peak_bytes, "busy",
                  known(d.usage.busy, d.usage_known), "watts", known(d.usage.watts, d.usage_known),
                  "limit_watts", known(d.usage.limit_watts, d.usage_known), "celsius",
                  known(d.usage.celsius, d.usage_known));
    return at_reply_json(rs, 200, json_pack("{s:[o]}", "devices", one));
}

// A workflow of the editor, or of the API, as the API's; the page loads dropped files with it.
static at_status convert(at_server *s, at_request *rq, at_response *rs)
{
    at_graph *g = NULL;
    at_status st = at_graph_parse("the workflow", rq->body ? rq->body : "", rq->bytes,
                                  at_engine_registry(s->engine), &g);
    if (st == AT_OK)
        st = at_reply_json(rs, 200, json_copy((json_t *)at_graph_json(g)));
    else if (st != AT_ENOMEM)
        st = at_reply_json(rs, 400, json_pack("{s:{s:s}}", "error", "message", at_error_text()));
    at_graph_free(g);
    return st;
}

const at_route at_routes_page[] = {
    {AT_HTTP_GET, "/", root, true},
    {AT_HTTP_GET, "/atelier/devices", devices, false},
    {AT_HTTP_GET, "/atelier/{}", own, false}, // the page of the house, also beside another frontend
    {AT_HTTP_POST, "/atelier/convert", convert, true},
    {AT_HTTP_GET, "/{*}", any, true},
    {0},
};
