// SPDX-License-Identifier: Apache-2.0
// facts.c - what a GPU tells people (atelier devices) and metrics: versions, links, peers, load.
// Idea: the runtime says what the chip is, NVML (the driver's own library, opened by name) what lies
// around it; a fact that nobody knows is left out. Nothing here is asked while a picture is made.
// Owns nothing.
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cuda/cuda.h"
#include "cuda/nvml.h"

// The GPU's handle in NVML, or NULL.
static void *handle_of(const at_cuda *g, const at_nvml *n)
{
    char bus[32] = "";
    void *device = NULL;

    if (!n || cudaDeviceGetPCIBusId(bus, sizeof bus, g->ordinal) != cudaSuccess) return NULL;
    return n->DeviceGetHandleByPciBusId_v2(bus, &device) == NVML_SUCCESS ? device : NULL;
}

static int links_of(const at_nvml *n, void *device)
{
    int count = 0;

    for (unsigned i = 0; i < NVML_LINKS; i++) {
        int active = 0;
        count += n->DeviceGetNvLinkState(device, i, &active) == NVML_SUCCESS && active;
    }
    return count;
}

// --- for people ------------------------------------------------------------------------------
typedef struct listener {
    at_device_fact_fn *each;
    void *ctx;
} listener;

__attribute__((format(printf, 3, 4))) static void tell(const listener *l, const char *name,
                                                       const char *fmt, ...)
{
    char text[160];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    l->each(l->ctx, name, text);
}

static void tell_versions(const at_cuda *g, const at_nvml *n, const listener *l)
{
    int cuda = 0;
    char driver[96] = "";

    (void)cudaDriverGetVersion(&cuda);
    if (n) (void)n->SystemGetDriverVersion(driver, sizeof driver);
    tell(l, "driver", "%s%sCUDA %d.%d", driver, *driver ? ", " : "", cuda / 1000, cuda % 1000 / 10);
    tell(l, "runtime", "CUDA %d.%d", CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (g->lt) {
        size_t v = g->lt->GetVersion(); // 130101: 13.1.1; from 11 on
        tell(l, "cublasLt", "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    }
    if (g->dnn) {
        size_t v = g->dnn->GetVersion(); // 91900: 9.19.0
        tell(l, "cudnn", "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    }
}

static void tell_chip(const at_cuda *g, const listener *l)
{
    struct cudaDeviceProp p;

    if (cudaGetDeviceProperties(&p, g->ordinal) != cudaSuccess) return;
    tell(l, "chip", "%s", p.name);
    tell(l, "capability", "%d.%d", p.major, p.minor);
    tell(l, "multiprocessors", "%d", p.multiProcessorCount);
    tell(l, "l2", "%.0f MiB", (double)p.l2CacheSize / 0x1p20);
}

static void tell_link(const at_cuda *g, int other, const listener *l, const char *name,
                      const char *kind)
{
    char device[32];
    at_wire_link link;

    snprintf(device, sizeof device, "cuda:%d", other);
    at_device *d = at_device_find(device);
    if (d && at_cuda_link((at_device *)(uintptr_t)&g->dev, d, &link) == AT_OK)
        tell(l, name, "%s, %.0f GB/s each way, %.1f us", kind, link.bandwidth / 1e9,
             link.seconds * 1e6);
    else
        tell(l, name, "%s", kind);
}

static void tell_links(const at_cuda *g, const at_nvml *n, const listener *l)
{
    char bus[32] = "";
    void *device = handle_of(g, n);
    unsigned generation = 0, width = 0;
    int count = 0;

    if (cudaDeviceGetPCIBusId(bus, sizeof bus, g->ordinal) == cudaSuccess)
        tell(l, "pci", "%s", bus);
    if (device && n->DeviceGetMaxPcieLinkGeneration(device, &generation) == NVML_SUCCESS &&
        n->DeviceGetMaxPcieLinkWidth(device, &width) == NVML_SUCCESS)
        tell(l, "pcie", "generation %u x%u", generation, width);
    if (device) tell(l, "nvlinks", "%d", links_of(n, device));
    (void)cudaGetDeviceCount(&count);
    for (int i = 0; i < count; i++) {
        int access = 0, atomics = 0;
        char name[32];
        if (i == g->ordinal) continue;
        (void)cudaDeviceGetP2PAttribute(&access, cudaDevP2PAttrAccessSupported, g->ordinal, i);
        (void)cudaDeviceGetP2PAttribute(&atomics, cudaDevP2PAttrNativeAtomicSupported, g->ordinal,
                                        i);
        snprintf(name, sizeof name, "peer cuda:%d", i);
        // Native atomics between GPUs are NVLink's; over PCIe there are none.
        tell_link(g, i, l, name, !access ? "through the host" : atomics ? "NVLink" : "PCIe");
    }
    (void)cudaGetLastError();
}

void at_cuda_facts(at_device *d, at_device_fact_fn *each, void *ctx)
{
    at_cuda *g = (at_cuda *)d;
    const at_nvml *n = at_nvml_open();
    const listener l = {each, ctx};

    (void)at_cuda_open(g); // for the libraries' versions

    tell_chip(g, &l);
    tell_versions(g, n, &l);
    tell_links(g, n, &l);
}

// --- for metrics -----------------------------------------------------------------------------
// What this process holds on the device; 0 where NVML does not say (containers hide processes).
static uint64_t own_bytes(const at_nvml *n, void *device)
{
    at_nvml_process list[NVML_PROCESSES];
    unsigned count = NVML_PROCESSES;

    if (n->DeviceGetComputeRunningProcesses_v3(device, &count, list) != NVML_SUCCESS) return 0;
    for (unsigned i = 0; i < count && i < NVML_PROCESSES; i++)
        if (list[i].pid == (unsigned)getpid() && list[i].bytes != ~0ull) return list[i].bytes;
    return 0;
}

static void ask_clock_and_power(const at_nvml *n, void *device, at_device_usage *out)
{
    unsigned long long reasons = 0, millijoules = 0;
    unsigned value;

    if (n->DeviceGetPowerUsage(device, &value) == NVML_SUCCESS) out->watts = value / 1e3;
    if (n->DeviceGetEnforcedPowerLimit(device, &value) == NVML_SUCCESS)
        out->limit_watts = value / 1e3;
    if (n->DeviceGetTotalEnergyConsumption(device, &millijoules) == NVML_SUCCESS)
        out->joules = (double)millijoules / 1e3;
    if (n->DeviceGetClockInfo(device, NVML_CLOCK_SM, &value) == NVML_SUCCESS) out->mhz = value;
    if (n->DeviceGetMaxClockInfo(device, NVML_CLOCK_SM, &value) == NVML_SUCCESS)
        out->max_mhz = value;
    if (n->DeviceGetCurrentClocksThrottleReasons(device, &reasons) != NVML_SUCCESS) return;
    if (reasons & (NVML_POWER_CAP | NVML_POWER_BRAKE)) out->limits |= AT_LIMIT_POWER;
    if (reasons & (NVML_HEAT | NVML_HARDWARE_HEAT)) out->limits |= AT_LIMIT_HEAT;
    if (reasons & NVML_SLOWDOWN) out->limits |= AT_LIMIT_OTHER;
}

at_status at_cuda_usage(at_device *d, at_device_usage *out)
{
    const at_cuda *g = (const at_cuda *)d;
    const at_nvml *n = at_nvml_open();
    void *device = handle_of(g, n);
    at_nvml_memory memory;
    at_nvml_rates rates;
    unsigned value;

    *out = (at_device_usage){
        .busy = -1, .memory_busy = -1, .watts = -1, .limit_watts = -1, .celsius = -1};
    if (!device)
        return at_fail(AT_EUNSUPPORTED, "%s: the driver's management library does not answer",
                       d->name);
    if (n->DeviceGetUtilizationRates(device, &rates) == NVML_SUCCESS) {
        out->busy = rates.gpu / 100.0;
        out->memory_busy = rates.memory / 100.0;
    }
    if (n->DeviceGetMemoryInfo(device, &memory) == NVML_SUCCESS) {
        out->used_bytes = memory.used;
        out->total_bytes = memory.total;
    }
    out->process_bytes = own_bytes(n, device);
    ask_clock_and_power(n, device, out);
    if (n->DeviceGetTemperature(device, NVML_SENSOR_GPU, &value) == NVML_SUCCESS)
        out->celsius = value;
    return AT_OK;
}
