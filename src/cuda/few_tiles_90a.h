// SPDX-License-Identifier: Apache-2.0
// few_tiles_90a.h - products that are one round of small tiles (few_tiles_90a.cu; compute capability 9.0 alone).
#ifndef AT_CUDA_FEW_TILES_90A_H
#define AT_CUDA_FEW_TILES_90A_H

#include "cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

// out[i, j] = x[i] . w[j] * scale + bias[j] + residual[i, j]; all of one 16-bit format, bias and residual NULL: none. out
// may be residual.
typedef struct at_k_few_tiles_in {
    const void *x, *w, *bias, *residual;
    void *out;
    int64_t m, n, k, x_row, w_row, out_row, residual_row; // elements from a row to the next
    float scale;
    at_dtype dtype;
} at_k_few_tiles_in;
// Rows of x and w in pieces of 16 bytes, n a multiple of 8.
bool at_k_few_tiles_suits(const at_k_few_tiles_in *a);
// Blocks of a multiprocessor each that an m x n result takes.
int64_t at_k_few_tiles_blocks(int64_t m, int64_t n);
cudaError_t at_k_few_tiles(cudaStream_t s, const at_k_few_tiles_in *a);

#ifdef __cplusplus
}
#endif

#endif
