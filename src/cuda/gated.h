// SPDX-License-Identifier: Apache-2.0
// gated.h - gated linear units in one kernel where there is one (gated.c).
#ifndef AT_CUDA_GATED_H
#define AT_CUDA_GATED_H

#include "cuda/cuda.h"

// *done false: it is for the product and a pass behind it, nothing was written.
at_status at_cuda_gated(at_cuda *g, const at_geglu_args *a, bool *done);

#endif
