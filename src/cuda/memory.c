// SPDX-License-Identifier: Apache-2.0
// memory.c - device memory: blocks that are kept and handed out again.
// Idea: a step makes and drops the same tensors over and over; sizes are rounded (to 512 bytes, from
// 1 MiB on to an eighth of their power of two) and free blocks wait in a list per size. One stream
// runs everything in order, so a freed block may be handed out before the kernels that read it have
// run. Pool bookkeeping is locked: tensors are released from any thread.
// What a recorded graph writes must stay its own, so blocks of recordings never mix with the others:
// all graphs of a device share one set of lists (they run one after the other), and a block that a
// graph took belongs to that set until the last graph is gone.
// When the device is full: what is kept goes back first, then what idle recordings hold, then weights
// (weights.c says which). Inside a recording nothing may move: there an allocation fails.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cuda/cuda.h"
#include "tensor/pool_size.h"

typedef struct block {
    struct block *next; // in its free list or hash chain
    void *address;
    size_t bytes;
    bool recorded;  // belongs to recordings
    unsigned round; // of trims: when it was given back last
} block;

enum { CLASSES = 512, BUCKETS = 4096 };

struct at_cuda_pool {
    pthread_mutex_t lock;
    block *free_lists[CLASSES];
    block *recorded_lists[CLASSES];
    block *used[BUCKETS];  // by address
    size_t kept_bytes;     // of free_lists
    size_t recorded_bytes; // of recorded_lists
    size_t most_used;      // of blocks in use
    size_t bytes, most;    // of all blocks: now, and at most so far
    unsigned round;        // trims that have been
    block *late;           // freed while two streams were at work: see aside.c
    bool two_streams;
};

at_status at_cuda_pool_new(at_cuda_pool **out)
{
    at_cuda_pool *p = at_calloc(1, sizeof *p);
    if (!p) return at_fail(AT_ENOMEM, "cuda: no memory for the pool");
    pthread_mutex_init(&p->lock, NULL);
    *out = p;
    return AT_OK;
}

// After these every call of this process fails: the context is broken.
static bool sticks(cudaError_t e)
{
    switch (e) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorContextIsDestroyed:
    case cudaErrorECCUncorrectable: return true;
    default: return false;
    }
}

at_status at_cuda_check(const at_cuda *g, cudaError_t e, const char *what)
{
    if (e == cudaSuccess) return AT_OK;
    (void)cudaGetLastError(); // what does not stick is forgotten
    if (!sticks(e))
        return at_fail(e == cudaErrorMemoryAllocation ? AT_ENOMEM : AT_EDEVICE, "%s: %s: %s",
                       g->dev.name, what, cudaGetErrorString(e));
    at_device_lose((at_device *)(uintptr_t)&g->dev, cudaGetErrorString(e));
    at_status st = at_device_check(&g->dev);
    return at_fail_context(st, "%s: ", what);
}

static size_t class_of(size_t bytes)
{
    return (bytes / 512 * 2654435761u) % CLASSES;
}

static size_t bucket_of(const void *p)
{
    return ((uintptr_t)p / 512 * 2654435761u) % BUCKETS;
}

// A kept block of exactly this size, or NULL. Locked.
static block *take(block **lists, size_t bytes)
{
    for (block **at = &lists[class_of(bytes)]; *at; at = &(*at)->next) {
        if ((*at)->bytes != bytes) continue;
        block *b = *at;
        *at = b->next;
        return b;
    }
    return NULL;
}

static void put(block **lists, block *b)
{
    block **list = &lists[class_of(b->bytes)];
    b->next = *list;
    *list = b;
}

// A kept block that is a little larger: better than to give all of them back, which waits for the device. Locked.
static block *take_larger(at_cuda_pool *p, size_t bytes)
{
    block *b = NULL;
    for (size_t size = bytes, i = 0; i < 4 && !b && bytes >= (size_t)1 << 20; i++) {
        size = at_pool_block(size + 1);
        b = take(p->free_lists, size);
    }
    if (b) p->kept_bytes -= b->bytes;
    return b;
}

// The same, from the lists that the moment asks for. Locked.
static block *take_kept(at_cuda_pool *p, size_t bytes, bool recording)
{
    block *b = recording ? take(p->recorded_lists, bytes) : NULL;
    if (b) p->recorded_bytes -= bytes;
    if (b) return b;
    b = take(p->free_lists, bytes);
    if (b) p->kept_bytes -= bytes;
    return b;
}

// Give back to the device what is kept, as far as `bytes` need it: freeing waits for the device, and what is gone is
// missed by the next one of its size. Locked. False: nothing was kept.
static bool flush(at_cuda_pool *p, size_t bytes)
{
    size_t freed = 0;
    for (size_t i = 0; i < CLASSES; i++)
        while (p->free_lists[i] && freed < bytes) {
            block *b = p->free_lists[i];
            p->free_lists[i] = b->next;
            freed += b->bytes;
            cudaFree(b->address);
            at_free(b);
        }
    p->kept_bytes -= freed;
    p->bytes -= freed;
    return freed > 0;
}

// Fresh memory; what others are to have left counts as not there. Locked.
static cudaError_t fresh(at_cuda *g, size_t bytes, bool spare, void **out)
{
    size_t rest = 0, all = 0;
    if (spare && g->dev.reserve_bytes && cudaMemGetInfo(&rest, &all) == cudaSuccess &&
        (rest < bytes || rest - bytes < g->dev.reserve_bytes))
        return cudaErrorMemoryAllocation;
    cudaError_t e = cudaMalloc(out, bytes);
    if (e == cudaErrorMemoryAllocation) (void)cudaGetLastError();
    if (e == cudaSuccess) g->pool->bytes += bytes;
    if (g->pool->bytes > g->pool->most) g->pool->most = g->pool->bytes;
    return e;
}

// A block of that size, kept or fresh, among the used ones; NULL: *e says why not.
static block *get_block(at_cuda *g, size_t want, bool spare, cudaError_t *e)
{
    at_cuda_pool *p = g->pool;

    *e = cudaSuccess;
    pthread_mutex_lock(&p->lock);
    block *b = take_kept(p, want, g->recording);
    if (!b && (b = at_calloc(1, sizeof *b))) {
        b->bytes = want;
        *e = fresh(g, want, spare, &b->address);
        block *larger = *e == cudaErrorMemoryAllocation ? take_larger(p, want) : NULL;
        if (larger) {
            at_free(b);
            b = larger;
            *e = cudaSuccess;
        } else if (*e == cudaErrorMemoryAllocation && !g->recording) {
            // Pieces of the freed sum may lie apart: then more of them.
            while (*e == cudaErrorMemoryAllocation && flush(p, want))
                *e = fresh(g, want, spare, &b->address);
        }
        if (*e != cudaSuccess) {
            at_free(b);
            b = NULL;
        }
    }
    if (b) {
        block **bucket = &p->used[bucket_of(b->address)];
        b->recorded = b->recorded || g->recording;
        b->next = *bucket;
        *bucket = b;
        size_t used = p->bytes - p->kept_bytes - p->recorded_bytes;
        if (used > p->most_used) p->most_used = used;
    }
    pthread_mutex_unlock(&p->lock);
    return b;
}

at_status at_cuda_alloc(at_cuda *g, size_t bytes, void **out)
{
    size_t want = at_pool_block(bytes);
    cudaError_t e;

    *out = NULL;
    if (*g->dev.lost) return at_device_check(&g->dev);
    at_status st = at_cuda_open(g);
    if (st != AT_OK) return st;
    cudaSetDevice(g->ordinal);
    block *b = get_block(g, want, true, &e);
    bool may = !g->recording;
    if (!b && e == cudaErrorMemoryAllocation && may && g->dev.reclaim && g->dev.reclaim(&g->dev))
        b = get_block(g, want, true, &e);
    while (!b && e == cudaErrorMemoryAllocation && may && at_cuda_weights_leave(g, want))
        b = get_block(g, want, true, &e);
    if (!b && e == cudaErrorMemoryAllocation && may) // better into others' room than no picture
        b = get_block(g, want, false, &e);
    if (b) {
        *out = b->address;
        return AT_OK;
    }
    if (e == cudaErrorMemoryAllocation) return at_device_no_memory(&g->dev, bytes);
    if (e == cudaSuccess) return at_fail(AT_ENOMEM, "cuda: no host memory for a block");
    return at_cuda_check(g, e, "memory");
}

// Locked.
static void keep(at_cuda_pool *p, block *b)
{
    b->round = p->round;
    put(b->recorded ? p->recorded_lists : p->free_lists, b);
    *(b->recorded ? &p->recorded_bytes : &p->kept_bytes) += b->bytes;
}

void at_cuda_free(at_cuda *g, void *address)
{
    at_cuda_pool *p = g->pool;
    if (!address) return;
    pthread_mutex_lock(&p->lock);
    for (block **at = &p->used[bucket_of(address)]; *at; at = &(*at)->next) {
        block *b = *at;
        if (b->address != address) continue;
        *at = b->next;
        if (p->two_streams) {
            b->next = p->late;
            p->late = b;
        } else {
            keep(p, b);
        }
        break;
    }
    pthread_mutex_unlock(&p->lock);
}

void at_cuda_pool_keep_late(at_cuda *g, bool late)
{
    at_cuda_pool *p = g->pool;
    pthread_mutex_lock(&p->lock);
    p->two_streams = late;
    while (p->late && !late) {
        block *b = p->late;
        p->late = b->next;
        keep(p, b);
    }
    pthread_mutex_unlock(&p->lock);
}

void at_cuda_pool_release_recorded(at_cuda *g)
{
    at_cuda_pool *p = g->pool;
    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < CLASSES; i++)
        while (p->recorded_lists[i]) {
            block *b = p->recorded_lists[i];
            p->recorded_lists[i] = b->next;
            b->recorded = false;
            put(p->free_lists, b);
            p->kept_bytes += b->bytes;
            p->recorded_bytes -= b->bytes;
        }
    for (size_t i = 0; i < BUCKETS; i++) // outputs that someone still holds
        for (block *b = p->used[i]; b; b = b->next)
            b->recorded = false;
    pthread_mutex_unlock(&p->lock);
}

// What was given back before the last trim: raw bytes of weights that were converted, a larger picture's maps. Locked.
static void flush_old(at_cuda_pool *p)
{
    for (size_t i = 0; i < CLASSES; i++)
        for (block **at = &p->free_lists[i]; *at;) {
            block *b = *at;
            if (b->round == p->round) {
                at = &b->next;
                continue;
            }
            *at = b->next;
            p->kept_bytes -= b->bytes;
            p->bytes -= b->bytes;
            cudaFree(b->address);
            at_free(b);
        }
    p->round++;
}

void at_cuda_pool_trim(at_device *d, bool all)
{
    at_cuda *g = (at_cuda *)d;
    if (!atomic_load(&g->opened)) return;
    cudaSetDevice(g->ordinal);
    pthread_mutex_lock(&g->pool->lock);
    if (all)
        (void)flush(g->pool, SIZE_MAX);
    else
        flush_old(g->pool);
    pthread_mutex_unlock(&g->pool->lock);
}

size_t at_cuda_pool_kept(at_cuda *g)
{
    pthread_mutex_lock(&g->pool->lock);
    size_t bytes = g->pool->kept_bytes;
    pthread_mutex_unlock(&g->pool->lock);
    return bytes;
}

void at_cuda_pool_holds(at_cuda *g, at_device_holds *out)
{
    at_cuda_pool *p = g->pool;
    pthread_mutex_lock(&p->lock);
    if (!out) {
        p->most = p->bytes;
        p->most_used = p->bytes - p->kept_bytes - p->recorded_bytes;
        pthread_mutex_unlock(&p->lock);
        return;
    }
    out->kept = p->kept_bytes;
    out->recordings = p->recorded_bytes;
    out->tensors = p->bytes - p->kept_bytes -
                   p->recorded_bytes; // weights too: who counts them takes them away
    out->most = p->most;
    out->most_used = p->most_used;
    pthread_mutex_unlock(&p->lock);
}

bool at_cuda_pool_has(at_cuda *g, size_t bytes)
{
    size_t want = at_pool_block(bytes);
    bool has = false;
    pthread_mutex_lock(&g->pool->lock);
    for (const block *b = g->pool->free_lists[class_of(want)]; b && !has; b = b->next)
        has = b->bytes == want;
    pthread_mutex_unlock(&g->pool->lock);
    return has;
}
