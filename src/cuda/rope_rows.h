// SPDX-License-Identifier: Apache-2.0
// rope_rows.h - at_k_rope for tokens whose heads fit into one warp's registers.
// Owns nothing; nothing waits, nothing is allocated.
#ifndef AT_CUDA_ROPE_ROWS_H
#define AT_CUDA_ROPE_ROWS_H

#include "cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

// *done false: some tensor does not fit (16 bits, pieces of eight, neighbours, 1537 to 3072 channels a token);
// nothing was launched.
cudaError_t at_k_rope_rows(cudaStream_t s, const at_k_rope_in *in, int n, bool *done);

#ifdef __cplusplus
}
#endif
#endif
