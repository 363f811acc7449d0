// SPDX-License-Identifier: Apache-2.0
// engine_process.c - the process that runs a server's jobs; see runner.h for the other side.
// Idea: the main thread runs jobs as at_engine_run always does; a second thread hears the line (jobs, cancel), a third
// tells once a second what the device holds. All three write whole messages under one lock.
// Easy to get wrong: it must not outlive the server (it would write pictures that nobody asks for any more): the line's
// end is its end, even inside a job. A terminal's Ctrl-C comes here too: the server decides what it means.
// Owns: what came down the line and has not been run.
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "serve/priority.h"
#include "serve/runner.h"
#include "serve/wire.h"

typedef struct host {
    int line;
    at_engine *engine;
    pthread_mutex_t out; // of writing to the line
    at_str message;      // scratch of whoever holds it
    at_str waiting;      // messages that go with the next one
    double told;         // at_now() when the device was last told
    bool untold;         // a job ended since
    pthread_mutex_t lock;
    pthread_cond_t wake;
    at_str job; // the message; len 0: none
    bool has_job, forget, works;
    bool worked; // since memory was trimmed last
    atomic_bool cancel;
} host;

// --- up ----------------------------------------------------------------------------------------------
static void send_out(host *h)
{
    if (!h->waiting.len) {
        if (at_wire_send(h->line, &h->message) != AT_OK) _exit(0); // the server is gone
        return;
    }
    at_wire_queue(&h->waiting, &h->message);
    if (at_wire_flush(h->line, &h->waiting) != AT_OK) _exit(0);
}

// Another message follows at once.
static bool is_followed(at_event_kind kind)
{
    return kind == AT_EV_START || kind == AT_EV_CACHED || kind == AT_EV_SUCCESS;
}

static void on_log(void *ctx, at_log_level level, const char *id, const char *text)
{
    host *h = ctx;
    pthread_mutex_lock(&h->out);
    at_wire_begin(&h->message, AT_WIRE_LOG);
    at_wire_number(&h->message, level);
    at_wire_text(&h->message, id);
    at_wire_text(&h->message, text);
    send_out(h);
    pthread_mutex_unlock(&h->out);
}

static void on_event(void *ctx, const at_event *e)
{
    host *h = ctx;
    pthread_mutex_lock(&h->out);
    at_wire_begin(&h->message, AT_WIRE_EVENT);
    at_wire_number(&h->message, e->kind);
    at_wire_text(&h->message, e->node);
    at_wire_text(&h->message, e->class_type);
    at_wire_text(&h->message, e->display);
    at_wire_text(&h->message, e->parent);
    at_wire_text(&h->message, e->real);
    at_wire_text(&h->message, e->text);
    at_wire_number(&h->message, e->value);
    at_wire_number(&h->message, e->max);
    at_wire_bytes(&h->message, e->data, e->data ? e->bytes : 0);
    if (is_followed(e->kind))
        at_wire_queue(&h->waiting, &h->message);
    else
        send_out(h);
    pthread_mutex_unlock(&h->out);
}

static double joules(at_device *d)
{
    at_device_usage u = {0};
    return d->ops->usage && d->ops->usage(d, &u) == AT_OK && u.joules > 0 ? u.joules : -1;
}

// What no driver counts for the CPU: how much of its time this process took since it was last asked here.
// The first call, and one that comes too soon, say what the last one said.
static bool cpu_usage(at_device_usage *u, uint64_t rest, uint64_t total)
{
    static struct {
        double at, spent, busy;
    } last;
    struct timespec spent;
    cpu_set_t set;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    double now = at_now(), seconds = (double)spent.tv_sec + (double)spent.tv_nsec / 1e9;
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    if (now - last.at > 0.2) {
        last.busy = last.at > 0 ? (seconds - last.spent) / ((now - last.at) * cores) : 0;
        last.at = now;
        last.spent = seconds;
    }
    *u = (at_device_usage){.busy = last.busy > 1 ? 1 : last.busy,
                           .memory_busy = -1,
                           .watts = -1,
                           .limit_watts = -1,
                           .celsius = -1,
                           .used_bytes = total - rest,
                           .total_bytes = total};
    return true;
}

// Under h->out.
static bool usage_of(at_device *d, at_device_usage *u, uint64_t rest, uint64_t total)
{
    if (d->ops->usage) return d->ops->usage(d, u) == AT_OK;
    return d->host && cpu_usage(u, rest, total);
}

static void tell_device(host *h)
{
    at_device *d = at_engine_env(h->engine)->device;
    uint64_t rest = 0, total = 0;
    at_device_usage u = {0};

    if (d->ops->memory(d, &rest, &total) != AT_OK) rest = total = 0;
    pthread_mutex_lock(&h->out);
    bool known = usage_of(d, &u, rest, total);
    at_wire_begin(&h->message, AT_WIRE_DEVICE);
    at_wire_number(&h->message, (double)rest);
    at_wire_number(&h->message, (double)total);
    at_wire_number(&h->message, (double)atomic_load(&d->live_bytes));
    at_wire_number(&h->message, (double)atomic_load(&d->peak_bytes));
    at_wire_bytes(&h->message, known ? &u : NULL, known ? sizeof u : 0);
    send_out(h);
    h->told = at_now();
    h->untold = false;
    pthread_mutex_unlock(&h->out);
}

// Not after each of many short jobs: what is left out here is told when no job comes (serve_jobs).
static void tell_device_after_a_job(host *h)
{
    pthread_mutex_lock(&h->out);
    bool soon = at_now() - h->told < 0.02;
    h->untold = soon;
    pthread_mutex_unlock(&h->out);
    if (!soon) tell_device(h);
}

static void hello(host *h, at_status st)
{
    at_device *d = st == AT_OK ? at_engine_env(h->engine)->device : NULL;
    pthread_mutex_lock(&h->out);
    at_wire_begin(&h->message, AT_WIRE_HELLO);
    at_wire_number(&h->message, st);
    at_wire_text(&h->message, st == AT_OK ? "" : at_error_text());
    at_wire_text(&h->message, d ? d->name : "");
    at_wire_text(&h->message, d ? d->description : "");
    at_wire_number(&h->message, d ? d->host : 0);
    const at_env_ranks *r = d ? &at_engine_env(h->engine)->ranks : NULL;
    at_wire_number(&h->message, r && !r->world ? r->all : 1);
    at_wire_number(&h->message, r && !r->automatic ? at_degrees_ranks(&r->degrees) : 1);
    send_out(h);
    pthread_mutex_unlock(&h->out);
}

// Why a device can do nothing any more in this process; NULL: all can.
static const char *loss(void)
{
    for (int i = 0; i < at_device_count(); i++)
        if (*at_device_at(i)->lost) return at_device_at(i)->lost;
    return NULL;
}

// words: of a failure.
static void tell_result(host *h, at_status st, const char *words, const at_job_result *r,
                        double energy)
{
    pthread_mutex_lock(&h->out);
    at_wire_begin(&h->message, AT_WIRE_RESULT);
    at_wire_number(&h->message, st);
    at_wire_text(&h->message, words);
    at_wire_text(&h->message, r->outputs);
    at_wire_text(&h->message, r->error);
    at_wire_text(&h->message, r->node_errors);
    at_wire_number(&h->message, r->seconds);
    at_wire_number(&h->message, r->ranks);
    at_wire_number(&h->message, energy);
    at_wire_text(&h->message, loss());
    send_out(h);
    pthread_mutex_unlock(&h->out);
}

// --- down --------------------------------------------------------------------------------------------
static void *hear(void *ctx)
{
    host *h = ctx;
    static at_wire_in in; // one line, one thread
    at_str m = {0};
    at_wire_kind kind;

    while (at_wire_receive(h->line, &in, &m) == AT_OK) {
        (void)at_wire_open(&m, &kind);
        pthread_mutex_lock(&h->lock);
        if (kind == AT_WIRE_CANCEL) atomic_store(&h->cancel, true);
        if (kind == AT_WIRE_FORGET) h->forget = true;
        if (kind == AT_WIRE_JOB) {
            at_str_free(&h->job);
            h->job = m;
            m = (at_str){0};
            h->has_job = true;
            atomic_store(&h->cancel, false); // a cancel that comes behind a job is for it
        }
        pthread_cond_signal(&h->wake);
        pthread_mutex_unlock(&h->lock);
    }
    _exit(0); // the server ended: so does whatever runs here
}

// A device that is lost between two jobs shall not cost the next one: the server starts the engine anew.
static void end_if_idle(host *h)
{
    pthread_mutex_lock(&h->lock);
    bool idle = !h->works && !h->has_job;
    pthread_mutex_unlock(&h->lock);
    if (!idle) return; // its result says so
    at_log(AT_ERROR, "ENGINE-LOST", "%s: between two jobs; the engine ends", loss());
    _exit(0);
}

// A second or more after the last job, what only its loading took goes back.
static void trim_if_idle(host *h)
{
    pthread_mutex_lock(&h->lock);
    bool idle = h->worked && !h->works && !h->has_job;
    if (idle) h->worked = false;
    pthread_mutex_unlock(&h->lock);
    if (idle) at_devices_trim(false);
}

static void *tell(void *ctx)
{
    host *h = ctx;
    for (;;) {
        nanosleep(&(struct timespec){1, 0}, NULL);
        tell_device(h);
        if (loss()) end_if_idle(h);
        trim_if_idle(h);
    }
    return NULL;
}

static void run_job(host *h, const at_str *message)
{
    at_wire_kind kind;
    at_wire_reader r = at_wire_open(message, &kind);
    at_sink sink = {on_event, h, &h->cancel};
    at_job_result result = {0};
    at_job job = {.sink = &sink};

    job.id = job.label = at_wire_take_text(&r);
    job.owner = at_wire_take_text(&r);
    job.claims = at_wire_take_text(&r);
    job.text = at_wire_take_text(&r);
    job.bytes = job.text ? strlen(job.text) : 0;
    job.ranks = (int)at_wire_take_number(&r);
    job.waiting = (int)at_wire_take_number(&r);
    job.target_count = (size_t)at_wire_take_number(&r);
    const char **targets = at_calloc(job.target_count + 1, sizeof *targets);
    for (size_t i = 0; targets && i < job.target_count; i++)
        targets[i] = at_wire_take_text(&r);
    job.targets = targets;
    at_device *d = at_engine_env(h->engine)->device;
    double before = joules(d);
    at_status st = targets && job.text && !r.failed
                       ? at_engine_run(h->engine, &job, &result)
                       : at_fail(AT_ENOMEM, "job %s: no memory", job.id ? job.id : "");
    char words[2048]; // asking the device may fail with others
    snprintf(words, sizeof words, "%s", st == AT_OK ? "" : at_error_text());
    double after = joules(d);
    if (st == AT_OK)
        tell_device_after_a_job(h);
    else
        tell_device(h); // which notices that it is lost
    tell_result(h, st, words, &result, before >= 0 && after >= before ? after - before : -1);
    at_job_result_free(&result);
    at_free(targets);
}

// Waits for a job or an order, under h->lock.
static void wait_for_work(host *h)
{
    struct timespec until;
    int wait = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 5000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    while (!h->has_job && !h->forget && wait != ETIMEDOUT)
        wait = pthread_cond_timedwait(&h->wake, &h->lock, &until);
    if (h->has_job || h->forget) return;
    pthread_mutex_unlock(&h->lock);
    pthread_mutex_lock(&h->out);
    bool untold = h->untold;
    pthread_mutex_unlock(&h->out);
    if (untold) tell_device(h);
    pthread_mutex_lock(&h->lock);
    while (!h->has_job && !h->forget)
        pthread_cond_wait(&h->wake, &h->lock);
}

static _Noreturn void serve_jobs(host *h)
{
    for (;;) {
        pthread_mutex_lock(&h->lock);
        wait_for_work(h);
        bool forget = h->forget, has_job = h->has_job;
        at_str job = has_job ? h->job : (at_str){0};
        if (has_job) h->job = (at_str){0};
        h->forget = h->has_job = false;
        h->works = has_job;
        pthread_mutex_unlock(&h->lock);
        if (forget) at_engine_forget(h->engine);
        if (has_job) run_job(h, &job);
        pthread_mutex_lock(&h->lock);
        h->works = false;
        h->worked |= has_job;
        pthread_mutex_unlock(&h->lock);
        at_str_free(&job);
    }
}

int at_engine_process_line(void)
{
    const char *text = getenv("ATELIER_ENGINE_LINE");
    return text && *text ? atoi(text) : -1;
}

// Which of the devices are this process's: "FIRST,MOST". All where nobody says.
static void take_share(at_engine_config *c)
{
    const char *text = getenv("ATELIER_ENGINE_SHARE");

    if (text && sscanf(text, "%d,%d", &c->first_rank, &c->most_ranks) != 2)
        c->first_rank = c->most_ranks = 0;
    unsetenv("ATELIER_ENGINE_SHARE");
}

// The kernel, when memory runs out, shall take this process and not the one that keeps the queue.
static void offer_to_the_killer(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (write(fd, "500", 3) != 3) at_log(AT_DEBUG, "ENGINE-OOM", "oom_score_adj is not for us");
    close(fd);
}

at_status at_engine_process(int line, const at_engine_config *config)
{
    host h = {.line = line,
              .out = PTHREAD_MUTEX_INITIALIZER,
              .lock = PTHREAD_MUTEX_INITIALIZER,
              .wake = PTHREAD_COND_INITIALIZER};
    pthread_t thread;
    at_engine_config own = *config;

    prctl(PR_SET_PDEATHSIG, SIGKILL); // beside the line's end: a job that hangs does not read it
    prctl(PR_SET_NAME, "atelier-engine");
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); // a file that may not grow is an error of its writer
    fcntl(line, F_SETFD, FD_CLOEXEC);
    unsetenv("ATELIER_ENGINE_LINE"); // nothing that is started from here is one
    take_share(&own);
    offer_to_the_killer();
    json_object_seed(0); // before there are threads
    at_log_set_writer(on_log, &h);
    at_status st = at_engine_open(&own, &h.engine);
    if (st == AT_OK) tell_device(&h); // known when its hello is heard
    hello(&h, st);
    if (st != AT_OK) _exit(0); // the server tells why
    if (at_engine_env(h.engine)->device->host) at_priority_lower_process();
    if (pthread_create(&thread, NULL, hear, &h) != 0 ||
        pthread_create(&thread, NULL, tell, &h) != 0)
        _exit(1);
    serve_jobs(&h);
}
