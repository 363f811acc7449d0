// SPDX-License-Identifier: Apache-2.0
// jobs.c - see jobs.h. The words for states are those of newer ComfyUI servers (comfyui-contract 1.3).
#include "serve/jobs.h"

#include "base/mem.h"
#include "serve/queue_impl.h"

#define STATUS                                                                                     \
    "CASE state WHEN 0 THEN 'pending' WHEN 1 THEN 'in_progress' ELSE CASE WHEN status_str = "      \
    "'success' THEN 'completed' WHEN instr(status, '[\"execution_interrupted\"') > 0 THEN "        \
    "'cancelled' ELSE 'failed' END END"
// Python's NaN is no JSON for SQLite: such a job has no workflow id.
#define WORKFLOW                                                                                   \
    "CASE WHEN json_valid(extra_data) THEN json_extract(extra_data, "                              \
    "'$.extra_pnginfo.workflow.id')"                                                               \
    " END"
#define WHERE                                                                                      \
    " FROM jobs WHERE (?1 IS NULL OR instr(?1, ',' || " STATUS                                     \
    " || ',') > 0) AND (?2 IS NULL OR " WORKFLOW " = ?2) AND (?3 IS NULL OR id = ?3)"              \
    " AND (?6 IS NULL OR user = ?6)"

static at_status prepare(at_queue *q, const char *sql, const at_jobs_filter *f, sqlite3_stmt **out)
{
    if (sqlite3_prepare_v2(q->db, sql, -1, out, NULL) != SQLITE_OK)
        return at_sql_fail(q, "listing jobs");
    at_sql_text(*out, 1, f->statuses);
    at_sql_text(*out, 2, f->workflow);
    at_sql_text(*out, 3, f->id);
    at_sql_text(*out, 6, f->user);
    return AT_OK;
}

static at_status count(at_queue *q, const at_jobs_filter *f, int64_t *total)
{
    sqlite3_stmt *s = NULL;
    at_status st = prepare(q, "SELECT COUNT(*)" WHERE, f, &s);
    if (st == AT_OK && sqlite3_step(s) != SQLITE_ROW) st = at_sql_fail(q, "counting jobs");
    if (st == AT_OK) *total = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return st;
}

static at_status rows(at_queue *q, const at_jobs_filter *f,
                      at_status (*each)(void *ctx, const at_job_row *row), void *ctx)
{
    at_status st = AT_OK;
    sqlite3_stmt *s = NULL;
    int code = SQLITE_DONE;
    char *sql =
        at_strprintf("SELECT id, number_text, " STATUS
                     ", prompt, extra_data, outputs, status, created_ms, started_ms, ended_ms" WHERE
                     " ORDER BY %s %s, row %s LIMIT ?4 OFFSET ?5",
                     f->by_duration ? "COALESCE(ended_ms - started_ms, 0)" : "created_ms",
                     f->ascending ? "ASC" : "DESC", f->ascending ? "ASC" : "DESC");

    if (!sql) AT_TRY(at_fail(AT_ENOMEM, "queue: no memory"));
    AT_TRY(prepare(q, sql, f, &s));
    sqlite3_bind_int64(s, 4, f->limit);
    sqlite3_bind_int64(s, 5, f->offset);
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        AT_TRY(each(ctx, &(at_job_row){.id = at_sql_column(s, 0),
                                       .number = at_sql_column(s, 1),
                                       .status = at_sql_column(s, 2),
                                       .prompt = at_sql_column(s, 3),
                                       .extra_data = at_sql_column(s, 4),
                                       .outputs = at_sql_column(s, 5),
                                       .history_status = at_sql_column(s, 6),
                                       .created_ms = sqlite3_column_int64(s, 7),
                                       .started_ms = sqlite3_column_int64(s, 8),
                                       .ended_ms = sqlite3_column_int64(s, 9)}));
    if (code != SQLITE_DONE) st = at_sql_fail(q, "listing jobs");
out:
    sqlite3_finalize(s);
    at_free(sql);
    return st;
}

at_status at_jobs_list(at_queue *q, const at_jobs_filter *f,
                       at_status (*each)(void *ctx, const at_job_row *row), void *ctx,
                       int64_t *total)
{
    pthread_mutex_lock(&q->lock);
    at_status st = count(q, f, total);
    if (st == AT_OK) st = rows(q, f, each, ctx);
    pthread_mutex_unlock(&q->lock);
    return st;
}
