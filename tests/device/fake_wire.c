// SPDX-License-Identifier: Apache-2.0
// fake_wire.c - wire.cu's kernels, played by the thread that launches them: the same flags and words.
// What it cannot show is what a GPU does with the order of stores. Owns nothing.
#include <sched.h>
#include <string.h>
#include <time.h>

#include "base/half.h"
#include "cuda/wire.h"
#include "fake_cudart.h"

bool fake_wire_waits = true;
int fake_wire_late;

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

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec + FAKE_WIRE_AHEAD;
}

static void note(const at_k_wire *w, at_k_wire_record r)
{
    uint32_t at = w->own->noted++;

    if (w->notes && at < w->room) w->notes[at] = r;
}

static int begin_all(const at_k_wire *w)
{
    int well = 1;

    if (fake_wire_late && w->peers && w->peer[0].rank == 0)
        nanosleep(&(struct timespec){.tv_nsec = fake_wire_late * 1000L}, NULL);
    w->own->came = now();

    for (int i = 0; i < w->peers; i++)
        __atomic_store_n(&w->peer[i].there->ready, w->own->round[w->peer[i].rank] + 1,
                         __ATOMIC_RELEASE);
    for (int i = 0; i < w->peers; i++)
        well &= wait_for(&w->peer[i].here->ready, w->own->round[w->peer[i].rank] + 1, w);
    w->own->went = now();
    return well;
}

static void end_all(const at_k_wire *w)
{
    uint64_t sent = now();

    for (int i = 0; i < w->peers; i++)
        __atomic_store_n(&w->peer[i].there->done, w->own->round[w->peer[i].rank] + 1,
                         __ATOMIC_RELEASE);
    for (int i = 0; i < w->peers; i++) {
        wait_for(&w->peer[i].here->done, w->own->round[w->peer[i].rank] + 1, w);
        w->own->round[w->peer[i].rank]++;
    }
    w->own->pushes++;
    if (w->notes) note(w, (at_k_wire_record){w->own->came, w->own->went, sent, now(), 0, w->bytes});
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
    at_k_wire_own *own = w->own;
    uint64_t came = now();

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
    if (steps & AT_K_WIRE_SENT) own->pushes++;
    if (!w->notes) return cudaSuccess;
    if (steps & AT_K_WIRE_READY) {
        own->apart_came = came;
        own->apart_went = now();
    }
    if (steps & AT_K_WIRE_TELL_SENT) own->apart_sent = came;
    if (steps & AT_K_WIRE_HELD) own->held = came;
    if (steps & AT_K_WIRE_SENT)
        note(w, (at_k_wire_record){own->apart_came, own->apart_went, own->apart_sent, now(),
                                   own->held, w->bytes});
    return cudaSuccess;
}

cudaError_t at_k_wire_clock(cudaStream_t s, uint64_t *out)
{
    (void)s;
    *out = now();
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
