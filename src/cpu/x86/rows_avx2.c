// SPDX-License-Identifier: Apache-2.0
// rows_avx2.c - row arithmetic on eight floats at a time.
// Idea: every function walks a row in steps of eight and ends with a masked step, so no length is
// special. Strided or integer rows go to the plain C loops.
// Owns nothing.
#include <math.h>
#include <string.h>

#include "cpu/cpu_impl.h"
#include "cpu/x86/avx2.h"
#include "cpu/x86/math_avx2.h"

static bool is_vector_dtype(at_dtype t)
{
    return t == AT_F16 || t == AT_BF16 || t == AT_F8E4M3 || t == AT_F8E5M2;
}

static inline __attribute__((always_inline)) void
load_as(float *dst, const void *src, const at_dtype t, int64_t first, int64_t n)
{
    size_t size = t == AT_F16 || t == AT_BF16 ? 2 : 1;
    unsigned char last[16] = {0};
    int64_t i = 0;

    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, v8_load(src, t, first + i));
    if (i == n) return;
    memcpy(last, (const char *)src + (size_t)(first + i) * size, (size_t)(n - i) * size);
    v8_put(dst + i, v8_load(last, t, 0), n - i);
}

void at_avx2_load(float *dst, const void *base, at_dtype t, int64_t first, int64_t stride,
                  int64_t n)
{
    if (stride != 1 || !is_vector_dtype(t)) {
        at_cpu_load(dst, base, t, first, stride, n);
        return;
    }
    switch (t) {
    case AT_F16: load_as(dst, base, AT_F16, first, n); break;
    case AT_BF16: load_as(dst, base, AT_BF16, first, n); break;
    case AT_F8E4M3: load_as(dst, base, AT_F8E4M3, first, n); break;
    default: load_as(dst, base, AT_F8E5M2, first, n); break;
    }
}

static inline __attribute__((always_inline)) void
store_as(void *dst, const at_dtype t, int64_t first, const float *src, int64_t n)
{
    size_t size = t == AT_F16 || t == AT_BF16 ? 2 : 1;
    unsigned char last[16];
    int64_t i = 0;

    for (; i + 8 <= n; i += 8)
        v8_store(dst, t, first + i, _mm256_loadu_ps(src + i));
    if (i == n) return;
    v8_store(last, t, 0, v8_get(src + i, n - i));
    memcpy((char *)dst + (size_t)(first + i) * size, last, (size_t)(n - i) * size);
}

void at_avx2_store(void *base, at_dtype t, int64_t first, int64_t stride, const float *src,
                   int64_t n)
{
    if (stride != 1 || !is_vector_dtype(t)) {
        at_cpu_store(base, t, first, stride, src, n);
        return;
    }
    switch (t) {
    case AT_F16: store_as(base, AT_F16, first, src, n); break;
    case AT_BF16: store_as(base, AT_BF16, first, src, n); break;
    case AT_F8E4M3: store_as(base, AT_F8E4M3, first, src, n); break;
    default: store_as(base, AT_F8E5M2, first, src, n); break;
    }
}

static inline __attribute__((always_inline)) void
finish_as(float *y, const float *x, int64_t n, const at_cpu_finish *f, const at_act act)
{
    const v8 scale = v8_set(f->scale);
    for (int64_t i = 0; i < n; i += 8) {
        int64_t m = n - i;
        v8 v = _mm256_mul_ps(v8_get(x + i, m), scale);
        if (f->bias) v = _mm256_add_ps(v, v8_get(f->bias + i, m));
        v = v8_act(v, act);
        if (f->gate) v = _mm256_mul_ps(v, v8_get(f->gate + i, m));
        if (f->residual) v = _mm256_add_ps(v, v8_get(f->residual + i, m));
        v8_put(y + i, v, m);
    }
}

// One copy of a loop per activation: the switch is taken once per row and not once per vector.
#define EACH_ACT(call)                                                                             \
    switch (act) {                                                                                 \
    case AT_ACT_NONE: call(AT_ACT_NONE); break;                                                    \
    case AT_ACT_SILU: call(AT_ACT_SILU); break;                                                    \
    case AT_ACT_GELU_TANH: call(AT_ACT_GELU_TANH); break;                                          \
    case AT_ACT_GELU_ERF: call(AT_ACT_GELU_ERF); break;                                            \
    case AT_ACT_QUICK_GELU: call(AT_ACT_QUICK_GELU); break;                                        \
    case AT_ACT_RELU: call(AT_ACT_RELU); break;                                                    \
    case AT_ACT_TANH: call(AT_ACT_TANH); break;                                                    \
    case AT_ACT_SIGMOID: call(AT_ACT_SIGMOID); break;                                              \
    }

void at_avx2_finish(float *y, const float *x, int64_t n, const at_cpu_finish *f)
{
    at_act act = f->act;
    if (y == x && act == AT_ACT_NONE && f->scale == 1.0f && !f->bias && !f->gate && !f->residual)
        return;
#define CALL(constant) finish_as(y, x, n, f, constant)
    EACH_ACT(CALL)
#undef CALL
}

void at_avx2_binary(float *x, const float *y, int64_t n, at_binary_op op)
{
    for (int64_t i = 0; i < n; i += 8) {
        int64_t m = n - i;
        v8 a = v8_get(x + i, m), b = v8_get(y + i, m);
        switch (op) {
        case AT_ADD: a = _mm256_add_ps(a, b); break;
        case AT_SUB: a = _mm256_sub_ps(a, b); break;
        case AT_MUL: a = _mm256_mul_ps(a, b); break;
        case AT_DIV: a = _mm256_div_ps(a, b); break;
        }
        v8_put(x + i, a, m);
    }
}

// Not fused, so that plain C and this agree.
void at_avx2_mul_add(float *x, const float *g, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += 8) {
        int64_t m = n - i;
        v8 p = _mm256_mul_ps(v8_get(g + i, m), v8_get(y + i, m));
        v8_put(x + i, _mm256_add_ps(v8_get(x + i, m), p), m);
    }
}

void at_avx2_axpy(float *x, float c, const float *y, int64_t n)
{
    const v8 k = v8_set(c);
    for (int64_t i = 0; i < n; i += 8) {
        int64_t m = n - i;
        v8 p = _mm256_mul_ps(k, v8_get(y + i, m));
        v8_put(x + i, _mm256_add_ps(v8_get(x + i, m), p), m);
    }
}

float at_avx2_sum(const float *x, int64_t n)
{
    v8 a = _mm256_setzero_ps(), b = a;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        a = _mm256_add_ps(a, _mm256_loadu_ps(x + i));
        b = _mm256_add_ps(b, _mm256_loadu_ps(x + i + 8));
    }
    for (; i < n; i += 8)
        a = _mm256_add_ps(a, v8_get(x + i, n - i));
    return v8_sum(_mm256_add_ps(a, b));
}

float at_avx2_squares(const float *x, float mean, int64_t n)
{
    const v8 m = v8_set(mean);
    v8 a = _mm256_setzero_ps(), b = a;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v8 u = _mm256_sub_ps(_mm256_loadu_ps(x + i), m);
        v8 w = _mm256_sub_ps(_mm256_loadu_ps(x + i + 8), m);
        a = v8_fma(u, u, a);
        b = v8_fma(w, w, b);
    }
    for (; i < n; i += 8) {
        v8 u = _mm256_sub_ps(v8_get(x + i, n - i), m);
        if (n - i < 8) u = _mm256_and_ps(u, _mm256_castsi256_ps(v8_mask(n - i)));
        a = v8_fma(u, u, a);
    }
    return v8_sum(_mm256_add_ps(a, b));
}

void at_avx2_norm(float *y, const float *x, int64_t n, float mean, float rstd, const float *w,
                  const float *b, const float *s, const float *t)
{
    const v8 m = v8_set(mean), r = v8_set(rstd), one = v8_set(1.0f);
    for (int64_t i = 0; i < n; i += 8) {
        int64_t k = n - i;
        v8 v = _mm256_mul_ps(_mm256_sub_ps(v8_get(x + i, k), m), r);
        if (w) v = _mm256_mul_ps(v, v8_get(w + i, k));
        if (b) v = _mm256_add_ps(v, v8_get(b + i, k));
        if (s) v = _mm256_mul_ps(v, _mm256_add_ps(one, v8_get(s + i, k)));
        if (t) v = _mm256_add_ps(v, v8_get(t + i, k));
        v8_put(y + i, v, k);
    }
}

// Columns of 32 channels, so that four sums stay in registers while the rows pass by.
void at_avx2_channel_sum(float *acc, const float *x, int64_t n, int64_t rows, int64_t pitch)
{
    int64_t c = 0;
    for (; c + 32 <= n; c += 32) {
        v8 s0 = _mm256_loadu_ps(acc + c), s1 = _mm256_loadu_ps(acc + c + 8);
        v8 s2 = _mm256_loadu_ps(acc + c + 16), s3 = _mm256_loadu_ps(acc + c + 24);
        for (const float *p = x + c, *end = p + rows * pitch; p != end; p += pitch) {
            s0 = _mm256_add_ps(s0, _mm256_loadu_ps(p));
            s1 = _mm256_add_ps(s1, _mm256_loadu_ps(p + 8));
            s2 = _mm256_add_ps(s2, _mm256_loadu_ps(p + 16));
            s3 = _mm256_add_ps(s3, _mm256_loadu_ps(p + 24));
        }
        _mm256_storeu_ps(acc + c, s0);
        _mm256_storeu_ps(acc + c + 8, s1);
        _mm256_storeu_ps(acc + c + 16, s2);
        _mm256_storeu_ps(acc + c + 24, s3);
    }
    for (; c < n; c += 8) {
        v8 s = v8_get(acc + c, n - c);
        for (int64_t r = 0; r < rows; r++)
            s = _mm256_add_ps(s, v8_get(x + r * pitch + c, n - c));
        v8_put(acc + c, s, n - c);
    }
}

void at_avx2_channel_squares(float *acc, const float *x, const float *mean, int64_t n, int64_t rows,
                             int64_t pitch)
{
    int64_t c = 0;
    for (; c + 16 <= n; c += 16) {
        v8 s0 = _mm256_loadu_ps(acc + c), s1 = _mm256_loadu_ps(acc + c + 8);
        v8 m0 = _mm256_loadu_ps(mean + c), m1 = _mm256_loadu_ps(mean + c + 8);
        for (const float *p = x + c, *end = p + rows * pitch; p != end; p += pitch) {
            v8 d0 = _mm256_sub_ps(_mm256_loadu_ps(p), m0);
            v8 d1 = _mm256_sub_ps(_mm256_loadu_ps(p + 8), m1);
            s0 = v8_fma(d0, d0, s0);
            s1 = v8_fma(d1, d1, s1);
        }
        _mm256_storeu_ps(acc + c, s0);
        _mm256_storeu_ps(acc + c + 8, s1);
    }
    for (; c < n; c += 8) {
        v8 s = v8_get(acc + c, n - c), m = v8_get(mean + c, n - c);
        for (int64_t r = 0; r < rows; r++) {
            v8 d = _mm256_sub_ps(v8_get(x + r * pitch + c, n - c), m);
            s = v8_fma(d, d, s);
        }
        v8_put(acc + c, s, n - c);
    }
}

static inline __attribute__((always_inline)) void
affine_as(float *y, const float *x, const float *a, const float *b, int64_t n, const at_act act)
{
    for (int64_t i = 0; i < n; i += 8) {
        int64_t m = n - i;
        v8 v = v8_fma(v8_get(x + i, m), v8_get(a + i, m), v8_get(b + i, m));
        v8_put(y + i, v8_act(v, act), m);
    }
}

void at_avx2_channel_affine(float *y, int64_t y_pitch, const float *x, int64_t x_pitch,
                            const float *a, const float *b, int64_t n, int64_t rows, at_act act)
{
#define CALL(constant)                                                                             \
    for (int64_t r = 0; r < rows; r++)                                                             \
    affine_as(y + r * y_pitch, x + r * x_pitch, a, b, n, constant)
    EACH_ACT(CALL)
#undef CALL
}

static void rotate_scalar(float *u, float *v, float c, float s)
{
    float a = *u, b = *v;
    *u = a * c - b * s;
    *v = b * c + a * s;
}

static void rotate_halves(float *x, const float *cs, const float *sn, int64_t half)
{
    int64_t p = 0;
    for (; p + 8 <= half; p += 8) {
        v8 a = _mm256_loadu_ps(x + p), b = _mm256_loadu_ps(x + p + half);
        v8 c = _mm256_loadu_ps(cs + p), s = _mm256_loadu_ps(sn + p);
        _mm256_storeu_ps(x + p, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        _mm256_storeu_ps(x + p + half, v8_fma(b, c, _mm256_mul_ps(a, s)));
    }
    for (; p < half; p++)
        rotate_scalar(x + p, x + p + half, cs[p], sn[p]);
}

void at_avx2_rotate(float *x, const float *cs, const float *sn, int64_t half, bool halves)
{
    int64_t p = 0;
    if (halves) {
        rotate_halves(x, cs, sn, half);
        return;
    }
    for (; p + 4 <= half; p += 4) { // four pairs: (a0 b0 a1 b1 ...)
        v8 v = _mm256_loadu_ps(x + 2 * p);
        __m128 c4 = _mm_loadu_ps(cs + p), s4 = _mm_loadu_ps(sn + p);
        v8 c = _mm256_set_m128(_mm_unpackhi_ps(c4, c4), _mm_unpacklo_ps(c4, c4));
        v8 s = _mm256_set_m128(_mm_unpackhi_ps(s4, s4), _mm_unpacklo_ps(s4, s4));
        v8 swapped = _mm256_permute_ps(v, 0xB1);
        _mm256_storeu_ps(x + 2 * p, _mm256_fmaddsub_ps(v, c, _mm256_mul_ps(swapped, s)));
    }
    for (; p < half; p++)
        rotate_scalar(x + 2 * p, x + 2 * p + 1, cs[p], sn[p]);
}

float at_avx2_max(const float *x, int64_t n)
{
    v8 m = v8_set(-INFINITY);
    float best;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        m = _mm256_max_ps(m, _mm256_loadu_ps(x + i));
    best = v8_max(m);
    for (; i < n; i++)
        best = x[i] > best ? x[i] : best;
    return best;
}

float at_avx2_exp_sum(float *x, float minus, int64_t n)
{
    const v8 m = v8_set(minus);
    v8 sum = _mm256_setzero_ps();
    for (int64_t i = 0; i < n; i += 8) {
        v8 e = v8_exp(_mm256_sub_ps(v8_get(x + i, n - i), m));
        if (n - i < 8) e = _mm256_and_ps(e, _mm256_castsi256_ps(v8_mask(n - i)));
        sum = _mm256_add_ps(sum, e);
        v8_put(x + i, e, n - i);
    }
    return v8_sum(sum);
}

void at_avx2_scale(float *x, float by, int64_t n)
{
    const v8 k = v8_set(by);
    for (int64_t i = 0; i < n; i += 8)
        v8_put(x + i, _mm256_mul_ps(v8_get(x + i, n - i), k), n - i);
}
