// SPDX-License-Identifier: Apache-2.0
// queue_impl.h - the inside of an at_queue, for queue.c, queue_open.c and history.c.
// Idea: every statement is prepared once and found by its place in the enum.
// Owns: see queue.h.
#ifndef AT_SERVE_QUEUE_IMPL_H
#define AT_SERVE_QUEUE_IMPL_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "serve/queue.h"

enum { AT_JOB_PENDING, AT_JOB_RUNNING, AT_JOB_DONE };

typedef enum at_sql {
    AT_SQL_BEGIN,
    AT_SQL_COMMIT,
    AT_SQL_ROLLBACK,
    AT_SQL_PUT,
    AT_SQL_COUNTER,
    AT_SQL_NEXT,
    AT_SQL_START,
    AT_SQL_RETURN,
    AT_SQL_FINISH,
    AT_SQL_FORGET, // an older entry of the same id
    AT_SQL_TRIM,
    AT_SQL_LIST,
    AT_SQL_CLEAR,
    AT_SQL_DELETE,
    AT_SQL_RUNNING,
    AT_SQL_USER_WAITING,
    AT_SQL_USER_DONE,
    AT_SQL_USAGE,
    AT_SQL_PLACES,
    AT_SQL_NUMBER,
    AT_SQL_HISTORY,
    AT_SQL_HISTORY_PART,
    AT_SQL_LIST_PART,
    AT_SQL_HISTORY_ONE,
    AT_SQL_HISTORY_CLEAR,
    AT_SQL_HISTORY_DELETE,
    AT_SQL_COUNT
} at_sql;

typedef struct at_queue_flusher at_queue_flusher; // queue_flush.c

struct at_queue {
    at_queue_config config;
    char *path;
    sqlite3 *db;
    sqlite3_stmt *sql[AT_SQL_COUNT];
    at_queue_flusher
        *flusher; // NULL: the table is in memory, or the checkpoint waits for the disk alone
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool lock_made, wake_made, woken;
    size_t pending, running, done;
    _Atomic int64_t counter; // number of the next job: asked for by each prompt, without the lock
    int64_t counter_kept;    // the same in the table
    int64_t run;             // tells this process's jobs from an earlier one's
    int64_t last_done;       // place in the history of the last one
};

at_status at_sql_fail(at_queue *q, const char *what); // AT_EIO with SQLite's words
// Bind and read by position; text NULL binds NULL.
sqlite3_stmt *at_sql_use(at_queue *q, at_sql which);
at_status at_sql_run(at_queue *q, at_sql which, const char *what); // step to the end, then reset
void at_sql_text(sqlite3_stmt *s, int at, const char *text);
const char *at_sql_column(sqlite3_stmt *s, int at); // "" for NULL
// [number, id, prompt, extra_data, outputs_to_execute] from the columns `at` on.
void at_sql_item(sqlite3_stmt *s, int at, at_str *out);
int64_t at_queue_wall_ms(void);     // the clock on the wall, since 1970
void at_queue_changed(at_queue *q); // under the lock
// NULL path or no memory: NULL, which the others take.
at_queue_flusher *at_queue_flusher_start(const char *path);
void at_queue_flusher_tell(at_queue_flusher *f); // a commit was made
void at_queue_flusher_stop(at_queue_flusher *f);
void at_str_json(at_str *s, const char *text); // as a JSON string

#endif
