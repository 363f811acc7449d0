// SPDX-License-Identifier: Apache-2.0
// avx2.h - the leaves of the AVX2 table (rows_avx2.c, gemm_avx2.c), named so that the AVX-512
// tables may borrow those for which wider registers bring nothing.
#ifndef AT_CPU_X86_AVX2_H
#define AT_CPU_X86_AVX2_H

#include "cpu/kernels.h"

void at_avx2_load(float *dst, const void *base, at_dtype t, int64_t first, int64_t stride,
                  int64_t n);
void at_avx2_store(void *base, at_dtype t, int64_t first, int64_t stride, const float *src,
                   int64_t n);
void at_avx2_finish(float *y, const float *x, int64_t n, const at_cpu_finish *f);
void at_avx2_binary(float *x, const float *y, int64_t n, at_binary_op op);
void at_avx2_mul_add(float *x, const float *g, const float *y, int64_t n);
void at_avx2_axpy(float *x, float c, const float *y, int64_t n);
float at_avx2_sum(const float *x, int64_t n);
float at_avx2_squares(const float *x, float mean, int64_t n);
void at_avx2_norm(float *y, const float *x, int64_t n, float mean, float rstd, const float *w,
                  const float *b, const float *s, const float *t);
void at_avx2_channel_sum(float *acc, const float *x, int64_t n, int64_t rows, int64_t pitch);
void at_avx2_channel_squares(float *acc, const float *x, const float *mean, int64_t n, int64_t rows,
                             int64_t pitch);
void at_avx2_channel_affine(float *y, int64_t y_pitch, const float *x, int64_t x_pitch,
                            const float *a, const float *b, int64_t n, int64_t rows, at_act act);
void at_avx2_rotate(float *x, const float *cs, const float *sn, int64_t half, bool halves);
float at_avx2_max(const float *x, int64_t n);
float at_avx2_exp_sum(float *x, float minus, int64_t n);
void at_avx2_scale(float *x, float by, int64_t n);

void at_avx2_tile(int rows, int segments, const int64_t *off, int64_t k_len, const float *a,
                  int64_t lda, const float *b, float *c, int64_t ldc, bool add);
void at_avx2_pack(float *dst, const void *w, at_dtype t, int64_t first, int64_t ldw, int n,
                  int64_t k);
void at_avx2_dots(float *out, int64_t ldo, const float *x, int64_t ldx, int m, const void *w,
                  at_dtype t, int64_t first, int64_t ldw, int64_t n, int64_t k);
void at_avx2_wino_input(float *v, int64_t step, const float *const px[36], int64_t n);
void at_avx2_wino_output(float *y, int64_t ld, const float *m, int64_t step, int64_t n);
void at_avx2_wino_filter(float *u, int64_t step, const float *g, int nr);
float at_avx2_absmax(const float *x, int64_t n);
void at_avx2_quantise(int8_t *q, const float *x, float inverse, int64_t n);
void at_avx2_quantise_words(int16_t *q, const float *x, float inverse, int64_t n);
void at_avx2_from_s32(float *y, const int32_t *x, float scale, const float *scales, int64_t n);
// Elements of a and b are pairs of int16 along K, c holds int32.
void at_avx2_int8_tile(int rows, int segments, const int64_t *off, int64_t k_len, const float *a,
                       int64_t lda, const float *b, float *c, int64_t ldc, bool add);
void at_avx2_int8_pack(float *dst, const int8_t *w, int64_t ldw, int n, int64_t k);

#endif
