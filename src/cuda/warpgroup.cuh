// SPDX-License-Identifier: Apache-2.0
// warpgroup.cuh - Hopper's matrix units (wgmma), barriers in shared memory, and registers that change hands.
// Idea: four warps together multiply 64 rows, whose left operand lies in registers, by a tile in shared memory
// that a descriptor tells (PTX ISA 8.0, "asynchronous warpgroup level matrix instructions"). A tile lies in
// words of 16 bytes without a swizzle, word c of row i at c * rows + i, whichever way the operand is turned.
// Easy to get wrong: the unit works behind the thread's back. Registers that it reads or writes are nobody's
// between wg_begin and wg_wait, and what threads wrote into shared memory is its to see only after
// wg_publish. Needs sm_90a: a file that includes this has a name that ends in _90a.
// Owns nothing.
#ifndef AT_CUDA_WARPGROUP_CUH
#define AT_CUDA_WARPGROUP_CUH

#include "cuda/dtype.cuh"

#define WG_R4(W, d, i)  W(d[i]), W(d[i + 1]), W(d[i + 2]), W(d[i + 3])
#define WG_R16(W, d, i) WG_R4(W, d, i), WG_R4(W, d, i + 4), WG_R4(W, d, i + 8), WG_R4(W, d, i + 12)
#define WG_R20(W, d, i) WG_R16(W, d, i), WG_R4(W, d, i + 16)
#define WG_R32(W, d, i) WG_R16(W, d, i), WG_R16(W, d, i + 16)
#define WG_R64(W, d, i) WG_R32(W, d, i), WG_R32(W, d, i + 32)
#define WG_T20                                                                                     \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19"
#define WG_T32 WG_T20 ", %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WG_T64                                                                                     \
    WG_T32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "    \
           "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// One instruction of N columns: the texts of its registers OUT, of its left operand LEFT and of its tile; ADD 0:
// what the registers held is not read (else "1"); TURNED 0: the tile's rows are columns of the result, 1: they are what is summed over. The
// registers themselves come last.
#define WG_MULTIPLY(TYPE, N, OUT, LEFT, TILE, ADD, TURNED, ...)                                    \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ADD ", 0;\n"                                  \
                 "wgmma.mma_async.sync.aligned.m64n" N "k16.f32." TYPE "." TYPE " {" OUT           \
                 "}, {" LEFT "}, " TILE ", p, 1, 1, " TURNED ";\n}"                                \
                 : __VA_ARGS__                                                                     \
                 : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(tile))
#define WG_EITHER(...)                                                                             \
    if constexpr (is_bf16<T>)                                                                      \
        WG_MULTIPLY("bf16", __VA_ARGS__);                                                          \
    else                                                                                           \
        WG_MULTIPLY("f16", __VA_ARGS__)
#define WG_LEFT20 "%20, %21, %22, %23"
#define WG_LEFT32 "%32, %33, %34, %35"
#define WG_LEFT64 "%64, %65, %66, %67"

namespace warpgroup
{

template <class T> constexpr bool is_bf16 = false;
template <> constexpr bool is_bf16<bf16> = true;

__device__ inline uint32_t address_of(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

// A tile: bytes from eight to the next eight along the sum, and along the result's columns.
__device__ inline uint64_t tile_of(uint32_t address, uint32_t along_sum, uint32_t along_columns)
{
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(along_sum >> 4) << 16 |
           (uint64_t)(along_columns >> 4) << 32;
}

// d = x * tile, or d += where ADD; the tile's N rows are the result's columns.
template <class T, int N, bool ADD>
__device__ inline void times_rows(float (&d)[N / 2], const uint32_t (&x)[4], uint64_t tile)
{
    static_assert(N == 64 || N == 128, "columns");
    if constexpr (N == 128 && ADD)
        WG_EITHER("128", WG_T64, WG_LEFT64, "%68", "1", "0", WG_R64("+f", d, 0));
    else if constexpr (N == 128)
        WG_EITHER("128", WG_T64, WG_LEFT64, "%68", "0", "0", WG_R64("=f", d, 0));
    else if constexpr (ADD)
        WG_EITHER("64", WG_T32, WG_LEFT32, "%36", "1", "0", WG_R32("+f", d, 0));
    else
        WG_EITHER("64", WG_T32, WG_LEFT32, "%36", "0", "0", WG_R32("=f", d, 0));
}

// d += x * tile; the tile's 16 rows are summed over, its N columns are the result's.
template <class T, int N>
__device__ inline void times_columns(float (&d)[N / 2], const uint32_t (&x)[4], uint64_t tile)
{
    static_assert(N == 40 || N == 64, "columns");
    if constexpr (N == 40)
        WG_EITHER("40", WG_T20, WG_LEFT20, "%24", "1", "1", WG_R20("+f", d, 0));
    else
        WG_EITHER("64", WG_T32, WG_LEFT32, "%36", "1", "1", WG_R32("+f", d, 0));
}

__device__ inline void wg_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// Closes what was asked for since the last time and waits for it; `d` is then the threads' again.
template <int N> __device__ inline void wg_wait(float (&d)[N])
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

// What this thread wrote into shared memory may be read by the matrix units.
__device__ inline void wg_publish()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void barrier_make(uint32_t at, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
}

__device__ inline void barrier_arrive(uint32_t at)
{
    asm volatile(
        "{\n.reg .b64 was;\nmbarrier.arrive.release.cta.shared::cta.b64 was, [%0];\n}" ::"r"(at)
        : "memory");
}

// Until the barrier's round of that parity is over.
__device__ inline void barrier_wait(uint32_t at, uint32_t parity)
{
    asm volatile("{\n.reg .pred over;\nagain:\n"
                 "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 over, [%0], %1;\n"
                 "@over bra done;\nbra again;\ndone:\n}" ::"r"(at),
                 "r"(parity)
                 : "memory");
}

// Registers a thread, for all threads of this warpgroup; a multiple of 8.
template <int N> __device__ inline void registers_more()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ inline void registers_less()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

} // namespace warpgroup

#endif
