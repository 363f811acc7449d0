// SPDX-License-Identifier: Apache-2.0
// sigma_lists.h - schedules along lists that others found: Align Your Steps, OptimalSteps, GITS, SD Turbo.
// Sources: Sabour et al. 2024 (Align Your Steps, NVIDIA's published values), Pei et al. 2025
// (OptimalSteps), Chen et al. 2024 (GITS), as ComfyUI 0.3.64 offers them.
// Owns: lists are the caller's (at_free).
#ifndef AT_SAMPLE_SIGMA_LISTS_H
#define AT_SAMPLE_SIGMA_LISTS_H

#include "sample/sigmas.h"

// `model`: "SD1", "SDXL", "SVD" (Align Your Steps), "FLUX", "Wan", "Chroma" (OptimalSteps). Another number
// of steps than the list has is interpolated in the logarithm. denoise < 1 keeps the last
// round(steps * denoise) steps, <= 0 nothing. The last value is 0. AT_EINVAL: unknown model, steps.
at_status at_schedule_listed(const char *model, int steps, double denoise, float **sigmas,
                             size_t *n);
// coeff 0.80, 0.85 .. 1.50; steps from 2.
at_status at_schedule_gits(double coeff, int steps, double denoise, float **sigmas, size_t *n);
// `steps` of the ten timesteps 999, 899 .. 99, from the one that denoise names; then 0.
at_status at_schedule_sd_turbo(const at_model_sampling *m, int steps, double denoise,
                               float **sigmas, size_t *n);

#endif
