// SPDX-License-Identifier: Apache-2.0
// guide_sums.h - sums over tensors, for guidance rules that need lengths and angles.
// Idea: latents are small; their values are read to the host and summed in double, and what comes
// of it goes back as one number (or one per item) into ops. Every rank holds the whole latent and
// finds the same sums.
// Ownership: arrays are the caller's (at_free).
#ifndef AT_NODES_GUIDE_SUMS_H
#define AT_NODES_GUIDE_SUMS_H

#include "ops/ops.h"

// The f32 values of a tensor; NULL after a failure (sticky in `o`).
float *at_sum_values(at_ops *o, const at_tensor *t);
// Sum of a * b over everything; false after a failure.
bool at_sum_dot(at_ops *o, const at_tensor *a, const at_tensor *b, double *out);
// Sum of a * b over each item of the batch, into out[a->shape[0]].
bool at_sum_dots(at_ops *o, const at_tensor *a, const at_tensor *b, double *out);
// Standard deviation (of a sample: divided by n - 1) of each item, into out[t->shape[0]]; and of
// all.
bool at_sum_deviations(at_ops *o, const at_tensor *t, double *out);
bool at_sum_deviation(at_ops *o, const at_tensor *t, double *out);
// n numbers as a tensor [n, 1, 1, 1], to be broadcast over items.
at_tensor *at_sum_column(at_ops *o, const double *values, int64_t n);

#endif
