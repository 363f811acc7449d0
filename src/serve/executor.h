// SPDX-License-Identifier: Apache-2.0
// executor.h - the thread that takes jobs from the queue and runs them on the engine, one at a time.
// Easy to get wrong: an interrupt meant for one job must not hit the next: it is compared under the lock that also
// guards which job runs.
// Owns: its thread; engine, queue and hub are borrowed.
#ifndef AT_SERVE_EXECUTOR_H
#define AT_SERVE_EXECUTOR_H

#include "engine/engine.h"
#include "serve/hub.h"
#include "serve/metrics.h"
#include "serve/queue.h"

typedef struct at_executor at_executor;
at_status at_executor_start(at_engine *e, at_queue *q, at_hub *h, at_metrics *m, int preview_size,
                            at_executor **out);
// Interrupts what runs, puts it back into the queue and waits for the thread. NULL is fine.
void at_executor_stop(at_executor *x);
// Interrupt the running job; id: only if it is this one. True if there was something to interrupt.
bool at_executor_interrupt(at_executor *x, const char *id);
// POST /free: done between jobs.
void at_executor_free_memory(at_executor *x);

#endif
