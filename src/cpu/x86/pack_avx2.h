// SPDX-License-Identifier: Apache-2.0
// pack_avx2.h - rows of a weight, any dtype, transposed into an f32 panel by 8x8 blocks.
// Idea: eight rows are loaded and converted eight elements at a time; three rounds of shuffles turn
// them into eight columns.
// Owns nothing. Included by the gemm_*.c of the x86 tables.
#ifndef AT_CPU_X86_PACK_AVX2_H
#define AT_CPU_X86_PACK_AVX2_H

#include <string.h>

#include "cpu/x86/math_avx2.h"

#define INLINE static inline __attribute__((always_inline))

INLINE void transpose8(v8 r[8])
{
    v8 t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
        u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
}

INLINE v8 load_upto(const void *w, const at_dtype t, int64_t at, int64_t n)
{
    size_t size = t == AT_F32 ? 4 : t == AT_F16 || t == AT_BF16 ? 2 : 1;
    unsigned char last[32] = {0};

    if (n >= 8) return v8_load(w, t, at);
    memcpy(last, (const char *)w + (size_t)at * size, (size_t)n * size);
    return v8_load(last, t, 0);
}

INLINE void pack_as(const int nr, float *dst, const void *w, const at_dtype t, int64_t first,
                    int64_t ldw, int n, int64_t k)
{
    for (int64_t i = 0; i < k; i += 8) {
        int64_t left = k - i < 8 ? k - i : 8;
        for (int half = 0; half < nr / 8; half++) {
            v8 r[8];
            for (int j = 0; j < 8; j++)
                r[j] = half * 8 + j < n ? load_upto(w, t, first + (half * 8 + j) * ldw + i, left)
                                        : _mm256_setzero_ps();
            transpose8(r);
            for (int j = 0; j < 8; j++)
                if (j < left) _mm256_storeu_ps(dst + (i + j) * nr + half * 8, r[j]);
        }
    }
}

#endif
