// SPDX-License-Identifier: Apache-2.0
// flash_90a.cu - attention of heads of 40 and 64 on Hopper's matrix units.
// Idea: flash.cu's method with warpgroups of 64 queries each and one that asks the chip for keys and values (Shah et al.
// 2024, arXiv:2407.08608). While the exponentials of a tile are computed, the values of the one before are multiplied,
// and warpgroups ask for products in turns, so that one's exponentials meet another's products. Heads of 40
// arrive with zeros behind them: 48 columns are multiplied for scores, 40 for results; the library pads to 64.
// Easy to get wrong: a tile's scores are asked for before the last tile's values are multiplied, so results shrink
// only after both. Registers of weights are the unit's until the wait. A bias by distance (T5) enters as
// the scores' first value, divided by the scale.
// Owns nothing.
#include "cuda/flash_90a.h"

#include "cuda/flash.cuh"
#include "cuda/hopper.cuh"
#include "cuda/tensor_map.h"

using namespace hopper;

namespace
{

constexpr int GROUP = 128, ROW = 128; // threads of a warpgroup; bytes of a tile's row
constexpr int LINE_KEYS = 2048;       // that a line in shared memory may serve

struct wide_args {
    void *out;
    const float *bias;
    int64_t os[3], bs[4];
    int tq, tk;
    float scale, bias_scale; // of the scores, times log2(e); of the bias
};

// A kernel of BN keys a tile, WGS warpgroups that compute, MINB blocks a multiprocessor.
template <int BN, int WGS, int STAGES, int MINB> struct shape {
    static constexpr int queries = WGS * 64, threads = (WGS + 1) * GROUP;
    static constexpr uint32_t tile = BN * ROW, keys = queries * ROW, values = keys + STAGES * tile,
                              barriers = values + STAGES * tile,
                              line = barriers + (1 + 4 * STAGES) * 8, bytes = line + 1024;
    static constexpr uint32_t q_full = barriers, k_full = q_full + 8, v_full = k_full + STAGES * 8,
                              k_empty = v_full + STAGES * 8, v_empty = k_empty + STAGES * 8;
    // of 65536 registers: what computing threads have and what the others keep
    static constexpr int computing = WGS == 4   ? 112
                                     : WGS == 3 ? 160
                                                : 240,
                         bringing = WGS == 3 ? 32 : 24;
};

template <class S, int BN, int STAGES>
__device__ inline void bring(const CUtensorMap *q, const CUtensorMap *k, const CUtensorMap *v,
                             uint32_t shared, int tiles)
{
    int h = blockIdx.y, b = blockIdx.z;
    barrier_expect(shared + S::q_full, S::queries * ROW);
    fetch4(shared, q, shared + S::q_full, 0, h, blockIdx.x * S::queries, b);
    for (int j = 0; j < tiles; j++) {
        int s = j % STAGES, parity = (j / STAGES & 1) ^ 1;
        barrier_wait(shared + S::k_empty + s * 8, parity);
        barrier_expect(shared + S::k_full + s * 8, S::tile);
        fetch4(shared + S::keys + s * S::tile, k, shared + S::k_full + s * 8, 0, h, j * BN, b);
        barrier_wait(shared + S::v_empty + s * 8, parity);
        barrier_expect(shared + S::v_full + s * 8, S::tile);
        fetch4(shared + S::values + s * S::tile, v, shared + S::v_full + s * 8, 0, h, j * BN, b);
    }
}

// Warpgroups ask for products in turns: waits for this one's, tells the next.
template <int WGS> __device__ inline void my_turn(int group)
{
    asm volatile("bar.sync %0, 256;" ::"r"(group + 1) : "memory");
}
template <int WGS> __device__ inline void next_turn(int group)
{
    asm volatile("bar.arrive %0, 256;" ::"r"(group + 1 == WGS ? 1 : group + 2) : "memory");
}

// The bias of a tile: eight rows on and eight keys on is the same distance. `l` is that of the first row and key.
template <int BN> __device__ inline void put_bias(float (&s)[BN / 2], const float *l)
{
    float x0 = l[-8], x1 = l[-7];
#pragma unroll
    for (int n = 0; n < BN / 8; n++) {
        s[4 * n + 2] = x0;
        s[4 * n + 3] = x1;
        s[4 * n] = x0 = l[n * 8];
        s[4 * n + 1] = x1 = l[n * 8 + 1];
    }
}

// Keys past the end.
template <int N> __device__ inline void mask(float (&s)[N], int left)
{
#pragma unroll
    for (int i = 0; i < N; i++)
        if (i / 4 * 8 + (i & 1) >= left) s[i] = -INFINITY;
}

// Scores to weights against the new running maximum; *keep is by how much what was summed before shrinks.
template <int N>
__device__ inline void soften(float (&s)[N], float (&most)[2], float (&total)[2], float (&keep)[2],
                              float scale)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float top = most[half];
#pragma unroll
        for (int i = 2 * half; i < N; i += 4)
            top = fmaxf(top, fmaxf(s[i], s[i + 1]));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        keep[half] = flash::exp2_fast((most[half] - top) * scale);
        most[half] = top;
        float from = top * scale, sum = 0;
#pragma unroll
        for (int i = 2 * half; i < N; i += 4) {
            s[i] = flash::exp2_fast(fmaf(s[i], scale, -from));
            s[i + 1] = flash::exp2_fast(fmaf(s[i + 1], scale, -from));
            sum += s[i] + s[i + 1];
        }
        total[half] = total[half] * keep[half] + sum;
    }
}

template <class T, int N> __device__ inline void pack(const float (&s)[N], uint32_t (&p)[N / 8][4])
{
#pragma unroll
    for (int c = 0; c < N / 8; c++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            p[c][e] = flash::packed<T>(s[8 * c + 2 * e], s[8 * c + 2 * e + 1]);
}

template <class T, int D, int BN>
__device__ inline void ask_scores(float (&s)[BN / 2], uint32_t q, uint32_t k, bool add)
{
#pragma unroll
    for (int c = 0; c < (D + 15) / 16; c++)
        times_rows<T, BN>(s, tile_of(q) + c * 2, tile_of(k) + c * 2, add || c);
    wg_close();
}

template <class T, int D, int BN>
__device__ inline void ask_values(float (&o)[D / 2], uint32_t (&p)[BN / 16][4], uint32_t v,
                                  bool add)
{
#pragma unroll
    for (int c = 0; c < BN / 16; c++)
        times_columns<T, D>(o, p[c], tile_of(v + c * 16 * ROW), add || c);
    wg_close();
}

template <int C> __device__ inline void pin_weights(uint32_t (&p)[C][4])
{
#pragma unroll
    for (int c = 0; c < C; c++)
        wg_pin(p[c]);
}

template <class T, int D, int BN, int WGS, int STAGES, int MINB, bool TURNS, bool LINE>
__device__ inline void compute(const wide_args &a, uint32_t shared, const float *line, int tiles)
{
    using S = shape<BN, WGS, STAGES, MINB>;
    int group = warpgroup() - 1, thread = threadIdx.x % GROUP, lane = thread & 31;
    int col = 2 * (lane & 3), mine = group * 64 + thread / 32 * 16 + lane / 4;
    int first = blockIdx.x * S::queries;
    uint32_t q = shared + group * 64 * ROW;
    float s[BN / 2], o[D / 2], most[2] = {-INFINITY, -INFINITY}, total[2] = {}, keep[2];
    uint32_t p[BN / 16][4];
    const float *l = line + col - mine + S::queries - 1;

    if (TURNS && group == 0) asm volatile("bar.arrive 1, 256;" ::: "memory");
    barrier_wait(shared + S::q_full, 0);
    if (LINE) put_bias<BN>(s, l);
    wg_pin(s);
    wg_pin(o);
    barrier_wait(shared + S::k_full, 0);
    wg_begin();
    ask_scores<T, D, BN>(s, q, shared + S::keys, LINE);
    wg_wait<0>();
    wg_pin(s);
    if (thread == 0) barrier_arrive(shared + S::k_empty);
    if (a.tk < BN) mask(s, a.tk - col);
    soften(s, most, total, keep, a.scale);
    pack<T>(s, p);
    for (int j = 1; j < tiles; j++) {
        int now = j % STAGES, was = (j - 1) % STAGES;
        if (LINE) put_bias<BN>(s, l + j * BN);
        wg_pin(s);
        barrier_wait(shared + S::k_full + now * 8, j / STAGES & 1);
        if (TURNS) my_turn<WGS>(group);
        wg_begin();
        ask_scores<T, D, BN>(s, q, shared + S::keys + now * S::tile, LINE);
        barrier_wait(shared + S::v_full + was * 8, (j - 1) / STAGES & 1);
        wg_begin();
        ask_values<T, D, BN>(o, p, shared + S::values + was * S::tile, j > 1);
        if (TURNS) next_turn<WGS>(group);
        wg_wait<1>();
        wg_pin(s);
        if (thread == 0) barrier_arrive(shared + S::k_empty + now * 8);
        if ((j + 1) * BN > a.tk) mask(s, a.tk - j * BN - col);
        soften(s, most, total, keep, a.scale);
        wg_wait<0>();
        wg_pin(o);
        pin_weights(p);
        if (thread == 0) barrier_arrive(shared + S::v_empty + was * 8);
#pragma unroll
        for (int i = 0; i < D / 2; i++)
            o[i] *= keep[i / 2 & 1];
        pack<T>(s, p);
    }
    int was = (tiles - 1) % STAGES;
    barrier_wait(shared + S::v_full + was * 8, (tiles - 1) / STAGES & 1);
    wg_begin();
    ask_values<T, D, BN>(o, p, shared + S::values + was * S::tile, tiles > 1);
    wg_wait<0>();
    wg_pin(o);

    T *out = (T *)a.out + blockIdx.z * a.os[0] + blockIdx.y * a.os[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = total[half];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        float part = sum > 0 ? 1.0f / sum : 0.0f;
        int i = first + mine + half * 8;
        if (i < a.tq)
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                *reinterpret_cast<uint32_t *>(out + i * a.os[1] + n * 8 + col) =
                    flash::packed<T>(o[4 * n + 2 * half] * part, o[4 * n + 2 * half + 1] * part);
    }
}

template <class T, int D, int BN, int WGS, int STAGES, int MINB, bool TURNS, bool LINE>
__global__ void __launch_bounds__((WGS + 1) * GROUP, MINB)
    wide_kernel(const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
                const __grid_constant__ CUtensorMap v, const __grid_constant__ wide_args a)
{
    using S = shape<BN, WGS, STAGES, MINB>;
    extern __shared__ uint8_t bytes[];
    uint32_t start = address_of(bytes), shared = (start + 1023) & ~1023u;
    float *line = reinterpret_cast<float *>(bytes + (shared - start) + S::line);
    int tiles = (a.tk + BN - 1) / BN;

    if (threadIdx.x == 0) {
        barrier_make(shared + S::q_full, 1);
        for (int i = 0; i < STAGES; i++) {
            barrier_make(shared + S::k_full + i * 8, 1);
            barrier_make(shared + S::v_full + i * 8, 1);
            barrier_make(shared + S::k_empty + i * 8, WGS);
            barrier_make(shared + S::v_empty + i * 8, WGS);
        }
        barriers_made();
    }
    grid_begin();
    if (LINE) { // from the last query's key 0 to the first query's last key
        const float *bias = a.bias + blockIdx.z * a.bs[0] + blockIdx.y * a.bs[1];
        int first = blockIdx.x * S::queries, most = S::queries + a.tk - 1;
        int64_t from = (int64_t)(first + S::queries - 1) * a.bs[2];
        int least = max(0, first + S::queries - a.tq);
        for (int i = threadIdx.x; i < most; i += S::threads)
            line[i] = i < least ? 0.0f : bias[from + i * a.bs[3]] * a.bias_scale;
    }
    __syncthreads();
    if (warpgroup() == 0) {
        registers_less<S::bringing>();
        if (threadIdx.x == 0) bring<S, BN, STAGES>(&q, &k, &v, shared, tiles);
    } else {
        registers_more<S::computing>();
        compute<T, D, BN, WGS, STAGES, MINB, TURNS, LINE>(a, shared, line, tiles);
    }
}

wide_args args_of(const at_k_attention_in *in)
{
    wide_args a = {};
    a.out = in->out.data;
    a.bias = (const float *)in->bias.data;
    for (int i = 0; i < 3; i++)
        a.os[i] = in->out.stride[i];
    for (int i = 0; a.bias && i < 4; i++)
        a.bs[i] = in->bias.shape[i] == 1 ? 0 : in->bias.stride[i];
    a.tq = (int)in->q.shape[1];
    a.tk = (int)in->k.shape[1];
    a.scale = in->scale * LOG2E;
    a.bias_scale = 1.0f / in->scale;
    return a;
}

template <class T, int D, int BN, int WGS, int STAGES, int MINB, bool TURNS, bool LINE>
cudaError_t launch(cudaStream_t s, const at_k_attention_in *in)
{
    using S = shape<BN, WGS, STAGES, MINB>;
    auto kernel = wide_kernel<T, D, BN, WGS, STAGES, MINB, TURNS, LINE>;
    wide_args a = args_of(in);
    CUtensorMap q, k, v;
    size_t bytes = S::bytes;
    if (LINE) bytes += (size_t)(S::queries + (a.tk + BN - 1) / BN * BN + 8) * sizeof(float);
    if (!at_tensor_map_heads(&q, &in->q, S::queries) || !at_tensor_map_heads(&k, &in->k, BN) ||
        !at_tensor_map_heads(&v, &in->v, BN))
        return cudaErrorNotSupported;
    cudaError_t e =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (e != cudaSuccess) return e;
    dim3 grid((unsigned)((a.tq + S::queries - 1) / S::queries), (unsigned)in->q.shape[2],
              (unsigned)in->q.shape[0]);
    return launch_early(kernel, grid, S::threads, bytes, s, q, k, v, a);
}

#ifndef WIDE_VARIANT
#define WIDE_VARIANT 0
#endif

template <class T> cudaError_t by_dim(cudaStream_t s, const at_k_attention_in *in)
{
    constexpr int V = WIDE_VARIANT; // while it is being measured
    constexpr int WGS = V == 1 || V == 3 ? 2 : 3;
    constexpr bool TURNS = V < 2;
    if (in->q.shape[3] == 40) return launch<T, 40, 128, WGS, 3, 1, TURNS, false>(s, in);
    if (in->bias.data) {
        if constexpr (V == 0) return launch<T, 64, 128, 2, 3, 1, true, true>(s, in);
        if constexpr (V == 1) return launch<T, 64, 128, 2, 3, 1, false, true>(s, in);
        if constexpr (V == 2) return launch<T, 64, 64, 4, 4, 1, false, true>(s, in);
        if constexpr (V == 3) return launch<T, 64, 128, 3, 3, 1, false, true>(s, in);
    }
    return launch<T, 64, 128, WGS, 3, 1, TURNS, false>(s, in);
}

} // namespace

extern "C" cudaError_t at_k_flash_90a(cudaStream_t s, const at_k_attention_in *in)
{
    if (!in->q.shape[0] || !in->q.shape[1] || !in->q.shape[2]) return cudaSuccess;
    return in->q.dtype == AT_BF16 ? by_dim<bf16>(s, in) : by_dim<f16>(s, in);
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
