// SPDX-License-Identifier: Apache-2.0
// extent.h - how many bytes a shape takes, checked.
// Idea: a dimension of 0 makes the tensor empty, but the other dimensions must still multiply
// without overflow, because strides are products of them.
#ifndef AT_WEIGHT_EXTENT_H
#define AT_WEIGHT_EXTENT_H

#include <stdbool.h>

#include "tensor/dtype.h"

// False if a dimension is negative or the bytes do not fit 63 bits.
static inline bool at_extent_bytes(at_dtype dtype, int rank, const int64_t *shape, uint64_t *out)
{
    int64_t n = (int64_t)at_dtype_size(dtype);
    bool empty = false;

    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0 || __builtin_mul_overflow(n, shape[i] ? shape[i] : 1, &n)) return false;
        empty |= shape[i] == 0;
    }
    *out = empty ? 0 : (uint64_t)n;
    return true;
}

#endif
