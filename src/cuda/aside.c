// SPDX-License-Identifier: Apache-2.0
// aside.c - a second stream, for work that may run beside what comes behind it.
// Idea: two kernels that each leave the last wave of their blocks half empty fill it together: the second one's blocks
// come onto the chip as the first one's run out. In recordings alone: there the host queues nothing late. From BEGIN to END the slots find another stream and another workspace
// in their at_cuda; events order the two streams, so that a capture takes both into its graph.
// Easy to get wrong: the pool hands freed blocks out again because one stream runs everything in order. While two do,
// what is freed waits for JOIN (memory.c).
// Owns: stream, workspace and events live as long as the device.
#include "cuda/cuda.h"

static at_status make_ready(at_cuda *g)
{
    at_status st = AT_OK;

    if (!g->aside.stream)
        AT_TRY(at_cuda_check(g, cudaStreamCreateWithFlags(&g->aside.stream, cudaStreamNonBlocking),
                             "a second stream"));
    if (!g->aside.forked)
        AT_TRY(at_cuda_check(g, cudaEventCreateWithFlags(&g->aside.forked, cudaEventDisableTiming),
                             "an event"));
    if (!g->aside.joined)
        AT_TRY(at_cuda_check(g, cudaEventCreateWithFlags(&g->aside.joined, cudaEventDisableTiming),
                             "an event"));
    if (!g->aside.workspace)
        AT_TRY(at_cuda_check(g, cudaMalloc(&g->aside.workspace, g->workspace_bytes),
                             "the libraries' second workspace"));
out:
    return st;
}

static at_status listen(at_cuda *g, cudaStream_t stream)
{
    if (g->dnn && g->dnn->SetStream(g->dnn_handle, stream))
        return at_fail(AT_EDEVICE, "%s: cuDNN does not take a second stream", g->dev.name);
    return AT_OK;
}

static at_status begin(at_cuda *g)
{
    at_status st = AT_OK;

    AT_TRY(make_ready(g));
    AT_TRY(at_cuda_check(g, cudaEventRecord(g->aside.forked, g->stream), "work aside"));
    AT_TRY(
        at_cuda_check(g, cudaStreamWaitEvent(g->aside.stream, g->aside.forked, 0), "work aside"));
    AT_TRY(listen(g, g->aside.stream));
    g->aside.main = g->stream;
    g->aside.main_workspace = g->workspace;
    g->stream = g->aside.stream;
    g->workspace = g->aside.workspace;
    at_cuda_pool_keep_late(g, true);
out:
    return st;
}

static at_status end(at_cuda *g)
{
    at_status st = AT_OK;

    g->stream = g->aside.main;
    g->workspace = g->aside.main_workspace;
    AT_TRY(listen(g, g->stream));
    AT_TRY(at_cuda_check(g, cudaEventRecord(g->aside.joined, g->aside.stream), "work aside"));
out:
    return st;
}

static at_status join(at_cuda *g)
{
    at_status st =
        at_cuda_check(g, cudaStreamWaitEvent(g->stream, g->aside.joined, 0), "work aside");

    at_cuda_pool_keep_late(g, false);
    return st;
}

at_status at_cuda_aside(at_device *d, at_aside step)
{
    at_cuda *g = (at_cuda *)d;

    (void)cudaSetDevice(g->ordinal);
    // Outside of recordings the host is the slow one, and traces want one thing after the other.
    if (!g->recording) return step == AT_ASIDE_BEGIN ? make_ready(g) : AT_OK;
    return step == AT_ASIDE_BEGIN ? begin(g) : step == AT_ASIDE_END ? end(g) : join(g);
}
