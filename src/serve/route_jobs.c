// SPDX-License-Identifier: Apache-2.0
// route_jobs.c - /jobs of newer servers: queue and history as one list, with what each picture looks like.
// Source: comfyui-contract 1.3.
// Easy to get wrong: members that have no value are left out, not null; a preview is the first thing that can be seen,
// saved files before temporary ones, text last.
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "serve/jobs.h"
#include "serve/server.h"

// --- what a job shows --------------------------------------------------------------------------------
typedef struct shown {
    int64_t count, previewable;
    json_t *best; // new reference
    int rank;     // of best: 3 saved picture, 2 other picture, 1 text; 0 none
} shown;

static bool one_of(const char *text, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (at_equal_nocase(text, list[i])) return true;
    return false;
}

// 3 for what can be seen or heard, 1 for text, 0 for the rest.
static int media_rank(const char *key, const json_t *item)
{
    static const char *const media[] = {"images", "video", "audio", "3d"};
    static const char *const solid[] = {".obj", ".fbx", ".gltf", ".glb", ".usdz"};
    static const char *const words[] = {".txt", ".json", ".md", ".csv", ".log"};
    const char *format = json_string_value(json_object_get(item, "format"));
    const char *name = json_string_value(json_object_get(item, "filename"));
    const char *ext = name ? at_path_ext(name) : "";

    if (one_of(key, media, 4)) return 3;
    if (format && (at_starts_with(format, "video/") || at_starts_with(format, "audio/"))) return 3;
    if (one_of(ext, solid, 5)) return 3;
    return strcmp(key, "text") == 0 || one_of(ext, words, 5) ? 1 : 0;
}

static json_t *preview_of(const char *node, const char *key, const json_t *item)
{
    json_t *p = NULL;
    if (json_is_object(item)) {
        p = json_copy((json_t *)item);
    } else if (at_json_is_text(item) && strcmp(key, "text") == 0) {
        size_t n = strlen(json_string_value(item)), most = 1024;
        while (n > most && (json_string_value(item)[most] & 0xC0) == 0x80)
            most--; // not inside a character
        p = json_pack("{s:o}", "content",
                      json_stringn(json_string_value(item), n < most ? n : most));
        if (p && n > most) json_object_set_new(p, "truncated", json_true());
    }
    if (p) json_object_set_new(p, "nodeId", json_string(node));
    if (p) json_object_set_new(p, "mediaType", json_string(key));
    return p;
}

static void look_at_item(shown *s, const char *node, const char *key, const json_t *item)
{
    int rank = media_rank(key, item);
    const char *type = json_string_value(json_object_get(item, "type"));

    s->count++;
    if (!rank) return;
    s->previewable++;
    if (rank == 3 && !(type && strcmp(type, "output") == 0)) rank = 2;
    if (rank <= s->rank) return;
    json_t *p = preview_of(node, key, item);
    if (!p) return;
    json_decref(s->best);
    s->best = p;
    s->rank = rank;
}

static void look(shown *s, const json_t *outputs)
{
    const char *node, *key;
    json_t *ui, *list, *item;
    size_t i;
    json_object_foreach((json_t *)outputs, node, ui) json_object_foreach(ui, key, list)
    {
        if (strcmp(key, "animated") == 0) continue;
        json_array_foreach(list, i, item) look_at_item(s, node, key, item);
    }
}

// --- one job -----------------------------------------------------------------------------------------
static json_t *parsed(const char *text)
{
    json_t *v = NULL;
    return *text && at_json_load("job", text, strlen(text), &v) == AT_OK ? v : NULL;
}

static json_t *error_of(const json_t *status)
{
    size_t i;
    json_t *message;
    json_array_foreach(json_object_get(status, "messages"), i, message)
    {
        const char *type = json_string_value(json_array_get(message, 0));
        if (type && strcmp(type, "execution_error") == 0)
            return json_incref(json_array_get(message, 1));
    }
    return NULL;
}

static void set(json_t *o, const char *key, json_t *value)
{
    if (value) json_object_set_new(o, key, value);
}

static json_t *time_json(int64_t ms)
{
    return ms ? json_integer(ms) : NULL;
}

static json_t *job_json(const at_job_row *row, bool whole)
{
    json_t *outputs = parsed(row->outputs), *status = parsed(row->history_status);
    json_t *extra = parsed(row->extra_data), *job = json_object();
    json_t *workflow =
        json_object_get(json_object_get(json_object_get(extra, "extra_pnginfo"), "workflow"), "id");
    shown s = {0};

    look(&s, outputs);
    set(job, "id", json_string(row->id));
    set(job, "status", json_string(row->status));
    set(job, "priority", parsed(row->number));
    set(job, "create_time", json_integer(row->created_ms));
    set(job, "execution_start_time", time_json(row->started_ms));
    set(job, "execution_end_time", time_json(row->ended_ms));
    set(job, "execution_error", error_of(status));
    set(job, "outputs_count", json_integer(s.count));
    if (outputs) set(job, "previewable_outputs_count", json_integer(s.previewable));
    set(job, "preview_output", s.best);
    if (json_is_string(workflow)) set(job, "workflow_id", json_incref(workflow));
    if (whole) {
        set(job, "outputs", outputs ? json_incref(outputs) : json_object());
        set(job, "execution_status", status ? json_incref(status) : json_object());
        set(job, "workflow",
            json_pack("{s:o?, s:O?}", "prompt", parsed(row->prompt), "extra_data", extra));
    }
    json_decref(outputs);
    json_decref(status);
    json_decref(extra);
    return job;
}

// --- the list ----------------------------------------------------------------------------------------
static at_status add_job(void *ctx, const at_job_row *row)
{
    return json_array_append_new(ctx, job_json(row, false)) == 0
               ? AT_OK
               : at_fail(AT_ENOMEM, "jobs: no memory");
}

static at_status wrong(at_response *rs, const char *text)
{
    return at_reply_json(rs, 400, json_pack("{s:s}", "error", text));
}

// "pending,failed" as ",pending,failed,"; NULL and *bad if a word is none.
static char *read_statuses(const char *text, bool *bad)
{
    static const char *const known[] = {"pending", "in_progress", "completed", "failed",
                                        "cancelled"};
    at_str s = {0};
    *bad = false;
    at_str_append(&s, ",");
    while (*text) {
        char word[16];
        size_t n = strcspn(text, ",");
        snprintf(word, sizeof word, "%.*s", (int)n, text);
        if (n && !one_of(word, known, 5)) *bad = true;
        if (n) at_str_printf(&s, "%s,", word);
        text += n + (text[n] == ',');
    }
    return at_str_take(&s);
}

static bool whole(const char *text, int64_t *out)
{
    char *end = NULL;
    *out = strtoll(text, &end, 10);
    return end != text && !*end;
}

static at_status list(at_server *s, at_request *rq, at_response *rs)
{
    at_status st = AT_OK;
    at_jobs_filter f = {.workflow = at_request_query(rq, "workflow_id"),
                        .user = at_request_scope(s, rq),
                        .limit = -1};
    const char *statuses = at_request_query(rq, "status"), *limit = at_request_query(rq, "limit");
    const char *by = at_request_query(rq, "sort_by"), *order = at_request_query(rq, "sort_order");
    const char *offset = at_request_query(rq, "offset");
    char *words = NULL;
    bool bad = false;
    int64_t total = 0;
    json_t *jobs = json_array();

    if (statuses && *statuses) f.statuses = words = read_statuses(statuses, &bad);
    if (bad)
        st = wrong(rs,
                   "status: one of pending, in_progress, completed, failed, cancelled is wanted");
    else if (by && strcmp(by, "created_at") != 0 && strcmp(by, "execution_duration") != 0)
        st = wrong(rs, "sort_by: created_at or execution_duration is wanted");
    else if (order && strcmp(order, "asc") != 0 && strcmp(order, "desc") != 0)
        st = wrong(rs, "sort_order: asc or desc is wanted");
    else if (limit && (!whole(limit, &f.limit) || f.limit < 1))
        st = wrong(rs, "limit: a whole number above 0 is wanted");
    else if (offset && !whole(offset, &f.offset))
        st = wrong(rs, "offset: a whole number is wanted");
    if (rs->status) goto out;
    if (f.offset < 0) f.offset = 0;
    f.by_duration = by && *by == 'e';
    f.ascending = order && *order == 'a';
    AT_TRY(at_jobs_list(s->queue, &f, add_job, jobs, &total));
    int64_t here = (int64_t)json_array_size(jobs);
    st = at_reply_json(rs, 200,
                       json_pack("{s:O, s:{s:I, s:o, s:I, s:b}}", "jobs", jobs, "pagination",
                                 "offset", (json_int_t)f.offset, "limit",
                                 f.limit < 0 ? json_null() : json_integer(f.limit), "total",
                                 (json_int_t)total, "has_more", f.offset + here < total));
out:
    json_decref(jobs);
    at_free(words);
    return st;
}

static at_status take_job(void *ctx, const at_job_row *row)
{
    *(json_t **)ctx = job_json(row, true);
    return AT_OK;
}

static at_status one(at_server *s, at_request *rq, at_response *rs)
{
    json_t *job = NULL;
    int64_t total = 0;
    at_jobs_filter f = {.id = rq->param[0], .user = at_request_scope(s, rq), .limit = 1};
    at_status st = at_jobs_list(s->queue, &f, take_job, &job, &total);
    if (st != AT_OK) return st;
    if (job) return at_reply_json(rs, 200, job);
    return at_reply_json(rs, 404, json_pack("{s:s}", "error", "Job not found"));
}

// --- cancelling --------------------------------------------------------------------------------------
static bool cancel_job(at_server *s, const char *user, const char *id)
{
    size_t before = at_queue_remaining(s->queue);
    if (at_executor_interrupt(s->executor, user, id)) return true;
    return at_queue_delete(s->queue, user, id) == AT_OK && at_queue_remaining(s->queue) < before;
}

static at_status cancel(at_server *s, at_request *rq, at_response *rs)
{
    return at_reply_json(
        rs, 200,
        json_pack("{s:b}", "cancelled", (int)cancel_job(s, at_request_scope(s, rq), rq->param[0])));
}

static at_status cancel_many(at_server *s, at_request *rq, at_response *rs)
{
    json_t *body = NULL, *ids, *id;
    size_t i;
    bool any = false;
    at_status st = AT_OK;

    if (at_request_json(rq, &body) != AT_OK ||
        !json_is_array(ids = json_object_get(body, "job_ids"))) {
        st = wrong(rs, "job_ids: a list of ids is wanted");
        goto out;
    }
    json_array_foreach(ids, i, id)
    {
        if (!at_json_is_text(id)) {
            st = at_reply_json(
                rs, 400,
                json_pack("{s:s, s:[O]}", "error", "job_ids: not an id", "invalid_ids", id));
            goto out;
        }
    }
    json_array_foreach(ids, i, id) any =
        cancel_job(s, at_request_scope(s, rq), json_string_value(id)) || any;
    st = at_reply_json(rs, 200, json_pack("{s:b}", "cancelled", (int)any));
out:
    json_decref(body);
    return st;
}

// Ours, not ComfyUI's: {"before": ID} or {"before": null} for the end of the queue.
static at_status move(at_server *s, at_request *rq, at_response *rs)
{
    json_t *body = NULL, *before = NULL;
    at_status st = at_request_json(rq, &body);

    if (st == AT_OK) before = json_object_get(body, "before");
    if (!before || (!json_is_null(before) && !at_json_is_text(before))) {
        st = wrong(rs, "before: the id of a waiting job or null is wanted");
    } else {
        st = at_queue_move(s->queue, at_request_scope(s, rq), rq->param[0],
                           json_string_value(before));
        if (st == AT_OK)
            st = at_reply_json(rs, 200, json_pack("{s:b}", "moved", 1));
        else if (st == AT_ENOTFOUND || st == AT_EINVAL)
            st = at_reply_json(rs, st == AT_ENOTFOUND ? 404 : 409,
                               json_pack("{s:s}", "error", at_error_text()));
    }
    json_decref(body);
    return st;
}

static at_status nothing(at_server *s, at_request *rq, at_response *rs)
{
    (void)s, (void)rq;
    return at_reply_json(rs, 200, json_object());
}
static at_status null(at_server *s, at_request *rq, at_response *rs)
{
    (void)s, (void)rq;
    return at_reply_json(rs, 200, json_null());
}

const at_route at_routes_jobs[] = {
    {AT_HTTP_GET, "/jobs", list, true},
    {AT_HTTP_POST, "/jobs/cancel", cancel_many, false},
    {AT_HTTP_POST, "/jobs/{}/cancel", cancel, false},
    {AT_HTTP_POST, "/jobs/{}/move", move, false},
    {AT_HTTP_GET, "/jobs/{}", one, true},
    {AT_HTTP_GET, "/global_subgraphs", nothing, false}, // none are brought along
    {AT_HTTP_GET, "/global_subgraphs/{}", null, false},
    {AT_HTTP_GET, "/node_replacements", nothing, false},
    {0},
};
