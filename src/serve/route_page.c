// SPDX-License-Identifier: Apache-2.0
// route_page.c - what a browser gets at "/": the frontend of --front-end-root, or a word of who we are.
// Idea: the last of the families: its patterns take every GET that nobody else wanted.
// Source: comfyui-contract 1.0.
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "serve/server.h"

static const char house_page[] =
    "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>atelier</title>"
    "<body><h1>atelier</h1><p>This server speaks ComfyUI's protocol. "
    "<code>--front-end-root DIR</code> serves ComfyUI's frontend here.</p></body></html>\n";

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

static at_status root(at_server *s, at_request *rq, at_response *rs)
{
    at_response_header(rs, "Cache-Control", "no-cache");
    at_response_header(rs, "Pragma", "no-cache");
    at_response_header(rs, "Expires", "0");
    if (s->page_dir) return serve_file(s, rq, rs, "index.html");
    return at_reply_bytes(rs, "text/html; charset=utf-8", at_strdup(house_page),
                          sizeof house_page - 1);
}

static at_status any(at_server *s, at_request *rq, at_response *rs)
{
    return serve_file(s, rq, rs, rq->param[0]);
}

const at_route at_routes_page[] = {
    {AT_HTTP_GET, "/", root, true},
    {AT_HTTP_GET, "/{*}", any, true},
    {0},
};
