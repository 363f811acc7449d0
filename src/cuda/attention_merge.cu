// SPDX-License-Identifier: Apache-2.0
// attention_merge.cu - two results over parts of the keys become the one over all of them.
// Idea: a thread owns eight channels of a row (or one, where the views are not made of such pieces) and finds the
// row's two weights by itself; the row's first thread writes the new log-sum-exp. Two reads, one write.
// Easy to get wrong: out may be a, and out_lse a_lse. The row's other threads read a_lse too, so a row's threads
// lie in one block, which reads all of it before any of it is written.
// Source of the sum: Liu et al. 2023, arXiv:2310.01889. Owns nothing.
#include "cuda/dtype.cuh"
#include "cuda/grid.cuh"
#include "cuda/kernels.h"

namespace
{

enum { THREADS = 256 };

struct merge_args {
    const void *a, *b;
    void *out;
    const float *a_lse, *b_lse;
    float *out_lse;
    int64_t as[3], bs[3], os[3];
    int at, bt, ot; // dtypes
    int tokens, heads, dim;
    int wide;     // threads a row, a power of two
    int64_t rows; // batch * tokens * heads, a row's head changes fastest
};

// N values of any float format from an element on.
template <int N> __device__ inline void read(const void *p, int type, int64_t at, float (&x)[N])
{
    if (type == AT_F32)
        load<float, N>((const float *)p + at, x);
    else if (type == AT_BF16)
        load<bf16, N>((const bf16 *)p + at, x);
    else
        load<f16, N>((const f16 *)p + at, x);
}

template <int N> __device__ inline void write(void *p, int type, int64_t at, const float (&x)[N])
{
    if (type == AT_F32)
        store<float, N>((float *)p + at, x);
    else if (type == AT_BF16)
        store<bf16, N>((bf16 *)p + at, x);
    else
        store<f16, N>((f16 *)p + at, x);
}

template <int N>
__global__ void __launch_bounds__(THREADS) merge_kernel(const __grid_constant__ merge_args m)
{
    int64_t row = blockIdx.x * (int64_t)(THREADS / m.wide) + threadIdx.x / m.wide;
    int lane = threadIdx.x % m.wide;
    bool mine = row < m.rows;
    int64_t up = row / m.heads, h = row - up * m.heads, b = up / m.tokens, i = up - b * m.tokens;
    int64_t at = (b * m.heads + h) * m.tokens + i;
    grid_begin();
    float la = mine ? m.a_lse[at] : 0.0f, lb = mine ? m.b_lse[at] : 0.0f;
    __syncthreads(); // out_lse may be a_lse
    if (!mine) return;
    float top = fmaxf(la, lb), wa = 0, wb = 0, sum = 0;
    if (top > -INFINITY) {
        wa = expf(la - top);
        wb = expf(lb - top);
        sum = wa + wb;
        wa /= sum;
        wb /= sum;
    }
    if (m.out_lse && lane == 0) m.out_lse[at] = sum > 0 ? top + logf(sum) : -INFINITY;
    int64_t a = b * m.as[0] + i * m.as[1] + h * m.as[2],
            c = b * m.bs[0] + i * m.bs[1] + h * m.bs[2],
            o = b * m.os[0] + i * m.os[1] + h * m.os[2];
    for (int d = lane * N; d < m.dim; d += m.wide * N) {
        float x[N], y[N];
        read<N>(m.a, m.at, a + d, x);
        read<N>(m.b, m.bt, c + d, y);
#pragma unroll
        for (int e = 0; e < N; e++)
            x[e] = wa * x[e] + wb * y[e];
        write<N>(m.out, m.ot, o + d, x);
    }
}

// Every piece of eight elements is aligned to its bytes, 16 at most.
bool in_pieces(const at_view &v)
{
    if (v.shape[3] % 8 || (uintptr_t)v.data % 16) return false;
    for (int i = 0; i < 3; i++)
        if (v.shape[i] > 1 && v.stride[i] % 8) return false;
    return true;
}

template <int N> cudaError_t launch(cudaStream_t s, merge_args m)
{
    int pieces = (m.dim + N - 1) / N;
    m.wide = 1;
    while (m.wide < pieces && m.wide < 32)
        m.wide *= 2;
    int each = THREADS / m.wide;
    int64_t blocks = (m.rows + each - 1) / each;
    if (blocks > INT32_MAX) return cudaErrorInvalidValue;
    return launch_early(merge_kernel<N>, dim3((unsigned)blocks), THREADS, 0, s, m);
}

} // namespace

extern "C" cudaError_t at_k_attention_merge(cudaStream_t s, const at_k_merge_in *in)
{
    merge_args m = {};
    m.a = in->a.data;
    m.b = in->b.data;
    m.out = in->out.data;
    m.a_lse = in->a_lse;
    m.b_lse = in->b_lse;
    m.out_lse = in->out_lse;
    for (int i = 0; i < 3; i++) {
        m.as[i] = in->a.stride[i];
        m.bs[i] = in->b.stride[i];
        m.os[i] = in->out.stride[i];
    }
    m.at = in->a.dtype;
    m.bt = in->b.dtype;
    m.ot = in->out.dtype;
    m.tokens = (int)in->out.shape[1];
    m.heads = (int)in->out.shape[2];
    m.dim = (int)in->out.shape[3];
    m.rows = in->out.shape[0] * in->out.shape[1] * in->out.shape[2];
    if (!m.rows || !m.dim) return cudaSuccess;
    if (in_pieces(in->a) && in_pieces(in->b) && in_pieces(in->out)) return launch<8>(s, m);
    return launch<1>(s, m);
}
