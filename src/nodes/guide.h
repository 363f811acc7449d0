// SPDX-License-Identifier: Apache-2.0
// guide.h - the denoiser that a solver calls: model, conditionings and guidance together.
// Idea: what can be decided before the first step is decided once (guide_prepare.c: areas, masks,
// ranges, pictures to concatenate), what depends on which conditionings hold is decided when that
// changes (guide_plan.c), and a step is forwards and sums (guide_batch.c, guide.c).
// Source: comfyui-contract section 5.5; behaviour of ComfyUI 0.3.64's comfy/samplers.py.
// Ownership: a guide borrows its model and lists for the length of a run and owns what it made.
#ifndef AT_NODES_GUIDE_H
#define AT_NODES_GUIDE_H

#include "nodes/env.h"
#include "nodes/hooks.h"
#include "nodes/objects.h"

typedef struct at_guide_config {
    const at_obj_model *model;
    at_guider_kind kind;
    const at_obj_cond *positive, *negative, *third; // negative and third NULL: none
    double cfg, cfg2;                               // see at_obj_guider
    const int64_t *shape;                           // of x: [b, c, h, w]
    const at_tensor *latent; // samples [b, c, h, w] on the host before process_in; NULL: empty
    const at_tensor *mask;   // denoise mask f32 [b, 1, h, w] on the host, 1: paint; or NULL
    const float *sigmas;     // the schedule
    size_t n_sigmas;
    // What the noise was drawn from, if it was (at_guide_random).
    uint64_t seed;
    bool noised;
    const int64_t *batch_index; // of the latent, or NULL
    double memory;              // bytes that one forward may take; 0: what the device has free
} at_guide_config;
// AT_EINVAL for conditionings that this model or size cannot take.
at_status at_guide_open(at_ops *o, const at_guide_config *config, at_guide **out);
void at_guide_close(at_guide *g); // NULL is fine
// The at_denoiser over `g`, which must outlive it.
at_denoiser at_guide_denoiser(at_guide *g);
// True if a hook wants to change the denoise mask from step to step; at_guide_mask is that mask.
bool at_guide_moves_mask(const at_guide *g);
at_tensor *at_guide_mask(void *guide, at_ops *o, float sigma);

// Everything between a sampler node and the solver (contract 5.5): zero latents get the model's
// channels, process_in, noise, solver with progress, process_out.
typedef struct at_sample_job {
    const at_obj_model *model;
    const at_obj_cond *positive, *negative; // negative NULL: BasicGuider
    double cfg;
    at_guider_kind kind;      // 0: positive and negative
    const at_obj_cond *third; // of the other kinds
    double cfg2;
    const char *sampler;
    const at_sampler_options *options; // NULL: defaults
    const float *sigmas;
    size_t n_sigmas;
    const at_obj_latent *latent;
    bool add_noise;
    uint64_t seed;
    const at_degrees
        *degrees; // how the workflow wants the ranks to share it; NULL: as the flags say
} at_sample_job;
// *out and *denoised (may be NULL): new LATENT objects, the final state and the last x0 estimate.
at_status at_sample_run(at_node_ctx *c, const at_sample_job *job, at_object **out,
                        at_object **denoised);

#endif
