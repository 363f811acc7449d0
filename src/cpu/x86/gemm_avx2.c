// SPDX-License-Identifier: Apache-2.0
// gemm_avx2.c - the 6x16 register tile, the panel packer and the few-rows dot products, AVX2 + FMA.
// Idea: 12 accumulators (6 rows, two vectors), two vectors of b and one broadcast of a: all 16
// registers, 12 FMAs for 8 loads a step (Goto & van de Geijn 2008; Van Zee & van de Geijn 2015).
// Owns nothing.
#include "cpu/x86/avx2.h"
#include "cpu/x86/math_avx2.h"
#include "cpu/x86/pack_avx2.h"

INLINE void tile_rows(const int rows, int segments, const int64_t *off, int64_t k_len,
                      const float *a, int64_t lda, const float *b, float *c, int64_t ldc, bool add)
{
    v8 acc[6][2];

#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
        acc[i][0] = add ? _mm256_loadu_ps(c + i * ldc) : _mm256_setzero_ps();
        acc[i][1] = add ? _mm256_loadu_ps(c + i * ldc + 8) : _mm256_setzero_ps();
    }
    for (int s = 0; s < segments; s++) {
        const float *p = a + (off ? off[s] : 0), *q = p + 3 * lda;
        for (int64_t k = 0; k < k_len; k++) {
            v8 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
#pragma GCC unroll 6
            for (int i = 0; i < rows; i++) {
                v8 x = _mm256_broadcast_ss(i < 3 ? p + i * lda + k : q + (i - 3) * lda + k);
                acc[i][0] = v8_fma(x, b0, acc[i][0]);
                acc[i][1] = v8_fma(x, b1, acc[i][1]);
            }
            b += 16;
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
        _mm256_storeu_ps(c + i * ldc, acc[i][0]);
        _mm256_storeu_ps(c + i * ldc + 8, acc[i][1]);
    }
}

void at_avx2_tile(int rows, int segments, const int64_t *off, int64_t k_len, const float *a,
                  int64_t lda, const float *b, float *c, int64_t ldc, bool add)
{
    switch (rows) {
    case 6: tile_rows(6, segments, off, k_len, a, lda, b, c, ldc, add); break;
    case 5: tile_rows(5, segments, off, k_len, a, lda, b, c, ldc, add); break;
    case 4: tile_rows(4, segments, off, k_len, a, lda, b, c, ldc, add); break;
    case 3: tile_rows(3, segments, off, k_len, a, lda, b, c, ldc, add); break;
    case 2: tile_rows(2, segments, off, k_len, a, lda, b, c, ldc, add); break;
    default: tile_rows(1, segments, off, k_len, a, lda, b, c, ldc, add); break;
    }
}

// One copy of a function per dtype.
#define EACH_DTYPE(call)                                                                           \
    switch (t) {                                                                                   \
    case AT_F16: call(AT_F16); break;                                                              \
    case AT_BF16: call(AT_BF16); break;                                                            \
    case AT_F8E4M3: call(AT_F8E4M3); break;                                                        \
    case AT_F8E5M2: call(AT_F8E5M2); break;                                                        \
    default: call(AT_F32); break;                                                                  \
    }

void at_avx2_pack(float *dst, const void *w, at_dtype t, int64_t first, int64_t ldw, int n,
                  int64_t k){
#define CALL(constant) pack_as(16, dst, w, constant, first, ldw, n, k)
    EACH_DTYPE(CALL)
#undef CALL
}

// --- few rows -----------------------------------------------------------------------------------
// m rows of x against wr rows of w: m * wr accumulators.
INLINE
    void dots_block(const int m, const int wr, float *out, int64_t ldo, const float *x, int64_t ldx,
                    const void *w, const at_dtype t, int64_t first, int64_t ldw, int64_t k)
{
    v8 acc[12];

#pragma GCC unroll 12
    for (int i = 0; i < m * wr; i++)
        acc[i] = _mm256_setzero_ps();
    for (int64_t i = 0; i < k; i += 8) {
        int64_t left = k - i;
        v8 row[4];
#pragma GCC unroll 4
        for (int j = 0; j < wr; j++)
            row[j] = load_upto(w, t, first + j * ldw + i, left);
#pragma GCC unroll 6
        for (int r = 0; r < m; r++) {
            v8 v = v8_get(x + r * ldx + i, left);
#pragma GCC unroll 4
            for (int j = 0; j < wr; j++)
                acc[r * wr + j] = v8_fma(v, row[j], acc[r * wr + j]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < m; r++)
#pragma GCC unroll 4
        for (int j = 0; j < wr; j++)
            out[r * ldo + j] = v8_sum(acc[r * wr + j]);
}

INLINE void dots_as(const int m, const int wr, float *out, int64_t ldo, const float *x, int64_t ldx,
                    const void *w, const at_dtype t, int64_t first, int64_t ldw, int64_t n,
                    int64_t k)
{
    int64_t j = 0;
    for (; j + wr <= n; j += wr)
        dots_block(m, wr, out + j, ldo, x, ldx, w, t, first + j * ldw, ldw, k);
    for (; j < n; j++)
        dots_block(m, 1, out + j, ldo, x, ldx, w, t, first + j * ldw, ldw, k);
}

void at_avx2_dots(float *out, int64_t ldo, const float *x, int64_t ldx, int m, const void *w,
                  at_dtype t, int64_t first, int64_t ldw, int64_t n, int64_t k)
{
#define ROWS(m_, wr, type)                                                                         \
    case m_:                                                                                       \
        dots_as(m_, wr, out, ldo, x, ldx, w, type, first, ldw, n, k);                              \
        break
#define CALL(type)                                                                                 \
    switch (m) {                                                                                   \
        ROWS(1, 4, type);                                                                          \
        ROWS(2, 4, type);                                                                          \
        ROWS(3, 4, type);                                                                          \
        ROWS(4, 3, type);                                                                          \
        ROWS(5, 2, type);                                                                          \
        ROWS(6, 2, type);                                                                          \
    }
    EACH_DTYPE(CALL)
#undef CALL
#undef ROWS
}
