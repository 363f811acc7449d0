// SPDX-License-Identifier: Apache-2.0
// submit.c - POST /prompt; see submit.h.
// Easy to get wrong: the counter goes up with every prompt that brings no number, also with one that is refused; one
// good output is enough to be accepted.
// Source: comfyui-contract 1.1 and 1.2; ComfyUI 0.3.64, behaviour of server.py.
#include "serve/submit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "flow/python.h"
#include "serve/repeat.h"

struct at_submission {
    json_t *body, *extra;
    json_t *number;
    double order;
    char *id, *client_id;
    at_graph *graph;
    at_check_result check;
    const char **targets; // NULL: all outputs
    size_t target_count;
    char *number_text, *targets_text, *extra_text, *prompt, *node_errors;
    size_t from, to; // where the prompt stands in the body; to 0: not known
};

void at_submission_free(at_submission *p)
{
    if (!p) return;
    at_check_result_free(&p->check);
    at_graph_free(p->graph);
    json_decref(p->extra);
    json_decref(p->number);
    json_decref(p->body);
    at_free(p->id);
    at_free(p->client_id);
    at_free(p->targets);
    at_free(p->number_text);
    at_free(p->targets_text);
    at_free(p->extra_text);
    at_free(p->prompt);
    at_free(p->node_errors);
    at_free(p);
}

static char *python_str(const json_t *v)
{
    at_str s = {0};
    at_py_str(&s, v);
    return at_str_take(&s);
}

// float(body["number"]), or the counter, negative for the front.
static at_status read_number(at_server *s, at_submission *p)
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

static at_status read_targets(at_submission *p)
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
static at_status read_extra(at_submission *p)
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
    if (!id || json_is_null(id)) at_uuid_of_job(made);
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

// What the queue keeps, as text.
static at_status write_texts(at_submission *p)
{
    json_t *outputs = p->prompt ? NULL : json_array();

    p->number_text = at_json_dump(p->number, 0);
    p->extra_text = at_json_dump(p->extra, 0);
    if (p->prompt)
        return p->number_text && p->extra_text ? AT_OK : at_fail(AT_ENOMEM, "no memory for a job");
    for (size_t i = 0; i < p->check.output_count; i++)
        json_array_append_new(outputs, json_string_nocheck(p->check.outputs[i]));
    p->prompt = at_json_dump(at_graph_json(p->graph), 0);
    p->targets_text = outputs ? at_json_dump(outputs, 0) : NULL;
    p->node_errors = at_json_dump(p->check.node_errors, 0);
    json_decref(outputs);
    return p->number_text && p->prompt && p->targets_text && p->extra_text && p->node_errors
               ? AT_OK
               : at_fail(AT_ENOMEM, "no memory for a job");
}

static at_status check(at_server *s, const at_request *rq, at_submission *p, json_t *prompt)
{
    at_status st = AT_OK;
    at_engine *e = s->engine;
    at_engine_view view = {0};

    AT_TRY(at_graph_from_json(prompt, at_engine_registry(e), &p->graph));
    AT_TRY(at_engine_view_open(e, at_request_owner(s, rq), &view));
    AT_TRY(at_check(p->graph, at_engine_registry(e), &view.files, p->targets, p->target_count,
                    &view.env, &p->check));
out:
    at_engine_view_close(&view);
    return st;
}

// What an equal prompt became, as this one's texts. False: none is known, or there is no memory.
static bool take_known(at_submission *p, const at_repeat_of *known)
{
    p->prompt = at_strdup(known->prompt);
    p->targets_text = at_strdup(known->targets);
    p->node_errors = at_strdup(known->node_errors);
    return p->prompt && p->targets_text && p->node_errors;
}

// The body; without its prompt where that is known and wanted whole.
static at_status read_body(at_server *s, const at_request *rq, at_submission *p)
{
    const at_repeat_of *known = NULL;
    at_str rest = {0};

    if (rq->body && at_repeats_member(rq->body, rq->bytes, "prompt", &p->from, &p->to))
        known = at_repeats_find(s->repeats, rq->body + p->from, p->to - p->from);
    if (!known) return at_request_json(rq, &p->body);
    at_str_append_n(&rest, rq->body, p->from);
    at_str_append(&rest, "null");
    at_str_append_n(&rest, rq->body + p->to, rq->bytes - p->to);
    bool whole = !rest.failed && at_json_load("body", rest.data, rest.len, &p->body) == AT_OK &&
                 !json_is_array(json_object_get(p->body, "partial_execution_targets"));
    at_str_free(&rest);
    if (whole && take_known(p, known)) return AT_OK;
    json_decref(p->body); // the plain way knows what is wrong
    p->body = NULL;
    at_free(p->prompt);
    p->prompt = NULL;
    return at_request_json(rq, &p->body);
}

static void remember(at_server *s, const at_request *rq, const at_submission *p)
{
    if (!p->to || !p->graph || !p->check.pure || p->targets) return;
    at_repeat_of made = {p->prompt, p->targets_text, p->node_errors};
    at_repeats_keep(s->repeats, rq->body + p->from, p->to - p->from, &made);
}

// Answers what is refused; *good: it is to be accepted.
static at_status examine(at_server *s, at_request *rq, at_response *rs, at_submission *p,
                         bool *good)
{
    at_status st = AT_OK;
    json_t *prompt;

    AT_TRY(read_body(s, rq, p));
    if (!json_is_object(p->body)) AT_TRY(at_fail(AT_EINVAL, "the body is no JSON object"));
    AT_TRY(read_number(s, p));
    prompt = json_object_get(p->body, "prompt");
    if (!prompt) {
        AT_TRY(at_check_no_prompt(&p->check));
        return refuse(rs, &p->check);
    }
    AT_TRY(read_extra(p));
    AT_TRY(read_targets(p));
    st = p->prompt ? AT_OK : check(s, rq, p, prompt);
    if (st == AT_EWORKFLOW && !p->graph) return refuse_shape(rs);
    AT_TRY(st);
    if (!p->prompt && !p->check.ok) return refuse(rs, &p->check);
    AT_TRY(write_texts(p));
    remember(s, rq, p);
    *good = true;
out:
    return st;
}

at_status at_submit(at_server *s, at_request *rq, at_response *rs)
{
    bool good = false;
    at_status st;

    if (atomic_load(&s->draining)) {
        at_response_header(rs, "Retry-After", "10");
        return at_reply_status(rs, 503);
    }
    at_submission *p = at_calloc(1, sizeof *p);
    st = p ? examine(s, rq, rs, p, &good) : at_fail(AT_ENOMEM, "no memory for a prompt");
    if (st == AT_OK && good) {
        rs->held = p;
        return AT_OK;
    }
    atomic_fetch_add(&s->metrics.refused, 1);
    at_submission_free(p);
    return st;
}

// --- the end of a turn -------------------------------------------------------------------------------
typedef struct turn {
    at_server *server;
    const at_held *all;
} turn;

static at_status answer(const at_held *h, const at_submission *p, at_status st)
{
    if (st == AT_EUNSUPPORTED) return try_later(h->rs, 429, "queue_full");
    if (st == AT_EIO) { // a full disk, as a rule
        at_log(AT_ERROR, "QUEUE-PUT", "%s", at_error_text());
        return try_later(h->rs, 503, "storage");
    }
    if (st != AT_OK) return st;
    at_log(AT_DEBUG, "JOB-ACCEPTED", "%s of %s at %s", p->id, h->rq->user, h->rq->peer);
    json_t *id = json_string(p->id);
    at_str text = {0};
    at_str_append(&text, "{\"prompt_id\": ");
    if (id) at_json_append(&text, id, 0);
    at_str_append(&text, ", \"number\": ");
    at_str_append(&text, p->number_text);
    at_str_append(&text, ", \"node_errors\": ");
    at_str_append(&text, p->node_errors);
    at_str_append(&text, "}");
    text.failed = text.failed || !id;
    json_decref(id);
    return at_reply_json_text(h->rs, 200, at_str_take(&text));
}

static void told(void *ctx, size_t i, at_status st)
{
    turn *t = ctx;
    const at_held *h = &t->all[i];
    at_submission *p = h->rs->held;
    at_metrics *m = &t->server->metrics;

    h->rs->held = NULL;
    atomic_fetch_add(st == AT_OK ? &m->accepted : &m->refused, 1);
    at_status done = answer(h, p, st);
    at_route_dress(t->server, h->rq, h->rs, done);
    at_submission_free(p);
}

void at_submit_commit(at_server *s, const at_held *all, size_t n)
{
    at_queue_entry few[64], *entries = n > 64 ? at_alloc(n * sizeof *entries) : few;
    turn t = {s, all};

    for (size_t i = 0; entries && i < n; i++) {
        const at_submission *p = all[i].rs->held;
        entries[i] = (at_queue_entry){.id = p->id,
                                      .client_id = p->client_id,
                                      .number = p->number_text,
                                      .order = p->order,
                                      .prompt = p->prompt,
                                      .extra_data = p->extra_text,
                                      .targets = p->targets_text,
                                      .user = all[i].rq->user,
                                      .most_of_user = s->config->queue_limit};
    }
    if (entries) at_queue_put_all(s->queue, entries, n, told, &t);
    for (size_t i = 0; !entries && i < n; i++)
        told(&t, i, at_fail(AT_ENOMEM, "no memory for a turn's jobs"));
    if (entries != few) at_free(entries);
}
