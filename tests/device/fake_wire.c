// SPDX-License-Identifier: Apache-2.0
// fake_wire.c - wire.cu's kernels, played by the thread that launches them: the same flags and words.
// What it cannot show is what a GPU does with the order of stores. Owns nothing.
#include <sched.h>
#include <string.h>

#include "base/half.h"
#include "cuda/wire.h"
#include "fake_cudart.h"

bool fake_wire_waits = true;

static int cut(const at_k_wire *w)
{
    return __atomic_load_n((const uint32_t *)w->cut, __ATOMIC_ACQUIRE) != 0;
}

static int wait_for(const uint32_t *flag, uint32_t round, const at_k_wire *w)
{
    while (fake_wire_waits && (int32_t)(__atomic_load_n(flag, __ATOMIC_ACQUIRE) - round) < 0) {
        if (cut(w)) return 0;
        sched_yield();
    }
    return 1;
}

static int begin_all(const at_k_wire *w)
{
    int well = 1;

    for (int i = 0; i < w->peers; i++)
        __atomic_store_n(&w->peer[i].there->ready, w->own->round[w->peer[i].rank] + 1,
                         __ATOMIC_RELEASE);
    for (int i = 0; i < w->peers; i++)
        well &= wait_for(&w->peer[i].here->ready, w->own->round[w->peer[i].rank] + 1, w);
    return well;
}

static void end_all(const at_k_wire *w)
{
    for (int i = 0; i < w->peers; i++)
        __atomic_store_n(&w->peer[i].there->done, w->own->round[w->peer[i].rank] + 1,
                         __ATOMIC_RELEASE);
    for (int i = 0; i < w->peers; i++) {
        wait_for(&w->peer[i].here->done, w->own->round[w->peer[i].rank] + 1, w);
        w->own->round[w->peer[i].rank]++;
    }
    w->own->pushes++;
}

static void copy(const at_k_wire_copy *c, int unit)
{
    for (uint32_t i = 0; i < c->n[0] * c->n[1] * c->n[2] * c->n[3]; i++) {
        uint32_t at[AT_K_WIRE_DIMS], rest = i;
        int64_t from = 0, to = 0;

        for (int d = 0; d < AT_K_WIRE_DIMS; d++) {
            at[d] = rest % c->n[d];
            rest /= c->n[d];
            from += at[d] * c->step_from[d];
            to += at[d] * c->step_to[d];
        }
        memcpy(c->to + to * unit, c->from + from * unit, (size_t)unit);
    }
}

cudaError_t at_k_wire_push(cudaStream_t s, const at_k_wire *w, bool begin, bool end)
{
    int well = !begin || begin_all(w);

    (void)s;
    for (int i = 0; i < w->copies && well; i++)
        copy(&w->copy[i], w->unit);
    if (end) end_all(w);
    return cudaSuccess;
}

cudaError_t at_k_wire_flags_only(cudaStream_t s, const at_k_wire *w, int steps)
{
    (void)s;
    for (int i = 0; i < w->peers; i++) {
        const at_k_wire_peer *p = &w->peer[i];
        uint32_t round = w->own->round[p->rank] + 1;

        if (steps & AT_K_WIRE_TELL_READY)
            __atomic_store_n(&p->there->ready, round, __ATOMIC_RELEASE);
        if (steps & AT_K_WIRE_TELL_SENT) __atomic_store_n(&p->there->done, round, __ATOMIC_RELEASE);
    }
    for (int i = 0; i < w->peers; i++) {
        const at_k_wire_peer *p = &w->peer[i];
        uint32_t round = w->own->round[p->rank] + 1;

        if (steps & AT_K_WIRE_READY) wait_for(&p->here->ready, round, w);
        if (steps & AT_K_WIRE_SENT) wait_for(&p->here->done, round, w);
        if (steps & AT_K_WIRE_SENT) w->own->round[p->rank] = round;
    }
    if (steps & AT_K_WIRE_SENT) w->own->pushes++;
    return cudaSuccess;
}

static float get(const void *p, at_dtype dtype, size_t i)
{
    return dtype == AT_F32    ? ((const float *)p)[i]
           : dtype == AT_BF16 ? at_bf16_to_f32(((const uint16_t *)p)[i])
                              : at_f16_to_f32(((const uint16_t *)p)[i]);
}

static void put(void *p, at_dtype dtype, size_t i, float x)
{
    if (dtype == AT_F32)
        ((float *)p)[i] = x;
    else
        ((uint16_t *)p)[i] = dtype == AT_BF16 ? at_f32_to_bf16(x) : at_f32_to_f16(x);
}

cudaError_t at_k_wire_sum(cudaStream_t s, const at_k_wire *w, const at_k_wire_sum_in *a)
{
    int well = begin_all(w);

    (void)s;
    for (size_t i = a->first; i < a->first + a->count && well; i++) {
        float sum = 0;

        for (int k = 0; k < a->n; k++)
            sum += get(a->inout[k], a->dtype, i);
        for (int k = 0; k < a->n; k++)
            put(a->inout[k], a->dtype, i, sum);
    }
    end_all(w);
    return cudaSuccess;
}

cudaError_t at_k_wire_add(cudaStream_t s, const at_k_wire_sum_in *from, void *into)
{
    (void)s;
    for (size_t i = 0; i < from->count; i++) {
        float sum = 0;

        for (int k = 0; k < from->n; k++)
            sum += get(from->inout[k], from->dtype, i);
        put(into, from->dtype, i, sum);
    }
    return cudaSuccess;
}
