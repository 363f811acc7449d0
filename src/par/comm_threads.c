// SPDX-License-Identifier: Apache-2.0
// comm_threads.c - ranks that are threads of this process and read each other's plain memory.
// Idea: every exchange is "publish my pointers, meet, copy what is mine, meet again". A rank that
// fails breaks the meeting for everybody (abort); the vote is a meeting of its own that always
// completes and mends the other one. Owns: the group is shared by its comms and goes with the last
// of them.
#include "par/comm.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"

enum { MAX_RANKS = 256 };

// Threads that wait for each other, again and again.
typedef struct meeting {
    int arrived;
    unsigned round;
} meeting;

typedef struct group {
    atomic_int refs;
    int size;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    meeting exchange, ballot;
    int broken; // code of the rank that gave up; 0: none
    int broken_by;
    int highest, result; // of the running ballot, of the last one
    const void *send[MAX_RANKS];
    float *sums[MAX_RANKS];
} group;

typedef struct threads_comm {
    at_comm base;
    group *g;
} threads_comm;

static group *group_of(at_comm *c)
{
    return ((threads_comm *)c)->g;
}

static at_status broken(const group *g)
{
    return at_fail((at_status)g->broken, "rank %d gave up: %s", g->broken_by,
                   at_status_facts((at_status)g->broken)->name);
}

// Wait for all ranks. Fails, without waiting on, once any rank has aborted.
static at_status meet(group *g)
{
    at_status st = AT_OK;
    unsigned round;

    pthread_mutex_lock(&g->lock);
    round = g->exchange.round;
    if (g->broken) {
        st = broken(g);
    } else if (++g->exchange.arrived == g->size) {
        g->exchange.arrived = 0;
        g->exchange.round++;
        pthread_cond_broadcast(&g->moved);
    } else {
        while (g->exchange.round == round && !g->broken)
            pthread_cond_wait(&g->moved, &g->lock);
        if (g->exchange.round == round) st = broken(g);
    }
    pthread_mutex_unlock(&g->lock);
    return st;
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
    AT_TRY(meet(g));
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
    AT_TRY(meet(g));
out:
    return st;
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
    AT_TRY(meet(g));
out:
    return st;
}

static at_status threads_vote(at_comm *c, int mine, int *result)
{
    group *g = group_of(c);
    unsigned round;

    pthread_mutex_lock(&g->lock);
    round = g->ballot.round;
    if (g->ballot.arrived == 0 || mine > g->highest) g->highest = mine;
    if (++g->ballot.arrived == g->size) {
        // Everybody is here, so nobody is in an exchange: start afresh.
        g->ballot.arrived = 0;
        g->ballot.round++;
        g->result = g->highest;
        g->exchange.arrived = 0;
        g->broken = 0;
        pthread_cond_broadcast(&g->moved);
    } else {
        while (g->ballot.round == round)
            pthread_cond_wait(&g->moved, &g->lock);
    }
    // The next ballot cannot end before this rank takes part in it.
    *result = g->result;
    pthread_mutex_unlock(&g->lock);
    return AT_OK;
}

static void threads_abort(at_comm *c, int code)
{
    group *g = group_of(c);

    pthread_mutex_lock(&g->lock);
    if (!g->broken) {
        g->broken = code ? code : AT_EINTERNAL;
        g->broken_by = c->rank;
        pthread_cond_broadcast(&g->moved);
    }
    pthread_mutex_unlock(&g->lock);
}

static void threads_free(at_comm *c)
{
    group *g = group_of(c);

    at_free(c);
    if (!g || atomic_fetch_sub(&g->refs, 1) != 1) return;
    pthread_cond_destroy(&g->moved);
    pthread_mutex_destroy(&g->lock);
    at_free(g);
}

static const at_comm_ops threads_ops = {
    .all_gather = threads_all_gather,
    .all_to_all = threads_all_to_all,
    .all_reduce_sum = threads_all_reduce_sum,
    .vote = threads_vote,
    .abort = threads_abort,
    .free = threads_free,
};

at_status at_comm_threads(int size, at_comm **out)
{
    at_status st = AT_OK;
    group *g = NULL;

    for (int i = 0; i < size && size <= MAX_RANKS; i++)
        out[i] = NULL;
    if (size < 1 || size > MAX_RANKS) {
        return at_fail(AT_EINVAL, "comm: %d ranks; 1 to %d are possible", size, MAX_RANKS);
    }
    g = at_calloc(1, sizeof *g);
    if (!g) return at_fail(AT_ENOMEM, "comm: no memory for %d ranks", size);
    g->size = size;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->moved, NULL);
    atomic_init(&g->refs, 1); // ours, while the comms are made
    for (int i = 0; i < size; i++) {
        threads_comm *c = at_calloc(1, sizeof *c);

        if (!c) AT_TRY(at_fail(AT_ENOMEM, "comm: no memory for %d ranks", size));
        c->base = (at_comm){.ops = &threads_ops, .rank = i, .size = size};
        c->g = g;
        atomic_fetch_add(&g->refs, 1);
        out[i] = &c->base;
    }
out:
    if (st != AT_OK) {
        for (int i = 0; i < size; i++) {
            at_comm_free(out[i]);
            out[i] = NULL;
        }
    }
    if (atomic_fetch_sub(&g->refs, 1) == 1) {
        pthread_cond_destroy(&g->moved);
        pthread_mutex_destroy(&g->lock);
        at_free(g);
    }
    return st;
}
