// SPDX-License-Identifier: Apache-2.0
// route_logs.c - the log's last lines for the frontend's terminal.
// Source: comfyui-contract 1.9.
#include "base/mem.h"
#include "base/str.h"
#include "flow/python.h"
#include "serve/journal.h"
#include "serve/server.h"

static at_status text(at_server *s, at_request *rq, at_response *rs)
{
    (void)rq;
    json_t *all = at_journal_entries(s->journal), *e;
    at_str lines = {0};
    size_t i;
    json_array_foreach(all, i, e)
        at_str_printf(&lines, "%s - %s", json_string_value(json_object_get(e, "t")),
                      json_string_value(json_object_get(e, "m")));
    at_status st = at_reply_json(rs, 200, json_string(at_str_text(&lines)));
    at_str_free(&lines);
    json_decref(all);
    return st;
}

static at_status raw(at_server *s, at_request *rq, at_response *rs)
{
    (void)rq;
    json_t *all = at_journal_entries(s->journal);
    return at_reply_json(
        rs, 200, json_pack("{s:o, s:{s:i, s:i}}", "entries", all, "size", "cols", 120, "rows", 40));
}

static at_status subscribe(at_server *s, at_request *rq, at_response *rs)
{
    json_t *body = NULL;
    at_status st = at_request_json(rq, &body);
    if (st != AT_OK) return st;
    const char *client = json_string_value(json_object_get(body, "clientId"));
    if (client)
        at_journal_subscribe(s->journal, at_request_owner(s, rq), client,
                             at_py_truth(json_object_get(body, "enabled")));
    json_decref(body);
    return client ? at_reply_status(rs, 200) : at_fail(AT_EINVAL, "clientId is missing");
}

const at_route at_routes_logs[] = {
    {AT_HTTP_GET, "/internal/logs", text, false, AT_ROLE_ADMIN},
    {AT_HTTP_GET, "/internal/logs/raw", raw, false, AT_ROLE_ADMIN},
    {AT_HTTP_PATCH, "/internal/logs/subscribe", subscribe, false, AT_ROLE_ADMIN},
    {0},
};
