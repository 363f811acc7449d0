// SPDX-License-Identifier: Apache-2.0
// gated_90a.cu - gated linear units on Hopper: the product, both halves, and the gate in one kernel.
// Idea: a tile's 160 columns are 80 of the value half and the 80 of the gate half that belong to them, fetched as two
// boxes of the one weight, so a thread's results hold both and the wide product never goes to memory. Two
// warpgroups take tiles in turns (CUTLASS's "ping-pong"): while one multiplies, the other computes its GELUs and
// stores. Blocks go in pairs that share their columns of the weight: each fetches one half for both. 80 is what
// makes usual widths (2560, 5120, 10240 by 128 rows) a multiple of 128 tiles for 132 multiprocessors.
// Easy to get wrong: stages are filled in the order of the block's tiles, so a warpgroup skips those of the other's
// tile; a stage is free when both blocks of the pair have read it; a block stays until its partner sends it nothing
// any more. The last pair may have a block without rows: it works on zeros and stores nothing.
// Owns nothing.
#include "cuda/gated_90a.h"

#include "cuda/fast_act.cuh"
#include "cuda/grid.cuh"
#include "cuda/hopper.cuh"
#include "cuda/tensor_map.h"

using namespace hopper;

namespace
{

// backend.h's at_act, which C++ cannot read.
constexpr int GELU_TANH = 2, GELU_ERF = 3;
constexpr int ROWS = 128, HALF = 80, DEEP = 64, STAGES = 6, GROUP = 128, PAIR = 2;
constexpr uint32_t X_BYTES = ROWS * DEEP * 2, HALF_BYTES = HALF * DEEP * 2,
                   STAGE_BYTES = X_BYTES + 2 * HALF_BYTES;
constexpr uint32_t BARRIERS = STAGES * STAGE_BYTES, SHARED = BARRIERS + STAGES * 16 + 1024;

struct gated_args {
    void *out;
    const void *bias;
    int64_t out_row;
    int m, n, depth;       // depth: stages of a tile
    int pairs, all, width; // pairs of tiles along m, all of them, blocks' pairs
    float scale;
};

// The rows and columns of the i-th tile of this block.
struct place {
    int row, column;
    __device__ place(const gated_args &a, int i)
    {
        int u = blockIdx.x / PAIR + i * a.width;
        row = (u % a.pairs * PAIR + blockIdx.x % PAIR) * ROWS;
        column = u / a.pairs * HALF;
    }
};

// One thread's work: stage after stage of tile after tile.
__device__ inline void bring(const gated_args &a, const CUtensorMap *x, const CUtensorMap *w,
                             uint32_t shared, int tiles)
{
    uint32_t full = shared + BARRIERS, empty = full + STAGES * 8;
    int rank = blockIdx.x % PAIR;
    for (int i = 0, at = 0; i < tiles; i++) {
        place p(a, i);
        for (int k = 0; k < a.depth; k++, at++) {
            int s = at % STAGES;
            uint32_t to = shared + s * STAGE_BYTES;
            barrier_wait(empty + s * 8, (at / STAGES & 1) ^ 1);
            barrier_expect(full + s * 8, STAGE_BYTES);
            fetch(to, x, full + s * 8, k * DEEP, p.row);
            fetch_for(to + X_BYTES + rank * HALF_BYTES, w, full + s * 8, k * DEEP,
                      p.column + rank * a.n, 3);
        }
    }
}

__device__ inline void free_stage(uint32_t empty)
{
    if (threadIdx.x % GROUP < PAIR) barrier_arrive_at(empty, threadIdx.x % GROUP);
}

// The sums of a tile whose first stage is number `at`.
template <class T>
__device__ inline void multiply(float (&d)[2][80], uint32_t shared, int at, int depth)
{
    uint32_t full = shared + BARRIERS, empty = full + STAGES * 8;
    wg_pin(d[0]);
    wg_pin(d[1]);
    for (int k = 0; k < depth; k++, at++) {
        int s = at % STAGES;
        uint64_t x = tile_of(shared + s * STAGE_BYTES),
                 w = tile_of(shared + s * STAGE_BYTES + X_BYTES);
        barrier_wait(full + s * 8, at / STAGES & 1);
        wg_begin();
#pragma unroll
        for (int c = 0; c < DEEP / 16; c++) { // the second 64 rows lie 8192 bytes further on
            times160<T>(d[0], x + c * 2, w + c * 2, k + c);
            times160<T>(d[1], x + c * 2 + 512, w + c * 2, k + c);
        }
        wg_close();
        wg_wait<1>();
        if (k) free_stage(empty + (at - 1) % STAGES * 8);
    }
    wg_wait<0>();
    free_stage(empty + (at - 1) % STAGES * 8);
    wg_pin(d[0]);
    wg_pin(d[1]);
}

template <class T> __device__ inline uint32_t packed(float lo, float hi);
template <> __device__ inline uint32_t packed<bf16>(float lo, float hi)
{
    __nv_bfloat162 x = __floats2bfloat162_rn(lo, hi);
    return *reinterpret_cast<uint32_t *>(&x);
}
template <> __device__ inline uint32_t packed<f16>(float lo, float hi)
{
    __half2 x = __floats2half2_rn(lo, hi);
    return *reinterpret_cast<uint32_t *>(&x);
}

// Two neighbouring biases; zeros past the end.
template <class T> __device__ inline float2 biases(const gated_args &a, int half, int column)
{
    if (!a.bias || column >= a.n) return make_float2(0, 0);
    const T *b = (const T *)a.bias + half * (int64_t)a.n + column;
    return make_float2(to_f32(b[0]), to_f32(b[1]));
}

// Results of one row, eight columns after eight; two lanes change places so that each stores four beside each other.
template <class T, int ACT>
__device__ inline void finish(const gated_args &a, const float (&d)[2][80], place p)
{
    int lane = threadIdx.x % 32, row = p.row + threadIdx.x % GROUP / 32 * 16 + lane / 4;
    int odd = lane & 1;
    T *out = (T *)a.out;
#pragma unroll
    for (int j = 0; j < HALF / 8; j += 2) {
        int column = p.column + j * 8 + lane % 4 * 2;
        float2 v[2] = {biases<T>(a, 0, column), biases<T>(a, 0, column + 8)};
        float2 g[2] = {biases<T>(a, 1, column), biases<T>(a, 1, column + 8)};
        int to = p.column + (j + odd) * 8 + lane % 4 / 2 * 4;
#pragma unroll
        for (int e = 0; e < 4; e++) { // 64 rows and 64 more; eight and eight more
            uint32_t y[2];
#pragma unroll
            for (int c = 0; c < 2; c++) {
                const float *s = &d[e / 2][(j + c) * 4 + e % 2 * 2], *t = s + HALF / 2;
                float lo = fmaf(s[0], a.scale, v[c].x), hi = fmaf(s[1], a.scale, v[c].y);
                lo *= activate_fast(fmaf(t[0], a.scale, g[c].x), ACT);
                hi *= activate_fast(fmaf(t[1], a.scale, g[c].y), ACT);
                y[c] = packed<T>(lo, hi);
            }
            uint32_t got = __shfl_xor_sync(0xffffffffu, odd ? y[0] : y[1], 1);
            int i = row + e / 2 * 64 + e % 2 * 8;
            if (i < a.m && to < a.n)
                *reinterpret_cast<uint2 *>(out + i * a.out_row + to) =
                    odd ? make_uint2(got, y[1]) : make_uint2(y[0], got);
        }
    }
}

template <class T, int ACT>
__global__ void __launch_bounds__(3 * GROUP, 1)
    gated_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w,
                 const __grid_constant__ gated_args a)
{
    extern __shared__ uint8_t bytes[];
    uint32_t shared = (address_of(bytes) + 1023) & ~1023u, full = shared + BARRIERS;
    int group = warpgroup(), mine = blockIdx.x / PAIR;
    int tiles = (a.all - mine + a.width - 1) / a.width;

    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_make(full + i * 8, 1);
            barrier_make(full + (STAGES + i) * 8, PAIR);
        }
        barriers_made();
    }
    cluster_arrive();
    cluster_wait();
    grid_begin();
    if (group == 0) {
        registers_less<40>();
        if (threadIdx.x == 0) bring(a, &x, &w, shared, tiles);
        __syncwarp();
    } else {
        registers_more<232>();
        for (int i = group - 1; i < tiles; i += 2) {
            float d[2][80];
            multiply<T>(d, shared, i * a.depth, a.depth);
            finish<T, ACT>(a, d, place(a, i));
        }
    }
    cluster_arrive();
    cluster_wait();
}

int multiprocessors()
{
    static int known[16];
    int d = 0;
    if (cudaGetDevice(&d) != cudaSuccess || d < 0 || d >= 16) return 2;
    if (!known[d] &&
        cudaDeviceGetAttribute(&known[d], cudaDevAttrMultiProcessorCount, d) != cudaSuccess)
        return 2;
    return known[d];
}

template <class T, int ACT> cudaError_t launch(cudaStream_t s, const at_k_gated_in *in)
{
    auto kernel = gated_kernel<T, ACT>;
    CUtensorMap x, w;
    gated_args a = {};
    a.out = in->out;
    a.bias = in->bias;
    a.out_row = in->out_row;
    a.m = (int)in->m;
    a.n = (int)in->n;
    a.depth = (int)((in->k + DEEP - 1) / DEEP);
    a.pairs = (a.m + PAIR * ROWS - 1) / (PAIR * ROWS);
    a.all = a.pairs * ((a.n + HALF - 1) / HALF);
    a.width = multiprocessors() / PAIR;
    if (a.width > a.all) a.width = a.all;
    a.scale = in->scale;
    if (!at_tensor_map(&x, in->x, in->dtype, in->m, in->k, in->x_row, ROWS) ||
        !at_tensor_map(&w, in->w, in->dtype, 2 * in->n, in->k, in->w_row, HALF))
        return cudaErrorNotSupported;
    cudaError_t e =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
    if (e != cudaSuccess) return e;
    return launch_wide(kernel, dim3((unsigned)(a.width * PAIR)), 3 * GROUP, SHARED, PAIR, s, x, w,
                       a);
}

template <class T> cudaError_t by_act(cudaStream_t s, const at_k_gated_in *a)
{
    return a->act == GELU_TANH ? launch<T, GELU_TANH>(s, a) : launch<T, GELU_ERF>(s, a);
}

} // namespace

extern "C" bool at_k_gated_suits(const at_k_gated_in *a)
{
    const int64_t most = INT32_MAX / 4;
    return (a->act == GELU_TANH || a->act == GELU_ERF) &&
           (a->dtype == AT_BF16 || a->dtype == AT_F16) && a->n % 8 == 0 && a->out_row % 4 == 0 &&
           a->x_row % 8 == 0 && a->w_row % 8 == 0 && a->k > 0 && a->m < most && a->n < most &&
           a->k < most && a->m / ROWS * (a->n / HALF) < most / 64 && (uintptr_t)a->x % 16 == 0 &&
           (uintptr_t)a->w % 16 == 0 && (uintptr_t)a->out % 8 == 0;
}

extern "C" cudaError_t at_k_gated(cudaStream_t s, const at_k_gated_in *a)
{
    if (a->m == 0 || a->n == 0) return cudaSuccess;
    return a->dtype == AT_BF16 ? by_act<bf16>(s, a) : by_act<f16>(s, a);
}
