// SPDX-License-Identifier: Apache-2.0
// rows_avx512bf16.c - bf16 rows to and from f32, sixteen at a time.
// Easy to get wrong: vcvtneps2bf16 takes denormals for zero and quiets NaNs; both are within the contract of a layer's
// result, but not of a copy, which stays with AVX2.
// Owns nothing.
#include <immintrin.h>

#include "cpu/x86/avx2.h"
#include "cpu/x86/avx512.h"

void at_avx512bf16_store(void *base, at_dtype t, int64_t first, int64_t stride, const float *src,
                         int64_t n)
{
    uint16_t *to = (uint16_t *)base + first;

    if (t != AT_BF16 || stride != 1) {
        at_avx2_store(base, t, first, stride, src, n);
        return;
    }
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1);
        __m256bh h = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(m, src + i));
        _mm256_mask_storeu_epi16(to + i, m, (__m256i)h);
    }
}

void at_avx512bf16_load(float *dst, const void *base, at_dtype t, int64_t first, int64_t stride,
                        int64_t n)
{
    const uint16_t *from = (const uint16_t *)base + first;

    if (t != AT_BF16 || stride != 1) {
        at_avx2_load(dst, base, t, first, stride, n);
        return;
    }
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1);
        __m512i w = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, from + i));
        _mm512_mask_storeu_ps(dst + i, m, _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)));
    }
}
