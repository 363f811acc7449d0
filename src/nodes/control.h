// SPDX-License-Identifier: Apache-2.0
// control.h - CONTROL_NET on links, and what a sampling run asks of a chain of them.
// Idea: "apply" makes a new object that holds the net, its hint and the object before it (an
// entry's `control` is the last of its chain). A run has one at_control_run, which scales each hint
// once per latent size, and the guide asks it for the sum of a chain's residuals before each
// evaluation.
// Source: ComfyUI 0.3.64 comfy/controlnet.py (ControlBase, ControlNet, T2IAdapter).
// Ownership: objects are immutable and counted; a run owns its cached tensors.
#ifndef AT_NODES_CONTROL_H
#define AT_NODES_CONTROL_H

#include "models/control_net.h"
#include "nodes/objects.h"

typedef struct at_obj_control {
    at_object base;
    at_control_net *net;
    at_device *device; // where its loader put it; NULL: with the denoiser
    bool pooled;       // residuals become their mean over the picture ("_shuffle" files)
    int type;          // union nets: the kind of hint, -1: not told
    // What "apply" adds; hint NULL: not applied yet.
    struct at_obj_control *previous; // its residuals are added; or NULL
    at_tensor *hint;                 // IMAGE [b, h, w, c] on the host
    at_tensor *mask; // [b, 1, h, w] on the host: extra channel of latent hints; or NULL
    at_vae *vae;     // or NULL
    float strength, start_percent, end_percent;
} at_obj_control;
at_object *at_obj_control_new(at_control_net *net); // takes the reference
at_object *at_obj_control_copy(const at_obj_control *c);

// One sampling run over one model. Not shared between threads.
typedef struct at_control_run at_control_run;
at_status at_control_run_new(const at_model *m, at_control_run **out);
void at_control_run_free(at_control_run *r); // NULL is fine

// Residuals of the chain that ends in `c` for this evaluation: fills *out with tensors of the
// current scope. False: none is active at in->sigma, or a failure (sticky in `o`). in: as the
// denoiser will get it (scaled x, timesteps, context, pooled, guidance, sigma, chunks); context
// NULL: in->context (at_cond.control_context goes here, already at the batch's size). first, all:
// which latents of how many in->x holds for each of its chunks (0 and all of them, unless a batch
// is sampled by parts), so that each gets its own picture of a hint of several.
bool at_control_run_residuals(at_control_run *r, at_ops *o, const at_obj_control *c,
                              const at_model_in *in, const at_tensor *context, int64_t first,
                              int64_t all, at_control *out);

#endif
