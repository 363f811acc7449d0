// SPDX-License-Identifier: Apache-2.0
// dtype.cuh - element types on the device: load as float, store from float, vectors of eight.
// Idea: every kernel computes in f32; what differs is how many bytes an element has. A kernel is a
// template over storage types and AT_FLOATS picks the instance for run-time dtypes.
#ifndef AT_CUDA_DTYPE_CUH
#define AT_CUDA_DTYPE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <stdint.h>

#include "atelier/types.h"

typedef __nv_bfloat16 bf16;
typedef __half f16;
typedef __nv_fp8_e4m3 e4m3;
typedef __nv_fp8_e5m2 e5m2;

__device__ inline float to_f32(float x) { return x; }
__device__ inline float to_f32(bf16 x) { return __bfloat162float(x); }
__device__ inline float to_f32(f16 x) { return __half2float(x); }
__device__ inline float to_f32(e4m3 x) { return (float)x; }
__device__ inline float to_f32(e5m2 x) { return (float)x; }

template <class T> __device__ inline T from_f32(float x);
template <> __device__ inline float from_f32<float>(float x) { return x; }
template <> __device__ inline bf16 from_f32<bf16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ inline f16 from_f32<f16>(float x) { return __float2half_rn(x); }

// N elements, loaded and stored in the widest pieces that their alignment allows.
template <class T, int N> struct alignas(sizeof(T) * N > 16 ? 16 : sizeof(T) * N) vec {
    T v[N];
};
template <class T, int N> __device__ inline void load(const T *p, float (&out)[N])
{
    vec<T, N> x = *reinterpret_cast<const vec<T, N> *>(p);
#pragma unroll
    for (int i = 0; i < N; i++)
        out[i] = to_f32(x.v[i]);
}
template <class T, int N> __device__ inline void store(T *p, const float (&in)[N])
{
    vec<T, N> x;
#pragma unroll
    for (int i = 0; i < N; i++)
        x.v[i] = from_f32<T>(in[i]);
    *reinterpret_cast<vec<T, N> *>(p) = x;
}

// The statements with T as the C++ type of a run-time float dtype.
#define AT_FLOATS(dtype, T, ...)                                                                  \
    switch (dtype) {                                                                               \
    case AT_F32: {                                                                                 \
        typedef float T;                                                                           \
        __VA_ARGS__;                                                                                      \
        break;                                                                                     \
    }                                                                                              \
    case AT_BF16: {                                                                                \
        typedef bf16 T;                                                                            \
        __VA_ARGS__;                                                                                      \
        break;                                                                                     \
    }                                                                                              \
    case AT_F16: {                                                                                 \
        typedef f16 T;                                                                             \
        __VA_ARGS__;                                                                                      \
        break;                                                                                     \
    }                                                                                              \
    default: return cudaErrorInvalidValue;                                                         \
    }

// The activations of at_act, in f32.
__device__ inline float activate(float x, int act)
{
    switch (act) {
    case 1: return x / (1.0f + expf(-x));
    case 2: {
        float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
        return 0.5f * x * (1.0f + tanhf(u));
    }
    case 3: return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
    case 4: return x / (1.0f + expf(-1.702f * x));
    case 5: return fmaxf(x, 0.0f);
    case 6: return tanhf(x);
    case 7: return 1.0f / (1.0f + expf(-x));
    default: return x;
    }
}

// Sum over a block of at most 1024 threads; every thread gets it. `shared` holds 33 floats.
__device__ inline float block_sum(float x, float *shared)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
#pragma unroll
    for (int i = 16; i; i >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, i);
    __syncthreads();
    if (!lane) shared[warp] = x;
    __syncthreads();
    if (!warp) {
        float y = lane < warps ? shared[lane] : 0.0f;
#pragma unroll
        for (int i = 16; i; i >>= 1)
            y += __shfl_xor_sync(0xffffffffu, y, i);
        if (!lane) shared[32] = y;
    }
    __syncthreads();
    return shared[32];
}

#endif
