// SPDX-License-Identifier: Apache-2.0
// comm_nccl.c - ranks whose devices talk through channels: data by NCCL, words by the comm beneath.
// Idea: a channel is made when its comm first exchanges something: rank 0 makes a ticket and tells it. When a rank
// gives up or is lost, `control` rings (watch) and every rank's channels are cut, so that no stream waits for what
// never comes; the next vote drops them, and the next exchange makes new ones.
// Easy to get wrong: some ranks may not have heard of the alarm when they vote; who has says so in its ballot.
// Within one process a queued exchange may hold the driver that another rank wants (see comm_peer.c): there the
// hosts meet before and behind. Processes have a driver each and run ahead: a failure elsewhere may come to light
// in the vote alone. Sums run in NCCL's order: the same bits on all ranks, not those of another carrier.
// Owns: a rank's comms share a `line`, which goes with the last of them; a process's world frees its channels when no
// rank uses them any more.
#include "par/comm_nccl.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "tensor/channel.h"
#include "tensor/device.h"

enum { MAX_RANKS = 64, MAX_COMMS = 16 };
enum { CUT = 1 << 20 };                 // in a ballot: this rank's channels are cut
static const double wait_seconds = 600; // a lost rank ends a wait sooner

typedef struct nccl_comm nccl_comm;

// What a rank's comms share.
typedef struct line {
    int refs;
    at_device *device;
    at_comm *control; // of all ranks: rings
    atomic_bool cut;
    pthread_mutex_t lock; // of the comms' channels, against who rings
    nccl_comm *comms[MAX_COMMS];
} line;

// The ranks of one process: the last one that goes frees everybody's channels.
typedef struct household {
    atomic_int refs;
    const at_channel_ops *ops;
    at_channel *channels[MAX_RANKS];
} household;

struct nccl_comm {
    at_comm base;
    at_comm *control;
    line *l;
    household *house; // NULL: other processes
    bool world;
    at_channel *channel; // NULL: not yet, or dropped
};

static nccl_comm *of(at_comm *c)
{
    return (nccl_comm *)c;
}

static const at_channel_ops *ops_of(const nccl_comm *p)
{
    return p->l->device->ops->channel;
}

// --- giving up -----------------------------------------------------------------------------------
static void cut_all(void *ctx)
{
    line *l = ctx;

    pthread_mutex_lock(&l->lock);
    atomic_store(&l->cut, true);
    for (int i = 0; i < MAX_COMMS; i++)
        if (l->comms[i] && l->comms[i]->channel) ops_of(l->comms[i])->cut(l->comms[i]->channel);
    pthread_mutex_unlock(&l->lock);
}

static void nccl_abort(at_comm *c, int code)
{
    nccl_comm *p = of(c);

    p->control->ops->abort(p->control, code);
    cut_all(p->l);
}

static at_status gives_up(at_comm *c, at_status st)
{
    if (st != AT_OK) nccl_abort(c, (int)st);
    return st;
}

// The words of who gave up: nothing goes over control either.
static at_status broken(nccl_comm *p)
{
    char mine = 0, all[MAX_RANKS];
    at_status st = p->control->ops->tell(p->control, &mine, all, 1);

    return st != AT_OK ? st : at_fail(AT_EDEVICE, "another rank has given up");
}

static at_status meet(nccl_comm *p)
{
    char mine = 0, all[MAX_RANKS];

    return p->house ? p->control->ops->tell(p->control, &mine, all, 1) : AT_OK;
}

// --- channels --------------------------------------------------------------------------------------
static at_status hold(nccl_comm *p, at_channel *ch)
{
    at_status st = AT_OK;

    pthread_mutex_lock(&p->l->lock);
    if (atomic_load(&p->l->cut)) {
        ops_of(p)->free(ch);
        st = AT_EDEVICE;
    } else {
        p->channel = ch;
    }
    pthread_mutex_unlock(&p->l->lock);
    return st == AT_OK ? st : broken(p);
}

typedef struct invitation {
    at_channel_ticket ticket;
    at_status st;
} invitation;

// Within one process rank 0 connects all; nobody goes on before that is done.
static at_status introduce(at_comm *c)
{
    at_status st = AT_OK;
    nccl_comm *p = of(c);
    at_channel *all[MAX_RANKS];
    char done = 0, heard[MAX_RANKS];

    AT_TRY(p->control->ops->tell(p->control, &p->channel, all, sizeof p->channel));
    if (c->rank == 0) AT_TRY(gives_up(c, ops_of(p)->introduce(all, c->size, wait_seconds)));
    AT_TRY(p->control->ops->tell(p->control, &done, heard, 1));
out:
    return st;
}

static at_status make_channel(at_comm *c)
{
    at_status st = AT_OK;
    nccl_comm *p = of(c);
    at_channel *ch = NULL;
    invitation mine, all[MAX_RANKS];

    memset(&mine, 0, sizeof mine);
    if (c->rank == 0) mine.st = ops_of(p)->ticket(p->l->device, &mine.ticket);
    AT_TRY(gives_up(c, mine.st));
    AT_TRY(p->control->ops->tell(p->control, &mine, all, sizeof mine));
    AT_TRY(gives_up(c, ops_of(p)->open(p->l->device, &ch)));
    AT_TRY(hold(p, ch));
    AT_TRY(gives_up(
        c, ops_of(p)->connect(p->channel, &all[0].ticket, c->rank, c->size, wait_seconds)));
    if (p->house) AT_TRY(introduce(c));
out:
    return st;
}

// Before each exchange; afterwards the channel is there.
static at_status prepare(at_comm *c)
{
    nccl_comm *p = of(c);
    at_status st = AT_OK;

    if (atomic_load(&p->l->cut)) return broken(p);
    AT_TRY(meet(p));
    if (!p->channel) AT_TRY(make_channel(c));
out:
    return st;
}

// A failure that another rank's abort has caused is told in its words.
static at_status queued(at_comm *c, at_status st)
{
    nccl_comm *p = of(c);

    if (st != AT_OK && atomic_load(&p->l->cut)) return broken(p);
    st = gives_up(c, st);
    return st == AT_OK ? meet(p) : st;
}

// --- data --------------------------------------------------------------------------------------
static at_status nccl_exchange(at_comm *c, const at_comm_part *send, const at_comm_part *recv)
{
    at_status st = AT_OK;
    nccl_comm *p = of(c);
    at_channel_part parts[MAX_RANKS];
    const at_comm_part *own = &send[c->rank];

    AT_TRY(prepare(c));
    for (int i = 0; i < c->size; i++) {
        parts[i] = (at_channel_part){send[i].data, recv[i].data, send[i].bytes, recv[i].bytes};
        if (i == c->rank) parts[i] = (at_channel_part){0};
    }
    if (own->bytes != recv[c->rank].bytes)
        st = at_fail(AT_EINTERNAL, "rank %d sends itself %zu bytes and expects %zu", c->rank,
                     own->bytes, recv[c->rank].bytes);
    if (st == AT_OK && own->bytes && own->data != recv[c->rank].data)
        st = ops_of(p)->copy(p->channel, own->data, recv[c->rank].data, own->bytes);
    if (st == AT_OK) st = ops_of(p)->exchange(p->channel, parts, c->size, wait_seconds);
    AT_TRY(queued(c, st));
out:
    return st;
}

static at_status nccl_all_reduce_sum(at_comm *c, float *inout, size_t count)
{
    at_status st = AT_OK;
    nccl_comm *p = of(c);

    AT_TRY(prepare(c));
    if (count && c->size > 1) st = ops_of(p)->sum(p->channel, inout, count, wait_seconds);
    AT_TRY(queued(c, st));
out:
    return st;
}

// --- words -------------------------------------------------------------------------------------
static void drop_channels(line *l)
{
    pthread_mutex_lock(&l->lock);
    for (int i = 0; i < MAX_COMMS; i++) {
        nccl_comm *p = l->comms[i];

        if (!p || !p->channel) continue;
        ops_of(p)->free(p->channel);
        p->channel = NULL;
    }
    pthread_mutex_unlock(&l->lock);
}

static at_status nccl_vote(at_comm *c, int mine, int *result)
{
    at_status st = AT_OK;
    nccl_comm *p = of(c);
    at_comm *k = p->control;
    int fate = 0;

    *result = mine;
    AT_TRY(k->ops->vote(k, mine + (atomic_load(&p->l->cut) ? CUT : 0), result));
    if (*result < CUT / 2) goto out;
    cut_all(p->l); // somebody's are cut: so are all
    AT_TRY(k->ops->vote(k, mine, result));
    st = p->l->device->ops->synchronize(p->l->device); // what was queued has ended
    drop_channels(p->l);
    AT_TRY(k->ops->vote(k, (int)st, &fate));
    atomic_store(&p->l->cut, false);
    if (*result == AT_OK) *result = fate;
out:
    return st;
}

static at_status nccl_tell(at_comm *c, const void *send, void *recv, size_t bytes)
{
    return of(c)->control->ops->tell(of(c)->control, send, recv, bytes);
}

static void nccl_watch(at_comm *c, void (*fn)(void *ctx), void *ctx, bool on)
{
    of(c)->control->ops->watch(of(c)->control, fn, ctx, on);
}

// --- ends --------------------------------------------------------------------------------------
static void line_release(line *l)
{
    if (!l || --l->refs > 0) return;
    l->control->ops->watch(l->control, cut_all, l, false);
    at_comm_free(l->control);
    pthread_mutex_destroy(&l->lock);
    at_free(l);
}

static void house_release(household *h)
{
    if (!h || atomic_fetch_sub(&h->refs, 1) != 1) return;
    for (int i = 0; i < MAX_RANKS; i++)
        if (h->channels[i]) h->ops->free(h->channels[i]);
    at_free(h);
}

// This end has done its part; a channel may go when the others have done theirs.
static void nccl_free(at_comm *c)
{
    nccl_comm *p = of(c);
    line *l = p->l;
    char mine = 0, all[MAX_RANKS];
    at_channel *ch = p->channel;

    if (ch) (void)l->device->ops->synchronize(l->device);
    if (ch && !(p->house && p->world) && !atomic_load(&l->cut))
        (void)p->control->ops->tell(p->control, &mine, all, 1);
    pthread_mutex_lock(&l->lock);
    for (int i = 0; i < MAX_COMMS; i++)
        if (l->comms[i] == p) l->comms[i] = NULL;
    pthread_mutex_unlock(&l->lock);
    if (ch && p->house && p->world)
        p->house->channels[c->rank] = ch;
    else if (ch)
        ops_of(p)->free(ch);
    if (!p->world) at_comm_free(p->control);
    house_release(p->house);
    line_release(l);
    at_free(p);
}

static at_status nccl_split(at_comm *c, int colour, at_comm **out);

static const at_comm_ops nccl_ops = {
    .all_gather = at_comm_gather_parts,
    .all_to_all = at_comm_swap_parts,
    .exchange = nccl_exchange,
    .all_reduce_sum = nccl_all_reduce_sum,
    .vote = nccl_vote,
    .tell = nccl_tell,
    .split = nccl_split,
    .abort = nccl_abort,
    .watch = nccl_watch,
    .free = nccl_free,
};

// --- making ------------------------------------------------------------------------------------
static at_status comm_new(line *l, at_comm *control, household *house, nccl_comm **out)
{
    nccl_comm *p = NULL;
    int place = 0;

    *out = NULL;
    while (place < MAX_COMMS && l->comms[place])
        place++;
    if (place == MAX_COMMS)
        return at_fail(AT_EINTERNAL, "more than %d parts of a comm at once", MAX_COMMS);
    p = at_calloc(1, sizeof *p);
    if (!p) return at_fail(AT_ENOMEM, "comm: no memory for a rank");
    p->base = (at_comm){
        .ops = &nccl_ops, .rank = control->rank, .size = control->size, .on_device = true};
    p->control = control;
    p->l = l;
    p->house = house;
    p->world = control == l->control;
    l->refs++;
    if (house) atomic_fetch_add(&house->refs, 1);
    pthread_mutex_lock(&l->lock);
    l->comms[place] = p;
    pthread_mutex_unlock(&l->lock);
    *out = p;
    return AT_OK;
}

static at_status nccl_split(at_comm *c, int colour, at_comm **out)
{
    at_status st = AT_OK;
    nccl_comm *p = of(c), *part = NULL;
    at_comm *control = NULL;

    *out = NULL;
    AT_TRY(p->control->ops->split(p->control, colour, &control));
    AT_TRY(gives_up(c, comm_new(p->l, control, p->house, &part)));
    control = NULL;
    *out = &part->base;
out:
    at_comm_free(control);
    return st;
}

// One rank's; takes control.
static at_status world_new(at_comm *control, at_device *device, household *house, at_comm **out)
{
    at_status st = AT_OK;
    line *l = NULL;
    nccl_comm *p = NULL;

    *out = NULL;
    if (control->size > MAX_RANKS)
        AT_TRY(at_fail(AT_EUNSUPPORTED, "%d ranks; %d are the most", control->size, MAX_RANKS));
    l = at_calloc(1, sizeof *l);
    if (!l) AT_TRY(at_fail(AT_ENOMEM, "comm: no memory for a rank"));
    pthread_mutex_init(&l->lock, NULL);
    l->refs = 1;
    l->device = device;
    l->control = control;
    control->ops->watch(control, cut_all, l, true);
    control = NULL; // the line's
    AT_TRY(comm_new(l, l->control, house, &p));
    *out = &p->base;
out:
    at_comm_free(control);
    line_release(l);
    return st;
}

// Everything that can be known before the others are asked.
static at_status usable(at_device *d)
{
    at_status st = AT_OK;
    at_channel *probe = NULL;

    if (!d->ops->channel)
        return at_fail(AT_EUNSUPPORTED, "%s has no channel to other processes", d->name);
    AT_TRY(d->ops->channel->open(d, &probe));
    d->ops->channel->free(probe);
out:
    return st;
}

at_status at_comm_nccl(at_comm *control, at_device *device, at_comm **out)
{
    at_status st = usable(device);

    *out = NULL;
    if (st == AT_OK) return world_new(control, device, NULL, out);
    at_comm_free(control);
    return st;
}

at_status at_comm_nccl_threads(int size, at_device *const *devices, at_comm **out)
{
    at_status st = AT_OK;
    at_comm *control[MAX_RANKS] = {NULL};
    household *house = NULL;

    for (int i = 0; i < size; i++)
        out[i] = NULL;
    if (size < 1 || size > MAX_RANKS)
        return at_fail(AT_EUNSUPPORTED, "%d ranks; 1 to %d are possible", size, MAX_RANKS);
    for (int i = 0; i < size; i++) {
        AT_TRY(usable(devices[i]));
        for (int k = 0; k < i; k++)
            if (devices[k] == devices[i])
                AT_TRY(at_fail(AT_EINVAL, "%s is rank %d and rank %d of one picture",
                               devices[i]->name, k, i));
    }
    AT_TRY(at_comm_threads(size, control));
    house = at_calloc(1, sizeof *house);
    if (!house) AT_TRY(at_fail(AT_ENOMEM, "comm: no memory for %d ranks", size));
    atomic_init(&house->refs, 1);
    house->ops = devices[0]->ops->channel;
    for (int i = 0; i < size; i++) {
        at_comm *mine = control[i];

        control[i] = NULL;
        AT_TRY(world_new(mine, devices[i], house, &out[i]));
    }
out:
    for (int i = 0; i < size; i++) {
        at_comm_free(control[i]);
        if (st != AT_OK) at_comm_free(out[i]);
        if (st != AT_OK) out[i] = NULL;
    }
    house_release(house);
    return st;
}
