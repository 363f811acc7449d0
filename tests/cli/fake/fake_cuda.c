// SPDX-License-Identifier: Apache-2.0
// fake_cuda.c - a plug-in that looks like libat_cuda.so and computes with the CPU's kernels.
// Idea: whatever goes wrong with a GPU can be had on a machine without one. AT_FAKE_CUDA says what is:
//   ok     one GPU, cuda:0, of AT_FAKE_BYTES bytes (default 1 GiB)
//   old    a driver that is too old      none   no driver      lost   a GPU that is lost in its second wait
//   stale  the plug-in of another build
// Owns: one device for the life of the process.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cpu/cpu.h"
#include "cuda/plugin.h"
#include "tensor/device.h"

static at_device gpu;
static size_t taken, size;
static bool dies;
static int waits;

static at_status fake_alloc(at_device *d, size_t bytes, void **out)
{
    (void)d;
    if (bytes > size - taken) return AT_ENOMEM;
    size_t *p = at_alloc(bytes + AT_ALIGN);
    if (!p) return AT_ENOMEM;
    *p = bytes;
    taken += bytes;
    *out = (char *)p + AT_ALIGN;
    return AT_OK;
}

static void fake_free(at_device *d, void *p)
{
    (void)d;
    if (!p) return;
    size_t *head = (size_t *)(void *)((char *)p - AT_ALIGN);
    taken -= *head;
    at_free(head);
}

static at_status fake_wait(at_device *d)
{
    if (!dies || ++waits < 2) return AT_OK;
    at_device_lose(d, "an illegal memory access was encountered");
    return at_device_check(d);
}

static at_status fake_in(at_device *d, void *dst, const void *src, size_t bytes)
{
    at_status st = at_device_check(d);
    if (st == AT_OK && bytes) memcpy(dst, src, bytes);
    return st;
}

static at_status fake_out(at_device *d, void *dst, const void *src, size_t bytes)
{
    at_status st = fake_wait(d);
    if (st == AT_OK && bytes) memcpy(dst, src, bytes);
    return st;
}

static at_status fake_memory(at_device *d, uint64_t *free_bytes, uint64_t *total_bytes)
{
    (void)d;
    *free_bytes = size - taken;
    *total_bytes = size;
    return AT_OK;
}

static void fake_facts(at_device *d, at_device_fact_fn *each, void *ctx)
{
    (void)d;
    each(ctx, "chip", "none at all");
}

static at_status fake_usage(at_device *d, at_device_usage *out)
{
    (void)d;
    *out = (at_device_usage){.busy = 0.5, .watts = 12, .used_bytes = taken, .total_bytes = size};
    return AT_OK;
}

static void fake_holds(at_device *d, at_device_holds *out)
{
    (void)d;
    if (out) *out = (at_device_holds){.tensors = taken, .fixed = (size_t)64 << 20};
}

static const at_device_ops fake_ops = {.alloc = fake_alloc,
                                       .free = fake_free,
                                       .from_host = fake_in,
                                       .to_host = fake_out,
                                       .synchronize = fake_wait,
                                       .memory = fake_memory,
                                       .facts = fake_facts,
                                       .usage = fake_usage,
                                       .holds = fake_holds};

at_status at_cuda_register(int abi)
{
    const char *what = getenv("AT_FAKE_CUDA"), *bytes = getenv("AT_FAKE_BYTES");

    at_status st = at_plugin_meets(abi, AT_PLUGIN_ABI - (what && strcmp(what, "stale") == 0));
    if (st != AT_OK) return st;
    if (!what || strcmp(what, "none") == 0)
        return at_fail(AT_ENOTFOUND, "no NVIDIA driver on this machine");
    if (strcmp(what, "old") == 0)
        return at_fail(AT_EDEVICE, "the NVIDIA driver knows CUDA 11.4 and this build wants 13.0; "
                                   "install a newer driver");
    dies = strcmp(what, "lost") == 0;
    size = bytes ? strtoull(bytes, NULL, 10) : (size_t)1 << 30;
    snprintf(gpu.name, sizeof gpu.name, "cuda:0");
    snprintf(gpu.description, sizeof gpu.description, "a fake GPU");
    gpu.ops = &fake_ops;
    gpu.backend = at_cpu_backend();
    return at_device_register(&gpu);
}
