// SPDX-License-Identifier: Apache-2.0
// device.c - the registry of devices and the CPU's memory.
// Idea: allocation passes through byte counters here, so a device kind only has to give bytes.
// Owns: the CPU device; other devices belong to whoever registered them and live as long as the
// process.
#include "tensor/device.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"

enum { MAX_DEVICES = 64 };

// --- the CPU ---------------------------------------------------------------------------------
static at_status cpu_alloc(at_device *d, size_t bytes, void **out)
{
    (void)d;
    *out = at_alloc(bytes);
    return *out ? AT_OK : AT_ENOMEM;
}

static void cpu_free(at_device *d, void *p)
{
    (void)d;
    at_free(p);
}

static at_status cpu_copy(at_device *d, void *dst, const void *src, size_t bytes)
{
    (void)d;
    if (bytes) memcpy(dst, src, bytes);
    return AT_OK;
}

static at_status cpu_synchronize(at_device *d)
{
    (void)d;
    return AT_OK;
}

static at_status cpu_memory(at_device *d, uint64_t *free_bytes, uint64_t *total_bytes)
{
    FILE *f = fopen("/proc/meminfo", "re");
    unsigned long long kib;
    char line[128];

    (void)d;
    *free_bytes = 0;
    *total_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1) *free_bytes = kib * 1024;
    }
    if (f) fclose(f);
    if (*free_bytes == 0) {
        *free_bytes = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    }
    return AT_OK;
}

static const at_device_ops cpu_ops = {
    .alloc = cpu_alloc,
    .free = cpu_free,
    .from_host = cpu_copy,
    .to_host = cpu_copy,
    .synchronize = cpu_synchronize,
    .memory = cpu_memory,
};

static at_device g_cpu = {
    .name = "cpu",
    .description = "CPU without a backend",
    .host = true,
    .ops = &cpu_ops,
};

at_device *at_device_cpu(void)
{
    return &g_cpu;
}

void at_device_set_cpu_backend(const at_backend *b, const char *description)
{
    g_cpu.backend = b;
    snprintf(g_cpu.description, sizeof g_cpu.description, "%s", description ? description : "CPU");
}

// --- the registry ----------------------------------------------------------------------------
static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static at_device *g_devices[MAX_DEVICES] = {&g_cpu};
static int g_count = 1;

at_status at_device_register(at_device *d)
{
    at_status st = AT_OK;

    if (d->backend && d->backend->abi != AT_BACKEND_ABI) {
        return at_fail(
            AT_EUNSUPPORTED,
            "device %s: its plug-in speaks ABI %d, this program %d; use the plug-in that "
            "came with this build",
            d->name, d->backend->abi, AT_BACKEND_ABI);
    }
    pthread_mutex_lock(&g_lock);
    for (int i = 0; i < g_count && st == AT_OK; i++) {
        if (strcmp(g_devices[i]->name, d->name) == 0) {
            st = at_fail(AT_EINVAL, "device %s is registered twice", d->name);
        }
    }
    if (st == AT_OK && g_count == MAX_DEVICES) {
        st = at_fail(AT_EUNSUPPORTED, "device %s: more than %d devices", d->name, MAX_DEVICES);
    }
    if (st == AT_OK) g_devices[g_count++] = d;
    pthread_mutex_unlock(&g_lock);
    return st;
}

int at_device_count(void)
{
    int n;

    pthread_mutex_lock(&g_lock);
    n = g_count;
    pthread_mutex_unlock(&g_lock);
    return n;
}

at_device *at_device_at(int i)
{
    at_device *d = NULL;

    pthread_mutex_lock(&g_lock);
    if (i >= 0 && i < g_count) d = g_devices[i];
    pthread_mutex_unlock(&g_lock);
    return d;
}

at_device *at_device_find(const char *name)
{
    at_device *d = NULL;

    pthread_mutex_lock(&g_lock);
    for (int i = 0; i < g_count && !d; i++) {
        if (strcmp(g_devices[i]->name, name) == 0) d = g_devices[i];
    }
    pthread_mutex_unlock(&g_lock);
    return d;
}

// --- counted bytes ---------------------------------------------------------------------------
at_status at_device_no_memory(at_device *d, size_t bytes)
{
    uint64_t free_bytes = 0, total_bytes = 0;
    char want[16], live[16], rest[16], all[16];

    (void)d->ops->memory(d, &free_bytes, &total_bytes);
    at_human_bytes((double)bytes, want);
    at_human_bytes((double)atomic_load(&d->live_bytes), live);
    at_human_bytes((double)free_bytes, rest);
    at_human_bytes((double)total_bytes, all);
    return at_fail(AT_ENOMEM,
                   "%s: no memory for %s (%s in use here, %s of %s free on the device)%s", d->name,
                   want, live, rest, all,
                   d->host ? "" : "; --lowvram, a smaller picture or batch, or --cpu help");
}

at_status at_device_alloc(at_device *d, size_t bytes, void **out)
{
    at_status st = d->ops->alloc(d, bytes, out);
    size_t live, peak;

    if (st == AT_ENOMEM) return at_device_no_memory(d, bytes);
    if (st != AT_OK) return st;
    live = atomic_fetch_add_explicit(&d->live_bytes, bytes, memory_order_relaxed) + bytes;
    peak = atomic_load_explicit(&d->peak_bytes, memory_order_relaxed);
    while (live > peak &&
           !atomic_compare_exchange_weak_explicit(&d->peak_bytes, &peak, live, memory_order_relaxed,
                                                  memory_order_relaxed)) {
    }
    return AT_OK;
}

void at_device_free(at_device *d, void *p, size_t bytes)
{
    if (!p) return;
    d->ops->free(d, p);
    atomic_fetch_sub_explicit(&d->live_bytes, bytes, memory_order_relaxed);
}

void at_device_lose(at_device *d, const char *why)
{
    pthread_mutex_lock(&g_lock);
    if (!*d->lost) snprintf(d->lost, sizeof d->lost, "%s", why);
    pthread_mutex_unlock(&g_lock);
}

at_status at_device_check(const at_device *d)
{
    if (!*d->lost) return AT_OK;
    return at_fail(AT_EDEVICE,
                   "%s is lost to this process (%s); restart it, or go on with --device cpu",
                   d->name, d->lost);
}

void at_devices_trim(bool all)
{
    for (int i = 0; i < at_device_count(); i++) {
        at_device *d = at_device_at(i);
        if (d->ops->trim) d->ops->trim(d, all);
    }
}

const char *at_device_holds_text(at_device *d, char text[AT_HOLDS_TEXT])
{
    at_device_holds h;
    char b[8][16];

    *text = 0;
    if (!d->ops->holds) return text;
    d->ops->holds(d, &h);
    const uint64_t all[] = {h.weights, h.tensors, h.kept,   h.recordings,
                            h.fixed,   h.most,    h.pinned, h.most_used};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        at_human_bytes((double)all[i], b[i]);
    snprintf(
        text, AT_HOLDS_TEXT,
        "weights %s, tensors %s, kept %s, recordings %s, workspaces %s; at most %s, %s of it in "
        "use; %s pinned",
        b[0], b[1], b[2], b[3], b[4], b[5], b[7], b[6]);
    return text;
}

void at_device_reset_peak(at_device *d)
{
    atomic_store(&d->peak_bytes, atomic_load(&d->live_bytes));
    if (d->ops->holds) d->ops->holds(d, NULL);
}
