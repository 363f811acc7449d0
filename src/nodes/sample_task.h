// SPDX-License-Identifier: Apache-2.0
// sample_task.h - a sampling run as a plan sees it: its work, and what its steps took.
// Owns nothing.
#ifndef AT_NODES_SAMPLE_TASK_H
#define AT_NODES_SAMPLE_TASK_H

#include "nodes/guide.h"
#include "par/known.h"

enum { AT_SAMPLE_KEY = 256 };

// What a plan wants to know of a run on samples of this shape, and what runs of the same steps have in common.
void at_sample_task(const at_sample_job *job, const int64_t *shape, int rank,
                    const at_ops_config *config, at_par_task *out, char key[AT_SAMPLE_KEY]);
// The same from numbers alone: of `flops` and `weight_bytes` of one forward of one latent and all else in *t.
void at_sample_key(const char *arch, const at_par_task *t, at_dtype compute, bool fp8,
                   char key[AT_SAMPLE_KEY]);
// How fast products of this type are against 16 bits, for at_par_task.speed.
double at_sample_speed(const at_device *d, at_dtype compute, bool fp8);

// A denoiser that remembers when it was called: hosts run at most a step ahead of their device, so the times between
// calls are those of the steps.
enum { AT_STEP_WATCHED = 64 };
typedef struct at_step_watch {
    at_denoiser inner;
    double at[AT_STEP_WATCHED]; // of the newest calls, call i at i % AT_STEP_WATCHED
    int calls;
} at_step_watch;
at_denoiser at_step_watch_denoiser(at_step_watch *w); // w stays where it is
// Of the steps behind those that start up; 0: there were not enough.
double at_step_watch_median(const at_step_watch *w);

#endif
