// SPDX-License-Identifier: Apache-2.0
// async.cuh - 16 bytes from global to shared memory without waiting (cp.async, sm_80 on).
// Idea: a thread that fetches its own pieces of rows to come into its own places of shared memory
// keeps memory busy while it works, and pays no registers for it. What a thread copied itself it may
// read after its own wait, without a barrier.
#ifndef AT_CUDA_ASYNC_CUH
#define AT_CUDA_ASYNC_CUH

#include <stdint.h>

__device__ inline void async_copy(void *shared, const void *global)
{
    uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}

// The same through the first cache, for what other threads of the block want too.
__device__ inline void async_copy_shared(void *shared, const void *global)
{
    uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}

// Closes a group of copies, which may be empty.
__device__ inline void async_close()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until all but this thread's last OPEN groups are there.
template <int OPEN> __device__ inline void async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(OPEN) : "memory");
}

#endif
