// SPDX-License-Identifier: Apache-2.0
// dry.h - a device that computes nothing and counts everything: what a forward will take, before it runs.
// Idea: forwards reach memory and arithmetic through a device alone, so a device whose slots do nothing and
// whose memory is addresses without bytes gives the peak of any of them at any size in milliseconds. It may stand in
// for another device: then its slots are asked what they borrow and what they make of weights (needs.h), recordings
// keep what they keep there, and blocks have the sizes of its pool.
// Easy to get wrong: bytes read back are zeros. Without a device to stand in for, kernels' scratch is not counted.
// Owns: the list of weights that were used; the device lives as long as the process and is in no list.
#ifndef AT_TENSOR_DRY_H
#define AT_TENSOR_DRY_H

#include "tensor/device.h"

// `splits`: as the backend of the device that is stood in for has it. One thread at a time.
at_device *at_device_dry(bool splits);
// In place of `like`, with all that its backend can do. Forgets what was used before.
at_device *at_device_dry_like(const at_device *like);

// Since then: bytes of all forms of weights, the largest of them, and whether this weight has one.
typedef struct at_dry_weights {
    size_t bytes, largest;
} at_dry_weights;
at_dry_weights at_dry_weights_used(void);
bool at_dry_weight_is_used(const at_packed *of);
void at_dry_forget(void);

#endif
