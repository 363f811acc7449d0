// SPDX-License-Identifier: Apache-2.0
// jobs.h - the queue and the history as one list of jobs, as newer servers show them under /api/jobs.
// Owns: a row's strings live as long as the call that brings it.
#ifndef AT_SERVE_JOBS_H
#define AT_SERVE_JOBS_H

#include "serve/queue.h"

typedef struct at_jobs_filter {
    const char *statuses; // ",pending,in_progress,"; NULL: all
    const char *workflow; // extra_pnginfo.workflow.id; NULL: any
    const char *id;       // one job; NULL: any
    const char *user;     // whose; NULL: anybody's
    bool by_duration, ascending;
    int64_t limit, offset; // limit < 0: all
} at_jobs_filter;

typedef struct at_job_row {
    const char *id, *number; // number as JSON
    const char *status;      // pending, in_progress, completed, failed, cancelled
    const char *prompt, *extra_data, *outputs,
        *history_status;                      // JSON; the last two "" while it waits or runs
    int64_t created_ms, started_ms, ended_ms; // 0: not yet
} at_job_row;

// Each row in order, under the queue's lock; *total counts them without limit and offset.
at_status at_jobs_list(at_queue *q, const at_jobs_filter *f,
                       at_status (*each)(void *ctx, const at_job_row *row), void *ctx,
                       int64_t *total);

#endif
