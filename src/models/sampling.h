// SPDX-License-Identifier: Apache-2.0
// sampling.h - the facts about a model's noise levels, as a value.
// Idea: an architecture row names its defaults, a loader node may replace them
// (ModelSamplingFlux), and sample/sigmas turns them into tables. The type lives here because
// sample/ stands above models/.
// Owns nothing: copied freely.
#ifndef AT_MODELS_SAMPLING_H
#define AT_MODELS_SAMPLING_H

#include <stdbool.h>

typedef enum at_prediction {
    AT_PRED_EPS,
    AT_PRED_V,
    AT_PRED_EDM,
    AT_PRED_CONST, // rectified flow: x0 = x - sigma * out
    AT_PRED_X0,
    AT_PRED_IMG_TO_IMG,
    AT_PRED_LCM,         // eps, and the skip of consistency models
    AT_PRED_COSMOS_RFLOW // flow in sigma / (sigma + 1)
} at_prediction;

typedef enum at_sigma_kind {
    AT_SIGMA_DISCRETE,      // beta schedule of 1000
    AT_SIGMA_DISCRETE_FLOW, // shift, multiplier
    AT_SIGMA_FLUX,          // mu in `shift`
    AT_SIGMA_CONTINUOUS_EDM,
    AT_SIGMA_CONTINUOUS_V,
    AT_SIGMA_DISCRETE_LCM, // every 20th of 1000
    AT_SIGMA_COSMOS_RFLOW  // continuous, told sigma / (sigma + 1)
} at_sigma_kind;

// How betas run from start to end.
typedef enum at_beta_schedule {
    AT_BETA_LINEAR, // in their square roots: Stable Diffusion
    AT_BETA_COSINE, // start and end do not count
    AT_BETA_SQRT_LINEAR,
    AT_BETA_SQRT
} at_beta_schedule;

// A value: copied freely, compared for equality by caches. Zero-extend for new kinds.
typedef struct at_model_sampling {
    at_prediction prediction;
    at_sigma_kind kind;
    double shift, multiplier;    // flow kinds; DISCRETE_FLOW: 1.0, 1000 by default
    double beta_start, beta_end; // discrete
    int timesteps;               // discrete: 1000
    at_beta_schedule beta_schedule;
    bool zsnr;
    double sigma_min, sigma_max, sigma_data; // continuous; sigma_data 1 for EPS, 0.5 EDM
} at_model_sampling;

#endif
