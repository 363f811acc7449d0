// SPDX-License-Identifier: Apache-2.0
// few_tiles_90a.cu - products that are one round of small tiles on Hopper: 128 x 80 for each multiprocessor.
// Idea: 1024 x 1280 or 2048 x 640 results (one picture of SDXL, two of SD1.5) are 40 to 80 of a library's tiles
// for 132 multiprocessors; 128 x 80 makes them 128. So small a tile asks the L2 cache for 83 bytes a cycle, three
// times what it gives, so four blocks go together: two by two tiles, each fetches half of its rows for the block beside
// it and half of its columns for the block below, which halves that. The residual comes to registers meanwhile.
// Easy to get wrong: a stage is written by three blocks and so is free when three have read it; a block stays until
// nobody sends it anything. Tiles beyond the matrix are zeros and store nothing.
// Owns nothing.
#include "cuda/few_tiles_90a.h"

#include "cuda/flash.cuh"
#include "cuda/grid.cuh"
#include "cuda/hopper.cuh"
#include "cuda/tensor_map.h"

using namespace hopper;
using flash::packed;

namespace
{

constexpr int ROWS = 128, COLUMNS = 80, DEEP = 64, STAGES = 8, GROUP = 128, FOUR = 4;
constexpr uint32_t X_HALF = ROWS / 2 * DEEP * 2, W_HALF = COLUMNS / 2 * DEEP * 2,
                   STAGE_BYTES = 2 * (X_HALF + W_HALF);
constexpr uint32_t BARRIERS = STAGES * STAGE_BYTES, SHARED = BARRIERS + STAGES * 16 + 1024;

struct few_args {
    void *out;
    const void *bias, *residual;
    int64_t out_row, residual_row;
    int m, n, depth, pairs; // depth: stages; pairs: of tiles along m
    float scale;
};

// One thread's work. Block `rank` of the four has row rank % 2 and column rank / 2.
__device__ inline void bring(const few_args &a, const CUtensorMap *x, const CUtensorMap *w,
                             uint32_t shared, int row, int column, int rank)
{
    uint32_t full = shared + BARRIERS, empty = full + STAGES * 8;
    int below = rank % 2, beside = rank / 2;
    uint16_t of_row = (uint16_t)(5u << below), of_column = (uint16_t)(3u << beside * 2);
    for (int k = 0; k < a.depth; k++) {
        int s = k % STAGES;
        uint32_t to = shared + s * STAGE_BYTES;
        barrier_wait(empty + s * 8, (k / STAGES & 1) ^ 1);
        barrier_expect(full + s * 8, STAGE_BYTES);
        fetch_for(to + beside * X_HALF, x, full + s * 8, k * DEEP, row + beside * ROWS / 2, of_row);
        fetch_for(to + 2 * X_HALF + below * W_HALF, w, full + s * 8, k * DEEP,
                  column + below * COLUMNS / 2, of_column);
    }
}

template <class T> __device__ inline float2 floats(uint32_t x)
{
    const T *p = reinterpret_cast<const T *>(&x);
    return make_float2(to_f32(p[0]), to_f32(p[1]));
}

template <class T>
__device__ inline void compute(const few_args &a, uint32_t shared, int row, int column, int rank)
{
    uint32_t full = shared + BARRIERS, empty = full + STAGES * 8;
    int group = warpgroup() - 1, thread = threadIdx.x % GROUP, lane = thread % 32;
    int i = row + group * 64 + thread / 32 * 16 + lane / 4, j = column + lane % 4 * 2;
    float d[40];
    uint32_t kept[20];

#pragma unroll
    for (int e = 0; e < 20; e++) {
        int r = i + e % 2 * 8, c = j + e / 2 * 8;
        kept[e] = a.residual && r < a.m && c < a.n
                      ? *reinterpret_cast<const uint32_t *>((const T *)a.residual +
                                                            r * a.residual_row + c)
                      : 0;
    }
    wg_pin(d);
    for (int k = 0; k < a.depth; k++) {
        int s = k % STAGES;
        uint64_t x = tile_of(shared + s * STAGE_BYTES + group * X_HALF),
                 w = tile_of(shared + s * STAGE_BYTES + 2 * X_HALF);
        barrier_wait(full + s * 8, k / STAGES & 1);
        wg_begin();
#pragma unroll
        for (int c = 0; c < DEEP / 16; c++)
            times80<T>(d, x + c * 2, w + c * 2, k + c);
        wg_close();
        wg_wait<1>();
        // the block itself, the one beside and the one below
        if (k && thread < 3) barrier_arrive_at(empty + (k - 1) % STAGES * 8, rank ^ thread);
    }
    wg_wait<0>();
    wg_pin(d);
#pragma unroll
    for (int n = 0; n < 10; n++) {
        int c = j + n * 8;
        float2 b = make_float2(0, 0);
        if (a.bias && c < a.n)
            b = floats<T>(*reinterpret_cast<const uint32_t *>((const T *)a.bias + c));
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int r = i + half * 8;
            float2 y = floats<T>(kept[n * 2 + half]);
            y.x += fmaf(d[n * 4 + half * 2], a.scale, b.x);
            y.y += fmaf(d[n * 4 + half * 2 + 1], a.scale, b.y);
            if (r < a.m && c < a.n)
                *reinterpret_cast<uint32_t *>((T *)a.out + r * a.out_row + c) = packed<T>(y.x, y.y);
        }
    }
}

template <class T>
__global__ void __launch_bounds__(3 * GROUP, 1)
    few_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w,
               const __grid_constant__ few_args a)
{
    extern __shared__ uint8_t bytes[];
    uint32_t shared = (address_of(bytes) + 1023) & ~1023u, full = shared + BARRIERS;
    int rank = blockIdx.x % FOUR, u = blockIdx.x / FOUR;
    int row = (u % a.pairs * 2 + rank % 2) * ROWS, column = (u / a.pairs * 2 + rank / 2) * COLUMNS;

    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_make(full + i * 8, 1);
            barrier_make(full + (STAGES + i) * 8, 3 * 2); // two warpgroups of each of three
        }
        barriers_made();
    }
    cluster_arrive();
    cluster_wait();
    grid_begin();
    if (warpgroup() == 0) {
        if (threadIdx.x == 0) bring(a, &x, &w, shared, row, column, rank);
        __syncwarp();
    } else {
        compute<T>(a, shared, row, column, rank);
    }
    cluster_arrive();
    cluster_wait();
}

template <class T> cudaError_t launch(cudaStream_t s, const at_k_few_tiles_in *in)
{
    auto kernel = few_kernel<T>;
    CUtensorMap x, w;
    few_args a = {};
    a.out = in->out;
    a.bias = in->bias;
    a.residual = in->residual;
    a.out_row = in->out_row;
    a.residual_row = in->residual_row;
    a.m = (int)in->m;
    a.n = (int)in->n;
    a.depth = (int)((in->k + DEEP - 1) / DEEP);
    a.pairs = (a.m + 2 * ROWS - 1) / (2 * ROWS);
    a.scale = in->scale;
    int all = a.pairs * ((a.n + 2 * COLUMNS - 1) / (2 * COLUMNS));
    if (!at_tensor_map(&x, in->x, in->dtype, in->m, in->k, in->x_row, ROWS / 2) ||
        !at_tensor_map(&w, in->w, in->dtype, in->n, in->k, in->w_row, COLUMNS / 2))
        return cudaErrorNotSupported;
    cudaError_t e =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
    if (e != cudaSuccess) return e;
    return launch_wide(kernel, dim3((unsigned)(all * FOUR)), 3 * GROUP, SHARED, FOUR, s, x, w, a);
}

} // namespace

extern "C" int64_t at_k_few_tiles_blocks(int64_t m, int64_t n)
{
    return FOUR * ((m + 2 * ROWS - 1) / (2 * ROWS)) * ((n + 2 * COLUMNS - 1) / (2 * COLUMNS));
}

extern "C" bool at_k_few_tiles_suits(const at_k_few_tiles_in *a)
{
    const int64_t most = 1 << 20;
    return (a->dtype == AT_BF16 || a->dtype == AT_F16) && a->m > 0 && a->m <= most && a->n > 0 &&
           a->n <= most && a->k > 0 && a->k <= most && a->n % 8 == 0 && a->out_row % 2 == 0 &&
           a->residual_row % 2 == 0 && a->x_row % 8 == 0 && a->w_row % 8 == 0 &&
           (uintptr_t)a->x % 16 == 0 && (uintptr_t)a->w % 16 == 0 && (uintptr_t)a->out % 4 == 0 &&
           (uintptr_t)a->bias % 4 == 0 && (uintptr_t)a->residual % 4 == 0;
}

extern "C" cudaError_t at_k_few_tiles(cudaStream_t s, const at_k_few_tiles_in *a)
{
    return a->dtype == AT_BF16 ? launch<bf16>(s, a) : launch<f16>(s, a);
}
