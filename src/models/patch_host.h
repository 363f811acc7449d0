// SPDX-License-Identifier: Apache-2.0
// patch_host.h - a patch's look at a feature map: plain f32 numbers on the host and back.
// Idea: what a patch does to a map (filters, matches, histograms) has no door in ops/ and is small
// beside the network, so it is done where the CPU can reach it, on every device the same way.
// Owns: at_patch_read gives memory to at_free.
#ifndef AT_MODELS_PATCH_HOST_H
#define AT_MODELS_PATCH_HOST_H

#include "ops/ops.h"

// The elements of x in order, or NULL after a failure, which is then in o.
float *at_patch_read(at_ops *o, const at_tensor *x, const char *who);
// A tensor of `dtype` of these values on the op device.
at_tensor *at_patch_give(at_ops *o, at_dtype dtype, int rank, const int64_t *shape,
                         const float *values);

// The `free` of patches whose struct belongs to somebody else: does nothing.
void at_patch_not_owned(void *self);

#endif
