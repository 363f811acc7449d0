// SPDX-License-Identifier: Apache-2.0
// group_plain.cuh - group norm of any shape and stride: what the fast kernels of group_norm.cu are checked by.
// Idea: sums of chunks of pixels for one group, about the group's first element; one thread a group merges
// them; a third kernel walks all elements.
#ifndef AT_CUDA_GROUP_PLAIN_CUH
#define AT_CUDA_GROUP_PLAIN_CUH

#include "cuda/dtype.cuh"
#include "cuda/kernels.h"

enum { PLAIN_CHUNKS = 64, PLAIN_THREADS = 256 };

// One vector per channel added to x before the norm: v + b * stride + c.
struct gn_add {
    const void *v;
    int dtype;
    int64_t stride, first; // first: of the set's channels
};

__device__ inline float add_at(const gn_add &a, int64_t b, int c)
{
    if (!a.v) return 0.0f;
    int64_t i = b * a.stride + a.first + c;
    return a.dtype == AT_F32    ? ((const float *)a.v)[i]
           : a.dtype == AT_BF16 ? to_f32(((const bf16 *)a.v)[i])
                                : to_f32(((const f16 *)a.v)[i]);
}

__device__ inline int64_t chunk_begin(int64_t pixels, int chunk, int chunks)
{
    return pixels * chunk / chunks;
}

// Sums of a chunk of pixels for one group, about the group's first element.
template <class T>
__global__ void gn_sums(const T *x, int64_t xb, int64_t xp, gn_add add, int64_t pixels,
                        int channels, int groups, float *partial)
{
    __shared__ float shared[33];
    int chunk = blockIdx.x, g = blockIdx.y, per = channels / groups;
    int64_t b = blockIdx.z;
    int64_t first = chunk_begin(pixels, chunk, gridDim.x),
            last = chunk_begin(pixels, chunk + 1, gridDim.x);
    const T *base = x + b * xb + (int64_t)g * per;
    float pivot = to_f32(base[0]) + add_at(add, b, g * per), sum = 0, square = 0;
    int64_t n = (last - first) * per;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
        int64_t p = i / per, c = i - p * per;
        float d = to_f32(base[(first + p) * xp + c]) + add_at(add, b, (int)(g * per + c)) - pivot;
        sum += d;
        square += d * d;
    }
    sum = block_sum(sum, shared);
    square = block_sum(square, shared);
    if (threadIdx.x) return;
    float *to = partial + ((b * groups + g) * gridDim.x + chunk) * 2;
    to[0] = sum;
    to[1] = square;
}

// One thread a group: mean and 1 / deviation into the first two places of the group's partial sums, or, where
// `told` is given, mean and squared distances there.
template <class T>
__global__ void gn_finish(const T *x, int64_t xb, gn_add add, int channels, int groups,
                          int64_t count, float eps, float *partial, int chunks, int total,
                          float2 *told)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total) return;
    int b = i / groups, g = i - b * groups, c0 = g * (channels / groups);
    float pivot = to_f32(x[b * xb + c0]) + add_at(add, b, c0);
    float *p = partial + (int64_t)i * chunks * 2;
    double sum = 0, square = 0;
    for (int c = 0; c < chunks; c++) {
        sum += p[2 * c];
        square += p[2 * c + 1];
    }
    double mean = sum / (double)count, var = square / (double)count - mean * mean;
    if (told) {
        told[i] = make_float2((float)(mean + pivot), (float)((var > 0 ? var : 0) * (double)count));
        return;
    }
    p[0] = (float)(mean + pivot);
    p[1] = (float)(1.0 / sqrt((var > 0 ? var : 0) + eps));
}

template <class T, class O>
__global__ void gn_apply(const T *x, int64_t xb, int64_t xp, O *out, int64_t ob, int64_t op,
                         gn_add add, int64_t pixels, int channels, int groups, const float *weight,
                         const float *bias, const float *partial, int chunks, int act)
{
    int64_t b = blockIdx.y, total = pixels * channels;
    int per = channels / groups;
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < total;
         i += (int64_t)gridDim.x * blockDim.x) {
        int64_t p = i / channels;
        int c = (int)(i - p * channels);
        const float *s = partial + ((b * groups + c / per) * chunks) * 2;
        float y = (to_f32(x[b * xb + p * xp + c]) + add_at(add, b, c) - s[0]) * s[1];
        if (weight) y *= weight[c];
        if (bias) y += bias[c];
        out[b * ob + p * op + c] = from_f32<O>(activate(y, act));
    }
}

static int gn_plain_chunks(int64_t pixels)
{
    int64_t n = pixels / 64;
    return n < 1 ? 1 : n > PLAIN_CHUNKS ? PLAIN_CHUNKS : (int)n;
}

#endif
