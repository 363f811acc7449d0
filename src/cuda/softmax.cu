// SPDX-License-Identifier: Apache-2.0
// softmax.cu - rows of scores in f32 to rows of probabilities, where they lie.
// Idea: between the two matmuls of an attention that no fused kernel takes. A block owns a row and holds
// it in registers up to 16384 keys: one read, one write. Longer rows are read twice: one pass for the
// maximum and the sum (kept online), one that writes.
// Easy to get wrong: probabilities of 16 bits overwrite the first half of their own row. Tile n of the
// scores lies at bytes 4 n, its probabilities at 2 n: all of a tile must be read before any of it is
// written, and tiles go in order. Owns nothing.
#include "cuda/dtype.cuh"
#include "cuda/kernels.h"

namespace
{

enum { THREADS = 512, EACH = 4, TILE = THREADS * EACH };

struct softmax_args {
    float *scores;
    int64_t pitch, head_pitch; // in floats
    const float *bias;         // of the first row and head
    int64_t bias_head, bias_row, bias_key;
    int keys, seen; // causal: row 0 sees `seen` keys, every later one a key more
    float times;
    float *lse;
    int64_t lse_head;
    bool causal;
};

// One thread of the block: `top` is 0 for a row that sees nothing.
__device__ inline void give_lse(const softmax_args &a, float top, float total)
{
    if (a.lse && threadIdx.x == 0)
        a.lse[blockIdx.y * a.lse_head + blockIdx.x] = total == 0 ? -INFINITY : top + logf(total);
}

// The scores of one thread's columns; -inf past the end.
__device__ inline void read_scores(const softmax_args &a, const float *row, const float *bias,
                                   int at, int last, float (&x)[EACH])
{
    if (at + EACH <= last) {
        load<float, EACH>(row + at, x);
    } else {
#pragma unroll
        for (int e = 0; e < EACH; e++)
            x[e] = at + e < last ? row[at + e] : -INFINITY;
    }
    if (!bias) return;
#pragma unroll
    for (int e = 0; e < EACH; e++)
        if (at + e < last) x[e] += bias[(at + e) * a.bias_key];
}

__device__ inline float block_max(float x, float *shared)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
    for (int i = 16; i; i >>= 1)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
    if (!lane) shared[warp] = x;
    __syncthreads();
    x = shared[0];
#pragma unroll
    for (int i = 1; i < THREADS / 32; i++)
        x = fmaxf(x, shared[i]);
    return x;
}

template <class T>
__device__ inline void write_part(T *out, int at, int keys, const float (&x)[EACH])
{
    if (at + EACH <= keys) {
        store<T, EACH>(out + at, x);
    } else {
#pragma unroll
        for (int e = 0; e < EACH; e++)
            if (at + e < keys) out[at + e] = from_f32<T>(x[e]);
    }
}

struct row {
    float *scores;
    const float *bias;
    int last; // keys that it sees
};

__device__ inline row row_of(const softmax_args &a)
{
    row r = {a.scores + blockIdx.y * a.head_pitch + blockIdx.x * a.pitch, nullptr, a.keys};
    if (a.bias) r.bias = a.bias + blockIdx.y * a.bias_head + blockIdx.x * a.bias_row;
    if (a.causal) r.last = max(0, min(r.last, a.seen + (int)blockIdx.x));
    return r;
}

// At most TILES * TILE keys.
template <class T, int TILES>
__global__ void __launch_bounds__(THREADS) held_kernel(const __grid_constant__ softmax_args a)
{
    __shared__ float shared[33], tops[THREADS / 32];
    row r = row_of(a);
    float x[TILES][EACH], top = -INFINITY, total = 0;

#pragma unroll
    for (int i = 0; i < TILES; i++)
        read_scores(a, r.scores, r.bias, i * TILE + threadIdx.x * EACH, r.last, x[i]);
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int e = 0; e < EACH; e++)
            top = fmaxf(top, x[i][e]);
    top = block_max(top, tops); // and everything is read
    if (top == -INFINITY) top = 0;
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int e = 0; e < EACH; e++)
            total += x[i][e] = expf(x[i][e] - top);
    total = block_sum(total, shared);
    give_lse(a, top, total);
    float part = total > 0 ? a.times / total : 0.0f;
#pragma unroll
    for (int i = 0; i < TILES; i++) {
#pragma unroll
        for (int e = 0; e < EACH; e++)
            x[i][e] *= part;
        write_part(reinterpret_cast<T *>(r.scores), i * TILE + threadIdx.x * EACH, a.keys, x[i]);
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS) long_kernel(const __grid_constant__ softmax_args a)
{
    __shared__ float shared[33], tops[THREADS / 32];
    row r = row_of(a);
    float x[EACH], most = -INFINITY, total = 0;

    for (int at = threadIdx.x * EACH; at < r.last; at += TILE) {
        read_scores(a, r.scores, r.bias, at, r.last, x);
        float top = fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
        top = fmaxf(top, most);
        if (top == -INFINITY) continue;
        total = total * expf(most - top);
#pragma unroll
        for (int e = 0; e < EACH; e++)
            total += expf(x[e] - top);
        most = top;
    }
    float top = block_max(most, tops);
    total = block_sum(most == -INFINITY ? 0.0f : total * expf(most - top), shared);
    float part = total > 0 ? a.times / total : 0.0f;
    if (top == -INFINITY) top = 0;
    give_lse(a, top, total);

    for (int first = 0; first < a.keys; first += TILE) {
        int at = first + threadIdx.x * EACH;
        read_scores(a, r.scores, r.bias, at, r.last, x);
#pragma unroll
        for (int e = 0; e < EACH; e++)
            x[e] = expf(x[e] - top) * part;
        __syncthreads();
        write_part(reinterpret_cast<T *>(r.scores), at, a.keys, x);
    }
}

template <class T> void launch(cudaStream_t s, const softmax_args &a, dim3 grid)
{
    if (a.keys <= TILE)
        held_kernel<T, 1><<<grid, THREADS, 0, s>>>(a);
    else if (a.keys <= 2 * TILE)
        held_kernel<T, 2><<<grid, THREADS, 0, s>>>(a);
    else if (a.keys <= 4 * TILE)
        held_kernel<T, 4><<<grid, THREADS, 0, s>>>(a);
    else if (a.keys <= 8 * TILE)
        held_kernel<T, 8><<<grid, THREADS, 0, s>>>(a);
    else
        long_kernel<T><<<grid, THREADS, 0, s>>>(a);
}

} // namespace

extern "C" cudaError_t at_k_softmax(cudaStream_t s, const at_k_softmax_in *in)
{
    softmax_args a = {};
    a.scores = in->scores;
    a.pitch = in->pitch;
    a.head_pitch = in->head_pitch;
    a.bias = in->bias;
    a.bias_head = in->bias_stride[0];
    a.bias_row = in->bias_stride[1];
    a.bias_key = in->bias_stride[2];
    a.keys = (int)in->keys;
    a.seen = (int)in->seen;
    a.times = in->times;
    a.causal = in->causal;
    a.lse = in->lse;
    a.lse_head = in->lse_stride;
    if (!in->rows || !in->heads || !in->keys) return cudaSuccess;
    if (in->heads > 65535) return cudaErrorInvalidValue;
    dim3 grid((unsigned)in->rows, (unsigned)in->heads);
    AT_FLOATS(in->dtype, T, launch<T>(s, a, grid));
    return cudaGetLastError();
}
