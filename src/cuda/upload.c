// SPDX-License-Identifier: Apache-2.0
// upload.c - see upload.h.
// Measured (H200, 16 cores, PCIe 5, GB/s from cached files to the device): pread by 1, 4, 8, 12 threads 5, 28
// to 33, 43 to 53, 53; memcpy out of a mapping 8 threads 39 to 53; plain copies of a mapping 6, also by 8
// threads; pinned memory alone 54 to 55.
// A slot's life: taken by a thread when the copy out of it has ended, filled, sent, put at the end of the
// row again. Slots are taken in the order in which they were sent, so waiting for one is waiting for the
// link. A transfer ends when its last piece is in the stream: then its event is recorded.
// What a transfer into used memory waits for, its copies wait for, just before each: said when the transfer begins, the
// wait would stand in the stream before the copies of earlier transfers that are still being read, and the link would
// run no further ahead of the kernels than the host does.
#include "cuda/upload.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/trace.h"
#include "tensor/pieces.h"

enum {
    PIECE = 2 << 20,
    MAX_THREADS = 12,
    SLOTS = 32,         // 64 MiB: pinning costs 0.4 ms a MiB, and more gains nothing
    DIRECT = 256 << 10, // up to here through the small ring
    SEGMENT = 512 << 10,
    SEGMENTS = 8
};

typedef struct slot {
    char *bytes;
    cudaEvent_t sent;
} slot;

struct at_cuda_uploader {
    at_cuda *g;
    pthread_mutex_t lock;
    pthread_cond_t work, ended;
    cudaStream_t stream;
    slot slots[SLOTS];
    int row[SLOTS], row_first, row_count; // idle slots in the order in which they were sent
    at_cuda_transfer *first;              // pieces left to take
    int threads;

    char *small; // SEGMENTS of SEGMENT bytes
    cudaEvent_t passed[SEGMENTS];
    int segment;
    size_t used; // of the current segment
};

// --- reading -------------------------------------------------------------------------------------
static int read_all(int file, char *to, size_t n, uint64_t offset)
{
    while (n > 0) {
        ssize_t got = pread(file, to, n, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return got < 0 ? errno : -1;
        to += got;
        n -= (size_t)got;
        offset += (uint64_t)got;
    }
    return 0;
}

static int read_file(const void *transfer, size_t at, size_t n, char *to)
{
    const at_cuda_transfer *t = transfer;
    return read_all(t->file, to, n, t->offset + at);
}

// Bytes [at, at + n) of t. From the file where there is one: a mapping whose file was cut short is the process's end.
static int read_part(const at_cuda_transfer *t, size_t at, size_t n, char *to)
{
    if (t->apart && t->file >= 0) return at_pieces_walk(t->apart, at, n, read_file, t, to);
    if (t->file >= 0) return read_file(t, at, n, to);
    if (t->apart)
        at_pieces_copy(t->apart, t->src, at, n, to);
    else
        memcpy(to, t->src + at, n);
    return 0;
}

static at_status read_error(const at_cuda *g, int error)
{
    if (error > 0)
        return at_fail(AT_EIO, "%s: reading a weight's file: %s", g->dev.name, strerror(error));
    return at_fail(AT_EIO, "%s: a weight's file has become shorter while it was open", g->dev.name);
}

// One piece of t into s and on its way. Unlocked.
static void send_piece(at_cuda_uploader *u, const at_cuda_transfer *t, size_t at, size_t n,
                       const slot *s, int *error, cudaError_t *cuda)
{
    *cuda = cudaEventSynchronize(s->sent);
    *error = 0;
    if (*cuda != cudaSuccess) return;
    *error = read_part(t, at, n, s->bytes);
    if (*error) return;
    if (t->behind) *cuda = cudaStreamWaitEvent(u->stream, t->done, 0);
    if (*cuda != cudaSuccess) return;
    *cuda = cudaMemcpyAsync(t->dst + at, s->bytes, n, cudaMemcpyHostToDevice, u->stream);
    cudaError_t e = cudaEventRecord(s->sent, u->stream);
    if (*cuda == cudaSuccess) *cuda = e;
}

// Locked: the next piece of the first transfer, which leaves the list with its last one.
static at_cuda_transfer *take_piece(at_cuda_uploader *u, size_t *at, size_t *n)
{
    at_cuda_transfer *t = u->first;
    *at = t->taken;
    *n = t->bytes - t->taken < PIECE ? t->bytes - t->taken : PIECE;
    t->taken += *n;
    if (t->taken == t->bytes) u->first = t->next;
    return t;
}

// Locked.
static void end_piece(at_cuda_uploader *u, at_cuda_transfer *t, size_t n, int error,
                      cudaError_t cuda)
{
    if (error && !t->error) t->error = error;
    if (cuda != cudaSuccess && t->cuda == cudaSuccess) t->cuda = cuda;
    t->queued += n;
    if (t->queued < t->bytes) return;
    cudaError_t e = cudaEventRecord(t->done, u->stream);
    if (t->cuda == cudaSuccess) t->cuda = e;
    t->active = false;
    pthread_cond_broadcast(&u->ended);
}

static void *reader(void *arg)
{
    at_cuda_uploader *u = arg;
    (void)cudaSetDevice(u->g->ordinal);
    pthread_mutex_lock(&u->lock);
    for (;;) {
        size_t at, n;
        int error;
        cudaError_t cuda;
        double began;
        while (!u->first || !u->row_count)
            pthread_cond_wait(&u->work, &u->lock);
        at_cuda_transfer *t = take_piece(u, &at, &n);
        int i = u->row[u->row_first];
        u->row_first = (u->row_first + 1) % SLOTS;
        u->row_count--;
        pthread_mutex_unlock(&u->lock);
        began = at_trace_begin();
        send_piece(u, t, at, n, &u->slots[i], &error, &cuda);
        at_trace_end_bytes(began, "upload", (double)n, "read and send");
        pthread_mutex_lock(&u->lock);
        u->row[(u->row_first + u->row_count++) % SLOTS] = i;
        end_piece(u, t, n, error, cuda);
    }
    return NULL; // not reached: the threads live as long as the process
}

// --- opening ---------------------------------------------------------------------------------------
static int threads_wanted(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    cpus = cpus * 3 / 4;
    return cpus < 1 ? 1 : cpus > MAX_THREADS ? MAX_THREADS : (int)cpus;
}

// Pinned memory, streams and events; on failure what was made stays with the process, unused.
static at_status open_rings(at_cuda *g, at_cuda_uploader *u)
{
    const unsigned quiet = cudaEventDisableTiming, waits = quiet | cudaEventBlockingSync;
    at_status st = AT_OK;
    char *ring = NULL;
    size_t bytes = (size_t)SLOTS * PIECE + (size_t)SEGMENTS * SEGMENT;

    AT_TRY(at_cuda_check(g, cudaHostAlloc((void **)&ring, bytes, cudaHostAllocDefault),
                         "pinned memory for uploads"));
    u->small = ring + (size_t)SLOTS * PIECE;
    AT_TRY(at_cuda_check(g, cudaStreamCreateWithFlags(&u->stream, cudaStreamNonBlocking),
                         "a stream for uploads"));
    for (int i = 0; i < SEGMENTS; i++)
        AT_TRY(at_cuda_check(g, cudaEventCreateWithFlags(&u->passed[i], quiet), "an event"));
    for (int i = 0; i < SLOTS; i++) {
        u->slots[i].bytes = ring + (size_t)i * PIECE;
        u->row[u->row_count++] = i;
        AT_TRY(at_cuda_check(g, cudaEventCreateWithFlags(&u->slots[i].sent, waits), "an event"));
    }
out:
    return st;
}

at_status at_cuda_uploader_open(at_cuda *g)
{
    at_status st = AT_OK;
    at_cuda_uploader *u = NULL;

    if (g->uploader) return AT_OK;
    u = at_calloc(1, sizeof *u);
    if (!u) return at_fail(AT_ENOMEM, "%s: no host memory for uploads", g->dev.name);
    u->g = g;
    pthread_mutex_init(&u->lock, NULL);
    pthread_cond_init(&u->work, NULL);
    pthread_cond_init(&u->ended, NULL);
    AT_TRY(open_rings(g, u));
    for (int i = threads_wanted(); i > 0; i--) {
        pthread_t id;
        if (pthread_create(&id, NULL, reader, u) != 0) break;
        pthread_detach(id);
        u->threads++;
    }
    if (!u->threads) AT_TRY(at_fail(AT_ENOMEM, "%s: no thread for uploads", g->dev.name));
    g->uploader = u;
    u = NULL;
out:
    at_free(u);
    return st;
}

size_t at_cuda_uploader_bytes(const at_cuda *g)
{
    return g->uploader ? (size_t)SLOTS * PIECE + (size_t)SEGMENTS * SEGMENT : 0;
}

// --- transfers -------------------------------------------------------------------------------------
static at_cuda_transfer transfer_of(void *dst, const void *src, const at_pieces *apart,
                                    size_t bytes)
{
    at_cuda_transfer t = {.dst = dst, .src = src, .apart = apart, .bytes = bytes};
    t.file = at_map_file(src, apart ? at_pieces_span(apart) : bytes, &t.offset);
    return t;
}

static at_status start(at_cuda *g, at_cuda_transfer *t, void *dst, const void *src,
                       const at_pieces *apart, size_t bytes, bool urgent, bool fresh)
{
    at_status st = at_cuda_uploader_open(g);
    at_cuda_uploader *u = g->uploader;

    if (st != AT_OK) return st;
    *t = transfer_of(dst, src, apart, bytes);
    t->active = true;
    AT_TRY(at_cuda_check(g, cudaEventCreateWithFlags(&t->done, cudaEventDisableTiming),
                         "an event for an upload"));
    t->behind = !fresh;
    if (!fresh) AT_TRY(at_cuda_check(g, cudaEventRecord(t->done, g->stream), "an upload"));
    pthread_mutex_lock(&u->lock);
    at_cuda_transfer **place = &u->first;
    while (*place && !urgent)
        place = &(*place)->next;
    t->next = *place;
    *place = t;
    for (size_t at = 0, i = 0; at < bytes && i < (size_t)u->threads; at += PIECE, i++)
        pthread_cond_signal(&u->work); // a thread a piece
    pthread_mutex_unlock(&u->lock);
    return AT_OK;
out:
    t->active = false;
    at_cuda_transfer_drop(g, t);
    return st;
}

at_status at_cuda_transfer_start(at_cuda *g, at_cuda_transfer *t, void *dst, const void *src,
                                 size_t bytes, bool urgent, bool fresh)
{
    return start(g, t, dst, src, NULL, bytes, urgent, fresh);
}

at_status at_cuda_transfer_weight(at_cuda *g, at_cuda_transfer *t, void *dst, const at_wview *w,
                                  size_t bytes, bool urgent)
{
    return start(g, t, dst, w->v.data, w->apart, bytes, urgent, false);
}

// The host waits until all of it is in the stream.
static void wait_queued(at_cuda_uploader *u, const at_cuda_transfer *t)
{
    pthread_mutex_lock(&u->lock);
    while (t->active)
        pthread_cond_wait(&u->ended, &u->lock);
    pthread_mutex_unlock(&u->lock);
}

at_status at_cuda_transfer_join(at_cuda *g, at_cuda_transfer *t)
{
    at_status st = AT_OK;

    if (t->joined) return AT_OK;
    double began = at_trace_begin();
    wait_queued(g->uploader, t);
    at_trace_end_bytes(began, "upload", (double)t->bytes, "wait for a weight");
    if (t->error) AT_TRY(read_error(g, t->error));
    AT_TRY(at_cuda_check(g, t->cuda, "an upload"));
    AT_TRY(at_cuda_check(g, cudaStreamWaitEvent(g->stream, t->done, 0), "waiting for an upload"));
    t->joined = true;
out:
    return st;
}

void at_cuda_transfer_drop(at_cuda *g, at_cuda_transfer *t)
{
    if (!t || !t->done) return;
    at_cuda_uploader *u = g->uploader;
    pthread_mutex_lock(&u->lock);
    for (at_cuda_transfer **at = &u->first; *at; at = &(*at)->next)
        if (*at == t) { // what no thread has taken yet is not read at all
            *at = t->next;
            t->queued += t->bytes - t->taken;
            t->active = t->queued < t->bytes;
            break;
        }
    pthread_mutex_unlock(&u->lock);
    wait_queued(u, t);
    // Whoever gets this memory next may write to it on the compute stream: behind the copies.
    if (!t->joined && t->queued) (void)cudaEventRecord(t->done, u->stream);
    if (!t->joined) (void)cudaStreamWaitEvent(g->stream, t->done, 0);
    (void)cudaEventDestroy(t->done);
    t->done = NULL;
}

// --- one call ----------------------------------------------------------------------------------------
static at_status send_small(at_cuda *g, at_cuda_uploader *u, const at_cuda_transfer *t)
{
    at_status st = AT_OK;
    size_t n = t->bytes;

    if (u->used + n > SEGMENT) {
        AT_TRY(at_cuda_check(g, cudaEventRecord(u->passed[u->segment], g->stream), "an upload"));
        u->segment = (u->segment + 1) % SEGMENTS;
        u->used = 0;
        AT_TRY(at_cuda_check(g, cudaEventSynchronize(u->passed[u->segment]), "an upload"));
    }
    char *stage = u->small + (size_t)u->segment * SEGMENT + u->used;
    int error = read_part(t, 0, n, stage);
    if (error) AT_TRY(read_error(g, error));
    u->used += (n + 255) / 256 * 256;
    AT_TRY(at_cuda_check(g, cudaMemcpyAsync(t->dst, stage, n, cudaMemcpyHostToDevice, g->stream),
                         "an upload"));
out:
    return st;
}

static at_status upload(at_cuda *g, void *dst, const void *src, const at_pieces *apart,
                        size_t bytes)
{
    at_status st = AT_OK;
    at_cuda_transfer t = {0};
    double began = at_trace_begin();

    if (g->recording) return at_fail(AT_EDEVICE, "%s: host bytes inside a recording", g->dev.name);
    AT_TRY(at_cuda_uploader_open(g));
    if (bytes <= DIRECT) {
        t = transfer_of(dst, src, apart, bytes);
        AT_TRY(send_small(g, g->uploader, &t));
        goto out;
    }
    AT_TRY(start(g, &t, dst, src, apart, bytes, true, false));
    AT_TRY(at_cuda_transfer_join(g, &t));
    at_trace_end_bytes(began, "upload", (double)bytes, "staged to %s", g->dev.name);
out:
    at_cuda_transfer_drop(g, &t);
    return st;
}

at_status at_cuda_upload(at_cuda *g, void *dst, const void *src, size_t bytes)
{
    return upload(g, dst, src, NULL, bytes);
}

at_status at_cuda_upload_weight(at_cuda *g, void *dst, const at_wview *w, size_t bytes)
{
    return upload(g, dst, w->v.data, w->apart, bytes);
}
