// SPDX-License-Identifier: Apache-2.0
// merge.h - two models or two text encoders made into one: W = keep * W1 + take * W2.
// And a model as if it were a LoRA of another: W = W1 + strength * (W2 - what W1's file has).
// Source: ComfyUI 0.3.64 comfy_extras/nodes_model_merging.py, comfy/hooks.py and comfy/lora.py
// ("model_as_lora"; behaviour).
// Easy to get wrong: what model2 itself had changed comes along unrounded; a weight that has
// another shape in model2 is scaled all the same, and nothing is added.
#ifndef AT_NODES_MERGE_H
#define AT_NODES_MERGE_H

#include "nodes/edit.h"

typedef struct at_merge_share {
    double keep, take;
} at_merge_share;
// The shares of one weight, by its key below the network's prefix.
typedef at_merge_share at_merge_fn(const void *ctx, const char *key);

// model1 with model2's weights of the same keys.
at_status at_merge_models(const at_object *model1, const at_object *model2, at_merge_fn *share,
                          const void *ctx, at_object **out);
// The same for every encoder that both have.
at_status at_merge_clips(const at_object *clip1, const at_object *clip2, at_merge_share share,
                         at_object **out);

// `model` moved towards `target`. AT_EINVAL: a weight of both has two shapes.
at_status at_move_model(const at_obj_model *model, const at_obj_model *target, double strength,
                        at_object **out);
// The same for every encoder that both have.
at_status at_move_clip(const at_obj_clip *clip, const at_obj_clip *target, double strength,
                       at_object **out);

#endif
