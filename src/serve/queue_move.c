// SPDX-License-Identifier: Apache-2.0
// queue_move.c - a waiting job gets another place; see queue.h.
// Idea: the place is the number: the job gets one between its new neighbours', so that one row changes. Where their
// numbers leave no room (equal ones, or a gap that was halved too often) all waiting jobs are numbered anew. A user who
// sees only own jobs changes places among them: nobody else's wait longer for it.
// Easy to get wrong: jobs that come later must still come last: no number may reach the next that is counted.
#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "serve/queue_impl.h"

#define NOBODY SIZE_MAX

typedef struct place {
    int64_t row;
    double number;
    bool mine;
} place;

typedef struct places {
    place *list;
    size_t count, cap;
    size_t job, before; // positions; NOBODY: not among them
} places;

static at_status add(places *p, place one)
{
    if (p->count == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 64;
        place *grown = at_realloc(p->list, cap * sizeof *grown);
        if (!grown) return at_fail(AT_ENOMEM, "queue: no memory for moving a job");
        p->list = grown;
        p->cap = cap;
    }
    p->list[p->count++] = one;
    return AT_OK;
}

// Who waits, in order.
static at_status read_places(at_queue *q, const char *user, const char *id, const char *before,
                             places *p)
{
    at_status st = AT_OK;
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_PLACES);
    int code;

    at_sql_text(s, 1, user);
    at_sql_text(s, 2, id);
    at_sql_text(s, 3, before);
    p->job = p->before = NOBODY;
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        bool mine = sqlite3_column_int(s, 2) != 0;
        if (mine && sqlite3_column_int(s, 3) && p->job == NOBODY) p->job = p->count;
        if (mine && sqlite3_column_int(s, 4) && p->before == NOBODY) p->before = p->count;
        AT_TRY(add(p, (place){sqlite3_column_int64(s, 0), sqlite3_column_double(s, 1), mine}));
    }
    if (code != SQLITE_DONE) st = at_sql_fail(q, "moving a job");
out:
    sqlite3_reset(s);
    return st;
}

static at_status give_number(at_queue *q, const place *p, double number)
{
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_NUMBER);
    char text[32];

    if (p->number == number) return AT_OK;
    snprintf(text, sizeof text, "%.17g", number);
    sqlite3_bind_int64(s, 1, p->row);
    sqlite3_bind_double(s, 2, number);
    at_sql_text(s, 3, text);
    return at_sql_run(q, AT_SQL_NUMBER, "moving a job");
}

// The job goes where `before` stands (or to the end), step by step over the places that are the user's. Its index there.
static size_t reorder(places *p)
{
    size_t at = p->job, end = p->before == NOBODY ? p->count : p->before;
    for (size_t i = at + 1; i < end; i++) // later
        if (p->list[i].mine) {
            place job = p->list[at];
            p->list[at] = p->list[i];
            p->list[i] = job;
            at = i;
        }
    for (size_t i = at; i > end; i--) // earlier
        if (p->list[i - 1].mine) {
            place job = p->list[at];
            p->list[at] = p->list[i - 1];
            p->list[i - 1] = job;
            at = i - 1;
        }
    return at;
}

// Between the neighbours; NaN where there is no room.
static double between(const places *p, size_t at)
{
    bool first = at == 0, last = at + 1 == p->count;
    double low = first ? p->list[at + 1].number - 1 : p->list[at - 1].number;
    double high = last ? p->list[at - 1].number + 1 : p->list[at + 1].number;
    double middle = low + (high - low) / 2;
    return middle > low && middle < high ? middle : NAN;
}

// The numbers that were there, in the new order, where they differ; else new ones, evenly from half below the lowest
// to half above the highest. was: the numbers in the old order.
static at_status hand_out(at_queue *q, const places *p, const double *was)
{
    at_status st = AT_OK;
    bool differ = true;
    size_t n = p->count;
    double low = was[0] - 0.5, step = (was[n - 1] + 0.5 - low) / (double)(n + 1);

    for (size_t i = 1; i < n; i++) {
        differ = differ && was[i] > was[i - 1];
        if (!(low + step * (double)(i + 1) > low + step * (double)i) || !isfinite(step)) low = NAN;
    }
    if (!differ && isnan(low))
        AT_TRY(at_fail(AT_EINVAL,
                       "the numbers of the waiting jobs (%g to %g) are too large to be "
                       "put in between",
                       was[0], was[n - 1]));
    for (size_t i = 0; i < n; i++)
        AT_TRY(give_number(q, &p->list[i], differ ? was[i] : low + step * (double)(i + 1)));
out:
    return st;
}

static at_status move(at_queue *q, places *p, bool alone)
{
    at_status st = AT_OK;
    double *was = at_alloc(p->count * sizeof *was);

    if (!was) AT_TRY(at_fail(AT_ENOMEM, "queue: no memory for moving a job"));
    for (size_t i = 0; i < p->count; i++)
        was[i] = p->list[i].number;
    size_t at = reorder(p);
    double number = alone ? between(p, at) : NAN;
    if (isnan(number))
        AT_TRY(hand_out(q, p, was));
    else
        AT_TRY(give_number(q, &p->list[at], number));
out:
    at_free(was);
    return st;
}

at_status at_queue_move(at_queue *q, const char *user, const char *id, const char *before)
{
    at_status st = AT_OK;
    places p = {0};
    bool begun = false;

    pthread_mutex_lock(&q->lock);
    AT_TRY(read_places(q, user, id, before, &p));
    if (p.job == NOBODY) AT_TRY(at_fail(AT_ENOTFOUND, "job %s does not wait", id));
    if (before && p.before == NOBODY) AT_TRY(at_fail(AT_ENOTFOUND, "job %s does not wait", before));
    if (p.job == p.before || p.count < 2) goto out;
    at_sql_use(q, AT_SQL_BEGIN);
    AT_TRY(at_sql_run(q, AT_SQL_BEGIN, "moving a job"));
    begun = true;
    AT_TRY(move(q, &p, user == NULL));
    at_sql_use(q, AT_SQL_COMMIT);
    AT_TRY(at_sql_run(q, AT_SQL_COMMIT, "moving a job"));
    at_queue_changed(q);
out:
    if (begun && !sqlite3_get_autocommit(q->db)) { // keep the first message
        at_sql_use(q, AT_SQL_ROLLBACK);
        sqlite3_step(q->sql[AT_SQL_ROLLBACK]);
        sqlite3_reset(q->sql[AT_SQL_ROLLBACK]);
    }
    pthread_mutex_unlock(&q->lock);
    at_free(p.list);
    return st;
}
