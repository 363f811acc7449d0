// SPDX-License-Identifier: Apache-2.0
// flash.cu - attention on the tensor cores of any GPU from sm_80 on: 16-bit q, k and v, any mask.
// Idea: a block owns BM queries of one head; keys and values stream through two stages of shared memory
// (cp.async) while scores, running maximum and running sum stay in registers (Dao et al. 2022,
// arXiv:2205.14135; Dao 2023, arXiv:2307.08691). A warp owns 16 * MT whole rows, so that the softmax
// needs no shared memory; the accumulators of q.k are, packed to 16 bits, the left operand of p.v.
// Easy to get wrong: mma.sync's layouts (PTX ISA, "matrix fragments for mma.m16n8k16"): lane 4 g + t
// holds columns 2 t, 2 t + 1 of rows g and g + 8. Keys past the end are loaded as zeros AND masked: a
// score of zero is no mask, and zero times an unwritten NaN is no zero. The bias enters as the first
// value of the accumulators, divided by the scale, which is why a scale of zero is not taken. A bias by
// distance (T5: every row is a window on one line) is read into shared memory once: dense, it is 64 MiB
// a layer and takes five times as long as the attention.
// Head sizes in between are padded with zeros to the next instance, in shared memory only.
// Owns nothing.
#include "cuda/flash.cuh"
#include "cuda/kernels.h"

using namespace flash;

namespace
{

// One tile's scores start as bias / scale. All loads before the first use: a use waits for its load.
template <int MT, int NT>
__device__ inline void start(float (&s)[MT][NT][4], const flash_args &a, const float *bias, int row,
                             int key)
{
    bool inside = a.pairs && key - 2 * (int)(threadIdx.x & 3) + NT * 8 <= a.tk;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int i = row + m * 16 + half * 8;
            const float *b = bias + (int64_t)(i < a.tq ? i : a.tq - 1) * a.bs[2];
            if (inside) {
#pragma unroll
                for (int n = 0; n < NT; n++) {
                    float2 x = *reinterpret_cast<const float2 *>(b + key + n * 8);
                    s[m][n][2 * half] = x.x;
                    s[m][n][2 * half + 1] = x.y;
                }
            } else {
#pragma unroll
                for (int n = 0; n < NT; n++)
#pragma unroll
                    for (int e = 0; e < 2; e++)
                        s[m][n][2 * half + e] = b[min(key + n * 8 + e, a.tk - 1) * a.bs[3]];
            }
        }
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                s[m][n][e] *= a.bias_scale;
}

// The same from a line in shared memory whose element 0 is the distance of key 0 from the block's last
// query. Eight rows on and eight keys on is the same distance: 2 * (NT + 2 MT - 1) values make them all.
template <int MT, int NT>
__device__ inline void start_line(float (&s)[MT][NT][4], const float *line)
{
    constexpr int MORE = 2 * MT - 1;
    float x[NT + MORE][2];
#pragma unroll
    for (int n = 0; n < NT + MORE; n++)
#pragma unroll
        for (int e = 0; e < 2; e++)
            x[n][e] = line[(n - MORE) * 8 + e];
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                s[m][n][e] = x[n + MORE - 2 * m - (e >> 1)][e & 1];
}

enum bias_kind { NO_BIAS, DENSE, LINE };
enum { STAGES = 2 };
enum { LINE_KEYS = 4096 }; // that a line in shared memory may serve

template <class T, int D, int MT, int BN, int WARPS, bias_kind BIAS>
__global__ void __launch_bounds__(WARPS * 32) flash_kernel(const __grid_constant__ flash_args a)
{
    constexpr int BM = WARPS * 16 * MT, THREADS = WARPS * 32, NT = BN / 8, DT = D / 8,
                  P = rows<D>::pitch;
    extern __shared__ uint4 shared_words[];
    T *sq = reinterpret_cast<T *>(shared_words), *sk = sq + BM * P, *sv = sk + STAGES * BN * P;
    float *line = reinterpret_cast<float *>(sv + STAGES * BN * P);
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, h = blockIdx.y, b = blockIdx.z;
    int first = blockIdx.x * BM, row = first + warp * 16 * MT + (lane >> 2), col = 2 * (lane & 3);
    const T *q = (const T *)a.q + b * a.qs[0] + h * a.qs[2],
            *k = (const T *)a.k + b * a.ks[0] + h * a.ks[2],
            *v = (const T *)a.v + b * a.vs[0] + h * a.vs[2];
    const float *bias = BIAS ? a.bias + b * a.bs[0] + h * a.bs[1] : nullptr;
    int keys = a.tk;
    if (a.causal) keys = max(0, min(keys, first + BM + a.tk - a.tq));
    int tiles = (keys + BN - 1) / BN;

    float o[MT][DT][4] = {}, most[MT][2], total[MT][2] = {};
#pragma unroll
    for (int m = 0; m < MT; m++)
        most[m][0] = most[m][1] = -INFINITY;

    grid_begin();
    fetch<T, D, BM, THREADS>(sq, q, a.qs[1], first, a.tq, a.dim);
    if (tiles) {
        fetch<T, D, BN, THREADS>(sk, k, a.ks[1], 0, a.tk, a.dim);
        fetch<T, D, BN, THREADS>(sv, v, a.vs[1], 0, a.tk, a.dim);
    }
    asm volatile("cp.async.commit_group;");
    if (BIAS == LINE) { // from the last query's key 0 to the first query's last key
        int64_t from = (int64_t)(first + BM - 1) * a.bs[2];
        int least = max(0, first + BM - a.tq), most = BM + a.tk - 1;
        for (int i = threadIdx.x; i < most; i += THREADS)
            line[i] = i < least ? 0.0f : bias[from + i * a.bs[3]] * a.bias_scale;
    }

    for (int j = 0; j < tiles; j++) {
        const T *tk = sk + j % STAGES * BN * P, *tv = sv + j % STAGES * BN * P;
        asm volatile("cp.async.wait_group 0;");
        __syncthreads(); // this tile is here, and nobody reads the stage that the next one overwrites
        if (j + 1 < tiles) {
            fetch<T, D, BN, THREADS>(sk + (j + 1) % STAGES * BN * P, k, a.ks[1], (j + 1) * BN, a.tk,
                                     a.dim);
            fetch<T, D, BN, THREADS>(sv + (j + 1) % STAGES * BN * P, v, a.vs[1], (j + 1) * BN, a.tk,
                                     a.dim);
            asm volatile("cp.async.commit_group;");
        }

        float s[MT][NT][4] = {};
        if (BIAS == DENSE) start(s, a, bias, row, j * BN + col);
        if (BIAS == LINE) start_line(s, line + j * BN + col - (row - first) + BM - 1);
#pragma unroll
        for (int c = 0; c < D / 16; c++) {
            uint32_t x[MT][4];
#pragma unroll
            for (int m = 0; m < MT; m++)
                load4(x[m], shared_address(sq + rows<D>::at((warp * MT + m) * 16 + (lane & 15),
                                                            2 * c + (lane >> 4))));
#pragma unroll
            for (int n = 0; n < NT; n += 2) {
                uint32_t y[4];
                load4(y, shared_address(tk + rows<D>::at(n * 8 + (lane & 7) + ((lane >> 4) << 3),
                                                         2 * c + ((lane >> 3) & 1))));
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    mma<T>(s[m][n], x[m], y[0], y[1]);
                    mma<T>(s[m][n + 1], x[m], y[2], y[3]);
                }
            }
        }
        if ((j + 1) * BN > a.tk || (a.causal && (j + 1) * BN > first + a.tk - a.tq + 1))
            mask(s, a, row, j * BN + col);
        soften(s, o, most, total, a.scale);
#pragma unroll
        for (int c = 0; c < BN / 16; c++) {
            uint32_t p[MT][4];
#pragma unroll
            for (int m = 0; m < MT; m++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    p[m][e] = packed<T>(s[m][2 * c + (e >> 1)][2 * (e & 1)],
                                        s[m][2 * c + (e >> 1)][2 * (e & 1) + 1]);
#pragma unroll
            for (int n = 0; n < DT; n += 2) {
                uint32_t y[4];
                load4_turned(
                    y, shared_address(tv + rows<D>::at(c * 16 + (lane & 15), n + (lane >> 4))));
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    mma<T>(o[m][n], p[m], y[0], y[1]);
                    mma<T>(o[m][n + 1], p[m], y[2], y[3]);
                }
            }
        }
    }
    asm volatile("cp.async.wait_group 0;");
    __syncthreads();

    int64_t base = b * a.os[0] + h * a.os[2];
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = total[m][half];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            float part = sum > 0 ? 1.0f / sum : 0.0f;
            int mine = (warp * MT + m) * 16 + half * 8 + (lane >> 2), i = first + mine;
            if (a.lse && col == 0 && i < a.tq) // maxima are times log2(e)
                a.lse[((int64_t)b * gridDim.y + h) * a.tq + i] =
                    sum == 0 ? -INFINITY : most[m][half] * (1 / LOG2E) + logf(sum);
#pragma unroll
            for (int n = 0; n < DT; n++) {
                float x = o[m][n][2 * half] * part, y = o[m][n][2 * half + 1] * part;
                if (a.out_f32) {
                    if (i < a.tq && n * 8 + col < a.dim)
                        *reinterpret_cast<float2 *>((float *)a.out + base + i * a.os[1] + n * 8 +
                                                    col) = make_float2(x, y);
                } else { // through the queries' place, which this warp alone has read
                    *reinterpret_cast<uint32_t *>(sq + rows<D>::at(mine, n) + col) =
                        packed<T>(x, y);
                }
            }
        }
    if (a.out_f32) return;
    __syncwarp();
    for (int at = lane; at < 16 * MT * DT; at += 32) {
        int mine = warp * 16 * MT + at / DT, c = at % DT;
        if (first + mine < a.tq && c * 8 < a.dim)
            *reinterpret_cast<uint4 *>((T *)a.out + base + (first + mine) * a.os[1] + c * 8) =
                *reinterpret_cast<const uint4 *>(sq + rows<D>::at(mine, c));
    }
}

template <class T, int D, int MT, int BN, int WARPS, bias_kind BIAS>
cudaError_t launch_kind(cudaStream_t s, const flash_args &a, int64_t batch, int64_t heads)
{
    constexpr int BM = WARPS * 16 * MT;
    auto kernel = flash_kernel<T, D, MT, BN, WARPS, BIAS>;
    size_t bytes = (size_t)(BM + 2 * STAGES * BN) * rows<D>::pitch * sizeof(T);
    if (BIAS == LINE) bytes += (size_t)(BM + (a.tk + BN - 1) / BN * BN) * sizeof(float);
    if (bytes > 48 * 1024) {
        cudaError_t e =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
        if (e != cudaSuccess) return e;
    }
    dim3 grid((unsigned)((a.tq + BM - 1) / BM), (unsigned)heads, (unsigned)batch);
    return launch_early(kernel, grid, WARPS * 32, bytes, s, a);
}

template <class T, int D, int MT, int BN, int WARPS>
cudaError_t launch(cudaStream_t s, const flash_args &a, int64_t batch, int64_t heads)
{
    constexpr bias_kind by_distance = D == 64 ? LINE : DENSE; // T5 alone has it, with heads of 64
    if (!a.bias) return launch_kind<T, D, MT, BN, WARPS, NO_BIAS>(s, a, batch, heads);
    if (a.bs[2] == -a.bs[3] && a.tk <= LINE_KEYS)
        return launch_kind<T, D, MT, BN, WARPS, by_distance>(s, a, batch, heads);
    return launch_kind<T, D, MT, BN, WARPS, DENSE>(s, a, batch, heads);
}

// The tiles that were fastest on an H200 for each head size.
template <class T>
cudaError_t by_dim(cudaStream_t s, const flash_args &a, int64_t batch, int64_t heads)
{
    if (a.dim <= 48) return launch<T, 48, 2, 64, 4>(s, a, batch, heads);
    if (a.dim <= 64 && a.tk <= 160 && !a.bias)
        return launch_kind<T, 64, 2, 32, 4, NO_BIAS>(s, a, batch, heads);
    if (a.dim <= 64) return launch<T, 64, 2, 64, 4>(s, a, batch, heads);
    if (a.dim <= 80) return launch<T, 80, 2, 64, 4>(s, a, batch, heads);
    if (a.dim <= 128) return launch<T, 128, 2, 32, 4>(s, a, batch, heads);
    if (a.dim <= 160) return launch<T, 160, 1, 32, 4>(s, a, batch, heads);
    return launch<T, 256, 1, 32, 4>(s, a, batch, heads);
}

bool aligned(const at_view &v, int elements)
{
    for (int i = 0; i < 3; i++)
        if (v.shape[i] > 1 && v.stride[i] % elements) return false;
    return (uintptr_t)v.data % (v.dtype == AT_F32 ? elements * 4 : elements * 2) == 0;
}

} // namespace

extern "C" cudaError_t at_k_flash(cudaStream_t s, const at_k_attention_in *in)
{
    flash_args a = {};
    int64_t batch = in->q.shape[0], heads = in->q.shape[2];
    a.q = in->q.data;
    a.k = in->k.data;
    a.v = in->v.data;
    a.out = in->out.data;
    a.bias = (const float *)in->bias.data;
    for (int i = 0; i < 3; i++) {
        a.qs[i] = in->q.stride[i];
        a.ks[i] = in->k.stride[i];
        a.vs[i] = in->v.stride[i];
        a.os[i] = in->out.stride[i];
    }
    a.pairs = a.bias && in->bias.stride[3] == 1 && (uintptr_t)a.bias % 8 == 0;
    for (int i = 0; a.bias && i < 4; i++) {
        a.bs[i] = in->bias.shape[i] == 1 ? 0 : in->bias.stride[i];
        if (i < 3 && a.bs[i] % 2) a.pairs = false;
    }
    a.tq = (int)in->q.shape[1];
    a.tk = (int)in->k.shape[1];
    a.dim = (int)in->q.shape[3];
    a.scale = in->scale * LOG2E;
    a.bias_scale = 1.0f / in->scale;
    a.causal = in->causal;
    a.out_f32 = in->out.dtype == AT_F32;
    a.lse = in->lse;
    if (!batch || !heads || !a.tq) return cudaSuccess;
    if (a.tk <= FEW_KEYS && a.dim <= FEW_DIM && !a.bias && !a.out_f32 && !a.lse)
        return few_keys(s, a, in->q.dtype, batch, heads);
    if (in->q.dtype == AT_BF16) return by_dim<bf16>(s, a, batch, heads);
    return by_dim<f16>(s, a, batch, heads);
}

// Formats, alignment and sizes that the kernel takes.
extern "C" bool at_k_flash_suits(const at_k_attention_in *in)
{
    const at_view *all[] = {&in->q, &in->k, &in->v};
    int64_t d = in->q.shape[3];
    if (in->q.dtype != AT_BF16 && in->q.dtype != AT_F16) return false;
    if (d % 8 || d > 256 || !(in->scale > 0)) return false;
    if (in->q.shape[0] > 65535 || in->q.shape[2] > 65535 || in->q.shape[1] > INT32_MAX / 2)
        return false;
    if (in->k.shape[1] > INT32_MAX / 2) return false;
    for (const at_view *v : all)
        if (v->dtype != in->q.dtype || !aligned(*v, 8)) return false;
    if (in->out.dtype != AT_F32 && in->out.dtype != in->q.dtype) return false;
    return aligned(in->out, in->out.dtype == AT_F32 ? 2 : 8);
}
