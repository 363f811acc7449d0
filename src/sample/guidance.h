// SPDX-License-Identifier: Apache-2.0
// guidance.h - what a network's output means, and how two predictions become one.
// Idea: pure functions over tensors; batching of prompts, areas and masks is the nodes' affair.
// Source: comfyui-contract sections 5.2 and 5.5; Ho & Salimans 2022 (classifier-free guidance).
// Ownership: results belong to the op scope, inputs are borrowed. All tensors f32.
#ifndef AT_SAMPLE_GUIDANCE_H
#define AT_SAMPLE_GUIDANCE_H

#include "models/sampling.h"
#include "ops/ops.h"

// uncond + (cond - uncond) * scale. uncond NULL: cond alone.
at_tensor *at_cfg(at_ops *o, const at_tensor *cond, const at_tensor *uncond, double scale);
// False where ComfyUI saves the negative prompt's forward: scale is 1 and nobody asks for it.
bool at_cfg_needs_uncond(double scale, bool want_uncond);

// x as the network wants it at this sigma; x itself where that is the same.
at_tensor *at_model_input(at_ops *o, const at_model_sampling *m, const at_tensor *x, float sigma);
// The picture that the network's output stands for; `out` itself where it is the picture.
at_tensor *at_model_x0(at_ops *o, const at_model_sampling *m, const at_tensor *x,
                       const at_tensor *out, float sigma);

// Noise a latent to sigma; all_noise: sigma is the model's highest (see at_is_max_denoise).
at_tensor *at_add_noise(at_ops *o, const at_model_sampling *m, float sigma, const at_tensor *noise,
                        const at_tensor *latent, bool all_noise);
// Undo the scaling (not the noise) at the sigma where sampling stopped.
at_tensor *at_unscale_noise(at_ops *o, const at_model_sampling *m, float sigma, at_tensor *x);
bool at_is_max_denoise(const at_model_sampling *m, float first_sigma);

#endif
