// SPDX-License-Identifier: Apache-2.0
// fast_act.cuh - activations by the fast exponential, for results of 16 bits.
// Idea: its error of a few f32 roundings is far below one of the result's. Owns nothing.
#ifndef AT_CUDA_FAST_ACT_CUH
#define AT_CUDA_FAST_ACT_CUH

#include "cuda/dtype.cuh"

__device__ inline float fast_sigmoid(float x)
{
    return __fdividef(1.0f, 1.0f + __expf(-x));
}

// x * P(X <= x) of a normal X by the complementary error function of Abramowitz & Stegun 7.1.26 (error
// below 1.5e-7 of it): the smaller tail directly, so that nothing cancels where the result is small.
__device__ inline float fast_gelu(float x)
{
    float z = fabsf(x) * 0.7071067811865476f;
    float t = __fdividef(1.0f, 1.0f + 0.3275911f * z);
    float p =
        t * (0.127414796f +
             t * (-0.142248368f + t * (0.7107068705f + t * (-0.7265760135f + t * 0.5307027145f))));
    float tail = p * __expf(-z * z); // P(X > |x|)
    return x * (x < 0 ? tail : 1.0f - tail);
}

// The activations whose exponential may be the fast one; others as they are.
__device__ inline float activate_fast(float x, int act)
{
    switch (act) {
    case 1: return x * fast_sigmoid(x);
    case 2: return x * fast_sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x));
    case 3: return fast_gelu(x);
    case 4: return x * fast_sigmoid(1.702f * x);
    case 7: return fast_sigmoid(x);
    default: return activate(x, act);
    }
}

#endif
