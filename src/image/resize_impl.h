// SPDX-License-Identifier: Apache-2.0
// resize_impl.h - what the files of resize share.
// Owns nothing.
#ifndef AT_IMAGE_RESIZE_IMPL_H
#define AT_IMAGE_RESIZE_IMPL_H

#include <stdint.h>

#include "base/status.h"

// f32 pictures with their strides in elements.
typedef struct at_planes {
    float *data; // only read where it is an input
    int64_t n, h, w, c;
    int64_t sn, sh, sw, sc;
} at_planes;

// Both of equal n and c; out is contiguous in some order.
at_status at_resize_lanczos(const at_planes *in, const at_planes *out);
at_status at_resize_bislerp(const at_planes *in, const at_planes *out);

// Where output place i of a bilinear pass reads: lo and hi with weights, as torch's f32 arithmetic has it.
typedef struct at_linear_tap {
    int64_t lo, hi;
    float w_lo, w_hi;
} at_linear_tap;
at_linear_tap at_linear_tap_at(int64_t in, int64_t out, int64_t i);

#endif
