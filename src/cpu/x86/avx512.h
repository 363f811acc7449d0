// SPDX-License-Identifier: Apache-2.0
// avx512.h - the leaves that AVX-512 does better than AVX2 (gemm_avx512.c, gemm_avx512bf16.c).
#ifndef AT_CPU_X86_AVX512_H
#define AT_CPU_X86_AVX512_H

#include "cpu/kernels.h"

void at_avx512_tile(int rows, int segments, const int64_t *off, int64_t k_len, const float *a,
                    int64_t lda, const float *b, float *c, int64_t ldc, bool add);
void at_avx512_pack(float *dst, const void *w, at_dtype t, int64_t first, int64_t ldw, int n,
                    int64_t k);
void at_avx512_dots(float *out, int64_t ldo, const float *x, int64_t ldx, int m, const void *w,
                    at_dtype t, int64_t first, int64_t ldw, int64_t n, int64_t k);
float at_avx512_exp_sum(float *x, float minus, int64_t n);
float at_avx512_max(const float *x, int64_t n);
float at_avx512bf16_exp_pairs(float *p, const float *x, float scale, float minus, int64_t n);
void at_avx512_finish(float *y, const float *x, int64_t n, const at_cpu_finish *f);
void at_avx512_from_s32(float *y, const int32_t *x, float scale, const float *scales, int64_t n);
void at_avx512bf16_store(void *base, at_dtype t, int64_t first, int64_t stride, const float *src,
                         int64_t n);
void at_avx512bf16_load(float *dst, const void *base, at_dtype t, int64_t first, int64_t stride,
                        int64_t n);
// Elements of a and b are pairs of bf16 along K.
void at_avx512bf16_tile(int rows, int segments, const int64_t *off, int64_t k_len, const float *a,
                        int64_t lda, const float *b, float *c, int64_t ldc, bool add);
// The same for whole 32x32 blocks and k_len in steps of 16, between begin and end.
void at_amx_tile(int rows, int segments, const int64_t *off, int64_t k_len, const float *a,
                 int64_t lda, const float *b, float *c, int64_t ldc, bool add);
void at_amx_begin(void);
void at_amx_end(void);

#endif
