// SPDX-License-Identifier: Apache-2.0
// route_prompt.c - the queue, the history, interrupt, free; submitting is in submit.c.
// Source: comfyui-contract 1.1 and 1.2; ComfyUI 0.3.64, behaviour of server.py.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "flow/python.h"
#include "serve/submit.h"

static at_status remaining(at_server *s, at_request *rq, at_response *rs)
{
    (void)rq;
    return at_reply_json(rs, 200,
                         json_pack("{s:{s:I}}", "exec_info", "queue_remaining",
                                   (json_int_t)at_queue_remaining(s->queue)));
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
    {AT_HTTP_POST, "/prompt", at_submit, false, AT_ROLE_NONE, true},
    {AT_HTTP_GET, "/queue", show_queue, true},
    {AT_HTTP_POST, "/queue", edit_queue, false},
    {AT_HTTP_GET, "/history", show_history, true},
    {AT_HTTP_GET, "/history/{}", show_one, false},
    {AT_HTTP_POST, "/history", edit_history, false},
    {AT_HTTP_POST, "/interrupt", interrupt, false},
    {AT_HTTP_POST, "/free", free_memory, false, AT_ROLE_ADMIN},
    {0},
};
