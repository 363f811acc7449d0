// SPDX-License-Identifier: Apache-2.0
// copy.cu - copies between any two dtypes and strides, and fills.
// Idea: equal dtypes move as bytes and floats convert in pieces of eight, both in slabs (slab.cuh)
// with several pieces in flight; what swaps the innermost dimension goes through a tile of shared
// memory so that both sides are read and written in runs; the rest goes element by element.
#include "cuda/any.cuh"
#include "cuda/grid.cuh"
#include "cuda/kernels.h"
#include "cuda/slab.cuh"

enum { THREADS = 256 };

static unsigned blocks_of(int64_t n)
{
    int64_t blocks = (n + THREADS - 1) / THREADS;
    return (unsigned)(blocks > 0x7fffffff ? 0x7fffffff : blocks);
}

static size_t size_of(at_dtype t)
{
    switch (t) {
    case AT_F32:
    case AT_I32: return 4;
    case AT_F16:
    case AT_BF16:
    case AT_I16: return 2;
    case AT_F64:
    case AT_I64: return 8;
    default: return 1;
    }
}

// --- equal dtypes: bytes as they are -----------------------------------------------------------
// Words of 16 bytes, `per` elements each; strides and sizes of the slab count elements.
template <int E>
__global__ void __launch_bounds__(THREADS)
    move_pieces_kernel(const slab s, const uint4 *src, uint4 *dst, int per)
{
    grid_begin();
    slab_at at = slab_here<E>(s, per);
    if (!at.have) return;
    int64_t from = slab_offset(s, 1, at) / per, to = slab_offset(s, 0, at) / per;
    int64_t down = s.step[1] / per, up = s.step[0] / per;
    uint4 x[E];
#pragma unroll
    for (int e = 0; e < E; e++)
        x[e] = src[at.have >> e & 1 ? from + e * down : from];
#pragma unroll
    for (int e = 0; e < E; e++)
        if (at.have >> e & 1) dst[to + e * up] = x[e];
}

template <class T> __global__ void move_kernel(const nd_plan p, const T *src, T *dst)
{
    int64_t total = p.row * p.rows;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < total;
         i += (int64_t)gridDim.x * THREADS) {
        int64_t r = i / p.row, at = i - r * p.row;
        dst[nd_offset(p, 0, r) + at * p.inner[0]] = src[nd_offset(p, 1, r) + at * p.inner[1]];
    }
}

static cudaError_t move_bytes(cudaStream_t st, const nd_plan &p, const void *src, void *dst,
                              size_t size)
{
    int per = (int)(16 / size);
    const void *data[] = {dst, src};
    const size_t sizes[] = {size, size};
    int64_t n = p.row * p.rows;
    slab s;
    if (p.inner[1] != 0 && slab_make(&s, p, 2, data, sizes, per)) {
        // Four rows a thread where there is much, and where a row is so short that blocks are many and small.
        bool four = (s.rows >= 4 && n / per >= 4 * 132 * 1024) || (s.threads < 128 && s.rows >= 4096);
        return launch_early(four ? move_pieces_kernel<4> : move_pieces_kernel<1>,
                            slab_grid(s, per, four ? 4 : 1), s.threads, 0, st, s,
                            (const uint4 *)src, (uint4 *)dst, per);
    }
#define MOVE(T) move_kernel<T><<<blocks_of(n), THREADS, 0, st>>>(p, (const T *)src, (T *)dst)
    if (size == 1)
        MOVE(uint8_t);
    else if (size == 2)
        MOVE(uint16_t);
    else if (size == 4)
        MOVE(uint32_t);
    else
        MOVE(uint64_t);
#undef MOVE
    return cudaGetLastError();
}

// --- floats ------------------------------------------------------------------------------------
// dst in f32 or 16 bits; src also in 8.
template <int E>
__global__ void __launch_bounds__(THREADS)
    convert_kernel(const slab s, const void *src, int from, void *dst, int to)
{
    grid_begin();
    slab_at at = slab_here<E>(s, PIECE);
    if (!at.have) return;
    float x[E][PIECE];
    int64_t offset = slab_offset(s, 1, at);
    if (from == AT_F8E4M3)
        load_pieces_of((const e4m3 *)src, offset, s.step[1], offset, at.have, x);
    else if (from == AT_F8E5M2)
        load_pieces_of((const e5m2 *)src, offset, s.step[1], offset, at.have, x);
    else
        load_pieces<E>(src, from, offset, s.step[1], offset, at.have, x);
    store_pieces<E>(dst, to, slab_offset(s, 0, at), s.step[0], at.have, x);
}

// --- the innermost dimension changes place -----------------------------------------------------
enum { TILE = 32, TILE_ROWS = 8 };

// dst runs along x (the plan's last dimension), src along y; blockIdx.z is the rest.
struct swap_plan {
    int64_t nx, ny, dy, sx; // sizes; dst's stride along y, src's along x
    int tiles;              // along y
};

__global__ void swap_kernel(const nd_plan p, swap_plan w, const void *src, int from, void *dst,
                            int to)
{
    __shared__ float tile[TILE][TILE + 1];
    int64_t x0 = blockIdx.x * (int64_t)TILE, y0 = blockIdx.y * (int64_t)TILE;
    int64_t d = nd_offset(p, 0, blockIdx.z), s = nd_offset(p, 1, blockIdx.z);
    for (int i = threadIdx.y; i < TILE; i += TILE_ROWS) {
        int64_t x = x0 + i, y = y0 + threadIdx.x;
        if (x < w.nx && y < w.ny) tile[i][threadIdx.x] = one_at(src, from, s + x * w.sx + y);
    }
    __syncthreads();
    for (int i = threadIdx.y; i < TILE; i += TILE_ROWS) {
        int64_t x = x0 + threadIdx.x, y = y0 + i;
        if (x < w.nx && y < w.ny) put_at(dst, to, d + x + y * w.dy, tile[threadIdx.x][i]);
    }
}

static bool is_float(int t)
{
    return t == AT_F32 || t == AT_F16 || t == AT_BF16;
}

// True (and launched) where dst runs along the last dimension and src along another one.
static bool swapped(cudaStream_t st, const nd_plan &p, const at_view *src, const at_view *dst,
                    cudaError_t *e)
{
    int along = -1;
    if (p.inner[0] != 1 || p.inner[1] <= 1) return false;
    for (int d = 0; d < p.rank; d++)
        if (p.stride[1][d] == 1 && p.shape[d] > 1) along = d;
    if (along < 0 || p.row < 4 || p.shape[along] < 4) return false;
    nd_plan rest = p;
    swap_plan w = {p.row, p.shape[along], p.stride[0][along], p.inner[1], 0};
    rest.rank = 0;
    for (int d = 0; d < p.rank; d++) {
        if (d == along) continue;
        rest.shape[rest.rank] = p.shape[d];
        for (int v = 0; v < 2; v++)
            rest.stride[v][rest.rank] = p.stride[v][d];
        rest.rank++;
    }
    int64_t outer = p.rows / w.ny, nx = (w.nx + TILE - 1) / TILE, ny = (w.ny + TILE - 1) / TILE;
    if (outer > 65535 || ny > 65535) return false;
    swap_kernel<<<dim3((unsigned)nx, (unsigned)ny, (unsigned)outer), dim3(TILE, TILE_ROWS), 0,
                  st>>>(rest, w, src->data, src->dtype, dst->data, dst->dtype);
    *e = cudaGetLastError();
    return true;
}

// --- anything ----------------------------------------------------------------------------------
__global__ void any_copy_kernel(const nd_plan p, const void *src, int sdtype, void *dst, int ddtype)
{
    int64_t total = p.row * p.rows;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < total;
         i += (int64_t)gridDim.x * THREADS) {
        int64_t r = i / p.row, at = i - r * p.row;
        int64_t from = nd_offset(p, 1, r) + at * p.inner[1];
        int64_t to = nd_offset(p, 0, r) + at * p.inner[0];
        if (sdtype >= AT_I8 && ddtype >= AT_I8) // the integers stand behind the floats
            int_store(dst, ddtype, to, int_load(src, sdtype, from));
        else
            any_store(dst, ddtype, to, any_load(src, sdtype, from));
    }
}

extern "C" cudaError_t at_k_copy(cudaStream_t st, const at_view *src, const at_view *dst)
{
    const at_view *views[] = {dst, src};
    nd_plan p = nd_make(2, views);
    cudaError_t e = cudaSuccess;
    int64_t n = p.rows * p.row;
    if (n == 0) return cudaSuccess;
    bool floats = is_float(dst->dtype) && is_float(src->dtype);
    if (floats && swapped(st, p, src, dst, &e)) return e;
    if (src->dtype == dst->dtype && src->dtype != AT_BOOL)
        return move_bytes(st, p, src->data, dst->data, size_of(src->dtype));
    const void *data[] = {dst->data, src->data};
    const size_t sizes[] = {size_of(dst->dtype), size_of(src->dtype)};
    slab s;
    bool fp8 = src->dtype == AT_F8E4M3 || src->dtype == AT_F8E5M2;
    if (is_float(dst->dtype) && (fp8 || floats) && p.inner[1] != 0 &&
        slab_make(&s, p, 2, data, sizes, PIECE)) {
        bool four = s.rows >= 4 && n / PIECE >= 4 * 132 * 1024;
        return launch_early(four ? convert_kernel<4> : convert_kernel<1>,
                            slab_grid(s, PIECE, four ? 4 : 1), s.threads, 0, st, s, src->data,
                            (int)src->dtype, dst->data, (int)dst->dtype);
    }
    any_copy_kernel<<<blocks_of(n), THREADS, 0, st>>>(p, src->data, src->dtype, dst->data,
                                                      dst->dtype);
    return cudaGetLastError();
}

// --- fill --------------------------------------------------------------------------------------
__global__ void fill_kernel(const nd_plan p, void *dst, int dtype, double value)
{
    int64_t total = p.row * p.rows;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < total;
         i += (int64_t)gridDim.x * THREADS) {
        int64_t r = i / p.row, at = i - r * p.row;
        any_store(dst, dtype, nd_offset(p, 0, r) + at * p.inner[0], value);
    }
}

extern "C" cudaError_t at_k_fill(cudaStream_t st, const at_view *dst, double value)
{
    const at_view *views[] = {dst};
    nd_plan p = nd_make(1, views);
    int64_t n = p.rows * p.row;
    if (n == 0) return cudaSuccess;
    // zero is all bits zero in every format
    if (value == 0 && !signbit(value) && p.rank == 0 && p.inner[0] == 1)
        return cudaMemsetAsync(dst->data, 0, (size_t)n * size_of(dst->dtype), st);
    fill_kernel<<<blocks_of(n), THREADS, 0, st>>>(p, dst->data, dst->dtype, value);
    return cudaGetLastError();
}
