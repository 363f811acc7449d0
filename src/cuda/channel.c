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

enum { MOST_HERE = 16, WORD = 256 };

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

static at_status progress(at_channel *c, const char *what, bool *busy)
{
    int state = NCCL_SUCCESS, result = NCCL_SUCCESS;

    pthread_mutex_lock(&c->lock);
    bool gone = atomic_load(&c->is_cut) || !c->comm;
    if (!gone) result = c->nccl->CommGetAsyncError(c->comm, &state);
    pthread_mutex_unlock(&c->lock);
    *busy = result == NCCL_SUCCESS && state == NCCL_IN_PROGRESS;
    if (gone) return cut_error(c);
    return check(c, result != NCCL_SUCCESS ? result : state, what);
}

// Until what was asked of all n is done (queued, for an exchange). A first exchange with a peer connects to it.
static at_status settle_all(at_channel *const *all, int n, const char *what, double seconds)
{
    at_status st = AT_OK;
    double deadline = now() + seconds;

    for (unsigned turn = 0;; turn++) {
        bool any = false, busy;

        for (int i = 0; i < n; i++) {
            AT_TRY(progress(all[i], what, &busy));
            any = any || busy;
        }
        if (!any) goto out;
        if (now() > deadline)
            AT_TRY(at_fail(AT_EDEVICE, "%s: NCCL, %s: the other ranks did not come within %g s",
                           all[0]->gpu->dev.name, what, seconds));
        if (turn > 100) nanosleep(&(struct timespec){0, 20000}, NULL);
    }
out:
    return st;
}

static at_status settle(at_channel *c, const char *what, double seconds)
{
    return settle_all(&c, 1, what, seconds);
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

// What every rank sends to every other and all add up, so that whatever such things need is there. Locked.
static int queue_all(at_channel *const *all, int n, char *const *room)
{
    const at_nccl *nccl = all[0]->nccl;
    int e = nccl->GroupStart(), end;

    if (e != NCCL_SUCCESS) return e;
    for (int i = 0; i < n; i++) {
        cudaStream_t s = all[i]->gpu->stream;

        (void)cudaSetDevice(all[i]->gpu->ordinal);
        for (int k = 0; k < n && e == NCCL_SUCCESS; k++) {
            if (k == i) continue;
            e = nccl->Send(room[i], WORD, NCCL_UINT8, k, all[i]->comm, s);
            if (e == NCCL_SUCCESS || e == NCCL_IN_PROGRESS)
                e = nccl->Recv(room[i] + WORD * (k + 1), WORD, NCCL_UINT8, k, all[i]->comm, s);
            if (e == NCCL_IN_PROGRESS) e = NCCL_SUCCESS;
        }
    }
    end = nccl->GroupEnd();
    return e != NCCL_SUCCESS ? e : end;
}

// NCCL connects two ranks in their first exchange, and asks the driver for memory; a GPU that already waits in that
// exchange makes such a request wait. In one group NCCL makes all connections before any GPU begins.
static at_status channel_introduce(at_channel *const *all, int n, double seconds)
{
    at_status st = AT_OK;
    char *room[MOST_HERE] = {NULL};
    int e = NCCL_SUCCESS;

    if (n > MOST_HERE)
        return at_fail(AT_EUNSUPPORTED, "NCCL: %d GPUs in one process; %d are the most", n,
                       MOST_HERE);
    for (int i = 0; i < n; i++) {
        void *p = NULL;

        (void)cudaSetDevice(all[i]->gpu->ordinal);
        AT_TRY(at_cuda_check(all[i]->gpu, cudaMalloc(&p, WORD * (size_t)(n + 1)),
                             "connecting the GPUs of one process"));
        room[i] = p;
    }
    for (int i = 0; i < n; i++)
        pthread_mutex_lock(&all[i]->lock);
    for (int i = 0; i < n && st == AT_OK; i++)
        if (atomic_load(&all[i]->is_cut) || !all[i]->comm) st = cut_error(all[i]);
    if (st == AT_OK) e = queue_all(all, n, room);
    for (int i = n - 1; i >= 0; i--)
        pthread_mutex_unlock(&all[i]->lock);
    if (st == AT_OK) st = check(all[0], e, "connecting the GPUs of one process");
    if (st == AT_OK) st = settle_all(all, n, "connecting the GPUs of one process", seconds);
    for (int i = 0; i < n && st == AT_OK; i++) {
        (void)cudaSetDevice(all[i]->gpu->ordinal);
        st = at_cuda_check(all[i]->gpu, cudaStreamSynchronize(all[i]->gpu->stream),
                           "connecting the GPUs of one process");
    }
out:
    for (int i = 0; i < n; i++)
        (void)cudaFree(room[i]);
    (void)cudaSetDevice(all[0]->gpu->ordinal);
    return st;
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
    .introduce = channel_introduce,
    .exchange = channel_exchange,
    .copy = channel_copy,
    .sum = channel_sum,
    .cut = channel_cut,
    .free = channel_free,
};
