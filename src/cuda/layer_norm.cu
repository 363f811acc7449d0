// SPDX-License-Identifier: Apache-2.0
// layer_norm.cu - layer and RMS norm with affine and modulation, any floats.
// Idea: a block owns some rows, a thread one or three pieces of eight of each: its factors and terms
// (affine and modulation folded into y = x * a + b) are made once, and its pieces of the rows to come
// are on their way into shared memory while it works on this one. A row is read once; its sums are
// two passes over registers, the mean, then the squared distances, so that an offset does not hide
// the variance. A gated residual may be added to the row first (x += gate * y), which saves reading x
// once more, and the result may be e4m3 with a scale a row. What is too long or lies at odd addresses
// goes through memory three times; gated sums of Flux's width have a kernel of their own
// (norm_gated.cu), and so have the widths of UNets and text encoders (norm_rows.cu).
// Easy to get wrong: sums of one row may still be read when those of the next are written, so two
// places take turns: between two uses of one lies a barrier of the other.
#include "cuda/async.cuh"
#include "cuda/kernels.h"
#include "cuda/norm_gated.h"
#include "cuda/norm_rows.h"
#include "cuda/pieces.cuh"
#include "cuda/rows8.h"

struct norm_args {
    void *x; // changed where something is added first
    const void *y, *gate, *scale, *shift;
    void *out;
    float *scales; // of fp8 rows; NULL: out is floats
    const float *weight, *bias;
    int64_t xb, xt, yb, yt, ob, ot, gate_b, scale_b, shift_b; // strides: batch, token
    unsigned rows, tokens, each;                              // each: rows a block
    int dim, dx, dy, dout, dgate, dscale, dshift;
    float eps;
    bool rms;
};

enum { NORM_MOST = 512, NORM_WARPS = NORM_MOST / 32 };
// Registers a thread, and how many threads are then resident. Rows of more than 256 give a
// thread three pieces, so that sums and addresses are paid once for 24 elements: with one piece they bound the kernel.
#define NORM_REGISTERS(with_y, each) ((each) > 1 ? ((with_y) ? 168 : 128) : (with_y) ? 80 : 56)
#define NORM_RESIDENT(with_y, each)                                                                \
    ((each) > 1 ? ((with_y) ? 384u : 512u) : (with_y) ? 768u : 1152u)
static const float E4M3_MOST = 448.0f, E4M3_LEAST = 1e-30f; // a row of zeros has a scale too

// Sum over the block; every thread gets it. `sums` begins as zeros.
__device__ inline float row_sum(float x, float *sums)
{
    x = warp_sum(x);
    if (blockDim.x == 32) return x;
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
#pragma unroll
    for (unsigned w = 0; w < NORM_WARPS; w += 4) {
        if (w * 32 >= blockDim.x) break;
        float4 four = *(const float4 *)(sums + w);
        x += (four.x + four.y) + (four.z + four.w);
    }
    return x;
}

// Largest over the block, of numbers that are not negative.
__device__ inline float row_most(float x, float *sums)
{
#pragma unroll
    for (int i = 16; i; i >>= 1)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
    if (blockDim.x == 32) return x;
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
#pragma unroll
    for (unsigned w = 0; w < NORM_WARPS; w += 4) {
        if (w * 32 >= blockDim.x) break;
        float4 four = *(const float4 *)(sums + w);
        x = fmaxf(x, fmaxf(fmaxf(four.x, four.y), fmaxf(four.z, four.w)));
    }
    return x;
}

// y = x * factor + term of this thread's pieces in batch b.
template <int EACH>
__device__ inline void fold(const norm_args &a, unsigned b, int at, int step, unsigned have,
                            float (&factor)[EACH][PIECE], float (&term)[EACH][PIECE])
{
    float x[EACH][PIECE]; // one at a time: few registers, and the rows are on their way meanwhile
    int64_t of_scale = b * a.scale_b, of_shift = b * a.shift_b;
#define EVERY(f)                                                                                   \
    _Pragma("unroll") for (int e = 0; e < EACH; e++)                                               \
        _Pragma("unroll") for (int k = 0; k < PIECE; k++) f
    if (a.weight) {
        load_pieces_of(a.weight, at, step, 0, have, factor);
    } else {
        EVERY(factor[e][k] = 1.0f);
    }
    if (a.bias) {
        load_pieces_of(a.bias, at, step, 0, have, term);
    } else {
        EVERY(term[e][k] = 0.0f);
    }
    if (a.scale) {
        load_pieces<EACH>(a.scale, a.dscale, of_scale + at, step, of_scale, have, x);
        EVERY(factor[e][k] *= 1.0f + x[e][k]);
        EVERY(term[e][k] *= 1.0f + x[e][k]);
    }
    if (a.shift) {
        load_pieces<EACH>(a.shift, a.dshift, of_shift + at, step, of_shift, have, x);
        EVERY(term[e][k] += x[e][k]);
    }
}

// 16 or 32 bytes of a piece on their way.
__device__ inline void ask_piece(const void *p, int dtype, int64_t at, uint4 *place)
{
    if (dtype == AT_F32) {
        async_copy(place, (const float *)p + at);
        async_copy(place + 1, (const float *)p + at + 4);
    } else {
        async_copy(place, (const f16 *)p + at);
    }
}

// A row and where it lies, counted on without divisions.
struct row_at {
    unsigned r, b, t;
};

__device__ inline void next_row(const norm_args &a, row_at &n)
{
    n.r++;
    if (++n.t == a.tokens) {
        n.t = 0;
        n.b++;
    }
}

// This thread's pieces of a row on their way into its places of a stage, x's and then y's; a group in
// any case.
template <bool WITH_Y, int EACH>
__device__ inline void norm_ask(const norm_args &a, const row_at &n, unsigned last, int at,
                                int step, unsigned have, uint4 *place)
{
    const int of_x = a.dx == AT_F32 ? 2 : 1, of_y = a.dy == AT_F32 ? 2 : 1;
    if (n.r < last) {
        int64_t x = n.b * a.xb + n.t * a.xt + at, y = n.b * a.yb + n.t * a.yt + at;
#pragma unroll
        for (int e = 0; e < EACH; e++)
            if (have >> e & 1) {
                ask_piece(a.x, a.dx, x + e * step, place + e * of_x);
                if (WITH_Y) ask_piece(a.y, a.dy, y + e * step, place + EACH * of_x + e * of_y);
            }
    }
    async_close();
}

template <int EACH>
__device__ inline void take_pieces(const uint4 *place, int dtype, unsigned have,
                                   float (&x)[EACH][PIECE])
{
    raw_pieces<EACH> raw;
    const int size = dtype == AT_F32 ? 2 : 1;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        raw.first[e] = place[e * size];
        if (dtype == AT_F32) raw.more[e] = place[e * size + 1];
    }
    as_floats<EACH>(raw, dtype, have, x);
}

// Eight bytes of an fp8 row.
__device__ inline void put_rows8(const norm_args &a, int64_t to, const float (&v)[PIECE], float by)
{
    union {
        uint2 all;
        __nv_fp8x2_storage_t two[PIECE / 2];
    } u;
#pragma unroll
    for (int k = 0; k < PIECE / 2; k++)
        u.two[k] = __nv_cvt_float2_to_fp8x2(make_float2(v[2 * k] * by, v[2 * k + 1] * by),
                                            __NV_SATFINITE, __NV_E4M3);
    *(uint2 *)((uint8_t *)a.out + to) = u.all;
}

// STAGES rows on their way; a stage is 16 bytes a piece, 32 of f32, and as much for y.
template <int STAGES, bool WITH_Y, int EACH>
__global__ void __maxnreg__(NORM_REGISTERS(WITH_Y, EACH)) norm_kernel(const norm_args a)
{
    extern __shared__ uint4 ring[];
    __shared__ float4 sums[2][NORM_WARPS / 4];
    const int at = threadIdx.x * PIECE, step = blockDim.x * PIECE;
    const int of_x = EACH * (a.dx == AT_F32 ? 2 : 1);
    const int size = of_x + (WITH_Y ? EACH * (a.dy == AT_F32 ? 2 : 1) : 0);
    const int stage = blockDim.x * size;
    unsigned first = blockIdx.x * a.each, last = min(first + a.each, a.rows);
    unsigned batch = 0xffffffffu, turn = 0, have = 0;
    uint4 *place = ring + threadIdx.x * size;
    float factor[EACH][PIECE], term[EACH][PIECE], gate[EACH][PIECE], v[EACH][PIECE];
    row_at now = {first, first / a.tokens, first % a.tokens}, ahead = now;
    int in = 0, out = 0; // stages written and read next

#pragma unroll
    for (int e = 0; e < EACH; e++)
        if (at + e * step < a.dim) have |= 1u << e;
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        norm_ask<WITH_Y, EACH>(a, ahead, last, at, step, have, place + s * stage);
        next_row(a, ahead);
        in++;
    }
    if (threadIdx.x < NORM_WARPS)
        ((float *)sums)[threadIdx.x] = ((float *)sums)[threadIdx.x + NORM_WARPS] = 0.0f;
    __syncthreads();
    for (; now.r < last; next_row(a, now)) {
        norm_ask<WITH_Y, EACH>(a, ahead, last, at, step, have, place + in * stage);
        next_row(a, ahead);
        in = in == STAGES - 1 ? 0 : in + 1;
        if (now.b != batch) {
            fold<EACH>(a, now.b, at, step, have, factor, term);
            if (WITH_Y)
                load_pieces<EACH>(a.gate, a.dgate, now.b * a.gate_b + at, step, now.b * a.gate_b,
                                  have, gate);
        }
        batch = now.b;
        async_wait<STAGES - 1>();
        const uint4 *here = place + out * stage;
        out = out == STAGES - 1 ? 0 : out + 1;
        take_pieces<EACH>(here, a.dx, have, v);
        if (WITH_Y) {
            float y[EACH][PIECE];
            take_pieces<EACH>(here + of_x, a.dy, have, y);
            EVERY(v[e][k] += gate[e][k] * y[e][k]);
            store_pieces<EACH>(a.x, a.dx, now.b * a.xb + now.t * a.xt + at, step, have, v);
        }
        float sum = 0, mean = 0;
        if (!a.rms) {
            EVERY(sum += v[e][k]);
            mean = row_sum(sum, (float *)sums[turn++ & 1]) / (float)a.dim;
            sum = 0;
        }
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            float square = 0;
#pragma unroll
            for (int k = 0; k < PIECE; k++) {
                v[e][k] -= mean;
                square += v[e][k] * v[e][k];
            }
            if (have >> e & 1) sum += square;
        }
        sum = row_sum(sum, (float *)sums[turn++ & 1]) / (float)a.dim;
        float rstd = rsqrtf(sum + a.eps), most = 0;
        EVERY(v[e][k] = v[e][k] * rstd * factor[e][k] + term[e][k]);
        if (a.scales) {
#pragma unroll
            for (int e = 0; e < EACH; e++)
#pragma unroll
                for (int k = 0; k < PIECE; k++)
                    if (have >> e & 1) most = fmaxf(most, fabsf(v[e][k]));
            most = fmaxf(row_most(most, (float *)sums[turn++ & 1]), E4M3_LEAST);
#pragma unroll
            for (int e = 0; e < EACH; e++)
                if (have >> e & 1)
                    put_rows8(a, (int64_t)now.r * a.dim + at + e * step, v[e], E4M3_MOST / most);
            if (!threadIdx.x) a.scales[now.r] = most / E4M3_MOST;
        } else {
            store_pieces<EACH>(a.out, a.dout, now.b * a.ob + now.t * a.ot + at, step, have, v);
        }
    }
#undef EVERY
}

// Any length, any address: the same sums over memory, a block a row.
__global__ void norm_plain_kernel(const norm_args a)
{
    __shared__ float shared[33];
    unsigned b = blockIdx.x / a.tokens, t = blockIdx.x - b * a.tokens;
    int64_t from = b * a.xb + t * a.xt, to = b * a.ob + t * a.ot;
    float mean = 0, sum = 0;
    if (!a.rms) {
        for (int i = threadIdx.x; i < a.dim; i += blockDim.x)
            sum += one_at(a.x, a.dx, from + i);
        mean = block_sum(sum, shared) / (float)a.dim;
        sum = 0;
    }
    for (int i = threadIdx.x; i < a.dim; i += blockDim.x) {
        float d = one_at(a.x, a.dx, from + i) - mean;
        sum += d * d;
    }
    float r = rsqrtf(block_sum(sum, shared) / (float)a.dim + a.eps);
    for (int i = threadIdx.x; i < a.dim; i += blockDim.x) {
        float y = (one_at(a.x, a.dx, from + i) - mean) * r;
        if (a.weight) y *= a.weight[i];
        if (a.bias) y += a.bias[i];
        if (a.scale) y *= 1.0f + one_at(a.scale, a.dscale, b * a.scale_b + i);
        if (a.shift) y += one_at(a.shift, a.dshift, b * a.shift_b + i);
        put_at(a.out, a.dout, to + i, y);
    }
}

// Pieces of eight begin at whole 16 bytes (strides: batch, then token where there is one).
static bool in_pieces(const void *p, const int64_t *stride, int n)
{
    bool ok = (uintptr_t)p % 16 == 0;
    for (int i = 0; i < n; i++)
        ok = ok && stride[i] % PIECE == 0;
    return ok;
}

static bool fits_pieces(const norm_args *a)
{
    const int64_t x[] = {a->xb, a->xt}, y[] = {a->yb, a->yt}, o[] = {a->ob, a->ot};
    return a->dim % PIECE == 0 && in_pieces(a->x, x, 2) &&
           in_pieces(a->out, o, a->scales ? 0 : 2) && in_pieces(a->y, y, 2) &&
           in_pieces(a->gate, &a->gate_b, 1) && in_pieces(a->scale, &a->scale_b, 1) &&
           in_pieces(a->shift, &a->shift_b, 1) && in_pieces(a->weight, NULL, 0) &&
           in_pieces(a->bias, NULL, 0);
}

// As many blocks as are resident on a large chip, all with the same number of rows.
template <bool WITH_Y, int EACH> static bool norm_pieces(cudaStream_t s, norm_args a)
{
    enum {
        SHARED = 46 << 10,
        CHIP = 132
    }; // bytes that a block may have, multiprocessors of an H200
    constexpr int DEEP = WITH_Y ? 3 : 4;
    unsigned pieces = (unsigned)(a.dim / PIECE);
    unsigned threads = ((pieces + EACH - 1) / EACH + 31) / 32 * 32;
    size_t stage = EACH * threads * (a.dx == AT_F32 ? 32 : 16);
    if (WITH_Y) stage += EACH * threads * (a.dy == AT_F32 ? 32 : 16);
    if (!fits_pieces(&a) || threads > NORM_MOST || 2 * stage > SHARED) return false;
    unsigned most = CHIP * (NORM_RESIDENT(WITH_Y, EACH) / threads);
    a.each = (a.rows + most - 1) / most;
    unsigned blocks = (a.rows + a.each - 1) / a.each;
    if (a.each < 3 || DEEP * stage > SHARED)
        norm_kernel<2, WITH_Y, EACH><<<blocks, threads, 2 * stage, s>>>(a);
    else
        norm_kernel<DEEP, WITH_Y, EACH><<<blocks, threads, DEEP * stage, s>>>(a);
    return true;
}

template <bool WITH_Y> static bool norm_in_pieces(cudaStream_t s, const norm_args &a)
{
    return a.dim <= 256 ? norm_pieces<WITH_Y, 1>(s, a) : norm_pieces<WITH_Y, 3>(s, a);
}

static norm_args norm_args_of(const at_k_norm_in *in)
{
    const at_view *x = &in->x, *y = &in->y, *o = &in->out;
    norm_args a = {};
    bool one = x->shape[0] == 1, only = x->shape[1] == 1; // a single entry's stride says nothing
    a.x = x->data;
    a.y = y->data;
    a.gate = in->gate.data;
    a.out = o->data;
    a.scales = in->scales;
    a.scale = in->mod_scale.data;
    a.shift = in->mod_shift.data;
    a.weight = in->weight;
    a.bias = in->bias;
    a.xb = one ? 0 : x->stride[0];
    a.xt = only ? 0 : x->stride[1];
    a.ob = one ? 0 : o->stride[0];
    a.ot = only ? 0 : o->stride[1];
    if (a.y) a.yb = one ? 0 : y->stride[0];
    if (a.y) a.yt = only ? 0 : y->stride[1];
    if (a.gate) a.gate_b = in->gate.shape[0] == 1 ? 0 : in->gate.stride[0];
    if (a.scale) a.scale_b = in->mod_scale.shape[0] == 1 ? 0 : in->mod_scale.stride[0];
    if (a.shift) a.shift_b = in->mod_shift.shape[0] == 1 ? 0 : in->mod_shift.stride[0];
    a.tokens = (unsigned)x->shape[1];
    a.rows = (unsigned)(x->shape[0] * x->shape[1]);
    a.dim = (int)x->shape[2];
    a.dx = x->dtype;
    a.dy = y->dtype;
    a.dout = o->dtype;
    a.dgate = in->gate.dtype;
    a.dscale = in->mod_scale.dtype;
    a.dshift = in->mod_shift.dtype;
    a.eps = in->eps;
    a.rms = in->rms;
    return a;
}

extern "C" cudaError_t at_k_norm(cudaStream_t s, const at_k_norm_in *in)
{
    int64_t rows = in->x.shape[0] * in->x.shape[1];
    if (!rows || !in->x.shape[2]) return cudaSuccess;
    if (rows > 0x7fffffff) return cudaErrorInvalidValue;
    if (at_k_norm_gated_suits(in)) return at_k_norm_gated(s, in);
    if (at_k_norm_rows(s, in)) return cudaSuccess;
    norm_args a = norm_args_of(in);
    if (a.y ? norm_in_pieces<true>(s, a) : norm_in_pieces<false>(s, a)) return cudaGetLastError();
    if (a.y) { // one after the other
        cudaError_t e = at_k_gate_add(s, &in->x, &in->y, &in->gate, &in->x, 0);
        if (e != cudaSuccess) return e;
    }
    if (a.scales) return at_k_norm_rows8(s, in, a.out, a.scales);
    norm_plain_kernel<<<a.rows, 256, 0, s>>>(a);
    return cudaGetLastError();
}
