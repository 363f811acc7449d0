// SPDX-License-Identifier: Apache-2.0
// dispatch.c - several jobs at once, each on its lane's devices; see lanes.h for who gets which.
// Idea: the executor's thread takes a job as soon as a lane is free for it and no sooner, so jobs begin in the queue's
// order. Engines behind the first one are started when jobs wait, and end a while after the last one that did: what
// they hold of the devices is then the first one's again.
// Easy to get wrong: a lane's thread alone talks to its runner, so that starting an engine, which takes seconds, holds
// nobody up. An engine cannot see what another one holds of a device: where both would not fit, one gives it back.
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/log.h"
#include "serve/executor_impl.h"

enum { REST_SECONDS = 60 }; // an engine behind the first one that has no work for so long ends

// Under the lock: until something changes, `seconds` at most.
static void wait_for_change(at_executor *x, double seconds)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)seconds;
    until.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    (void)pthread_cond_timedwait(&x->change, &x->lock, &until);
}

// --- a lane's thread: all of these under the lock, which they let go while they do something ---------
static void run_given(at_lane *l)
{
    at_executor *x = l->x;
    at_ticket t = l->given;

    l->told = 0;
    pthread_mutex_unlock(&x->lock);
    at_lane_run(l, &t, NULL);
    bool up = at_runner_is_up(l->runner);
    pthread_mutex_lock(&x->lock);
    l->running = NULL;
    l->given = (at_ticket){0};
    at_ticket_free(&t);
    l->up = up;
    l->used = at_now();
    at_lanes_leave(&x->places, l->number);
    if (l->number == 0)
        at_lanes_learn(&x->places, l->told); // the others see their own devices alone
    pthread_cond_broadcast(&x->change);
}

// Two engines on one device: each sees what is left, and would rather fetch its weights for each step than ask.
static void make_room(at_lane *l)
{
    at_executor *x = l->x;
    at_device_state first, own;

    at_runner_device(x->lane[0].runner, &first);
    at_runner_device(l->runner, &own);
    if (own.host || !own.total_bytes || own.free_bytes >= first.held_bytes) return;
    at_log(AT_INFO, "LANE-ROOM",
           "%s has %.1f GiB left: models leave the engine of all devices once", own.name,
           (double)own.free_bytes / 0x1p30);
    x->lane[0].forget = true;
}

static void start_engine(at_lane *l)
{
    at_executor *x = l->x;

    pthread_mutex_unlock(&x->lock);
    at_status st = at_runner_ready(l->runner);
    pthread_mutex_lock(&x->lock);
    l->up = st == AT_OK;
    l->used = at_now();
    if (l->number == 0) atomic_store(x->c.up, l->up);
    if (l->up) {
        l->pause = 0.5;
        if (l->number) make_room(l);
    } else if (!atomic_load(&x->stop)) {
        at_log(AT_ERROR, "ENGINE-START", "lane %d: %s; the next try in %.0f s", l->number,
               at_error_text(), l->pause);
        l->retry = l->used + l->pause;
        l->pause = l->pause < 30 ? l->pause * 2 : 30;
    }
    pthread_cond_broadcast(&x->change);
}

// Its memory is the first engine's again.
static void end_engine(at_lane *l)
{
    at_executor *x = l->x;

    l->up = l->wanted = l->forget = false;
    pthread_mutex_unlock(&x->lock);
    at_runner_rest(l->runner);
    pthread_mutex_lock(&x->lock);
    pthread_cond_broadcast(&x->change);
}

static void look_after(at_lane *l)
{
    at_executor *x = l->x;
    bool forget = l->forget;

    l->forget = false;
    pthread_mutex_unlock(&x->lock);
    if (forget) at_runner_forget(l->runner);
    at_runner_idle(l->runner);
    bool up = at_runner_is_up(l->runner);
    pthread_mutex_lock(&x->lock);
    l->up = up;
}

static void *drive(void *ctx)
{
    at_lane *l = ctx;
    at_executor *x = l->x;

    pthread_mutex_lock(&x->lock);
    for (;;) {
        bool rests = l->number && at_now() - l->used > REST_SECONDS;
        if (l->given.id)
            run_given(l);
        else if (x->closing)
            break;
        else if (l->up && l->number && (l->forget || rests))
            end_engine(l);
        else if (!l->up && (l->wanted || !l->number) && at_now() >= l->retry)
            start_engine(l);
        else if (l->up)
            look_after(l);
        if (!l->given.id && !x->closing && !(l->forget && l->up)) wait_for_change(x, 0.5);
    }
    pthread_mutex_unlock(&x->lock);
    return NULL;
}

// --- handing out -------------------------------------------------------------------------------------
static unsigned engines_up(const at_executor *x)
{
    unsigned up = 0;
    for (int i = 0; i < x->lanes; i++)
        if (x->lane[i].up && !x->lane[i].forget) up |= 1u << i;
    return up;
}

// Under the lock: so many jobs wait; are the engines there that they should find?
static void want_engines(at_executor *x, size_t waiting)
{
    size_t jobs = waiting;
    bool more = false;

    for (int i = 0; i < x->lanes; i++)
        jobs += x->lane[i].given.id != NULL;
    unsigned wanted = at_lanes_wanted(&x->places, jobs);
    for (int i = 1; i < x->lanes && jobs > 1; i++) {
        at_lane *l = &x->lane[i];
        if (!(wanted >> i & 1) || l->up || l->wanted) continue;
        l->wanted = more = true;
    }
    if (more) pthread_cond_broadcast(&x->change);
}

// POST /free: each lane does it between two jobs.
static void hand_on_forget(at_executor *x)
{
    if (!atomic_exchange(&x->forget, false)) return;
    for (int i = 0; i < x->lanes; i++)
        x->lane[i].forget = x->lane[i].up;
    pthread_cond_broadcast(&x->change);
}

// Under the lock: this job gets devices whose engines hold memory there for jobs of their own. Where the job's engine
// finds too little left, they end first.
static void clear_devices(at_executor *x, int lane, int slots)
{
    at_device_state own, other;

    at_runner_device(x->lane[lane].runner, &own);
    for (int i = lane + 1; i < lane + slots && i < x->lanes; i++) {
        at_lane *l = &x->lane[i];
        if (!l->up) continue;
        at_runner_device(l->runner, &other);
        if (other.host || !other.total_bytes || other.free_bytes >= own.held_bytes) continue;
        l->forget = true;
        pthread_cond_broadcast(&x->change);
        while (l->up && !atomic_load(&x->stop))
            wait_for_change(x, 0.5);
    }
}

// The job begins. False: no lane is free any more.
static bool begin(at_executor *x, at_ticket *t)
{
    size_t waiting, running;
    int slots = 0;

    at_queue_counts(x->c.queue, &waiting, &running);
    pthread_mutex_lock(&x->lock);
    int lane = at_lanes_place(&x->places, engines_up(x), waiting + 1, &slots);
    if (lane >= 0) {
        at_lane *l = &x->lane[lane];
        at_lanes_take(&x->places, lane, slots);
        clear_devices(x, lane, slots);
        l->ranks = at_lanes_ranks(&x->places, slots);
        l->waiting = l->ranks ? (int)(waiting < 1000 ? waiting : 1000) : 0;
        l->given = *t;
        l->running = &l->given;
        if (!atomic_load(&x->stop)) atomic_store(&l->cancel, false);
        want_engines(x, waiting);
        pthread_cond_broadcast(&x->change);
    }
    pthread_mutex_unlock(&x->lock);
    return lane >= 0;
}

// Is there a lane for one more job? Else a moment is waited.
static bool has_place(at_executor *x)
{
    size_t waiting, running;
    int slots;

    at_queue_counts(x->c.queue, &waiting, &running);
    pthread_mutex_lock(&x->lock);
    hand_on_forget(x);
    want_engines(x, waiting);
    bool free = at_lanes_place(&x->places, engines_up(x), 1, &slots) >= 0;
    if (!free && !atomic_load(&x->stop)) wait_for_change(x, 0.05);
    pthread_mutex_unlock(&x->lock);
    return free;
}

static bool start_lanes(at_executor *x)
{
    for (int i = 0; i < x->lanes; i++) {
        at_lane *l = &x->lane[i];
        l->up = i == 0;
        l->pause = 0.5;
        l->started = pthread_create(&l->thread, NULL, drive, l) == 0;
        if (!l->started && i == 0) return false;
        if (!l->started) { // fewer will do
            at_log(AT_WARN, "LANE-THREAD", "lane %d of %d: no thread for it", i, x->lanes);
            break;
        }
    }
    return true;
}

void at_executor_dispatch(at_executor *x)
{
    at_ticket t = {0};

    at_log(AT_INFO, "LANES", "up to %d jobs run side by side, on %d devices", x->lanes,
           x->places.devices);
    if (!start_lanes(x)) at_log(AT_ERROR, "LANE-THREAD", "no thread for jobs: none are run");
    while (!atomic_load(&x->stop) && !atomic_load(&x->drain)) {
        if (!has_place(x) || !at_queue_take(x->c.queue, &t, 1)) continue;
        if (!begin(x, &t)) at_executor_give_back(x, &t);
        t = (at_ticket){0};
    }
    pthread_mutex_lock(&x->lock);
    x->closing = true;
    pthread_cond_broadcast(&x->change);
    pthread_mutex_unlock(&x->lock);
    for (int i = 0; i < x->lanes; i++)
        if (x->lane[i].started) pthread_join(x->lane[i].thread, NULL);
}
