// SPDX-License-Identifier: Apache-2.0
// types.h - the element types and the plain view of a tensor that cross every seam.
// Idea: a view is a pointer with a shape; it owns nothing and can be passed to a plug-in.
#ifndef ATELIER_TYPES_H
#define ATELIER_TYPES_H

#include <stddef.h>
#include <stdint.h>

#define AT_MAX_RANK 6

typedef enum at_dtype {
    AT_F32 = 0,
    AT_F16,
    AT_BF16,
    AT_F8E4M3, // torch.float8_e4m3fn
    AT_F8E5M2, // torch.float8_e5m2
    AT_F64,
    AT_I8,
    AT_U8,
    AT_I16,
    AT_I32,
    AT_I64,
    AT_BOOL,
    AT_DTYPE_COUNT
} at_dtype;

// shape and stride in elements, outermost first; stride 0 broadcasts (inputs only).
typedef struct at_view {
    void *data; // host or device address of element (0, ..., 0)
    at_dtype dtype;
    int rank;
    int64_t shape[AT_MAX_RANK], stride[AT_MAX_RANK];
} at_view;

#endif
