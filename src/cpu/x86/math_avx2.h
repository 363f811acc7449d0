// SPDX-License-Identifier: Apache-2.0
// math_avx2.h - exp, tanh, the normal distribution and conversions on eight floats.
// Idea: exp by Cody-Waite reduction and a minimax polynomial; everything else stands on exp, so
// that its error (below 1.5 ulp) is the only one to think about. Coefficients: our own minimax fits
// (Lawson's algorithm in double, 4001 points), each with its error.
// Owns nothing. Included only by files compiled with -mavx2 -mfma -mf16c.
#ifndef AT_CPU_X86_MATH_AVX2_H
#define AT_CPU_X86_MATH_AVX2_H

#include <immintrin.h>

#include "atelier/backend.h"

typedef __m256 v8;

static inline v8 v8_set(float x)
{
    return _mm256_set1_ps(x);
}
static inline v8 v8_fma(v8 a, v8 b, v8 c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline v8 v8_abs(v8 x)
{
    return _mm256_andnot_ps(v8_set(-0.0f), x);
}

// exp(x): 0 below -104, infinity above 88.73, NaN stays. Relative error below 1.2e-7.
static inline v8 v8_exp(v8 x)
{
    v8 n, r, p;
    __m256i i, half;

    x = _mm256_max_ps(v8_set(-105.0f),
                      _mm256_min_ps(v8_set(89.0f), x)); // NaN is the second operand
    n = _mm256_round_ps(_mm256_mul_ps(x, v8_set(0x1.715476p+0f)),
                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    r = _mm256_fnmadd_ps(n, v8_set(0x1.62e4p-1f), x); // ln 2 in two parts
    r = _mm256_fnmadd_ps(n, v8_set(0x1.7f7d1cp-20f), r);
    p = v8_set(0x1.6a2436p-10f); // (exp(r) - 1 - r) / r^2 on |r| < ln(2)/2, error 3e-9
    p = v8_fma(p, r, v8_set(0x1.1239e0p-7f));
    p = v8_fma(p, r, v8_set(0x1.5558f2p-5f));
    p = v8_fma(p, r, v8_set(0x1.555492p-3f));
    p = v8_fma(p, r, v8_set(0x1.fffffcp-2f));
    p = v8_fma(_mm256_mul_ps(r, r), p, _mm256_add_ps(r, v8_set(1.0f)));
    i = _mm256_cvtps_epi32(
        n); // 2^n in two factors, so that the ends underflow and overflow by IEEE
    half = _mm256_srai_epi32(i, 1);
    i = _mm256_sub_epi32(i, half);
    half = _mm256_slli_epi32(_mm256_add_epi32(half, _mm256_set1_epi32(127)), 23);
    i = _mm256_slli_epi32(_mm256_add_epi32(i, _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(half)), _mm256_castsi256_ps(i));
}

static inline v8 v8_sigmoid_of(v8 x, v8 minus_u) // x / (1 + exp(-u))
{
    return _mm256_div_ps(x, _mm256_add_ps(v8_set(1.0f), v8_exp(minus_u)));
}

static inline v8 v8_tanh(v8 x)
{
    v8 a = v8_abs(x), s = _mm256_mul_ps(x, x), p, big;

    p = v8_set(0x1.099bb6p-9f); // (tanh(x) - x) / x^3 in x^2 for |x| < 0.66, error 4e-10
    p = v8_fma(p, s, v8_set(-0x1.07b00ap-7f));
    p = v8_fma(p, s, v8_set(0x1.62a99cp-6f));
    p = v8_fma(p, s, v8_set(-0x1.b9d994p-5f));
    p = v8_fma(p, s, v8_set(0x1.110ffap-3f));
    p = v8_fma(p, s, v8_set(-0x1.555552p-2f));
    p = v8_fma(_mm256_mul_ps(p, s), x, x);
    big = _mm256_add_ps(v8_exp(_mm256_add_ps(a, a)), v8_set(1.0f));
    big = _mm256_sub_ps(v8_set(1.0f), _mm256_div_ps(v8_set(2.0f), big));
    big = _mm256_or_ps(big, _mm256_and_ps(x, v8_set(-0.0f)));
    return _mm256_blendv_ps(big, p, _mm256_cmp_ps(a, v8_set(0.625f), _CMP_LT_OQ));
}

// x * Phi(x). Phi(-|x|) = exp(-x^2/2) t P(t) / 2 with t = 1 / (1 + 0.3275911 |x|/sqrt 2), after the
// shape of Abramowitz & Stegun 7.1.26 with two degrees more; error 4e-9.
static inline v8 v8_gelu_erf(v8 x)
{
    v8 z = _mm256_mul_ps(v8_abs(x), v8_set(0x1.6a09e6p-1f)), t, p, tail;

    t = _mm256_div_ps(v8_set(1.0f), v8_fma(z, v8_set(0.3275911f), v8_set(1.0f)));
    p = v8_set(-0x1.a402f4p-4f);
    p = v8_fma(p, t, v8_set(0x1.2de8f2p-2f));
    p = v8_fma(p, t, v8_set(0x1.48b70cp-5f));
    p = v8_fma(p, t, v8_set(-0x1.5f1684p-4f));
    p = v8_fma(p, t, v8_set(0x1.a34278p-2f));
    p = v8_fma(p, t, v8_set(0x1.6fc3dap-5f));
    p = v8_fma(p, t, v8_set(0x1.bd3ec0p-3f));
    p = v8_fma(p, t, v8_set(0x1.73d86ep-3f));
    // Below exp(-80), where |x| > 12.6, the tail is 0: denormal numbers on the way would cost 100 cycles each.
    z = _mm256_mul_ps(_mm256_mul_ps(x, x), v8_set(-0.5f));
    tail = v8_exp(_mm256_max_ps(v8_set(-80.0f), z));
    tail = _mm256_and_ps(tail, _mm256_cmp_ps(z, v8_set(-80.0f), _CMP_NLT_UQ)); // NaN stays
    tail = _mm256_mul_ps(_mm256_mul_ps(_mm256_mul_ps(tail, t), p), v8_set(0.5f));
    p = _mm256_sub_ps(v8_set(1.0f), tail);
    p = _mm256_blendv_ps(p, tail, x); // the sign bit of x chooses
    // The tail times infinity would be NaN; the limit is -0.
    tail = _mm256_cmp_ps(x, v8_set(-30.0f), _CMP_LT_OQ);
    return _mm256_mul_ps(_mm256_blendv_ps(x, v8_set(-30.0f), tail), p);
}

// 0.5 x (1 + tanh u) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3)
static inline v8 v8_gelu_tanh(v8 x)
{
    v8 c = v8_fma(_mm256_mul_ps(x, x), v8_set(-2 * 0.7978845608f * 0.044715f),
                  v8_set(-2 * 0.7978845608f));
    return v8_sigmoid_of(x, _mm256_mul_ps(c, x));
}

static inline v8 v8_act(v8 x, at_act act)
{
    const v8 one = v8_set(1.0f), sign = v8_set(-0.0f);
    switch (act) {
    case AT_ACT_NONE: return x;
    case AT_ACT_SILU: return v8_sigmoid_of(x, _mm256_xor_ps(x, sign));
    case AT_ACT_GELU_TANH: return v8_gelu_tanh(x);
    case AT_ACT_GELU_ERF: return v8_gelu_erf(x);
    case AT_ACT_QUICK_GELU: return v8_sigmoid_of(x, _mm256_mul_ps(x, v8_set(-1.702f)));
    case AT_ACT_RELU: return _mm256_max_ps(_mm256_setzero_ps(), x); // NaN is the second operand
    case AT_ACT_TANH: return v8_tanh(x);
    case AT_ACT_SIGMOID: return v8_sigmoid_of(one, _mm256_xor_ps(x, sign));
    }
    return x;
}

static inline float v8_sum(v8 x)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_shuffle_ps(s, s, 1));
    return _mm_cvtss_f32(s);
}

static inline float v8_max(v8 x)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    s = _mm_max_ss(s, _mm_shuffle_ps(s, s, 1));
    return _mm_cvtss_f32(s);
}

// Lanes below n (0..8).
static inline __m256i v8_mask(int64_t n)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane);
}
// Eight floats, or the n that are left (the rest is 0).
static inline v8 v8_get(const float *p, int64_t n)
{
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, v8_mask(n));
}
static inline void v8_put(float *p, v8 x, int64_t n)
{
    if (n >= 8) {
        _mm256_storeu_ps(p, x);
    } else {
        _mm256_maskstore_ps(p, v8_mask(n), x);
    }
}

// --- eight stored values to f32 -----------------------------------------------------------------
static inline v8 v8_from_bf16(__m128i h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

static inline v8 v8_from_e5m2(__m128i b) // low eight bytes; e5m2 is the high byte of f16
{
    return _mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(b), 8));
}

// e4m3 moved to where f16 has its fields has an exponent 8 too small; F16C knows the subnormals.
static inline v8 v8_from_e4m3(__m128i b)
{
    __m128i w = _mm_cvtepu8_epi16(b);
    __m128i mag = _mm_slli_epi16(_mm_and_si128(w, _mm_set1_epi16(0x7f)), 7);
    __m128i sign = _mm_slli_epi16(_mm_and_si128(w, _mm_set1_epi16(0x80)), 8);
    v8 f = _mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(mag, sign)), v8_set(256.0f));
    __m128i nan = _mm_cmpeq_epi16(mag, _mm_set1_epi16(0x3f80));
    __m256i bits = _mm256_and_si256(_mm256_cvtepi16_epi32(nan), _mm256_set1_epi32(0x7fc00000));
    // 480 has the bits 0x43f00000: OR with the NaN leaves payload bits, so replace the magnitude.
    v8 keep = _mm256_castsi256_ps(_mm256_cvtepi16_epi32(nan));
    f = _mm256_andnot_ps(_mm256_andnot_ps(v8_set(-0.0f), keep), f);
    return _mm256_or_ps(f, _mm256_castsi256_ps(bits));
}

static inline v8 v8_load(const void *base, at_dtype t, int64_t i)
{
    switch (t) {
    case AT_F16:
        return _mm256_cvtph_ps(_mm_loadu_si128((const void *)((const uint16_t *)base + i)));
    case AT_BF16: return v8_from_bf16(_mm_loadu_si128((const void *)((const uint16_t *)base + i)));
    case AT_F8E4M3: return v8_from_e4m3(_mm_loadl_epi64((const void *)((const uint8_t *)base + i)));
    case AT_F8E5M2: return v8_from_e5m2(_mm_loadl_epi64((const void *)((const uint8_t *)base + i)));
    default: return _mm256_loadu_ps((const float *)base + i);
    }
}

// --- f32 to eight stored values -----------------------------------------------------------------
static inline __m128i v8_to_bf16(v8 x)
{
    __m256i u = _mm256_castps_si256(x), hi = _mm256_srli_epi32(u, 16), r;
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));

    r = _mm256_add_epi32(u, _mm256_set1_epi32(0x7fff));
    r = _mm256_add_epi32(r, _mm256_and_si256(hi, _mm256_set1_epi32(1)));
    r = _mm256_srli_epi32(r, 16);
    hi = _mm256_or_si256(hi, _mm256_set1_epi32(0x40));
    r = _mm256_blendv_epi8(r, hi, nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}

static inline __m128i v8_bytes(__m256i x) // low bytes of eight ints into eight bytes
{
    __m128i w = _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    return _mm_packus_epi16(w, w);
}

// |x| to fp8 with `man` mantissa bits and exponent bias `bias`: normal numbers by integer rounding,
// subnormals by adding 2^23 to a multiple. Codes above `top` become `over`.
static inline __m128i v8_to_fp8(v8 x, const int man, const int bias, const int top, const int over)
{
    const int drop = 23 - man;
    __m256i u = _mm256_castps_si256(x), sign, mag, odd, normal, sub;
    v8 small;

    sign = _mm256_and_si256(_mm256_srli_epi32(u, 24), _mm256_set1_epi32(0x80));
    mag = _mm256_and_si256(u, _mm256_set1_epi32(0x7fffffff));
    odd = _mm256_and_si256(_mm256_srli_epi32(mag, drop), _mm256_set1_epi32(1));
    normal = _mm256_add_epi32(_mm256_add_epi32(mag, odd), _mm256_set1_epi32((1 << (drop - 1)) - 1));
    normal =
        _mm256_sub_epi32(_mm256_srli_epi32(normal, drop), _mm256_set1_epi32((127 - bias) << man));
    small = _mm256_mul_ps(_mm256_castsi256_ps(mag),
                          v8_set((float)(1 << man) * (float)(1 << (bias - 1))));
    small = _mm256_add_ps(small, v8_set(0x1p23f));
    sub = _mm256_and_si256(_mm256_castps_si256(small), _mm256_set1_epi32(0xff));
    sub = _mm256_blendv_epi8(normal, sub,
                             _mm256_cmpgt_epi32(_mm256_set1_epi32((128 - bias) << 23), mag));
    sub = _mm256_blendv_epi8(sub, _mm256_set1_epi32(over),
                             _mm256_cmpgt_epi32(sub, _mm256_set1_epi32(top)));
    sub = _mm256_blendv_epi8(sub, _mm256_set1_epi32(0x7f),
                             _mm256_cmpgt_epi32(mag, _mm256_set1_epi32(0x7f800000)));
    return v8_bytes(_mm256_or_si256(sub, sign));
}

static inline void v8_store(void *base, at_dtype t, int64_t i, v8 x)
{
    switch (t) {
    case AT_F16:
        _mm_storeu_si128((void *)((uint16_t *)base + i),
                         _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
        break;
    case AT_BF16: _mm_storeu_si128((void *)((uint16_t *)base + i), v8_to_bf16(x)); break;
    case AT_F8E4M3:
        _mm_storel_epi64((void *)((uint8_t *)base + i), v8_to_fp8(x, 3, 7, 0x7e, 0x7f));
        break;
    case AT_F8E5M2:
        _mm_storel_epi64((void *)((uint8_t *)base + i), v8_to_fp8(x, 2, 15, 0x7b, 0x7c));
        break;
    default: _mm256_storeu_ps((float *)base + i, x); break;
    }
}

#endif
