// SPDX-License-Identifier: Apache-2.0
// sigmas.h - what a model's noise levels are, and the schedulers that walk through them.
// Source: comfyui-contract sections 5.2-5.4. Values follow torch's f32 arithmetic (tests: 1e-6
// relative against ComfyUI's own).
// Owns: tables are the caller's (at_free).
#ifndef AT_SAMPLE_SIGMAS_H
#define AT_SAMPLE_SIGMAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "models/sampling.h" // at_model_sampling

#define AT_TIMESTEPS_MAX 4096    // of a discrete model
#define AT_STEPS_MAX     1000000 // of a schedule, before denoise cuts it

// AT_EINVAL with the reason if m makes no sense (timesteps, betas, sigma range).
at_status at_sigma_check(const at_model_sampling *m);
// The table of sigmas, ascending, f32 values: ComfyUI's model_sampling.sigmas. As
// at_sigma_check, AT_ENOMEM.
at_status at_sigma_table(const at_model_sampling *m, float **out, size_t *n);
// What the network is told at this sigma, and back.
float at_sigma_to_timestep(const at_model_sampling *m, float sigma);
float at_timestep_to_sigma(const at_model_sampling *m, float timestep);
// Share of the way from noise (0) to picture (1) as a sigma; <= 0 gives a sigma above all others (1
// for flow models), >= 1 gives 0.
double at_percent_to_sigma(const at_model_sampling *m, double percent);
float at_sigma_min(const at_model_sampling *m);
float at_sigma_max(const at_model_sampling *m);

// ComfyUI's names in its order; at_scheduler_find gives -1 for an unknown one.
extern const char *const at_scheduler_names[]; // ends with NULL, for combos
extern const size_t at_scheduler_count;
int at_scheduler_find(const char *name);

// n steps -> usually n + 1 values, last 0 (see the contract for the exceptions). steps 0 gives
// none. AT_EINVAL: unknown name, steps outside 0..AT_STEPS_MAX, a broken m.
at_status at_schedule(const char *scheduler, const at_model_sampling *m, int steps, float **sigmas,
                      size_t *n);
// KSampler's rule: penultimate drop for some samplers, denoise < 1 keeps the tail. *n may be 0.
// `sampler` NULL: BasicScheduler's rule, which drops nothing.
at_status at_ksampler_sigmas(const char *sampler, const char *scheduler, const at_model_sampling *m,
                             int steps, double denoise, float **sigmas, size_t *n);
// KSamplerAdvanced's window, in place: keep [start, last] of n values; the last becomes 0 unless
// the noise is to be left over. 0: nothing to sample, the latent is the result.
// start < 0: none was given.
size_t at_sigmas_window(float *sigmas, size_t n, int64_t start, int64_t last, bool leave_noise);

// Schedules that nodes offer with their own numbers (all as at_schedule). Sigmas above 0; Karras' and
// Laplace's may be 0.
at_status at_schedule_karras(int steps, double sigma_min, double sigma_max, double rho,
                             float **sigmas, size_t *n);
at_status at_schedule_exponential(int steps, double sigma_min, double sigma_max, float **sigmas,
                                  size_t *n);
// rho 1 is ComfyUI's exponential scheduler up to rounding.
at_status at_schedule_polyexponential(int steps, double sigma_min, double sigma_max, double rho,
                                      float **sigmas, size_t *n);
at_status at_schedule_laplace(int steps, double sigma_min, double sigma_max, double mu, double beta,
                              float **sigmas, size_t *n); // no trailing 0
at_status at_schedule_vp(int steps, double beta_d, double beta_min, double eps, float **sigmas,
                         size_t *n);
at_status at_schedule_beta(const at_model_sampling *m, int steps, double alpha, double beta,
                           float **sigmas, size_t *n);

#endif
