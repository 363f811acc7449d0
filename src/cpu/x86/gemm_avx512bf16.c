// SPDX-License-Identifier: Apache-2.0
// gemm_avx512bf16.c - the 14x32 register tile over pairs of bf16, AVX512-BF16.
// Idea: vdpbf16ps takes two products of bf16 into each f32 sum, so a pair of neighbours along K
// plays the part that one float plays in gemm_avx512.c; packing moves pairs as 32-bit elements,
// unconverted.
// Easy to get wrong: the instruction flushes denormals and rounds each pair sum to nearest, which
// is within the tolerance of f32 sums (tests/check) but not bit-equal to them.
// Owns nothing.
#include <immintrin.h>

#include "cpu/x86/avx512.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __m512bh pairs(__m512 x)
{
    return (__m512bh)_mm512_castps_si512(x);
}

INLINE void tile_rows(const int rows, int segments, const int64_t *off, int64_t k_len,
                      const float *a, int64_t lda, const float *b, float *c, int64_t ldc, bool add)
{
    __m512 acc[14][2];

#pragma GCC unroll 14
    for (int i = 0; i < rows; i++) {
        acc[i][0] = add ? _mm512_loadu_ps(c + i * ldc) : _mm512_setzero_ps();
        acc[i][1] = add ? _mm512_loadu_ps(c + i * ldc + 16) : _mm512_setzero_ps();
    }
    for (int s = 0; s < segments; s++) {
        const float *p0 = a + (off ? off[s] : 0), *p1 = p0 + 3 * lda, *p2 = p1 + 3 * lda;
        const float *p3 = p2 + 3 * lda, *p4 = p3 + 3 * lda;
        for (int64_t k = 0; k < k_len; k++) {
            __m512bh b0 = pairs(_mm512_loadu_ps(b)), b1 = pairs(_mm512_loadu_ps(b + 16));
#pragma GCC unroll 14
            for (int i = 0; i < rows; i++) {
                const float *base = i < 3 ? p0 : i < 6 ? p1 : i < 9 ? p2 : i < 12 ? p3 : p4;
                __m512bh x = pairs(_mm512_set1_ps(base[i % 3 * lda + k]));
                acc[i][0] = _mm512_dpbf16_ps(acc[i][0], x, b0);
                acc[i][1] = _mm512_dpbf16_ps(acc[i][1], x, b1);
            }
            b += 32;
        }
    }
#pragma GCC unroll 14
    for (int i = 0; i < rows; i++) {
        _mm512_storeu_ps(c + i * ldc, acc[i][0]);
        _mm512_storeu_ps(c + i * ldc + 16, acc[i][1]);
    }
}

#define ROWS(n)                                                                                    \
    case n: tile_rows(n, segments, off, k_len, a, lda, b, c, ldc, add); break

void at_avx512bf16_tile(int rows, int segments, const int64_t *off, int64_t k_len, const float *a,
                        int64_t lda, const float *b, float *c, int64_t ldc, bool add)
{
    switch (rows) {
        ROWS(14);
        ROWS(13);
        ROWS(12);
        ROWS(11);
        ROWS(10);
        ROWS(9);
        ROWS(8);
        ROWS(7);
        ROWS(6);
        ROWS(5);
        ROWS(4);
        ROWS(3);
        ROWS(2);
        ROWS(1);
    }
}

// exp(x) for results that become bf16: 2^n times a cubic for 2^f, |f| <= 1/2; relative error 7.5e-5, a
// twenty-sixth of half a step of bf16.
INLINE __m512 rough_exp(__m512 x)
{
    __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f)), n, f, p;

    t = _mm512_max_ps(_mm512_set1_ps(-150.0f), t); // 2^-150 is 0; NaN is the second operand
    n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    f = _mm512_sub_ps(t, n);
    p = _mm512_set1_ps(0x1.c3f760p-5f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.f0de1ap-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.62f31ap-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.fff692p-1f));
    return _mm512_scalef_ps(p, n);
}

float at_avx512bf16_exp_pairs(float *p, const float *x, float scale, float minus, int64_t n)
{
    const __m512 by = _mm512_set1_ps(scale), off = _mm512_set1_ps(minus);
    __m512 sum = _mm512_setzero_ps();

    for (int64_t i = 0; i < n; i += 16) {
        int64_t left = n - i;
        __mmask16 mask = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
        __mmask16 even = left >= 16 ? 0xffff : (__mmask16)((1u << (left + left % 2)) - 1);
        __m512 e = rough_exp(_mm512_fmsub_ps(_mm512_maskz_loadu_ps(mask, x + i), by, off));
        e = _mm512_maskz_mov_ps(mask, e);
        sum = _mm512_add_ps(sum, e);
        _mm256_mask_storeu_epi16((char *)(void *)p + 2 * i, even, (__m256i)_mm512_cvtneps_pbh(e));
    }
    return _mm512_reduce_add_ps(sum);
}
