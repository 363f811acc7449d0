// SPDX-License-Identifier: Apache-2.0
// gemm_avx512.c - the 14x32 register tile, its packer, and the few-rows dot products, AVX-512.
// Idea: 28 accumulators, two vectors of b and one broadcast of a: 31 of 32 registers.
// Owns nothing.
#include <math.h>

#include "cpu/x86/avx512.h"
#include "cpu/x86/math_avx512.h"
#include "cpu/x86/pack_avx2.h"

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
        // Five base pointers of three rows each: any row is base, base + lda or base + 2 lda.
        const float *p0 = a + (off ? off[s] : 0), *p1 = p0 + 3 * lda, *p2 = p1 + 3 * lda;
        const float *p3 = p2 + 3 * lda, *p4 = p3 + 3 * lda;
        for (int64_t k = 0; k < k_len; k++) {
            __m512 b0 = _mm512_loadu_ps(b), b1 = _mm512_loadu_ps(b + 16);
#pragma GCC unroll 14
            for (int i = 0; i < rows; i++) {
                const float *base = i < 3 ? p0 : i < 6 ? p1 : i < 9 ? p2 : i < 12 ? p3 : p4;
                __m512 x = _mm512_set1_ps(base[i % 3 * lda + k]);
                acc[i][0] = _mm512_fmadd_ps(x, b0, acc[i][0]);
                acc[i][1] = _mm512_fmadd_ps(x, b1, acc[i][1]);
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

void at_avx512_tile(int rows, int segments, const int64_t *off, int64_t k_len, const float *a,
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
#undef ROWS

// One copy of a function per dtype.
#define EACH_DTYPE(call)                                                                           \
    switch (t) {                                                                                   \
    case AT_F16: call(AT_F16); break;                                                              \
    case AT_BF16: call(AT_BF16); break;                                                            \
    case AT_F8E4M3: call(AT_F8E4M3); break;                                                        \
    case AT_F8E5M2: call(AT_F8E5M2); break;                                                        \
    default: call(AT_F32); break;                                                                  \
    }

void at_avx512_pack(float *dst, const void *w, at_dtype t, int64_t first, int64_t ldw, int n,
                    int64_t k){
#define CALL(constant) pack_as(32, dst, w, constant, first, ldw, n, k)
    EACH_DTYPE(CALL)
#undef CALL
}

// --- few rows -----------------------------------------------------------------------------------
INLINE __m512 v16_join(v8 lo, v8 hi)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(lo), hi, 1);
}

// Sixteen elements of any dtype, zeros behind the n that are left.
INLINE __m512 load16(const void *w, const at_dtype t, int64_t at, int64_t n)
{
    v8 hi = n > 8 ? load_upto(w, t, at + 8, n - 8) : _mm256_setzero_ps();
    if (t == AT_F32 && n >= 16) return _mm512_loadu_ps((const float *)w + at);
    return v16_join(load_upto(w, t, at, n), hi);
}

INLINE void dots_block(const int m, const int wr, float *out, int64_t ldo, const float *x,
                       int64_t ldx, const void *w, const at_dtype t, int64_t first, int64_t ldw,
                       int64_t k)
{
    __m512 acc[24];

#pragma GCC unroll 24
    for (int i = 0; i < m * wr; i++)
        acc[i] = _mm512_setzero_ps();
    for (int64_t i = 0; i < k; i += 16) {
        int64_t left = k - i;
        __mmask16 mask = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
        __m512 row[4];
#pragma GCC unroll 4
        for (int j = 0; j < wr; j++)
            row[j] = load16(w, t, first + j * ldw + i, left);
#pragma GCC unroll 6
        for (int r = 0; r < m; r++) {
            __m512 v = _mm512_maskz_loadu_ps(mask, x + r * ldx + i);
#pragma GCC unroll 4
            for (int j = 0; j < wr; j++)
                acc[r * wr + j] = _mm512_fmadd_ps(v, row[j], acc[r * wr + j]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < m; r++)
#pragma GCC unroll 4
        for (int j = 0; j < wr; j++)
            out[r * ldo + j] = _mm512_reduce_add_ps(acc[r * wr + j]);
}

INLINE void dots_as(const int m, float *out, int64_t ldo, const float *x, int64_t ldx,
                    const void *w, const at_dtype t, int64_t first, int64_t ldw, int64_t n,
                    int64_t k)
{
    int64_t j = 0;
    for (; j + 4 <= n; j += 4)
        dots_block(m, 4, out + j, ldo, x, ldx, w, t, first + j * ldw, ldw, k);
    for (; j < n; j++)
        dots_block(m, 1, out + j, ldo, x, ldx, w, t, first + j * ldw, ldw, k);
}

void at_avx512_dots(float *out, int64_t ldo, const float *x, int64_t ldx, int m, const void *w,
                    at_dtype t, int64_t first, int64_t ldw, int64_t n, int64_t k)
{
#define ROWS(m_, type)                                                                             \
    case m_:                                                                                       \
        dots_as(m_, out, ldo, x, ldx, w, type, first, ldw, n, k);                                  \
        break
#define CALL(type)                                                                                 \
    switch (m) {                                                                                   \
        ROWS(1, type);                                                                             \
        ROWS(2, type);                                                                             \
        ROWS(3, type);                                                                             \
        ROWS(4, type);                                                                             \
        ROWS(5, type);                                                                             \
        ROWS(6, type);                                                                             \
    }
    EACH_DTYPE(CALL)
#undef CALL
#undef ROWS
}

// --- softmax ------------------------------------------------------------------------------------
float at_avx512_max(const float *x, int64_t n)
{
    const __m512 least = _mm512_set1_ps(-INFINITY);
    __m512 m0 = least, m1 = least;
    int64_t i = 0;

    for (; i + 32 <= n; i += 32) {
        m0 = _mm512_max_ps(m0, _mm512_loadu_ps(x + i));
        m1 = _mm512_max_ps(m1, _mm512_loadu_ps(x + i + 16));
    }
    for (; i < n; i += 16) {
        __mmask16 mask = n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1);
        m0 = _mm512_max_ps(m0, _mm512_mask_loadu_ps(least, mask, x + i));
    }
    return _mm512_reduce_max_ps(_mm512_max_ps(m0, m1));
}

float at_avx512_exp_sum(float *x, float minus, int64_t n)
{
    __m512 m = _mm512_set1_ps(minus), sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1);
        __m512 e = v16_exp(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), m));
        e = _mm512_maskz_mov_ps(mask, e);
        sum = _mm512_add_ps(sum, e);
        _mm512_mask_storeu_ps(x + i, mask, e);
    }
    return _mm512_reduce_add_ps(sum);
}
