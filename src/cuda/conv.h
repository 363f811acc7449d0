// SPDX-License-Identifier: Apache-2.0
// conv.h - convolutions on one GPU: what the slot (conv.c) asks of cuDNN (conv_dnn.c).
#ifndef AT_CUDA_CONV_H
#define AT_CUDA_CONV_H

#include "cuda/cuda.h"

// out = conv(x, w) + residual + bias, in x's format throughout but for out where x is f32.
//   x    [b, h, w, cin] channels contiguous, other strides free
//   w    filter form [cout, kh, kw, cin]; with `up` the phase form [cin, 4, 4, cout] (conv_rest.cu)
//   out  [b, oh, ow, cout] and residual, both without gaps, different buffers
//   bias [cout] in x's 16-bit format, with or without a residual; a residual needs a bias
//   up   x is read as if each pixel stood 2x2 and a 3x3 filter with one zero around went over it: a
//        transposed convolution with 4x4 taps and stride 2; without bias and residual
typedef struct at_cuda_conv_in {
    const at_view *x, *w, *out, *residual; // residual NULL: none
    const void *bias;                      // NULL: none
    int stride, top, left, bottom, right;
    bool up;
} at_cuda_conv_in;

// *done false: cuDNN has nothing for it. The first call for a problem times what cuDNN proposes on these
// very buffers (not while a graph is recorded), so out must not be read by the same call.
at_status at_cuda_conv_dnn(at_cuda *g, const at_cuda_conv_in *in, bool *done);

#endif
