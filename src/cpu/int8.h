// SPDX-License-Identifier: Apache-2.0
// int8.h - rows of floats as whole numbers from -127 to 127 times a scale.
// Idea: symmetric, one scale a row (the largest magnitude over 127), so that zero stays zero and sums of products
// need no correction: sum(x w) = scale_x * scale_w * sum(q_x q_w), and the sum of integers is exact.
// Owns nothing.
#ifndef AT_CPU_INT8_H
#define AT_CPU_INT8_H

#include "cpu/kernels.h"

// Elements of a quantised row of activations: int8, or int16 that holds the same numbers (pairs for the tile).
typedef enum at_q8_form { AT_Q8_BYTES, AT_Q8_WORDS } at_q8_form;

// Rows [first, first + rows) of a matrix of any float dtype, `ld` elements apart, as dst [rows][k] and scales
// [rows]. False without memory. Not parallel: call it from ranges.
bool at_cpu_q8_rows(const at_cpu_kernels *t, at_q8_form form, void *dst, float *scales,
                    const void *base, at_dtype dtype, int64_t first, int64_t ld, int64_t rows,
                    int64_t k);
// 1 / scale for rounding; 0 for a row of zeros, and for one with NaN, whose scale makes its sums NaN.
static inline float at_cpu_q8_inverse(float largest)
{
    return largest > 0 ? 127.0f / largest : 0.0f;
}

#endif
