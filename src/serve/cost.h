// SPDX-License-Identifier: Apache-2.0
// cost.h - what a job cost: how long it held the device, for what, and the energy where the driver tells.
// Idea: the stages are read off the job's own events: a node holds the device from its start to the next one's, and its
// place among the nodes (loaders, conditioning, sampling ...) says what for. Days and users are sums in one small table.
// Easy to get wrong: weights are read when they are first used, so "loading" is what loader nodes take, no more; energy is
// the whole device's while the job ran, other processes' work on it included.
// Owns nothing.
#ifndef AT_SERVE_COST_H
#define AT_SERVE_COST_H

#include "base/sink.h"
#include "flow/flow.h"

typedef enum at_stage {
    AT_STAGE_LOADING,
    AT_STAGE_CONDITIONING,
    AT_STAGE_SAMPLING,
    AT_STAGE_VAE,
    AT_STAGE_OTHER,
    AT_STAGES
} at_stage;

typedef struct at_cost {
    double waited, seconds;  // in the queue; of the device
    double joules;           // below 0: not known
    double stage[AT_STAGES]; // of the seconds
} at_cost;

// Listens between the job and whoever else does.
typedef struct at_meter {
    const at_registry *registry;
    const at_sink *next;
    at_cost *cost;
    at_stage now;
    double since; // at_now() of the stage's begin; 0: none has begun
} at_meter;
void at_meter_hear(void *ctx, const at_event *e); // at_sink.emit; ctx is the meter
void at_meter_end(at_meter *m);

const char *at_stage_name(int stage);
char *at_cost_text(const at_cost *c); // JSON; NULL if out of memory

// The table's columns behind day, user, jobs, failed, waited, seconds, joules; and one job added to it.
#define AT_COST_COLUMNS                                                                            \
    " loading REAL NOT NULL, conditioning REAL NOT NULL, sampling REAL NOT NULL, vae REAL NOT"     \
    " NULL, other REAL NOT NULL,"
#define AT_COST_UPSERT                                                                             \
    "INSERT INTO usage VALUES(date('now'), ?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"            \
    " ON CONFLICT(day, user) DO UPDATE SET jobs = jobs + 1, failed = failed + excluded.failed,"    \
    " waited = waited + excluded.waited, seconds = seconds + excluded.seconds, joules ="           \
    " CASE WHEN excluded.joules IS NULL THEN joules ELSE coalesce(joules, 0) + excluded.joules"    \
    " END, loading = loading + excluded.loading, conditioning = conditioning +"                    \
    " excluded.conditioning, sampling = sampling + excluded.sampling, vae = vae + excluded.vae,"   \
    " other = other + excluded.other"

#endif
