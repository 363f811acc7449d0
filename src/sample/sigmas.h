// SPDX-License-Identifier: Apache-2.0
// sigmas.h - what a model's noise levels are, and the schedulers that walk through them.
// Source: comfyui-contract sections 5.2-5.4. Values follow torch's f32 arithmetic (tests: 1e-4).
// Owns: tables are the caller's (at_free).
#ifndef AT_SAMPLE_SIGMAS_H
#define AT_SAMPLE_SIGMAS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef enum at_prediction {
    AT_PRED_EPS,
    AT_PRED_V,
    AT_PRED_EDM,
    AT_PRED_CONST, // rectified flow: x0 = x - sigma * out
    AT_PRED_X0,
    AT_PRED_IMG_TO_IMG
} at_prediction;

typedef enum at_sigma_kind {
    AT_SIGMA_DISCRETE,       // beta schedule of 1000
    AT_SIGMA_DISCRETE_FLOW,  // shift, multiplier
    AT_SIGMA_FLUX,           // mu in `shift`
    AT_SIGMA_CONTINUOUS_EDM,
    AT_SIGMA_CONTINUOUS_V
} at_sigma_kind;

// A value: copied freely, compared for equality by caches. Zero-extend for new kinds.
typedef struct at_model_sampling {
    at_prediction prediction;
    at_sigma_kind kind;
    double shift, multiplier;       // flow kinds; DISCRETE_FLOW: 1.0, 1000 by default
    double beta_start, beta_end;    // discrete
    int timesteps;                  // discrete: 1000
    bool zsnr;
    double sigma_min, sigma_max, sigma_data; // continuous; sigma_data 1 for EPS, 0.5 EDM
} at_model_sampling;

// The table of sigmas, ascending, f32 values: ComfyUI's model_sampling.sigmas.
at_status at_sigma_table(const at_model_sampling *m, float **out, size_t *n);
float at_sigma_to_timestep(const at_model_sampling *m, float sigma);
float at_timestep_to_sigma(const at_model_sampling *m, float timestep);
float at_percent_to_sigma(const at_model_sampling *m, double percent);
float at_sigma_min(const at_model_sampling *m);
float at_sigma_max(const at_model_sampling *m);

// ComfyUI's names in its order; at_scheduler_find gives -1 for an unknown one.
extern const char *const at_scheduler_names[];
extern const size_t at_scheduler_count;
int at_scheduler_find(const char *name);
// n steps -> usually n + 1 values, last 0 (see the contract for the exceptions).
at_status at_schedule(const char *scheduler, const at_model_sampling *m, int steps, float **sigmas,
                      size_t *n);
// KSampler's rule: penultimate drop for some samplers, denoise < 1 keeps the tail. *n may be 0.
at_status at_ksampler_sigmas(const char *sampler, const char *scheduler, const at_model_sampling *m,
                             int steps, double denoise, float **sigmas, size_t *n);

#endif
