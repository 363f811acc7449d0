// SPDX-License-Identifier: Apache-2.0
// route_usage.c - /usage: what users' jobs cost, day by day; /usage/{id}: what one job cost.
// Easy to get wrong: a name that begins with '=', '+', '-' or '@' is a formula to a spreadsheet; a token's name never does,
// and other names are quoted behind an apostrophe.
#include <string.h>

#include "base/mem.h"
#include "serve/queue_impl.h"
#include "serve/server.h"

typedef struct period {
    const char *from, *to, *user; // NULL: no bound
} period;

// "2026-01-31", as text that orders as days do.
static bool is_day(const char *text)
{
    static const char form[] = "0000-00-00";
    if (strlen(text) != sizeof form - 1) return false;
    for (size_t i = 0; form[i]; i++)
        if (form[i] == '-' ? text[i] != '-' : text[i] < '0' || text[i] > '9') return false;
    return true;
}

// Each row of the table through `each`, under the queue's lock.
static at_status rows(at_queue *q, const period *p, at_status (*each)(void *ctx, sqlite3_stmt *row),
                      void *ctx)
{
    at_status st = AT_OK;
    sqlite3_stmt *s = NULL;
    int code = SQLITE_DONE;

    pthread_mutex_lock(&q->lock);
    if (sqlite3_prepare_v2(q->db,
                           "SELECT * FROM usage WHERE (?1 IS NULL OR day >= ?1) AND (?2 IS NULL OR"
                           " day <= ?2) AND (?3 IS NULL OR user = ?3) ORDER BY day, user",
                           -1, &s, NULL) != SQLITE_OK)
        AT_TRY(at_sql_fail(q, "reading the usage"));
    at_sql_text(s, 1, p->from);
    at_sql_text(s, 2, p->to);
    at_sql_text(s, 3, p->user);
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        AT_TRY(each(ctx, s));
    if (code != SQLITE_DONE) st = at_sql_fail(q, "reading the usage");
out:
    sqlite3_finalize(s);
    pthread_mutex_unlock(&q->lock);
    return st;
}

enum { DAY, USER, JOBS, FAILED, WAITED, SECONDS, JOULES, FIRST_STAGE };

static at_status add_json(void *ctx, sqlite3_stmt *s)
{
    json_t *stages = json_object();
    for (int i = 0; i < AT_STAGES; i++)
        json_object_set_new(stages, at_stage_name(i),
                            json_real(sqlite3_column_double(s, FIRST_STAGE + i)));
    json_t *row = json_pack(
        "{s:s, s:s, s:I, s:I, s:f, s:f, s:o, s:o}", "day", at_sql_column(s, DAY), "user",
        at_sql_column(s, USER), "jobs", (json_int_t)sqlite3_column_int64(s, JOBS), "failed",
        (json_int_t)sqlite3_column_int64(s, FAILED), "waited", sqlite3_column_double(s, WAITED),
        "device_seconds", sqlite3_column_double(s, SECONDS), "joules",
        sqlite3_column_type(s, JOULES) == SQLITE_NULL ? json_null()
                                                      : json_real(sqlite3_column_double(s, JOULES)),
        "stages", stages);
    return row && json_array_append_new(ctx, row) == 0 ? AT_OK
                                                       : at_fail(AT_ENOMEM, "usage: no memory");
}

// RFC 4180: quotes are doubled.
static void add_quoted(at_str *text, const char *field)
{
    at_str_append(text, strchr("=+-@\t\r", *field) && *field ? "\"'" : "\"");
    for (; *field; field++)
        at_str_append_n(text, *field == '"' ? "\"\"" : field, *field == '"' ? 2 : 1);
    at_str_append(text, "\"");
}

static at_status add_csv(void *ctx, sqlite3_stmt *s)
{
    at_str *text = ctx;
    at_str_printf(text, "%s,", at_sql_column(s, DAY));
    add_quoted(text, at_sql_column(s, USER));
    at_str_printf(text, ",%lld,%lld,%.3f,%.3f,", (long long)sqlite3_column_int64(s, JOBS),
                  (long long)sqlite3_column_int64(s, FAILED), sqlite3_column_double(s, WAITED),
                  sqlite3_column_double(s, SECONDS));
    if (sqlite3_column_type(s, JOULES) != SQLITE_NULL)
        at_str_printf(text, "%.1f", sqlite3_column_double(s, JOULES));
    for (int i = 0; i < AT_STAGES; i++)
        at_str_printf(text, ",%.3f", sqlite3_column_double(s, FIRST_STAGE + i));
    at_str_append(text, "\r\n");
    return text->failed ? at_fail(AT_ENOMEM, "usage: no memory") : AT_OK;
}

static at_status reply_csv(at_server *s, const period *p, at_response *rs)
{
    at_str text = {0};
    at_str_append(&text, "day,user,jobs,failed,waited_s,device_s,joules");
    for (int i = 0; i < AT_STAGES; i++)
        at_str_printf(&text, ",%s_s", at_stage_name(i));
    at_str_append(&text, "\r\n");
    at_status st = rows(s->queue, p, add_csv, &text);
    size_t n = text.len;
    char *body = at_str_take(&text);
    if (st == AT_OK) return at_reply_bytes(rs, "text/csv; charset=utf-8", body, n);
    at_free(body);
    return st;
}

static at_status usage(at_server *s, at_request *rq, at_response *rs)
{
    const char *format = at_request_query(rq, "format"), *scope = at_request_scope(s, rq);
    period p = {.from = at_request_query(rq, "from"),
                .to = at_request_query(rq, "to"),
                .user = scope ? scope : at_request_query(rq, "user")};

    if ((p.from && !is_day(p.from)) || (p.to && !is_day(p.to)))
        return at_reply_json(rs, 400,
                             json_pack("{s:s}", "error", "from, to: a day is wanted: 2026-01-31"));
    if (format && strcmp(format, "csv") == 0) return reply_csv(s, &p, rs);
    json_t *all = json_array();
    at_status st = rows(s->queue, &p, add_json, all);
    if (st == AT_OK) return at_reply_json(rs, 200, json_pack("{s:o}", "usage", all));
    json_decref(all);
    return st;
}

static at_status one(at_server *s, at_request *rq, at_response *rs)
{
    at_queue *q = s->queue;
    sqlite3_stmt *row = NULL;
    at_status st = AT_OK;

    pthread_mutex_lock(&q->lock);
    if (sqlite3_prepare_v2(
            q->db,
            "SELECT user, cost FROM jobs WHERE id = ?1 AND cost IS NOT NULL AND (?2 IS"
            " NULL OR user = ?2) ORDER BY done DESC LIMIT 1",
            -1, &row, NULL) != SQLITE_OK)
        AT_TRY(at_sql_fail(q, "reading the usage"));
    at_sql_text(row, 1, rq->param[0]);
    at_sql_text(row, 2, at_request_scope(s, rq));
    if (sqlite3_step(row) == SQLITE_ROW) {
        json_t *cost = NULL;
        const char *text = at_sql_column(row, 1);
        AT_TRY(at_json_load("cost", text, strlen(text), &cost));
        json_object_set_new(cost, "user", json_string(at_sql_column(row, 0)));
        json_object_set_new(cost, "prompt_id", json_string(rq->param[0]));
        st = at_reply_json(rs, 200, cost);
    } else {
        st = at_reply_json(rs, 404, json_pack("{s:s}", "error", "Job not found"));
    }
out:
    sqlite3_finalize(row);
    pthread_mutex_unlock(&q->lock);
    return st;
}

const at_route at_routes_usage[] = {
    {AT_HTTP_GET, "/usage", usage, true},
    {AT_HTTP_GET, "/usage/{}", one, true},
    {0},
};
