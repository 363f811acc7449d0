// SPDX-License-Identifier: Apache-2.0
// forecast_ways.h - forecasts of one network's forward, for a plan that asks for many ways (par/plan.h).
// Idea: what was foreseen once is kept, for a plan asks for the same way more than once, and who prints it again.
// Owns: the list; the model is borrowed and outlives it. One thread.
#ifndef AT_MODELS_FORECAST_WAYS_H
#define AT_MODELS_FORECAST_WAYS_H

#include "models/forecast.h"
#include "par/plan.h"

typedef struct at_forecasts at_forecasts;

// work->batch is not read: plans say how many latents a rank has. AT_ENOMEM alone.
at_status at_forecasts_new(at_model *m, const at_forecast_work *work, const at_rates *rates,
                           at_forecasts **out);
void at_forecasts_free(at_forecasts *f); // NULL is fine
at_par_pricer at_forecasts_pricer(at_forecasts *f);
// What was foreseen; NULL: that way cannot be.
const at_forecast *at_forecasts_find(at_forecasts *f, const at_degrees *degrees, int64_t batch);

#endif
