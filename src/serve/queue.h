// SPDX-License-Identifier: Apache-2.0
// queue.h - accepted jobs and what became of them, in SQLite, so that neither a crash nor a restart forgets one.
// Idea: the queue is a table. A job is a row whose state goes pending, running, done, each step one transaction;
// memory holds counters only, so ten thousand waiting jobs cost disk. --no-persist is the same table in memory.
// Easy to get wrong: a lower number runs first, and of equal numbers the lower id (ComfyUI's heap of tuples); a
// job that ran when the process died is tried once more, then reported as failed.
// Owns: its connection. Every call takes its one lock: any thread.
#ifndef AT_SERVE_QUEUE_H
#define AT_SERVE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"
#include "serve/cost.h"

typedef struct at_queue at_queue;

typedef struct at_queue_config {
    const char *path;   // NULL: nothing outlives the process
    size_t max_pending; // 0: 10000
    size_t max_history; // 0: 10000, as ComfyUI
    // Called under the lock whenever the number of jobs may have changed: running and pending together.
    void (*changed)(void *ctx, size_t remaining);
    void *ctx;
} at_queue_config;

// AT_EIO: the file is no database of ours, or another server holds it.
at_status at_queue_open(const at_queue_config *c, at_queue **out);
void at_queue_close(at_queue *q); // NULL is fine

// A job to be accepted. All JSON is text that was checked before.
typedef struct at_queue_entry {
    const char *id, *client_id; // client_id NULL: nobody listens
    const char *number;         // JSON number
    double order;               // the same as a number
    const char *prompt, *extra_data, *targets;
    const char *user;    // whose it is; NULL: "default"
    size_t most_of_user; // how many of this user may wait; 0: as many as of all
} at_queue_entry;
// AT_EUNSUPPORTED: the queue is full, or this user's part of it.
at_status at_queue_put(at_queue *q, const at_queue_entry *e);
// Several in one transaction, in this order. told(ctx, i, st) is called once for each, after the commit or with the
// reason why not (at_error_text): AT_EUNSUPPORTED for some does not hinder the others.
typedef void at_queue_told_fn(void *ctx, size_t i, at_status st);
void at_queue_put_all(at_queue *q, const at_queue_entry *e, size_t n, at_queue_told_fn *told,
                      void *ctx);
// The number of the next job that brings none; each call counts up, as every POST /prompt does in ComfyUI.
int64_t at_queue_count(at_queue *q);

// A job that was taken to be run.
typedef struct at_ticket {
    int64_t row;
    char *id, *client_id; // client_id NULL: nobody listens
    char *prompt, *extra_data, *targets;
    char *user;
    int attempts;  // this one counted
    double waited; // seconds since it was accepted
} at_ticket;
void at_ticket_free(at_ticket *t);
// Waits up to `seconds`; false: nothing to do (or a failure, which is logged).
bool at_queue_take(at_queue *q, at_ticket *out, double seconds);
// What came of it. After a failure (a full disk) the job still counts as running: try again.
typedef struct at_queue_result {
    const char *status_str;              // "success" or "error"
    const char *outputs, *status, *meta; // a history entry's members, as JSON text
    const at_cost *cost;                 // NULL: nothing is known
} at_queue_result;
at_status at_queue_finish(at_queue *q, const at_ticket *t, const at_queue_result *r);
// The same, and the next job is taken in the same transaction if one waits: next->id NULL if none does. The taking is
// told by at_queue_tell, when what the clients hear of the job that ended has been said.
at_status at_queue_finish_and_take(at_queue *q, const at_ticket *t, const at_queue_result *r,
                                   at_ticket *next);
void at_queue_tell(at_queue *q); // calls `changed`
// The server ends while it ran: it waits again, as if it had never been taken.
at_status at_queue_return(at_queue *q, const at_ticket *t);
void at_queue_wake(at_queue *q); // ends a wait of at_queue_take

size_t at_queue_remaining(at_queue *q);
void at_queue_counts(at_queue *q, size_t *waiting, size_t *running);
bool at_queue_keeps(at_queue *q, int64_t row); // does this job wait or run?
bool at_queue_is_running(at_queue *q, const char *id);
// user: of this one's jobs alone; NULL: of all, here and below.
// The body of GET /queue; max_waiting < 0: all that wait, else so many, and how many there are ("pending_total").
at_status at_queue_list(at_queue *q, const char *user, int64_t max_waiting, at_str *out);
// The waiting jobs of GET /queue's list, a part at a time (see at_history_part); the cursor is zeroed at first.
typedef struct at_queue_cursor {
    bool begun;
    double number;
    char *id; // at_free in the end
    int64_t row;
} at_queue_cursor;
at_status at_queue_part(at_queue *q, const char *user, at_queue_cursor *c, bool *more, at_str *out);
at_status at_queue_clear(at_queue *q, const char *user);
at_status at_queue_delete(at_queue *q, const char *user, const char *id);
// The waiting job `id` shall run right before the waiting job `before`; NULL: last of all. Numbers change. A user's
// jobs change places among themselves. AT_ENOTFOUND: one of the two does not wait (for this user).
at_status at_queue_move(at_queue *q, const char *user, const char *id, const char *before);

// The body of GET /history. max_items < 0: all; offset < 0: the last max_items.
at_status at_history_list(at_queue *q, const char *user, int64_t max_items, int64_t offset,
                          at_str *out);
// The same for all entries, a part at a time, so that neither memory nor the lock are held long: entries behind *after
// (0 at first), each "id": {...} with ", " between; *after moves on, *more is false at the end.
at_status at_history_part(at_queue *q, const char *user, int64_t *after, bool *more, at_str *out);
at_status at_history_one(at_queue *q, const char *user, const char *id,
                         at_str *out); // "{}" if unknown
at_status at_history_clear(at_queue *q, const char *user);
at_status at_history_delete(at_queue *q, const char *user, const char *id);

#endif
