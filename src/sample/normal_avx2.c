// SPDX-License-Identifier: Apache-2.0
// normal_avx2.c - the block Box-Muller transform eight lanes at a time; same bits as normal.c.
// Owns nothing. Compiled with -mavx2 -mfma; called only where the CPU has both.
#include "sample/normal.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

static inline __m256 all(float x)
{
    return _mm256_set1_ps(x);
}

static __m256 block_log(__m256 x)
{
    static const float p[9] = AT_LOG_POLY;
    __m256i bits = _mm256_castps_si256(_mm256_max_ps(x, all(0x1p-126f)));
    __m256i e_int = _mm256_sub_epi32(_mm256_srli_epi32(bits, 23), _mm256_set1_epi32(0x7f));
    __m256 e = _mm256_add_ps(_mm256_cvtepi32_ps(e_int), all(1.0f));
    __m256i mantissa = _mm256_and_si256(bits, _mm256_set1_epi32(0x007fffff));
    __m256 m = _mm256_castsi256_ps(_mm256_or_si256(mantissa, _mm256_set1_epi32(0x3f000000)));
    __m256 small = _mm256_cmp_ps(m, all(AT_LOG_SQRTHF), _CMP_LT_OS);

    e = _mm256_sub_ps(e, _mm256_and_ps(small, all(1.0f)));
    m = _mm256_add_ps(_mm256_sub_ps(m, all(1.0f)), _mm256_and_ps(small, m));
    __m256 z = _mm256_mul_ps(m, m);
    __m256 y = all(p[0]);
    for (int i = 1; i < 9; i++)
        y = _mm256_fmadd_ps(y, m, all(p[i]));
    y = _mm256_mul_ps(y, m);
    y = _mm256_fmadd_ps(y, z, _mm256_mul_ps(e, all(AT_LOG_Q1)));
    y = _mm256_fmadd_ps(z, all(-0.5f), y);
    return _mm256_fmadd_ps(e, all(AT_LOG_Q2), _mm256_add_ps(m, y));
}

static void block_sincos(__m256 x, __m256 *sine, __m256 *cosine)
{
    static const float ps[3] = AT_SIN_POLY, pc[3] = AT_COS_POLY;
    const __m256i one = _mm256_set1_epi32(1), two = _mm256_set1_epi32(2);
    const __m256i four = _mm256_set1_epi32(4);
    __m256i j = _mm256_cvttps_epi32(_mm256_mul_ps(x, all(AT_TRIG_4_OVER_PI)));
    j = _mm256_andnot_si256(one, _mm256_add_epi32(j, one));
    __m256 y = _mm256_cvtepi32_ps(j);

    x = _mm256_fmadd_ps(y, all(AT_TRIG_DP1), x);
    x = _mm256_fmadd_ps(y, all(AT_TRIG_DP2), x);
    x = _mm256_fmadd_ps(y, all(AT_TRIG_DP3), x);
    __m256 z = _mm256_mul_ps(x, x);
    __m256 c = _mm256_fmadd_ps(_mm256_fmadd_ps(all(pc[0]), z, all(pc[1])), z, all(pc[2]));
    c = _mm256_fmsub_ps(_mm256_mul_ps(c, z), z, _mm256_mul_ps(z, all(0.5f)));
    c = _mm256_add_ps(c, all(1.0f));
    __m256 s = _mm256_fmadd_ps(_mm256_fmadd_ps(all(ps[0]), z, all(ps[1])), z, all(ps[2]));
    s = _mm256_fmadd_ps(_mm256_mul_ps(s, z), x, x);
    __m256 swap = _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(j, two), two));
    __m256i sign_s = _mm256_slli_epi32(_mm256_and_si256(j, four), 29);
    __m256i sign_c = _mm256_andnot_si256(_mm256_sub_epi32(j, two), four);
    sign_c = _mm256_slli_epi32(sign_c, 29);
    *sine = _mm256_xor_ps(_mm256_blendv_ps(s, c, swap), _mm256_castsi256_ps(sign_s));
    *cosine = _mm256_xor_ps(_mm256_blendv_ps(c, s, swap), _mm256_castsi256_ps(sign_c));
}

void at_normal_blocks_avx2(float *u, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, u += 16) {
        __m256 u1 = _mm256_sub_ps(all(1.0f), _mm256_loadu_ps(u));
        __m256 r = _mm256_sqrt_ps(_mm256_mul_ps(all(-2.0f), block_log(u1)));
        __m256 s, c;
        block_sincos(_mm256_mul_ps(all(AT_TWO_PI), _mm256_loadu_ps(u + 8)), &s, &c);
        _mm256_storeu_ps(u, _mm256_add_ps(_mm256_mul_ps(r, c), all(0.0f)));
        _mm256_storeu_ps(u + 8, _mm256_add_ps(_mm256_mul_ps(r, s), all(0.0f)));
    }
}

bool at_normal_avx2_usable(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

#else

void at_normal_blocks_avx2(float *u, int64_t blocks)
{
    at_normal_blocks_portable(u, blocks);
}
bool at_normal_avx2_usable(void)
{
    return false;
}

#endif
