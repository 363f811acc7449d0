// SPDX-License-Identifier: Apache-2.0
// tally.h - what the jobs' own events say to the counters: steps, their pace, nodes that ran and that were kept.
// Owns nothing.
#ifndef AT_SERVE_TALLY_H
#define AT_SERVE_TALLY_H

#include "base/sink.h"
#include "serve/cost.h"
#include "serve/metrics.h"

// Listens behind a meter, which knows the stage that an event belongs to.
typedef struct at_tally {
    at_metrics *metrics;
    const at_meter *meter;
    const at_sink *next;
    double steps, first,
        since; // of the sampler that runs: counted, at the first count, when that was
} at_tally;
void at_tally_hear(void *ctx, const at_event *e); // at_sink.emit; ctx is the tally
void at_tally_end(at_tally *t, const at_cost *cost);

#endif
