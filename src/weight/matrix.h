// SPDX-License-Identifier: Apache-2.0
// matrix.h - small f32 matrices, for the arithmetic that changes weights.
// Idea: a weight of any rank is read as [rows, cols], rows = its first dimension; products go to the
// CPU backend's linear slot where there is one (arithmetic in f32 by its contract), else to plain
// loops. Sizes come from files: every operation checks them and says what does not fit.
// Owns: an at_matrix owns its values until at_matrix_free; a zeroed one is empty.
#ifndef AT_WEIGHT_MATRIX_H
#define AT_WEIGHT_MATRIX_H

#include "weight/store.h"

typedef struct at_matrix {
    float *v; // [rows][cols]
    int64_t rows, cols;
} at_matrix;

at_status at_matrix_new(int64_t rows, int64_t cols, at_matrix *out); // values undefined
void at_matrix_free(at_matrix *m);                                   // NULL is fine
// The weight's numbers, scale applied; a weight without dimensions is [1, 1].
at_status at_matrix_read(const at_weight *w, at_matrix *out);
// `n` values rounded to nearest into `bytes` of a float dtype.
at_status at_matrix_store(const float *v, int64_t n, at_dtype dtype, void *bytes);
// a [m, k] times b [k, n]; out is made. AT_EINVAL: they do not fit.
at_status at_matrix_mul(const at_matrix *a, const at_matrix *b, at_matrix *out);
at_status at_matrix_transpose(const at_matrix *a, at_matrix *out);
// t [i, j, inner] and b [j, r]: out[i, r, inner] = sum over j; out is [i, r * inner].
at_status at_matrix_core(const at_matrix *t, int64_t inner, const at_matrix *b, at_matrix *out);
// Replace a square [n, n] in doubles by its inverse; AT_EINVAL if it has none.
at_status at_matrix_invert(double *a, int64_t n);
// y += s * x
void at_matrix_add(float *y, const float *x, int64_t n, float s);
void at_matrix_scale(float *y, int64_t n, float s);

#endif
