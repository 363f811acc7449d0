// SPDX-License-Identifier: Apache-2.0
// bench_ways.h - every way to share a step among some devices: what the plan predicts beside what it takes.
// Idea: one set of random weights, which stays on its devices from way to way; each way is a bench of its own.
// Predictions are forecasts (models/forecast_ways.h) on chips whose rates are known, else the plan's formulas. Only numbers
// of devices that divide theirs are tried. What auto takes is the first; it is judged by the fastest that was measured.
// Owns nothing beyond the call.
#ifndef AT_ENGINE_BENCH_WAYS_H
#define AT_ENGINE_BENCH_WAYS_H

#include "engine/bench.h"
#include "par/plan.h"

enum { AT_BENCH_WAYS = 96 };

typedef struct at_bench_way {
    at_par_plan plan;  // with what the site alone says
    double calibrated; // seconds predicted by the plan that knows one device's step
    at_status st;      // of the measurement
    char why[200];     // a failure's words
    double step;       // seconds measured
    double difference; // from one rank's result, relative
    at_wire_spent spent;
} at_bench_way;

typedef struct at_bench_ways {
    at_bench_way way[AT_BENCH_WAYS];
    int n;
    int picked, picked_calibrated, best; // ways; -1: none was measured
} at_bench_ways;

// A denoiser on b->devices[0 .. b->ranks). A way that fails is told in the table; AT_EUNSUPPORTED: no denoiser.
at_status at_bench_ways_run(const at_bench_options *b, const at_par_site *site, at_bench_ways *out);

#endif
