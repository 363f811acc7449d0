// SPDX-License-Identifier: Apache-2.0
// executor.c - running jobs; see executor.h. Order of the last messages: comfyui-contract 2.3.
#include "serve/executor_impl.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "serve/priority.h"
#include "serve/story.h"
#include "serve/tally.h"

// [id, ...] as the targets of a job: borrowed strings of `json`.
static const char **target_list(const json_t *json, size_t *n)
{
    *n = json_array_size(json);
    const char **list = at_calloc(*n + 1, sizeof *list);
    for (size_t i = 0; list && i < *n; i++)
        list[i] = json_string_value(json_array_get(json, i));
    return list;
}

// {"9": {"node_id": "9", ...}} for every node that showed something.
static char *meta_of(const char *outputs)
{
    json_t *all = NULL, *meta, *ui;
    const char *id;
    char *text;

    if (strcmp(outputs, "{}") == 0) return at_strdup("{}");
    meta = json_object();
    if (at_json_load("outputs", outputs, strlen(outputs), &all) != AT_OK) all = NULL;
    json_object_foreach(all, id, ui)
        json_object_set_new_nocheck(meta, id,
                                    json_pack("{s:s, s:s, s:n, s:s}", "node_id", id, "display_node",
                                              id, "parent_node", "real_node_id", id));
    text = meta ? at_json_dump(meta, 0) : NULL;
    json_decref(all);
    json_decref(meta);
    return text;
}

// ComfyUI's exception for a failure that no node told.
static const char *exception_of(at_status st)
{
    return st == AT_ENOMEM ? "MemoryError" : st == AT_EWORKFLOW ? "ValueError" : "RuntimeError";
}

// A file named by the job's row, which no other job ever has.
static char *claims_of(const at_executor *x, const at_ticket *t)
{
    return x->c.claims_dir ? at_strprintf("%s/%lld", x->c.claims_dir, (long long)t->row) : NULL;
}

static at_status run_engine(at_lane *l, const at_ticket *t, at_story *story, at_job_result *r,
                            at_cost *cost, at_run_cost *run)
{
    at_status st = AT_OK;
    at_executor *x = l->x;
    json_t *targets = NULL;
    const char **list = NULL;
    size_t count = 0;
    at_str text = {0};
    char *claims = claims_of(x, t);
    at_sink teller = {at_story_hear, story, &l->cancel};
    at_tally tally = {.metrics = x->c.metrics, .next = &teller};
    at_sink counts = {at_tally_hear, &tally, &l->cancel};
    at_meter meter = {.registry = x->c.registry, .next = &counts, .cost = cost};
    tally.meter = &meter;
    at_sink sink = {at_meter_hear, &meter, &l->cancel};

    at_str_printf(&text, "{\"prompt\": %s, \"extra_data\": %s}", t->prompt, t->extra_data);
    AT_TRY(at_json_load("targets", t->targets, strlen(t->targets), &targets));
    list = target_list(targets, &count);
    if (!list || text.failed) AT_TRY(at_fail(AT_ENOMEM, "job %s: no memory", t->id));
    at_job job = {.label = t->id,
                  .text = text.data,
                  .bytes = text.len,
                  .targets = list,
                  .target_count = count,
                  .id = t->id,
                  .owner = story->user,
                  .ranks = l->ranks,
                  .waiting = l->waiting,
                  .claims = claims,
                  .sink = &sink};
    st = at_runner_run(l->runner, &job, r, run);
    l->told = r->ranks;
    at_meter_end(&meter);
    cost->seconds = r->seconds;
    cost->joules = run->joules;
    at_tally_end(&tally, cost);
    if (run->crashed) atomic_fetch_add(&x->c.metrics->crashes, 1);
out:
    if (st != AT_OK && st != AT_ECANCELLED && !story->failed && !run->not_begun)
        at_story_fail(story, exception_of(st), at_error_text());
    at_str_free(&text);
    at_free(claims);
    at_free(list);
    json_decref(targets);
    return st;
}

// The job has ended for good: what it wrote need not be found again.
static void forget_claims(at_executor *x, const at_ticket *t)
{
    char *path = claims_of(x, t);
    if (path) unlink(path);
    at_free(path);
}

// The result goes to the history, and the next job comes with it. A disk that is full is waited for: the job is not
// forgotten.
static void finish(at_executor *x, const at_ticket *t, at_story *story, const char *outputs,
                   bool success, const at_cost *cost, at_ticket *next)
{
    json_t *status = at_story_status(story, success);
    char *status_text = status ? at_json_dump(status, 0) : NULL, *meta = meta_of(outputs);

    at_queue_result result = {.status_str = success ? "success" : "error",
                              .outputs = outputs,
                              .status = status_text ? status_text : "{}",
                              .meta = meta ? meta : "{}",
                              .cost = cost};
    bool more = next && !atomic_load(&x->stop) && !atomic_load(&x->drain) &&
                !atomic_load(&x->forget) && at_runner_is_up(x->c.runner);
    while (at_queue_finish_and_take(x->c.queue, t, &result, more ? next : NULL) != AT_OK) {
        if (more) { // without the next job, first
            more = false;
            continue;
        }
        at_log(AT_ERROR, "QUEUE-FINISH", "job %s: %s", t->id, at_error_text());
        if (atomic_load(&x->stop)) break;
        nanosleep(&(struct timespec){1, 0}, NULL);
    }
    if (!atomic_load(&x->stop)) forget_claims(x, t);
    json_decref(status);
    at_free(status_text);
    at_free(meta);
}

static void count(at_executor *x, const at_ticket *t, at_status st, double seconds)
{
    at_job_outcome o = st == AT_OK           ? AT_OUTCOME_SUCCESS
                       : st == AT_ECANCELLED ? AT_OUTCOME_INTERRUPTED
                                             : AT_OUTCOME_ERROR;
    atomic_fetch_add(&x->c.metrics->jobs[o], 1);
    at_histogram_add(&x->c.metrics->wait, t->waited);
    at_histogram_add(&x->c.metrics->run, seconds);
}

void at_lane_run(at_lane *l, const at_ticket *t, at_ticket *next)
{
    at_executor *x = l->x;
    at_story story = {0};
    at_job_result r = {0};
    at_cost cost = {.waited = t->waited, .joules = -1};
    at_run_cost run = {.joules = -1};
    const char *owner = x->c.separate ? t->user : NULL;

    at_status st = at_story_begin(&story, x->c.hub, t->id, owner, t->client_id, x->c.preview_size);
    story.lane = l->number;
    if (st != AT_OK) { // no memory even for the telling: the row says so
        at_log(AT_ERROR, "JOB-MEMORY", "%s", at_error_text());
        at_queue_result lost = {
            .status_str = "error",
            .outputs = "{}",
            .status = "{\"status_str\": \"error\", \"completed\": false, \"messages\": []}",
            .meta = "{}"};
        (void)at_queue_finish(x->c.queue, t, &lost);
        return;
    }
    st = run_engine(l, t, &story, &r, &cost, &run);
    bool ending = st == AT_ECANCELLED && atomic_load(&x->stop);
    if (run.not_begun) at_log(AT_WARN, "JOB-WAITS", "%s: %s", t->id, at_error_text());
    if (ending || run.not_begun) { // the server ends, or there is no engine: the job stays accepted
        if (at_queue_return(x->c.queue, t) != AT_OK)
            at_log(AT_ERROR, "QUEUE-RETURN", "job %s: %s", t->id, at_error_text());
    } else {
        count(x, t, st, r.seconds);
        finish(x, t, &story, r.outputs ? r.outputs : "{}", st == AT_OK, &cost, next);
        at_log(AT_INFO, "JOB-ENDED", "%s of %s: %s after %.2f s, waited %.2f s", t->id, t->user,
               at_status_facts(st)->name, r.seconds, t->waited);
        if (t->client_id)
            at_hub_post(x->c.hub, owner, t->client_id, "executing",
                        json_pack("{s:n, s:s}", "node", "prompt_id", t->id), false);
    }
    at_hub_set_current(x->c.hub, l->number, NULL, NULL, NULL);
    at_job_result_free(&r);
    at_story_end(&story);
}

void at_lane_set_running(at_lane *l, const at_ticket *t)
{
    pthread_mutex_lock(&l->x->lock);
    l->running = t;
    if (t && !atomic_load(&l->x->stop)) atomic_store(&l->cancel, false);
    pthread_mutex_unlock(&l->x->lock);
}

void at_executor_give_back(at_executor *x, at_ticket *t)
{
    if (!t->id) return;
    if (at_queue_return(x->c.queue, t) != AT_OK)
        at_log(AT_ERROR, "QUEUE-RETURN", "job %s: %s", t->id, at_error_text());
    at_ticket_free(t);
}

// The engine can take a job; else (a crash, and now no memory for it) wait longer and longer: the jobs stay accepted.
static bool engine_ready(at_executor *x, at_ticket *t, double *pause)
{
    at_status st = at_runner_ready(x->c.runner);
    atomic_store(x->c.up, st == AT_OK);
    if (st == AT_OK) {
        *pause = 0.5;
        return true;
    }
    if (atomic_load(&x->stop)) return false;
    at_log(AT_ERROR, "ENGINE-START", "%s; the next try in %.0f s", at_error_text(), *pause);
    at_executor_give_back(x, t);
    for (double end = at_now() + *pause; at_now() < end && !atomic_load(&x->stop);)
        nanosleep(&(struct timespec){0, 50000000}, NULL);
    *pause = *pause < 30 ? *pause * 2 : 30;
    return false;
}

// One job after the other, on this thread.
static void run_jobs(at_executor *x)
{
    at_lane *l = &x->lane[0];
    at_ticket t = {0}, next = {0};
    double pause = 0.5;

    while (!atomic_load(&x->stop) && !atomic_load(&x->drain)) {
        if (!engine_ready(x, &t, &pause)) continue;
        if (t.id || at_queue_take(x->c.queue, &t, 1)) {
            at_lane_set_running(l, &t);
            at_lane_run(l, &t, &next);
            at_lane_set_running(l, NULL);
            at_ticket_free(&t);
            t = next;
            next = (at_ticket){0};
            if (t.id) at_queue_tell(x->c.queue);
        }
        if (atomic_exchange(&x->forget, false)) at_runner_forget(x->c.runner);
        at_runner_idle(x->c.runner);
    }
    at_executor_give_back(x, &t);
}

// The engine has said how many devices it has: the lanes, and runners for those behind the first.
static at_status open_lanes(at_executor *x)
{
    at_status st = AT_OK;
    int devices, wanted;
    at_device_state d;

    at_runner_ranks(x->c.runner, &devices, &wanted);
    at_runner_device(x->c.runner, &d);
    AT_TRY(at_lanes_open(devices, wanted, x->c.lanes, d.host, &x->places));
    for (int i = 1; i < x->places.slots; i++) {
        at_runner_config r = {.argv = x->c.engine_argv,
                              .first = i * x->places.unit,
                              .most = at_lanes_reach(&x->places, i) * x->places.unit};
        at_runner *runner = NULL;
        AT_TRY(at_runner_open(&r, &runner));
        pthread_mutex_lock(&x->lock);
        x->lane[i].runner = runner;
        x->lanes = i + 1;
        pthread_mutex_unlock(&x->lock);
    }
out:
    return st;
}

static void *work(void *ctx)
{
    at_executor *x = ctx;
    at_device_state device;

    at_status st = at_runner_ready(x->c.runner);
    if (st == AT_OK) st = open_lanes(x);
    x->c.ready(x->c.ctx, st, st == AT_OK ? "" : at_error_text());
    if (st != AT_OK) return NULL;
    at_runner_device(x->c.runner, &device);
    if (device.host && x->c.gives_way) at_priority_lower_thread(); // and threads that come from it
    if (x->lanes > 1)
        at_executor_dispatch(x);
    else
        run_jobs(x);
    x->c.drained(x->c.ctx);
    return NULL;
}

static at_status open_locks(at_executor *x)
{
    pthread_condattr_t attr;
    bool lock = pthread_mutex_init(&x->lock, NULL) == 0, change = false;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    if (lock) change = pthread_cond_init(&x->change, &attr) == 0;
    pthread_condattr_destroy(&attr);
    if (lock && !change) pthread_mutex_destroy(&x->lock);
    return change ? AT_OK : at_fail(AT_ENOMEM, "server: no memory");
}

at_status at_executor_start(const at_executor_config *c, at_executor **out)
{
    at_executor *x = at_calloc(1, sizeof *x);
    at_status st = x ? open_locks(x) : at_fail(AT_ENOMEM, "server: no memory");
    if (st != AT_OK) {
        at_free(x);
        return st;
    }
    x->c = *c;
    x->lanes = 1;
    for (int i = 0; i < AT_LANES_MOST; i++) {
        x->lane[i].x = x;
        x->lane[i].number = i;
    }
    x->lane[0].runner = c->runner;
    if (pthread_create(&x->thread, NULL, work, x) != 0) {
        pthread_cond_destroy(&x->change);
        pthread_mutex_destroy(&x->lock);
        at_free(x);
        return at_fail(AT_ENOMEM, "server: the thread that runs jobs could not be started");
    }
    *out = x;
    return AT_OK;
}

bool at_executor_interrupt(at_executor *x, const char *user, const char *id)
{
    bool any = false;

    pthread_mutex_lock(&x->lock);
    for (int i = 0; i < x->lanes; i++) {
        at_lane *l = &x->lane[i];
        if (!l->running || (id && strcmp(id, l->running->id) != 0) ||
            (user && strcmp(user, l->running->user) != 0))
            continue;
        any = true;
        atomic_store(&l->cancel, true);
        at_runner_cancel(l->runner);
    }
    pthread_mutex_unlock(&x->lock);
    return any;
}

void at_executor_drain(at_executor *x)
{
    atomic_store(&x->drain, true);
    at_queue_wake(x->c.queue);
}

void at_executor_free_memory(at_executor *x)
{
    atomic_store(&x->forget, true);
    at_queue_wake(x->c.queue);
}

void at_executor_stop(at_executor *x)
{
    if (!x) return;
    pthread_mutex_lock(&x->lock);
    atomic_store(&x->stop, true);
    for (int i = 0; i < x->lanes; i++) {
        atomic_store(&x->lane[i].cancel, true);
        at_runner_cancel(x->lane[i].runner);
    }
    pthread_cond_broadcast(&x->change);
    pthread_mutex_unlock(&x->lock);
    at_queue_wake(x->c.queue);
    pthread_join(x->thread, NULL);
    for (int i = 1; i < x->lanes; i++)
        at_runner_close(x->lane[i].runner);
    pthread_cond_destroy(&x->change);
    pthread_mutex_destroy(&x->lock);
    at_free(x);
}
