// SPDX-License-Identifier: Apache-2.0
// rows8.cu - rows of floats to e4m3 with a scale a row, as they are or normalised.
// Idea: a block holds a row in registers, sixteen elements a piece: read once with 16-byte loads, its largest
// magnitude found across the block, written once with 16-byte stores; many 16-bit rows stream through shared memory. Memory-bound: 2 + 1 bytes an element.
// Easy to get wrong: an all-zero row must not divide by zero, and a row with NaN or infinity must stay visible
// (NaN converts to NaN; infinity makes an infinite scale, and zero times it NaN).
#include "cuda/async.cuh"
#include "cuda/dtype.cuh"
#include "cuda/rows8.h"

enum { PIECE = 16 };
static const float MOST = 448.0f, LEAST = 1e-30f;

// Largest over a block of at most 1024 threads; every thread gets it. `shared` holds 33 floats.
__device__ inline float block_most(float x, float *shared)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
#pragma unroll
    for (int i = 16; i; i >>= 1)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
    __syncthreads();
    if (!lane) shared[warp] = x;
    __syncthreads();
    if (!warp) {
        float y = lane < warps ? shared[lane] : 0.0f;
#pragma unroll
        for (int i = 16; i; i >>= 1)
            y = fmaxf(y, __shfl_xor_sync(0xffffffffu, y, i));
        if (!lane) shared[32] = y;
    }
    __syncthreads();
    return shared[32];
}

// A piece of a row; `wide`: it may be read in 16-byte words.
template <class T> __device__ inline void piece(const T *p, bool wide, float (&v)[PIECE])
{
    if (wide) {
        float a[8], b[8];
        load<T, 8>(p, a);
        load<T, 8>(p + 8, b);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            v[i] = a[i];
            v[i + 8] = b[i];
        }
    } else {
#pragma unroll
        for (int i = 0; i < PIECE; i++)
            v[i] = to_f32(p[i]);
    }
}

__device__ inline float most_of(const float (&v)[PIECE])
{
    float most = 0;
#pragma unroll
    for (int i = 0; i < PIECE; i++)
        most = fmaxf(most, fabsf(v[i]));
    return most;
}

__device__ inline void put(uint8_t *to, const float (&v)[PIECE], float factor)
{
    union {
        uint4 all;
        __nv_fp8x2_storage_t two[PIECE / 2];
    } u;
#pragma unroll
    for (int i = 0; i < PIECE / 2; i++)
        u.two[i] = __nv_cvt_float2_to_fp8x2(make_float2(v[2 * i] * factor, v[2 * i + 1] * factor),
                                            __NV_SATFINITE, __NV_E4M3);
    *reinterpret_cast<uint4 *>(to) = u.all;
}

template <class T, int EACH>
__global__ void rows8_kernel(const T *x, int64_t xb, int64_t xt, int64_t tokens, int k, bool wide,
                             uint8_t *out, float *scales)
{
    __shared__ float shared[33];
    int64_t row = blockIdx.x, b = row / tokens, t = row - b * tokens;
    const T *from = x + b * xb + t * xt;
    float v[EACH][PIECE], most = 0;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        int at = (e * blockDim.x + threadIdx.x) * PIECE;
        if (at >= k) continue;
        piece(from + at, wide, v[e]);
        most = fmaxf(most, most_of(v[e]));
    }
    most = fmaxf(block_most(most, shared), LEAST);
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        int at = (e * blockDim.x + threadIdx.x) * PIECE;
        if (at < k) put(out + row * k + at, v[e], MOST / most);
    }
    if (threadIdx.x == 0) scales[row] = most / MOST;
}

// 16-bit rows in turn: a block's pieces of the rows to come are on their way into shared memory while it works
// on this one, so that the search for the largest value hides behind the reading. A thread reads what it asked for
// itself. Between two uses of one place of `tops` lies a barrier of the other.
enum { STAGES = 3, STREAM_THREADS = 512, STREAM_WIDEST = 2 * STREAM_THREADS * PIECE };

template <class T, int EACH>
__global__ void __launch_bounds__(STREAM_THREADS)
    rows8_stream(const T *x, int64_t xb, int64_t xt, unsigned tokens, unsigned rows, int k, uint8_t *out,
                 float *scales)
{
    extern __shared__ uint4 buffer[]; // STAGES rows
    __shared__ float tops[2][STREAM_THREADS / 32];
    unsigned warps = (blockDim.x + 31) / 32, turn = 0, stage = 0, words = (unsigned)k / 8;
    auto ask = [&](unsigned r, unsigned place) {
        const T *from = x + (int64_t)(r / tokens) * xb + (int64_t)(r % tokens) * xt;
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            unsigned at = (e * blockDim.x + threadIdx.x) * 2;
            if (r >= rows || at >= words) continue;
            async_copy(buffer + place * words + at, from + at * 8);
            async_copy(buffer + place * words + at + 1, from + at * 8 + 8);
        }
        async_close();
    };
#pragma unroll
    for (unsigned s = 0; s + 1 < STAGES; s++)
        ask(blockIdx.x + s * gridDim.x, s);
    for (unsigned row = blockIdx.x; row < rows; row += gridDim.x) {
        unsigned last = stage + STAGES - 1;
        ask(row + (STAGES - 1) * gridDim.x, last >= STAGES ? last - STAGES : last);
        async_wait<STAGES - 1>();
        float v[EACH][PIECE], most = 0;
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            unsigned at = (e * blockDim.x + threadIdx.x) * 2;
            if (at >= words) continue;
            piece((const T *)(buffer + stage * words + at), true, v[e]);
            most = fmaxf(most, most_of(v[e]));
        }
#pragma unroll
        for (int i = 16; i; i >>= 1)
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, i));
        if (threadIdx.x % 32 == 0) tops[turn][threadIdx.x / 32] = most;
        __syncthreads();
        most = LEAST;
        for (unsigned w = 0; w < warps; w++)
            most = fmaxf(most, tops[turn][w]);
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            int at = (e * blockDim.x + threadIdx.x) * PIECE;
            if (at < k) put(out + (int64_t)row * k + at, v[e], MOST / most);
        }
        if (threadIdx.x == 0) scales[row] = most / MOST;
        turn ^= 1;
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
}

// How many threads share a row when each keeps `each` pieces.
static int threads_for(int64_t k, int each)
{
    int64_t pieces = k / PIECE, threads = (pieces + each - 1) / each;
    return (int)((threads + 31) / 32 * 32);
}

// False: rows of this kind go the plain way.
template <class T>
static bool stream_rows8(cudaStream_t s, const at_view *x, uint8_t *out, float *scales, cudaError_t *e)
{
    int64_t rows = x->shape[0] * x->shape[1], k = x->shape[2];
    size_t bytes = (size_t)k * sizeof(T) * STAGES;
    int device = 0, chips = 1, each = k <= STREAM_THREADS * PIECE ? 1 : 2, threads = threads_for(k, each);
    if (sizeof(T) != 2 || k > STREAM_WIDEST || rows < 64) return false;
    *e = cudaGetDevice(&device);
    if (*e == cudaSuccess) *e = cudaDeviceGetAttribute(&chips, cudaDevAttrMultiProcessorCount, device);
    auto kernel = each == 1 ? rows8_stream<T, 1> : rows8_stream<T, 2>;
    if (*e == cudaSuccess)
        *e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (*e != cudaSuccess) return true;
    // As many as fit beside each other; fewer would idle, more would wait.
    int64_t resident = (200 << 10) / (int64_t)bytes, most = 1536 / threads;
    resident = resident < 1 ? 1 : resident > most ? most : resident;
    int64_t blocks = resident * chips < rows ? resident * chips : rows;
    kernel<<<(unsigned)blocks, threads, bytes, s>>>((const T *)x->data, x->stride[0], x->stride[1],
                                                    (unsigned)x->shape[1], (unsigned)rows, (int)k, out, scales);
    *e = cudaGetLastError();
    return true;
}

template <class T> static cudaError_t rows8(cudaStream_t s, const at_view *x, uint8_t *out, float *scales)
{
    int64_t rows = x->shape[0] * x->shape[1], k = x->shape[2], per = 16 / (int64_t)sizeof(T);
    bool wide = (uintptr_t)x->data % 16 == 0 && x->stride[0] % per == 0 && x->stride[1] % per == 0;
    const T *p = (const T *)x->data;
    int64_t xb = x->stride[0], xt = x->stride[1], t = x->shape[1];
    unsigned n = (unsigned)rows;
    cudaError_t e = cudaSuccess;
    if (wide && stream_rows8<T>(s, x, out, scales, &e)) return e;
    if (k <= 256 * PIECE)
        rows8_kernel<T, 1><<<n, threads_for(k, 1), 0, s>>>(p, xb, xt, t, (int)k, wide, out, scales);
    else if (k <= 1024 * PIECE)
        rows8_kernel<T, 2><<<n, threads_for(k, 2), 0, s>>>(p, xb, xt, t, (int)k, wide, out, scales);
    else
        rows8_kernel<T, 4><<<n, threads_for(k, 4), 0, s>>>(p, xb, xt, t, (int)k, wide, out, scales);
    return cudaGetLastError();
}

extern "C" cudaError_t at_k_rows8(cudaStream_t s, const at_view *x, void *out, float *scales)
{
    int64_t rows = x->shape[0] * x->shape[1], k = x->shape[2];
    if (rows == 0) return cudaSuccess;
    if (k % PIECE || k < PIECE || k > AT_ROWS8_WIDEST || rows > 0x7fffffff || (uintptr_t)out % 16)
        return cudaErrorInvalidValue;
    AT_FLOATS(x->dtype, T, return rows8<T>(s, x, (uint8_t *)out, scales))
    return cudaErrorInvalidValue;
}

// --- and back ------------------------------------------------------------------------------------
template <class S, class T>
__global__ void floats_kernel(const S *values, const float *scales, int64_t n, int64_t pieces, T *out)
{
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n * pieces;
         i += (int64_t)gridDim.x * blockDim.x) {
        float v[PIECE], a[8], b[8], scale = scales[i / pieces];
        load<S, PIECE>(values + i * PIECE, v);
#pragma unroll
        for (int k = 0; k < 8; k++) {
            a[k] = v[k] * scale;
            b[k] = v[k + 8] * scale;
        }
        store<T, 8>(out + i * PIECE, a);
        store<T, 8>(out + i * PIECE + 8, b);
    }
}

extern "C" cudaError_t at_k_rows8_floats(cudaStream_t s, const at_view *values, const float *scales,
                                         const at_view *out)
{
    int64_t k = values->shape[values->rank - 1], n = 1;
    for (int i = 0; i + 1 < values->rank; i++)
        n *= values->shape[i];
    int64_t pieces = k / PIECE, blocks = (n * pieces + 255) / 256;
    if (n * k == 0) return cudaSuccess;
    if (k % PIECE || (uintptr_t)values->data % 16 || (uintptr_t)out->data % 16) return cudaErrorInvalidValue;
    if (blocks > 65536) blocks = 65536;
    AT_FLOATS(out->dtype, T, {
        if (values->dtype == AT_F8E4M3)
            floats_kernel<<<(unsigned)blocks, 256, 0, s>>>((const e4m3 *)values->data, scales, n, pieces,
                                                           (T *)out->data);
        else
            floats_kernel<<<(unsigned)blocks, 256, 0, s>>>((const e5m2 *)values->data, scales, n, pieces,
                                                           (T *)out->data);
        return cudaGetLastError();
    })
    return cudaErrorInvalidValue;
}

// --- normalised ----------------------------------------------------------------------------------
struct mods {
    const void *scale, *shift;
    int dscale, dshift;
    int64_t scale_stride, shift_stride;
    bool wide; // both may be read in 16-byte words
};

// Sixteen elements at p + at of a run-time float dtype.
__device__ inline void any_piece(const void *p, int dtype, int64_t at, bool wide, float (&v)[PIECE])
{
    if (dtype == AT_F32)
        piece((const float *)p + at, wide, v);
    else if (dtype == AT_BF16)
        piece((const bf16 *)p + at, wide, v);
    else
        piece((const f16 *)p + at, wide, v);
}

static bool in_words(const at_view *v, int64_t row_stride)
{
    int64_t size = v->dtype == AT_F32 ? 4 : 2;
    return !v->data || ((uintptr_t)v->data % 16 == 0 && row_stride * size % 16 == 0);
}

// One piece a thread: a row has at most AT_NORM8_WIDEST elements. Sums as in norm.cu: the mean, then the
// squared distances, both over registers.
template <class T>
__global__ void norm_rows8_kernel(const T *x, int64_t xb, int64_t xt, int64_t tokens, int k, bool wide,
                                  const float *weight, const float *bias, mods m, float eps, bool rms,
                                  uint8_t *out, float *scales)
{
    __shared__ float shared[33];
    int64_t row = blockIdx.x, b = row / tokens, t = row - b * tokens;
    int at = threadIdx.x * PIECE;
    bool mine = at < k;
    float v[PIECE] = {}, sum = 0, mean = 0;
    if (mine) piece(x + b * xb + t * xt + at, wide, v);
    if (!rms) {
#pragma unroll
        for (int i = 0; i < PIECE; i++)
            sum += v[i];
        mean = block_sum(sum, shared) / k;
        sum = 0;
    }
#pragma unroll
    for (int i = 0; i < PIECE; i++)
        sum += mine ? (v[i] - mean) * (v[i] - mean) : 0.0f;
    float r = rsqrtf(block_sum(sum, shared) / k + eps), most = 0;
    if (mine) {
        float c[PIECE];
#pragma unroll
        for (int i = 0; i < PIECE; i++)
            v[i] = (v[i] - mean) * r;
        if (weight) {
            piece(weight + at, true, c);
#pragma unroll
            for (int i = 0; i < PIECE; i++)
                v[i] *= c[i];
        }
        if (bias) {
            piece(bias + at, true, c);
#pragma unroll
            for (int i = 0; i < PIECE; i++)
                v[i] += c[i];
        }
        if (m.scale) {
            any_piece(m.scale, m.dscale, b * m.scale_stride + at, m.wide, c);
#pragma unroll
            for (int i = 0; i < PIECE; i++)
                v[i] *= 1.0f + c[i];
        }
        if (m.shift) {
            any_piece(m.shift, m.dshift, b * m.shift_stride + at, m.wide, c);
#pragma unroll
            for (int i = 0; i < PIECE; i++)
                v[i] += c[i];
        }
        most = most_of(v);
    }
    most = fmaxf(block_most(most, shared), LEAST);
    if (mine) put(out + row * k + at, v, MOST / most);
    if (threadIdx.x == 0) scales[row] = most / MOST;
}

extern "C" cudaError_t at_k_norm_rows8(cudaStream_t s, const at_k_norm_in *a, void *out, float *scales)
{
    const at_view *x = &a->x;
    int64_t rows = x->shape[0] * x->shape[1], k = x->shape[2];
    mods m = {a->mod_scale.data, a->mod_shift.data, a->mod_scale.dtype,
              a->mod_shift.dtype, 0, 0, false};
    if (m.scale) m.scale_stride = a->mod_scale.shape[0] == 1 ? 0 : a->mod_scale.stride[0];
    if (m.shift) m.shift_stride = a->mod_shift.shape[0] == 1 ? 0 : a->mod_shift.stride[0];
    m.wide = in_words(&a->mod_scale, m.scale_stride) && in_words(&a->mod_shift, m.shift_stride);
    if (rows == 0) return cudaSuccess;
    if ((uintptr_t)a->weight % 16 || (uintptr_t)a->bias % 16) return cudaErrorInvalidValue;
    if (k % PIECE || k < PIECE || k > AT_NORM8_WIDEST || rows > 0x7fffffff || (uintptr_t)out % 16)
        return cudaErrorInvalidValue;
    AT_FLOATS(x->dtype, T, {
        int64_t per = 16 / (int64_t)sizeof(T);
        bool wide =
            (uintptr_t)x->data % 16 == 0 && x->stride[0] % per == 0 && x->stride[1] % per == 0;
        norm_rows8_kernel<T><<<(unsigned)rows, threads_for(k, 1), 0, s>>>(
            (const T *)x->data, x->stride[0], x->stride[1], x->shape[1], (int)k, wide, a->weight, a->bias, m,
            a->eps, a->rms, (uint8_t *)out, scales);
        return cudaGetLastError();
    })
    return cudaErrorInvalidValue;
}
