// SPDX-License-Identifier: Apache-2.0
// hooks.h - what model-patch nodes change around a network: before, instead of and after guidance.
// Idea: as models/patch.h, one table of functions per kind of hook; the guide calls them in the order
// in which they were added and knows none by name. Source: ComfyUI's model_options
// (sampler_pre_cfg_function, sampler_cfg_function, sampler_post_cfg_function, denoise_mask_function).
// Ownership: a set is counted and immutable.
#ifndef AT_NODES_HOOKS_H
#define AT_NODES_HOOKS_H

#include "ops/ops.h"

typedef struct at_hooks at_hooks; // NULL is the empty set
at_hooks *at_hooks_retain(at_hooks *h);
void at_hooks_release(at_hooks **h); // nulls it; NULL is fine

#endif
