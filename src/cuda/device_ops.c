// SPDX-License-Identifier: Apache-2.0
// device_ops.c - what the registry asks of a GPU: memory, copies, waiting; recordings and marks are in files of
// their own.
#include "cuda/cuda.h"
#include "cuda/linear.h"

static at_cuda *of(at_device *d)
{
    return (at_cuda *)d;
}

static at_status dev_alloc(at_device *d, size_t bytes, void **out)
{
    return at_cuda_alloc(of(d), bytes, out);
}

static void dev_free(at_device *d, void *p)
{
    at_cuda_free(of(d), p);
}

static at_status dev_from_host(at_device *d, void *dst, const void *src, size_t bytes)
{
    cudaSetDevice(of(d)->ordinal);
    return bytes ? at_cuda_upload(of(d), dst, src, bytes) : AT_OK;
}

static at_status dev_synchronize(at_device *d)
{
    if (!atomic_load(&of(d)->opened)) return AT_OK; // nothing was ever queued
    cudaSetDevice(of(d)->ordinal);
    if (of(d)->recording) return at_fail(AT_EDEVICE, "%s: waiting inside a recording", d->name);
    return at_cuda_check(of(d), cudaStreamSynchronize(of(d)->stream), "waiting for the device");
}

static at_status dev_to_host(at_device *d, void *dst, const void *src, size_t bytes)
{
    at_cuda *g = of(d);
    if (!bytes) return AT_OK;
    cudaSetDevice(g->ordinal);
    at_status st = at_cuda_check(
        g, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, g->stream), "a download");
    if (st == AT_OK) st = dev_synchronize(d);
    at_cuda_tuned_save(g); // here the host waits anyway
    return st;
}

static at_status dev_memory(at_device *d, uint64_t *free_bytes, uint64_t *total_bytes)
{
    at_cuda *g = of(d);
    size_t rest = 0, all = 0;
    at_status st = at_cuda_open(g);
    if (st != AT_OK) return st;
    cudaSetDevice(g->ordinal);
    st = at_cuda_check(g, cudaMemGetInfo(&rest, &all), "asking for free memory");
    *free_bytes = rest + at_cuda_pool_kept(g);
    *total_bytes = all;
    return st;
}

const at_device_ops at_cuda_device_ops = {
    .alloc = dev_alloc,
    .free = dev_free,
    .from_host = dev_from_host,
    .to_host = dev_to_host,
    .synchronize = dev_synchronize,
    .memory = dev_memory,
    .prefetch = at_cuda_prefetch,
    .record_begin = at_cuda_record_begin,
    .record_end = at_cuda_record_end,
    .replay = at_cuda_replay,
    .recording_free = at_cuda_recording_free,
    .throttle = at_cuda_throttle,
    .mark = at_cuda_mark,
    .elapsed = at_cuda_elapsed,
    .facts = at_cuda_facts,
    .usage = at_cuda_usage,
    .wire = &at_cuda_wire_ops,
    .channel = &at_cuda_channel_ops,
    .trim = at_cuda_pool_trim,
    .idle = at_cuda_weights_idle,
    .aside = at_cuda_aside,
    .holds = at_cuda_holds,
    .needs = at_cuda_needs,
};
