// SPDX-License-Identifier: Apache-2.0
// svd.h - the singular values that matter, and a difference of weights as the factors of a LoRA.
// Sources: the range finder with power steps is Halko, Martinsson, Tropp 2011 (arXiv:0909.4061),
// the decomposition of what it finds one-sided Jacobi (Hestenes 1958) in doubles; the clamp is
// ComfyUI 0.3.64 comfy_extras/nodes_lora_extract.py (behaviour).
// Easy to get wrong: the clamp's limit is a quantile of signed values, so it depends on the signs
// of the singular vectors, which no decomposition fixes.
// Owns: results are the caller's (at_matrix_free), and empty after a failure.
#ifndef AT_WEIGHT_SVD_H
#define AT_WEIGHT_SVD_H

#include "weight/matrix.h"

// The nearest product of rank `rank` (1 to the smaller side) to a [m, n] of finite numbers: us [m,
// rank] is U times the singular values, largest first, vt [rank, n] has orthonormal rows (zeros if
// all of a is 0). The same numbers on every run and any number of threads. Ranks near the smaller
// side cost the whole decomposition: seconds for sides of a thousand.
at_status at_matrix_svd(const at_matrix *a, int64_t rank, at_matrix *us, at_matrix *vt);

// Limit both factors of a LoRA to +- the 0.99 quantile of their numbers taken together (linear
// between neighbours, as torch.quantile).
at_status at_lora_clamp(at_matrix *up, at_matrix *down);

#endif
