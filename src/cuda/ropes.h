// SPDX-License-Identifier: Apache-2.0
// ropes.h - rotations of backend.h's arguments: in place, or into an fp8 attention's operands.
// Owns nothing; what is made for a call is freed in it (in stream order).
#ifndef AT_CUDA_ROPES_H
#define AT_CUDA_ROPES_H

#include "cuda/cuda.h"

at_status at_cuda_ropes(void *stream, const at_rope_args *a, int n); // slot ropes

// q and k after a->turns, and v, as contiguous e4m3 of value * factor: heads[0 .. 2] like q, k, v. *done false: the
// turns are not all of q and k in their order, or do not lie in pieces of eight; q and k are as they were.
at_status at_cuda_turned_heads8(at_cuda *g, const at_attention_args *a, float factor,
                                void *const heads[3], bool *done);

#endif
