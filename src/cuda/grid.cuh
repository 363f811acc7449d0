// SPDX-License-Identifier: Apache-2.0
// grid.cuh - launches that begin while the kernel before them ends, and blocks that share sums.
// Idea: from sm_90 on a kernel may be brought onto the chip before its stream's last one is done
// (programmatic dependent launch); it then waits on the device, which hides what a launch costs. And
// neighbouring blocks may form a cluster that reads each other's shared memory.
// Easy to get wrong: every thread calls grid_wait before its first access to memory, even to end, or
// the kernel behind this one could start before the one ahead is done; a block must stay until the
// others of its cluster have read its memory.
#ifndef AT_CUDA_GRID_CUH
#define AT_CUDA_GRID_CUH

#include <cuda_runtime.h>
#include <stdint.h>

// Waits until what the stream had before this kernel is done and seen.
__device__ inline void grid_wait()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next kernel of this kind may be brought onto the chip.
__device__ inline void grid_next()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// How a kernel begins that launch_early or launch_wide launches.
__device__ inline void grid_begin()
{
    grid_wait();
    grid_next();
}

// All threads of the cluster have come to cluster_arrive; what they wrote before is seen behind it.
__device__ inline void cluster_arrive()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}

__device__ inline void cluster_wait()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// A float2 that lies in block `rank` of the cluster where `mine` lies in this one.
__device__ inline float2 cluster_read(const float2 *mine, unsigned rank)
{
    float2 x = *mine;
#if __CUDA_ARCH__ >= 900
    uint32_t here = (uint32_t)__cvta_generic_to_shared(mine), there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
    asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];"
                 : "=f"(x.x), "=f"(x.y)
                 : "r"(there)
                 : "memory");
#endif
    return x;
}

// How many blocks a cluster may have on the current device: 1 before sm_90.
static inline int most_of_cluster()
{
    static int known[16]; // by device; 0: not asked yet
    int d = 0, major = 0;
    if (cudaGetDevice(&d) != cudaSuccess || d < 0 || d >= 16) return 1;
    if (!known[d])
        known[d] =
            cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, d) == cudaSuccess &&
                    major >= 9
                ? 8
                : 1;
    return known[d];
}

// Launches a kernel that begins with grid_begin, with `shared` bytes for each block beyond its own, in
// clusters of `cluster` blocks along x.
template <class... P, class... A>
static inline cudaError_t launch_wide(void (*kernel)(P...), dim3 grid, unsigned threads,
                                      size_t shared, unsigned cluster, cudaStream_t s, A... args)
{
    cudaLaunchAttribute at[2] = {};
    cudaLaunchConfig_t c = {};
    c.gridDim = grid;
    c.blockDim = dim3(threads);
    c.dynamicSmemBytes = shared;
    c.stream = s;
    c.attrs = at;
    if (most_of_cluster() > 1) {
        at[c.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        at[c.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (cluster > 1) {
        at[c.numAttrs].id = cudaLaunchAttributeClusterDimension;
        at[c.numAttrs].val.clusterDim.x = cluster;
        at[c.numAttrs].val.clusterDim.y = 1;
        at[c.numAttrs++].val.clusterDim.z = 1;
    }
    return cudaLaunchKernelEx(&c, kernel, P(args)...);
}

template <class... P, class... A>
static inline cudaError_t launch_early(void (*kernel)(P...), dim3 grid, unsigned threads,
                                       size_t shared, cudaStream_t s, A... args)
{
    return launch_wide(kernel, grid, threads, shared, 1, s, args...);
}

#endif
