// SPDX-License-Identifier: Apache-2.0
// conv_slabs.h - convolutions over maps that the library does not take whole.
#ifndef AT_CUDA_CONV_SLABS_H
#define AT_CUDA_CONV_SLABS_H

#include "atelier/backend.h"

// What the slabs are made with. conv: one convolution as the slot has it. scratch, drop: device memory for what is queued
// next. copy: between views of one shape and dtype.
typedef struct at_conv_hands {
    at_status (*conv)(void *stream, const at_conv2d_args *a);
    at_status (*scratch)(void *stream, size_t bytes, void **out);
    void (*drop)(void *stream, void *data);
    at_status (*copy)(void *stream, const at_view *from, const at_view *to);
} at_conv_hands;

// True where x (doubled, with upsample2x) or out has more than `limit` elements and slabs of rows can be made of it: a doubled
// picture needs stride 1 and no residual.
bool at_conv_is_large(const at_conv2d_args *a, int64_t limit);

// The same result by slabs of whole rows, a picture at a time, with at most `limit` elements of x and of out each
// (but at least one row). An error is the first one of a slab.
at_status at_conv_in_slabs(void *stream, const at_conv2d_args *a, int64_t limit,
                           const at_conv_hands *hands);

#endif
