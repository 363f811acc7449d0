// SPDX-License-Identifier: Apache-2.0
// sigmas.h - what a model's noise levels are, and the schedulers that walk through them.
// Source: comfyui-contract sections 5.2-5.4. Values follow torch's f32 arithmetic (tests: 1e-4).
// Owns: tables are the caller's (at_free).
#ifndef AT_SAMPLE_SIGMAS_H
#define AT_SAMPLE_SIGMAS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "models/sampling.h" // at_model_sampling

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
