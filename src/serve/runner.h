// SPDX-License-Identifier: Apache-2.0
// runner.h - where jobs run: in a process of their own, or (plainly) in this one.
// Idea: a crash inside a node, a driver that ends the process, a lost GPU or the kernel's out-of-memory killer take the
// engine's process only: sockets, queue and history live in another one, which ends that job and starts the engine anew.
// Why not else: a signal handler that jumps out of a crashed node leaves locks held and the heap broken, and cannot
// revive a lost CUDA context; a supervisor that restarts the whole server drops every client.
// Easy to get wrong: the server's process never opens a GPU; what it says of one is what the engine told it last.
// Owns: the process and the line to it. One thread runs jobs; at_runner_cancel and at_runner_device: any thread.
#ifndef AT_SERVE_RUNNER_H
#define AT_SERVE_RUNNER_H

#include "engine/engine.h"

// A device as the engine last saw it.
typedef struct at_device_state {
    char name[32], description[96];
    bool host;
    uint64_t free_bytes, total_bytes, held_bytes, peak_bytes;
    at_device_usage usage;
    bool usage_known;
} at_device_state;

typedef struct at_runner_config {
    const char *const
        *argv; // the program that calls at_engine_process, NULL-terminated; NULL: run jobs here
    at_engine *engine; // for that
    // Its devices: so many of all from that one on (at_engine_config.first_rank); 0: all, and it starts at once. A
    // part of them is another process's too, which agrees on who works when (lanes.h): at_runner_ready starts it.
    int first, most;
} at_runner_config;

typedef struct at_run_cost {
    double joules;  // of the whole device while the job ran; below 0: the driver does not tell
    bool not_begun; // there was no engine to give it to; the status says why
    bool crashed;   // the process ended with it: status AT_EDEVICE, the text says how
} at_run_cost;

typedef struct at_runner at_runner;
at_status at_runner_open(const at_runner_config *c,
                         at_runner **out); // does not wait for the engine
void at_runner_close(at_runner *r);        // NULL is fine
// Waits until the engine has opened its device; its failure. Again after a crash: starts it anew.
at_status at_runner_ready(at_runner *r);
bool at_runner_is_up(at_runner *r); // without waiting: there is an engine, as far as is known
// How many devices it has, and how many --parallel wants for one job (1: it does not say). From at_runner_ready on.
void at_runner_ranks(at_runner *r, int *devices, int *wanted);
// The process ends, and with it what it holds of its devices; at_runner_ready starts another. Not while a job runs.
void at_runner_rest(at_runner *r);
// As at_engine_run. Whoever raises the cancel flag of job->sink also calls at_runner_cancel.
at_status at_runner_run(at_runner *r, const at_job *job, at_job_result *out, at_run_cost *cost);
void at_runner_cancel(at_runner *r);
void at_runner_forget(at_runner *r);
// Between jobs, now and then: hears what the engine says, notices that it ended.
void at_runner_idle(at_runner *r);
void at_runner_device(at_runner *r, at_device_state *out);

// --- the other side -------------------------------------------------------------------------------
// Is this process the engine of a server? The line's descriptor, else -1.
int at_engine_process_line(void);
// Opens an engine and runs what comes down the line, until it closes.
at_status at_engine_process(int line, const at_engine_config *config);

#endif
