// SPDX-License-Identifier: Apache-2.0
// norm_rows.h - norms of the widths that UNets and text encoders have.
#ifndef AT_CUDA_NORM_ROWS_H
#define AT_CUDA_NORM_ROWS_H

#include "cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

// at_k_norm where nothing modulates, nothing is added first and out is floats, for some widths; false: nothing was
// queued, because it is none of them.
bool at_k_norm_rows(cudaStream_t s, const at_k_norm_in *a);

#ifdef __cplusplus
}
#endif
#endif
