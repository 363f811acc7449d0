// SPDX-License-Identifier: Apache-2.0
// normal.c - the block Box-Muller transform with explicit fmaf: the reference of normal_avx2.c.
// Idea: torch's AVX2 kernel was compiled with contraction, so which product is fused decides the
// last bit; every fused step is written out. Source: comfyui-contract section 5.7; polynomials of
// Cephes. Owns nothing.
#include <math.h>

#include "base/half.h"
#include "sample/normal.h"

// log(x) for x >= 2^-126.
static float block_log(float x)
{
    static const float p[9] = AT_LOG_POLY;
    uint32_t bits = at_bits_of(x);
    float e = (float)((int32_t)(bits >> 23) - 0x7f) + 1.0f;
    float m = at_float_of((bits & 0x007fffffu) | 0x3f000000u); // mantissa in [0.5, 1)
    float low = m < AT_LOG_SQRTHF ? m : 0.0f;

    if (m < AT_LOG_SQRTHF) e -= 1.0f;
    m = (m - 1.0f) + low;
    float z = m * m;
    float y = p[0];
    for (int i = 1; i < 9; i++)
        y = fmaf(y, m, p[i]);
    y *= m;
    y = fmaf(y, z, e * AT_LOG_Q1);
    y = fmaf(z, -0.5f, y);
    return fmaf(e, AT_LOG_Q2, m + y);
}

// sin and cos of x >= 0: reduce by the octant, two polynomials, swap and sign by the octant's bits.
static void block_sincos(float x, float *sine, float *cosine)
{
    static const float ps[3] = AT_SIN_POLY, pc[3] = AT_COS_POLY;
    int32_t j = ((int32_t)(x * AT_TRIG_4_OVER_PI) + 1) & ~1;
    float y = (float)j;

    x = fmaf(y, AT_TRIG_DP1, x);
    x = fmaf(y, AT_TRIG_DP2, x);
    x = fmaf(y, AT_TRIG_DP3, x);
    float z = x * x;
    float c = fmaf(fmaf(pc[0], z, pc[1]), z, pc[2]) * z;
    c = fmaf(c, z, -(z * 0.5f)) + 1.0f;
    float s = fmaf(fmaf(ps[0], z, ps[1]), z, ps[2]) * z;
    s = fmaf(s, x, x);
    bool swap = (j & 2) != 0;
    uint32_t sign_s = (uint32_t)(j & 4) << 29, sign_c = (uint32_t)(~(j - 2) & 4) << 29;
    *sine = at_float_of(at_bits_of(swap ? c : s) ^ sign_s);
    *cosine = at_float_of(at_bits_of(swap ? s : c) ^ sign_c);
}

void at_normal_blocks_portable(float *u, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, u += 16) {
        for (int j = 0; j < 8; j++) {
            float s, c, u1 = 1.0f - u[j];
            float r = sqrtf(-2.0f * block_log(u1 < 0x1p-126f ? 0x1p-126f : u1));
            block_sincos(AT_TWO_PI * u[j + 8], &s, &c);
            u[j] = r * c + 0.0f; // torch adds the mean: -0 becomes +0
            u[j + 8] = r * s + 0.0f;
        }
    }
}
