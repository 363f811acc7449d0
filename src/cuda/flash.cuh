// SPDX-License-Identifier: Apache-2.0
// flash.cuh - what the tensor-core attentions share: copies into shared memory, fragments, masks, softmax.
// Idea: pieces of one method (flash.cu tells it), templates over the storage type and the tile.
// Easy to get wrong: mma.sync's layouts (PTX ISA, "matrix fragments for mma.m16n8k16"): lane 4 g + t
// holds columns 2 t, 2 t + 1 of rows g and g + 8. Owns nothing.
#ifndef AT_CUDA_FLASH_CUH
#define AT_CUDA_FLASH_CUH

#include "cuda/dtype.cuh"
#include "cuda/grid.cuh"

#define LOG2E 1.4426950408889634f

namespace flash
{

struct flash_args {
    const void *q, *k, *v;
    void *out;
    const float *bias;
    int64_t qs[3], ks[3], vs[3], os[3], bs[4];
    int tq, tk, dim;
    float scale; // of the scores, times log2(e)
    float bias_scale;
    float *lse;      // [batch, heads, tq]; NULL: not wanted
    bool causal, out_f32, pairs; // pairs: two neighbours of the bias are one aligned load
};

__device__ inline uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

// 16 bytes to shared memory behind this thread's back; zeros if not `real`.
__device__ inline void copy_async(uint32_t to, const void *from, bool real)
{
    int bytes = real ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}

__device__ inline void load4(uint32_t (&r)[4], uint32_t from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from));
}
__device__ inline void load4_turned(uint32_t (&r)[4], uint32_t from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from));
}

template <class T>
__device__ inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ inline void mma<bf16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ inline void mma<f16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two floats as two 16-bit numbers, the first in the low half.
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

__device__ inline float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Rows of D elements in shared memory such that eight rows' equal columns meet different banks: an
// exclusive-or with the row where a row is a multiple of 128 bytes, else one word of 16 bytes more.
template <int D> struct rows {
    static constexpr bool swizzled = D % 64 == 0;
    static constexpr int pitch = swizzled ? D : D + 8;
    static __device__ inline int at(int row, int chunk)
    {
        return row * pitch + 8 * (swizzled ? chunk ^ (row & 7) : chunk);
    }
};

// `N` rows from `first` on, rows past `end` and columns past `dim` as zeros.
template <class T, int D, int N, int THREADS>
__device__ inline void fetch(T *to, const T *from, int64_t stride, int first, int end, int dim)
{
    constexpr int CH = D / 8, ALL = N * CH;
#pragma unroll
    for (int i = 0; i < (ALL + THREADS - 1) / THREADS; i++) {
        int at = threadIdx.x + i * THREADS;
        if (ALL % THREADS && at >= ALL) break;
        int row = at / CH, c = at % CH;
        bool real = first + row < end && c * 8 < dim;
        const T *src = real ? from + (int64_t)(first + row) * stride + c * 8 : from;
        copy_async(shared_address(to + rows<D>::at(row, c)), src, real);
    }
}

// Keys past the end and keys that a query may not see.
template <int MT, int NT>
__device__ inline void mask(float (&s)[MT][NT][4], const flash_args &a, int row, int key)
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int i = row + m * 16 + (e >> 1) * 8, last = a.tk - 1;
            if (a.causal) last = min(last, i + a.tk - a.tq);
#pragma unroll
            for (int n = 0; n < NT; n++)
                if (key + n * 8 + (e & 1) > last) s[m][n][e] = -INFINITY;
        }
}

// Scores to probabilities against the new running maximum; what was summed before shrinks.
template <int MT, int NT, int DT>
__device__ inline void soften(float (&s)[MT][NT][4], float (&o)[MT][DT][4], float (&most)[MT][2],
                              float (&total)[MT][2], float scale)
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float top = -INFINITY;
#pragma unroll
            for (int n = 0; n < NT; n++)
                top = fmaxf(top, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
            top = fmaxf(most[m][half], top * scale);
            float base = top == -INFINITY ? 0.0f : top, keep = exp2_fast(most[m][half] - base),
                  sum = 0;
#pragma unroll
            for (int n = 0; n < NT; n++)
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; e++) {
                    s[m][n][e] = exp2_fast(s[m][n][e] * scale - base);
                    sum += s[m][n][e];
                }
            most[m][half] = top;
            total[m][half] = total[m][half] * keep + sum;
#pragma unroll
            for (int n = 0; n < DT; n++) {
                o[m][n][2 * half] *= keep;
                o[m][n][2 * half + 1] *= keep;
            }
        }
}

// flash_few.cu: no mask, at most FEW_KEYS keys, heads up to 80. Formats as at_k_flash_suits says, out like q.
enum { FEW_KEYS = 80, FEW_DIM = 80 };
cudaError_t few_keys(cudaStream_t s, const flash_args &a, at_dtype dtype, int64_t batch,
                     int64_t heads);

} // namespace

#endif
