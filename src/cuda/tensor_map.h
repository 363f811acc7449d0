// SPDX-License-Identifier: Apache-2.0
// tensor_map.h - matrices as the chip's own copies (TMA, compute capability 9.0) want them told.
#ifndef AT_CUDA_TENSOR_MAP_H
#define AT_CUDA_TENSOR_MAP_H

#include <cuda.h>
#include <stdbool.h>

#include "atelier/types.h"

#ifdef __cplusplus
extern "C" {
#endif

// Boxes of `box` rows by 64 values of a 16-bit matrix [rows, columns], swizzled by 128 bytes, zeros outside; `row`
// elements from a row to the next, a multiple of 8, data aligned to 16. False: no driver that knows it.
bool at_tensor_map(CUtensorMap *out, const void *data, at_dtype dtype, int64_t rows,
                   int64_t columns, int64_t row, int box);
// The same of [batch, tokens, heads, dim] with strides of the first three and boxes of `box` tokens by 64 values of a head
// (dim at most 64).
bool at_tensor_map_heads(CUtensorMap *out, const at_view *v, int box);

#ifdef __cplusplus
}
#endif

#endif
