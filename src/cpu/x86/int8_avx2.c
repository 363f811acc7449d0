// SPDX-License-Identifier: Apache-2.0
// int8_avx2.c - rows of floats to and from int8, and the register tile that multiplies them, AVX2.
// Idea: numbers up to 127 are multiplied as 16-bit words: vpmaddwd takes two products into each 32-bit sum, nothing
// can saturate, and the tile is the one of gemm_avx2.c over pairs. vpmaddubsw would halve the bytes of a panel, but
// its 16-bit sums hold two products of 8-bit numbers only if one side gives up a bit.
// Easy to get wrong: 32-bit sums hold 2^31 / 127^2 = 133,000 products (int8.c checks K).
// Owns nothing.
#include <math.h>
#include <string.h>

#include "cpu/x86/avx2.h"
#include "cpu/x86/math_avx2.h"
#include "cpu/x86/pack_avx2.h"

float at_avx2_absmax(const float *x, int64_t n)
{
    v8 most = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
    for (int64_t i = 0; i < n; i += 8) {
        v8 v = v8_abs(v8_get(x + i, n - i));
        odd = _mm256_or_ps(odd, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        most = _mm256_max_ps(most, v);
    }
    return _mm256_movemask_ps(odd) ? NAN : v8_max(most);
}

static inline __m256i rounded(const float *x, v8 inverse, int64_t left)
{
    v8 v = _mm256_mul_ps(v8_get(x, left), inverse);
    v = _mm256_min_ps(_mm256_max_ps(v, v8_set(-127.0f)), v8_set(127.0f));
    return _mm256_cvtps_epi32(v);
}

static inline __m128i words(__m256i x)
{
    return _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}

void at_avx2_quantise(int8_t *q, const float *x, float inverse, int64_t n)
{
    const v8 by = v8_set(inverse);
    for (int64_t i = 0; i < n; i += 8) {
        __m128i w = words(rounded(x + i, by, n - i));
        int64_t bytes = _mm_cvtsi128_si64(_mm_packs_epi16(w, w));
        memcpy(q + i, &bytes, (size_t)(n - i < 8 ? n - i : 8));
    }
}

void at_avx2_quantise_words(int16_t *q, const float *x, float inverse, int64_t n)
{
    const v8 by = v8_set(inverse);
    for (int64_t i = 0; i < n; i += 8) {
        __m128i w = words(rounded(x + i, by, n - i));
        if (n - i >= 8) {
            _mm_storeu_si128((void *)(q + i), w);
        } else {
            memcpy(q + i, &w, (size_t)(n - i) * sizeof *q);
        }
    }
}

void at_avx2_from_s32(float *y, const int32_t *x, float scale, const float *scales, int64_t n)
{
    const v8 by = v8_set(scale);
    for (int64_t i = 0; i < n; i += 8) {
        __m256i v = n - i >= 8 ? _mm256_loadu_si256((const void *)(x + i))
                               : _mm256_maskload_epi32(x + i, v8_mask(n - i));
        v8_put(y + i,
               _mm256_mul_ps(_mm256_cvtepi32_ps(v), _mm256_mul_ps(by, v8_get(scales + i, n - i))),
               n - i);
    }
}

// --- the tile -----------------------------------------------------------------------------------
INLINE __m256i madd(__m256i acc, __m256i x, __m256i b)
{
    return _mm256_add_epi32(acc, _mm256_madd_epi16(x, b));
}

INLINE void tile_rows(const int rows, int64_t k_len, const float *a, int64_t lda, const float *b,
                      float *c, int64_t ldc, bool add)
{
    __m256i acc[6][2];
    const float *p = a, *q = a + 3 * lda;

#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
        acc[i][0] = add ? _mm256_loadu_si256((const void *)(c + i * ldc)) : _mm256_setzero_si256();
        acc[i][1] =
            add ? _mm256_loadu_si256((const void *)(c + i * ldc + 8)) : _mm256_setzero_si256();
    }
    for (int64_t k = 0; k < k_len; k++) {
        __m256i b0 = _mm256_loadu_si256((const void *)b);
        __m256i b1 = _mm256_loadu_si256((const void *)(b + 8));
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            __m256i x = _mm256_castps_si256(
                _mm256_broadcast_ss(i < 3 ? p + i * lda + k : q + (i - 3) * lda + k));
            acc[i][0] = madd(acc[i][0], x, b0);
            acc[i][1] = madd(acc[i][1], x, b1);
        }
        b += 16;
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
        _mm256_storeu_si256((void *)(c + i * ldc), acc[i][0]);
        _mm256_storeu_si256((void *)(c + i * ldc + 8), acc[i][1]);
    }
}

// Only the linear layer uses it: one segment.
void at_avx2_int8_tile(int rows, int segments, const int64_t *off, int64_t k_len, const float *a,
                       int64_t lda, const float *b, float *c, int64_t ldc, bool add)
{
    (void)segments;
    (void)off;
    switch (rows) {
    case 6: tile_rows(6, k_len, a, lda, b, c, ldc, add); break;
    case 5: tile_rows(5, k_len, a, lda, b, c, ldc, add); break;
    case 4: tile_rows(4, k_len, a, lda, b, c, ldc, add); break;
    case 3: tile_rows(3, k_len, a, lda, b, c, ldc, add); break;
    case 2: tile_rows(2, k_len, a, lda, b, c, ldc, add); break;
    default: tile_rows(1, k_len, a, lda, b, c, ldc, add); break;
    }
}

// dst[k][16] pairs of words from 16 rows of 2k bytes; rows behind n are zero.
void at_avx2_int8_pack(float *dst, const int8_t *w, int64_t ldw, int n, int64_t k)
{
    for (int64_t i = 0; i < k; i += 8) {
        int64_t left = k - i < 8 ? k - i : 8;
        for (int half = 0; half < 2; half++) {
            v8 r[8];
            for (int j = 0; j < 8; j++) {
                int8_t bytes[16] = {0};
                if (half * 8 + j < n)
                    memcpy(bytes, w + (half * 8 + j) * ldw + 2 * i,
                           left == 8 ? 16 : (size_t)(2 * left));
                r[j] =
                    _mm256_castsi256_ps(_mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)bytes)));
            }
            transpose8(r);
            for (int j = 0; j < 8; j++)
                if (j < left) _mm256_storeu_ps(dst + (i + j) * 16 + half * 8, r[j]);
        }
    }
}
