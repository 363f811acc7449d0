// SPDX-License-Identifier: Apache-2.0
// layer_norm.cu - layer and RMS norm with affine and modulation, any floats.
// Idea: a block owns some rows, a thread one piece of eight of each: its factor and term (affine and
// modulation folded into y = x * a + b) are made once, and its pieces of the rows to come are on
// their way into shared memory while it works on this one. A row is read once; its sums are two
// passes over registers, the mean, then the squared distances, so that an offset does not hide the
// variance. What is too long or lies at odd addresses goes through memory three times.
// Easy to get wrong: sums of one row may still be read when those of the next are written, so two
// places take turns: between two uses of one lies a barrier of the other.
#include "cuda/async.cuh"
#include "cuda/kernels.h"
#include "cuda/pieces.cuh"

struct norm_args {
    const void *x, *scale, *shift;
    void *out;
    const float *weight, *bias;
    int64_t xb, xt, ob, ot, scale_b, shift_b; // strides: batch, token
    unsigned rows, tokens, each;              // each: rows a block
    int dim, dx, dout, dscale, dshift;
    float eps;
    bool rms;
};

// 56 registers: 1152 threads are resident, three rows of 3072
enum { NORM_REGISTERS = 56, RESIDENT = 1152 };
enum { NORM_MOST = 768, NORM_WARPS = NORM_MOST / 32 };

// Sum over the block; every thread gets it. `sums` begins as zeros.
__device__ inline float row_sum(float x, float *sums)
{
    x = warp_sum(x);
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

// y = x * factor + term of this thread's piece in batch b.
__device__ inline void fold(const norm_args &a, unsigned b, int at, float (&factor)[1][PIECE],
                            float (&term)[1][PIECE])
{
    float x[1][PIECE]; // one at a time: few registers, and the rows are on their way meanwhile
    if (a.weight) {
        load_pieces_of(a.weight, at, 0, at, 1, factor);
    } else {
#pragma unroll
        for (int k = 0; k < PIECE; k++)
            factor[0][k] = 1.0f;
    }
    if (a.bias) {
        load_pieces_of(a.bias, at, 0, at, 1, term);
    } else {
#pragma unroll
        for (int k = 0; k < PIECE; k++)
            term[0][k] = 0.0f;
    }
    if (a.scale) {
        load_pieces<1>(a.scale, a.dscale, b * a.scale_b + at, 0, b * a.scale_b + at, 1, x);
#pragma unroll
        for (int k = 0; k < PIECE; k++) {
            factor[0][k] *= 1.0f + x[0][k];
            term[0][k] *= 1.0f + x[0][k];
        }
    }
    if (a.shift) {
        load_pieces<1>(a.shift, a.dshift, b * a.shift_b + at, 0, b * a.shift_b + at, 1, x);
#pragma unroll
        for (int k = 0; k < PIECE; k++)
            term[0][k] += x[0][k];
    }
}

// This thread's piece of row r on its way into its place of a stage; a group in any case.
__device__ inline void norm_ask(const norm_args &a, unsigned r, unsigned last, int at, bool wide,
                                uint4 *place)
{
    if (r < last && at < a.dim) {
        unsigned b = r / a.tokens, t = r - b * a.tokens;
        int64_t from = b * a.xb + t * a.xt + at;
        if (wide) {
            async_copy(place, (const float *)a.x + from);
            async_copy(place + 1, (const float *)a.x + from + 4);
        } else {
            async_copy(place, (const f16 *)a.x + from);
        }
    }
    async_close();
}

// STAGES rows on their way; a stage is 16 bytes a thread, 32 of f32.
template <int STAGES> __global__ void __maxnreg__(NORM_REGISTERS) norm_kernel(const norm_args a)
{
    extern __shared__ uint4 ring[];
    __shared__ float4 sums[2][NORM_WARPS / 4];
    const bool wide = a.dx == AT_F32, mine = (int)threadIdx.x * PIECE < a.dim;
    const int at = threadIdx.x * PIECE, size = wide ? 2 : 1, stage = blockDim.x * size;
    unsigned first = blockIdx.x * a.each, last = min(first + a.each, a.rows);
    unsigned batch = 0xffffffffu, turn = 0;
    uint4 *place = ring + threadIdx.x * size;
    float factor[1][PIECE], term[1][PIECE], v[1][PIECE];

#pragma unroll
    for (int s = 0; s < STAGES - 1; s++)
        norm_ask(a, first + s, last, at, wide, place + s * stage);
    if (threadIdx.x < 2 * NORM_WARPS) ((float *)sums)[threadIdx.x] = 0.0f;
    if (blockDim.x < 2 * NORM_WARPS && threadIdx.x < NORM_WARPS)
        ((float *)sums)[threadIdx.x + NORM_WARPS] = 0.0f;
    __syncthreads();
    for (unsigned r = first; r < last; r++) {
        unsigned i = r - first, b = r / a.tokens, t = r - b * a.tokens;
        norm_ask(a, r + STAGES - 1, last, at, wide, place + (i + STAGES - 1) % STAGES * stage);
        if (b != batch && mine) fold(a, b, at, factor, term);
        batch = b;
        async_wait<STAGES - 1>();
        raw_pieces<1> raw;
        raw.first[0] = place[i % STAGES * stage];
        if (wide) raw.more[0] = place[i % STAGES * stage + 1];
        as_floats<1>(raw, a.dx, mine, v);
        float sum = 0, mean = 0;
        if (!a.rms) {
#pragma unroll
            for (int k = 0; k < PIECE; k++)
                sum += v[0][k];
            mean = row_sum(sum, (float *)sums[turn++ & 1]) / (float)a.dim;
            sum = 0;
        }
#pragma unroll
        for (int k = 0; k < PIECE; k++) {
            v[0][k] -= mean;
            sum += v[0][k] * v[0][k];
        }
        if (!mine) sum = 0;
        sum = row_sum(sum, (float *)sums[turn++ & 1]) / (float)a.dim;
        float rstd = rsqrtf(sum + a.eps);
        if (!mine) continue;
#pragma unroll
        for (int k = 0; k < PIECE; k++)
            v[0][k] = v[0][k] * rstd * factor[0][k] + term[0][k];
        store_pieces<1>(a.out, a.dout, b * a.ob + t * a.ot + at, 0, 1, v);
    }
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
    const int64_t x[] = {a->xb, a->xt}, o[] = {a->ob, a->ot};
    return a->dim % PIECE == 0 && in_pieces(a->x, x, 2) && in_pieces(a->out, o, 2) &&
           in_pieces(a->scale, &a->scale_b, 1) && in_pieces(a->shift, &a->shift_b, 1) &&
           in_pieces(a->weight, NULL, 0) && in_pieces(a->bias, NULL, 0);
}

enum { SHARED = 46 << 10, CHIP = 132 }; // bytes that a block may have, multiprocessors of an H200

extern "C" cudaError_t at_k_norm(cudaStream_t s, const at_k_norm_in *in)
{
    const at_view *x = &in->x, *o = &in->out;
    norm_args a = {};
    int64_t rows = x->shape[0] * x->shape[1];
    if (!rows || !x->shape[2]) return cudaSuccess;
    if (rows > 0x7fffffff) return cudaErrorInvalidValue;
    a.x = x->data;
    a.out = o->data;
    a.scale = in->mod_scale.data;
    a.shift = in->mod_shift.data;
    a.weight = in->weight;
    a.bias = in->bias;
    // the stride of a single entry says nothing
    a.xb = x->shape[0] == 1 ? 0 : x->stride[0];
    a.xt = x->shape[1] == 1 ? 0 : x->stride[1];
    a.ob = x->shape[0] == 1 ? 0 : o->stride[0];
    a.ot = x->shape[1] == 1 ? 0 : o->stride[1];
    if (a.scale) a.scale_b = in->mod_scale.shape[0] == 1 ? 0 : in->mod_scale.stride[0];
    if (a.shift) a.shift_b = in->mod_shift.shape[0] == 1 ? 0 : in->mod_shift.stride[0];
    a.tokens = (unsigned)x->shape[1];
    a.rows = (unsigned)rows;
    a.dim = (int)x->shape[2];
    a.dx = x->dtype;
    a.dout = o->dtype;
    a.dscale = in->mod_scale.dtype;
    a.dshift = in->mod_shift.dtype;
    a.eps = in->eps;
    a.rms = in->rms;
    unsigned pieces = (unsigned)(a.dim / PIECE), threads = (pieces + 31) / 32 * 32;
    size_t stage = threads * (a.dx == AT_F32 ? 32 : 16);
    if (!fits_pieces(&a) || threads > NORM_MOST || 2 * stage > SHARED) {
        norm_plain_kernel<<<a.rows, 256, 0, s>>>(a);
        return cudaGetLastError();
    }
    // as many blocks as are resident on a large chip, all with the same number of rows
    unsigned most = CHIP * (RESIDENT / threads);
    a.each = (a.rows + most - 1) / most;
    unsigned blocks = (a.rows + a.each - 1) / a.each;
    if (a.each == 1)
        norm_kernel<1><<<blocks, threads, stage, s>>>(a);
    else if (a.each == 2 || 4 * stage > SHARED)
        norm_kernel<2><<<blocks, threads, 2 * stage, s>>>(a);
    else
        norm_kernel<4><<<blocks, threads, 4 * stage, s>>>(a);
    return cudaGetLastError();
}
