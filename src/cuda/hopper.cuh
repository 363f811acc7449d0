// SPDX-License-Identifier: Apache-2.0
// hopper.cuh - what kernels of compute capability 9.0 are made of: matrix units that read shared memory (wgmma),
// tiles that the chip fetches by itself (TMA), barriers that count bytes, registers that change hands.
// Idea: a tile lies in shared memory as rows of 128 bytes whose words of 16 are swizzled by the row (PTX ISA 8.0,
// "128B swizzle mode"): TMA writes it so, a descriptor tells the matrix unit so, and nobody else looks.
// Easy to get wrong: a tile begins at a multiple of 1024 bytes. The unit works behind the threads' backs:
// registers of a product are nobody's between wg_begin and wg_wait. A barrier of bytes counts a box whole, also
// where parts of it lie outside the tensor and arrive as zeros. Needs sm_90a: a file that includes this has a
// name that ends in _90a.
// Owns nothing.
#ifndef AT_CUDA_HOPPER_CUH
#define AT_CUDA_HOPPER_CUH

#include <cuda.h>

#include "cuda/dtype.cuh"

namespace hopper
{

template <class T> constexpr bool is_bf16 = false;
template <> constexpr bool is_bf16<bf16> = true;

__device__ inline uint32_t address_of(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

// This thread's warpgroup, as a number that the compiler knows to be the same for the warp: descriptors of tiles that depend
// on it then stay in uniform registers, where the matrix unit reads them.
__device__ inline int warpgroup()
{
    return __shfl_sync(0xffffffffu, (int)(threadIdx.x / 128), 0);
}

// --- barriers ------------------------------------------------------------------------------------
__device__ inline void barrier_make(uint32_t at, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
}

// Made barriers are there for the chip's copies and for the other blocks of the cluster.
__device__ inline void barriers_made()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ inline void barrier_arrive(uint32_t at)
{
    asm volatile("{\n.reg .b64 was;\nmbarrier.arrive.shared::cta.b64 was, [%0];\n}" ::"r"(at)
                 : "memory");
}

// The barrier at the same place of block `rank` of the cluster.
__device__ inline void barrier_arrive_at(uint32_t at, uint32_t rank)
{
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n}" ::"r"(at),
                 "r"(rank)
                 : "memory");
}

// One arrival, and so many bytes are to come.
__device__ inline void barrier_expect(uint32_t at, uint32_t bytes)
{
    asm volatile(
        "{\n.reg .b64 was;\nmbarrier.arrive.expect_tx.shared::cta.b64 was, [%0], %1;\n}" ::"r"(at),
        "r"(bytes)
        : "memory");
}

// Until the barrier's round of that parity is over. A barrier that nobody used counts as behind a round of parity 1.
__device__ inline void barrier_wait(uint32_t at, uint32_t parity)
{
#ifdef AT_WAIT_LIMIT // while a kernel is being written
    for (int i = 0; i < AT_WAIT_LIMIT; i++) {
        uint32_t over;
        asm volatile(
            "{\n.reg .pred p;\n"
            "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
            : "=r"(over)
            : "r"(at), "r"(parity)
            : "memory");
        if (over) return;
    }
    __trap();
#else
    asm volatile("{\n.reg .pred over;\nagain:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
                 "@over bra done;\nbra again;\ndone:\n}" ::"r"(at),
                 "r"(parity)
                 : "memory");
#endif
}

// --- tiles ---------------------------------------------------------------------------------------
// A box of `map` at column x, row y into shared memory; its bytes count at `barrier`.
__device__ inline void fetch(uint32_t to, const CUtensorMap *map, uint32_t barrier, int x, int y)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4}], [%2];" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(x), "r"(y)
                 : "memory");
}

// The same into every block of the cluster that `blocks` has a bit for, at the same places.
__device__ inline void fetch_for(uint32_t to, const CUtensorMap *map, uint32_t barrier, int x,
                                 int y, uint16_t blocks)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(x), "r"(y), "h"(blocks)
                 : "memory");
}

__device__ inline void fetch4(uint32_t to, const CUtensorMap *map, uint32_t barrier, int x, int y,
                              int z, int w)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w)
                 : "memory");
}

// --- matrix units --------------------------------------------------------------------------------
// A tile whose rows are 64 values of 16 bits, eight rows each 1024 bytes on. `address` may lie 32 bytes further on for
// each 16 columns.
__device__ inline uint64_t tile_of(uint32_t address)
{
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)64 << 32 |
           (uint64_t)1 << 62;
}

__device__ inline void wg_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void wg_close()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until all but the last OPEN closed groups are done.
template <int OPEN> __device__ inline void wg_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(OPEN) : "memory");
}
// The compiler moves no use of `d` across this.
template <int N> __device__ inline void wg_pin(float (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}
template <int N> __device__ inline void wg_pin(uint32_t (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+r"(d[i])::"memory");
}

#define HP_R4(d, i)  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define HP_R16(d, i) HP_R4(d, i), HP_R4(d, i + 4), HP_R4(d, i + 8), HP_R4(d, i + 12)
#define HP_R20(d, i) HP_R16(d, i), HP_R4(d, i + 16)
#define HP_R32(d, i) HP_R16(d, i), HP_R16(d, i + 16)
#define HP_R40(d, i) HP_R32(d, i), HP_R4(d, i + 32), HP_R4(d, i + 36)
#define HP_R64(d, i) HP_R32(d, i), HP_R32(d, i + 32)
#define HP_R80(d, i) HP_R64(d, i), HP_R16(d, i + 64)
#define HP_T20                                                                                     \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19"
#define HP_T32 HP_T20 ", %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define HP_T40 HP_T32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define HP_T64                                                                                     \
    HP_T32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "    \
           "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define HP_T80                                                                                     \
    HP_T64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"

// d = add ? d + x y^T : x y^T; x 64 rows and y N rows of 16 columns, both tiles.
#define HP_TILES(TYPE, N, OUT, X, Y, ADD, REGS)                                                    \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ADD ", 0;\n"                                  \
                 "wgmma.mma_async.sync.aligned.m64n" N "k16.f32." TYPE "." TYPE " {" OUT "}, " X   \
                 ", " Y ", p, 1, 1, 0, 0;\n}"                                                      \
                 : REGS                                                                            \
                 : "l"(x), "l"(y), "r"(add))
#define HP_ALL(...) __VA_ARGS__
template <class T> __device__ inline void times160(float (&d)[80], uint64_t x, uint64_t y, int add)
{
    if constexpr (is_bf16<T>)
        HP_TILES("bf16", "160", HP_T80, "%80", "%81", "%82", HP_ALL(HP_R80(d, 0)));
    else
        HP_TILES("f16", "160", HP_T80, "%80", "%81", "%82", HP_ALL(HP_R80(d, 0)));
}

template <class T> __device__ inline void times80(float (&d)[40], uint64_t x, uint64_t y, int add)
{
    if constexpr (is_bf16<T>)
        HP_TILES("bf16", "80", HP_T40, "%40", "%41", "%42", HP_ALL(HP_R40(d, 0)));
    else
        HP_TILES("f16", "80", HP_T40, "%40", "%41", "%42", HP_ALL(HP_R40(d, 0)));
}
template <class T, int N>
__device__ inline void times_rows(float (&d)[N / 2], uint64_t x, uint64_t y, int add)
{
    static_assert(N == 64 || N == 128, "columns");
    if constexpr (N == 128 && is_bf16<T>)
        HP_TILES("bf16", "128", HP_T64, "%64", "%65", "%66", HP_ALL(HP_R64(d, 0)));
    else if constexpr (N == 128)
        HP_TILES("f16", "128", HP_T64, "%64", "%65", "%66", HP_ALL(HP_R64(d, 0)));
    else if constexpr (is_bf16<T>)
        HP_TILES("bf16", "64", HP_T32, "%32", "%33", "%34", HP_ALL(HP_R32(d, 0)));
    else
        HP_TILES("f16", "64", HP_T32, "%32", "%33", "%34", HP_ALL(HP_R32(d, 0)));
}

// d = add ? d + x y : x y; x 64 rows of 16 columns in registers, y a tile of 16 rows of N columns.
#define HP_REGISTERS(TYPE, N, OUT, X, Y, ADD, REGS)                                                \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ADD ", 0;\n"                                  \
                 "wgmma.mma_async.sync.aligned.m64n" N "k16.f32." TYPE "." TYPE " {" OUT "}, {" X  \
                 "}, " Y ", p, 1, 1, 1;\n}"                                                        \
                 : REGS                                                                            \
                 : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(y), "r"(add))
#define HP_X20 "%20, %21, %22, %23"
#define HP_X32 "%32, %33, %34, %35"
template <class T, int N>
__device__ inline void times_columns(float (&d)[N / 2], const uint32_t (&x)[4], uint64_t y, int add)
{
    static_assert(N == 40 || N == 64, "columns");
    if constexpr (N == 40 && is_bf16<T>)
        HP_REGISTERS("bf16", "40", HP_T20, HP_X20, "%24", "%25", HP_ALL(HP_R20(d, 0)));
    else if constexpr (N == 40)
        HP_REGISTERS("f16", "40", HP_T20, HP_X20, "%24", "%25", HP_ALL(HP_R20(d, 0)));
    else if constexpr (is_bf16<T>)
        HP_REGISTERS("bf16", "64", HP_T32, HP_X32, "%36", "%37", HP_ALL(HP_R32(d, 0)));
    else
        HP_REGISTERS("f16", "64", HP_T32, HP_X32, "%36", "%37", HP_ALL(HP_R32(d, 0)));
}

// --- registers -----------------------------------------------------------------------------------
// Registers a thread, for all threads of this warpgroup; a multiple of 8.
template <int N> __device__ inline void registers_more()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ inline void registers_less()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

} // namespace hopper

#endif
