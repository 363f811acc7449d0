// SPDX-License-Identifier: Apache-2.0
// comm_peer.c - ranks whose devices push to each other: data over a wire, words over threads.
// Idea: a wire (tensor/wire.h) needs to know where bytes go; the ranks tell each other by the comm of threads
// beneath, which also votes, splits and breaks. A recorded exchange asks nobody any more.
// Easy to get wrong: a queued push waits on the device for the other rank's. Whoever asks the driver for memory
// meanwhile may wait for that device with the driver's lock in hand, and the other rank can queue nothing. So
// the hosts meet before they queue, and again when all have queued.
// After an abort, what is queued runs through without waiting; the next vote drains the devices and makes the
// wire as new, before anybody goes on.
// Owns: the wire belongs to the family and goes with its last comm.
#include "par/comm.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/trace.h"
#include "tensor/device.h"
#include "tensor/dtype.h"

enum { NOTES = 1 << 16 }; // pushes of a rank whose times are kept for a trace

typedef struct family {
    atomic_int refs; // comms
    const at_wire_ops *ops;
    at_wire *wire;
    atomic_bool cut;
    int size;
    at_device *device[AT_WIRE_RANKS];
    at_trace_source source; // ctx NULL: no times are noted
} family;

typedef struct peer_comm {
    at_comm base;
    family *f;
    at_comm *control;
    at_device *device;
    int here;                // this rank's end of the wire
    int ends[AT_WIRE_RANKS]; // of the ranks of this comm
} peer_comm;

static peer_comm *of(at_comm *c)
{
    return (peer_comm *)c;
}

static void peer_abort(at_comm *c, int code)
{
    peer_comm *p = of(c);

    p->control->ops->abort(p->control, code);
    atomic_store(&p->f->cut, true);
    p->f->ops->cut(p->f->wire);
}

// A failure of this rank's own: nobody must wait for what it did not queue.
static at_status gives_up(at_comm *c, at_status st)
{
    if (st != AT_OK) peer_abort(c, (int)st);
    return st;
}

// All ranks have come here; fails once any has given up.
static at_status meet(peer_comm *p)
{
    char mine = 0, all[AT_WIRE_RANKS];

    return p->control->ops->tell(p->control, &mine, all, 1);
}

// --- data --------------------------------------------------------------------------------------
static at_view bytes_of(void *data, size_t bytes)
{
    return (at_view){
        .data = data, .dtype = AT_U8, .rank = 1, .shape = {(int64_t)bytes}, .stride = {1}};
}

static size_t view_bytes(const at_view *v)
{
    size_t n = v->data ? at_dtype_size(v->dtype) : 0;

    for (int i = 0; i < v->rank; i++)
        n *= (size_t)v->shape[i];
    return n;
}

// Where rank j expects what I send: table[j * size + me].
static at_status parts_of(const peer_comm *p, const at_view *send, const at_view *recv,
                          const at_view *table, at_wire_part *parts)
{
    int n = p->base.size, me = p->base.rank;

    for (int i = 0; i < n; i++) {
        int other = (me + 1 + i) % n; // everybody begins with another one; the own part comes last
        const at_view *from = &send[other], *to = &table[other * n + me];

        if (view_bytes(from) != view_bytes(to))
            return at_fail(AT_EINTERNAL, "rank %d sends %zu bytes where rank %d expects %zu", me,
                           view_bytes(from), other, view_bytes(to));
        parts[i] = (at_wire_part){.rank = p->ends[other],
                                  .to = *to,
                                  .comes = other != me && view_bytes(&recv[other]) > 0};
        if (view_bytes(to)) parts[i].from = *from;
    }
    return AT_OK;
}

static at_status scatter(at_comm *c, const at_view *send, const at_view *recv, bool beside)
{
    at_status st = AT_OK;
    peer_comm *p = of(c);
    const at_wire_ops *ops = p->f->ops;
    at_view table[AT_WIRE_RANKS * AT_WIRE_RANKS];
    at_wire_part parts[AT_WIRE_RANKS];

    AT_TRY(p->control->ops->tell(p->control, recv, table, (size_t)c->size * sizeof *recv));
    AT_TRY(gives_up(c, parts_of(p, send, recv, table, parts)));
    AT_TRY(gives_up(c, (beside ? ops->begin : ops->push)(p->f->wire, p->here, parts, c->size)));
    AT_TRY(meet(p));
out:
    return st;
}

static at_status peer_scatter(at_comm *c, const at_view *send, const at_view *recv)
{
    return scatter(c, send, recv, false);
}

static at_status peer_scatter_begin(at_comm *c, const at_view *send, const at_view *recv)
{
    return scatter(c, send, recv, true);
}

static at_status peer_scatter_end(at_comm *c)
{
    at_status st = AT_OK;
    peer_comm *p = of(c);

    AT_TRY(meet(p));
    AT_TRY(gives_up(c, p->f->ops->end(p->f->wire, p->here)));
    AT_TRY(meet(p));
out:
    return st;
}

static at_status peer_exchange(at_comm *c, const at_comm_part *send, const at_comm_part *recv)
{
    at_view from[AT_WIRE_RANKS], to[AT_WIRE_RANKS];

    for (int i = 0; i < c->size; i++) {
        from[i] = bytes_of(send[i].data, send[i].bytes);
        to[i] = bytes_of(recv[i].data, recv[i].bytes);
    }
    return peer_scatter(c, from, to);
}

static at_status peer_sum(at_comm *c, at_dtype dtype, void *inout, size_t count)
{
    at_status st = AT_OK;
    peer_comm *p = of(c);
    const at_wire_ops *ops = p->f->ops;
    void *all[AT_WIRE_RANKS];

    AT_TRY(gives_up(c, ops->ready_sum(p->f->wire, p->here, dtype, c->size, count)));
    AT_TRY(p->control->ops->tell(p->control, &inout, all, sizeof inout));
    AT_TRY(gives_up(c, ops->sum(p->f->wire, p->here, dtype, p->ends, all, c->size, count)));
    AT_TRY(meet(p));
out:
    return st;
}

static at_status peer_all_reduce_sum(at_comm *c, float *inout, size_t count)
{
    return peer_sum(c, AT_F32, inout, count);
}

// --- words -------------------------------------------------------------------------------------
// A ballot that cannot fail on threads.
static int ballot(peer_comm *p, int mine)
{
    int result = mine;

    (void)p->control->ops->vote(p->control, mine, &result);
    return result;
}

// Everybody is here and nobody leaves before the last ballot, so that `cut` is the same for all.
static at_status peer_vote(at_comm *c, int mine, int *result)
{
    peer_comm *p = of(c);
    at_status st = AT_OK;

    AT_TRY(p->control->ops->vote(p->control, mine, result));
    if (!atomic_load(&p->f->cut)) {
        (void)ballot(p, 0);
        goto out;
    }
    st = p->device->ops->synchronize(p->device); // what was queued runs through
    (void)ballot(p, 0);
    if (st == AT_OK) st = p->f->ops->renew(p->f->wire, p->here);
    st = (at_status)ballot(p, (int)st);
    if (c->rank == 0 && st == AT_OK) {
        p->f->ops->mend(p->f->wire);
        atomic_store(&p->f->cut, false);
    }
    (void)ballot(p, 0);
    if (st != AT_OK && *result == AT_OK) *result = (int)st; // a device is lost: the wire stays cut
    st = AT_OK;
out:
    return st;
}

static at_status peer_spent(at_comm *c, at_wire_spent *out)
{
    return of(c)->f->ops->spent(of(c)->f->wire, of(c)->here, out);
}

static at_status peer_tell(at_comm *c, const void *send, void *recv, size_t bytes)
{
    return of(c)->control->ops->tell(of(c)->control, send, recv, bytes);
}

static void release(family *f)
{
    if (!f || atomic_fetch_sub(&f->refs, 1) != 1) return;
    if (f->source.ctx) at_trace_source_remove(&f->source);
    if (f->wire) f->ops->free(f->wire);
    at_free(f);
}

static void peer_free(at_comm *c)
{
    peer_comm *p = of(c);
    family *f = p->f;

    at_comm_free(p->control);
    at_free(p);
    release(f);
}

static at_status peer_split(at_comm *c, int colour, at_comm **out);

#define PEER_OPS                                                                                   \
    .all_gather = at_comm_gather_parts, .all_to_all = at_comm_swap_parts,                          \
    .exchange = peer_exchange, .scatter = peer_scatter, .all_reduce_sum = peer_all_reduce_sum,     \
    .sum = peer_sum, .vote = peer_vote, .tell = peer_tell, .spent = peer_spent,                    \
    .split = peer_split, .abort = peer_abort, .free = peer_free
// AT_OFF=ahead: nothing travels beside other work.
static const at_comm_ops peer_ops_plain = {PEER_OPS};
static const at_comm_ops peer_ops = {PEER_OPS, .scatter_begin = peer_scatter_begin,
                                     .scatter_end = peer_scatter_end};

// --- traces ------------------------------------------------------------------------------------
static void add_time(const at_device *d, const char *category, bool beside, double from, double to,
                     double bytes)
{
    at_trace_slice s = {.category = category,
                        .device = d->name,
                        .beside = beside,
                        .device_only = true,
                        .began = from,
                        .seconds = to - from,
                        .device_began = from,
                        .device_seconds = to - from,
                        .bytes = bytes};

    if (to <= from) return;
    snprintf(s.name, sizeof s.name, "%s", category);
    at_trace_add(&s);
}

// What the rank's stream had to wait for is told apart by what the side was doing then.
static void add_push(const at_device *d, const at_wire_time *t)
{
    bool halves = t->held > 0;
    double at = t->held;

    add_time(d, "wait", halves, t->came, t->went, 0);
    add_time(d, "send", halves, t->went, t->sent, t->bytes);
    if (!halves) {
        add_time(d, "wait", false, t->sent, t->done, 0);
        return;
    }
    add_time(d, "wait", false, at, fmin(t->went, t->done), 0);
    at = fmax(at, t->went);
    add_time(d, "send", false, at, fmin(t->sent, t->done), 0);
    add_time(d, "wait", false, fmax(at, t->sent), t->done, 0);
}

static void begin_notes(void *ctx)
{
    family *f = ctx;

    if (f->ops->note(f->wire, NOTES) != AT_OK)
        at_log(AT_WARN, "TRACE-WIRE", "exchanges are not traced: %s", at_error_text());
}

static at_status collect_rank(family *f, int rank, at_wire_time *times)
{
    at_status st = AT_OK;
    size_t n = 0, lost = 0;
    double error = 0;
    at_trace_slice clock = {.category = "clock", .began = at_now(), .device_seconds = -1};

    AT_TRY(f->device[rank]->ops->synchronize(f->device[rank]));
    AT_TRY(f->ops->noted(f->wire, rank, times, NOTES, &n, &lost, &error));
    at_trace_set_rank(rank);
    for (size_t i = 0; i < n; i++)
        add_push(f->device[rank], &times[i]);
    snprintf(clock.name, sizeof clock.name, "%s: clock within %.1f us, %zu exchanges not noted",
             f->device[rank]->name, error * 1e6, lost);
    at_trace_add(&clock);
    at_trace_set_rank(-1);
out:
    return st;
}

static void collect_notes(void *ctx)
{
    family *f = ctx;
    at_wire_time *times = at_alloc(NOTES * sizeof *times);
    at_status st = times ? AT_OK : at_fail(AT_ENOMEM, "no memory for times");

    for (int i = 0; i < f->size && st == AT_OK; i++)
        st = collect_rank(f, i, times);
    if (st != AT_OK) at_log(AT_WARN, "TRACE-WIRE", "exchanges are not traced: %s", at_error_text());
    at_free(times);
}

// Before anything is queued: recordings keep what their pushes do.
static at_status take_notes(family *f)
{
    at_status st = AT_OK;

    if (!at_trace_wanted() || !f->ops->note) return AT_OK;
    AT_TRY(f->ops->note(f->wire, NOTES));
    f->source = (at_trace_source){.begin = begin_notes, .collect = collect_notes, .ctx = f};
    at_trace_source_add(&f->source);
out:
    return st;
}

// --- making ------------------------------------------------------------------------------------
// Takes `control`.
static peer_comm *comm_new(family *f, at_comm *control, at_device *device, int here)
{
    peer_comm *p = at_calloc(1, sizeof *p);

    if (!p) {
        at_comm_free(control);
        return NULL;
    }
    p->base = (at_comm){.ops = at_has_word(getenv("AT_OFF"), "ahead") ? &peer_ops_plain : &peer_ops,
                        .rank = control->rank,
                        .size = control->size,
                        .on_device = true};
    p->f = f;
    p->control = control;
    p->device = device;
    p->here = here;
    atomic_fetch_add(&f->refs, 1);
    return p;
}

static at_status peer_split(at_comm *c, int colour, at_comm **out)
{
    at_status st = AT_OK;
    peer_comm *p = of(c), *part = NULL;
    at_comm *control = NULL;

    *out = NULL;
    AT_TRY(p->control->ops->split(p->control, colour, &control));
    part = comm_new(p->f, control, p->device, p->here);
    if (!part) AT_TRY(gives_up(c, at_fail(AT_ENOMEM, "comm: no memory for a part")));
    AT_TRY(control->ops->tell(control, &p->here, part->ends, sizeof p->here));
    *out = &part->base;
    part = NULL;
out:
    if (part) peer_free(&part->base);
    return st;
}

at_status at_comm_peer(int size, at_device *const *devices, at_comm **out)
{
    at_status st = AT_OK;
    at_comm *control[AT_WIRE_RANKS] = {NULL};
    family *f = NULL;

    for (int i = 0; i < size; i++)
        out[i] = NULL;
    if (size < 1 || size > AT_WIRE_RANKS)
        return at_fail(AT_EUNSUPPORTED, "%d devices on one picture; 1 to %d are possible", size,
                       AT_WIRE_RANKS);
    for (int i = 0; i < size; i++)
        if (!devices[i]->ops->wire || devices[i]->ops->wire != devices[0]->ops->wire)
            return at_fail(AT_EUNSUPPORTED, "%s and %s cannot push to each other", devices[0]->name,
                           devices[i]->name);
    AT_TRY(at_comm_threads(size, control));
    f = at_calloc(1, sizeof *f);
    if (!f) AT_TRY(at_fail(AT_ENOMEM, "comm: no memory for %d ranks", size));
    atomic_init(&f->refs, 1);
    f->ops = devices[0]->ops->wire;
    f->size = size;
    memcpy(f->device, devices, (size_t)size * sizeof *devices);
    AT_TRY(f->ops->open(devices, size, &f->wire));
    AT_TRY(take_notes(f));
    for (int i = 0; i < size; i++) {
        peer_comm *p = comm_new(f, control[i], devices[i], i);

        control[i] = NULL;
        if (!p) AT_TRY(at_fail(AT_ENOMEM, "comm: no memory for %d ranks", size));
        out[i] = &p->base;
        for (int k = 0; k < size; k++)
            p->ends[k] = k;
    }
out:
    for (int i = 0; i < size; i++) {
        at_comm_free(control[i]);
        if (st != AT_OK) at_comm_free(out[i]);
        if (st != AT_OK) out[i] = NULL;
    }
    release(f);
    return st;
}
