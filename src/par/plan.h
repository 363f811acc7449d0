// SPDX-License-Identifier: Apache-2.0
// plan.h - which way to share a picture among devices is the fastest.
// Idea: a pure function. What the network is (hints), what is asked of it (task) and what there is (site) give
// every way that is possible, each with a predicted time; the least wins. Nobody is asked, nothing is measured here;
// what was measured before (known) stands instead of a prediction, and sets the speed of the others.
// Numbers: floating point operations and bytes; seconds.
#ifndef AT_PAR_PLAN_H
#define AT_PAR_PLAN_H

#include <stdint.h>

#include "par/mesh.h"

// What of one forward of one latent is shared along which axis, and what that takes.
typedef struct at_share_hints {
    unsigned axes;          // 1 << at_axis for each that the network knows
    int64_t tokens, heads;  // of the sequence (ring, ulysses); 0: it has none
    double attention_flops; // what heads, not tokens, divide
    int attentions;         // exchanges of a sequence
    double sequence_bytes;  // of one tensor [tokens, width]
    int64_t rows;           // of the map (patch)
    int map_meetings;       // exchanges of a map: halos, sums, keys and values
    double map_bytes;       // what a rank of many reads of the others in them
    int tp_meetings;        // sums behind layers whose columns are shared (tp)
    double tp_bytes;        // of all that they sum
    double tp_flops;        // of the layers that heads and units divide
    double tp_weights;      // bytes of their weights
    int ops;                // kernels of a forward: their beginnings and ends are shared by nobody
    double efficiency;      // of its products, against a large transformer's; 0: 1
} at_share_hints;

// What a step by these degrees took here when it was last run (par/known.h).
typedef struct at_par_known {
    at_degrees degrees;
    double step;
} at_par_known;

// What one forward takes on a rank, from who knows better than the formulas here (models/forecast_ways.h).
typedef struct at_par_price {
    double compute, exchange; // seconds; of exchanges what nothing hides
    double sent, activations; // bytes
} at_par_price;
typedef enum at_par_word { AT_PAR_UNKNOWN, AT_PAR_PRICED, AT_PAR_IMPOSSIBLE } at_par_word;
typedef struct at_par_pricer {
    // Of `units` latents at once by these degrees, along cfg apart.
    at_par_word (*price)(void *ctx, const at_degrees *degrees, int64_t units, at_par_price *out);
    void *ctx;
} at_par_pricer;

typedef struct at_par_task {
    double flops, activation_bytes, latent_bytes; // one forward of one latent
    double weight_bytes;
    int conditionings; // forwards of each latent a step that may run apart
    int64_t batch, steps;
    double speed; // of the type it computes in, against 16 bits; 0: 1
    at_share_hints hints;
    const at_par_pricer *pricer; // NULL: the formulas
    const at_par_known *known;   // of this very task; may be NULL
    int n_known;
} at_par_task;

typedef struct at_par_site {
    int ranks;
    double flops;              // a second, of one of them alone
    double memory;             // bytes of each
    double bandwidth, latency; // between any two: bytes a second, seconds an exchange
    double load;               // bytes a second of weights that do not fit
    double overhead, op; // seconds of a forward, and of each op in it, that no sharing shortens
    uint8_t
        speed[AT_SHARE_RANKS]; // of each, against the first, whose `flops` are; zeros: all alike
    bool one_processor;        // the ranks are threads that share what `flops` says
    int waiting;               // jobs behind this one: with some, pictures an hour count
} at_par_site;

typedef struct at_par_plan {
    at_degrees degrees;
    int ranks, jobs;          // jobs: this many such groups could work side by side
    double step, seconds;     // predicted: of a step, of all steps
    double compute, exchange; // of a step
    double bytes;             // of a rank's memory
    double sent;              // bytes that a rank sends in a step; 0: the formulas do not tell
    bool fits, known;         // known: `step` was measured
} at_par_plan;

// The network and the work can be cut like this.
bool at_par_possible(const at_par_task *task, const at_degrees *degrees);
// Every possible way, the best first; at most `max`. At least 1 for max > 0: one rank.
int at_par_plans(const at_par_task *task, const at_par_site *site, at_par_plan *out, int max);

#endif
