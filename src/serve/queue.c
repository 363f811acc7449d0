// SPDX-License-Identifier: Apache-2.0
// queue.c - putting, taking and finishing jobs; see queue.h.
#include <errno.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "json/json.h"
#include "serve/queue_impl.h"

at_status at_sql_fail(at_queue *q, const char *what)
{
    const char *path = q->config.path ? q->config.path : "the queue in memory";
    int code = q->db ? sqlite3_extended_errcode(q->db) : SQLITE_NOMEM;
    if ((code & 0xff) == SQLITE_BUSY || (code & 0xff) == SQLITE_LOCKED)
        return at_fail(AT_EIO, "%s: another server holds it; choose another --user-directory",
                       path);
    return at_fail((code & 0xff) == SQLITE_NOMEM ? AT_ENOMEM : AT_EIO, "%s: %s: %s (SQLite %d)",
                   path, what, q->db ? sqlite3_errmsg(q->db) : "no memory", code);
}

sqlite3_stmt *at_sql_use(at_queue *q, at_sql which)
{
    sqlite3_reset(q->sql[which]);
    sqlite3_clear_bindings(q->sql[which]);
    return q->sql[which];
}

at_status at_sql_run(at_queue *q, at_sql which, const char *what)
{
    int code = sqlite3_step(q->sql[which]);
    at_status st = code == SQLITE_DONE || code == SQLITE_ROW ? AT_OK : at_sql_fail(q, what);
    sqlite3_reset(q->sql[which]);
    return st;
}

void at_sql_text(sqlite3_stmt *s, int at, const char *text)
{
    if (text)
        sqlite3_bind_text(s, at, text, -1, SQLITE_STATIC);
    else
        sqlite3_bind_null(s, at);
}

const char *at_sql_column(sqlite3_stmt *s, int at)
{
    const char *text = (const char *)sqlite3_column_text(s, at);
    return text ? text : "";
}

void at_str_json(at_str *s, const char *text)
{
    json_t *v = json_string(text);
    if (v)
        at_json_append(s, v, 0);
    else
        s->failed = true;
    json_decref(v);
}

void at_sql_item(sqlite3_stmt *s, int at, at_str *out)
{
    at_str_printf(out, "[%s, ", at_sql_column(s, at));
    at_str_json(out, at_sql_column(s, at + 1));
    for (int i = 2; i < 5; i++) {
        at_str_append(out, ", ");
        at_str_append(out, at_sql_column(s, at + i));
    }
    at_str_append(out, "]");
}

void at_queue_changed(at_queue *q)
{
    if (q->config.changed) q->config.changed(q->config.ctx, q->pending + q->running);
}

static char *copy(sqlite3_stmt *s, int at)
{
    return at_strdup(at_sql_column(s, at));
}

static at_status begin(at_queue *q, const char *what)
{
    at_sql_use(q, AT_SQL_BEGIN);
    return at_sql_run(q, AT_SQL_BEGIN, what);
}

// Commits what went well; else all of it is undone and the first message stays.
static at_status end(at_queue *q, at_status st, const char *what)
{
    at_sql_use(q, AT_SQL_COMMIT);
    if (st == AT_OK) st = at_sql_run(q, AT_SQL_COMMIT, what);
    if (st == AT_OK) at_queue_flusher_tell(q->flusher);
    if (st != AT_OK && !sqlite3_get_autocommit(q->db)) {
        at_sql_use(q, AT_SQL_ROLLBACK);
        sqlite3_step(q->sql[AT_SQL_ROLLBACK]);
        sqlite3_reset(q->sql[AT_SQL_ROLLBACK]);
    }
    return st;
}

// --- putting -----------------------------------------------------------------------------------------
int64_t at_queue_wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static at_status put_row(at_queue *q, const at_queue_entry *e, double now)
{
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_PUT);

    at_sql_text(s, 1, e->id);
    sqlite3_bind_double(s, 2, e->order);
    at_sql_text(s, 3, e->number);
    at_sql_text(s, 4, e->client_id);
    at_sql_text(s, 5, e->prompt);
    at_sql_text(s, 6, e->extra_data);
    at_sql_text(s, 7, e->targets);
    at_sql_text(s, 8, e->user);
    sqlite3_bind_int64(s, 9, q->run);
    sqlite3_bind_double(s, 10, now);
    sqlite3_bind_int64(s, 11, at_queue_wall_ms());
    return at_sql_run(q, AT_SQL_PUT, "accepting a job");
}

// *kept: what the table holds then.
static at_status keep_counter(at_queue *q, int64_t *kept)
{
    *kept = atomic_load(&q->counter);
    if (*kept == q->counter_kept) return AT_OK;
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_COUNTER);
    sqlite3_bind_int64(s, 1, *kept);
    return at_sql_run(q, AT_SQL_COUNTER, "accepting a job");
}

static size_t waiting_of(at_queue *q, const char *user)
{
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_USER_WAITING);
    at_sql_text(s, 1, user ? user : "default");
    size_t n = sqlite3_step(s) == SQLITE_ROW ? (size_t)sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    return n;
}

// Is there room for one more, behind `more` that are put but not committed?
static at_status has_room(at_queue *q, const at_queue_entry *e, size_t more)
{
    if (q->pending + more >= q->config.max_pending)
        return at_fail(AT_EUNSUPPORTED, "the queue is full: %zu jobs wait; try again later",
                       q->pending + more);
    if (e->most_of_user && waiting_of(q, e->user) >= e->most_of_user)
        return at_fail(AT_EUNSUPPORTED, "%zu of your jobs wait already; try again later",
                       e->most_of_user);
    return AT_OK;
}

// Jobs on their way into the table. told_of: which of them were refused, and their owner knows it.
typedef struct putting {
    const at_queue_entry *e;
    bool *told_of;
    at_queue_told_fn *told;
    void *ctx;
} putting;

// One transaction for jobs `from` to `to`; *put counts those in it. A failure is of them all: nothing is kept.
static at_status put_rows(at_queue *q, const putting *p, size_t from, size_t to, size_t *put,
                          int64_t *kept)
{
    double now = at_now();
    at_status st = begin(q, "accepting a job"), room;

    if (st != AT_OK) return st;
    for (size_t i = from; i < to && st == AT_OK; i++) {
        if (p->told_of[i]) continue;
        room = has_room(q, &p->e[i], *put);
        if (room == AT_OK) {
            st = put_row(q, &p->e[i], now);
            *put += st == AT_OK;
            continue;
        }
        p->told_of[i] = true;
        p->told(p->ctx, i, room);
    }
    if (st == AT_OK) st = keep_counter(q, kept);
    return end(q, st, "accepting a job");
}

static void put_range(at_queue *q, const putting *p, size_t from, size_t to)
{
    size_t put = 0;
    int64_t kept = 0;

    pthread_mutex_lock(&q->lock);
    at_status st = put_rows(q, p, from, to, &put, &kept);
    if (st == AT_OK && put) {
        q->counter_kept = kept;
        q->pending += put;
        at_queue_changed(q);
        pthread_cond_signal(&q->wake);
    }
    pthread_mutex_unlock(&q->lock);
    for (size_t i = from; i < to; i++) {
        if (p->told_of[i]) continue;
        if (st != AT_OK &&
            to - from > 1) { // what is too large for the disk shall not hinder the rest
            put_range(q, p, i, i + 1);
            continue;
        }
        p->told_of[i] = true;
        p->told(p->ctx, i, st);
    }
}

void at_queue_put_all(at_queue *q, const at_queue_entry *e, size_t n, at_queue_told_fn *told,
                      void *ctx)
{
    putting p = {e, at_calloc(n + 1, sizeof *p.told_of), told, ctx};

    if (p.told_of)
        put_range(q, &p, 0, n);
    else
        for (size_t i = 0; i < n; i++)
            told(ctx, i, at_fail(AT_ENOMEM, "queue: no memory for a turn's jobs"));
    at_free(p.told_of);
}

static void keep_status(void *ctx, size_t i, at_status st)
{
    (void)i;
    *(at_status *)ctx = st;
}

at_status at_queue_put(at_queue *q, const at_queue_entry *e)
{
    at_status st = AT_OK;
    at_queue_put_all(q, e, 1, keep_status, &st);
    return st;
}

int64_t at_queue_count(at_queue *q)
{
    return atomic_fetch_add(&q->counter, 1);
}

// --- taking ------------------------------------------------------------------------------------------
void at_ticket_free(at_ticket *t)
{
    at_free(t->id);
    at_free(t->client_id);
    at_free(t->prompt);
    at_free(t->extra_data);
    at_free(t->targets);
    at_free(t->user);
    *t = (at_ticket){0};
}

static at_status take_row(at_queue *q, at_ticket *t)
{
    at_status st = AT_OK;
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_NEXT);

    sqlite3_bind_int64(s, 1, q->run);
    sqlite3_bind_int64(s, 2, at_queue_wall_ms());
    if (sqlite3_step(s) != SQLITE_ROW) AT_TRY(at_sql_fail(q, "taking a job"));
    *t = (at_ticket){.row = sqlite3_column_int64(s, 0),
                     .id = copy(s, 1),
                     .client_id = sqlite3_column_type(s, 2) == SQLITE_NULL ? NULL : copy(s, 2),
                     .prompt = copy(s, 3),
                     .extra_data = copy(s, 4),
                     .targets = copy(s, 5),
                     .attempts = sqlite3_column_int(s, 6) + 1,
                     .waited = (double)sqlite3_column_int64(s, 7) / 1e3,
                     .user = copy(s, 8)};
    if (sqlite3_column_type(s, 9) != SQLITE_NULL)
        t->waited = at_now() - sqlite3_column_double(s, 9);
    sqlite3_reset(s);
    if (t->waited < 0) t->waited = 0; // the clock was set back
    if (!t->id || !t->user || !t->prompt || !t->extra_data || !t->targets)
        AT_TRY(at_fail(AT_ENOMEM, "queue: no memory for a job"));
    s = at_sql_use(q, AT_SQL_START);
    sqlite3_bind_int64(s, 1, t->row);
    sqlite3_bind_int64(s, 2, at_queue_wall_ms());
    AT_TRY(at_sql_run(q, AT_SQL_START, "starting a job"));
out:
    sqlite3_reset(q->sql[AT_SQL_NEXT]);
    if (st != AT_OK) at_ticket_free(t);
    return st;
}

bool at_queue_take(at_queue *q, at_ticket *out, double seconds)
{
    struct timespec until;
    bool got = false;
    int wait = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)seconds;
    until.tv_nsec += (long)((seconds - floor(seconds)) * 1e9);
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_mutex_lock(&q->lock);
    while (!q->pending && !q->woken && wait != ETIMEDOUT)
        wait = pthread_cond_timedwait(&q->wake, &q->lock, &until);
    q->woken = false;
    if (q->pending) {
        got = take_row(q, out) == AT_OK;
        if (got) {
            q->pending--;
            q->running++;
            at_queue_changed(q);
        } else {
            at_log(AT_ERROR, "QUEUE-TAKE", "%s", at_error_text());
        }
    }
    bool failed = q->pending && !got;
    pthread_mutex_unlock(&q->lock);
    if (failed)
        nanosleep(&(struct timespec){0, 500000000}, NULL); // a full disk: not in a tight loop
    return got;
}

void at_queue_wake(at_queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->woken = true;
    pthread_cond_broadcast(&q->wake);
    pthread_mutex_unlock(&q->lock);
}

// --- finishing ---------------------------------------------------------------------------------------
static at_status finish_row(at_queue *q, const at_ticket *t, const at_queue_result *r)
{
    char *cost = r->cost ? at_cost_text(r->cost) : NULL;
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_FINISH);

    sqlite3_bind_int64(s, 1, t->row);
    at_sql_text(s, 2, r->status_str);
    at_sql_text(s, 3, r->outputs);
    at_sql_text(s, 4, r->status);
    at_sql_text(s, 5, r->meta);
    sqlite3_bind_int64(s, 6, q->last_done + 1);
    at_sql_text(s, 7, cost);
    sqlite3_bind_int64(s, 8, at_queue_wall_ms());
    at_status st = at_sql_run(q, AT_SQL_FINISH, "finishing a job");
    at_free(cost);
    return st;
}

static at_status add_usage(at_queue *q, const at_ticket *t, const at_queue_result *r)
{
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_USAGE);
    const at_cost *c = r->cost;

    if (!c) return AT_OK;
    at_sql_text(s, 1, t->user);
    sqlite3_bind_int(s, 2, strcmp(r->status_str, "success") != 0);
    sqlite3_bind_double(s, 3, c->waited);
    sqlite3_bind_double(s, 4, c->seconds);
    if (c->joules >= 0) sqlite3_bind_double(s, 5, c->joules); // NULL: the driver does not tell
    for (int i = 0; i < AT_STAGES; i++)
        sqlite3_bind_double(s, 6 + i, c->stage[i]);
    return at_sql_run(q, AT_SQL_USAGE, "counting a job");
}

// An older entry of the same id gives way; the oldest go when there are too many. *gone counts them.
static at_status forget_rows(at_queue *q, const at_ticket *t, size_t *gone)
{
    at_status st = AT_OK;
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_FORGET);

    at_sql_text(s, 1, t->id);
    sqlite3_bind_int64(s, 2, t->row);
    AT_TRY(at_sql_run(q, AT_SQL_FORGET, "finishing a job"));
    *gone = (size_t)sqlite3_changes(q->db);
    if (q->done + 1 - *gone > q->config.max_history) {
        s = at_sql_use(q, AT_SQL_TRIM);
        sqlite3_bind_int64(s, 1, (sqlite3_int64)(q->done + 1 - *gone - q->config.max_history));
        AT_TRY(at_sql_run(q, AT_SQL_TRIM, "shortening the history"));
        *gone += (size_t)sqlite3_changes(q->db);
    }
out:
    return st;
}

at_status at_queue_finish_and_take(at_queue *q, const at_ticket *t, const at_queue_result *r,
                                   at_ticket *next)
{
    size_t gone = 0;
    bool more = false;

    pthread_mutex_lock(&q->lock);
    at_status st = begin(q, "finishing a job");
    if (st == AT_OK) {
        st = finish_row(q, t, r);
        if (st == AT_OK) st = add_usage(q, t, r);
        if (st == AT_OK) st = forget_rows(q, t, &gone);
        more = next && q->pending;
        if (st == AT_OK && more) st = take_row(q, next);
        st = end(q, st, "finishing a job");
    }
    if (st == AT_OK) {
        q->last_done++;
        q->done = q->done + 1 - gone;
        q->running--;
        at_queue_changed(q);
        q->pending -= more;
        q->running += more;
    } else if (next) {
        at_ticket_free(next);
    }
    pthread_mutex_unlock(&q->lock);
    return st;
}

at_status at_queue_finish(at_queue *q, const at_ticket *t, const at_queue_result *r)
{
    return at_queue_finish_and_take(q, t, r, NULL);
}

void at_queue_tell(at_queue *q)
{
    pthread_mutex_lock(&q->lock);
    at_queue_changed(q);
    pthread_mutex_unlock(&q->lock);
}

at_status at_queue_return(at_queue *q, const at_ticket *t)
{
    pthread_mutex_lock(&q->lock);
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_RETURN);
    sqlite3_bind_int64(s, 1, t->row);
    at_status st = at_sql_run(q, AT_SQL_RETURN, "keeping a job");
    if (st == AT_OK) {
        q->running--;
        q->pending++;
    }
    pthread_mutex_unlock(&q->lock);
    return st;
}

void at_queue_counts(at_queue *q, size_t *waiting, size_t *running)
{
    pthread_mutex_lock(&q->lock);
    *waiting = q->pending;
    *running = q->running;
    pthread_mutex_unlock(&q->lock);
}

size_t at_queue_remaining(at_queue *q)
{
    pthread_mutex_lock(&q->lock);
    size_t n = q->pending + q->running;
    pthread_mutex_unlock(&q->lock);
    return n;
}
