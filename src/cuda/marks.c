// SPDX-License-Identifier: Apache-2.0
// marks.c - what traces ask of a GPU: points in its queue with times, and which kernel served a slot.
// Idea: a mark is an event of the stream, made when its number is first used. An idle device is held back
// by a sleeping host function before a batch of marks, so that the host runs ahead and the time between
// two marks is the kernels' alone (about 2 us of the events' own remain).
// Easy to get wrong: events recorded while a graph is captured have no time; whoever traces ops replays
// nothing. Owns: the events, for the life of the process.
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "base/mem.h"
#include "cuda/cuda.h"

enum { HOLD_MS = 3, SERVED = 4 };

// Runs on the driver's thread; may call nothing of CUDA.
static void CUDART_CB hold(void *unused)
{
    const struct timespec t = {.tv_nsec = HOLD_MS * 1000000L};

    (void)unused;
    nanosleep(&t, NULL);
}

at_status at_cuda_mark(at_device *d, int i, bool ahead)
{
    at_cuda *g = (at_cuda *)d;
    at_status st = AT_OK;

    if (i < 0 || i >= AT_CUDA_MARKS)
        return at_fail(AT_EINTERNAL, "%s: mark %d of %d", d->name, i, AT_CUDA_MARKS);
    AT_TRY(at_cuda_open(g));
    if (cudaSetDevice(g->ordinal) != cudaSuccess) return at_fail(AT_EDEVICE, "%s: lost", d->name);
    if (!g->marks) g->marks = at_calloc(AT_CUDA_MARKS, sizeof *g->marks);
    if (!g->marks) return at_fail(AT_ENOMEM, "%s: no memory for marks", d->name);
    if (!g->marks[i]) AT_TRY(at_cuda_check(g, cudaEventCreate(&g->marks[i]), "a mark"));
    if (ahead && cudaStreamQuery(g->stream) == cudaSuccess)
        AT_TRY(at_cuda_check(g, cudaLaunchHostFunc(g->stream, hold, NULL), "holding the device"));
    AT_TRY(at_cuda_check(g, cudaEventRecord(g->marks[i], g->stream), "a mark"));
out:
    return st;
}

at_status at_cuda_elapsed(at_device *d, int from, int to, double *seconds)
{
    at_cuda *g = (at_cuda *)d;
    float ms = 0;
    at_status st = at_cuda_check(g, cudaEventElapsedTime(&ms, g->marks[from], g->marks[to]),
                                 "the time between two marks");

    *seconds = ms * 1e-3;
    return st;
}

// --- who served ------------------------------------------------------------------------------
// Names of this thread's last slot call, in order; more than SERVED wrap around.
static _Thread_local struct {
    const char *names[SERVED];
    unsigned n;
    char text[96];
} served;

void at_cuda_served(const char *kernel)
{
    served.names[served.n++ % SERVED] = kernel;
}

const char *at_cuda_kernel_name(const char *slot)
{
    size_t at = 0;
    unsigned n = served.n < SERVED ? served.n : SERVED;

    served.n = 0;
    if (!n) snprintf(served.text, sizeof served.text, "own %s", slot);
    for (unsigned i = 0; i < n && at < sizeof served.text; i++)
        at += (size_t)snprintf(served.text + at, sizeof served.text - at, "%s%s", i ? " + " : "",
                               served.names[i]);
    return served.text;
}
