// SPDX-License-Identifier: Apache-2.0
// math_avx512.h - exp and the activations that end a layer, on sixteen floats.
// Idea: the polynomials of math_avx2.h with their coefficients; scalef takes the care of underflow and overflow.
// Owns nothing. Included only by files compiled with -mavx512f and more.
#ifndef AT_CPU_X86_MATH_AVX512_H
#define AT_CPU_X86_MATH_AVX512_H

#include <immintrin.h>

#include "atelier/backend.h"

typedef __m512 v16;

static inline v16 v16_set(float x)
{
    return _mm512_set1_ps(x);
}

// As v8_exp.
static inline v16 v16_exp(v16 x)
{
    v16 n, r, p;

    x = _mm512_max_ps(v16_set(-105.0f),
                      _mm512_min_ps(v16_set(89.0f), x)); // NaN is the second operand
    n = _mm512_roundscale_ps(_mm512_mul_ps(x, v16_set(0x1.715476p+0f)),
                             _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    r = _mm512_fnmadd_ps(n, v16_set(0x1.62e4p-1f), x);
    r = _mm512_fnmadd_ps(n, v16_set(0x1.7f7d1cp-20f), r);
    p = v16_set(0x1.6a2436p-10f);
    p = _mm512_fmadd_ps(p, r, v16_set(0x1.1239e0p-7f));
    p = _mm512_fmadd_ps(p, r, v16_set(0x1.5558f2p-5f));
    p = _mm512_fmadd_ps(p, r, v16_set(0x1.555492p-3f));
    p = _mm512_fmadd_ps(p, r, v16_set(0x1.fffffcp-2f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, _mm512_add_ps(r, v16_set(1.0f)));
    return _mm512_scalef_ps(p, n);
}

static inline v16 v16_sigmoid_of(v16 x, v16 minus_u) // x / (1 + exp(-u))
{
    return _mm512_div_ps(x, _mm512_add_ps(v16_set(1.0f), v16_exp(minus_u)));
}

// As v8_gelu_erf.
static inline v16 v16_gelu_erf(v16 x)
{
    v16 z = _mm512_mul_ps(_mm512_abs_ps(x), v16_set(0x1.6a09e6p-1f)), t, p, tail;
    __mmask16 negative = _mm512_movepi32_mask(_mm512_castps_si512(x));

    t = _mm512_div_ps(v16_set(1.0f), _mm512_fmadd_ps(z, v16_set(0.3275911f), v16_set(1.0f)));
    p = v16_set(-0x1.a402f4p-4f);
    p = _mm512_fmadd_ps(p, t, v16_set(0x1.2de8f2p-2f));
    p = _mm512_fmadd_ps(p, t, v16_set(0x1.48b70cp-5f));
    p = _mm512_fmadd_ps(p, t, v16_set(-0x1.5f1684p-4f));
    p = _mm512_fmadd_ps(p, t, v16_set(0x1.a34278p-2f));
    p = _mm512_fmadd_ps(p, t, v16_set(0x1.6fc3dap-5f));
    p = _mm512_fmadd_ps(p, t, v16_set(0x1.bd3ec0p-3f));
    p = _mm512_fmadd_ps(p, t, v16_set(0x1.73d86ep-3f));
    z = _mm512_mul_ps(_mm512_mul_ps(x, x), v16_set(-0.5f));
    tail = v16_exp(_mm512_max_ps(v16_set(-80.0f), z));
    tail = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(z, v16_set(-80.0f), _CMP_NLT_UQ), tail);
    tail = _mm512_mul_ps(_mm512_mul_ps(_mm512_mul_ps(tail, t), p), v16_set(0.5f));
    p = _mm512_mask_mov_ps(_mm512_sub_ps(v16_set(1.0f), tail), negative, tail);
    // The tail times infinity would be NaN; the limit is -0.
    x = _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, v16_set(-30.0f), _CMP_LT_OQ), v16_set(-30.0f));
    return _mm512_mul_ps(x, p);
}

#endif
