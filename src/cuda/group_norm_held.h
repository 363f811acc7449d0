// SPDX-License-Identifier: Apache-2.0
// group_norm_held.h - the group norm that keeps a map in registers.
#ifndef AT_CUDA_GROUP_NORM_HELD_H
#define AT_CUDA_GROUP_NORM_HELD_H

#include "cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

// at_k_group_norm of 16-bit x and out of one format in pieces of eight at whole 16 bytes (the caller has looked),
// without scratch; false: nothing was queued, because it does not fit.
bool at_k_group_norm_held(cudaStream_t s, const at_k_group_norm_in *a);
// The blocks that share a set of groups then; 0: it does not fit.
int at_k_group_norm_cluster(const at_k_group_norm_in *a);

#ifdef __cplusplus
}
#endif
#endif
