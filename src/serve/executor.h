// SPDX-License-Identifier: Apache-2.0
// executor.h - the thread that takes jobs from the queue and has them run, one at a time, or side by side on several
// devices (lanes.h).
// Idea: it outlives the engine (runner.h): a job that took the engine with it is reported, and the next one runs.
// Easy to get wrong: an interrupt meant for one job must not hit the next: it is compared under the lock that also
// guards which job runs.
// Owns: its thread; what the config names is borrowed.
#ifndef AT_SERVE_EXECUTOR_H
#define AT_SERVE_EXECUTOR_H

#include "serve/hub.h"
#include "serve/metrics.h"
#include "serve/queue.h"
#include "serve/runner.h"

typedef struct at_executor_config {
    at_runner *runner;
    const char *const *engine_argv; // at_runner_config.argv, for further ones
    int lanes;                      // jobs that may run side by side; 0: as many as pay
    const at_registry *registry;    // says which stage a node belongs to
    at_queue *queue;
    at_hub *hub;
    at_metrics *metrics;
    const char
        *claims_dir; // what running jobs have written (engine/claims.h); NULL: nobody remembers
    int preview_size;
    bool gives_way; // where another process computes on the CPU: the loop goes first (priority.h)
    bool
        separate; // each user's files in a folder of their own, and nobody else hears of their jobs
    // Once, on the executor's thread: the engine can run jobs, or why it cannot (nothing runs then).
    void (*ready)(void *ctx, at_status st, const char *why);
    atomic_bool *up; // kept true while the engine can run jobs
    // Once, on its thread: at_executor_drain was called, and the job that ran then has ended.
    void (*drained)(void *ctx);
    void *ctx;
} at_executor_config;

typedef struct at_executor at_executor;
at_status at_executor_start(const at_executor_config *c, at_executor **out);
// Interrupts what runs, puts it back into the queue and waits for the thread. NULL is fine.
void at_executor_stop(at_executor *x);
// Take no more jobs.
void at_executor_drain(at_executor *x);
// Interrupt what runs; id, user: only this one, and this one's (NULL: any). True if there was something to interrupt.
bool at_executor_interrupt(at_executor *x, const char *user, const char *id);
// POST /free: done between jobs.
void at_executor_free_memory(at_executor *x);

#endif
