// SPDX-License-Identifier: Apache-2.0
// softmax.cu - rows of scores in f32 to rows of probabilities, where they lie.
// Idea: between the two matmuls of an attention that no fused kernel takes. A block owns a row: one pass
// for the maximum and the sum (kept online), one that writes; the second read comes from the cache.
// Easy to get wrong: probabilities of 16 bits overwrite the first half of their own row. Tile n of the
// scores lies at bytes 4 n, its probabilities at 2 n: all of a tile must be read before any of it is
// written, and tiles go in order. Owns nothing.
#include "cuda/dtype.cuh"
#include "cuda/kernels.h"

namespace
{

enum { THREADS = 256, EACH = 4 };

struct softmax_args {
    float *scores;
    int64_t pitch, head_pitch; // in floats
    const float *bias;         // of the first row and head
    int64_t bias_head, bias_row, bias_key;
    int keys, seen; // causal: row 0 sees `seen` keys, every later one a key more
    float times;
    bool causal;
};

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
__global__ void __launch_bounds__(THREADS) softmax_kernel(const __grid_constant__ softmax_args a)
{
    __shared__ float shared[33], tops[THREADS / 32];
    float *row = a.scores + blockIdx.y * a.head_pitch + blockIdx.x * a.pitch;
    const float *bias =
        a.bias ? a.bias + blockIdx.y * a.bias_head + blockIdx.x * a.bias_row : nullptr;
    int last = a.keys;
    if (a.causal) last = max(0, min(last, a.seen + (int)blockIdx.x));
    float x[EACH], most = -INFINITY, total = 0;

    for (int at = threadIdx.x * EACH; at < last; at += THREADS * EACH) {
        read_scores(a, row, bias, at, last, x);
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

    T *out = reinterpret_cast<T *>(row);
    for (int first = 0; first < a.keys; first += THREADS * EACH) {
        int at = first + threadIdx.x * EACH;
        read_scores(a, row, bias, at, last, x);
#pragma unroll
        for (int e = 0; e < EACH; e++)
            x[e] = expf(x[e] - top) * part;
        __syncthreads();
        if (at + EACH <= a.keys) {
            store<T, EACH>(out + at, x);
        } else {
#pragma unroll
            for (int e = 0; e < EACH; e++)
                if (at + e < a.keys) out[at + e] = from_f32<T>(x[e]);
        }
    }
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
    if (!in->rows || !in->heads || !in->keys) return cudaSuccess;
    if (in->heads > 65535) return cudaErrorInvalidValue;
    dim3 grid((unsigned)in->rows, (unsigned)in->heads);
    AT_FLOATS(in->dtype, T, softmax_kernel<T><<<grid, THREADS, 0, s>>>(a));
    return cudaGetLastError();
}
