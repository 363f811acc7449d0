// SPDX-License-Identifier: Apache-2.0
// layer_norm.cu - layer and RMS norm with affine and modulation, any floats.
// Idea: a row is read once into registers, its sums are taken there (two passes over registers: the
// mean, then the squared distances, so that an offset does not hide the variance), written once.
// Short rows belong to a warp, longer ones to a block; what is too long or lies at odd addresses
// goes through memory three times.
#include "cuda/kernels.h"
#include "cuda/pieces.cuh"

struct norm_args {
    const void *x, *scale, *shift;
    void *out;
    const float *weight, *bias;
    int64_t xb, xt, ob, ot, scale_b, shift_b; // strides: batch, token
    unsigned rows, tokens;
    int dim, dx, dout, dscale, dshift;
    float eps;
    bool rms;
};

enum { NORM_THREADS = 128, NORM_WARPS = NORM_THREADS / 32 };

// Sum over the WARPS warps that share a row; every thread gets it. `sums` is used once.
template <int WARPS> __device__ inline float row_sum(float x, float *sums)
{
    x = warp_sum(x);
    if (WARPS == 1) return x;
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++)
        x += sums[w];
    return x;
}

// v *= plus + w
template <int EACH>
__device__ inline void scale_by(const void *p, int dtype, int64_t at, int64_t step, int64_t safe,
                                unsigned have, float plus, float (&v)[EACH][PIECE])
{
    float w[EACH][PIECE];
    load_pieces<EACH>(p, dtype, at, step, safe, have, w);
#pragma unroll
    for (int e = 0; e < EACH; e++)
#pragma unroll
        for (int k = 0; k < PIECE; k++)
            v[e][k] *= plus + w[e][k];
}

// v += w
template <int EACH>
__device__ inline void shift_by(const void *p, int dtype, int64_t at, int64_t step, int64_t safe,
                                unsigned have, float (&v)[EACH][PIECE])
{
    float w[EACH][PIECE];
    load_pieces<EACH>(p, dtype, at, step, safe, have, w);
#pragma unroll
    for (int e = 0; e < EACH; e++)
#pragma unroll
        for (int k = 0; k < PIECE; k++)
            v[e][k] += w[e][k];
}

// A row by WARPS warps (1 or all of the block), EACH pieces a thread.
template <int WARPS, int EACH>
__global__ void __launch_bounds__(NORM_THREADS) norm_kernel(const norm_args a)
{
    __shared__ float sums[2][NORM_WARPS];
    const int step = WARPS * 32 * PIECE;
    unsigned row = blockIdx.x;
    int first = threadIdx.x * PIECE;
    if (WARPS == 1) {
        row = row * NORM_WARPS + threadIdx.x / 32;
        first = threadIdx.x % 32 * PIECE;
        if (row >= a.rows) return; // whole warps: no barrier in this variant
    }
    unsigned b = row / a.tokens, t = row - b * a.tokens;
    int64_t from = b * a.xb + t * a.xt;
    unsigned have = 0;
#pragma unroll
    for (int e = 0; e < EACH; e++)
        if (first + e * step < a.dim) have |= 1u << e;

    float v[EACH][PIECE], sum = 0;
    load_pieces<EACH>(a.x, a.dx, from + first, step, from, have, v);
    float mean = 0;
    if (!a.rms) {
#pragma unroll
        for (int e = 0; e < EACH; e++)
#pragma unroll
            for (int k = 0; k < PIECE; k++)
                sum += v[e][k];
        mean = row_sum<WARPS>(sum, sums[0]) / (float)a.dim;
        sum = 0;
    }
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        if (!(have >> e & 1)) continue;
#pragma unroll
        for (int k = 0; k < PIECE; k++) {
            v[e][k] -= mean;
            sum += v[e][k] * v[e][k];
        }
    }
    float r = rsqrtf(row_sum<WARPS>(sum, sums[1]) / (float)a.dim + a.eps);
#pragma unroll
    for (int e = 0; e < EACH; e++)
#pragma unroll
        for (int k = 0; k < PIECE; k++)
            v[e][k] *= r;
    int64_t of_scale = b * a.scale_b, of_shift = b * a.shift_b;
    if (a.weight) scale_by<EACH>(a.weight, AT_F32, first, step, 0, have, 0.0f, v);
    if (a.bias) shift_by<EACH>(a.bias, AT_F32, first, step, 0, have, v);
    if (a.scale) scale_by<EACH>(a.scale, a.dscale, of_scale + first, step, of_scale, have, 1.0f, v);
    if (a.shift) shift_by<EACH>(a.shift, a.dshift, of_shift + first, step, of_shift, have, v);
    store_pieces<EACH>(a.out, a.dout, b * a.ob + t * a.ot + first, step, have, v);
}

// Any length, any address: the same sums over memory, a block a row.
__global__ void norm_plain_kernel(const norm_args a)
{
    __shared__ float shared[33];
    unsigned b = blockIdx.x / a.tokens, t = blockIdx.x - b * a.tokens;
    int64_t from = b * a.xb + t * a.xt, to = b * a.ob + t * a.ot;
    float mean = 0, sum = 0;
    if (!a.rms) {
        for (int i = threadIdx.x; i < a.dim; i += blockDim.x)
            sum += one_at(a.x, a.dx, from + i);
        mean = block_sum(sum, shared) / (float)a.dim;
        sum = 0;
    }
    for (int i = threadIdx.x; i < a.dim; i += blockDim.x) {
        float d = one_at(a.x, a.dx, from + i) - mean;
        sum += d * d;
    }
    float r = rsqrtf(block_sum(sum, shared) / (float)a.dim + a.eps);
    for (int i = threadIdx.x; i < a.dim; i += blockDim.x) {
        float y = (one_at(a.x, a.dx, from + i) - mean) * r;
        if (a.weight) y *= a.weight[i];
        if (a.bias) y += a.bias[i];
        if (a.scale) y *= 1.0f + one_at(a.scale, a.dscale, b * a.scale_b + i);
        if (a.shift) y += one_at(a.shift, a.dshift, b * a.shift_b + i);
        put_at(a.out, a.dout, to + i, y);
    }
}

// Pieces of eight begin at whole 16 bytes (strides: batch, then token where there is one).
static bool in_pieces(const void *p, const int64_t *stride, int n)
{
    bool ok = (uintptr_t)p % 16 == 0;
    for (int i = 0; i < n; i++)
        ok = ok && stride[i] % PIECE == 0;
    return ok;
}

static bool fits_pieces(const norm_args *a)
{
    const int64_t x[] = {a->xb, a->xt}, o[] = {a->ob, a->ot};
    return a->dim % PIECE == 0 && in_pieces(a->x, x, 2) && in_pieces(a->out, o, 2) &&
           in_pieces(a->scale, &a->scale_b, 1) && in_pieces(a->shift, &a->shift_b, 1) &&
           in_pieces(a->weight, NULL, 0) && in_pieces(a->bias, NULL, 0);
}

extern "C" cudaError_t at_k_norm(cudaStream_t s, const at_k_norm_in *in)
{
    const at_view *x = &in->x, *o = &in->out;
    norm_args a = {};
    int64_t rows = x->shape[0] * x->shape[1];
    if (!rows || !x->shape[2]) return cudaSuccess;
    if (rows > 0x7fffffff) return cudaErrorInvalidValue;
    a.x = x->data;
    a.out = o->data;
    a.scale = in->mod_scale.data;
    a.shift = in->mod_shift.data;
    a.weight = in->weight;
    a.bias = in->bias;
    // the stride of a single entry says nothing
    a.xb = x->shape[0] == 1 ? 0 : x->stride[0];
    a.xt = x->shape[1] == 1 ? 0 : x->stride[1];
    a.ob = x->shape[0] == 1 ? 0 : o->stride[0];
    a.ot = x->shape[1] == 1 ? 0 : o->stride[1];
    if (a.scale) a.scale_b = in->mod_scale.shape[0] == 1 ? 0 : in->mod_scale.stride[0];
    if (a.shift) a.shift_b = in->mod_shift.shape[0] == 1 ? 0 : in->mod_shift.stride[0];
    a.tokens = (unsigned)x->shape[1];
    a.rows = (unsigned)rows;
    a.dim = (int)x->shape[2];
    a.dx = x->dtype;
    a.dout = o->dtype;
    a.dscale = in->mod_scale.dtype;
    a.dshift = in->mod_shift.dtype;
    a.eps = in->eps;
    a.rms = in->rms;
    unsigned all = a.rows, four = (a.rows + NORM_WARPS - 1) / NORM_WARPS;
    int pieces = a.dim / PIECE;
    if (!fits_pieces(&a) || pieces > 8 * NORM_THREADS)
        norm_plain_kernel<<<all, 256, 0, s>>>(a);
    else if (pieces <= 2 * 32)
        norm_kernel<1, 2><<<four, NORM_THREADS, 0, s>>>(a);
    else if (pieces <= 3 * 32)
        norm_kernel<1, 3><<<four, NORM_THREADS, 0, s>>>(a);
    else if (pieces <= 5 * 32)
        norm_kernel<1, 5><<<four, NORM_THREADS, 0, s>>>(a);
    else if (pieces <= 2 * NORM_THREADS)
        norm_kernel<4, 2><<<all, NORM_THREADS, 0, s>>>(a);
    else if (pieces <= 3 * NORM_THREADS)
        norm_kernel<4, 3><<<all, NORM_THREADS, 0, s>>>(a);
    else if (pieces <= 4 * NORM_THREADS)
        norm_kernel<4, 4><<<all, NORM_THREADS, 0, s>>>(a);
    else
        norm_kernel<4, 8><<<all, NORM_THREADS, 0, s>>>(a);
    return cudaGetLastError();
}
