// SPDX-License-Identifier: Apache-2.0
// wire.cu - pushes between GPUs: flags, and stores into the peer's memory.
// Idea: one launch does a whole exchange. Every block waits until the peers may be written to, all of them
// copy strided words straight to where they belong (over NVLink a store is as fast as a copy engine and needs no
// packing before it), the last block to end tells the peers and waits for theirs. See wire.h.
// Easy to get wrong: data must be with the peer before the flag says so: all blocks' stores, a fence of the
// whole system by each block, the count of blocks, a release store. What peers wrote is read by later kernels
// alone. A peer's memory must not be read through L1. Flags alone are a warp of at most 32 registers a thread: it finds
// room beside a block of matrix products that takes 64512 of an SM's 65536, where a larger one would wait for its end.
#include "cuda/dtype.cuh"
#include "cuda/wire.h"

namespace
{

enum { THREADS = 512, BLOCKS = 132, SPINS = 256, AT_ONCE = 4 };

__device__ void tell(uint32_t *flag, uint32_t value)
{
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}

__device__ uint32_t hear(const uint32_t *flag)
{
    uint32_t value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
    return value;
}

__device__ uint64_t now()
{
    uint64_t ns;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(ns));
    return ns;
}

// Until the peer's count is `round`; false: the wire is cut.
__device__ bool wait_for(const uint32_t *flag, uint32_t round, const volatile uint32_t *cut)
{
    for (unsigned i = 1; (int32_t)(hear(flag) - round) < 0; i++)
        if (i % SPINS == 0 && *cut) return false;
    return true;
}

// All threads of the block: false if the wire is cut. `first`: this block speaks for the rank.
// whole: the end comes in the same launch, and what lies between is sending.
__device__ bool begin(const at_k_wire &w, bool first, bool whole)
{
    bool well = true;
    uint64_t came = now();
    if (threadIdx.x < w.peers) {
        const at_k_wire_peer &p = w.peer[threadIdx.x];
        uint32_t round = w.own->round[p.rank] + 1;
        if (first) tell(&p.there->ready, round);
        well = wait_for(&p.here->ready, round, w.cut);
    }
    well = __syncthreads_and(well);
    if (first && threadIdx.x == 0) {
        uint64_t go = now();
        w.own->waited += go - came;
        w.own->came = came;
        w.own->went = go;
        if (whole) w.own->since = go;
    }
    return well;
}

// By one thread: a push has ended.
__device__ void note(const at_k_wire &w, const at_k_wire_record &r)
{
    uint32_t at = w.own->noted++;
    if (at < w.room) w.notes[at] = r;
}

// All threads of one block, behind all others' work. The rounds go up here, where nobody reads them any more.
__device__ void end(const at_k_wire &w)
{
    uint64_t sent = now();
    if (threadIdx.x < w.peers) {
        const at_k_wire_peer &p = w.peer[threadIdx.x];
        uint32_t round = w.own->round[p.rank] + 1;
        tell(&p.there->done, round);
        wait_for(&p.here->done, round, w.cut);
        w.own->round[p.rank] = round;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        uint64_t done = now();
        w.own->waited += done - sent;
        if (w.notes) note(w, {w.own->came, w.own->went, sent, done, 0, w.bytes});
        if (w.own->since) w.own->moved += sent - w.own->since;
        w.own->since = 0;
        w.own->pushes++;
    }
}

// True in the block that is last to come here, when all others' stores have arrived everywhere.
__device__ bool last_block(at_k_wire_own *own)
{
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence_system();
        last = atomicAdd(&own->blocks, 1) == gridDim.x - 1;
        if (last) {
            own->blocks = 0;
            __threadfence_system();
        }
    }
    __syncthreads();
    return last;
}

template <class T> __device__ void copy(const at_k_wire_copy &c)
{
    const T *from = reinterpret_cast<const T *>(c.from);
    T *to = reinterpret_cast<T *>(c.to);
    uint32_t total = c.n[0] * c.n[1] * c.n[2] * c.n[3], step = gridDim.x * THREADS;
    for (uint32_t i = blockIdx.x * THREADS + threadIdx.x; i < total; i += step * AT_ONCE) {
        T x[AT_ONCE];
        int64_t put[AT_ONCE];
#pragma unroll
        for (int e = 0; e < AT_ONCE; e++) {
            uint32_t at = i + e * step, rest = at / c.n[0], a = at - rest * c.n[0];
            uint32_t up = rest / c.n[1], b = rest - up * c.n[1];
            uint32_t d = up / c.n[2], m = up - d * c.n[2];
            put[e] = a * c.step_to[0] + b * c.step_to[1] + m * c.step_to[2] + d * c.step_to[3];
            if (at < total)
                x[e] = from[a * c.step_from[0] + b * c.step_from[1] + m * c.step_from[2] +
                            d * c.step_from[3]];
        }
#pragma unroll
        for (int e = 0; e < AT_ONCE; e++)
            if (i + e * step < total) to[put[e]] = x[e];
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    push_kernel(const __grid_constant__ at_k_wire w, bool waits, bool ends)
{
    bool well = !waits || begin(w, blockIdx.x == 0, ends);
    for (int i = 0; i < w.copies && well; i++)
        copy<T>(w.copy[i]);
    if (ends && last_block(w.own)) end(w);
}

// The stores of copy engines before this in its stream are done; the fence orders them before the flag.
template <bool NOTES>
__global__ void __launch_bounds__(32) flags_kernel(const __grid_constant__ at_k_wire w, int steps)
{
    uint64_t came = now();
    if (threadIdx.x < w.peers) {
        const at_k_wire_peer &p = w.peer[threadIdx.x];
        uint32_t round = w.own->round[p.rank] + 1;
        if (steps & AT_K_WIRE_TELL_READY) tell(&p.there->ready, round);
        if (steps & AT_K_WIRE_READY) wait_for(&p.here->ready, round, w.cut);
        if (steps & AT_K_WIRE_TELL_SENT) {
            __threadfence_system();
            tell(&p.there->done, round);
        }
        if (steps & AT_K_WIRE_SENT) {
            wait_for(&p.here->done, round, w.cut);
            w.own->round[p.rank] = round;
        }
    }
    __syncwarp();
    if (threadIdx.x) return;
    if (steps & AT_K_WIRE_SENT) {
        w.own->waited += now() - came;
        w.own->pushes++;
    }
    if (!NOTES) return;
    if (steps & AT_K_WIRE_READY) {
        w.own->apart_came = came;
        w.own->apart_went = now();
    }
    if (steps & AT_K_WIRE_TELL_SENT) w.own->apart_sent = came;
    if (steps & AT_K_WIRE_HELD) w.own->held = came;
    if (steps & AT_K_WIRE_SENT)
        note(w, {w.own->apart_came, w.own->apart_went, w.own->apart_sent, now(), w.own->held,
                 w.bytes});
}

__global__ void clock_kernel(uint64_t *out)
{
    *out = now();
    __threadfence_system();
}

// Words of 16 bytes, AT_ONCE of them asked of each rank before one is waited for: what a peer has comes over the link.
template <class T> __device__ void sum_words(const at_k_wire_sum_in &a)
{
    constexpr int EACH = 16 / sizeof(T);
    const uint32_t words = (uint32_t)(a.count / EACH), step = gridDim.x * THREADS;
    for (uint32_t i = blockIdx.x * THREADS + threadIdx.x; i < words; i += step * AT_ONCE) {
        float sum[AT_ONCE][EACH] = {};
        for (int k = 0; k < a.n; k++) {
            const uint4 *from = reinterpret_cast<const uint4 *>((const T *)a.inout[k] + a.first);
            uint4 x[AT_ONCE];
#pragma unroll
            for (int e = 0; e < AT_ONCE; e++)
                x[e] = __ldcv(from + (i + e * step < words ? i + e * step : i));
#pragma unroll
            for (int e = 0; e < AT_ONCE; e++) {
                const vec<T, EACH> &one = reinterpret_cast<const vec<T, EACH> &>(x[e]);
#pragma unroll
                for (int j = 0; j < EACH; j++)
                    sum[e][j] += to_f32(one.v[j]);
            }
        }
        for (int k = 0; k < a.n; k++) {
            T *to = (T *)a.inout[k] + a.first;
#pragma unroll
            for (int e = 0; e < AT_ONCE; e++)
                if (i + e * step < words)
                    store<T, EACH>(to + (size_t)(i + e * step) * EACH, sum[e]);
        }
    }
}

// Read past L1, as words are.
__device__ inline float fresh(const float *p)
{
    return __ldcv(p);
}
template <class T> __device__ inline float fresh(const T *p)
{
    const unsigned short bits = __ldcv(reinterpret_cast<const unsigned short *>(p));
    T x;
    memcpy(&x, &bits, sizeof x);
    return to_f32(x);
}

// Elements [first, count) of the share, one by one.
template <class T> __device__ void sum_rest(const at_k_wire_sum_in &a, size_t first)
{
    for (size_t i = first + blockIdx.x * (size_t)THREADS + threadIdx.x; i < a.count;
         i += (size_t)gridDim.x * THREADS) {
        float sum = 0;
        for (int k = 0; k < a.n; k++)
            sum += fresh((const T *)a.inout[k] + a.first + i);
        for (int k = 0; k < a.n; k++)
            ((T *)a.inout[k])[a.first + i] = from_f32<T>(sum);
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    sum_kernel(const __grid_constant__ at_k_wire w, const __grid_constant__ at_k_wire_sum_in a,
               bool whole_words)
{
    constexpr int EACH = 16 / sizeof(T);
    if (begin(w, blockIdx.x == 0, true)) {
        if (whole_words) sum_words<T>(a);
        sum_rest<T>(a, whole_words ? a.count / EACH * EACH : 0);
    }
    if (last_block(w.own)) end(w);
}

template <class T> __global__ void add_kernel(const __grid_constant__ at_k_wire_sum_in a, T *into)
{
    for (size_t i = blockIdx.x * (size_t)THREADS + threadIdx.x; i < a.count;
         i += (size_t)gridDim.x * THREADS) {
        float sum = 0;
        for (int k = 0; k < a.n; k++)
            sum += to_f32(((const T *)a.inout[k])[i]);
        into[i] = from_f32<T>(sum);
    }
}

unsigned blocks_for(size_t words)
{
    size_t blocks = (words + THREADS * AT_ONCE - 1) / (THREADS * AT_ONCE);
    return (unsigned)(blocks < 1 ? 1 : blocks > BLOCKS ? BLOCKS : blocks);
}

} // namespace

extern "C" cudaError_t at_k_wire_push(cudaStream_t s, const at_k_wire *w, bool begin, bool end)
{
    size_t words = 0;
    for (int i = 0; i < w->copies; i++) {
        const uint32_t *n = w->copy[i].n;
        words += (size_t)n[0] * n[1] * n[2] * n[3];
    }
    unsigned blocks = blocks_for(words);
    if (w->unit == 16)
        push_kernel<uint4><<<blocks, THREADS, 0, s>>>(*w, begin, end);
    else if (w->unit == 4)
        push_kernel<uint32_t><<<blocks, THREADS, 0, s>>>(*w, begin, end);
    else if (w->unit == 2)
        push_kernel<uint16_t><<<blocks, THREADS, 0, s>>>(*w, begin, end);
    else
        push_kernel<uint8_t><<<blocks, THREADS, 0, s>>>(*w, begin, end);
    return cudaGetLastError();
}

extern "C" cudaError_t at_k_wire_flags_only(cudaStream_t s, const at_k_wire *w, int steps)
{
    if (w->notes)
        flags_kernel<true><<<1, 32, 0, s>>>(*w, steps);
    else
        flags_kernel<false><<<1, 32, 0, s>>>(*w, steps);
    return cudaGetLastError();
}

extern "C" cudaError_t at_k_wire_clock(cudaStream_t s, uint64_t *out)
{
    clock_kernel<<<1, 1, 0, s>>>(out);
    return cudaGetLastError();
}

extern "C" cudaError_t at_k_wire_sum(cudaStream_t s, const at_k_wire *w, const at_k_wire_sum_in *a)
{
    const size_t size = a->dtype == AT_F32 ? 4 : 2;
    bool words = a->count < (size_t)1 << 32;
    for (int k = 0; k < a->n; k++)
        words = words && ((uintptr_t)a->inout[k] + a->first * size) % 16 == 0;
    unsigned blocks = blocks_for(words ? a->count * size / 16 : a->count);
    if (a->dtype == AT_BF16)
        sum_kernel<bf16><<<blocks, THREADS, 0, s>>>(*w, *a, words);
    else if (a->dtype == AT_F16)
        sum_kernel<f16><<<blocks, THREADS, 0, s>>>(*w, *a, words);
    else
        sum_kernel<float><<<blocks, THREADS, 0, s>>>(*w, *a, words);
    return cudaGetLastError();
}

extern "C" cudaError_t at_k_wire_add(cudaStream_t s, const at_k_wire_sum_in *from, void *into)
{
    unsigned blocks = blocks_for(from->count);
    if (from->dtype == AT_BF16)
        add_kernel<<<blocks, THREADS, 0, s>>>(*from, (bf16 *)into);
    else if (from->dtype == AT_F16)
        add_kernel<<<blocks, THREADS, 0, s>>>(*from, (f16 *)into);
    else
        add_kernel<<<blocks, THREADS, 0, s>>>(*from, (float *)into);
    return cudaGetLastError();
}
