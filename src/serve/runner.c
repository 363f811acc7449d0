// SPDX-License-Identifier: Apache-2.0
// runner.c - the server's side of the engine's process; see runner.h.
// Easy to get wrong: a cancel must reach the job that it was meant for: it is sent behind the job's message, under the
// lock that also sends that. An engine that died while it was idle had no job: the next one is given to a new engine.
#include "serve/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "serve/wire.h"

enum { LINE = 3, STUCK_SECONDS = 20 }; // the engine's descriptor; how long a cancelled job may take

struct at_runner {
    const char *const *argv;
    at_engine *engine;    // runs jobs here; NULL: a process does
    int first, most;      // its devices; most 0: all
    int devices, wanted;  // as its hello said
    pthread_mutex_t lock; // of sending, of `device` and of the four below
    int line;             // -1: there is no process
    pid_t pid;
    bool in_flight, cancelled;
    double cancelled_at;
    bool greeted; // its hello came
    bool heard;   // it has said something of the job that it runs
    at_wire_in incoming;
    at_str in, out;
    at_device_state device;
};

// --- the process -------------------------------------------------------------------------------------
extern char **environ;

// Our environment with the line's number and (not NULL) the share in front. The strings are borrowed, the list is the
// caller's.
static char **environment(char *line_is, char *share_is)
{
    size_t n = 0;
    while (environ[n])
        n++;
    char **list = at_calloc(n + 3, sizeof *list), **at = list;
    if (!list) return NULL;
    *at++ = line_is;
    if (share_is) *at++ = share_is;
    memcpy(at, environ, n * sizeof *list);
    return list;
}

static at_status spawn(at_runner *r, int theirs)
{
    char line_is[] = "ATELIER_ENGINE_LINE=3";
    char share_is[64];
    posix_spawn_file_actions_t files;
    snprintf(share_is, sizeof share_is, "ATELIER_ENGINE_SHARE=%d,%d", r->first, r->most);
    char **list = environment(line_is, r->most ? share_is : NULL);
    pid_t pid = -1;
    int error = ENOMEM;

    if (list && posix_spawn_file_actions_init(&files) == 0) {
        error = posix_spawn_file_actions_adddup2(&files, theirs, LINE);
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 34)
        if (!error) error = posix_spawn_file_actions_addclosefrom_np(&files, LINE + 1);
#endif
        if (!error)
            error = posix_spawn(&pid, "/proc/self/exe", &files, NULL,
                                (char *const *)(uintptr_t)r->argv, list);
        posix_spawn_file_actions_destroy(&files);
    }
    at_free(list);
    if (error)
        return at_fail(AT_EIO,
                       "the engine's process cannot be started: %s; --one-process runs jobs inside "
                       "the server",
                       strerror(error));
    r->pid = pid;
    return AT_OK;
}

static at_status start(at_runner *r)
{
    at_status st = AT_OK;
    int pair[2] = {-1, -1}, theirs = -1;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        AT_TRY(at_fail(AT_EIO, "the engine's line: %s", strerror(errno)));
    theirs = fcntl(pair[1], F_DUPFD_CLOEXEC, 16); // dup2 to itself would keep it closed
    if (theirs < 0) AT_TRY(at_fail(AT_EIO, "the engine's line: %s", strerror(errno)));
    AT_TRY(spawn(r, theirs));
    pthread_mutex_lock(&r->lock);
    r->line = pair[0];
    r->incoming.from = r->incoming.to = 0;
    r->greeted = false;
    pthread_mutex_unlock(&r->lock);
    pair[0] = -1;
out:
    if (pair[0] >= 0) close(pair[0]);
    if (pair[1] >= 0) close(pair[1]);
    if (theirs >= 0) close(theirs);
    return st;
}

// Ends it if it has not ended; how it did, as words.
static void bury(at_runner *r, char how[64])
{
    int status = 0;

    pthread_mutex_lock(&r->lock);
    if (r->line >= 0) close(r->line);
    r->line = -1;
    r->in_flight = r->greeted = false;
    pthread_mutex_unlock(&r->lock);
    snprintf(how, 64, "it is gone");
    if (r->pid <= 0) return;
    kill(r->pid, SIGKILL); // it is ending, or hangs
    while (waitpid(r->pid, &status, 0) < 0 && errno == EINTR)
        ;
    r->pid = 0;
    if (WIFSIGNALED(status))
        snprintf(how, 64, "signal %d, %s", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(how, 64, "exit status %d", WEXITSTATUS(status));
}

// --- what it says ------------------------------------------------------------------------------------
static void hear_device(at_runner *r, at_wire_reader *m)
{
    at_device_state d = r->device; // this thread alone writes it
    size_t n = 0;

    d.free_bytes = (uint64_t)at_wire_take_number(m);
    d.total_bytes = (uint64_t)at_wire_take_number(m);
    d.held_bytes = (uint64_t)at_wire_take_number(m);
    d.peak_bytes = (uint64_t)at_wire_take_number(m);
    const void *usage = at_wire_take_bytes(m, &n);
    d.usage_known = usage && n == sizeof d.usage;
    if (d.usage_known) memcpy(&d.usage, usage, sizeof d.usage);
    if (m->failed) return;
    pthread_mutex_lock(&r->lock);
    r->device = d;
    pthread_mutex_unlock(&r->lock);
}

static void hear_log(at_wire_reader *m)
{
    at_log_level level = (at_log_level)at_wire_take_number(m);
    const char *id = at_wire_take_text(m), *text = at_wire_take_text(m);
    at_log(level, id ? id : "ENGINE", "%s", text ? text : "");
}

static void hear_event(at_wire_reader *m, const at_job *job)
{
    at_event e = {.job = job->id};
    e.kind = (at_event_kind)at_wire_take_number(m);
    e.node = at_wire_take_text(m);
    e.class_type = at_wire_take_text(m);
    e.display = at_wire_take_text(m);
    e.parent = at_wire_take_text(m);
    e.real = at_wire_take_text(m);
    e.text = at_wire_take_text(m);
    e.value = at_wire_take_number(m);
    e.max = at_wire_take_number(m);
    e.data = at_wire_take_bytes(m, &e.bytes);
    if (!m->failed) at_sink_emit(job->sink, &e);
}

// The status that a message carries, with its text as the failure's.
static at_status take_status(at_wire_reader *m)
{
    at_status st = (at_status)at_wire_take_number(m);
    const char *text = at_wire_take_text(m);
    if (st == AT_OK) return AT_OK;
    return at_fail(st > AT_OK && st < AT_STATUS_COUNT ? st : AT_EINTERNAL, "%s", text ? text : "");
}

static at_status hear_hello(at_runner *r, at_wire_reader *m)
{
    at_status st = take_status(m);
    const char *name = at_wire_take_text(m), *description = at_wire_take_text(m);
    bool host = at_wire_take_number(m) != 0;
    int devices = (int)at_wire_take_number(m), wanted = (int)at_wire_take_number(m);

    pthread_mutex_lock(&r->lock);
    r->greeted = st == AT_OK;
    r->devices = devices;
    r->wanted = wanted;
    snprintf(r->device.name, sizeof r->device.name, "%s", name ? name : "");
    snprintf(r->device.description, sizeof r->device.description, "%s",
             description ? description : "");
    r->device.host = host;
    pthread_mutex_unlock(&r->lock);
    return st;
}

// Waits until the engine says something. A job that was cancelled long ago hangs: its process is ended.
static void watch(at_runner *r)
{
    struct pollfd p = {.fd = r->line, .events = POLLIN};
    int said = 0;
    while (!said) {
        said = at_wire_ready(&r->incoming) ? 1 : poll(&p, 1, 500);
        pthread_mutex_lock(&r->lock);
        bool stuck = r->cancelled && at_now() - r->cancelled_at > STUCK_SECONDS;
        r->cancelled = r->cancelled && !stuck; // once
        pthread_mutex_unlock(&r->lock);
        if (!stuck) continue;
        at_log(AT_ERROR, "ENGINE-STUCK", "the job does not stop within %d s: its process is ended",
               STUCK_SECONDS);
        kill(r->pid, SIGKILL);
    }
}

// The next message that is not of the kinds that come at any time. AT_EIO: the process is gone.
static at_status next(at_runner *r, at_wire_reader *m, at_wire_kind *kind)
{
    for (;;) {
        watch(r);
        at_status st = at_wire_receive(r->line, &r->incoming, &r->in);
        if (st != AT_OK) return st;
        *m = at_wire_open(&r->in, kind);
        if (*kind == AT_WIRE_LOG)
            hear_log(m);
        else if (*kind == AT_WIRE_DEVICE)
            hear_device(r, m);
        else
            return AT_OK;
    }
}

at_status at_runner_ready(at_runner *r)
{
    at_wire_reader m;
    at_wire_kind kind = AT_WIRE_HELLO;
    char how[64];

    if (r->engine) return AT_OK;
    at_status st = r->line < 0 ? start(r) : AT_OK;
    while (st == AT_OK && !r->greeted) {
        st = next(r, &m, &kind);
        if (st != AT_OK) {
            bury(r, how);
            return at_fail(AT_EDEVICE, "the engine ended while it started: %s", how);
        }
        if (kind == AT_WIRE_HELLO) st = hear_hello(r, &m);
    }
    if (st != AT_OK) { // the words of its failure stay
        char text[1024];
        snprintf(text, sizeof text, "%s", at_error_text());
        bury(r, how);
        return at_fail(st, "%s", text);
    }
    return st;
}

bool at_runner_is_up(at_runner *r)
{
    pthread_mutex_lock(&r->lock);
    bool up = r->engine || (r->line >= 0 && r->greeted);
    pthread_mutex_unlock(&r->lock);
    return up;
}

void at_runner_ranks(at_runner *r, int *devices, int *wanted)
{
    pthread_mutex_lock(&r->lock);
    *devices = r->engine || r->devices < 1 ? 1 : r->devices;
    *wanted = r->engine || r->wanted < 1 ? 1 : r->wanted;
    pthread_mutex_unlock(&r->lock);
}

void at_runner_rest(at_runner *r)
{
    char how[64];
    if (!r->engine) bury(r, how);
}

// --- a job -------------------------------------------------------------------------------------------
static at_status send_job(at_runner *r, const at_job *job)
{
    pthread_mutex_lock(&r->lock);
    at_wire_begin(&r->out, AT_WIRE_JOB);
    at_wire_text(&r->out, job->id);
    at_wire_text(&r->out, job->owner);
    at_wire_text(&r->out, job->claims);
    at_wire_text(&r->out, job->text);
    at_wire_number(&r->out, job->ranks);
    at_wire_number(&r->out, job->waiting);
    at_wire_number(&r->out, (double)job->target_count);
    for (size_t i = 0; i < job->target_count; i++)
        at_wire_text(&r->out, job->targets[i]);
    at_status st = at_wire_send(r->line, &r->out);
    at_str_free(&r->out);
    r->out = (at_str){0};
    r->in_flight = st == AT_OK;
    if (st == AT_OK && at_sink_cancelled(job->sink)) { // it came in between
        at_wire_begin(&r->out, AT_WIRE_CANCEL);
        (void)at_wire_send(r->line, &r->out);
    }
    pthread_mutex_unlock(&r->lock);
    return st;
}

static at_status take_copy(at_wire_reader *m, char **out)
{
    const char *text = at_wire_take_text(m);
    *out = text ? at_strdup(text) : NULL;
    return text && !*out ? at_fail(AT_ENOMEM, "engine: no memory for a result") : AT_OK;
}

static at_status hear_result(at_runner *r, at_wire_reader *m, at_job_result *out, at_run_cost *cost)
{
    at_status st = take_status(m), copied;
    char text[2048], how[64];

    snprintf(text, sizeof text, "%s", st == AT_OK ? "" : at_error_text());
    copied = take_copy(m, &out->outputs);
    if (copied == AT_OK) copied = take_copy(m, &out->error);
    if (copied == AT_OK) copied = take_copy(m, &out->node_errors);
    out->seconds = at_wire_take_number(m);
    out->ranks = (int)at_wire_take_number(m);
    cost->joules = at_wire_take_number(m);
    const char *lost = at_wire_take_text(m);
    if (lost) {
        at_log(AT_ERROR, "ENGINE-LOST", "%s: the engine starts anew", lost);
        bury(r, how); // nothing on that device works any more in that process
    }
    return st != AT_OK ? at_fail(st, "%s", text) : copied;
}

// Until its result is there; false: the process ended.
static bool follow(at_runner *r, const at_job *job, at_job_result *out, at_run_cost *cost,
                   at_status *st)
{
    at_wire_reader m;
    at_wire_kind kind;

    for (;;) {
        if (next(r, &m, &kind) != AT_OK) return false;
        if (kind == AT_WIRE_EVENT) {
            r->heard = true;
            hear_event(&m, job);
        }
        if (kind != AT_WIRE_RESULT) continue;
        pthread_mutex_lock(&r->lock);
        r->in_flight = r->cancelled = false;
        pthread_mutex_unlock(&r->lock);
        *st = hear_result(r, &m, out, cost);
        return true;
    }
}

static bool is_gone(const at_runner *r)
{
    struct pollfd p = {.fd = r->line, .events = POLLIN};
    char byte;
    if (at_wire_ready(&r->incoming)) return false;
    return r->line < 0 ||
           (poll(&p, 1, 0) > 0 && recv(r->line, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0);
}

static at_status run_here(at_runner *r, const at_job *job, at_job_result *out, at_run_cost *cost)
{
    at_device_state before, after;
    at_runner_device(r, &before);
    at_status st = at_engine_run(r->engine, job, out);
    at_runner_device(r, &after);
    if (before.usage_known && after.usage_known && before.usage.joules > 0)
        cost->joules = after.usage.joules - before.usage.joules;
    return st;
}

// One try to run the job in the process. False: it ended; *early: before it had said a word of the job.
static bool attempt(at_runner *r, const at_job *job, at_job_result *out, at_run_cost *cost,
                    at_status *st, bool *early)
{
    at_runner_idle(r); // it may have died meanwhile
    r->heard = false;
    *st = at_runner_ready(r);
    cost->not_begun = *st != AT_OK;
    if (*st == AT_OK) *st = send_job(r, job);
    if (cost->not_begun || (*st != AT_OK && *st != AT_EIO)) return true;
    if (*st == AT_OK && follow(r, job, out, cost, st)) return true;
    pthread_mutex_lock(&r->lock);
    *early = !r->heard && !r->cancelled;
    r->cancelled = false;
    pthread_mutex_unlock(&r->lock);
    return false;
}

at_status at_runner_run(at_runner *r, const at_job *job, at_job_result *out, at_run_cost *cost)
{
    double start = at_now();
    bool early = false;
    char how[64];
    at_status st;

    *out = (at_job_result){0};
    *cost = (at_run_cost){.joules = -1};
    if (r->engine) return run_here(r, job, out, cost);
    if (attempt(r, job, out, cost, &st, &early)) return st;
    bury(r, how);
    if (early) { // its end was not the job's doing; a second one is taken to be
        if (attempt(r, job, out, cost, &st, &early)) return st;
        bury(r, how);
    }
    out->seconds = at_now() - start;
    cost->crashed = true;
    at_log(AT_ERROR, "ENGINE-CRASH", "job %s: the engine ended (%s); it starts anew", job->id, how);
    return at_fail(AT_EDEVICE,
                   "The engine ended while this job ran (%s). The job is not tried again; the "
                   "server goes on.",
                   how);
}

void at_runner_cancel(at_runner *r)
{
    pthread_mutex_lock(&r->lock);
    if (!r->cancelled) r->cancelled_at = at_now();
    r->cancelled = r->in_flight;
    if (r->in_flight) {
        at_wire_begin(&r->out, AT_WIRE_CANCEL);
        (void)at_wire_send(r->line, &r->out);
    } else if (r->line >= 0 && !r->greeted) {
        shutdown(r->line, SHUT_RDWR); // who waits for its hello waits no longer
    }
    pthread_mutex_unlock(&r->lock);
}

void at_runner_forget(at_runner *r)
{
    if (r->engine) {
        at_engine_forget(r->engine);
        return;
    }
    pthread_mutex_lock(&r->lock);
    at_wire_begin(&r->out, AT_WIRE_FORGET);
    if (r->line >= 0) (void)at_wire_send(r->line, &r->out);
    pthread_mutex_unlock(&r->lock);
}

void at_runner_idle(at_runner *r)
{
    at_wire_reader m;
    at_wire_kind kind;
    char how[64];

    if (r->engine || r->line < 0 || !r->greeted) return;
    while (!is_gone(r)) {
        struct pollfd p = {.fd = r->line, .events = POLLIN};
        if (!at_wire_ready(&r->incoming) && poll(&p, 1, 0) <= 0) return;
        if (at_wire_receive(r->line, &r->incoming, &r->in) != AT_OK) break;
        m = at_wire_open(&r->in, &kind);
        if (kind == AT_WIRE_LOG) hear_log(&m);
        if (kind == AT_WIRE_DEVICE) hear_device(r, &m);
    }
    bury(r, how);
    at_log(AT_ERROR, "ENGINE-CRASH", "the engine ended without a job (%s); it starts anew", how);
    if (start(r) != AT_OK) at_log(AT_ERROR, "ENGINE-START", "%s", at_error_text());
}

void at_runner_device(at_runner *r, at_device_state *out)
{
    if (!r->engine) {
        pthread_mutex_lock(&r->lock);
        *out = r->device;
        pthread_mutex_unlock(&r->lock);
        return;
    }
    at_device *d = at_engine_env(r->engine)->device;
    *out = (at_device_state){.host = d->host,
                             .held_bytes = atomic_load(&d->live_bytes),
                             .peak_bytes = atomic_load(&d->peak_bytes)};
    snprintf(out->name, sizeof out->name, "%s", d->name);
    snprintf(out->description, sizeof out->description, "%s", d->description);
    if (d->ops->memory(d, &out->free_bytes, &out->total_bytes) != AT_OK)
        out->free_bytes = out->total_bytes = 0;
    out->usage_known = d->ops->usage && d->ops->usage(d, &out->usage) == AT_OK;
}

// --- opening -----------------------------------------------------------------------------------------
at_status at_runner_open(const at_runner_config *c, at_runner **out)
{
    at_runner *r = at_calloc(1, sizeof *r);
    if (!r || pthread_mutex_init(&r->lock, NULL) != 0) {
        at_free(r);
        return at_fail(AT_ENOMEM, "server: no memory");
    }
    r->argv = c->argv;
    r->engine = c->argv ? NULL : c->engine;
    r->first = c->first;
    r->most = c->most;
    r->line = -1;
    at_status st = r->engine || r->most ? AT_OK : start(r);
    if (st != AT_OK) {
        at_runner_close(r);
        return st;
    }
    *out = r;
    return AT_OK;
}

void at_runner_close(at_runner *r)
{
    char how[64];
    if (!r) return;
    bury(r, how);
    at_str_free(&r->in);
    at_str_free(&r->out);
    pthread_mutex_destroy(&r->lock);
    at_free(r);
}
