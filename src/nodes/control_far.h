// SPDX-License-Identifier: Apache-2.0
// control_far.h - a ControlNet on another device than the denoiser: what it reads goes there, its residuals come back.
// Idea: an op context of its own over there; tensors travel over the host, so that any two devices do. It saves the
// memory of the denoiser's device and costs the way of the residuals (SDXL 1024x1024 with CFG: 107 MB a step in 16 bits).
// Easy to get wrong: a device's stream is one thread's, so ranks, which are threads of their own, keep their ControlNets.
// Owns: the caller frees the op context; tensors are of the scopes they are put into.
#ifndef AT_NODES_CONTROL_FAR_H
#define AT_NODES_CONTROL_FAR_H

#include "models/control.h"
#include "models/models.h"
#include "ops/ops.h"

// Whether a ControlNet that was put on `device` (NULL: nowhere) runs there in a run of `o`.
bool at_control_is_far(const at_ops *o, const at_device *device);
// An op context there that computes as `o` does. at_ops_free.
at_status at_control_far_open(const at_ops *o, at_device *device, at_ops **out);
// What a ControlNet reads of `in`, and its text (NULL: in's own), in far's current scope. A failure is sticky in far.
void at_control_far_take(at_ops *far, const at_model_in *in, const at_tensor *context,
                         at_model_in *out, const at_tensor **out_context);
// t, made by far, in o's current scope; NULL stays NULL. A failure is sticky in o.
const at_tensor *at_control_far_bring(at_ops *o, const at_tensor *t);

#endif
