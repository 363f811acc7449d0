// SPDX-License-Identifier: Apache-2.0
// rope_rows.cu - the norm and rotation of rope.cu where a warp holds all heads of a token: Flux's q, k and v.
// Idea: as in norm_gated.cu. All pieces of a token are asked for at once, so that a multiprocessor has a token on
// its way for each of its warps; angles and weights serve all heads from registers. Tokens of all tensors go
// to the multiprocessors in turn.
// Easy to get wrong: in place is usual, so a warp has read all of a token before it writes; sums are taken across the
// lanes of one head, and every lane takes part even where heads end.
#include "cuda/kernels.h"
#include "cuda/pieces.cuh"
#include "cuda/rope_rows.h"

namespace
{

enum { CHIP = 132, LANES = 32, WARPS = 12, MOST = 12, FOUR = 4 }; // MOST: pieces a lane

struct rows_one {
    const void *x;
    void *out;
    const float *weight, *cosines, *sines;
    int64_t xs[3], os[3]; // batch, token, head
    unsigned tokens, end; // of a sample; rows of this tensor and of those before it
    int dout;
    float eps, factor;
    bool per_batch;
};

struct rows_args {
    rows_one one[AT_K_ROPES];
    int n, dim, heads;
    int lanes;     // of a head: dim / 8, a power of two
    unsigned rows; // tokens of all
};

template <class T> __device__ inline void unpack(const uint4 &raw, float (&v)[PIECE])
{
    const uint32_t word[FOUR] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int k = 0; k < PIECE; k++) {
        uint16_t bits = (uint16_t)(word[k / 2] >> (k % 2 * 16));
        T one;
        memcpy(&one, &bits, sizeof one);
        v[k] = to_f32(one);
    }
}

template <class T>
__device__ inline void put_piece(const rows_one &o, int64_t at, const float (&v)[PIECE])
{
    if (o.dout != AT_F8E4M3) {
        store<T, PIECE>((T *)o.out + at, v);
        return;
    }
    union {
        uint2 all;
        __nv_fp8x2_storage_t two[PIECE / 2];
    } u;
#pragma unroll
    for (int k = 0; k < PIECE / 2; k++)
        u.two[k] = __nv_cvt_float2_to_fp8x2(
            make_float2(v[2 * k] * o.factor, v[2 * k + 1] * o.factor), __NV_SATFINITE, __NV_E4M3);
    *(uint2 *)((uint8_t *)o.out + at) = u.all;
}

// What all heads of a token share for this lane's channels.
struct shared_by_heads {
    float c[PIECE / 2], s[PIECE / 2], w[PIECE];
};

// One head's piece normalised (all lanes of a warp come here) and rotated.
__device__ inline void turn(const rows_args &a, const rows_one &o, const shared_by_heads &by,
                            float (&v)[PIECE])
{
    if (o.weight) {
        float sum = 0;
#pragma unroll
        for (int k = 0; k < PIECE; k++)
            sum += v[k] * v[k];
        for (int i = a.lanes >> 1; i; i >>= 1)
            sum += __shfl_xor_sync(0xffffffffu, sum, i);
        float r = rsqrtf(sum / (float)a.dim + o.eps);
#pragma unroll
        for (int k = 0; k < PIECE; k++)
            v[k] *= r * by.w[k];
    }
    if (!o.cosines) return;
#pragma unroll
    for (int k = 0; k < PIECE / 2; k++) {
        float x = v[2 * k], y = v[2 * k + 1];
        v[2 * k] = x * by.c[k] - y * by.s[k];
        v[2 * k + 1] = y * by.c[k] + x * by.s[k];
    }
}

template <class T>
__global__ void __launch_bounds__(WARPS *LANES, 1) rows_kernel(const __grid_constant__ rows_args a)
{
    const int lane = threadIdx.x % LANES, at = lane % a.lanes * PIECE;
    const int together = LANES / a.lanes, first = lane / a.lanes; // heads at a time

    for (unsigned row = threadIdx.x / LANES * gridDim.x + blockIdx.x; row < a.rows;
         row += WARPS * gridDim.x) {
        int i = 0;
        while (row >= a.one[i].end)
            i++;
        const rows_one &o = a.one[i];
        unsigned r = i ? row - a.one[i - 1].end : row, b = r / o.tokens, t = r - b * o.tokens;
        const T *from = (const T *)o.x + b * o.xs[0] + t * o.xs[1] + at;
        int64_t to = b * o.os[0] + t * o.os[1] + at;
        uint4 raw[MOST];
        shared_by_heads by = {};
#pragma unroll
        for (int e = 0; e < MOST; e++) {
            int head = first + e * together;
            raw[e] = *(const uint4 *)(from + (head < a.heads ? head : 0) * o.xs[2]);
        }
        if (o.cosines) {
            int64_t angle = (int64_t)(o.per_batch ? r : t) * (a.dim / 2) + at / 2;
            load<float, PIECE / 2>(o.cosines + angle, by.c);
            load<float, PIECE / 2>(o.sines + angle, by.s);
        }
        if (o.weight) load<float, PIECE>(o.weight + at, by.w);
#pragma unroll
        for (int e = 0; e < MOST; e++) {
            int head = first + e * together;
            float v[PIECE];
            unpack<T>(raw[e], v);
            turn(a, o, by, v);
            if (head < a.heads) put_piece<T>(o, to + head * o.os[2], v);
        }
    }
}

bool one_of(const at_k_rope_in *in, rows_one *o)
{
    uintptr_t all = (uintptr_t)in->x.data | (uintptr_t)in->out.data | (uintptr_t)in->weight |
                    (uintptr_t)in->cosines | (uintptr_t)in->sines;
    bool ok = all % 16 == 0;
    o->x = in->x.data;
    o->out = in->out.data;
    o->weight = in->weight;
    o->cosines = in->cosines;
    o->sines = in->sines;
    for (int i = 0; i < 3; i++) { // the stride of a single entry says nothing
        o->xs[i] = in->x.shape[i] == 1 ? 0 : in->x.stride[i];
        o->os[i] = in->x.shape[i] == 1 ? 0 : in->out.stride[i];
        ok = ok && o->xs[i] % PIECE == 0 && o->os[i] % PIECE == 0;
    }
    o->tokens = (unsigned)in->x.shape[1];
    o->dout = in->out.dtype;
    o->eps = in->eps;
    o->factor = in->factor;
    o->per_batch = in->per_batch;
    return ok;
}

} // namespace

extern "C" cudaError_t at_k_rope_rows(cudaStream_t s, const at_k_rope_in *in, int n, bool *done)
{
    rows_args a = {};
    at_dtype type = in[0].x.dtype;
    int64_t rows = 0;

    *done = false;
    a.dim = (int)in[0].x.shape[3];
    a.heads = (int)in[0].x.shape[2];
    a.lanes = a.dim / PIECE;
    bool ok = n >= 1 && n <= AT_K_ROPES && (type == AT_BF16 || type == AT_F16) && a.lanes &&
              a.dim % PIECE == 0 && a.lanes <= LANES && !(a.lanes & (a.lanes - 1)) &&
              a.heads * a.lanes <= MOST * LANES && a.heads * a.lanes > MOST * LANES / 2;
    for (int i = 0; i < n && ok; i++) {
        const at_view *x = &in[i].x;
        ok = x->dtype == type && x->shape[3] == a.dim && x->shape[2] == a.heads && !in[i].halves &&
             (in[i].out.dtype == type || in[i].out.dtype == AT_F8E4M3) &&
             one_of(&in[i], &a.one[a.n]);
        if (x->shape[0] * x->shape[1] == 0) continue;
        rows += x->shape[0] * x->shape[1];
        a.one[a.n++].end = (unsigned)rows;
    }
    if (!ok || rows > 0x7fffffff - CHIP * WARPS) return cudaSuccess;
    *done = true;
    a.rows = (unsigned)rows;
    if (!rows) return cudaSuccess;
    unsigned blocks = rows < CHIP ? (unsigned)rows : CHIP;
    if (type == AT_BF16)
        rows_kernel<bf16><<<blocks, WARPS * LANES, 0, s>>>(a);
    else
        rows_kernel<f16><<<blocks, WARPS * LANES, 0, s>>>(a);
    return cudaGetLastError();
}
