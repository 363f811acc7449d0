// SPDX-License-Identifier: Apache-2.0
// bench_load.c - the thread that asks, and the sums of what it heard.
#include "engine/bench_load.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "base/file.h"
#include "base/mem.h"

enum { EVERY_MS = 10 };

struct at_load_watch {
    at_device *device;
    pthread_t thread;
    atomic_bool stop;
    at_load load;
    double sum_mhz;
    // The energy counter moves every 20 to 100 ms: its first and last move, and how many there were.
    double joules, first_joules, first_move;
    int moves;
};

static void take_energy(at_load_watch *w, double joules)
{
    double now = at_now();

    if (joules <= 0 || joules == w->joules) return;
    if (w->joules > 0) { // the counter's move is seen at most one pause late, at both ends
        if (w->moves++ == 0) {
            w->first_joules = joules;
            w->first_move = now;
        }
        if (w->moves > 3 && now > w->first_move)
            w->load.watts = (joules - w->first_joules) / (now - w->first_move);
    }
    w->joules = joules;
}

static void take(at_load_watch *w)
{
    at_device_usage u;
    at_load *l = &w->load;

    if (w->device->ops->usage(w->device, &u) != AT_OK || u.mhz <= 0) return;
    if (l->samples == 0) l->first_mhz = l->least_mhz = u.mhz;
    if (u.mhz < l->least_mhz) l->least_mhz = u.mhz;
    w->sum_mhz += u.mhz;
    l->limits |= u.limits;
    l->max_mhz = u.max_mhz;
    l->limit_watts = u.limit_watts > 0 ? u.limit_watts : 0;
    l->samples++;
    take_energy(w, u.joules);
}

static void *watch(void *ctx)
{
    const struct timespec pause = {.tv_nsec = EVERY_MS * 1000000L};
    at_load_watch *w = ctx;

    while (!atomic_load(&w->stop)) {
        take(w);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

at_load_watch *at_load_start(at_device *d)
{
    at_load_watch *w = d->ops->usage ? at_calloc(1, sizeof *w) : NULL;

    if (!w) return NULL;
    w->device = d;
    if (pthread_create(&w->thread, NULL, watch, w) == 0) return w;
    at_free(w);
    return NULL;
}

at_load at_load_stop(at_load_watch *w)
{
    at_load load = {0};

    if (!w) return load;
    atomic_store(&w->stop, true);
    pthread_join(w->thread, NULL);
    load = w->load;
    if (load.samples) load.mean_mhz = w->sum_mhz / load.samples;
    at_free(w);
    return load;
}
