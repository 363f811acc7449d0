// SPDX-License-Identifier: Apache-2.0
// graph.c - recordings: a forward as one CUDA graph, launched as a whole.
// Idea: the stream is captured while the ops run as always. Launching a graph of a thousand kernels
// costs the host some microseconds, where queueing them costs several each; small models are bound
// by that. Capture is relaxed (memory may be got meanwhile) and the pool keeps what a recording took
// (memory.c).
// Easy to get wrong: a capture that anything broke ends without a graph, and the stream must be
// usable afterwards; a graph may still be running when it is freed.
// Ownership: a recording is the caller's until at_cuda_recording_free.
#include "base/mem.h"
#include "cuda/cuda.h"

static at_cuda *of(at_device *d)
{
    return (at_cuda *)d;
}

at_status at_cuda_record_begin(at_device *d)
{
    at_cuda *g = of(d);
    if (at_cuda_weights_stream(g))
        return at_fail(AT_EUNSUPPORTED, "%s: weights stream: nothing stays where it is", d->name);
    cudaSetDevice(g->ordinal);
    at_status st = at_cuda_check(g, cudaStreamBeginCapture(g->stream, cudaStreamCaptureModeRelaxed),
                                 "beginning a recording");
    if (st == AT_OK) g->recording = true;
    return st;
}

at_status at_cuda_record_end(at_device *d, void **out)
{
    at_cuda *g = of(d);
    at_status st = AT_OK;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;

    *out = NULL;
    cudaSetDevice(g->ordinal);
    g->recording = false;
    AT_TRY(at_cuda_check(g, cudaStreamEndCapture(g->stream, &graph), "ending a recording"));
    AT_TRY(at_cuda_check(g, cudaGraphInstantiate(&exec, graph, 0), "making a recording ready"));
    // The first launch would pay for this otherwise.
    AT_TRY(at_cuda_check(g, cudaGraphUpload(exec, g->stream), "sending a recording"));
    g->recordings++;
    *out = exec;
    exec = NULL;
out:
    if (exec) cudaGraphExecDestroy(exec);
    if (graph) cudaGraphDestroy(graph);
    if (st != AT_OK && g->recordings == 0) at_cuda_pool_release_recorded(g);
    return st;
}

at_status at_cuda_replay(at_device *d, void *recording)
{
    at_cuda *g = of(d);
    cudaSetDevice(g->ordinal);
    return at_cuda_check(g, cudaGraphLaunch(recording, g->stream), "replaying a recording");
}

void at_cuda_recording_free(at_device *d, void *recording)
{
    at_cuda *g = of(d);
    if (!recording) return;
    cudaSetDevice(g->ordinal);
    (void)cudaStreamSynchronize(g->stream);
    (void)cudaGraphExecDestroy(recording);
    if (--g->recordings == 0) at_cuda_pool_release_recorded(g);
}

at_status at_cuda_throttle(at_device *d)
{
    at_cuda *g = of(d);
    at_status st = AT_OK;
    cudaSetDevice(g->ordinal);
    for (int i = 0; i < 2 && !g->rounds[i]; i++)
        AT_TRY(at_cuda_check(
            g,
            cudaEventCreateWithFlags(&g->rounds[i], cudaEventDisableTiming | cudaEventBlockingSync),
            "an event"));
    // An event that was never recorded is done.
    AT_TRY(at_cuda_check(g, cudaEventRecord(g->rounds[g->round & 1], g->stream), "a step"));
    g->round++;
    AT_TRY(at_cuda_check(g, cudaEventSynchronize(g->rounds[g->round & 1]), "a step"));
out:
    return st;
}
