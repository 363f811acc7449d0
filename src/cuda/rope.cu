// SPDX-License-Identifier: Apache-2.0
// rope.cu - RMS norm of each head and rotation, for up to five tensors in one launch (q and k of a picture's stream and
// of its text's, and v where all become e4m3).
// Idea: a block owns one token of one tensor. A thread owns the same eight channels of several heads,
// so angles and weights are read once and serve them all; the heads' pieces are asked for together,
// a head's sum is taken across its lanes. Pairs are neighbours here; halves and odd sizes go through the
// plain kernel. Several tokens a block, and a token a warp, were slower in a model (docs/bench/cuda.md).
// Easy to get wrong: in place is usual (q and k inside a fused qkv), so a piece is written only by
// the thread that read it.
#include "cuda/grid.cuh"
#include "cuda/kernels.h"
#include "cuda/pieces.cuh"

struct rope_one {
    const void *x;
    void *out;
    const float *weight, *cosines, *sines;
    int64_t xs[3], os[3]; // batch, token, head
    unsigned first;       // its first block
    unsigned tokens;      // of a sample
    int dx, dout, heads;
    float eps, factor; // of e4m3
    bool per_batch;
};

struct rope_args {
    rope_one one[AT_K_ROPES];
    int n, dim, lanes; // lanes of a head: dim / 8
    bool halves;
};

enum { ROPE_THREADS = 128, ROPE_EACH = 3 };

// The tensor that this block works on.
__device__ inline const rope_one &rope_mine(const rope_args &a)
{
    int i = a.n - 1;
    while (i > 0 && blockIdx.x < a.one[i].first)
        i--;
    return a.one[i];
}

// Which of a thread's ROPE_EACH heads from `head` on, `slots` apart, are there.
__device__ inline unsigned heads_here(const rope_one &o, int head, int slots)
{
    unsigned have = 0;
#pragma unroll
    for (int e = 0; e < ROPE_EACH; e++)
        if (head + e * slots < o.heads) have |= 1u << e;
    return have;
}

// Norm and rotation of eight channels of each of ROPE_EACH heads; all lanes of a warp come here.
__device__ inline void turn_heads(const rope_args &a, const rope_one &o,
                                  float (&v)[ROPE_EACH][PIECE], const float (&c)[PIECE / 2],
                                  const float (&s)[PIECE / 2], const float (&w)[PIECE])
{
    if (o.weight) {
        float sum[ROPE_EACH] = {};
#pragma unroll
        for (int e = 0; e < ROPE_EACH; e++)
#pragma unroll
            for (int k = 0; k < PIECE; k++)
                sum[e] += v[e][k] * v[e][k];
        for (int i = a.lanes >> 1; i; i >>= 1) // the heads' sums side by side
#pragma unroll
            for (int e = 0; e < ROPE_EACH; e++)
                sum[e] += __shfl_xor_sync(0xffffffffu, sum[e], i);
#pragma unroll
        for (int e = 0; e < ROPE_EACH; e++) {
            float r = rsqrtf(sum[e] / (float)a.dim + o.eps);
#pragma unroll
            for (int k = 0; k < PIECE; k++)
                v[e][k] *= r * w[k];
        }
    }
    if (!o.cosines) return;
#pragma unroll
    for (int e = 0; e < ROPE_EACH; e++)
#pragma unroll
        for (int k = 0; k < PIECE / 2; k++) {
            float x = v[e][2 * k], y = v[e][2 * k + 1];
            v[e][2 * k] = x * c[k] - y * s[k];
            v[e][2 * k + 1] = y * c[k] + x * s[k];
        }
}

// Eight channels as e4m3 of value * factor, saturating.
__device__ inline void put_e4m3(uint8_t *to, const float (&v)[PIECE], float factor)
{
    union {
        uint2 all;
        __nv_fp8x2_storage_t two[PIECE / 2];
    } u;
#pragma unroll
    for (int k = 0; k < PIECE / 2; k++)
        u.two[k] = __nv_cvt_float2_to_fp8x2(make_float2(v[2 * k] * factor, v[2 * k + 1] * factor),
                                            __NV_SATFINITE, __NV_E4M3);
    *(uint2 *)to = u.all;
}

// Pieces to where they go. E4M3: some tensor becomes e4m3; without it the kernel is what it was before.
template <bool E4M3>
__device__ inline void put_heads(const rope_one &o, int64_t at, int64_t step, unsigned have,
                                 const float (&v)[ROPE_EACH][PIECE])
{
    if constexpr (E4M3)
        if (o.dout == AT_F8E4M3) {
#pragma unroll
            for (int e = 0; e < ROPE_EACH; e++)
                if (have >> e & 1) put_e4m3((uint8_t *)o.out + at + e * step, v[e], o.factor);
            return;
        }
    store_pieces<ROPE_EACH>(o.out, o.dout, at, step, have, v);
}

template <bool E4M3> __global__ void __launch_bounds__(ROPE_THREADS) rope_kernel(const rope_args a)
{
    const rope_one &o = rope_mine(a);
    unsigned bt = blockIdx.x - o.first, b = bt / o.tokens, t = bt - b * o.tokens;
    int lane = threadIdx.x % a.lanes, slots = ROPE_THREADS / a.lanes, at = lane * PIECE;
    float c[PIECE / 2] = {}, s[PIECE / 2] = {}, w[PIECE] = {};
    grid_begin();
    if (o.cosines) {
        int64_t angle = (int64_t)(o.per_batch ? bt : t) * (a.dim / 2) + at / 2;
        load<float, PIECE / 2>(o.cosines + angle, c);
        load<float, PIECE / 2>(o.sines + angle, s);
    }
    if (o.weight) load<float, PIECE>(o.weight + at, w);
    int64_t from = b * o.xs[0] + t * o.xs[1] + at, to = b * o.os[0] + t * o.os[1] + at;
    // every lane of a warp takes the same number of turns: heads share sums across lanes
    for (int first = 0; first < o.heads; first += slots * ROPE_EACH) {
        int head = first + threadIdx.x / a.lanes;
        unsigned have = heads_here(o, head, slots);
        float v[ROPE_EACH][PIECE];
        load_pieces<ROPE_EACH>(o.x, o.dx, from + head * o.xs[2], slots * o.xs[2], from, have, v);
        turn_heads(a, o, v, c, s, w);
        put_heads<E4M3>(o, to + head * o.os[2], slots * o.os[2], have, v);
    }
}

// Any size, any address: a block a token here too, one warp a head, the sum of squares, then pair
// after pair.
__global__ void __launch_bounds__(ROPE_THREADS) rope_plain_kernel(const rope_args a)
{
    const rope_one &o = rope_mine(a);
    unsigned bt = blockIdx.x - o.first, b = bt / o.tokens, t = bt - b * o.tokens;
    int lane = threadIdx.x % 32, half = a.dim / 2;
    int64_t angle = (int64_t)(o.per_batch ? bt : t) * half;
    grid_begin();
    for (int h = threadIdx.x / 32; h < o.heads; h += ROPE_THREADS / 32) {
        int64_t from = b * o.xs[0] + t * o.xs[1] + h * o.xs[2];
        int64_t to = b * o.os[0] + t * o.os[1] + h * o.os[2];
        float scale = 1.0f;
        if (o.weight) {
            float sum = 0;
            for (int i = lane; i < a.dim; i += 32) {
                float v = one_at(o.x, o.dx, from + i);
                sum += v * v;
            }
            scale = rsqrtf(warp_sum(sum) / (float)a.dim + o.eps);
        }
        for (int p = lane; p < (a.dim + 1) / 2; p += 32) {
            int i = a.halves ? p : 2 * p, j = a.halves ? p + half : 2 * p + 1;
            bool pair = j < a.dim;
            float u = one_at(o.x, o.dx, from + i) * scale;
            float v = pair ? one_at(o.x, o.dx, from + j) * scale : 0.0f;
            if (o.weight) {
                u *= o.weight[i];
                if (pair) v *= o.weight[j];
            }
            float x = u, y = v;
            if (o.cosines && pair) {
                float c = o.cosines[angle + p], s = o.sines[angle + p];
                x = u * c - v * s;
                y = v * c + u * s;
            }
            put_at(o.out, o.dout, to + i, x);
            if (pair) put_at(o.out, o.dout, to + j, y);
        }
    }
}

static rope_one take(const at_k_rope_in *in)
{
    rope_one o = {};
    o.x = in->x.data;
    o.out = in->out.data;
    o.weight = in->weight;
    o.cosines = in->cosines;
    o.sines = in->sines;
    for (int i = 0; i < 3; i++) { // the stride of a single entry says nothing
        o.xs[i] = in->x.shape[i] == 1 ? 0 : in->x.stride[i];
        o.os[i] = in->x.shape[i] == 1 ? 0 : in->out.stride[i];
    }
    o.tokens = (unsigned)in->x.shape[1];
    o.dx = in->x.dtype;
    o.dout = in->out.dtype;
    o.heads = (int)in->x.shape[2];
    o.eps = in->eps;
    o.factor = in->factor;
    o.per_batch = in->per_batch;
    return o;
}

static bool fits_pieces(const rope_one *o)
{
    uintptr_t all = (uintptr_t)o->x | (uintptr_t)o->out | (uintptr_t)o->weight |
                    (uintptr_t)o->cosines | (uintptr_t)o->sines;
    bool ok = all % 16 == 0;
    for (int i = 0; i < 3; i++)
        ok = ok && o->xs[i] % PIECE == 0 && o->os[i] % PIECE == 0;
    return ok;
}

static bool has_e4m3(const rope_args *a)
{
    bool has = false;
    for (int i = 0; i < a->n; i++)
        has = has || a->one[i].dout == AT_F8E4M3;
    return has;
}

extern "C" cudaError_t at_k_rope(cudaStream_t s, const at_k_rope_in *in, int n)
{
    rope_args a = {};
    int64_t tokens = 0;
    if (n < 1 || n > AT_K_ROPES) return cudaErrorInvalidValue;
    a.dim = (int)in[0].x.shape[3];
    a.lanes = a.dim / PIECE;
    a.halves = in[0].halves;
    // a head's lanes are a power of two, so that they are neighbours in one warp
    bool wide =
        !a.halves && a.dim && a.dim % PIECE == 0 && a.lanes <= 32 && !(a.lanes & (a.lanes - 1));
    for (int i = 0; i < n; i++) {
        const at_view *x = &in[i].x;
        if (x->shape[3] != a.dim || in[i].halves != a.halves) return cudaErrorInvalidValue;
        if (!x->shape[0] || !x->shape[1] || !x->shape[2] || !a.dim) continue;
        rope_one *o = &a.one[a.n++];
        *o = take(&in[i]);
        tokens += x->shape[0] * x->shape[1];
        wide = wide && fits_pieces(o);
        o->first = (unsigned)(tokens - x->shape[0] * x->shape[1]);
    }
    if (!tokens) return cudaSuccess;
    if (tokens > 0x7fffffff || (!wide && has_e4m3(&a))) return cudaErrorInvalidValue;
    auto kernel = !wide ? rope_plain_kernel : has_e4m3(&a) ? rope_kernel<true> : rope_kernel<false>;
    return launch_early(kernel, dim3((unsigned)tokens), ROPE_THREADS, 0, s, a);
}
