// SPDX-License-Identifier: Apache-2.0
// forecast.h - what one forward of a network takes on GPUs that need not be here, shared by any exact plan.
// Idea: the network's own forward runs as one rank alone (par/comm_alone.h) over a device that prices what it is asked
// (tensor/priced.h): what a plan computes, exchanges and keeps is what the program really does, not a formula beside it.
// The rank with the most work tells.
// Easy to get wrong: the first evaluation makes what later ones keep, so the second one counts.
// Owns nothing. One thread at a time for one model (its sessions).
#ifndef AT_MODELS_FORECAST_H
#define AT_MODELS_FORECAST_H

#include "models/models.h"
#include "tensor/priced.h"

typedef struct at_forecast_work { // of one forward on one rank
    int64_t batch, latent_h, latent_w, text_tokens;
    at_dtype compute;
    bool fp8;
} at_forecast_work;

typedef struct at_forecast {
    at_priced_sum sum;  // of the slowest rank
    double activations; // bytes at the highest, of the rank with the most
    int rank;           // the slowest
} at_forecast;

// A denoiser's forward by `degrees`, whose cfg axis is the caller's: work->batch is one rank's. AT_EINVAL and
// AT_EUNSUPPORTED where the network cannot be shared so. What sessions of the model kept is forgotten.
at_status at_forecast_denoiser(at_model *m, const at_forecast_work *work, const at_degrees *degrees,
                               const at_rates *rates, at_forecast *out);
at_status at_forecast_decoder(at_vae *v, const at_forecast_work *work, const at_degrees *degrees,
                              const at_rates *rates, at_forecast *out);

#endif
