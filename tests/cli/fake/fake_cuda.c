// SPDX-License-Identifier: Apache-2.0
// fake_cuda.c - a plug-in that looks like libat_cuda.so and computes with the CPU's kernels.
// Idea: whatever goes wrong with a GPU can be had on a machine without one. AT_FAKE_CUDA says what is:
//   ok     one GPU, cuda:0, of AT_FAKE_BYTES bytes (default 1 GiB)
//   old    a driver that is too old      none   no driver      lost   a GPU that is lost in its second wait
//   stale  the plug-in of another build
// AT_FAKE_GPUS=2 makes two of them, with AT_FAKE_BYTES and AT_FAKE_BYTES_1; AT_FAKE_DIES names the one that is lost in its
// second wait. AT_FAKE_TELL=1 tells at the end what each has had at most.
// Owns: its devices for the life of the process.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cpu/cpu.h"
#include "cuda/plugin.h"
#include "tensor/device.h"

enum { GPUS = 2 };
typedef struct fake_gpu {
    at_device dev; // first: a device is its fake
    size_t taken, most, size;
    bool dies;
    int waits;
} fake_gpu;
static fake_gpu gpus[GPUS];

static fake_gpu *fake_of(at_device *d)
{
    return (fake_gpu *)(void *)d;
}

static at_status fake_alloc(at_device *d, size_t bytes, void **out)
{
    fake_gpu *g = fake_of(d);
    if (bytes > g->size - g->taken) return AT_ENOMEM;
    size_t *p = at_alloc(bytes + AT_ALIGN);
    if (!p) return AT_ENOMEM;
    *p = bytes;
    g->taken += bytes;
    if (g->taken > g->most) g->most = g->taken;
    *out = (char *)p + AT_ALIGN;
    return AT_OK;
}

static void fake_free(at_device *d, void *p)
{
    if (!p) return;
    size_t *head = (size_t *)(void *)((char *)p - AT_ALIGN);
    fake_of(d)->taken -= *head;
    at_free(head);
}

static at_status fake_wait(at_device *d)
{
    if (!fake_of(d)->dies || ++fake_of(d)->waits < 2) return AT_OK;
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
    *free_bytes = fake_of(d)->size - fake_of(d)->taken;
    *total_bytes = fake_of(d)->size;
    return AT_OK;
}

static void fake_facts(at_device *d, at_device_fact_fn *each, void *ctx)
{
    (void)d;
    each(ctx, "chip", "none at all");
}

static at_status fake_usage(at_device *d, at_device_usage *out)
{
    *out = (at_device_usage){
        .busy = 0.5, .watts = 12, .used_bytes = fake_of(d)->taken, .total_bytes = fake_of(d)->size};
    return AT_OK;
}

static void fake_holds(at_device *d, at_device_holds *out)
{
    if (out) *out = (at_device_holds){.tensors = fake_of(d)->taken, .fixed = (size_t)64 << 20};
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

static void tell(void)
{
    for (int i = 0; i < GPUS; i++)
        if (gpus[i].size) fprintf(stderr, "FAKE %s %zu\n", gpus[i].dev.name, gpus[i].most);
}

static at_status add(int i, const char *what)
{
    fake_gpu *g = &gpus[i];
    const char *own = getenv("AT_FAKE_BYTES_1"), *bytes = getenv("AT_FAKE_BYTES");
    const char *dies = getenv("AT_FAKE_DIES");

    if (i && own) bytes = own;
    g->size = bytes ? strtoull(bytes, NULL, 10) : (size_t)1 << 30;
    snprintf(g->dev.name, sizeof g->dev.name, "cuda:%d", i);
    snprintf(g->dev.description, sizeof g->dev.description, "a fake GPU");
    g->dies = dies ? strcmp(dies, g->dev.name) == 0 : strcmp(what, "lost") == 0;
    g->dev.ops = &fake_ops;
    g->dev.backend = at_cpu_backend();
    return at_device_register(&g->dev);
}

at_status at_cuda_register(int abi)
{
    const char *what = getenv("AT_FAKE_CUDA"), *number = getenv("AT_FAKE_GPUS");
    int n = number && strcmp(number, "2") == 0 ? 2 : 1;

    at_status st = at_plugin_meets(abi, AT_PLUGIN_ABI - (what && strcmp(what, "stale") == 0));
    if (st != AT_OK) return st;
    if (!what || strcmp(what, "none") == 0)
        return at_fail(AT_ENOTFOUND, "no NVIDIA driver on this machine");
    if (strcmp(what, "old") == 0)
        return at_fail(AT_EDEVICE, "the NVIDIA driver knows CUDA 11.4 and this build wants 13.0; "
                                   "install a newer driver");
    for (int i = 0; i < n && st == AT_OK; i++)
        st = add(i, what);
    if (getenv("AT_FAKE_TELL")) atexit(tell);
    return st;
}
