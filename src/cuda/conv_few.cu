// SPDX-License-Identifier: Apache-2.0
// conv_few.cu - 3x3 convolutions to and from a few channels: pixels and latents at both ends of a network.
// Idea: there is one pass over the large side worth of work, and tensor cores would spend most of theirs
// on channels that do not exist. Nothing is rounded before the result, and the few may be f32.
//   to few: sixteen lanes share eight neighbouring pixels; each takes every sixteenth piece of eight
//   channels, keeps f32 sums of all pixels and results, and the lanes meet at the end.
//   from few: a thread makes eight channels of four neighbouring pixels; the weights of 64 channels wait in
//   shared memory.
// Easy to get wrong: lanes beyond the picture still take part in the meeting.
#include "cuda/dtype.cuh"
#include "cuda/kernels.h"

enum { PIECE = 8, LANES = 16, PIXELS = 8, THREADS = 256, MOST_SHARED = 48 << 10, STAY = 288 };

template <class T> struct few_in {
    const T *x;
    void *out;
    const void *w; // [cout, 3, 3, cin] of T
    const float *bias;
    int64_t xs[3], os[3];
    int batch, h, ow, oh, wd, cin, top, left, out_dtype;
};

// The sums of eight pixels over this lane's pieces of the channels.
template <class T, int N>
__device__ inline void few_sums(const few_in<T> &p, const float *weights, int b, int oy, int ox,
                                int lane, float (&sum)[PIXELS][N])
{
    for (int piece = lane; piece < p.cin / PIECE; piece += LANES)
        for (int ky = 0; ky < 3; ky++) {
            int iy = oy + ky - p.top, ix0 = ox - p.left;
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
}

// Blocks stay: the weights are staged once for many pixels.
template <class T, int N> __global__ void __launch_bounds__(THREADS, 2) few_kernel(few_in<T> p)
{
    extern __shared__ __align__(16) float weights[]; // [N, 9, cin]
    for (int i = threadIdx.x; i < N * 9 * p.cin; i += blockDim.x)
        weights[i] = to_f32(((const T *)p.w)[i]);
    __syncthreads();
    int lane = threadIdx.x % LANES, runs = (p.ow + PIXELS - 1) / PIXELS;
    int64_t groups = (int64_t)p.batch * p.oh * runs, each = THREADS / LANES;
    for (int64_t base = blockIdx.x * each; base < groups; base += gridDim.x * each) {
        int64_t group = base + threadIdx.x / LANES;
        bool in = group < groups;
        if (!in) group = 0;
        int ox = (int)(group % runs) * PIXELS, oy = (int)(group / runs % p.oh),
            b = (int)(group / runs / p.oh);
        float sum[PIXELS][N] = {};
        few_sums<T, N>(p, weights, b, oy, ox, lane, sum);
#pragma unroll
        for (int i = 0; i < PIXELS; i++)
#pragma unroll
            for (int n = 0; n < N; n++) {
#pragma unroll
                for (int d = LANES / 2; d; d >>= 1)
                    sum[i][n] += __shfl_xor_sync(0xffffffffu, sum[i][n], d);
                if (!in || ox + i >= p.ow || (i * N + n) % LANES != lane) continue;
                float y = sum[i][n] + (p.bias ? p.bias[n] : 0.0f);
                int64_t at = b * p.os[0] + oy * p.os[1] + (ox + i) * p.os[2] + n;
                if (p.out_dtype == AT_F32)
                    ((float *)p.out)[at] = y;
                else
                    ((T *)p.out)[at] = from_f32<T>(y);
            }
    }
}

// --- from a few ----------------------------------------------------------------------------------
enum { SPAN = 64, RUN = 4, FEW_IN = 16 }; // channels and neighbouring pixels; most channels of x

struct from_in {
    const float *x, *w, *bias; // w [cout, 3, 3, cin]
    void *out;
    int64_t xs[4], os[3];
    int batch, h, wd, oh, ow, cin, cout, top, left;
};

template <class O> __global__ void __launch_bounds__(THREADS) from_kernel(from_in p)
{
    __shared__ __align__(16) float weights[9 * FEW_IN * SPAN]; // [tap, cin, channel]
    int c0 = blockIdx.y * SPAN, k = 9 * p.cin;
    for (int i = threadIdx.x; i < k * SPAN; i += blockDim.x) {
        int c = c0 + i % SPAN;
        weights[i] = c < p.cout ? p.w[(int64_t)c * k + i / SPAN] : 0.0f;
    }
    __syncthreads();
    int channel = threadIdx.x % (SPAN / PIECE) * PIECE, runs = (p.ow + RUN - 1) / RUN;
    if (c0 + channel >= p.cout) return;
    float bias[PIECE] = {};
    if (p.bias) load<float, PIECE>(p.bias + c0 + channel, bias);
    int64_t all = (int64_t)p.batch * p.oh * runs, step = (int64_t)gridDim.x * (THREADS / (SPAN / PIECE));
    for (int64_t at = blockIdx.x * (int64_t)(THREADS / (SPAN / PIECE)) + threadIdx.x / (SPAN / PIECE);
         at < all; at += step) {
        int ox = (int)(at % runs) * RUN, oy = (int)(at / runs % p.oh), b = (int)(at / runs / p.oh);
        float sum[RUN][PIECE];
#pragma unroll
        for (int i = 0; i < RUN; i++)
#pragma unroll
            for (int n = 0; n < PIECE; n++)
                sum[i][n] = bias[n];
        for (int ky = 0; ky < 3; ky++) {
            int iy = oy + ky - p.top;
            if (iy < 0 || iy >= p.h) continue;
            const float *row = p.x + b * p.xs[0] + iy * p.xs[1];
            for (int kx = 0; kx < 3; kx++)
                for (int c = 0; c < p.cin; c++) {
                    float w[PIECE];
                    load<float, PIECE>(weights + ((ky * 3 + kx) * p.cin + c) * SPAN + channel, w);
#pragma unroll
                    for (int i = 0; i < RUN; i++) {
                        int ix = ox + i + kx - p.left;
                        float x = ix >= 0 && ix < p.wd ? row[ix * p.xs[2] + c * p.xs[3]] : 0.0f;
#pragma unroll
                        for (int n = 0; n < PIECE; n++)
                            sum[i][n] += x * w[n];
                    }
                }
        }
#pragma unroll
        for (int i = 0; i < RUN; i++)
            if (ox + i < p.ow)
                store<O, PIECE>((O *)p.out + b * p.os[0] + oy * p.os[1] + (ox + i) * p.os[2] + c0 +
                                    channel,
                                sum[i]);
    }
}

extern "C" bool at_k_conv_from_few_fits(const at_view *x, const at_view *out)
{
    size_t piece = out->dtype == AT_F32 ? 4 : 2;
    if (x->dtype != AT_F32 || x->shape[3] > FEW_IN || out->shape[3] % PIECE) return false;
    if (out->dtype != AT_F32 && out->dtype != AT_F16 && out->dtype != AT_BF16) return false;
    if (out->stride[3] != 1 || (uintptr_t)out->data % (piece * PIECE > 16 ? 16 : piece * PIECE))
        return false;
    for (int i = 0; i < 3; i++)
        if (out->stride[i] % PIECE) return false;
    return true;
}

extern "C" cudaError_t at_k_conv_from_few(cudaStream_t s, const at_k_conv_in *a)
{
    const at_view *x = &a->x, *o = &a->out;
    from_in p = {(const float *)x->data, (const float *)a->w.data, a->bias, o->data};
    for (int i = 0; i < 4; i++)
        p.xs[i] = x->stride[i];
    for (int i = 0; i < 3; i++)
        p.os[i] = o->stride[i];
    p.batch = (int)x->shape[0];
    p.h = (int)x->shape[1];
    p.wd = (int)x->shape[2];
    p.cin = (int)x->shape[3];
    p.oh = (int)o->shape[1];
    p.ow = (int)o->shape[2];
    p.cout = (int)o->shape[3];
    p.top = a->top;
    p.left = a->left;
    int64_t per = THREADS / (SPAN / PIECE), all = (int64_t)p.batch * p.oh * ((p.ow + RUN - 1) / RUN);
    int64_t blocks = (all + per - 1) / per;
    if (!blocks) return cudaSuccess;
    dim3 grid((unsigned)(blocks > 1024 ? 1024 : blocks), (unsigned)((p.cout + SPAN - 1) / SPAN));
    AT_FLOATS(o->dtype, O, from_kernel<O><<<grid, THREADS, 0, s>>>(p))
    return cudaGetLastError();
}

// --- to a few ------------------------------------------------------------------------------------
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
    if (blocks > STAY) blocks = STAY;
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
