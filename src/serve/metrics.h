// SPDX-License-Identifier: Apache-2.0
// metrics.h - counters of a running server, in Prometheus' text format.
// Source: Prometheus text exposition format 0.0.4.
// Owns nothing: an at_metrics lies in the server. Counting: any thread.
#ifndef AT_SERVE_METRICS_H
#define AT_SERVE_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/str.h"
#include "serve/cost.h"
#include "serve/runner.h"

#define AT_METRIC_BUCKETS 12

typedef enum at_job_outcome {
    AT_OUTCOME_SUCCESS,
    AT_OUTCOME_ERROR,
    AT_OUTCOME_INTERRUPTED,
    AT_OUTCOMES
} at_job_outcome;

typedef struct at_histogram {
    atomic_ullong buckets[AT_METRIC_BUCKETS + 1]; // the last: longer than all
    atomic_ullong count, milliseconds;
} at_histogram;

typedef struct at_metrics {
    atomic_ullong accepted, refused, jobs[AT_OUTCOMES];
    atomic_ullong http[6];          // answers by their hundreds; 0: unused
    at_histogram wait, run, answer; // answer: an HTTP request's, until its head is sent
    atomic_ullong steps, nodes_run, nodes_kept, crashes;
    atomic_ullong pace; // thousandths of a step a second: the last sampler's
    atomic_ullong stage_ms[AT_STAGES], millijoules; // of jobs that ended
    double started;                                 // at_now()
} at_metrics;

void at_histogram_add(at_histogram *h, double seconds);

// What the server knows beside the counters.
typedef struct at_gauges {
    size_t waiting, running, sockets;
    const at_device_state *device;
} at_gauges;
void at_metrics_write(const at_metrics *m, const at_gauges *g, at_str *out);

#endif
