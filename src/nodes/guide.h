// SPDX-License-Identifier: Apache-2.0
// guide.h - the denoiser that a solver calls: model, conditionings and classifier-free guidance together.
// Source: comfyui-contract sections 5.2 and 5.5. Positive and negative run as one batch when their shapes
// agree; at cfg 1 the negative is not run at all unless a cfg++ solver asks for it.
#ifndef AT_NODES_GUIDE_H
#define AT_NODES_GUIDE_H

#include "nodes/env.h"
#include "nodes/objects.h"

typedef struct at_guide {
    at_model *model;                        // borrowed
    const at_obj_cond *positive, *negative; // borrowed; negative NULL: no guidance
    double cfg;
    at_model_sampling sampling;
} at_guide;

// The at_denoiser over `g`, which must outlive it.
at_denoiser at_guide_denoiser(at_guide *g);

// Everything between a sampler node and the solver (contract 5.5): zero latents get the model's channels,
// process_in, noise, solver with progress, process_out.
typedef struct at_sample_job {
    const at_obj_model *model;
    const at_obj_cond *positive, *negative; // negative NULL: BasicGuider
    double cfg;
    const char *sampler;
    const at_sampler_options *options; // NULL: defaults
    const float *sigmas;
    size_t n_sigmas;
    const at_obj_latent *latent;
    bool add_noise;
    uint64_t seed;
} at_sample_job;
// *out and *denoised (may be NULL): new LATENT objects, the final state and the last x0 estimate.
at_status at_sample_run(at_node_ctx *c, const at_sample_job *job, at_object **out,
                        at_object **denoised);

#endif
