// SPDX-License-Identifier: Apache-2.0
// comm_threads.c - ranks that are threads of this process and read each other's plain memory.
// Idea: every exchange is "publish my pointers, meet, copy what is mine, meet again". A rank that
// fails breaks the meetings of the whole family (abort); the vote is a meeting of its own that always
// completes and mends the others. Owns: a group is shared by its comms and goes with the last of them;
// the family likewise with the last of its groups.
#include "par/comm.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "tensor/dtype.h"

enum { MAX_RANKS = 256 };

// Threads that wait for each other, again and again.
typedef struct meeting {
    int arrived;
    unsigned round;
} meeting;

// What a comm and everything split off it share.
typedef struct family {
    atomic_int refs; // groups
    int size;        // ranks of the first group, which alone votes
    pthread_mutex_t lock;
    pthread_cond_t moved;
    meeting ballot;
    int broken; // code of the rank that gave up; 0: none
    int broken_by;
    int highest, result; // of the running ballot, of the last one
    unsigned mended;     // broken meetings were swept away so often
    at_comm_watcher watchers[MAX_RANKS];
} family;

typedef struct group {
    atomic_int refs; // comms
    family *f;
    int size;
    meeting exchange;
    unsigned mended; // as far as this group has heard
    const void *send[MAX_RANKS];
    const at_comm_part *parts[MAX_RANKS];
    const at_view *views[MAX_RANKS];
    float *sums[MAX_RANKS];
} group;

typedef struct threads_comm {
    at_comm base;
    group *g;
    int first_rank; // in the comm that votes, for words about who gave up
} threads_comm;

static group *group_of(at_comm *c)
{
    return ((threads_comm *)c)->g;
}

static at_status broken(const family *f)
{
    return at_fail((at_status)f->broken, "rank %d gave up: %s", f->broken_by,
                   at_status_facts((at_status)f->broken)->name);
}

// The group's ranks are all here: they go on. Locked.
static bool complete(group *g)
{
    if (++g->exchange.arrived < g->size) return false;
    g->exchange.arrived = 0;
    g->exchange.round++;
    pthread_cond_broadcast(&g->f->moved);
    return true;
}

// Wait for all ranks. Fails, without waiting on, once any rank of the family has aborted.
static at_status meet(group *g)
{
    family *f = g->f;
    at_status st = AT_OK;

    pthread_mutex_lock(&f->lock);
    if (g->mended != f->mended) { // who waited here when all was broken is not waiting any more
        g->mended = f->mended;
        g->exchange.arrived = 0;
    }
    unsigned round = g->exchange.round;
    if (f->broken) {
        st = broken(f);
    } else if (!complete(g)) {
        while (g->exchange.round == round && !f->broken)
            pthread_cond_wait(&f->moved, &f->lock);
        if (g->exchange.round == round) st = broken(f);
    }
    pthread_mutex_unlock(&f->lock);
    return st;
}

// The end of what began with a meeting: everybody comes, whatever breaks elsewhere, and before that
// nobody's memory may go.
static void part(group *g)
{
    family *f = g->f;

    pthread_mutex_lock(&f->lock);
    unsigned round = g->exchange.round;
    if (!complete(g))
        while (g->exchange.round == round)
            pthread_cond_wait(&f->moved, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

static at_status threads_all_gather(at_comm *c, const void *send, void *recv, size_t bytes)
{
    group *g = group_of(c);
    at_status st = AT_OK;

    g->send[c->rank] = send;
    AT_TRY(meet(g));
    for (int i = 0; i < c->size; i++) {
        char *to = (char *)recv + (size_t)i * bytes;

        if (bytes && to != g->send[i]) memcpy(to, g->send[i], bytes);
    }
    part(g);
out:
    return st;
}

static at_status threads_all_to_all(at_comm *c, const void *send, void *recv, size_t bytes)
{
    group *g = group_of(c);
    at_status st = AT_OK;

    g->send[c->rank] = send;
    AT_TRY(meet(g));
    for (int i = 0; i < c->size && bytes; i++) {
        memcpy((char *)recv + (size_t)i * bytes, (const char *)g->send[i] + (size_t)c->rank * bytes,
               bytes);
    }
    part(g);
out:
    return st;
}

static at_status threads_exchange(at_comm *c, const at_comm_part *send, const at_comm_part *recv)
{
    group *g = group_of(c);
    at_status st = AT_OK;

    g->parts[c->rank] = send;
    AT_TRY(meet(g));
    for (int i = 0; i < c->size; i++) {
        const at_comm_part *from = &g->parts[i][c->rank], *to = &recv[i];

        if (from->bytes != to->bytes)
            st = at_fail(AT_EINTERNAL, "rank %d sends %zu bytes where rank %d expects %zu", i,
                         from->bytes, c->rank, to->bytes);
        else if (to->bytes && to->data != from->data)
            memcpy(to->data, from->data, to->bytes);
    }
    part(g);
out:
    return st;
}

// Run by run of the innermost dimension.
static void copy_strided(const at_view *from, const at_view *to, size_t size)
{
    int inner = from->rank - 1;
    size_t run = (size_t)from->shape[inner] * size;
    int64_t runs = 1;

    for (int d = 0; d < inner; d++)
        runs *= from->shape[d];
    for (int64_t i = 0; i < runs; i++) {
        int64_t rest = i, src = 0, dst = 0;

        for (int d = inner - 1; d >= 0; d--) {
            int64_t at = rest % from->shape[d];

            rest /= from->shape[d];
            src += at * from->stride[d];
            dst += at * to->stride[d];
        }
        memcpy((char *)to->data + dst * (int64_t)size,
               (const char *)from->data + src * (int64_t)size, run);
    }
}

static bool empty(const at_view *v)
{
    bool nothing = !v->data || v->rank < 1;

    for (int i = 0; i < v->rank; i++)
        nothing = nothing || v->shape[i] == 0;
    return nothing;
}

static bool alike(const at_view *a, const at_view *b)
{
    if (empty(a) || empty(b)) return empty(a) == empty(b);
    return a->dtype == b->dtype && a->rank == b->rank &&
           memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape) == 0;
}

static at_status threads_scatter(at_comm *c, const at_view *send, const at_view *recv)
{
    group *g = group_of(c);
    at_status st = AT_OK;

    g->views[c->rank] = send;
    AT_TRY(meet(g));
    for (int i = 0; i < c->size; i++) {
        const at_view *from = &g->views[i][c->rank], *to = &recv[i];

        if (!alike(from, to))
            st = at_fail(AT_EINTERNAL, "rank %d sends another shape than rank %d expects", i,
                         c->rank);
        else if (!empty(to) && to->data != from->data)
            copy_strided(from, to, at_dtype_size(to->dtype));
    }
    part(g);
out:
    return st;
}

// The copies are done at once: so much is beside other work as two halves can be here.
static at_status threads_scatter_end(at_comm *c)
{
    (void)c;
    return AT_OK;
}

// Rank r sums the r-th slice of everybody, in rank order, and writes it to everybody: the same bits
// on all ranks, and no memory beside the operands.
static at_status threads_all_reduce_sum(at_comm *c, float *inout, size_t count)
{
    group *g = group_of(c);
    at_status st = AT_OK;
    size_t n = (size_t)c->size, r = (size_t)c->rank;
    size_t begin = count / n * r + (r < count % n ? r : count % n);
    size_t end = begin + count / n + (r < count % n);

    g->sums[c->rank] = inout;
    AT_TRY(meet(g));
    for (size_t i = begin; i < end; i++) {
        float sum = 0;

        for (int k = 0; k < c->size; k++)
            sum += g->sums[k][i];
        for (int k = 0; k < c->size; k++)
            g->sums[k][i] = sum;
    }
    part(g);
out:
    return st;
}

static at_status threads_vote(at_comm *c, int mine, int *result)
{
    group *g = group_of(c);
    family *f = g->f;
    unsigned round;

    if (g->size != f->size)
        return at_fail(AT_EINTERNAL, "a vote on a part of %d of %d ranks", g->size, f->size);
    pthread_mutex_lock(&f->lock);
    round = f->ballot.round;
    if (f->ballot.arrived == 0 || mine > f->highest) f->highest = mine;
    if (++f->ballot.arrived == f->size) {
        // Everybody is here, so nobody is in an exchange: start afresh.
        f->ballot.arrived = 0;
        f->ballot.round++;
        f->result = f->highest;
        f->mended++;
        f->broken = 0;
        pthread_cond_broadcast(&f->moved);
    } else {
        while (f->ballot.round == round)
            pthread_cond_wait(&f->moved, &f->lock);
    }
    // The next ballot cannot end before this rank takes part in it.
    *result = f->result;
    pthread_mutex_unlock(&f->lock);
    return AT_OK;
}

static void threads_abort(at_comm *c, int code)
{
    family *f = group_of(c)->f;

    pthread_mutex_lock(&f->lock);
    if (!f->broken) {
        f->broken = code ? code : AT_EINTERNAL;
        f->broken_by = ((threads_comm *)c)->first_rank;
        pthread_cond_broadcast(&f->moved);
        for (int i = 0; i < MAX_RANKS; i++)
            if (f->watchers[i].fn) f->watchers[i].fn(f->watchers[i].ctx);
    }
    pthread_mutex_unlock(&f->lock);
}

static void threads_watch(at_comm *c, void (*fn)(void *ctx), void *ctx, bool on)
{
    family *f = group_of(c)->f;

    pthread_mutex_lock(&f->lock);
    for (int i = 0; i < MAX_RANKS; i++) {
        if (f->watchers[i].ctx != (on ? NULL : ctx)) continue;
        f->watchers[i] = on ? (at_comm_watcher){fn, ctx} : (at_comm_watcher){0};
        break;
    }
    if (on && f->broken) fn(ctx);
    pthread_mutex_unlock(&f->lock);
}

static void family_release(family *f)
{
    if (!f || atomic_fetch_sub(&f->refs, 1) != 1) return;
    pthread_cond_destroy(&f->moved);
    pthread_mutex_destroy(&f->lock);
    at_free(f);
}

static void group_release(group *g)
{
    if (!g || atomic_fetch_sub(&g->refs, 1) != 1) return;
    family_release(g->f);
    at_free(g);
}

static void threads_free(at_comm *c)
{
    group_release(group_of(c));
    at_free(c);
}

static at_status threads_split(at_comm *c, int colour, at_comm **out);

static const at_comm_ops threads_ops = {
    .all_gather = threads_all_gather,
    .all_to_all = threads_all_to_all,
    .exchange = threads_exchange,
    .scatter = threads_scatter,
    .scatter_begin = threads_scatter,
    .scatter_end = threads_scatter_end,
    .all_reduce_sum = threads_all_reduce_sum,
    .vote = threads_vote,
    .tell = threads_all_gather,
    .split = threads_split,
    .abort = threads_abort,
    .watch = threads_watch,
    .free = threads_free,
};

// --- making --------------------------------------------------------------------------------------
// A group of the family with one reference, the caller's; NULL: no memory.
static group *group_new(family *f, int size)
{
    group *g = at_calloc(1, sizeof *g);

    if (!g) return NULL;
    atomic_init(&g->refs, 1);
    atomic_fetch_add(&f->refs, 1);
    g->f = f;
    g->size = size;
    g->mended = f->mended;
    return g;
}

static at_comm *comm_new(group *g, int rank, int first_rank)
{
    threads_comm *c = at_calloc(1, sizeof *c);

    if (!c) return NULL;
    c->base = (at_comm){.ops = &threads_ops, .rank = rank, .size = g->size};
    c->g = g;
    c->first_rank = first_rank;
    atomic_fetch_add(&g->refs, 1);
    return &c->base;
}

// The lowest rank of a colour makes the group and hands its address to the others, who hold it by a
// reference of their own before it lets go of its first one.
static at_status threads_split(at_comm *c, int colour, at_comm **out)
{
    at_status st = AT_OK;
    int colours[MAX_RANKS], leader = -1, size = 0, rank = 0;
    group *mine = NULL, *groups[MAX_RANKS] = {NULL};

    *out = NULL;
    AT_TRY(threads_all_gather(c, &colour, colours, sizeof colour));
    for (int i = 0; i < c->size; i++) {
        if (colours[i] != colour) continue;
        if (leader < 0) leader = i;
        if (i < c->rank) rank++;
        size++;
    }
    if (leader == c->rank) mine = group_new(group_of(c)->f, size);
    AT_TRY(threads_all_gather(c, &mine, groups, sizeof mine));
    if (groups[leader]) *out = comm_new(groups[leader], rank, ((threads_comm *)c)->first_rank);
    part(group_of(c));
    if (!*out) AT_TRY(at_fail(AT_ENOMEM, "comm: no memory for a part of %d ranks", size));
out:
    group_release(mine);
    if (st != AT_OK) {
        at_comm_free(*out);
        *out = NULL;
    }
    return st;
}

static family *family_new(int size)
{
    family *f = at_calloc(1, sizeof *f);

    if (!f) return NULL;
    f->size = size;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->moved, NULL);
    atomic_init(&f->refs, 1);
    return f;
}

at_status at_comm_threads(int size, at_comm **out)
{
    at_status st = AT_OK;
    family *f = NULL;
    group *g = NULL;

    for (int i = 0; i < size && size <= MAX_RANKS; i++)
        out[i] = NULL;
    if (size < 1 || size > MAX_RANKS)
        return at_fail(AT_EINVAL, "comm: %d ranks; 1 to %d are possible", size, MAX_RANKS);
    f = family_new(size);
    g = f ? group_new(f, size) : NULL;
    if (!g) AT_TRY(at_fail(AT_ENOMEM, "comm: no memory for %d ranks", size));
    for (int i = 0; i < size; i++) {
        out[i] = comm_new(g, i, i);
        if (!out[i]) AT_TRY(at_fail(AT_ENOMEM, "comm: no memory for %d ranks", size));
    }
out:
    for (int i = 0; i < size && st != AT_OK; i++) {
        at_comm_free(out[i]);
        out[i] = NULL;
    }
    group_release(g);
    family_release(f);
    return st;
}
