// SPDX-License-Identifier: Apache-2.0
// executor_impl.h - the inside of an at_executor, for executor.c and dispatch.c.
// Idea: a lane is a runner and the job that it has. One lane: the executor's thread runs the jobs itself. Several
// (lanes.h): it hands them out, and each lane has a thread of its own, which alone talks to its runner.
// Owns: see executor.h; runners of lanes from the second on are the executor's.
#ifndef AT_SERVE_EXECUTOR_IMPL_H
#define AT_SERVE_EXECUTOR_IMPL_H

#include <pthread.h>

#include "serve/executor.h"
#include "serve/lanes.h"

typedef struct at_lane {
    struct at_executor *x;
    int number;
    at_runner *runner;
    const at_ticket *running; // under the lock; NULL: idle
    atomic_bool cancel;       // of `running`
    int ranks, waiting;       // for the job: at_job's
    int told;                 // by the job that ran last: at_job_result.ranks
    // Where there are several; under the lock.
    pthread_t thread;
    bool started;    // the thread
    at_ticket given; // to be run; id NULL: nothing
    bool up;         // its engine can run jobs
    bool wanted;     // its engine shall be started
    bool forget;     // it shall give back what it holds, between two jobs
    double used, retry,
        pause; // when it ended a job; when to start its engine again, and how much later then
} at_lane;

struct at_executor {
    at_executor_config c;
    pthread_t thread;
    pthread_mutex_t lock;  // of what runs and of raising `cancel`
    pthread_cond_t change; // of any lane; the clock nobody sets
    atomic_bool stop, drain, forget;
    at_lanes places;             // under the lock
    at_lane lane[AT_LANES_MOST]; // the first one's engine has all devices
    int lanes;                   // whose runners there are
    bool closing;                // under the lock: lanes end when they have nothing to run
};

// Runs it to its end, tells everybody, keeps the result. next->id is set if the next job was taken already (NULL: no).
void at_lane_run(at_lane *l, const at_ticket *t, at_ticket *next);
// t runs; NULL: nothing does.
void at_lane_set_running(at_lane *l, const at_ticket *t);
// It waits again: the engine is not there, or the server ends. Frees it.
void at_executor_give_back(at_executor *x, at_ticket *t);
// Hands out jobs among several lanes until the executor stops or drains (dispatch.c).
void at_executor_dispatch(at_executor *x);

#endif
