// SPDX-License-Identifier: Apache-2.0
// rows8.h - kernels that make fp8 rows: what an fp8 product multiplies.
// Idea: e4m3 holds seven powers of two above its finest step, so each row gets a scale of its own: its largest
// magnitude becomes 448. Value = byte * scale of its row. Owns nothing; nothing waits, nothing is allocated.
#ifndef AT_CUDA_ROWS8_H
#define AT_CUDA_ROWS8_H

#include "cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { AT_ROWS8_WIDEST = 32768 }; // elements of a row

// x [b, t, k] of f32, bf16 or f16, k a multiple of 16 and at most AT_ROWS8_WIDEST, features contiguous, other
// strides free -> out [b * t, k] contiguous, 16-byte aligned, and scales [b * t].
cudaError_t at_k_rows8(cudaStream_t s, const at_view *x, void *out, float *scales);

// The way back: values [n, k] of e4m3 or e5m2, contiguous, times their row's scale -> out [n, k] floats, contiguous,
// k a multiple of 16.
cudaError_t at_k_rows8_floats(cudaStream_t s, const at_view *values, const float *scales,
                              const at_view *out);

// at_k_rows8 of the norm of x (at_k_norm_in without out; weight and bias aligned to 16 bytes), k at most
// AT_NORM8_WIDEST.
enum { AT_NORM8_WIDEST = 8192 };
cudaError_t at_k_norm_rows8(cudaStream_t s, const at_k_norm_in *a, void *out, float *scales);

// out = residual + gate * act(y * scale * x_rows[row] * w_rows[column] + bias) over [b, t, n]; floats, features
// contiguous; bias [n], gate [b, n], residual like out, each may be absent.
typedef struct at_k_scaled_in {
    at_view y, out, gate, residual;
    const float *x_rows, *w_rows;
    const void *bias;
    at_dtype bias_dtype;
    int act;
    float scale;
} at_k_scaled_in;
cudaError_t at_k_linear_scaled(cudaStream_t s, const at_k_scaled_in *a);

#ifdef __cplusplus
}
#endif
#endif
