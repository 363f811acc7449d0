// SPDX-License-Identifier: Apache-2.0
// wire.c - at_wire_ops between the GPUs of one process.
// Idea: where every GPU reaches every other's memory one kernel stores straight into it (wire.cu). Elsewhere, or
// with AT_OFF=stores, the same flags stand around plain copies, which the driver takes through the host if it
// must; flags lie in the memory of who reads them, or in the host's.
// Easy to get wrong: a kernel's code comes to a GPU with its first launch, which may wait for the other GPUs:
// open() launches each once. Scratch for sums grows while nothing is recorded.
// Ownership: see tensor/wire.h; flags, counters and scratch belong to the wire.
#include "cuda/wire.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "cuda/cuda.h"

// A device's clock beside the host's: the same moment on both, as far as it could be seen.
typedef struct at_clock {
    double host, error;
    uint64_t device; // nanoseconds
} at_clock;

struct at_wire {
    int n;
    bool direct; // stores reach every peer's memory
    at_cuda *gpu[AT_WIRE_RANKS];
    at_k_wire_flags *flags[AT_WIRE_RANKS]; // of one rank: one for each peer
    at_k_wire_own *own[AT_WIRE_RANKS];
    float *scratch[AT_WIRE_RANKS];
    size_t scratch_bytes[AT_WIRE_RANKS];
    // Pushes in two halves: where their copies run, and what the end has to do.
    cudaStream_t side[AT_WIRE_RANKS];
    cudaEvent_t forked[AT_WIRE_RANKS], joined[AT_WIRE_RANKS];
    at_k_wire pending[AT_WIRE_RANKS];
    uint32_t
        *host; // pinned, mapped: the cut word, a clock, then the flags of those without peer access
    at_k_wire_record *notes[AT_WIRE_RANKS]; // NULL: no times are noted
    uint32_t room;
    at_clock clock[AT_WIRE_RANKS]; // when notes began
    bool cut;
};

static const size_t flags_bytes = AT_WIRE_RANKS * sizeof(at_k_wire_flags);

// --- opening -----------------------------------------------------------------------------------
// Every GPU may read and write this one's memory, as far as the machine can.
static at_status reach(at_wire *w, int rank)
{
    at_status st = AT_OK;
    at_cuda *g = w->gpu[rank];

    AT_TRY(at_cuda_check(g, cudaSetDevice(g->ordinal), "choosing it"));
    for (int i = 0; i < w->n; i++) {
        int can = 0;
        cudaError_t e;

        if (i == rank) continue;
        AT_TRY(at_cuda_check(g, cudaDeviceCanAccessPeer(&can, g->ordinal, w->gpu[i]->ordinal),
                             "asking for peer access"));
        e = can ? cudaDeviceEnablePeerAccess(w->gpu[i]->ordinal, 0) : cudaSuccess;
        if (e == cudaErrorPeerAccessAlreadyEnabled) {
            (void)cudaGetLastError();
            e = cudaSuccess;
        }
        AT_TRY(at_cuda_check(g, e, "peer access"));
        w->direct = w->direct && can;
    }
out:
    return st;
}

// Flags where their reader is nearest to them, zeroed like the counters.
static at_status make_end(at_wire *w, int rank)
{
    at_status st = AT_OK;
    at_cuda *g = w->gpu[rank];
    void *own = NULL, *flags = NULL;
    int first = 0; // the highest priority

    AT_TRY(at_cuda_check(g, cudaSetDevice(g->ordinal), "choosing it"));
    AT_TRY(at_cuda_check(g, cudaMalloc(&own, sizeof *w->own[0]), "counters of a wire"));
    w->own[rank] = own;
    AT_TRY(at_cuda_check(g, cudaMemset(own, 0, sizeof *w->own[0]), "counters of a wire"));
    if (w->direct) {
        AT_TRY(at_cuda_check(g, cudaMalloc(&flags, flags_bytes), "flags of a wire"));
        w->flags[rank] = flags;
        AT_TRY(at_cuda_check(g, cudaMemset(flags, 0, flags_bytes), "flags of a wire"));
    } else {
        w->flags[rank] = (at_k_wire_flags *)((char *)w->host + flags_bytes * (size_t)(rank + 1));
    }
    for (int unit = 1; unit <= 16; unit *= unit == 4 ? 4 : 2) { // 1, 2, 4, 16
        at_k_wire nothing = {.unit = unit, .own = own, .cut = w->host};

        AT_TRY(at_cuda_check(g, at_k_wire_push(g->stream, &nothing, false, true), "a wire"));
    }
    at_k_wire nobody = {.own = own, .cut = w->host}, noting = nobody;
    at_k_wire_record nowhere;
    AT_TRY(at_cuda_check(g, at_k_wire_flags_only(g->stream, &nobody, 0), "a wire"));
    noting.notes = &nowhere; // not written
    AT_TRY(at_cuda_check(g, at_k_wire_flags_only(g->stream, &noting, 0), "a wire"));
    static const at_dtype sums[] = {AT_F32, AT_F16, AT_BF16};
    for (int i = 0; i < 3; i++) {
        at_k_wire_sum_in nothing = {.dtype = sums[i]};

        AT_TRY(at_cuda_check(g, at_k_wire_sum(g->stream, &nobody, &nothing), "a wire"));
        AT_TRY(at_cuda_check(g, at_k_wire_add(g->stream, &nothing, NULL), "a wire"));
    }
    AT_TRY(at_cuda_check(g, cudaStreamSynchronize(g->stream), "a wire"));
    // What waits there is short and others wait for it: it goes before what fills the chip.
    AT_TRY(at_cuda_check(g, cudaDeviceGetStreamPriorityRange(NULL, &first), "a stream for pushes"));
    AT_TRY(at_cuda_check(g,
                         cudaStreamCreateWithPriority(&w->side[rank], cudaStreamNonBlocking, first),
                         "a stream for pushes"));
    AT_TRY(at_cuda_check(g, cudaEventCreateWithFlags(&w->forked[rank], cudaEventDisableTiming),
                         "an event"));
    AT_TRY(at_cuda_check(g, cudaEventCreateWithFlags(&w->joined[rank], cudaEventDisableTiming),
                         "an event"));
out:
    return st;
}

static void wire_free(at_wire *w)
{
    if (!w) return;
    for (int i = 0; i < w->n; i++) {
        (void)cudaSetDevice(w->gpu[i]->ordinal);
        (void)cudaFree(w->own[i]);
        (void)cudaFree(w->notes[i]);
        if (w->direct) (void)cudaFree(w->flags[i]);
        if (w->side[i]) (void)cudaStreamDestroy(w->side[i]);
        if (w->forked[i]) (void)cudaEventDestroy(w->forked[i]);
        if (w->joined[i]) (void)cudaEventDestroy(w->joined[i]);
        at_cuda_free(w->gpu[i], w->scratch[i]);
    }
    if (w->host) (void)cudaFreeHost(w->host);
    at_free(w);
}

static at_status wire_open(at_device *const *devices, int n, at_wire **out)
{
    at_status st = AT_OK;
    at_wire *w = NULL;
    size_t bytes = flags_bytes * (AT_WIRE_RANKS + 1);

    *out = NULL;
    if (n < 1 || n > AT_WIRE_RANKS)
        return at_fail(AT_EUNSUPPORTED, "%d GPUs on one picture; %d are the most", n,
                       AT_WIRE_RANKS);
    w = at_calloc(1, sizeof *w);
    if (!w) return at_fail(AT_ENOMEM, "no memory for a wire between %d GPUs", n);
    w->direct = !at_has_word(getenv("AT_OFF"), "stores");
    for (int i = 0; i < n; i++) {
        w->gpu[w->n++] = (at_cuda *)devices[i];
        AT_TRY(at_cuda_open(w->gpu[i]));
        for (int k = 0; k < i; k++)
            if (w->gpu[k] == w->gpu[i])
                AT_TRY(at_fail(AT_EINVAL, "%s is rank %d and rank %d of one picture",
                               devices[i]->name, k, i));
    }
    AT_TRY(at_cuda_check(
        w->gpu[0],
        cudaHostAlloc((void **)&w->host, bytes, cudaHostAllocPortable | cudaHostAllocMapped),
        "pinned memory for a wire"));
    memset(w->host, 0, bytes);
    for (int i = 0; i < n; i++)
        AT_TRY(reach(w, i));
    for (int i = 0; i < n; i++)
        AT_TRY(make_end(w, i));
    *out = w;
    w = NULL;
out:
    wire_free(w);
    return st;
}

// --- parts -------------------------------------------------------------------------------------
static void swap_dims(at_k_wire_copy *c, int a, int b)
{
    uint32_t n = c->n[a];
    int64_t from = c->step_from[a], to = c->step_to[a];

    c->n[a] = c->n[b];
    c->step_from[a] = c->step_from[b];
    c->step_to[a] = c->step_to[b];
    c->n[b] = n;
    c->step_from[b] = from;
    c->step_to[b] = to;
}

// Merges what lies dense behind each other; dimension 0 is the innermost, in bytes. False: too many dimensions.
static bool fold(const at_view *from, const at_view *to, at_k_wire_copy *c)
{
    int64_t size = (int64_t)at_cuda_size(from->dtype);
    int top = 0;

    *c = (at_k_wire_copy){.from = from->data, .to = to->data, .n = {1, 1, 1, 1}};
    c->n[0] = (uint32_t)size;
    c->step_from[0] = c->step_to[0] = 1;
    for (int d = from->rank - 1; d >= 0; d--) {
        int64_t sf = from->stride[d] * size, st = to->stride[d] * size, n = from->shape[d];

        if (n == 1) continue;
        if (sf == c->step_from[top] * c->n[top] && st == c->step_to[top] * c->n[top]) {
            c->n[top] *= (uint32_t)n;
            continue;
        }
        if (++top == AT_K_WIRE_DIMS) return false;
        c->n[top] = (uint32_t)n;
        c->step_from[top] = sf;
        c->step_to[top] = st;
    }
    // The longest dimension next to the innermost: a copy engine takes two at once.
    for (int d = 2; d <= top; d++)
        if (c->n[d] > c->n[1]) swap_dims(c, 1, d);
    return true;
}

// The widest word that all of them are made of.
static int common_unit(const at_k_wire *k)
{
    uint64_t bits = 16;

    for (int i = 0; i < k->copies; i++) {
        const at_k_wire_copy *c = &k->copy[i];

        bits |= (uintptr_t)c->from | (uintptr_t)c->to | c->n[0];
        for (int d = 1; d < AT_K_WIRE_DIMS; d++)
            bits |= (uint64_t)c->step_from[d] | (uint64_t)c->step_to[d];
    }
    return bits & 1 ? 1 : bits & 3 ? 2 : bits & 15 ? 4 : 16;
}

static void in_words(at_k_wire *k)
{
    k->unit = common_unit(k);
    for (int i = 0; i < k->copies; i++) {
        at_k_wire_copy *c = &k->copy[i];

        c->n[0] /= (uint32_t)k->unit;
        for (int d = 1; d < AT_K_WIRE_DIMS; d++) {
            c->step_from[d] /= k->unit;
            c->step_to[d] /= k->unit;
        }
    }
}

static void add_peer(const at_wire *w, int rank, int other, at_k_wire *k)
{
    k->peer[k->peers++] = (at_k_wire_peer){
        .rank = other, .here = &w->flags[rank][other], .there = &w->flags[other][rank]};
}

static at_status wanted(const at_wire *w, int rank, const at_wire_part *parts, int n, at_k_wire *k)
{
    *k = (at_k_wire){.own = w->own[rank], .cut = w->host, .notes = w->notes[rank], .room = w->room};
    if (n > AT_WIRE_RANKS)
        return at_fail(AT_EINTERNAL, "%s: %d parts in one push", w->gpu[rank]->dev.name, n);
    for (int i = 0; i < n; i++) {
        const at_view *from = &parts[i].from;
        int64_t count = from->data ? at_cuda_count(from) : 0;

        if (parts[i].rank != rank && (count || parts[i].comes)) add_peer(w, rank, parts[i].rank, k);
        if (!count || from->data == parts[i].to.data) continue;
        if (count * (int64_t)at_cuda_size(from->dtype) > INT32_MAX ||
            !fold(from, &parts[i].to, &k->copy[k->copies++]))
            return at_fail(AT_EUNSUPPORTED, "%s: a part for rank %d is too large or too scattered",
                           w->gpu[rank]->dev.name, parts[i].rank);
        if (parts[i].rank != rank)
            k->bytes += (uint64_t)count * (uint64_t)at_cuda_size(from->dtype);
    }
    in_words(k);
    return AT_OK;
}

// --- pushing -----------------------------------------------------------------------------------
// Rows of dense bytes by the copy engines, one call for the two innermost dimensions.
static at_status copy_rows(at_cuda *g, cudaStream_t stream, const at_k_wire_copy *c, int unit)
{
    at_status st = AT_OK;
    size_t width = (size_t)c->n[0] * (size_t)unit, u = (size_t)unit;

    for (uint32_t b = 0; b < c->n[3]; b++)
        for (uint32_t a = 0; a < c->n[2]; a++) {
            const char *from = c->from + (c->step_from[2] * a + c->step_from[3] * b) * unit;
            char *to = c->to + (c->step_to[2] * a + c->step_to[3] * b) * unit;

            if (c->n[1] == 1)
                AT_TRY(at_cuda_check(g, cudaMemcpyAsync(to, from, width, cudaMemcpyDefault, stream),
                                     "a push"));
            else
                AT_TRY(at_cuda_check(g,
                                     cudaMemcpy2DAsync(to, (size_t)c->step_to[1] * u, from,
                                                       (size_t)c->step_from[1] * u, width, c->n[1],
                                                       cudaMemcpyDefault, stream),
                                     "a push"));
        }
out:
    return st;
}

static at_status wire_push(at_wire *w, int rank, const at_wire_part *parts, int n)
{
    at_status st = AT_OK;
    at_cuda *g = w->gpu[rank];
    at_k_wire k;

    AT_TRY(wanted(w, rank, parts, n, &k));
    if (!k.peers && !k.copies) goto out;
    (void)cudaSetDevice(g->ordinal);
    if (w->direct) {
        AT_TRY(at_cuda_check(g, at_k_wire_push(g->stream, &k, true, true), "a push"));
        goto out;
    }
    at_k_wire flags = k;
    flags.copies = 0;
    AT_TRY(at_cuda_check(g, at_k_wire_push(g->stream, &flags, true, false), "a push"));
    for (int i = 0; i < k.copies; i++)
        AT_TRY(copy_rows(g, g->stream, &k.copy[i], k.unit));
    AT_TRY(at_cuda_check(g, at_k_wire_push(g->stream, &flags, false, true), "a push"));
out:
    return st;
}

// The own part on the stream, the others' by copy engines: those take nothing from what runs beside them. The stream
// itself says that it is here and goes on; whether the others are, and that all is sent, is the side's matter.
static at_status wire_begin(at_wire *w, int rank, const at_wire_part *parts, int n)
{
    at_status st = AT_OK;
    at_cuda *g = w->gpu[rank];
    at_wire_part own[AT_WIRE_RANKS], others[AT_WIRE_RANKS];
    int n_own = 0, n_others = 0;
    at_k_wire k, *flags = &w->pending[rank];

    for (int i = 0; i < n && i < AT_WIRE_RANKS; i++) {
        if (parts[i].rank == rank)
            own[n_own++] = parts[i];
        else
            others[n_others++] = parts[i];
    }
    AT_TRY(wanted(w, rank, own, n_own, &k));
    (void)cudaSetDevice(g->ordinal);
    if (k.copies) AT_TRY(at_cuda_check(g, at_k_wire_push(g->stream, &k, false, false), "a push"));
    AT_TRY(wanted(w, rank, others, n_others, &k));
    *flags = k;
    flags->copies = 0;
    AT_TRY(
        at_cuda_check(g, at_k_wire_flags_only(g->stream, flags, AT_K_WIRE_TELL_READY), "a push"));
    AT_TRY(at_cuda_check(g, cudaEventRecord(w->forked[rank], g->stream), "a push"));
    AT_TRY(at_cuda_check(g, cudaStreamWaitEvent(w->side[rank], w->forked[rank], 0), "a push"));
    AT_TRY(at_cuda_check(g, at_k_wire_flags_only(w->side[rank], flags, AT_K_WIRE_READY), "a push"));
    for (int i = 0; i < k.copies; i++)
        AT_TRY(copy_rows(g, w->side[rank], &k.copy[i], k.unit));
    AT_TRY(at_cuda_check(g, at_k_wire_flags_only(w->side[rank], flags, AT_K_WIRE_TELL_SENT),
                         "a push"));
    AT_TRY(at_cuda_check(g, cudaEventRecord(w->joined[rank], w->side[rank]), "a push"));
out:
    return st;
}

static at_status wire_end(at_wire *w, int rank)
{
    at_status st = AT_OK;
    at_cuda *g = w->gpu[rank];

    (void)cudaSetDevice(g->ordinal);
    if (w->pending[rank].notes)
        AT_TRY(at_cuda_check(g, at_k_wire_flags_only(g->stream, &w->pending[rank], AT_K_WIRE_HELD),
                             "a push"));
    AT_TRY(at_cuda_check(g, cudaStreamWaitEvent(g->stream, w->joined[rank], 0), "a push"));
    AT_TRY(at_cuda_check(g, at_k_wire_flags_only(g->stream, &w->pending[rank], AT_K_WIRE_SENT),
                         "a push"));
out:
    return st;
}

// --- sums --------------------------------------------------------------------------------------
static at_status wire_ready_sum(at_wire *w, int rank, at_dtype dtype, int n, size_t count)
{
    at_status st = AT_OK;
    at_cuda *g = w->gpu[rank];
    size_t bytes = (size_t)n * count * at_cuda_size(dtype);
    void *fresh = NULL;

    if (w->direct || w->scratch_bytes[rank] >= bytes) return AT_OK;
    if (g->recording)
        return at_fail(AT_EDEVICE, "%s: a sum inside a recording that was never done before",
                       g->dev.name);
    AT_TRY(at_cuda_alloc(g, bytes, &fresh));
    at_cuda_free(g, w->scratch[rank]);
    w->scratch[rank] = fresh;
    w->scratch_bytes[rank] = bytes;
out:
    return st;
}

static at_view numbers(void *data, at_dtype dtype, size_t first, size_t count)
{
    return at_cuda_view((char *)data + first * at_cuda_size(dtype), dtype, 1,
                        (int64_t[]){(int64_t)count});
}

// Everybody's numbers to everybody, then each adds by itself.
static at_status sum_by_copies(at_wire *w, int rank, at_dtype dtype, const int *ranks,
                               void *const *inout, int n, size_t count)
{
    at_status st = AT_OK;
    at_cuda *g = w->gpu[rank];
    at_wire_part parts[AT_WIRE_RANKS];
    at_k_wire_sum_in in = {.n = n, .dtype = dtype, .count = count};
    int me = 0;

    while (me < n && ranks[me] != rank)
        me++;
    for (int i = 0; i < n; i++) {
        parts[i] =
            (at_wire_part){.rank = ranks[i],
                           .from = numbers(inout[me], dtype, 0, count),
                           .to = numbers(w->scratch[ranks[i]], dtype, count * (size_t)me, count),
                           .comes = true};
        in.inout[i] = numbers(w->scratch[rank], dtype, count * (size_t)i, count).data;
    }
    AT_TRY(wire_push(w, rank, parts, n));
    AT_TRY(at_cuda_check(g, at_k_wire_add(g->stream, &in, inout[me]), "a sum"));
out:
    return st;
}

static at_status wire_sum(at_wire *w, int rank, at_dtype dtype, const int *ranks,
                          void *const *inout, int n, size_t count)
{
    at_cuda *g = w->gpu[rank];
    at_k_wire k = {.own = w->own[rank], .cut = w->host, .notes = w->notes[rank], .room = w->room};
    at_k_wire_sum_in in = {.n = n, .dtype = dtype};
    const size_t line = 64; // shares begin at whole lines, so that words are whole

    if (n > AT_WIRE_RANKS) return at_fail(AT_EINTERNAL, "%s: %d numbers to add", g->dev.name, n);
    (void)cudaSetDevice(g->ordinal);
    if (!w->direct) return sum_by_copies(w, rank, dtype, ranks, inout, n, count);
    for (int i = 0; i < n; i++) {
        in.inout[i] = inout[i];
        if (ranks[i] != rank) {
            add_peer(w, rank, ranks[i], &k);
            continue;
        }
        size_t lines = (count + line - 1) / line, each = (lines + (size_t)n - 1) / (size_t)n * line;
        in.first = each * (size_t)i < count ? each * (size_t)i : count;
        in.count = count - in.first < each ? count - in.first : each;
    }
    k.bytes = 2 * (uint64_t)(n - 1) * in.count * at_cuda_size(dtype); // read there, and written
    return at_cuda_check(g, at_k_wire_sum(g->stream, &k, &in), "a sum");
}

// --- failures ----------------------------------------------------------------------------------
static void wire_cut(at_wire *w)
{
    __atomic_store_n(w->host, 1, __ATOMIC_RELEASE);
}

static at_status wire_renew(at_wire *w, int rank)
{
    at_status st = AT_OK;
    at_cuda *g = w->gpu[rank];

    AT_TRY(at_cuda_check(g, cudaSetDevice(g->ordinal), "choosing it"));
    AT_TRY(at_cuda_check(g, cudaStreamSynchronize(w->side[rank]), "mending a wire"));
    AT_TRY(at_cuda_check(g, cudaMemsetAsync(w->own[rank], 0, sizeof *w->own[0], g->stream),
                         "mending a wire"));
    if (w->direct)
        AT_TRY(at_cuda_check(g, cudaMemsetAsync(w->flags[rank], 0, flags_bytes, g->stream),
                             "mending a wire"));
    else
        memset(w->flags[rank], 0, flags_bytes);
    AT_TRY(at_cuda_check(g, cudaStreamSynchronize(g->stream), "mending a wire"));
out:
    return st;
}

static void wire_mend(at_wire *w)
{
    __atomic_store_n(w->host, 0, __ATOMIC_RELEASE);
}

static at_status wire_spent(at_wire *w, int rank, at_wire_spent *out)
{
    at_status st = AT_OK;
    at_cuda *g = w->gpu[rank];
    at_k_wire_own own;
    const size_t at = offsetof(at_k_wire_own, waited), n = sizeof own - at;

    AT_TRY(at_cuda_check(g, cudaSetDevice(g->ordinal), "choosing it"));
    AT_TRY(at_cuda_check(
        g, cudaMemcpyAsync(&own, w->own[rank], sizeof own, cudaMemcpyDeviceToHost, g->stream),
        "a wire's times"));
    AT_TRY(at_cuda_check(g, cudaMemsetAsync((char *)w->own[rank] + at, 0, n, g->stream),
                         "a wire's times"));
    AT_TRY(at_cuda_check(g, cudaStreamSynchronize(g->stream), "a wire's times"));
    *out = (at_wire_spent){.waited = (double)own.waited * 1e-9,
                           .moved = (double)own.moved * 1e-9,
                           .pushes = own.pushes};
out:
    return st;
}

// --- times -------------------------------------------------------------------------------------
// The narrowest of some looks at both clocks.
static at_status read_clock(at_wire *w, int rank, at_clock *out)
{
    at_status st = AT_OK;
    at_cuda *g = w->gpu[rank];
    uint64_t *ns = (uint64_t *)(w->host + 2);

    *out = (at_clock){.error = 1e30};
    (void)cudaSetDevice(g->ordinal);
    for (int i = 0; i < 16; i++) {
        double before = at_now();

        AT_TRY(at_cuda_check(g, at_k_wire_clock(g->stream, ns), "its clock"));
        AT_TRY(at_cuda_check(g, cudaStreamSynchronize(g->stream), "its clock"));
        double after = at_now(), error = 0.5 * (after - before);
        if (error < out->error)
            *out = (at_clock){0.5 * (before + after), error, __atomic_load_n(ns, __ATOMIC_ACQUIRE)};
    }
out:
    return st;
}

static at_status wire_note(at_wire *w, size_t room)
{
    at_status st = AT_OK;

    if (w->room && room != w->room) // recordings know where they are
        return at_fail(AT_EINTERNAL, "a wire with room for %u times and %zu", w->room, room);
    for (int i = 0; i < w->n; i++) {
        at_cuda *g = w->gpu[i];
        void *p = w->notes[i];

        (void)cudaSetDevice(g->ordinal);
        if (!p) AT_TRY(at_cuda_check(g, cudaMalloc(&p, room * sizeof *w->notes[0]), "times"));
        w->notes[i] = p;
        AT_TRY(at_cuda_check(
            g, cudaMemsetAsync(&w->own[i]->noted, 0, sizeof w->own[i]->noted, g->stream), "times"));
        AT_TRY(read_clock(w, i, &w->clock[i]));
    }
    w->room = (uint32_t)room;
out:
    return st;
}

// Between two looks at both clocks, and a little beyond.
static double host_time(const at_clock *a, const at_clock *b, uint64_t ns)
{
    double passed = (double)(int64_t)(b->device - a->device) * 1e-9;
    double rate = passed > 0.1 ? (b->host - a->host) / passed : 1; // too short: it says nothing

    return ns ? a->host + (double)(int64_t)(ns - a->device) * 1e-9 * rate : 0;
}

static at_status wire_noted(at_wire *w, int rank, at_wire_time *out, size_t max, size_t *n,
                            size_t *lost, double *error)
{
    at_status st = AT_OK;
    at_cuda *g = w->gpu[rank];
    at_k_wire_record *all = NULL;
    at_clock now, *began = &w->clock[rank];
    uint32_t count = 0;

    *n = *lost = 0;
    *error = 0;
    if (!w->notes[rank]) return AT_OK;
    AT_TRY(read_clock(w, rank, &now));
    AT_TRY(at_cuda_check(g,
                         cudaMemcpyAsync(&count, &w->own[rank]->noted, sizeof count,
                                         cudaMemcpyDeviceToHost, g->stream),
                         "times"));
    AT_TRY(at_cuda_check(g, cudaStreamSynchronize(g->stream), "times"));
    *n = count < w->room ? count : w->room;
    if (*n > max) *n = max;
    *lost = count - *n;
    *error = now.error > began->error ? now.error : began->error;
    all = at_alloc((*n + 1) * sizeof *all);
    if (!all) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %zu times", g->dev.name, *n));
    if (*n)
        AT_TRY(at_cuda_check(g,
                             cudaMemcpyAsync(all, w->notes[rank], *n * sizeof *all,
                                             cudaMemcpyDeviceToHost, g->stream),
                             "times"));
    AT_TRY(at_cuda_check(g, cudaStreamSynchronize(g->stream), "times"));
    for (size_t i = 0; i < *n; i++)
        out[i] = (at_wire_time){.came = host_time(began, &now, all[i].came),
                                .went = host_time(began, &now, all[i].went),
                                .sent = host_time(began, &now, all[i].sent),
                                .done = host_time(began, &now, all[i].done),
                                .held = host_time(began, &now, all[i].held),
                                .bytes = (double)all[i].bytes};
out:
    if (st != AT_OK) *n = 0;
    at_free(all);
    return st;
}

const at_wire_ops at_cuda_wire_ops = {
    .open = wire_open,
    .push = wire_push,
    .begin = wire_begin,
    .end = wire_end,
    .ready_sum = wire_ready_sum,
    .sum = wire_sum,
    .cut = wire_cut,
    .renew = wire_renew,
    .mend = wire_mend,
    .free = wire_free,
    .spent = wire_spent,
    .link = at_cuda_link,
    .note = wire_note,
    .noted = wire_noted,
};
