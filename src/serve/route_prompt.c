// SPDX-License-Identifier: Apache-2.0
// route_prompt.c - submitting, queue, history, interrupt, free.
// Idea: a prompt is checked here, on the loop thread, so that the answer holds every error; what is accepted is
// text in the queue's table.
// Easy to get wrong: the counter goes up with every prompt that brings no number, also with one that is refused; one
// good output is enough to be accepted.
// Source: comfyui-contract 1.1 and 1.2; ComfyUI 0.3.64, behaviour of server.py.
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "flow/python.h"
#include "serve/server.h"

static at_status remaining(at_server *s, at_request *rq, at_response *rs)
{
    (void)rq;
    return at_reply_json(rs, 200,
                         json_pack("{s:{s:I}}", "exec_info", "queue_remaining",
                                   (json_int_t)at_queue_remaining(s->queue)));
}

// --- POST /prompt ------------------------------------------------------------------------------------
typedef struct submission {
    json_t *body, *extra;
    json_t *number;
    double order;
    char *id, *client_id;
    at_graph *graph;
    at_check_result check;
    const char **targets; // NULL: all outputs
    size_t target_count;
} submission;

static void submission_free(submission *p)
{
    at_check_result_free(&p->check);
    at_graph_free(p->graph);
    json_decref(p->extra);
    json_decref(p->number);
    json_decref(p->body);
    at_free(p->id);
    at_free(p->client_id);
    at_free(p->targets);
}

static char *python_str(const json_t *v)
{
    at_str s = {0};
    at_py_str(&s, v);
    return at_str_take(&s);
}

// float(body["number"]), or the counter, negative for the front.
static at_status read_number(at_server *s, submission *p)
{
    const json_t *given = json_object_get(p->body, "number");
    at_pyerr e = {0};
    long double value = 0;

    if (given) {
        at_status st = at_py_float(given, &p->number, &e);
        if (st == AT_EINVAL) st = at_fail(AT_EINVAL, "number: %s", e.text);
        at_pyerr_clear(&e);
        if (st != AT_OK) return st;
    } else {
        int64_t n = at_queue_count(s->queue);
        if (at_py_truth(json_object_get(p->body, "front"))) n = -n;
        p->number = json_integer(n);
    }
    if (!p->number || !at_py_number(p->number, &value) || isnan(value))
        return at_fail(p->number ? AT_EINVAL : AT_ENOMEM, "number: a number is wanted");
    p->order = (double)value;
    return AT_OK;
}

static at_status read_targets(submission *p)
{
    const json_t *list = json_object_get(p->body, "partial_execution_targets");
    if (!json_is_array(list)) return AT_OK; // null: all
    p->targets = at_calloc(json_array_size(list) + 1, sizeof *p->targets);
    if (!p->targets) return at_fail(AT_ENOMEM, "no memory for the targets");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *id = json_string_value(json_array_get(list, i));
        if (id) p->targets[p->target_count++] = id;
    }
    return AT_OK;
}

// extra_data with the client's id; what is secret in it is not kept.
static at_status read_extra(submission *p)
{
    json_t *extra = json_object_get(p->body, "extra_data");
    json_t *client = json_object_get(p->body, "client_id");
    json_t *id = json_object_get(p->body, "prompt_id");
    char made[37];

    p->extra = json_is_object(extra) ? json_copy(extra) : json_object();
    if (!p->extra) return at_fail(AT_ENOMEM, "no memory for extra_data");
    json_object_del(p->extra, "auth_token_comfy_org");
    json_object_del(p->extra, "api_key_comfy_org");
    if (client) json_object_set(p->extra, "client_id", client);
    client = json_object_get(p->extra, "client_id");
    if (at_json_is_text(client)) p->client_id = at_strdup(json_string_value(client));
    at_uuid(made, true);
    p->id = id && !json_is_null(id) ? python_str(id) : at_strdup(made);
    return p->id ? AT_OK : at_fail(AT_ENOMEM, "no memory for a prompt");
}

static at_status refuse(at_response *rs, const at_check_result *check)
{
    return at_reply_json(
        rs, 400, json_pack("{s:O, s:O}", "error", check->error, "node_errors", check->node_errors));
}

// A prompt that is no object of nodes: ComfyUI fails inside; we say what is wrong.
static at_status refuse_shape(at_response *rs)
{
    return at_reply_json(rs, 400,
                         json_pack("{s:{s:s, s:s, s:s, s:{}}, s:{}}", "error", "type",
                                   "invalid_prompt", "message", at_error_text(), "details", "",
                                   "extra_info", "node_errors"));
}

static at_status try_later(at_response *rs, int status, const char *type)
{
    at_response_header(rs, "Retry-After", "10");
    return at_reply_json(rs, status,
                         json_pack("{s:{s:s, s:s, s:s, s:{}}, s:{}}", "error", "type", type,
                                   "message", at_error_text(), "details", "", "extra_info",
                                   "node_errors"));
}

static at_status accept_job(at_server *s, const at_request *rq, submission *p, at_response *rs)
{
    at_status st = AT_OK;
    json_t *outputs = json_array();
    char *number = at_json_dump(p->number, 0), *targets = NULL, *extra = NULL;
    char *prompt = at_json_dump(at_graph_json(p->graph), 0);

    for (size_t i = 0; i < p->check.output_count; i++)
        json_array_append_new(outputs, json_string_nocheck(p->check.outputs[i]));
    targets = outputs ? at_json_dump(outputs, 0) : NULL;
    extra = at_json_dump(p->extra, 0);
    if (!number || !targets || !extra || !prompt) AT_TRY(at_fail(AT_ENOMEM, "no memory for a job"));
    st = at_queue_put(s->queue, &(at_queue_entry){.id = p->id,
                                                  .client_id = p->client_id,
                                                  .number = number,
                                                  .order = p->order,
                                                  .prompt = prompt,
                                                  .extra_data = extra,
                                                  .targets = targets,
                                                  .user = rq->user,
                                                  .most_of_user = s->config->queue_limit});
    if (st == AT_EUNSUPPORTED) {
        st = try_later(rs, 429, "queue_full");
        goto out;
    }
    if (st == AT_EIO) { // a full disk, as a rule
        at_log(AT_ERROR, "QUEUE-PUT", "%s", at_error_text());
        st = try_later(rs, 503, "storage");
        goto out;
    }
    AT_TRY(st);
    at_log(AT_DEBUG, "JOB-ACCEPTED", "%s of %s at %s", p->id, rq->user, rq->peer);
    st = at_reply_json(rs, 200,
                       json_pack("{s:s, s:O, s:O}", "prompt_id", p->id, "number", p->number,
                                 "node_errors", p->check.node_errors));
out:
    json_decref(outputs);
    at_free(number);
    at_free(targets);
    at_free(extra);
    at_free(prompt);
    return st;
}

static at_status submit(at_server *s, at_request *rq, at_response *rs)
{
    at_status st = AT_OK;
    submission p = {0};
    json_t *prompt;
    at_engine *e = s->engine;
    at_engine_view view = {0};

    if (atomic_load(&s->draining)) {
        at_response_header(rs, "Retry-After", "10");
        return at_reply_status(rs, 503);
    }
    AT_TRY(at_request_json(rq, &p.body));
    if (!json_is_object(p.body)) AT_TRY(at_fail(AT_EINVAL, "the body is no JSON object"));
    AT_TRY(read_number(s, &p));
    prompt = json_object_get(p.body, "prompt");
    if (!prompt) {
        AT_TRY(at_check_no_prompt(&p.check));
        st = refuse(rs, &p.check);
        goto out;
    }
    AT_TRY(read_extra(&p));
    AT_TRY(read_targets(&p));
    st = at_graph_from_json(prompt, at_engine_registry(e), &p.graph);
    if (st == AT_EWORKFLOW) {
        st = refuse_shape(rs);
        goto out;
    }
    AT_TRY(st);
    AT_TRY(at_engine_view_open(e, at_request_owner(s, rq), &view));
    AT_TRY(at_check(p.graph, at_engine_registry(e), &view.files, p.targets, p.target_count,
                    &view.env, &p.check));
    st = p.check.ok ? accept_job(s, rq, &p, rs) : refuse(rs, &p.check);
out:
    atomic_fetch_add(st == AT_OK && rs->status == 200 ? &s->metrics.accepted : &s->metrics.refused,
                     1);
    at_engine_view_close(&view);
    submission_free(&p);
    return st;
}

// --- queue and history -------------------------------------------------------------------------------
static at_status reply_str(at_response *rs, at_status st, at_str *text)
{
    if (st != AT_OK) {
        at_str_free(text);
        return st;
    }
    return at_reply_json_text(rs, 200, at_str_take(text));
}

static at_status write_text(int fd, const at_str *text, uint64_t *bytes)
{
    for (size_t at = 0; at < text->len;) {
        ssize_t n = write(fd, text->data + at, text->len - at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return at_fail(AT_EIO, "history: %s", strerror(errno));
        at += (size_t)n;
    }
    *bytes += text->len;
    return AT_OK;
}

// A list may be larger than memory: it goes, a part at a time, through a file that has no name.
typedef at_status part_fn(at_server *s, const at_request *rq, void *cursor, bool *more,
                          at_str *out);
static at_status reply_in_parts(at_server *s, const at_request *rq, at_response *rs, at_str *text,
                                const char *last, part_fn *part, void *cursor)
{
    at_status st = AT_OK;
    bool more = true;
    uint64_t bytes = 0;
    int fd = open(s->user_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    while (more) {
        AT_TRY(part(s, rq, cursor, &more, text));
        if (!more) at_str_append(text, last);
        if (text->failed) AT_TRY(at_fail(AT_ENOMEM, "no memory for a list"));
        if (fd < 0) continue; // a file system that has none such: in memory
        AT_TRY(write_text(fd, text, &bytes));
        at_str_clear(text);
    }
    if (fd < 0) return at_reply_json_text(rs, 200, at_str_take(text));
    at_reply_status(rs, 200);
    rs->type = "application/json; charset=utf-8";
    rs->file = fd;
    rs->is_file = true;
    rs->bytes = bytes;
    fd = -1;
out:
    if (fd >= 0) close(fd);
    at_str_free(text);
    return st;
}

static at_status history_part(at_server *s, const at_request *rq, void *cursor, bool *more,
                              at_str *out)
{
    return at_history_part(s->queue, at_request_scope(s, rq), cursor, more, out);
}

static at_status queue_part(at_server *s, const at_request *rq, void *cursor, bool *more,
                            at_str *out)
{
    return at_queue_part(s->queue, at_request_scope(s, rq), cursor, more, out);
}

static at_status show_queue(at_server *s, at_request *rq, at_response *rs)
{
    at_str text = {0};
    const char *max =
        at_request_query(rq, "max_items"); // ours: a page need not read ten thousand jobs
    int64_t most = max ? strtoll(max, NULL, 10) : -1;
    enum { MANY = 256 };
    if (most < 0 && at_queue_remaining(s->queue) > MANY) {
        at_queue_cursor c = {0};
        at_status st = at_queue_list(s->queue, at_request_scope(s, rq), 0, &text); // those that run
        if (st != AT_OK) return reply_str(rs, st, &text);
        while (text.len && text.data[text.len - 1] != '[')
            text.data[--text.len] = 0; // the empty list of those that wait begins here
        st = reply_in_parts(s, rq, rs, &text, "]}", queue_part, &c);
        at_free(c.id);
        return st;
    }
    at_status st = at_queue_list(s->queue, at_request_scope(s, rq), most, &text);
    return reply_str(rs, st, &text);
}

// {"clear": true, "delete": [ids]}
static at_status edit(at_server *s, const at_request *rq, at_response *rs,
                      at_status (*clear)(at_queue *, const char *user),
                      at_status (*drop)(at_queue *, const char *user, const char *id))
{
    const char *user = at_request_scope(s, rq);
    at_status st = AT_OK;
    json_t *body = NULL, *id;
    size_t i;

    AT_TRY(at_request_json(rq, &body));
    if (!json_is_object(body)) AT_TRY(at_fail(AT_EINVAL, "the body is no JSON object"));
    if (at_py_truth(json_object_get(body, "clear"))) AT_TRY(clear(s->queue, user));
    json_array_foreach(json_object_get(body, "delete"), i, id)
    {
        if (at_json_is_text(id)) AT_TRY(drop(s->queue, user, json_string_value(id)));
    }
    st = at_reply_status(rs, 200);
out:
    json_decref(body);
    return st;
}
static at_status edit_queue(at_server *s, at_request *rq, at_response *rs)
{
    return edit(s, rq, rs, at_queue_clear, at_queue_delete);
}
// Where users are kept apart the history that is edited is one's own; else it is everybody's.
static at_status edit_history(at_server *s, at_request *rq, at_response *rs)
{
    if (!at_request_scope(s, rq) && rq->role < AT_ROLE_ADMIN) return at_reply_status(rs, 403);
    return edit(s, rq, rs, at_history_clear, at_history_delete);
}

// int(text); false if it is none, where ComfyUI raises.
static bool whole(const char *text, int64_t *out)
{
    char *end = NULL;
    *out = strtoll(text, &end, 10);
    return end != text && !*end;
}

static at_status show_history(at_server *s, at_request *rq, at_response *rs)
{
    const char *max = at_request_query(rq, "max_items"), *from = at_request_query(rq, "offset");
    int64_t max_items = -1, offset = -1;
    at_str text = {0};

    if ((max && !whole(max, &max_items)) || (from && !whole(from, &offset)))
        return at_fail(AT_EINVAL, "max_items and offset are whole numbers");
    if (max_items < 0 && offset < 0) {
        int64_t after = 0;
        at_str_append(&text, "{");
        return reply_in_parts(s, rq, rs, &text, "}", history_part, &after);
    }
    at_status st = at_history_list(s->queue, at_request_scope(s, rq), max_items, offset, &text);
    return reply_str(rs, st, &text);
}

static at_status show_one(at_server *s, at_request *rq, at_response *rs)
{
    at_str text = {0};
    at_status st = at_history_one(s->queue, at_request_scope(s, rq), rq->param[0], &text);
    return reply_str(rs, st, &text);
}

// --- interrupt and free ------------------------------------------------------------------------------
static at_status interrupt(at_server *s, at_request *rq, at_response *rs)
{
    json_t *body = NULL, *id = NULL;
    if (at_request_json(rq, &body) == AT_OK) id = json_object_get(body, "prompt_id");
    const char *one = at_json_is_text(id) ? json_string_value(id) : ""; // no job is called that
    at_executor_interrupt(s->executor, at_request_scope(s, rq), at_py_truth(id) ? one : NULL);
    json_decref(body);
    return at_reply_status(rs, 200);
}

static at_status free_memory(at_server *s, at_request *rq, at_response *rs)
{
    json_t *body = NULL;
    at_status st = at_request_json(rq, &body);
    if (st != AT_OK) return st;
    if (at_py_truth(json_object_get(body, "unload_models")) ||
        at_py_truth(json_object_get(body, "free_memory")))
        at_executor_free_memory(s->executor);
    json_decref(body);
    return at_reply_status(rs, 200);
}

const at_route at_routes_prompt[] = {
    {AT_HTTP_GET, "/prompt", remaining, false},
    {AT_HTTP_POST, "/prompt", submit, false, AT_ROLE_NONE, true},
    {AT_HTTP_GET, "/queue", show_queue, true},
    {AT_HTTP_POST, "/queue", edit_queue, false},
    {AT_HTTP_GET, "/history", show_history, true},
    {AT_HTTP_GET, "/history/{}", show_one, false},
    {AT_HTTP_POST, "/history", edit_history, false},
    {AT_HTTP_POST, "/interrupt", interrupt, false},
    {AT_HTTP_POST, "/free", free_memory, false, AT_ROLE_ADMIN},
    {0},
};
