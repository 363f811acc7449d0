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
