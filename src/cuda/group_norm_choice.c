// SPDX-License-Identifier: Apache-2.0
// group_norm_choice.c - whether a map is normed out of registers or out of memory: timed once for a shape.
// Idea: what one block holds is always faster held (7.1 us op by op instead of 12.0 for 2 x 64 x 1280, H200). Where a map takes a
// cluster of blocks, it depends on how clusters fit the chip, so both kernels run some times when a
// shape is first met, and the answer goes where the products' answers go (linear_tune.c).
// Easy to get wrong: a norm may be in place, so it is timed into scratch; nothing may be timed in a recording.
// Owns nothing.
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "cuda/cuda.h"
#include "cuda/group_norm_held.h"

enum { RUNS = 10, ROUNDS = 2, STREAMED = 1, HELD = 2 };

// Zeroed before it is filled: hashed as bytes.
typedef struct problem {
    char what[16];
    int64_t shape[3], xb, xp, ob, op;
    int32_t groups, dtype, act, added;
} problem;

static float time_one(at_cuda *g, const at_k_group_norm_in *a, const cudaEvent_t events[2])
{
    float ms = -1;
    if (at_k_group_norm(g->stream, a) != cudaSuccess ||
        cudaEventRecord(events[0], g->stream) != cudaSuccess)
        return -1;
    for (int i = 0; i < RUNS; i++)
        if (at_k_group_norm(g->stream, a) != cudaSuccess) return -1;
    if (cudaEventRecord(events[1], g->stream) != cudaSuccess ||
        cudaEventSynchronize(events[1]) != cudaSuccess ||
        cudaEventElapsedTime(&ms, events[0], events[1]) != cudaSuccess)
        return -1;
    return ms;
}

// STREAMED or HELD; 0: no memory, or an error that the norm itself will meet.
static int faster(at_cuda *g, const at_k_group_norm_in *a)
{
    cudaEvent_t events[2] = {NULL, NULL};
    at_k_group_norm_in in = *a;
    void *out = NULL;
    size_t bytes = (size_t)at_cuda_count(&a->x) * at_cuda_size(a->out.dtype);
    float best[2] = {-1, -1};

    if (at_cuda_alloc(g, bytes, &out) == AT_OK && cudaEventCreate(&events[0]) == cudaSuccess &&
        cudaEventCreate(&events[1]) == cudaSuccess) {
        in.out = at_cuda_view(out, a->out.dtype, 3, a->x.shape);
        for (int i = 0; i < ROUNDS * 2; i++) {
            in.held = i % 2;
            float ms = time_one(g, &in, events);
            if (ms >= 0 && (best[i % 2] < 0 || ms < best[i % 2])) best[i % 2] = ms;
        }
    }
    for (int i = 0; i < 2; i++)
        if (events[i]) cudaEventDestroy(events[i]);
    at_cuda_free(g, out);
    (void)cudaGetLastError();
    if (best[0] < 0 || best[1] < 0) return 0;
    return best[1] < best[0] ? HELD : STREAMED;
}

bool at_cuda_group_norm_holds(at_cuda *g, const at_k_group_norm_in *a)
{
    int cluster = at_k_group_norm_cluster(a);
    problem p;
    uint64_t known = 0;

    if (cluster < 2 || a->parts.data) return cluster == 1 && !a->parts.data;
    memset(&p, 0, sizeof p);
    memcpy(p.what, "group norm", 10);
    memcpy(p.shape, a->x.shape, sizeof p.shape);
    p.xb = a->x.stride[0];
    p.xp = a->x.stride[1];
    p.ob = a->out.stride[0];
    p.op = a->out.stride[1];
    p.groups = a->groups;
    p.dtype = (int32_t)a->x.dtype;
    p.act = a->act;
    p.added = a->add.data != NULL;
    if (at_cuda_choice_find(g, &p, sizeof p, &known)) return known == HELD;
    if (at_has_word(getenv("AT_OFF"), "tune")) return true; // so that checks can reach that kernel
    if (g->recording) return false;
    int form = faster(g, a);
    if (form) at_cuda_choice_keep(g, &p, sizeof p, (uint64_t)form);
    return form == HELD;
}
