// SPDX-License-Identifier: Apache-2.0
// history.c - what GET /queue and GET /history show, and their deletions; see queue.h.
// Idea: entries lie in the table as the text that is sent, so listing is concatenation.
// Source: ComfyUI 0.3.64 execution.py PromptQueue.get_history, behaviour; comfyui-contract 1.1.
#include "base/mem.h"
#include "serve/queue_impl.h"

static at_status full(const at_str *s)
{
    return s->failed ? at_fail(AT_ENOMEM, "queue: no memory for a list") : AT_OK;
}

static at_status list_state(at_queue *q, int state, const char *user, int64_t most, at_str *out)
{
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_LIST);
    int code;
    const char *comma = "";

    sqlite3_bind_int(s, 1, state);
    at_sql_text(s, 2, user);
    sqlite3_bind_int64(s, 3, most);
    at_str_append(out, "[");
    for (; (code = sqlite3_step(s)) == SQLITE_ROW; comma = ", ") {
        at_str_append(out, comma);
        at_sql_item(s, 0, out);
    }
    at_str_append(out, "]");
    at_status st = code == SQLITE_DONE ? full(out) : at_sql_fail(q, "listing jobs");
    sqlite3_reset(s);
    return st;
}

// How many wait of this user's, or (NULL) at all.
static size_t waiting_of(at_queue *q, const char *user)
{
    if (!user) return q->pending;
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_USER_WAITING);
    at_sql_text(s, 1, user);
    size_t n = sqlite3_step(s) == SQLITE_ROW ? (size_t)sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    return n;
}

at_status at_queue_list(at_queue *q, const char *user, int64_t max_waiting, at_str *out)
{
    at_status st = AT_OK;

    pthread_mutex_lock(&q->lock);
    at_str_append(out, "{\"queue_running\": ");
    AT_TRY(list_state(q, AT_JOB_RUNNING, user, -1, out));
    at_str_append(out, ", \"queue_pending\": ");
    AT_TRY(list_state(q, AT_JOB_PENDING, user, max_waiting, out));
    if (max_waiting >= 0) at_str_printf(out, ", \"pending_total\": %zu", waiting_of(q, user));
    at_str_append(out, "}");
    st = full(out);
out:
    pthread_mutex_unlock(&q->lock);
    return st;
}

at_status at_queue_part(at_queue *q, const char *user, at_queue_cursor *c, bool *more, at_str *out)
{
    int code, n = 0;
    at_queue_cursor next = *c; // the statement reads the strings of *c while it steps

    pthread_mutex_lock(&q->lock);
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_LIST_PART);
    sqlite3_bind_double(s, 1, c->number);
    at_sql_text(s, 2, c->id ? c->id : "");
    sqlite3_bind_int64(s, 3, c->row);
    at_sql_text(s, 4, user);
    sqlite3_bind_int(s, 5, c->begun);
    const char *comma = c->begun ? ", " : "";
    for (; (code = sqlite3_step(s)) == SQLITE_ROW; comma = ", ", n++) {
        at_str_append(out, comma);
        at_sql_item(s, 0, out);
        if (next.id != c->id) at_free(next.id);
        next = (at_queue_cursor){.begun = true,
                                 .number = sqlite3_column_double(s, 5),
                                 .id = at_strdup(at_sql_column(s, 1)),
                                 .row = sqlite3_column_int64(s, 6)};
        if (!next.id) out->failed = true;
    }
    *more = n > 0;
    at_status st = code == SQLITE_DONE ? full(out) : at_sql_fail(q, "listing jobs");
    sqlite3_reset(s);
    if (next.id != c->id) at_free(c->id);
    *c = next;
    pthread_mutex_unlock(&q->lock);
    return st;
}

bool at_queue_is_running(at_queue *q, const char *id)
{
    pthread_mutex_lock(&q->lock);
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_RUNNING);
    at_sql_text(s, 1, id);
    bool yes = sqlite3_step(s) == SQLITE_ROW;
    sqlite3_reset(s);
    pthread_mutex_unlock(&q->lock);
    return yes;
}

bool at_queue_keeps(at_queue *q, int64_t row)
{
    sqlite3_stmt *s = NULL;
    bool yes = true; // rather too long than too short
    pthread_mutex_lock(&q->lock);
    if (sqlite3_prepare_v2(q->db, "SELECT 1 FROM jobs WHERE row = ?1 AND state <> 2", -1, &s,
                           NULL) == SQLITE_OK) {
        sqlite3_bind_int64(s, 1, row);
        yes = sqlite3_step(s) != SQLITE_DONE;
    }
    sqlite3_finalize(s);
    pthread_mutex_unlock(&q->lock);
    return yes;
}

// Delete with one statement that takes a user and at most an id; *count goes down by what it deleted.
static at_status drop(at_queue *q, at_sql which, const char *user, const char *id, size_t *count,
                      bool tell)
{
    pthread_mutex_lock(&q->lock);
    sqlite3_stmt *s = at_sql_use(q, which);
    at_sql_text(s, 1, user);
    if (id) at_sql_text(s, 2, id);
    at_status st = at_sql_run(q, which, "deleting jobs");
    size_t gone = st == AT_OK ? (size_t)sqlite3_changes(q->db) : 0;
    *count -= gone;
    if (tell && st == AT_OK && (gone || !id)) at_queue_changed(q);
    pthread_mutex_unlock(&q->lock);
    return st;
}

at_status at_queue_clear(at_queue *q, const char *user)
{
    return drop(q, AT_SQL_CLEAR, user, NULL, &q->pending, true);
}
at_status at_queue_delete(at_queue *q, const char *user, const char *id)
{
    return drop(q, AT_SQL_DELETE, user, id, &q->pending, true);
}
at_status at_history_clear(at_queue *q, const char *user)
{
    return drop(q, AT_SQL_HISTORY_CLEAR, user, NULL, &q->done, false);
}
at_status at_history_delete(at_queue *q, const char *user, const char *id)
{
    return drop(q, AT_SQL_HISTORY_DELETE, user, id, &q->done, false);
}

// "id": {"prompt": [...], "outputs": {...}, "status": {...}, "meta": {...}}
static void entry(sqlite3_stmt *s, at_str *out)
{
    at_str_json(out, at_sql_column(s, 1));
    at_str_append(out, ": {\"prompt\": ");
    at_sql_item(s, 0, out);
    static const char *const names[] = {", \"outputs\": ", ", \"status\": ", ", \"meta\": "};
    for (int i = 0; i < 3; i++) {
        at_str_append(out, names[i]);
        at_str_append(out, at_sql_column(s, 5 + i));
    }
    at_str_append(out, "}");
}

static at_status entries(at_queue *q, sqlite3_stmt *s, at_str *out)
{
    int code;
    const char *comma = "";

    at_str_append(out, "{");
    for (; (code = sqlite3_step(s)) == SQLITE_ROW; comma = ", ") {
        at_str_append(out, comma);
        entry(s, out);
    }
    at_str_append(out, "}");
    at_status st = code == SQLITE_DONE ? full(out) : at_sql_fail(q, "listing the history");
    sqlite3_reset(s);
    return st;
}

// How many entries the user's history has.
static int64_t done_of(at_queue *q, const char *user)
{
    if (!user) return (int64_t)q->done;
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_USER_DONE);
    at_sql_text(s, 1, user);
    int64_t n = sqlite3_step(s) == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    return n;
}

at_status at_history_list(at_queue *q, const char *user, int64_t max_items, int64_t offset,
                          at_str *out)
{
    pthread_mutex_lock(&q->lock);
    if (offset < 0) {
        int64_t n = max_items >= 0 ? done_of(q, user) : 0;
        offset = max_items >= 0 && max_items < n ? n - max_items : 0;
    }
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_HISTORY);
    sqlite3_bind_int64(s, 1, max_items < 0 ? -1 : max_items);
    sqlite3_bind_int64(s, 2, offset);
    at_sql_text(s, 3, user);
    at_status st = entries(q, s, out);
    pthread_mutex_unlock(&q->lock);
    return st;
}

at_status at_history_part(at_queue *q, const char *user, int64_t *after, bool *more, at_str *out)
{
    enum { ENTRIES = 64, BYTES = 1 << 20 };
    int code, n = 0;
    const char *comma = *after ? ", " : "";
    size_t start = out->len;

    pthread_mutex_lock(&q->lock);
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_HISTORY_PART);
    sqlite3_bind_int64(s, 1, *after);
    sqlite3_bind_int(s, 2, ENTRIES);
    at_sql_text(s, 3, user);
    for (; out->len - start < BYTES && (code = sqlite3_step(s)) == SQLITE_ROW; comma = ", ", n++) {
        at_str_append(out, comma);
        entry(s, out);
        *after = sqlite3_column_int64(s, 8);
    }
    *more = out->len - start >= BYTES || n == ENTRIES;
    at_status st = *more || code == SQLITE_DONE ? full(out) : at_sql_fail(q, "listing the history");
    sqlite3_reset(s);
    pthread_mutex_unlock(&q->lock);
    return st;
}

at_status at_history_one(at_queue *q, const char *user, const char *id, at_str *out)
{
    pthread_mutex_lock(&q->lock);
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_HISTORY_ONE);
    at_sql_text(s, 1, user);
    at_sql_text(s, 2, id);
    at_status st = entries(q, s, out);
    pthread_mutex_unlock(&q->lock);
    return st;
}
