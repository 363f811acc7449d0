// SPDX-License-Identifier: Apache-2.0
// rows_avx512.c - the end of a layer on sixteen floats at a time.
// Idea: where the product runs in matrix registers, a row's end costs as much as its sums; these few are the ones that
// Stable Diffusion's layers use, the rest stays with AVX2.
// Owns nothing.
#include "cpu/x86/avx2.h"
#include "cpu/x86/avx512.h"
#include "cpu/x86/math_avx512.h"

#define INLINE static inline __attribute__((always_inline))

INLINE v16 get(const float *p, __mmask16 m)
{
    return _mm512_maskz_loadu_ps(m, p);
}

INLINE void finish_as(float *y, const float *x, int64_t n, const at_cpu_finish *f, const at_act act)
{
    const v16 scale = v16_set(f->scale);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1);
        v16 v = _mm512_mul_ps(get(x + i, m), scale);
        if (f->bias) v = _mm512_add_ps(v, get(f->bias + i, m));
        if (act == AT_ACT_SILU) v = v16_sigmoid_of(v, _mm512_sub_ps(v16_set(-0.0f), v));
        if (act == AT_ACT_GELU_ERF) v = v16_gelu_erf(v);
        if (f->gate) v = _mm512_mul_ps(v, get(f->gate + i, m));
        if (f->residual) v = _mm512_add_ps(v, get(f->residual + i, m));
        _mm512_mask_storeu_ps(y + i, m, v);
    }
}

void at_avx512_finish(float *y, const float *x, int64_t n, const at_cpu_finish *f)
{
    switch (f->act) {
    case AT_ACT_NONE: finish_as(y, x, n, f, AT_ACT_NONE); break;
    case AT_ACT_SILU: finish_as(y, x, n, f, AT_ACT_SILU); break;
    case AT_ACT_GELU_ERF: finish_as(y, x, n, f, AT_ACT_GELU_ERF); break;
    default: at_avx2_finish(y, x, n, f); break;
    }
}

void at_avx512_from_s32(float *y, const int32_t *x, float scale, const float *scales, int64_t n)
{
    const v16 by = v16_set(scale);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1);
        v16 v = _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(m, x + i));
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(v, _mm512_mul_ps(by, get(scales + i, m))));
    }
}
