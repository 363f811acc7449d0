// SPDX-License-Identifier: Apache-2.0
// winograd_avx2.c - the three transforms of Winograd's F(4x4, 3x3), eight channels at a time.
// Idea: every 1D transform works on pairs of points +-p, whose even and odd parts are shared: 12 fused
// multiply-adds for six inputs. The 2D transform is the 1D one on columns, then on rows.
// Points 0, +-3/4, +-3/2 and infinity: in f32 they lose half of what 0, +-1, +-2 lose (docs/bench/cpu.md).
// Owns nothing.
#include "cpu/x86/avx2.h"
#include "cpu/x86/math_avx2.h"

#define INLINE static inline __attribute__((always_inline))

static const float P = 0.75f, Q = 1.5f;                // the points
static const float A = 0.5625f, B = 2.25f;             // their squares
static const float SUM = 2.8125f, PRODUCT = 1.265625f; // of the squares

// d := B^T d, the columns being the coefficients of the products of (x - other points).
INLINE void input_1d(v8 *d0, v8 *d1, v8 *d2, v8 *d3, v8 *d4, v8 *d5)
{
    v8 even_p = v8_fma(v8_set(-B), *d2, *d4), odd_p = v8_fma(v8_set(-B), *d1, *d3);
    v8 even_q = v8_fma(v8_set(-A), *d2, *d4), odd_q = v8_fma(v8_set(-A), *d1, *d3);

    *d0 = v8_fma(v8_set(PRODUCT), *d0, v8_fma(v8_set(-SUM), *d2, *d4));
    *d5 = v8_fma(v8_set(PRODUCT), *d1, v8_fma(v8_set(-SUM), *d3, *d5));
    *d1 = v8_fma(v8_set(P), odd_p, even_p);
    *d2 = v8_fma(v8_set(-P), odd_p, even_p);
    *d3 = v8_fma(v8_set(Q), odd_q, even_q);
    *d4 = v8_fma(v8_set(-Q), odd_q, even_q);
}

INLINE void input_at(float *v, int64_t step, const float *const px[36], int64_t c, int64_t n)
{
    v8 d[6][6];

#pragma GCC unroll 6
    for (int x = 0; x < 6; x++) {
        for (int y = 0; y < 6; y++)
            d[y][x] = v8_get(px[y * 6 + x] + c, n);
        input_1d(&d[0][x], &d[1][x], &d[2][x], &d[3][x], &d[4][x], &d[5][x]);
    }
#pragma GCC unroll 6
    for (int y = 0; y < 6; y++) {
        input_1d(&d[y][0], &d[y][1], &d[y][2], &d[y][3], &d[y][4], &d[y][5]);
        for (int x = 0; x < 6; x++)
            v8_put(v + (y * 6 + x) * step + c, d[y][x], n);
    }
}

void at_avx2_wino_input(float *v, int64_t step, const float *const px[36], int64_t n)
{
    int64_t c = 0;
    for (; c + 8 <= n; c += 8)
        input_at(v, step, px, c, 8);
    if (c < n) input_at(v, step, px, c, n - c);
}

// y := A^T m: values at the points.
INLINE void output_1d(v8 y[4], v8 m0, v8 m1, v8 m2, v8 m3, v8 m4, v8 m5)
{
    v8 sp = _mm256_add_ps(m1, m2), dp = _mm256_sub_ps(m1, m2);
    v8 sq = _mm256_add_ps(m3, m4), dq = _mm256_sub_ps(m3, m4);

    y[0] = _mm256_add_ps(m0, _mm256_add_ps(sp, sq));
    y[1] = v8_fma(v8_set(P), dp, _mm256_mul_ps(v8_set(Q), dq));
    y[2] = v8_fma(v8_set(A), sp, _mm256_mul_ps(v8_set(B), sq));
    y[3] = v8_fma(v8_set(P * A), dp, v8_fma(v8_set(Q * B), dq, m5));
}

INLINE void output_at(float *y, int64_t ld, const float *m, int64_t step, int64_t c, int64_t n)
{
    v8 t[6][4], out[4];

#pragma GCC unroll 6
    for (int r = 0; r < 6; r++) {
        const float *p = m + r * 6 * step + c;
        output_1d(t[r], v8_get(p, n), v8_get(p + step, n), v8_get(p + 2 * step, n),
                  v8_get(p + 3 * step, n), v8_get(p + 4 * step, n), v8_get(p + 5 * step, n));
    }
#pragma GCC unroll 4
    for (int x = 0; x < 4; x++) {
        output_1d(out, t[0][x], t[1][x], t[2][x], t[3][x], t[4][x], t[5][x]);
        for (int r = 0; r < 4; r++)
            v8_put(y + (r * 4 + x) * ld + c, out[r], n);
    }
}

void at_avx2_wino_output(float *y, int64_t ld, const float *m, int64_t step, int64_t n)
{
    int64_t c = 0;
    for (; c + 8 <= n; c += 8)
        output_at(y, ld, m, step, c, 8);
    if (c < n) output_at(y, ld, m, step, c, n - c);
}

// u := G g: the filter at the points, over what the input transform left out.
INLINE void filter_1d(v8 u[6], v8 g0, v8 g1, v8 g2)
{
    const v8 fp = v8_set((float)(1 / -1.8984375)),
             fq = v8_set((float)(1 / 7.59375)); // 1/(2a(a-b)), 1/(2b(b-a))
    v8 ep = _mm256_mul_ps(v8_fma(v8_set(A), g2, g0), fp);
    v8 eq = _mm256_mul_ps(v8_fma(v8_set(B), g2, g0), fq);
    v8 op = _mm256_mul_ps(g1, _mm256_mul_ps(v8_set(P), fp));
    v8 oq = _mm256_mul_ps(g1, _mm256_mul_ps(v8_set(Q), fq));

    u[0] = _mm256_mul_ps(g0, v8_set((float)(1 / 1.265625)));
    u[1] = _mm256_add_ps(ep, op);
    u[2] = _mm256_sub_ps(ep, op);
    u[3] = _mm256_add_ps(eq, oq);
    u[4] = _mm256_sub_ps(eq, oq);
    u[5] = g2;
}

void at_avx2_wino_filter(float *u, int64_t step, const float *g, int nr)
{
    for (int j = 0; j < nr; j += 8) {
        v8 t[3][6], out[6];
#pragma GCC unroll 3
        for (int x = 0; x < 3; x++)
            filter_1d(t[x], _mm256_loadu_ps(g + x * nr + j), _mm256_loadu_ps(g + (3 + x) * nr + j),
                      _mm256_loadu_ps(g + (6 + x) * nr + j));
#pragma GCC unroll 6
        for (int y = 0; y < 6; y++) {
            filter_1d(out, t[0][y], t[1][y], t[2][y]);
            for (int x = 0; x < 6; x++)
                _mm256_storeu_ps(u + (y * 6 + x) * step + j, out[x]);
        }
    }
}
