// SPDX-License-Identifier: Apache-2.0
// forecast.h - every way to share a known architecture's step among the devices of a described machine.
// Idea: the shapes of bench, without their weights; plans are those of par/plan.h with the prices of models/forecast.h.
// Owns: at_forecast_table owns its rows.
#ifndef AT_ENGINE_FORECAST_H
#define AT_ENGINE_FORECAST_H

#include "engine/bench.h"
#include "engine/machine.h"
#include "models/forecast.h"
#include "par/plan.h"

enum { AT_FORECAST_ROWS = 128 };

typedef struct at_forecast_row {
    at_par_plan plan;
    at_forecast forecast; // of a rank's forward
} at_forecast_row;

typedef struct at_forecast_table {
    at_forecast_row row[AT_FORECAST_ROWS]; // one device first, then by devices and time
    int n;
    double one;           // seconds of one device
    at_degrees automatic; // what `auto` takes
} at_forecast_table;

// shape, compute, storage, fp8, batch, width, height, text_tokens, doubles and singles of b count. A denoiser, or a VAE
// that decodes. Only numbers of devices that divide the machine's are told.
at_status at_forecast_ways(const at_bench_options *b, const at_machine *machine,
                           at_forecast_table *out);

#endif
