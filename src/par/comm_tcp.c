// SPDX-License-Identifier: Apache-2.0
// comm_tcp.c - ranks that are processes, over plain TCP: data of CPU ranks, and the words of all others.
// Idea: between any two ranks one socket carries frames (length, then bytes) in the order in which both call; all
// frames of an exchange move at once, driven by poll, so nobody waits for anybody's turn. A thread of the family
// listens to the second sockets: an alarm, or their end, breaks the exchanges of all its comms at once.
// Easy to get wrong: who leaves an exchange early leaves frames behind, half sent and half read. The vote is the
// sweep: each rank completes what it owes (with zeros: nobody reads them) and reads until the other's ballot.
// An alarm belongs to a round, which a vote ends: a late one of an earlier round means nothing.
// A process that is gone stays gone: everything fails from then on, the vote too.
// Owns: the sockets and the thread belong to the family, which goes with its last comm.
#include "par/comm_tcp.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "par/tcp.h"

enum {
    FRAME_DATA = 0x61746461,
    FRAME_BALLOT = 0x61746262,
    ALARM = 0x6174616c,
    GOODBYE = 0x61746779,
    GONE = 0x6174676f
};

typedef struct head {
    uint32_t kind, zero;
    uint64_t bytes;
} head;

typedef struct alarm_word {
    uint32_t kind, round;
    int32_t code, by;
} alarm_word;

// What is under way with one rank.
typedef struct peer {
    int data, alarm;
    head out, in;
    size_t out_head, in_head; // bytes of the heads that have gone, that have come
    const char *from;         // NULL: zeros
    char *to;                 // NULL: nobody wants them
    size_t out_left, in_left; // of the bodies
    int32_t ballot;
} peer;

typedef struct family {
    atomic_int refs; // comms
    int rank, size;
    double wait_seconds;
    peer peers[AT_TCP_RANKS];
    int wake; // eventfd: something has broken
    int stop; // eventfd: the thread ends
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; // of all below
    unsigned round;
    int code, by; // who gave up in round `broken`, and why; 0: nobody
    unsigned broken;
    int lost; // 1 + the rank whose process is gone
    at_comm_watcher watchers[AT_TCP_WATCHERS];
} family;

typedef struct tcp_comm {
    at_comm base;
    family *f;
    int ranks[AT_TCP_RANKS]; // of the family, of each rank of this comm
} tcp_comm;

static tcp_comm *of(at_comm *c)
{
    return (tcp_comm *)c;
}

// --- what has broken ---------------------------------------------------------------------------
static void ring(int fd)
{
    uint64_t one = 1;

    (void)!write(fd, &one, sizeof one);
}

static void tell_watchers(family *f)
{
    for (int i = 0; i < AT_TCP_WATCHERS; i++)
        if (f->watchers[i].fn) f->watchers[i].fn(f->watchers[i].ctx);
}

static void lose(family *f, int rank)
{
    pthread_mutex_lock(&f->lock);
    if (!f->lost) {
        f->lost = 1 + rank;
        tell_watchers(f);
    }
    pthread_mutex_unlock(&f->lock);
    ring(f->wake);
}

static void break_up(family *f, unsigned round, int code, int by)
{
    pthread_mutex_lock(&f->lock);
    int ahead = (int)(round - f->round);
    if (ahead >= 0 && (!f->code || (int)(round - f->broken) > 0)) {
        f->code = code ? code : AT_EINTERNAL;
        f->by = by;
        f->broken = round;
        if (ahead == 0) tell_watchers(f);
    }
    pthread_mutex_unlock(&f->lock);
    ring(f->wake);
}

static at_status health(family *f)
{
    at_status st = AT_OK;

    pthread_mutex_lock(&f->lock);
    if (f->lost)
        st = at_fail(AT_EIO,
                     "rank %d of %d is gone: its process has ended or its host cannot be "
                     "reached",
                     f->lost - 1, f->size);
    else if (f->code && f->broken == f->round)
        st = at_fail((at_status)f->code, "rank %d gave up: %s", f->by,
                     at_status_facts((at_status)f->code)->name);
    pthread_mutex_unlock(&f->lock);
    return st;
}

static bool is_lost(family *f)
{
    pthread_mutex_lock(&f->lock);
    bool gone = f->lost != 0;
    pthread_mutex_unlock(&f->lock);
    return gone;
}

// Words of one alarm socket; false: it has ended. Whoever says goodbye has done its part: it is missed only by those
// who still want data of it.
static bool hear(family *f, int rank, bool *goodbye)
{
    alarm_word w;

    // They are small and go whole: what is not there yet comes at once.
    if (at_tcp_recv(f->peers[rank].alarm, &w, sizeof w, at_tcp_now() + 5) != AT_OK) return false;
    *goodbye = w.kind == GOODBYE;
    if (*goodbye) return false;
    if (w.kind == GONE && w.by >= 0 && w.by < f->size) { // it leaves because of another one
        lose(f, w.by);
        return true;
    }
    if (w.kind != ALARM || w.code <= 0 || w.code >= AT_STATUS_COUNT) return false;
    break_up(f, w.round, w.code, w.by >= 0 && w.by < f->size ? w.by : rank);
    return true;
}

static void *listen_main(void *arg)
{
    family *f = arg;
    struct pollfd p[AT_TCP_RANKS + 1];

    for (int i = 0; i < f->size; i++)
        p[i] = (struct pollfd){.fd = f->peers[i].alarm, .events = POLLIN}; // own: -1, ignored
    p[f->size] = (struct pollfd){.fd = f->stop, .events = POLLIN};
    while (!p[f->size].revents) {
        if (poll(p, (nfds_t)f->size + 1, -1) < 0 && errno != EINTR) break;
        for (int i = 0; i < f->size; i++) {
            bool goodbye = false;

            if (p[i].fd < 0 || !p[i].revents || hear(f, i, &goodbye)) continue;
            p[i].fd = -1;
            if (!goodbye && !p[f->size].revents) lose(f, i);
        }
    }
    return NULL;
}

// --- frames ------------------------------------------------------------------------------------
static void begin_out(peer *p, uint32_t kind, const void *from, size_t bytes)
{
    p->out = (head){.kind = kind, .bytes = bytes};
    p->out_head = 0;
    p->from = from;
    p->out_left = bytes;
}

static bool out_idle(const peer *p)
{
    return p->out_head == sizeof p->out && !p->out_left;
}

// As much as goes at once; false: the other end has gone.
static bool push(peer *p)
{
    static const char zeros[4096];

    while (!out_idle(p)) {
        bool of_head = p->out_head < sizeof p->out;
        size_t n = of_head ? sizeof p->out - p->out_head : p->out_left;
        const char *from = of_head ? (const char *)&p->out + p->out_head : p->from;

        if (!from) {
            from = zeros;
            if (n > sizeof zeros) n = sizeof zeros;
        }
        ssize_t k = send(p->data, from, n, MSG_NOSIGNAL);
        if (k < 0) return errno == EAGAIN || errno == EINTR;
        if (of_head) {
            p->out_head += (size_t)k;
            continue;
        }
        if (p->from) p->from += k;
        p->out_left -= (size_t)k;
    }
    return true;
}

// One read; 1: a frame has ended, 0: it goes on, -1: the other end has gone or talks nonsense.
static int pull(peer *p, bool (*begun)(peer *p, void *ctx), void *ctx)
{
    static _Thread_local char nowhere[65536];
    bool of_head = p->in_head < sizeof p->in;
    size_t n = of_head ? sizeof p->in - p->in_head : p->in_left;
    char *to = of_head ? (char *)&p->in + p->in_head : p->to;

    if (!to) {
        to = nowhere;
        if (n > sizeof nowhere) n = sizeof nowhere;
    }
    ssize_t k = recv(p->data, to, n, 0);
    if (k < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
    if (k == 0) return -1;
    if (!of_head) {
        p->in_left -= (size_t)k;
        if (p->to) p->to += k;
    } else {
        p->in_head += (size_t)k;
        if (p->in_head < sizeof p->in) return 0;
        if (p->in.kind != FRAME_DATA && p->in.kind != FRAME_BALLOT) return -1;
        p->in_left = p->in.bytes;
        p->to = NULL;
        if (!begun(p, ctx)) return -1;
    }
    if (p->in_left) return 0;
    p->in_head = 0; // the next one may come
    return 1;
}

// --- exchanges -----------------------------------------------------------------------------------
static void tcp_abort(at_comm *c, int code);

typedef struct wanted {
    at_comm_part part;
    bool misfits, done;
} wanted;

static bool ballot_begun(peer *p, void *ctx)
{
    (void)ctx;
    if (p->in.kind == FRAME_BALLOT && p->in.bytes != sizeof p->ballot) return false;
    if (p->in.kind == FRAME_BALLOT) p->to = (char *)&p->ballot;
    return true;
}

// It votes already: there will be no data.
static bool at_ballot(const peer *p)
{
    return p->in_head == sizeof p->in && p->in.kind == FRAME_BALLOT;
}

static bool data_begun(peer *p, void *ctx)
{
    wanted *w = ctx;

    if (p->in.kind == FRAME_BALLOT) return ballot_begun(p, NULL); // its alarm is on its way
    w->misfits = p->in.bytes != w->part.bytes;
    if (!w->misfits) p->to = w->part.data;
    return true;
}

// The caller's memory is not touched any more; the vote sees to the rest.
static void let_go(tcp_comm *t)
{
    for (int i = 0; i < t->base.size; i++) {
        peer *p = &t->f->peers[t->ranks[i]];

        p->from = NULL;
        if (!at_ballot(p)) p->to = NULL;
    }
}

// Its data has ended. Whoever leaves because of another rank has said so on the other socket: that one is to blame.
static at_status lost(family *f, int rank)
{
    struct pollfd p = {.fd = f->wake, .events = POLLIN};

    if (!is_lost(f)) (void)poll(&p, 1, 300);
    lose(f, rank);
    return health(f);
}

// One round of poll over all that is unfinished; *rest says how much that is.
static at_status move_on(tcp_comm *t, wanted *want, int *rest)
{
    at_status st = AT_OK;
    family *f = t->f;
    struct pollfd p[AT_TCP_RANKS + 1];
    int n = t->base.size;

    *rest = 0;
    p[n] = (struct pollfd){.fd = f->wake, .events = POLLIN};
    for (int i = 0; i < n; i++) {
        peer *other = &f->peers[t->ranks[i]];
        bool sends = i != t->base.rank && !out_idle(other);
        bool takes = !want[i].done && !at_ballot(other);

        p[i] = (struct pollfd){.fd = sends || takes ? other->data : -1,
                               .events = (short)((sends ? POLLOUT : 0) | (takes ? POLLIN : 0))};
        *rest += sends || !want[i].done;
    }
    if (!*rest) return AT_OK;
    int k = poll(p, (nfds_t)n + 1, (int)(f->wait_seconds * 1000));
    if (k < 0 && errno != EINTR) return at_fail(AT_EIO, "waiting for ranks: %s", strerror(errno));
    if (k <= 0)
        return k == 0 ? at_fail(AT_EIO, "the other ranks say nothing for %g s", f->wait_seconds)
                      : AT_OK;
    if (p[n].revents) {
        uint64_t old;
        (void)!read(f->wake, &old, sizeof old);
        AT_TRY(health(f));
    }
    for (int i = 0; i < n; i++) {
        peer *other = &f->peers[t->ranks[i]];

        if (p[i].fd < 0 || !p[i].revents) continue;
        if (p[i].revents & (POLLOUT | POLLERR) && !push(other)) AT_TRY(lost(f, t->ranks[i]));
        if (want[i].done || at_ballot(other) || !(p[i].revents & (POLLIN | POLLHUP))) continue;
        int end = pull(other, data_begun, &want[i]);
        if (end < 0) AT_TRY(lost(f, t->ranks[i]));
        want[i].done = end > 0;
    }
out:
    return st;
}

static at_status tcp_exchange(at_comm *c, const at_comm_part *send, const at_comm_part *recv)
{
    at_status st = AT_OK;
    tcp_comm *t = of(c);
    wanted want[AT_TCP_RANKS];
    int rest = 1;

    AT_TRY(health(t->f));
    for (int i = 0; i < c->size; i++) {
        want[i] = (wanted){.part = recv[i], .done = i == c->rank};
        if (i != c->rank)
            begin_out(&t->f->peers[t->ranks[i]], FRAME_DATA, send[i].data, send[i].bytes);
        else if (send[i].bytes != recv[i].bytes)
            want[i].misfits = true;
        else if (recv[i].bytes && recv[i].data != send[i].data)
            memcpy(recv[i].data, send[i].data, recv[i].bytes);
    }
    while (rest)
        AT_TRY(move_on(t, want, &rest));
    for (int i = 0; i < c->size; i++)
        if (want[i].misfits)
            AT_TRY(at_fail(AT_EINTERNAL,
                           "rank %d sends other than the %zu bytes that rank %d expects", i,
                           want[i].part.bytes, c->rank));
out:
    if (st != AT_OK && rest)
        tcp_abort(c, (int)st); // frames are left: nobody exchanges before a vote
    if (st != AT_OK) let_go(t);
    return st;
}

// Each rank sums a slice of all in rank order, then the slices go round: the same bits everywhere.
static at_status tcp_all_reduce_sum(at_comm *c, float *inout, size_t count)
{
    at_status st = AT_OK;
    at_comm_part from[AT_TCP_RANKS], to[AT_TCP_RANKS];
    size_t n = (size_t)c->size, share = (count + n - 1) / n, me = (size_t)c->rank;
    size_t begin = me * share < count ? me * share : count;
    size_t mine = begin + share < count ? share : count - begin;
    float *all = at_alloc(n * mine * sizeof *all + 1);

    if (!all) {
        c->ops->abort(c, AT_ENOMEM);
        AT_TRY(at_fail(AT_ENOMEM, "comm: no memory to sum %zu numbers", count));
    }
    for (size_t i = 0; i < n; i++) {
        size_t at = i * share < count ? i * share : count;

        from[i] =
            (at_comm_part){inout + at, (at + share < count ? share : count - at) * sizeof *inout};
        to[i] = (at_comm_part){all + i * mine, mine * sizeof *all};
    }
    AT_TRY(tcp_exchange(c, from, to));
    for (size_t k = 0; k < mine; k++) {
        float sum = 0;

        for (size_t i = 0; i < n; i++)
            sum += all[i * mine + k];
        inout[begin + k] = sum;
    }
    for (size_t i = 0; i < n; i++) {
        to[i] = from[i];
        from[i] = (at_comm_part){inout + begin, mine * sizeof *inout};
    }
    AT_TRY(tcp_exchange(c, from, to));
out:
    at_free(all);
    return st;
}

// --- votes -------------------------------------------------------------------------------------
// Everybody's ballot, behind whatever is left of broken exchanges.
static at_status collect(tcp_comm *t, const int32_t *mine)
{
    family *f = t->f;
    bool sent[AT_TCP_RANKS] = {false}, got[AT_TCP_RANKS] = {false};

    for (;;) {
        struct pollfd p[AT_TCP_RANKS + 1];
        int rest = 0;

        if (is_lost(f)) return health(f);
        for (int i = 0; i < f->size; i++) {
            peer *o = &f->peers[i];

            p[i].fd = -1;
            if (i == f->rank) continue;
            if (out_idle(o) && !sent[i]) {
                begin_out(o, FRAME_BALLOT, mine, sizeof *mine);
                sent[i] = true;
            }
            p[i] = (struct pollfd){
                .fd = o->data,
                .events = (short)((out_idle(o) ? 0 : POLLOUT) | (got[i] ? 0 : POLLIN))};
            if (!p[i].events) p[i].fd = -1;
            rest += p[i].fd >= 0;
        }
        if (!rest) return AT_OK;
        p[f->size] = (struct pollfd){.fd = f->wake, .events = POLLIN};
        int k = poll(p, (nfds_t)f->size + 1, (int)(f->wait_seconds * 1000));
        if (k == 0) return at_fail(AT_EIO, "a vote got no answer for %g s", f->wait_seconds);
        if (k < 0 && errno != EINTR) return at_fail(AT_EIO, "a vote: %s", strerror(errno));
        for (int i = 0; i < f->size && k > 0; i++) {
            peer *o = &f->peers[i];

            if (p[i].fd < 0 || !p[i].revents) continue;
            if (p[i].revents & (POLLOUT | POLLERR) && !push(o)) return lost(f, i);
            if (got[i] || !(p[i].revents & (POLLIN | POLLHUP))) continue;
            int end = pull(o, ballot_begun, NULL);
            if (end < 0) return lost(f, i);
            got[i] = end > 0 && o->in.kind == FRAME_BALLOT;
        }
        if (k > 0 && p[f->size].revents) {
            uint64_t old;
            (void)!read(f->wake, &old, sizeof old);
        }
    }
}

static at_status tcp_vote(at_comm *c, int mine, int *result)
{
    at_status st = AT_OK;
    tcp_comm *t = of(c);
    family *f = t->f;
    int32_t ballot = mine;

    *result = mine;
    if (c->size != f->size)
        return at_fail(AT_EINTERNAL, "a vote on a part of %d of %d ranks", c->size, f->size);
    AT_TRY(collect(t, &ballot));
    for (int i = 0; i < f->size; i++)
        if (i != f->rank && f->peers[i].ballot > *result) *result = f->peers[i].ballot;
    pthread_mutex_lock(&f->lock);
    f->round++;
    if (f->code && (int)(f->broken - f->round) < 0)
        f->code = 0;
    else if (f->code)
        tell_watchers(f); // of a rank that was faster
    pthread_mutex_unlock(&f->lock);
out:
    if (st != AT_OK) let_go(t);
    return st;
}

static void tcp_abort(at_comm *c, int code)
{
    family *f = of(c)->f;
    alarm_word w = {.kind = ALARM, .code = code ? code : AT_EINTERNAL, .by = f->rank};

    pthread_mutex_lock(&f->lock);
    w.round = f->round;
    bool known = f->lost || (f->code && f->broken == f->round);
    pthread_mutex_unlock(&f->lock);
    if (known) return;
    break_up(f, w.round, w.code, f->rank);
    for (int i = 0; i < f->size; i++) // 16 bytes: they fit, or the other end is gone
        if (i != f->rank) (void)at_tcp_send(f->peers[i].alarm, &w, sizeof w, at_tcp_now() + 1);
}

static void tcp_watch(at_comm *c, void (*fn)(void *ctx), void *ctx, bool on)
{
    family *f = of(c)->f;

    pthread_mutex_lock(&f->lock);
    for (int i = 0; i < AT_TCP_WATCHERS; i++) {
        if (f->watchers[i].ctx != (on ? NULL : ctx)) continue;
        f->watchers[i] = on ? (at_comm_watcher){fn, ctx} : (at_comm_watcher){0};
        break;
    }
    if (on && (f->lost || (f->code && f->broken == f->round))) fn(ctx);
    pthread_mutex_unlock(&f->lock);
}

// --- making ------------------------------------------------------------------------------------
static void family_free(family *f)
{
    alarm_word w = {.kind = f && f->lost ? GONE : GOODBYE, .by = f ? f->lost - 1 : 0};

    if (!f) return;
    if (f->started) {
        ring(f->stop);
        pthread_join(f->thread, NULL);
    }
    for (int i = 0; i < f->size && f->started; i++)
        if (i != f->rank) (void)at_tcp_send(f->peers[i].alarm, &w, sizeof w, at_tcp_now() + 1);
    for (int i = 0; i < f->size; i++) {
        if (f->peers[i].data >= 0) close(f->peers[i].data);
        if (f->peers[i].alarm >= 0) close(f->peers[i].alarm);
    }
    if (f->wake >= 0) close(f->wake);
    if (f->stop >= 0) close(f->stop);
    pthread_mutex_destroy(&f->lock);
    at_free(f);
}

static void tcp_free(at_comm *c)
{
    family *f = of(c)->f;

    at_free(c);
    if (atomic_fetch_sub(&f->refs, 1) == 1) family_free(f);
}

static at_status tcp_split(at_comm *c, int colour, at_comm **out);

static const at_comm_ops tcp_ops = {
    .all_gather = at_comm_gather_parts,
    .all_to_all = at_comm_swap_parts,
    .exchange = tcp_exchange,
    .all_reduce_sum = tcp_all_reduce_sum,
    .vote = tcp_vote,
    .tell = at_comm_gather_parts,
    .split = tcp_split,
    .abort = tcp_abort,
    .watch = tcp_watch,
    .free = tcp_free,
};

static tcp_comm *comm_new(family *f)
{
    tcp_comm *t = at_calloc(1, sizeof *t);

    if (!t) return NULL;
    t->base.ops = &tcp_ops;
    t->f = f;
    atomic_fetch_add(&f->refs, 1);
    return t;
}

static at_status tcp_split(at_comm *c, int colour, at_comm **out)
{
    at_status st = AT_OK;
    int colours[AT_TCP_RANKS];
    tcp_comm *part = NULL;

    *out = NULL;
    AT_TRY(at_comm_gather_parts(c, &colour, colours, sizeof colour));
    part = comm_new(of(c)->f);
    if (!part) {
        tcp_abort(c, AT_ENOMEM);
        AT_TRY(at_fail(AT_ENOMEM, "comm: no memory for a part of %d ranks", c->size));
    }
    for (int i = 0; i < c->size; i++) {
        if (colours[i] != colour) continue;
        if (i == c->rank) part->base.rank = part->base.size;
        part->ranks[part->base.size++] = of(c)->ranks[i];
    }
    *out = &part->base;
out:
    return st;
}

static at_status family_new(const at_comm_tcp_config *c, family **out)
{
    at_status st = AT_OK;
    family *f = at_calloc(1, sizeof *f);
    int data[AT_TCP_RANKS], alarm[AT_TCP_RANKS];

    *out = NULL;
    if (!f) {
        if (c->listener > 0) close(c->listener);
        return at_fail(AT_ENOMEM, "comm: no memory for %d ranks", c->ranks);
    }
    pthread_mutex_init(&f->lock, NULL);
    f->wake = f->stop = -1;
    AT_TRY(at_rendezvous(c, data, alarm));
    f->rank = c->rank;
    f->size = c->ranks;
    f->wait_seconds = c->wait_seconds > 0 ? c->wait_seconds : 1800;
    for (int i = 0; i < f->size; i++)
        f->peers[i] = (peer){.data = data[i], .alarm = alarm[i], .out_head = sizeof(head)};
    f->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    f->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (f->wake < 0 || f->stop < 0) AT_TRY(at_fail(AT_EIO, "comm: eventfd: %s", strerror(errno)));
    if (pthread_create(&f->thread, NULL, listen_main, f) != 0)
        AT_TRY(at_fail(AT_ENOMEM, "comm: no thread to listen"));
    f->started = true;
    *out = f;
    f = NULL;
out:
    family_free(f);
    return st;
}

at_status at_comm_tcp(const at_comm_tcp_config *c, at_comm **out)
{
    at_status st = AT_OK;
    family *f = NULL;
    tcp_comm *t = NULL;

    *out = NULL;
    AT_TRY(family_new(c, &f));
    t = comm_new(f);
    if (!t) AT_TRY(at_fail(AT_ENOMEM, "comm: no memory for %d ranks", c->ranks));
    t->base.rank = c->rank;
    t->base.size = c->ranks;
    for (int i = 0; i < c->ranks; i++)
        t->ranks[i] = i;
    f = NULL; // the comm's
    *out = &t->base;
out:
    family_free(f);
    return st;
}
