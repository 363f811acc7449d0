// SPDX-License-Identifier: Apache-2.0
// linear_own.h - own products among the library's candidates (linear_own.c).
#ifndef AT_CUDA_LINEAR_OWN_H
#define AT_CUDA_LINEAR_OWN_H

#include "cuda/linear.h"

// Whether an own kernel does this product; *mark is then a candidate that stands for it.
bool at_cuda_own_product(const at_cuda *g, const at_cuda_product *c, at_lt_algo *mark);
// AT_ON=own: own kernels wherever they can, untimed, for their tests.
bool at_cuda_own_forced(void);
bool at_cuda_own_marked(const at_lt_algo *algo);
// The product by the own kernel into `out`, which is c's or laid out like it; 0 is success.
int at_cuda_own_run(at_cuda *g, const at_cuda_product *c, void *out);

#endif
