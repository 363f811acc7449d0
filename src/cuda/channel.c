// SPDX-License-Identifier: Apache-2.0
// channel.c - at_channel_ops over NCCL.
// Idea: communicators never block: a call returns at once, and this thread asks until it is queued, the deadline
// passes or somebody cuts the channel. So another thread can abort a communicator that waits for a lost peer,
// which ends its kernels too.
// Easy to get wrong: NCCL wants one caller at a time for a communicator. `lock` is held for each call, never while
// waiting; who cuts sets `is_cut` first, so that the waiting one stops asking.
// A recording that holds exchanges keeps an aborted communicator's memory until it goes: at_device.moved makes
// everybody drop such recordings.
// Ownership: see tensor/channel.h.
#include "tensor/channel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "cuda/cuda.h"
#include "cuda/nccl.h"

struct at_channel {
    at_cuda *gpu;
    const at_nccl *nccl;
    pthread_mutex_t lock;
    void *comm; // NULL: not yet, or aborted
    atomic_bool is_cut;
};

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static at_status check(const at_channel *c, int result, const char *what)
{
    if (result == NCCL_SUCCESS || result == NCCL_IN_PROGRESS) return AT_OK;
    return at_fail(AT_EDEVICE, "%s: NCCL, %s: %s", c->gpu->dev.name, what,
                   c->nccl->GetErrorString(result));
}

static at_status cut_error(const at_channel *c)
{
    return at_fail(AT_EDEVICE, "%s: NCCL: another rank has given up", c->gpu->dev.name);
}

// Until what was asked for is done (queued, for an exchange). A first exchange with a peer connects to it.
static at_status settle(at_channel *c, const char *what, double seconds)
{
    double deadline = now() + seconds;

    for (unsigned turn = 0;; turn++) {
        int state = NCCL_SUCCESS, result = NCCL_SUCCESS;

        pthread_mutex_lock(&c->lock);
        bool gone = atomic_load(&c->is_cut) || !c->comm;
        if (!gone) result = c->nccl->CommGetAsyncError(c->comm, &state);
        pthread_mutex_unlock(&c->lock);
        if (gone) return cut_error(c);
        if (result != NCCL_SUCCESS) return check(c, result, what);
        if (state != NCCL_IN_PROGRESS) return check(c, state, what);
        if (now() > deadline)
            return at_fail(AT_EDEVICE, "%s: NCCL, %s: the other ranks did not come within %g s",
                           c->gpu->dev.name, what, seconds);
        if (turn > 100) nanosleep(&(struct timespec){0, 20000}, NULL);
    }
}

static at_status channel_ticket(at_device *d, at_channel_ticket *out)
{
    const at_nccl *nccl = at_nccl_open();
    at_nccl_id id;

    if (!nccl) return AT_EUNSUPPORTED;
    int e = nccl->GetUniqueId(&id);
    if (e != NCCL_SUCCESS)
        return at_fail(AT_EDEVICE, "%s: NCCL, an address for the ranks: %s", d->name,
                       nccl->GetErrorString(e));
    memcpy(out->bytes, id.bytes, sizeof out->bytes);
    return AT_OK;
}

static void channel_cut(at_channel *c)
{
    atomic_store(&c->is_cut, true);
    pthread_mutex_lock(&c->lock);
    if (c->comm) {
        int before = 0;

        // The thread may be another GPU's owner.
        bool known = cudaGetDevice(&before) == cudaSuccess;
        (void)cudaSetDevice(c->gpu->ordinal);
        (void)c->nccl->CommAbort(c->comm);
        if (known) (void)cudaSetDevice(before);
        atomic_fetch_add(&c->gpu->dev.moved, 1);
    }
    c->comm = NULL;
    pthread_mutex_unlock(&c->lock);
}

static void channel_free(at_channel *c)
{
    if (!c) return;
    channel_cut(c);
    pthread_mutex_destroy(&c->lock);
    at_free(c);
}

static at_status channel_open(at_device *d, at_channel **out)
{
    at_status st = AT_OK;
    at_channel *c = NULL;
    const at_nccl *nccl = at_nccl_open();

    *out = NULL;
    if (!nccl) return AT_EUNSUPPORTED;
    AT_TRY(at_cuda_open((at_cuda *)d));
    c = at_calloc(1, sizeof *c);
    if (!c) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a channel", d->name));
    c->gpu = (at_cuda *)d;
    c->nccl = nccl;
    pthread_mutex_init(&c->lock, NULL);
    *out = c;
out:
    return st;
}

static at_status channel_connect(at_channel *c, const at_channel_ticket *t, int rank, int size,
                                 double seconds)
{
    at_nccl_settings settings = {.size = sizeof settings,
                                 .magic = NCCL_MAGIC,
                                 .version = NCCL_SETTINGS_VERSION,
                                 .blocking = 0,
                                 .cluster_size = NCCL_UNSET,
                                 .least_blocks = NCCL_UNSET,
                                 .most_blocks = NCCL_UNSET,
                                 .split_shares = NCCL_UNSET};
    at_nccl_id id;
    at_status st = AT_OK;

    memcpy(id.bytes, t->bytes, sizeof id.bytes);
    AT_TRY(at_cuda_check(c->gpu, cudaSetDevice(c->gpu->ordinal), "choosing it"));
    pthread_mutex_lock(&c->lock);
    st =
        atomic_load(&c->is_cut)
            ? cut_error(c)
            : check(c, c->nccl->CommInitRankConfig(&c->comm, size, id, rank, &settings), "meeting");
    pthread_mutex_unlock(&c->lock);
    AT_TRY(st);
    AT_TRY(settle(c, "meeting the other ranks", seconds));
out:
    return st;
}

// Locked by the caller; NCCL_SUCCESS or the first failure. The group ends whatever happened inside.
static int queue_parts(at_channel *c, const at_channel_part *parts, int n)
{
    cudaStream_t s = c->gpu->stream;
    int e = c->nccl->GroupStart(), end;

    if (e != NCCL_SUCCESS) return e;
    for (int i = 0; i < n && e == NCCL_SUCCESS; i++) {
        if (parts[i].send)
            e = c->nccl->Send(parts[i].from, parts[i].send, NCCL_UINT8, i, c->comm, s);
        if (parts[i].recv && (e == NCCL_SUCCESS || e == NCCL_IN_PROGRESS))
            e = c->nccl->Recv(parts[i].to, parts[i].recv, NCCL_UINT8, i, c->comm, s);
        if (e == NCCL_IN_PROGRESS) e = NCCL_SUCCESS;
    }
    end = c->nccl->GroupEnd();
    return e != NCCL_SUCCESS ? e : end;
}

static at_status channel_exchange(at_channel *c, const at_channel_part *parts, int n,
                                  double seconds)
{
    at_status st = AT_OK;

    (void)cudaSetDevice(c->gpu->ordinal);
    pthread_mutex_lock(&c->lock);
    if (atomic_load(&c->is_cut) || !c->comm)
        st = cut_error(c);
    else
        st = check(c, queue_parts(c, parts, n), "an exchange");
    pthread_mutex_unlock(&c->lock);
    return st == AT_OK ? settle(c, "an exchange", seconds) : st;
}

static at_status channel_copy(at_channel *c, const void *from, void *to, size_t bytes)
{
    (void)cudaSetDevice(c->gpu->ordinal);
    return at_cuda_check(c->gpu,
                         cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, c->gpu->stream),
                         "a copy");
}

static at_status channel_sum(at_channel *c, float *inout, size_t count, double seconds)
{
    at_status st = AT_OK;

    (void)cudaSetDevice(c->gpu->ordinal);
    pthread_mutex_lock(&c->lock);
    if (atomic_load(&c->is_cut) || !c->comm)
        st = cut_error(c);
    else
        st = check(c,
                   c->nccl->AllReduce(inout, inout, count, NCCL_FLOAT32, NCCL_SUM, c->comm,
                                      c->gpu->stream),
                   "a sum");
    pthread_mutex_unlock(&c->lock);
    return st == AT_OK ? settle(c, "a sum", seconds) : st;
}

const at_channel_ops at_cuda_channel_ops = {
    .ticket = channel_ticket,
    .open = channel_open,
    .connect = channel_connect,
    .exchange = channel_exchange,
    .copy = channel_copy,
    .sum = channel_sum,
    .cut = channel_cut,
    .free = channel_free,
};
