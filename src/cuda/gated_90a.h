// SPDX-License-Identifier: Apache-2.0
// gated_90a.h - gated linear units in one kernel (gated_90a.cu; compute capability 9.0 alone).
#ifndef AT_CUDA_GATED_90A_H
#define AT_CUDA_GATED_90A_H

#include "cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

// out[i, j] = v * act(g), v = x[i] . w[j] * scale + bias[j], g the same with row n + j; x [m, k], w [2n, k], out [m, n]
// and bias of one 16-bit format.
typedef struct at_k_gated_in {
    const void *x, *w, *bias; // bias NULL: none
    void *out;
    int64_t m, n, k, x_row, w_row, out_row; // elements from a row to the next
    float scale;
    at_dtype dtype;
    int act;
} at_k_gated_in;
// GELUs alone; rows of x and w in pieces of 16 bytes, n a multiple of 8.
bool at_k_gated_suits(const at_k_gated_in *a);
cudaError_t at_k_gated(cudaStream_t s, const at_k_gated_in *a);

#ifdef __cplusplus
}
#endif

#endif
