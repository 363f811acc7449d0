// SPDX-License-Identifier: Apache-2.0
// flash_few.cu - attention to at most 80 keys: prompts seen from pictures, CLIP.
// Idea: all keys and values of a head fit one tile, so a block loads them once and walks over tiles of
// queries; the next tile's queries come (cp.async) while this one is computed. What flash.cu does for
// one tile, without a loop over keys.
// Easy to get wrong: a tile's result leaves through its queries' place, which only the warp that wrote
// it reads; the tile after the next may come there once all warps have passed the barrier.
// Owns nothing.
#include "cuda/flash.cuh"

using namespace flash;

namespace
{

enum { WARPS = 4, THREADS = WARPS * 32, BM = WARPS * 16, BN = FEW_KEYS };

// Blocks on a multiprocessor, measured on an H200: a fifth one is worth the few registers that it
// spills with heads of 64 (11.3 us instead of 13.1 at 4096 x 77 x 10 x 64), not with others.
constexpr int per_sm(int d)
{
    return d == 64 ? 5 : 4;
}

// Probabilities times values, divided by their sums, into the place of the queries.
template <class T, int D>
__device__ inline void weigh(const float (&s)[1][BN / 8][4], const float (&total)[1][2],
                             const T *sv, T *place, int warp, int lane)
{
    constexpr int DT = D / 8;
    float o[DT][4] = {};
#pragma unroll
    for (int c = 0; c < BN / 16; c++) {
        uint32_t p[4];
#pragma unroll
        for (int e = 0; e < 4; e++)
            p[e] = packed<T>(s[0][2 * c + (e >> 1)][2 * (e & 1)],
                             s[0][2 * c + (e >> 1)][2 * (e & 1) + 1]);
#pragma unroll
        for (int n = 0; n < DT; n += 2) {
            uint32_t y[4];
            load4_turned(y,
                         shared_address(sv + rows<D>::at(c * 16 + (lane & 15), n + (lane >> 4))));
            mma<T>(o[n], p, y[0], y[1]);
            mma<T>(o[n + 1], p, y[2], y[3]);
        }
    }
    __syncwarp(); // the queries that lay here have been read
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = total[0][half];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        float part = sum > 0 ? 1.0f / sum : 0.0f;
        int mine = warp * 16 + half * 8 + (lane >> 2);
#pragma unroll
        for (int n = 0; n < DT; n++)
            *reinterpret_cast<uint32_t *>(place + rows<D>::at(mine, n) + 2 * (lane & 3)) =
                packed<T>(o[n][2 * half] * part, o[n][2 * half + 1] * part);
    }
}

template <class T, int D>
__global__ void __launch_bounds__(THREADS, per_sm(D))
    few_kernel(const __grid_constant__ flash_args a, int tiles)
{
    constexpr int DT = D / 8, NT = BN / 8, P = rows<D>::pitch;
    extern __shared__ uint4 shared_words[];
    T *sq = reinterpret_cast<T *>(shared_words), *sk = sq + 2 * BM * P, *sv = sk + BN * P;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, h = blockIdx.y, b = blockIdx.z;
    const T *q = (const T *)a.q + b * a.qs[0] + h * a.qs[2];
    T *out = (T *)a.out + b * a.os[0] + h * a.os[2];
    int tile = blockIdx.x, step = gridDim.x;

    grid_begin();
    fetch<T, D, BM, THREADS>(sq, q, a.qs[1], tile * BM, a.tq, a.dim);
    fetch<T, D, BN, THREADS>(sk, (const T *)a.k + b * a.ks[0] + h * a.ks[2], a.ks[1], 0, a.tk,
                             a.dim);
    fetch<T, D, BN, THREADS>(sv, (const T *)a.v + b * a.vs[0] + h * a.vs[2], a.vs[1], 0, a.tk,
                             a.dim);
    asm volatile("cp.async.commit_group;");
    for (int i = 0; tile < tiles; tile += step, i ^= 1) {
        T *place = sq + i * BM * P;
        int first = tile * BM;
        asm volatile("cp.async.wait_group 0;");
        __syncthreads();
        if (tile + step < tiles)
            fetch<T, D, BM, THREADS>(sq + (i ^ 1) * BM * P, q, a.qs[1], (tile + step) * BM, a.tq,
                                     a.dim);
        asm volatile("cp.async.commit_group;");

        float s[1][NT][4] = {}, none[1][1][4] = {}, most[1][2] = {{-INFINITY, -INFINITY}},
              total[1][2] = {};
#pragma unroll
        for (int c = 0; c < D / 16; c++) {
            uint32_t x[4];
            load4(x, shared_address(place +
                                    rows<D>::at(warp * 16 + (lane & 15), 2 * c + (lane >> 4))));
#pragma unroll
            for (int n = 0; n < NT; n += 2) {
                uint32_t y[4];
                load4(y, shared_address(sk + rows<D>::at(n * 8 + (lane & 7) + ((lane >> 4) << 3),
                                                         2 * c + ((lane >> 3) & 1))));
                mma<T>(s[0][n], x, y[0], y[1]);
                mma<T>(s[0][n + 1], x, y[2], y[3]);
            }
        }
        mask(s, a, first + warp * 16 + (lane >> 2), 2 * (lane & 3));
        soften(s, none, most, total, a.scale);
        weigh<T, D>(s, total, sv, place, warp, lane);
        __syncwarp();
        for (int at = lane; at < 16 * DT; at += 32) {
            int mine = warp * 16 + at / DT, c = at % DT;
            if (first + mine < a.tq && c * 8 < a.dim)
                *reinterpret_cast<uint4 *>(out + (first + mine) * a.os[1] + c * 8) =
                    *reinterpret_cast<const uint4 *>(place + rows<D>::at(mine, c));
        }
    }
}

// As many blocks as run at once, each with as many tiles as the others.
template <class T, int D>
cudaError_t launch(cudaStream_t s, const flash_args &a, int64_t batch, int64_t heads)
{
    size_t bytes = (size_t)(2 * BM + 2 * BN) * rows<D>::pitch * sizeof(T);
    int device = 0, sms = 0;
    cudaError_t e = cudaGetDevice(&device);
    if (e == cudaSuccess) e = cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device);
    if (e == cudaSuccess && bytes > 48 * 1024)
        e = cudaFuncSetAttribute(few_kernel<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)bytes);
    if (e != cudaSuccess) return e;
    int64_t tiles = (a.tq + BM - 1) / BM, room = sms * per_sm(D) / (batch * heads);
    int64_t each = room > 0 ? (tiles + room - 1) / room : tiles;
    dim3 grid((unsigned)((tiles + each - 1) / each), (unsigned)heads, (unsigned)batch);
    return launch_early(few_kernel<T, D>, grid, THREADS, bytes, s, a, (int)tiles);
}

template <class T>
cudaError_t by_dim(cudaStream_t s, const flash_args &a, int64_t batch, int64_t heads)
{
    if (a.dim <= 48) return launch<T, 48>(s, a, batch, heads);
    if (a.dim <= 64) return launch<T, 64>(s, a, batch, heads);
    return launch<T, 80>(s, a, batch, heads);
}

} // namespace

cudaError_t flash::few_keys(cudaStream_t s, const flash_args &a, at_dtype dtype, int64_t batch,
                            int64_t heads)
{
    return dtype == AT_BF16 ? by_dim<bf16>(s, a, batch, heads) : by_dim<f16>(s, a, batch, heads);
}
