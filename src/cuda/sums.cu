// SPDX-License-Identifier: Apache-2.0
// sums.cu - linear combinations of whole tensors, and rows of a table.
// Idea: both are one pass over memory; four or eight elements a thread where addresses allow it.
// Easy to get wrong: the samplers' sums are defined to the bit: products and sums are rounded one
// after the other in the order of the arguments, never fused.
#include "cuda/any.cuh"
#include "cuda/kernels.h"
#include "cuda/pieces.cuh"

enum { THREADS = 256, TERMS = 8 };

static unsigned blocks_of(int64_t n)
{
    int64_t blocks = (n + THREADS - 1) / THREADS;
    return (unsigned)(blocks > 0x7fffffff ? 0x7fffffff : blocks);
}

// --- linear combinations -----------------------------------------------------------------------
struct sum_args {
    int n, dout;
    float coef[TERMS];
    const void *in[TERMS];
    int dtype[TERMS];
    void *out;
    int64_t count;
};

__device__ inline float add_term(float sum, float coef, float x)
{
    return __fadd_rn(sum, __fmul_rn(coef, x));
}

// All f32 at whole 16 bytes: four elements a thread, every term asked for before the first is used.
__global__ void sum4_kernel(const sum_args a)
{
    int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x;
    if (i >= a.count / 4) return;
    float4 x[TERMS], sum = {};
#pragma unroll
    for (int k = 0; k < TERMS; k++)
        if (k < a.n) x[k] = ((const float4 *)a.in[k])[i];
#pragma unroll
    for (int k = 0; k < TERMS; k++) {
        if (k >= a.n) break;
        sum.x = add_term(sum.x, a.coef[k], x[k].x);
        sum.y = add_term(sum.y, a.coef[k], x[k].y);
        sum.z = add_term(sum.z, a.coef[k], x[k].z);
        sum.w = add_term(sum.w, a.coef[k], x[k].w);
    }
    ((float4 *)a.out)[i] = sum;
}

// All of one 16-bit type at whole 16 bytes (the sums of ranks that share layers).
template <class T> __global__ void __launch_bounds__(THREADS) sum8_kernel(const sum_args a)
{
    int64_t at = (blockIdx.x * (int64_t)THREADS + threadIdx.x) * PIECE;
    if (at >= a.count) return;
    vec<T, PIECE> x[TERMS];
    float sum[1][PIECE] = {};
#pragma unroll
    for (int k = 0; k < TERMS; k++)
        if (k < a.n) x[k] = *reinterpret_cast<const vec<T, PIECE> *>((const T *)a.in[k] + at);
#pragma unroll
    for (int k = 0; k < TERMS; k++) {
        if (k >= a.n) break;
#pragma unroll
        for (int e = 0; e < PIECE; e++)
            sum[0][e] = add_term(sum[0][e], a.coef[k], to_f32(x[k].v[e]));
    }
    store_pieces_of((T *)a.out, at, 0, 1, sum);
}

__global__ void sum_kernel(const sum_args a)
{
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < a.count;
         i += (int64_t)gridDim.x * THREADS) {
        float sum = 0;
        for (int k = 0; k < a.n; k++)
            sum = add_term(sum, a.coef[k], (float)any_load(a.in[k], a.dtype[k], i));
        any_store(a.out, a.dout, i, sum);
    }
}

extern "C" cudaError_t at_k_lincomb(cudaStream_t s, const at_k_lincomb_in *in)
{
    sum_args a = {};
    a.count = 1;
    for (int d = 0; d < in->out.rank; d++)
        a.count *= in->out.shape[d];
    if (!a.count) return cudaSuccess;
    if (in->n < 1 || in->n > TERMS) return cudaErrorInvalidValue;
    a.n = in->n;
    a.dout = in->out.dtype;
    a.out = in->out.data;
    bool eights = (a.dout == AT_BF16 || a.dout == AT_F16) && a.count % PIECE == 0 &&
                  (uintptr_t)a.out % 16 == 0;
    bool fours = a.dout == AT_F32 && a.count % 4 == 0 && (uintptr_t)a.out % 16 == 0;
    for (int k = 0; k < a.n; k++) {
        a.coef[k] = in->coef[k];
        a.in[k] = in->in[k].data;
        a.dtype[k] = in->in[k].dtype;
        fours = fours && a.dtype[k] == AT_F32 && (uintptr_t)a.in[k] % 16 == 0;
        eights = eights && a.dtype[k] == a.dout && (uintptr_t)a.in[k] % 16 == 0;
    }
    if (fours)
        sum4_kernel<<<blocks_of(a.count / 4), THREADS, 0, s>>>(a);
    else if (eights && a.dout == AT_BF16)
        sum8_kernel<bf16><<<blocks_of(a.count / PIECE), THREADS, 0, s>>>(a);
    else if (eights)
        sum8_kernel<f16><<<blocks_of(a.count / PIECE), THREADS, 0, s>>>(a);
    else
        sum_kernel<<<blocks_of(a.count), THREADS, 0, s>>>(a);
    return cudaGetLastError();
}

// --- embedding ---------------------------------------------------------------------------------
struct rows_args {
    const void *table;
    const int32_t *ids;
    void *out;
    int from, to;
    float scale;
    int64_t n, dim, stride; // of out's rows
};

__global__ void rows_pieces_kernel(const rows_args a)
{
    int64_t per = a.dim / PIECE, i = blockIdx.x * (int64_t)THREADS + threadIdx.x;
    if (i >= a.n * per) return;
    int64_t r = i / per, c = (i - r * per) * PIECE, at = (int64_t)a.ids[r] * a.dim + c;
    float x[1][PIECE];
    if (a.from == AT_F8E4M3)
        load_pieces_of((const e4m3 *)a.table, at, 0, at, 1, x);
    else if (a.from == AT_F8E5M2)
        load_pieces_of((const e5m2 *)a.table, at, 0, at, 1, x);
    else
        load_pieces<1>(a.table, a.from, at, 0, at, 1, x);
#pragma unroll
    for (int k = 0; k < PIECE; k++)
        x[0][k] *= a.scale;
    store_pieces<1>(a.out, a.to, r * a.stride + c, 0, 1, x);
}

__global__ void rows_kernel(const rows_args a)
{
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < a.n * a.dim;
         i += (int64_t)gridDim.x * THREADS) {
        int64_t r = i / a.dim, c = i - r * a.dim;
        float x = (float)any_load(a.table, a.from, (int64_t)a.ids[r] * a.dim + c) * a.scale;
        any_store(a.out, a.to, r * a.stride + c, x);
    }
}

extern "C" cudaError_t at_k_embedding(cudaStream_t s, const at_view *table, float scale,
                                      const at_view *ids, const at_view *out)
{
    rows_args a = {};
    a.table = table->data;
    a.ids = (const int32_t *)ids->data;
    a.out = out->data;
    a.from = table->dtype;
    a.to = out->dtype;
    a.scale = scale;
    a.n = ids->shape[0];
    a.dim = table->shape[1];
    a.stride = out->stride[0];
    if (a.n * a.dim == 0) return cudaSuccess;
    bool known = a.from <= AT_F8E5M2 && a.to <= AT_BF16; // f32, f16, bf16, then fp8
    if (known && a.dim % PIECE == 0 && (a.n == 1 || a.stride % PIECE == 0) &&
        ((uintptr_t)a.table | (uintptr_t)a.out) % 16 == 0)
        rows_pieces_kernel<<<blocks_of(a.n * a.dim / PIECE), THREADS, 0, s>>>(a);
    else
        rows_kernel<<<blocks_of(a.n * a.dim), THREADS, 0, s>>>(a);
    return cudaGetLastError();
}
