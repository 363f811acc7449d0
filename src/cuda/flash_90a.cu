// SPDX-License-Identifier: Apache-2.0
// flash_90a.cu - attention of heads of 40 and 64 on Hopper's matrix units.
// Idea: flash.cu's method with four warpgroups of 64 queries each and a fifth that brings keys and values
// (Shah et al. 2024, arXiv:2407.08608). With heads this short the exponentials bound it (64 x 128 scores: 512
// cycles of them, 350 to 512 of products), so what counts is that warpgroups are at different places: none
// waits for another, and none holds two tiles of scores. The library pads heads of 40 to 64.
// Easy to get wrong: a warp's results of its warpgroup's product are its own 16 rows, so the softmax needs no
// shared memory, but a stage is free only when all warps have said so. The keys' last eight columns are zeros where
// a head is no multiple of 16. A bias by distance (T5) enters as the accumulators' first value, divided by the scale.
// Owns nothing.
#include "cuda/flash.cuh"
#include "cuda/flash_90a.h"
#include "cuda/warpgroup.cuh"

using namespace flash;
using namespace warpgroup;

namespace
{

constexpr int GROUP = 128, LAG = 2; // threads of a warpgroup; tiles on their way
constexpr int LINE_KEYS = 2048;     // that a line in shared memory may serve

__device__ inline void copy_cached(uint32_t to, const void *from, bool real)
{
    int bytes = real ? 16 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}

// What a kernel of heads of D, BN keys a tile and WGS warpgroups that compute looks like.
template <int D, int BN, int WGS> struct shape {
    static constexpr int stages = 4, chunks = D / 8, key_chunks = (chunks + 1) / 2 * 2;
    static constexpr int queries = WGS * 64, threads = (WGS + 1) * GROUP;
    static constexpr int key_words = key_chunks * BN,
                         value_words = chunks * BN; // a stage, of 16 bytes
    static constexpr int keys = 8, values = keys + stages * key_words,
                         line = values + stages * value_words; // words from the start
    // of 65536 registers: what threads have at the start, what computing ones have
    static constexpr int computing = WGS == 4   ? 112
                                     : WGS == 3 ? 160
                                                : 240,
                         bringing = WGS == 4   ? 32
                                    : WGS == 3 ? 32
                                               : 24;
};

// The fifth warpgroup: a row of keys or values a thread, tile after tile.
template <class T, class S, int BN>
__device__ inline void bring(const flash_args &a, const T *k, const T *v, uint32_t shared,
                             int tiles)
{
    int thread = threadIdx.x % GROUP;
    uint32_t full = shared, empty = shared + S::stages * 8;
    for (int j = 0; j < tiles + LAG; j++) {
        if (j < tiles) {
            int s = j % S::stages;
            if (j >= S::stages) barrier_wait(empty + s * 8, (j / S::stages - 1) & 1);
#pragma unroll
            for (int i = 0; i < 2 * BN / GROUP; i++) {
                int row = thread + i * GROUP, key = j * BN + row % BN;
                bool real = key < a.tk, of_keys = row < BN;
                const T *from = of_keys ? k : v;
                if (real) from += key * (of_keys ? a.ks[1] : a.vs[1]);
                uint32_t to =
                    shared + 16 * (row % BN) +
                    16 * (of_keys ? S::keys + s * S::key_words : S::values + s * S::value_words);
#pragma unroll
                for (int c = 0; c < S::chunks; c++)
                    copy_cached(to + c * BN * 16, from + c * 8, real);
            }
        }
        asm volatile("cp.async.commit_group;");
        if (j >= LAG) {
            asm volatile("cp.async.wait_group 2;" ::);
            wg_publish();
            barrier_arrive(full + (j - LAG) % S::stages * 8);
        }
    }
}

// Two neighbouring channels of a query; zeros past the end.
template <class T> __device__ inline uint32_t pair_of(const T *q, int64_t stride, int row, int end)
{
    return row < end ? *reinterpret_cast<const uint32_t *>(q + row * stride) : 0;
}

// The new running maximum; what was summed before shrinks accordingly.
template <int S, int O>
__device__ inline void raise(const float (&s)[S], float (&o)[O], float (&most)[2],
                             float (&total)[2], float scale)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float top = most[half];
#pragma unroll
        for (int i = 2 * half; i < S; i += 4)
            top = fmaxf(top, fmaxf(s[i], s[i + 1]));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        float keep = exp2_fast((most[half] - top) * scale);
        most[half] = top;
        total[half] *= keep;
#pragma unroll
        for (int i = 2 * half; i < O; i += 4) {
            o[i] *= keep;
            o[i + 1] *= keep;
        }
    }
}

// Scores to probabilities, added up and packed; 16 keys after 16, so that a score's register is free early.
template <class T, int S>
__device__ inline void soften_keys(const float (&s)[S], uint32_t (&p)[S / 8][4],
                                   const float (&most)[2], float (&total)[2], float scale)
{
    const float from[2] = {most[0] * scale, most[1] * scale};
#pragma unroll
    for (int c = 0; c < S / 8; c++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            float x = exp2_fast(fmaf(s[8 * c + 2 * e], scale, -from[e & 1]));
            float y = exp2_fast(fmaf(s[8 * c + 2 * e + 1], scale, -from[e & 1]));
            total[e & 1] += x + y;
            p[c][e] = packed<T>(x, y);
        }
}

template <class T, int D, int BN, int WGS, bool LINE>
__global__ void __launch_bounds__((WGS + 1) * GROUP, 1)
    wide_kernel(const __grid_constant__ flash_args a)
{
    using S = shape<D, BN, WGS>;
    extern __shared__ uint4 shared_words[];
    uint32_t shared = address_of(shared_words), full = shared, empty = shared + S::stages * 8;
    float *line = reinterpret_cast<float *>(shared_words + S::line);
    int group = threadIdx.x / GROUP, h = blockIdx.y, b = blockIdx.z,
        first = blockIdx.x * S::queries;
    int tiles = (a.tk + BN - 1) / BN;

    grid_begin();
    if (threadIdx.x == 0)
        for (int i = 0; i < S::stages; i++) {
            barrier_make(full + i * 8, GROUP);
            barrier_make(empty + i * 8, WGS * 4);
        }
    if (S::key_chunks > S::chunks)
        for (int i = threadIdx.x; i < S::stages * BN; i += S::threads)
            shared_words[S::keys + i / BN * S::key_words + S::chunks * BN + i % BN] =
                make_uint4(0, 0, 0, 0);
    if (LINE) { // from the last query's key 0 to the first query's last key
        const float *bias = a.bias + b * a.bs[0] + h * a.bs[1];
        int64_t from = (int64_t)(first + S::queries - 1) * a.bs[2];
        int least = max(0, first + S::queries - a.tq), most = S::queries + a.tk - 1;
        for (int i = threadIdx.x; i < most; i += S::threads)
            line[i] = i < least ? 0.0f : bias[from + i * a.bs[3]] * a.bias_scale;
    }
    wg_publish();
    __syncthreads();

    if (group == WGS) {
        registers_less<S::bringing>();
        bring<T, S, BN>(a, (const T *)a.k + b * a.ks[0] + h * a.ks[2],
                        (const T *)a.v + b * a.vs[0] + h * a.vs[2], shared, tiles);
        return;
    }
    registers_more<S::computing>();
    int lane = threadIdx.x & 31, col = 2 * (lane & 3);
    int row = first + (threadIdx.x >> 5) * 16 + (lane >> 2);
    const T *q = (const T *)a.q + b * a.qs[0] + h * a.qs[2];
    uint32_t x[S::key_chunks / 2][4];
#pragma unroll
    for (int c = 0; c < S::key_chunks / 2; c++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            x[c][e] = 2 * c + (e >> 1) < S::chunks ? pair_of(q + c * 16 + (e >> 1) * 8 + col,
                                                             a.qs[1], row + (e & 1) * 8, a.tq)
                                                   : 0;

    float o[D / 2] = {}, most[2] = {-INFINITY, -INFINITY}, total[2] = {};
    for (int j = 0; j < tiles; j++) {
        int stage = j % S::stages;
        float s[BN / 2];
        if (LINE) {
            // eight rows on and eight keys on is the same distance
            const float *l = line + j * BN + col - (row - first) + S::queries - 1;
            float x0 = l[-8], x1 = l[-7];
#pragma unroll
            for (int n = 0; n < BN / 8; n++) {
                s[4 * n + 2] = x0;
                s[4 * n + 3] = x1;
                s[4 * n] = x0 = l[n * 8];
                s[4 * n + 1] = x1 = l[n * 8 + 1];
            }
        }
        barrier_wait(full + stage * 8, (j / S::stages) & 1);
        uint32_t keys = shared + 16 * (S::keys + stage * S::key_words);
        uint32_t values = shared + 16 * (S::values + stage * S::value_words);
        wg_begin();
        times_rows<T, BN, LINE>(s, x[0], tile_of(keys, BN * 16, 128));
#pragma unroll
        for (int c = 1; c < S::key_chunks / 2; c++)
            times_rows<T, BN, true>(s, x[c], tile_of(keys + c * 2 * BN * 16, BN * 16, 128));
        wg_wait(s);
        if ((j + 1) * BN > a.tk) {
#pragma unroll
            for (int n = 0; n < BN / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (j * BN + n * 8 + col + (e & 1) >= a.tk) s[4 * n + e] = -INFINITY;
        }
        raise(s, o, most, total, a.scale);
        uint32_t p[BN / 16][4];
        soften_keys<T>(s, p, most, total, a.scale);
        wg_begin();
#pragma unroll
        for (int c = 0; c < BN / 16; c++)
            times_columns<T, D>(o, p[c], tile_of(values + c * 256, 128, BN * 16));
        wg_wait(o);
        if (lane == 0) barrier_arrive(empty + stage * 8);
    }

    T *out = (T *)a.out + b * a.os[0] + h * a.os[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = total[half];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        float part = sum > 0 ? 1.0f / sum : 0.0f;
        int i = row + half * 8;
        if (i < a.tq)
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                *reinterpret_cast<uint32_t *>(out + i * a.os[1] + n * 8 + col) =
                    packed<T>(o[4 * n + 2 * half] * part, o[4 * n + 2 * half + 1] * part);
    }
}

template <class T, int D, int BN, int WGS, bool LINE>
cudaError_t launch(cudaStream_t s, const flash_args &a, int64_t batch, int64_t heads)
{
    using S = shape<D, BN, WGS>;
    auto kernel = wide_kernel<T, D, BN, WGS, LINE>;
    size_t bytes = (size_t)S::line * 16;
    if (LINE) bytes += (size_t)(S::queries + (a.tk + BN - 1) / BN * BN + 8) * sizeof(float);
    cudaError_t e =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (e != cudaSuccess) return e;
    dim3 grid((unsigned)((a.tq + S::queries - 1) / S::queries), (unsigned)heads, (unsigned)batch);
    return launch_early(kernel, grid, S::threads, bytes, s, a);
}

// Wider blocks read keys less often; narrower ones leave fewer multiprocessors without work at the end.
template <class T>
cudaError_t by_dim(cudaStream_t s, const flash_args &a, int64_t batch, int64_t heads)
{
    if (a.dim == 40) return launch<T, 40, 128, 3, false>(s, a, batch, heads);
    if (a.bias) return launch<T, 64, 64, 4, true>(s, a, batch, heads);
    return launch<T, 64, 128, 3, false>(s, a, batch, heads);
}

} // namespace

extern "C" cudaError_t at_k_flash_90a(cudaStream_t s, const at_k_attention_in *in)
{
    flash_args a = args_of(in);
    int64_t batch = in->q.shape[0], heads = in->q.shape[2];
    if (!batch || !heads || !a.tq) return cudaSuccess;
    if (in->q.dtype == AT_BF16) return by_dim<bf16>(s, a, batch, heads);
    return by_dim<f16>(s, a, batch, heads);
}

// What at_k_flash_suits does not say already. Few keys are flash_few.cu's.
extern "C" bool at_k_flash_90a_suits(const at_k_attention_in *in)
{
    int64_t d = in->q.shape[3], tq = in->q.shape[1], tk = in->k.shape[1];
    if ((d != 40 && d != 64) || in->causal || in->lse || in->out.dtype != in->q.dtype) return false;
    if (!in->bias.data) return tk > 160;
    return d == 64 && tk > 160 && tk <= LINE_KEYS && tq > 1 && tk > 1 &&
           in->bias.stride[2] == -in->bias.stride[3];
}
