// SPDX-License-Identifier: Apache-2.0
// norm_gated.h - the gated sum and norm of rows that fit into one warp's registers.
// Owns nothing; nothing waits, nothing is allocated.
#ifndef AT_CUDA_NORM_GATED_H
#define AT_CUDA_NORM_GATED_H

#include "cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

// at_k_norm with y and gate, where x and y are of one 16-bit format, 3072 wide and in words of 16 bytes.
bool at_k_norm_gated_suits(const at_k_norm_in *a);
cudaError_t at_k_norm_gated(cudaStream_t s, const at_k_norm_in *a);

#ifdef __cplusplus
}
#endif
#endif
