// SPDX-License-Identifier: Apache-2.0
// conv_few.cu - 3x3 convolutions to a few channels: pixels out of a decoder, noise out of a UNet.
// Idea: there is one read of x worth of work, and tensor cores would spend most of theirs on channels
// that do not exist. Sixteen lanes share eight neighbouring pixels: each lane takes every sixteenth piece
// of eight channels, keeps f32 sums of all pixels and results, and the lanes meet at the end. Nothing is
// rounded before the result, which may be f32.
// Easy to get wrong: lanes beyond the picture still take part in the meeting.
#include "cuda/dtype.cuh"
#include "cuda/kernels.h"

enum { PIECE = 8, LANES = 16, PIXELS = 8, THREADS = 256, MOST_SHARED = 48 << 10 };

template <class T> struct few_in {
    const T *x;
    void *out;
    const void *w; // [cout, 3, 3, cin] of T
    const float *bias;
    int64_t xs[3], os[3];
    int batch, h, ow, oh, wd, cin, top, left, out_dtype;
};

template <class T, int N> __global__ void __launch_bounds__(THREADS) few_kernel(few_in<T> p)
{
    extern __shared__ float weights[]; // [N, 9, cin]
    for (int i = threadIdx.x; i < N * 9 * p.cin; i += blockDim.x)
        weights[i] = to_f32(((const T *)p.w)[i]);
    __syncthreads();
    int lane = threadIdx.x % LANES, runs = (p.ow + PIXELS - 1) / PIXELS;
    int64_t group = blockIdx.x * (int64_t)(THREADS / LANES) + threadIdx.x / LANES;
    bool in = group < (int64_t)p.batch * p.oh * runs;
    if (!in) group = 0;
    int run = (int)(group % runs), oy = (int)(group / runs % p.oh), b = (int)(group / runs / p.oh);
    float sum[PIXELS][N] = {};
    for (int piece = lane; piece < p.cin / PIECE; piece += LANES)
        for (int ky = 0; ky < 3; ky++) {
            int iy = oy + ky - p.top, ix0 = run * PIXELS - p.left;
            if (iy < 0 || iy >= p.h) continue;
            const T *row = p.x + b * p.xs[0] + iy * p.xs[1] + piece * PIECE;
            vec<T, PIECE> v[PIXELS + 2];
#pragma unroll
            for (int i = 0; i < PIXELS + 2; i++) {
                int ix = ix0 + i;
                if (ix >= 0 && ix < p.wd)
                    v[i] = *(const vec<T, PIECE> *)(row + ix * p.xs[2]);
                else
                    *(uint4 *)&v[i] = make_uint4(0, 0, 0, 0);
            }
#pragma unroll
            for (int kx = 0; kx < 3; kx++)
#pragma unroll
                for (int n = 0; n < N; n++) {
                    float w[PIECE];
                    load<float, PIECE>(weights + (n * 9 + ky * 3 + kx) * p.cin + piece * PIECE, w);
#pragma unroll
                    for (int i = 0; i < PIXELS; i++)
#pragma unroll
                        for (int k = 0; k < PIECE; k++)
                            sum[i][n] += to_f32(v[i + kx].v[k]) * w[k];
                }
        }
#pragma unroll
    for (int i = 0; i < PIXELS; i++)
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int d = LANES / 2; d; d >>= 1)
                sum[i][n] += __shfl_xor_sync(0xffffffffu, sum[i][n], d);
            int ox = run * PIXELS + i;
            if (!in || ox >= p.ow || (i * N + n) % LANES != lane) continue;
            float y = sum[i][n] + (p.bias ? p.bias[n] : 0.0f);
            int64_t at = b * p.os[0] + oy * p.os[1] + ox * p.os[2] + n;
            if (p.out_dtype == AT_F32)
                ((float *)p.out)[at] = y;
            else
                ((T *)p.out)[at] = from_f32<T>(y);
        }
}

extern "C" bool at_k_conv_few_fits(const at_view *x, const at_view *out)
{
    int64_t cin = x->shape[3], cout = out->shape[3];
    if (x->dtype == AT_F32 || (out->dtype != AT_F32 && out->dtype != x->dtype)) return false;
    if (cout < 1 || cout > 4 || cin % PIECE || cin * cout * 36 > MOST_SHARED) return false;
    if (x->stride[3] != 1 || out->stride[3] != 1 || (uintptr_t)x->data % 16) return false;
    for (int i = 0; i < 3; i++)
        if (x->stride[i] % PIECE) return false;
    return true;
}

template <class T> static cudaError_t conv_few(cudaStream_t s, const at_k_conv_in *a)
{
    const at_view *x = &a->x, *o = &a->out;
    few_in<T> p = {(const T *)x->data, o->data, a->w.data, a->bias};
    for (int i = 0; i < 3; i++) {
        p.xs[i] = x->stride[i];
        p.os[i] = o->stride[i];
    }
    p.batch = (int)x->shape[0];
    p.h = (int)x->shape[1];
    p.wd = (int)x->shape[2];
    p.cin = (int)x->shape[3];
    p.oh = (int)o->shape[1];
    p.ow = (int)o->shape[2];
    p.top = a->top;
    p.left = a->left;
    p.out_dtype = o->dtype;
    int64_t groups = (int64_t)p.batch * p.oh * ((p.ow + PIXELS - 1) / PIXELS);
    unsigned blocks = (unsigned)((groups + THREADS / LANES - 1) / (THREADS / LANES));
    size_t shared = (size_t)o->shape[3] * 9 * p.cin * sizeof(float);
    if (!groups) return cudaSuccess;
    switch (o->shape[3]) {
    case 1: few_kernel<T, 1><<<blocks, THREADS, shared, s>>>(p); break;
    case 2: few_kernel<T, 2><<<blocks, THREADS, shared, s>>>(p); break;
    case 3: few_kernel<T, 3><<<blocks, THREADS, shared, s>>>(p); break;
    default: few_kernel<T, 4><<<blocks, THREADS, shared, s>>>(p); break;
    }
    return cudaGetLastError();
}

extern "C" cudaError_t at_k_conv_few(cudaStream_t s, const at_k_conv_in *a)
{
    return a->x.dtype == AT_BF16 ? conv_few<bf16>(s, a) : conv_few<f16>(s, a);
}
