// SPDX-License-Identifier: Apache-2.0
// norm.cu - layer and RMS norm with modulation, rotary with RMS.
// Idea: a row is read once into registers, its sums are taken there (two passes over registers: the
// mean, then the squared distances, so that an offset does not hide the variance), written once.
#include "cuda/dtype.cuh"
#include "cuda/kernels.h"

// --- layer norm, RMS norm ----------------------------------------------------------------------
struct norm_mod {
    const void *scale, *shift;
    int dscale, dshift;
    int64_t scale_stride, shift_stride;
};

__device__ inline float mod_at(const void *p, int dtype, int64_t i)
{
    return dtype == AT_F32 ? ((const float *)p)[i]
                           : dtype == AT_BF16 ? to_f32(((const bf16 *)p)[i]) : to_f32(((const f16 *)p)[i]);
}

// One block a row; each thread keeps up to EACH pieces of N elements in registers.
template <class T, class O, int N, int EACH>
__global__ void norm_kernel(const T *x, int64_t xb, int64_t xt, O *out, int64_t ob, int64_t ot,
                            int64_t tokens, int dim, const float *weight, const float *bias, norm_mod m,
                            float eps, bool rms)
{
    __shared__ float shared[33];
    int64_t b = blockIdx.x / tokens, t = blockIdx.x - b * tokens;
    const T *row = x + b * xb + t * xt;
    O *to = out + b * ob + t * ot;
    float v[EACH][N];
    float sum = 0;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        int at = (e * blockDim.x + threadIdx.x) * N;
        if (at >= dim) continue;
        if (N > 1)
            load<T, N>(row + at, v[e]);
        else
            v[e][0] = to_f32(row[at]);
#pragma unroll
        for (int k = 0; k < N; k++)
            sum += rms ? v[e][k] * v[e][k] : v[e][k];
    }
    float mean = 0, square;
    if (rms) {
        square = block_sum(sum, shared) / dim;
    } else {
        mean = block_sum(sum, shared) / dim;
        float far = 0;
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            int at = (e * blockDim.x + threadIdx.x) * N;
            if (at >= dim) continue;
#pragma unroll
            for (int k = 0; k < N; k++)
                far += (v[e][k] - mean) * (v[e][k] - mean);
        }
        square = block_sum(far, shared) / dim;
    }
    float r = rsqrtf(square + eps);
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        int at = (e * blockDim.x + threadIdx.x) * N;
        if (at >= dim) continue;
#pragma unroll
        for (int k = 0; k < N; k++) {
            float y = (v[e][k] - mean) * r;
            if (weight) y *= weight[at + k];
            if (bias) y += bias[at + k];
            if (m.scale) y *= 1.0f + mod_at(m.scale, m.dscale, b * m.scale_stride + at + k);
            if (m.shift) y += mod_at(m.shift, m.dshift, b * m.shift_stride + at + k);
            v[e][k] = y;
        }
        if (N > 1)
            store<O, N>(to + at, v[e]);
        else
            to[at] = from_f32<O>(v[e][0]);
    }
}

// Rows too long for registers: the same sums over memory.
template <class T, class O>
__global__ void norm_long_kernel(const T *x, int64_t xb, int64_t xt, O *out, int64_t ob, int64_t ot,
                                 int64_t tokens, int dim, const float *weight, const float *bias, norm_mod m,
                                 float eps, bool rms)
{
    __shared__ float shared[33];
    int64_t b = blockIdx.x / tokens, t = blockIdx.x - b * tokens;
    const T *row = x + b * xb + t * xt;
    O *to = out + b * ob + t * ot;
    float mean = 0, sum = 0;
    if (!rms) {
        for (int i = threadIdx.x; i < dim; i += blockDim.x)
            sum += to_f32(row[i]);
        mean = block_sum(sum, shared) / dim;
        sum = 0;
    }
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        float d = to_f32(row[i]) - mean;
        sum += d * d;
    }
    float r = rsqrtf(block_sum(sum, shared) / dim + eps);
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        float y = (to_f32(row[i]) - mean) * r;
        if (weight) y *= weight[i];
        if (bias) y += bias[i];
        if (m.scale) y *= 1.0f + mod_at(m.scale, m.dscale, b * m.scale_stride + i);
        if (m.shift) y += mod_at(m.shift, m.dshift, b * m.shift_stride + i);
        to[i] = from_f32<O>(y);
    }
}

static bool aligned(const at_view *v, size_t size, int n)
{
    size_t bytes = size * (size_t)n > 16 ? 16 : size * (size_t)n;
    return (uintptr_t)v->data % bytes == 0 && v->stride[0] % n == 0 && v->stride[1] % n == 0 &&
           v->shape[2] % n == 0;
}

template <class T, class O> static cudaError_t norm(cudaStream_t s, const at_k_norm_in *a)
{
    const at_view *x = &a->x, *o = &a->out;
    int64_t rows = x->shape[0] * x->shape[1];
    int dim = (int)x->shape[2];
    norm_mod m = {a->mod_scale.data, a->mod_shift.data, a->mod_scale.dtype, a->mod_shift.dtype, 0, 0};
    if (m.scale) m.scale_stride = a->mod_scale.shape[0] == 1 ? 0 : a->mod_scale.stride[0];
    if (m.shift) m.shift_stride = a->mod_shift.shape[0] == 1 ? 0 : a->mod_shift.stride[0];
    bool wide = aligned(x, sizeof(T), 8) && aligned(o, sizeof(O), 8);
    if (rows == 0) return cudaSuccess;
#define NORM(N, EACH, THREADS)                                                                     \
    norm_kernel<T, O, N, EACH><<<(unsigned)rows, THREADS, 0, s>>>(                                 \
        (const T *)x->data, x->stride[0], x->stride[1], (O *)o->data, o->stride[0], o->stride[1],  \
        x->shape[1], dim, a->weight, a->bias, m, a->eps, a->rms)
    if (wide && dim <= 1024)
        NORM(8, 1, 128);
    else if (wide && dim <= 4096)
        NORM(8, 2, 256);
    else if (wide && dim <= 16384)
        NORM(8, 4, 512);
    else if (dim <= 1024)
        NORM(1, 4, 256);
    else
        norm_long_kernel<T, O><<<(unsigned)rows, 512, 0, s>>>(
            (const T *)x->data, x->stride[0], x->stride[1], (O *)o->data, o->stride[0], o->stride[1],
            x->shape[1], dim, a->weight, a->bias, m, a->eps, a->rms);
#undef NORM
    return cudaGetLastError();
}

extern "C" cudaError_t at_k_norm(cudaStream_t s, const at_k_norm_in *a)
{
    AT_FLOATS(a->x.dtype, T, AT_FLOATS(a->out.dtype, O, return (norm<T, O>(s, a))))
    return cudaErrorInvalidValue;
}

// --- rotary embedding --------------------------------------------------------------------------
struct rope_shape {
    int64_t batch, tokens, heads;
    int dim;
    int64_t xs[3], os[3];
};

// One warp a head: the sum of squares, then pairs rotated.
template <class T, class O>
__global__ void rope_kernel(rope_shape r, const T *x, O *out, const float *weight, const float *cosines,
                            const float *sines, float eps, bool halves, bool per_batch)
{
    int64_t head = blockIdx.x * (int64_t)(blockDim.x / 32) + threadIdx.x / 32;
    int lane = threadIdx.x & 31, half = r.dim / 2;
    if (head >= r.batch * r.tokens * r.heads) return;
    int64_t h = head % r.heads, bt = head / r.heads, t = bt % r.tokens, b = bt / r.tokens;
    const T *from = x + b * r.xs[0] + t * r.xs[1] + h * r.xs[2];
    O *to = out + b * r.os[0] + t * r.os[1] + h * r.os[2];
    float scale = 1.0f;
    if (weight) {
        float sum = 0;
        for (int i = lane; i < r.dim; i += 32) {
            float v = to_f32(from[i]);
            sum += v * v;
        }
#pragma unroll
        for (int i = 16; i; i >>= 1)
            sum += __shfl_xor_sync(0xffffffffu, sum, i);
        scale = rsqrtf(sum / r.dim + eps);
    }
    const float *c = cosines ? cosines + (per_batch ? bt : t) * half : NULL;
    const float *s = sines ? sines + (per_batch ? bt : t) * half : NULL;
    for (int p = lane; p < (r.dim + 1) / 2; p += 32) {
        int i = halves ? p : 2 * p, j = halves ? p + half : 2 * p + 1;
        bool pair = j < r.dim;
        float u = to_f32(from[i]) * scale, v = pair ? to_f32(from[j]) * scale : 0.0f;
        if (weight) {
            u *= weight[i];
            if (pair) v *= weight[j];
        }
        float a = u, e = v;
        if (c && pair) {
            a = u * c[p] - v * s[p];
            e = v * c[p] + u * s[p];
        }
        to[i] = from_f32<O>(a);
        if (pair) to[j] = from_f32<O>(e);
    }
}

extern "C" cudaError_t at_k_rope(cudaStream_t s, const at_k_rope_in *a)
{
    const at_view *x = &a->x, *o = &a->out;
    rope_shape r = {x->shape[0], x->shape[1], x->shape[2], (int)x->shape[3], {}, {}};
    for (int i = 0; i < 3; i++) {
        r.xs[i] = x->stride[i];
        r.os[i] = o->stride[i];
    }
    int64_t heads = r.batch * r.tokens * r.heads;
    if (!heads) return cudaSuccess;
    AT_FLOATS(x->dtype, T, AT_FLOATS(o->dtype, O, {
                  rope_kernel<T, O><<<(unsigned)((heads + 7) / 8), 256, 0, s>>>(
                      r, (const T *)x->data, (O *)o->data, a->weight, a->cosines, a->sines, a->eps, a->halves,
                      a->per_batch);
              }))
    return cudaGetLastError();
}
