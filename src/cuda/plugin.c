// SPDX-License-Identifier: Apache-2.0
// plugin.c - from the driver's list of GPUs to devices in the registry.
// Idea: a GPU is registered by what the driver says of it; its context, libraries and streams (0.2 s and half
// a gigabyte each) are made when somebody first wants its memory, so that one GPU of eight costs one.
#include "cuda/plugin.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "cuda/cuda.h"

enum { MAX_GPUS = 16, LEAST_CAPABILITY = 80, WORKSPACE = 64 << 20 };

static at_status open_libraries(at_cuda *g)
{
    g->lt = at_cublaslt_open();
    if (!g->lt) at_log(AT_WARN, "CUDA-LIB", "%s; matmuls run on slower kernels", at_error_text());
    if (g->lt && g->lt->Create(&g->lt_handle)) g->lt = NULL;
    g->dnn = at_cudnn_open();
    if (!g->dnn)
        at_log(AT_WARN, "CUDA-LIB", "%s; attention and convolutions run on slower kernels",
               at_error_text());
    if (g->dnn && g->dnn->Create(&g->dnn_handle)) g->dnn = NULL;
    if (g->dnn && g->dnn->SetStream(g->dnn_handle, g->stream)) g->dnn = NULL;
    g->workspace_bytes = WORKSPACE;
    return at_cuda_check(g, cudaMalloc(&g->workspace, g->workspace_bytes),
                         "the libraries' workspace");
}

// Again after a failure: what is there stays.
static at_status make_ready(at_cuda *g)
{
    at_status st = AT_OK;
    AT_TRY(at_cuda_check(g, cudaSetDevice(g->ordinal), "choosing it"));
    if (!g->stream)
        AT_TRY(at_cuda_check(g, cudaStreamCreateWithFlags(&g->stream, cudaStreamNonBlocking),
                             "a stream"));
    if (!g->workspace) AT_TRY(open_libraries(g));
    if (!g->linear_plans) AT_TRY(at_cuda_plans_new(&g->linear_plans));
    if (!g->attention_plans) AT_TRY(at_cuda_plans_new(&g->attention_plans));
    if (!g->conv_plans) AT_TRY(at_cuda_plans_new(&g->conv_plans));
    if (!g->joined_kinds) AT_TRY(at_cuda_plans_new(&g->joined_kinds));
    atomic_store_explicit(&g->opened, true, memory_order_release);
out:
    return st;
}

at_status at_cuda_open(at_cuda *g)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    at_status st = AT_OK;

    if (atomic_load_explicit(&g->opened, memory_order_acquire)) return AT_OK;
    pthread_mutex_lock(&lock);
    if (!atomic_load(&g->opened)) st = make_ready(g);
    pthread_mutex_unlock(&lock);
    return st;
}

static at_status open_gpu(int i, at_cuda **out)
{
    at_status st = AT_OK;
    struct cudaDeviceProp p;
    at_cuda *g = at_calloc(1, sizeof *g);

    if (!g) return at_fail(AT_ENOMEM, "cuda:%d: no memory", i);
    snprintf(g->dev.name, sizeof g->dev.name, "cuda:%d", i);
    AT_TRY(at_cuda_check(g, cudaGetDeviceProperties(&p, i), "asking what it is"));
    g->ordinal = i;
    g->capability = p.major * 10 + p.minor;
    if (g->capability < LEAST_CAPABILITY)
        AT_TRY(at_fail(AT_EUNSUPPORTED, "cuda:%d %s is sm_%d; sm_%d is the least", i, p.name,
                       g->capability, LEAST_CAPABILITY));
    snprintf(g->dev.description, sizeof g->dev.description, "%.60s, %.1f GiB, sm_%d", p.name,
             (double)p.totalGlobalMem / 0x1p30, g->capability);
    g->dev.ops = &at_cuda_device_ops;
    g->dev.backend = &at_cuda_backend;
    g->dev.stream = g;
    AT_TRY(at_cuda_pool_new(&g->pool));
    *out = g;
    g = NULL;
out:
    at_free(g);
    return st;
}

at_status at_cuda_register(int abi)
{
    int n = 0, driver = 0, works = 0;
    at_status failed = at_plugin_meets(abi, AT_PLUGIN_ABI);
    if (failed != AT_OK) return failed;
    // f32 means f32: the libraries would round its products to 10 bits otherwise. Read when they open.
    setenv("NVIDIA_TF32_OVERRIDE", "0", 0);
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaErrorNoDevice) return AT_OK;
    if (e == cudaErrorInsufficientDriver) {
        (void)cudaDriverGetVersion(&driver);
        if (!driver) return at_fail(AT_ENOTFOUND, "no NVIDIA driver on this machine");
        return at_fail(AT_EDEVICE,
                       "the NVIDIA driver knows CUDA %d.%d and this build wants %d.%d; "
                       "install a newer driver",
                       driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
                       CUDART_VERSION % 1000 / 10);
    }
    if (e != cudaSuccess) return at_fail(AT_EDEVICE, "CUDA: %s", cudaGetErrorString(e));
    for (int i = 0; i < n && i < MAX_GPUS; i++) {
        at_cuda *g = NULL;
        at_status st = open_gpu(i, &g);
        if (st == AT_OK) st = at_device_register(&g->dev);
        if (st != AT_OK) at_log(AT_WARN, "CUDA-DEVICE", "%s", at_error_text());
        if (st == AT_OK)
            works++;
        else
            failed = st;
    }
    return works ? AT_OK : failed;
}
