// SPDX-License-Identifier: Apache-2.0
// latent_operation.h - LATENT_OPERATION: what LatentOperation* nodes make and others apply.
// Idea: an operation is a value; LatentApplyOperation applies it to a LATENT's samples on the host, and
// a guidance hook (LatentApplyOperationCFG) to a prediction in the op scope.
// Source: ComfyUI 0.3.64, behaviour of comfy_extras/nodes_latent.py.
// Owns: the object owns nothing else.
#ifndef AT_NODES_LATENT_OPERATION_H
#define AT_NODES_LATENT_OPERATION_H

#include "atelier/node.h"
#include "ops/ops.h"

typedef enum at_latent_change {
    AT_LATENT_TONEMAP_REINHARD, // multiplier
    AT_LATENT_SHARPEN           // radius, sigma, alpha
} at_latent_change;
typedef struct at_latent_operation {
    at_latent_change kind;
    double multiplier, sigma, alpha;
    int radius;
} at_latent_operation;

typedef struct at_obj_latent_operation {
    at_object base; // "LATENT_OPERATION"
    at_latent_operation op;
} at_obj_latent_operation;
at_object *at_obj_latent_operation_new(const at_latent_operation *op);

// x -> out, contiguous f32 [b, c, h, w] on the host, not in place. AT_EINVAL: a radius that the latent is
// too small for.
at_status at_latent_operate(const at_latent_operation *op, const int64_t shape[4], const float *x,
                            float *out);
// The same for a tensor of rank 4 on the ops' device, e.g. in a guidance hook (through the host).
at_tensor *at_latent_operation_apply(at_ops *o, const at_latent_operation *op, const at_tensor *x);

#endif
