// SPDX-License-Identifier: Apache-2.0
// fake_cudart.c - as much of the CUDA runtime as memory.c, upload.c and weights.c call, over host memory.
// Idea: everything happens at once, in the order in which it is called; memory is bounded and counted. What
// the plug-in's bookkeeping and threads do can be tested (and sanitized) without a GPU; what streams do in
// parallel cannot.
// Owns: blocks that are not freed yet.
#include "fake_cudart.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cuda/cuda.h"

fake_gpu fake = {.room = (size_t)1 << 40};
static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static cudaError_t g_last;
static _Thread_local bool t_waited;

static cudaError_t fails(cudaError_t e)
{
    g_last = e;
    return e;
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    cudaError_t e = cudaErrorMemoryAllocation;
    pthread_mutex_lock(&g_lock);
    if (bytes <= fake.room - fake.taken) {
        size_t *p = at_alloc(bytes + AT_ALIGN);
        if (p) {
            *p = bytes;
            fake.taken += bytes;
            fake.mallocs++;
            *out = (char *)p + AT_ALIGN;
            memset(*out, 0xA5, bytes);
            e = cudaSuccess;
        }
    }
    pthread_mutex_unlock(&g_lock);
    return e == cudaSuccess ? e : fails(e);
}

cudaError_t cudaFree(void *p)
{
    if (!p) return cudaSuccess;
    size_t *head = (size_t *)(void *)((char *)p - AT_ALIGN);
    pthread_mutex_lock(&g_lock);
    fake.taken -= *head;
    fake.frees++;
    pthread_mutex_unlock(&g_lock);
    at_free(head);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *rest, size_t *all)
{
    *rest = fake.room - fake.taken;
    *all = fake.room;
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned flags)
{
    (void)flags;
    *out = fake.pinned = at_alloc(bytes);
    return *out ? cudaSuccess : fails(cudaErrorMemoryAllocation);
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t n, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    (void)stream;
    if (fake.copy_error != cudaSuccess) return fails(fake.copy_error);
    memcpy(dst, src, n);
    if (kind == cudaMemcpyHostToDevice && n > 256 << 10) fake.bare_copies += !t_waited;
    t_waited = false;
    if (kind == cudaMemcpyHostToDevice) fake.uploaded += n;
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
    (void)flags;
    *out = (cudaEvent_t)at_alloc(1);
    __atomic_fetch_add(&fake.events, 1, __ATOMIC_RELAXED);
    return *out ? cudaSuccess : fails(cudaErrorMemoryAllocation);
}
cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    __atomic_fetch_sub(&fake.events, 1, __ATOMIC_RELAXED);
    at_free(e);
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    (void)e;
    (void)s;
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    (void)e;
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    (void)flags;
    *out = NULL;
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int priority)
{
    (void)priority;
    return cudaStreamCreateWithFlags(out, flags);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *out)
{
    return cudaEventCreateWithFlags(out, 0);
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    *ms = from != to;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *out, int n, int device)
{
    snprintf(out, (size_t)n, "0000:%02x:00.0", device);
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    (void)s;
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags)
{
    t_waited = true;
    (void)s;
    (void)e;
    (void)flags;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    (void)s;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int i)
{
    (void)i;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *i)
{
    *i = 0;
    return cudaSuccess;
}
cudaError_t cudaGetLastError(void)
{
    cudaError_t e = g_last;
    g_last = cudaSuccess;
    return e;
}
const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaErrorIllegalAddress ? "an illegal memory access was encountered" : "an error";
}

// --- recordings: nothing is kept of them but that they are there ---------------------------------
cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode)
{
    (void)s;
    (void)mode;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *out)
{
    (void)s;
    *out = (cudaGraph_t)at_alloc(1);
    return *out ? cudaSuccess : fails(cudaErrorMemoryAllocation);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags)
{
    (void)graph;
    (void)flags;
    *out = (cudaGraphExec_t)at_alloc(1);
    return *out ? cudaSuccess : fails(cudaErrorMemoryAllocation);
}
cudaError_t cudaGraphUpload(cudaGraphExec_t graph, cudaStream_t s)
{
    (void)graph;
    (void)s;
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t s)
{
    (void)graph;
    (void)s;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph)
{
    at_free(graph);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    at_free(graph);
    return cudaSuccess;
}

// --- several GPUs: one memory, as with peer access ----------------------------------------------
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    *can = device != peer && !fake.apart;
    return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags)
{
    (void)peer;
    (void)flags;
    return cudaErrorPeerAccessAlreadyEnabled;
}
cudaError_t cudaMemset(void *p, int value, size_t n)
{
    memset(p, value, n);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t s)
{
    (void)s;
    memset(p, value, n);
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *p)
{
    at_free(p);
    return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void *dst, size_t up, const void *src, size_t down, size_t width,
                              size_t rows, enum cudaMemcpyKind kind, cudaStream_t s)
{
    (void)kind;
    (void)s;
    for (size_t i = 0; i < rows; i++)
        memcpy((char *)dst + i * up, (const char *)src + i * down, width);
    return cudaSuccess;
}

// --- kernels: bf16 and f32 bytes as they are, filters turned -----------------------------------------
cudaError_t at_k_copy(cudaStream_t s, const at_view *src, const at_view *dst)
{
    if (src->dtype == dst->dtype) { // contiguous, as weights are
        memcpy(dst->data, src->data, (size_t)at_cuda_count(src) * at_cuda_size(src->dtype));
        return cudaSuccess;
    }
    (void)s;
    int64_t n = at_cuda_count(src);
    if (src->rank != dst->rank || memcmp(src->shape, dst->shape, sizeof *dst->shape * 4) != 0)
        return fails(cudaErrorInvalidValue);
    for (int64_t i = 0; i < n; i++) { // bf16 -> f32 alone
        uint32_t bits = (uint32_t)((const uint16_t *)src->data)[i] << 16;
        memcpy((char *)dst->data + 4 * i, &bits, 4);
    }
    return cudaSuccess;
}

cudaError_t at_k_filter(cudaStream_t s, const at_view *src, const at_view *dst)
{
    (void)s;
    const int64_t *n = src->shape;
    const uint16_t *from = src->data;
    uint16_t *to = dst->data;
    for (int64_t o = 0; o < n[0]; o++)
        for (int64_t i = 0; i < n[1]; i++)
            for (int64_t k = 0; k < n[2] * n[3]; k++)
                to[(o * n[2] * n[3] + k) * n[1] + i] = from[(o * n[1] + i) * n[2] * n[3] + k];
    return cudaSuccess;
}

at_status at_cuda_open(at_cuda *g)
{
    (void)g;
    return AT_OK;
}
