// SPDX-License-Identifier: Apache-2.0
// heads8.h - kernels around an attention in fp8: 16-bit heads to e4m3 and back.
// Owns nothing; nothing waits, nothing is allocated.
#ifndef AT_CUDA_HEADS8_H
#define AT_CUDA_HEADS8_H

#include "cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

// q, k, v [b, t, h, d] of one 16-bit format, d a multiple of 16, in words of 16 bytes -> e4m3 of value * factor,
// contiguous, 16-byte aligned; beyond +-448 they saturate. Each less than 2^31 elements.
cudaError_t at_k_heads8(cudaStream_t s, const at_view *q, const at_view *k, const at_view *v,
                        float factor, void *const out[3]);
// The way back: out [b, t, h, d] = values * factor, values contiguous.
cudaError_t at_k_heads8_floats(cudaStream_t s, const void *values, float factor,
                               const at_view *out);

#ifdef __cplusplus
}
#endif
#endif
