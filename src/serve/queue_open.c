// SPDX-License-Identifier: Apache-2.0
// queue_open.c - the tables, the statements, and what a restart makes of jobs that were running.
// Idea: WAL with synchronous=NORMAL: a commit is in the kernel before a client hears of it, so a killed process
// loses nothing; a machine that loses power may lose the last moments, never the file's order.
// Owns: see queue.h.
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "json/json.h"
#include "serve/queue_impl.h"

#define ATTEMPTS "2" // a job that ends the process twice is not tried again
#define ITEM     "number_text, id, prompt, extra_data, targets"

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS jobs("
    " row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, number REAL NOT NULL,"
    " number_text TEXT NOT NULL, state INTEGER NOT NULL, client_id TEXT, attempts INTEGER NOT NULL"
    " DEFAULT 0, created_ms INTEGER NOT NULL, started_ms INTEGER, ended_ms INTEGER,"
    " prompt TEXT NOT NULL, extra_data TEXT NOT NULL, targets TEXT NOT NULL,"
    " status_str TEXT, outputs TEXT, status TEXT, meta TEXT, done INTEGER,"
    " user TEXT NOT NULL DEFAULT 'default', cost TEXT, run INTEGER, put_s REAL);"
    "DROP INDEX IF EXISTS jobs_waiting;" // of older versions: it held the history too
    "CREATE INDEX IF NOT EXISTS jobs_active ON jobs(state, number, id) WHERE state < 2;"
    "CREATE INDEX IF NOT EXISTS jobs_done ON jobs(done) WHERE done IS NOT NULL;"
    "DROP INDEX IF EXISTS jobs_id;" // of older versions: a page in the middle of it for each accepted job
    "CREATE INDEX IF NOT EXISTS jobs_done_id ON jobs(id) WHERE state = 2;"
    "CREATE TABLE IF NOT EXISTS counters(name TEXT PRIMARY KEY, value INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS usage(day TEXT, user TEXT, jobs INTEGER NOT NULL, failed INTEGER "
    "NOT NULL,"
    " waited REAL NOT NULL, seconds REAL NOT NULL, joules REAL," AT_COST_COLUMNS
    " PRIMARY KEY(day, user)) WITHOUT ROWID;";

// What tables of older versions lack.
static const char *const additions[][2] = {
    {"user", "ALTER TABLE jobs ADD COLUMN user TEXT NOT NULL DEFAULT 'default'"},
    {"cost", "ALTER TABLE jobs ADD COLUMN cost TEXT"},
    {"run", "ALTER TABLE jobs ADD COLUMN run INTEGER"},  // the process that accepted it
    {"put_s", "ALTER TABLE jobs ADD COLUMN put_s REAL"}, // when, by its clock that nobody sets
};

#define WAITS                                                                                      \
    "state < 2 AND state = 0" // the first term is that of the index jobs_active: SQLite wants it in words
#define OF_USER(n) " AND (?" n " IS NULL OR user = ?" n ")"
// INDEXED BY: without it the planner takes the index that begins with the state, and reads the whole history.
static const char *const statements[AT_SQL_COUNT] = {
    [AT_SQL_BEGIN] = "BEGIN IMMEDIATE",
    [AT_SQL_COMMIT] = "COMMIT",
    [AT_SQL_ROLLBACK] = "ROLLBACK",
    [AT_SQL_PUT] = "INSERT INTO jobs(id, number, number_text, state, client_id, created_ms, prompt,"
                   " extra_data, targets, user, run, put_s) VALUES(?1, ?2, ?3, 0, ?4, ?11"
                   ", ?5, ?6, ?7, coalesce(?8, 'default'), ?9, ?10)",
    [AT_SQL_COUNTER] = "INSERT INTO counters VALUES('number', ?1) ON CONFLICT(name) DO UPDATE SET"
                       " value = excluded.value",
    [AT_SQL_NEXT] = "SELECT row, id, client_id, prompt, extra_data, targets, attempts, ?2"
                    " - created_ms, user, CASE run WHEN ?1 THEN put_s END FROM jobs"
                    " WHERE " WAITS " ORDER BY number, id, row LIMIT 1",
    [AT_SQL_START] =
        "UPDATE jobs SET state = 1, attempts = attempts + 1, started_ms = ?2 WHERE row = ?1",
    [AT_SQL_RETURN] = "UPDATE jobs SET state = 0, attempts = attempts - 1 WHERE row = ?1",
    [AT_SQL_FINISH] = "UPDATE jobs SET state = 2, ended_ms = ?8, status_str = ?2, outputs = ?3,"
                      " status = ?4, meta = ?5, done = ?6, cost = ?7 WHERE row = ?1",
    [AT_SQL_FORGET] =
        "DELETE FROM jobs INDEXED BY jobs_done_id WHERE id = ?1 AND state = 2 AND row <> ?2 AND"
        " user = (SELECT user FROM jobs WHERE row = ?2)",
    [AT_SQL_TRIM] = "DELETE FROM jobs WHERE row IN (SELECT row FROM jobs WHERE done IS NOT NULL"
                    " ORDER BY done LIMIT ?1)",
    [AT_SQL_LIST] = "SELECT " ITEM " FROM jobs WHERE state < 2 AND state = ?1" OF_USER(
        "2") " ORDER BY number, id, row LIMIT ?3",
    [AT_SQL_LIST_PART] =
        "SELECT " ITEM ", number, row FROM jobs WHERE " WAITS " AND (?5 = 0 OR"
        " (number, id, row) > (?1, ?2, ?3))" OF_USER("4") " ORDER BY number, id, row LIMIT 64",
    [AT_SQL_CLEAR] = "DELETE FROM jobs WHERE " WAITS OF_USER("1"),
    [AT_SQL_DELETE] =
        "DELETE FROM jobs WHERE row = (SELECT row FROM jobs INDEXED BY jobs_active WHERE " WAITS
        " AND id = ?2" OF_USER("1") " ORDER BY number, row LIMIT 1)",
    [AT_SQL_PLACES] =
        "SELECT row, number, ?1 IS NULL OR user = ?1, id = ?2, id = ?3 FROM jobs WHERE " WAITS
        " ORDER BY number, id, row",
    [AT_SQL_NUMBER] = "UPDATE jobs SET number = ?2, number_text = ?3 WHERE row = ?1 AND state = 0",
    [AT_SQL_RUNNING] =
        "SELECT 1 FROM jobs INDEXED BY jobs_active WHERE state < 2 AND state = 1 AND id = ?1",
    [AT_SQL_HISTORY] =
        "SELECT " ITEM ", outputs, status, meta FROM jobs WHERE done IS NOT NULL" OF_USER(
            "3") " ORDER BY done LIMIT ?1 OFFSET ?2",
    [AT_SQL_HISTORY_PART] =
        "SELECT " ITEM ", outputs, status, meta, done FROM jobs WHERE done > ?1" OF_USER(
            "3") " ORDER BY done LIMIT ?2",
    [AT_SQL_HISTORY_ONE] =
        "SELECT " ITEM ", outputs, status, meta FROM jobs INDEXED BY jobs_done_id WHERE id = ?2 AND"
        " state = 2" OF_USER("1") " ORDER BY done DESC LIMIT 1",
    [AT_SQL_HISTORY_CLEAR] = "DELETE FROM jobs WHERE state = 2" OF_USER("1"),
    [AT_SQL_HISTORY_DELETE] =
        "DELETE FROM jobs INDEXED BY jobs_done_id WHERE id = ?2 AND state = 2" OF_USER("1"),
    [AT_SQL_USER_WAITING] =
        "SELECT COUNT(*) FROM jobs INDEXED BY jobs_active WHERE " WAITS " AND user = ?1",
    [AT_SQL_USER_DONE] = "SELECT COUNT(*) FROM jobs WHERE done IS NOT NULL AND user = ?1",
    [AT_SQL_USAGE] = AT_COST_UPSERT,
};

static at_status run(at_queue *q, const char *sql)
{
    return sqlite3_exec(q->db, sql, NULL, NULL, NULL) == SQLITE_OK ? AT_OK
                                                                   : at_sql_fail(q, "opening it");
}

static bool has_column(at_queue *q, const char *name)
{
    sqlite3_stmt *s = NULL;
    bool found = false;
    if (sqlite3_prepare_v2(q->db, "SELECT 1 FROM pragma_table_info('jobs') WHERE name = ?1", -1, &s,
                           NULL) == SQLITE_OK) {
        at_sql_text(s, 1, name);
        found = sqlite3_step(s) == SQLITE_ROW;
    }
    sqlite3_finalize(s);
    return found;
}

static at_status add_columns(at_queue *q)
{
    at_status st = AT_OK;
    for (size_t i = 0; st == AT_OK && i < sizeof additions / sizeof *additions; i++)
        if (!has_column(q, additions[i][0])) st = run(q, additions[i][1]);
    return st;
}

static int64_t number_of(at_queue *q, const char *sql)
{
    sqlite3_stmt *s = NULL;
    int64_t n = 0;
    if (sqlite3_prepare_v2(q->db, sql, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW)
        n = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return n;
}

// The history's words for a job that is given up.
static char *lost_status(const char *id)
{
    json_t *v = json_pack(
        "{s:s, s:b, s:[[s, {s:s, s:s, s:s, s:[], s:s, s:s, s:[], s:{}, s:[]}]]}", "status_str",
        "error", "completed", 0, "messages", "execution_error", "prompt_id", id, "node_id", "",
        "node_type", "", "executed", "exception_message",
        "The server ended while this job ran, " ATTEMPTS " times; it is not tried again.\n",
        "exception_type", "RuntimeError", "traceback", "current_inputs", "current_outputs");
    char *text = v ? at_json_dump(v, 0) : NULL;
    json_decref(v);
    return text;
}

static at_status give_up(at_queue *q, int64_t row, const char *id)
{
    char *status = lost_status(id);
    if (!status) return at_fail(AT_ENOMEM, "queue: no memory");
    at_log(AT_WARN, "QUEUE-LOST", "job %s ended the server " ATTEMPTS " times: reported as failed",
           id);
    sqlite3_stmt *s = at_sql_use(q, AT_SQL_FINISH);
    sqlite3_bind_int64(s, 1, row);
    at_sql_text(s, 2, "error");
    at_sql_text(s, 3, "{}");
    at_sql_text(s, 4, status);
    at_sql_text(s, 5, "{}");
    sqlite3_bind_int64(s, 6, ++q->last_done);
    sqlite3_bind_int64(s, 8, at_queue_wall_ms());
    at_status st = at_sql_run(q, AT_SQL_FINISH, "reporting a lost job");
    at_free(status);
    return st;
}

// A job that was running when the process died waits again; one that died with it too often is reported.
static at_status recover(at_queue *q)
{
    at_status st = AT_OK;
    sqlite3_stmt *s = NULL;

    q->last_done = number_of(q, "SELECT MAX(done) FROM jobs");
    AT_TRY(
        run(q, "UPDATE jobs SET state = 0 WHERE state < 2 AND state = 1 AND attempts < " ATTEMPTS));
    if (sqlite3_prepare_v2(q->db, "SELECT row, id FROM jobs WHERE state < 2 AND state = 1", -1, &s,
                           NULL) != SQLITE_OK)
        AT_TRY(at_sql_fail(q, "looking for lost jobs"));
    while (sqlite3_step(s) == SQLITE_ROW)
        AT_TRY(give_up(q, sqlite3_column_int64(s, 0), at_sql_column(s, 1)));
    q->pending = (size_t)number_of(q, "SELECT COUNT(*) FROM jobs WHERE " WAITS);
    q->done = (size_t)number_of(q, "SELECT COUNT(*) FROM jobs WHERE done IS NOT NULL");
    q->counter = number_of(q, "SELECT value FROM counters WHERE name = 'number'");
    q->counter_kept = q->counter;
    if (q->pending) at_log(AT_INFO, "QUEUE-RESUME", "%zu jobs wait from before", q->pending);
out:
    sqlite3_finalize(s);
    return st;
}

at_status at_queue_open(const at_queue_config *c, at_queue **out)
{
    at_status st = AT_OK;
    at_queue *q = at_calloc(1, sizeof *q);

    if (!q) AT_TRY(at_fail(AT_ENOMEM, "queue: no memory"));
    q->config = *c;
    q->config.path = q->path = c->path ? at_strdup(c->path) : NULL;
    if (c->path && !q->path) AT_TRY(at_fail(AT_ENOMEM, "queue: no memory"));
    if (!q->config.max_pending) q->config.max_pending = 10000;
    if (!q->config.max_history) q->config.max_history = 10000;
    q->run = (int64_t)(at_now() * 1e9) ^ (int64_t)getpid() << 32;
    q->lock_made = pthread_mutex_init(&q->lock, NULL) == 0;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    q->wake_made = pthread_cond_init(&q->wake, &attr) == 0;
    pthread_condattr_destroy(&attr);
    if (!q->lock_made || !q->wake_made) AT_TRY(at_fail(AT_ENOMEM, "queue: no lock"));
    if (sqlite3_open_v2(c->path ? c->path : ":memory:", &q->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                        NULL) != SQLITE_OK)
        AT_TRY(at_sql_fail(q, "opening it"));
    sqlite3_busy_timeout(q->db, 2000);
    // One server a file: the second one is told so here, and nothing needs shared memory.
    AT_TRY(run(
        q,
        "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL;"
        "PRAGMA synchronous=NORMAL; PRAGMA auto_vacuum=INCREMENTAL;"
        "PRAGMA wal_autocheckpoint=4000; PRAGMA cache_size=-16000;")); // 16 MB: a page is often written again

    AT_TRY(run(q, schema));
    AT_TRY(add_columns(q));
    for (int i = 0; i < AT_SQL_COUNT; i++)
        if (sqlite3_prepare_v3(q->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT, &q->sql[i],
                               NULL) != SQLITE_OK)
            AT_TRY(at_sql_fail(q, "preparing a statement"));
    AT_TRY(recover(q));
    q->flusher = at_queue_flusher_start(c->path);
    *out = q;
    q = NULL;
out:
    at_queue_close(q);
    return st;
}

void at_queue_close(at_queue *q)
{
    if (!q) return;
    at_queue_flusher_stop(q->flusher);
    for (int i = 0; i < AT_SQL_COUNT; i++)
        sqlite3_finalize(q->sql[i]);
    sqlite3_close(q->db);
    if (q->wake_made) pthread_cond_destroy(&q->wake);
    if (q->lock_made) pthread_mutex_destroy(&q->lock);
    at_free(q->path);
    at_free(q);
}
