// SPDX-License-Identifier: Apache-2.0
// heads8.cu - q, k and v as e4m3 for an attention in fp8, and its result back.
// Idea: e4m3 is a floating format: seven powers of two of full precision lie under its largest value.
// One constant factor for all (heads8.h) keeps what attention sees inside them, so that no pass for the largest
// magnitude is needed and the three tensors are read once. Owns nothing.
#include "cuda/dtype.cuh"
#include "cuda/heads8.h"

namespace
{

enum { THREADS = 256, EACH = 16 };

struct heads {
    const void *data;
    void *out;
    int64_t stride[3];
    unsigned tokens, heads, pieces, count; // pieces of EACH elements: of a head, of all
};

struct heads8_args {
    heads part[3];
    float factor;
};

// Piece i of a [b, t, h, d] that may lie anywhere.
__device__ inline int64_t place(const heads &p, unsigned i)
{
    unsigned th = i / p.pieces, bt = th / p.heads, b = bt / p.tokens;
    return b * p.stride[0] + (bt - b * p.tokens) * p.stride[1] + (th - bt * p.heads) * p.stride[2] +
           (i - th * p.pieces) * EACH;
}

struct alignas(16) bytes16 {
    uint8_t b[EACH];
};

template <class T>
__global__ void __launch_bounds__(THREADS) to_heads8(const __grid_constant__ heads8_args a)
{
    const heads &p = a.part[blockIdx.y];
    unsigned i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= p.count) return;
    const T *from = (const T *)p.data + place(p, i);
    float x[2][8];
    load<T, 8>(from, x[0]);
    load<T, 8>(from + 8, x[1]);
    bytes16 y;
#pragma unroll
    for (int e = 0; e < EACH; e++)
        y.b[e] = __nv_cvt_float_to_fp8(x[e / 8][e % 8] * a.factor, __NV_SATFINITE, __NV_E4M3);
    ((bytes16 *)p.out)[i] = y;
}

template <class T>
__global__ void __launch_bounds__(THREADS) from_heads8(const __grid_constant__ heads8_args a)
{
    const heads &p = a.part[0];
    unsigned i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= p.count) return;
    bytes16 y = ((const bytes16 *)p.data)[i];
    float x[2][8];
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        e4m3 v;
        v.__x = y.b[e];
        x[e / 8][e % 8] = (float)v * a.factor;
    }
    T *to = (T *)p.out + place(p, i);
    store<T, 8>(to, x[0]);
    store<T, 8>(to + 8, x[1]);
}

heads part_of(const at_view &v)
{
    heads p = {};
    for (int d = 0; d < 3; d++)
        p.stride[d] = v.stride[d];
    p.tokens = (unsigned)v.shape[1];
    p.heads = (unsigned)v.shape[2];
    p.pieces = (unsigned)(v.shape[3] / EACH);
    p.count = (unsigned)(v.shape[0] * v.shape[1] * v.shape[2]) * p.pieces;
    return p;
}

} // namespace

extern "C" cudaError_t at_k_heads8(cudaStream_t s, const at_view *q, const at_view *k,
                                   const at_view *v, float factor, void *const out[3])
{
    const at_view *all[] = {q, k, v};
    heads8_args a = {};
    unsigned most = 0;
    for (int i = 0; i < 3; i++) {
        a.part[i] = part_of(*all[i]);
        a.part[i].data = all[i]->data;
        a.part[i].out = out[i];
        if (a.part[i].count > most) most = a.part[i].count;
    }
    a.factor = factor;
    if (!most) return cudaSuccess;
    dim3 grid((most + THREADS - 1) / THREADS, 3);
    if (q->dtype == AT_BF16)
        to_heads8<bf16><<<grid, THREADS, 0, s>>>(a);
    else
        to_heads8<f16><<<grid, THREADS, 0, s>>>(a);
    return cudaGetLastError();
}

extern "C" cudaError_t at_k_heads8_floats(cudaStream_t s, const void *values, float factor,
                                          const at_view *out)
{
    heads8_args a = {};
    a.part[0] = part_of(*out);
    a.part[0].data = values;
    a.part[0].out = out->data;
    a.factor = factor;
    if (!a.part[0].count) return cudaSuccess;
    unsigned blocks = (a.part[0].count + THREADS - 1) / THREADS;
    if (out->dtype == AT_BF16)
        from_heads8<bf16><<<blocks, THREADS, 0, s>>>(a);
    else
        from_heads8<f16><<<blocks, THREADS, 0, s>>>(a);
    return cudaGetLastError();
}
