// SPDX-License-Identifier: Apache-2.0
// comm_suite.c - see comm_suite.h.
#include "comm_suite.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

enum { MOST = AT_SUITE_RANKS };
static const suite_carrier *carrier; // that is tested

void suite_wrong(suite_rank *r, const char *file, int line, const char *what)
{
    if (atomic_fetch_add(r->wrong, 1) < 3)
        fprintf(stderr, "%s:%d: rank %d of %d: not %s (%s)\n", file, line, r->comm->rank,
                r->comm->size, what, at_error_text());
}

typedef struct member {
    suite_rank rank;
    suite_fn *fn;
} member;

static void *member_main(void *arg)
{
    member *m = arg;

    m->fn(&m->rank);
    return NULL;
}

int suite_threads(int size, at_comm **comm, suite_fn *fn)
{
    atomic_int wrong = 0;
    member m[MOST];
    pthread_t id[MOST];

    for (int i = 0; i < size; i++) {
        m[i] = (member){{comm[i], &wrong}, fn};
        if (pthread_create(&id[i], NULL, member_main, &m[i]) != 0) return -1;
    }
    for (int i = 0; i < size; i++)
        pthread_join(id[i], NULL);
    for (int i = 0; i < size; i++)
        at_comm_free(comm[i]);
    return wrong;
}

// --- the promises ----------------------------------------------------------------------------------
static void gather_and_swap(suite_rank *r)
{
    at_comm *c = r->comm;
    uint16_t mine[MOST * 3], all[MOST * 3];

    for (int round = 0; round < carrier->rounds; round++) {
        for (int i = 0; i < 3; i++)
            mine[i] = (uint16_t)(round * 100 + c->rank * 10 + i);
        SUITE_EXPECT(r, c->ops->all_gather(c, mine, all, 3 * sizeof *mine) == AT_OK);
        for (int i = 0; i < c->size * 3; i++)
            SUITE_EXPECT(r, all[i] == (uint16_t)(round * 100 + i / 3 * 10 + i % 3));
        for (int i = 0; i < c->size; i++)
            mine[i] = (uint16_t)(round + c->rank * 16 + i);
        SUITE_EXPECT(r, c->ops->all_to_all(c, mine, all, sizeof *mine) == AT_OK);
        for (int i = 0; i < c->size; i++)
            SUITE_EXPECT(r, all[i] == (uint16_t)(round + i * 16 + c->rank));
    }
    SUITE_EXPECT(r, c->ops->all_gather(c, NULL, NULL, 0) == AT_OK);
}

// Rank i sends i + j bytes to rank j; 0 to 0, so that one part is empty. Then much more than a socket holds.
static void uneven(suite_rank *r)
{
    enum { BIG = 700000 };
    static unsigned char big[MOST][BIG];
    at_comm *c = r->comm;
    unsigned char out[MOST][2 * MOST], in[MOST][2 * MOST], *mine = big[c->rank];
    at_comm_part send[MOST], recv[MOST];

    for (int round = 0; round < carrier->rounds; round++) {
        for (int i = 0; i < c->size; i++) {
            size_t n = (size_t)(c->rank + i);

            memset(out[i], 16 * c->rank + i + round, sizeof out[i]);
            memset(in[i], 255, sizeof in[i]);
            send[i] = (at_comm_part){out[i], n};
            recv[i] = (at_comm_part){in[i], n};
        }
        SUITE_EXPECT(r, c->ops->exchange(c, send, recv) == AT_OK);
        for (int i = 0; i < c->size; i++)
            for (int k = 0; k < 2 * MOST; k++)
                SUITE_EXPECT(
                    r, in[i][k] ==
                           (k < c->rank + i ? (unsigned char)(16 * i + c->rank + round) : 255));
    }
    // A ring: each gives its block to the next one.
    int next = (c->rank + 1) % c->size, last = (c->rank + c->size - 1) % c->size;
    memset(send, 0, sizeof send);
    memset(recv, 0, sizeof recv);
    memset(mine, c->rank + 1, BIG / 2);
    send[next] = (at_comm_part){mine, BIG / 2};
    recv[last] = (at_comm_part){mine + BIG / 2, BIG / 2};
    SUITE_EXPECT(r, c->ops->exchange(c, send, recv) == AT_OK);
    SUITE_EXPECT(r, mine[BIG / 2] == last + 1 && mine[BIG - 1] == last + 1);
}

static void sum_up(suite_rank *r)
{
    at_comm *c = r->comm;
    float x[13], all[13 * MOST];

    for (size_t count = 0; count <= 13; count++) {
        for (size_t i = 0; i < count; i++)
            x[i] = 0.1f * (float)(c->rank + 1) + (float)i;
        SUITE_EXPECT(r, c->ops->all_reduce_sum(c, x, count) == AT_OK);
        for (size_t i = 0; i < count; i++) {
            float want = 0;

            for (int k = 0; k < c->size; k++)
                want += 0.1f * (float)(k + 1) + (float)i;
            SUITE_EXPECT(r, carrier->any_order ? fabsf(x[i] - want) < 1e-4f : x[i] == want);
        }
        SUITE_EXPECT(r, c->ops->all_gather(c, x, all, count * sizeof *x) == AT_OK);
        for (int i = 1; i < c->size; i++) // whatever the order: the same bits
            SUITE_EXPECT(r, !count || !memcmp(all, all + (size_t)i * count, count * sizeof *x));
    }
}

static void vote(suite_rank *r)
{
    at_comm *c = r->comm;
    int result;

    for (int round = 0; round < carrier->rounds; round++) {
        int loud = round % c->size;

        SUITE_EXPECT(r, c->ops->vote(c, c->rank == loud ? round : 0, &result) == AT_OK);
        SUITE_EXPECT(r, result == round);
    }
    SUITE_EXPECT(r, c->ops->vote(c, -c->rank - 1, &result) == AT_OK && result == -1);
}

static void tell(suite_rank *r)
{
    at_comm *c = r->comm;
    char words[32], all[MOST * 32];

    snprintf(words, sizeof words, "I am rank %d", c->rank);
    SUITE_EXPECT(r, c->ops->tell(c, words, all, sizeof words) == AT_OK);
    for (int i = 0; i < c->size; i++) {
        snprintf(words, sizeof words, "I am rank %d", i);
        SUITE_EXPECT(r, strcmp(all + i * 32, words) == 0);
    }
}

// 2 x 2 ranks: rows and columns exchange in turns over the same carrier.
static void grid(suite_rank *r)
{
    at_comm *c = r->comm, *row = NULL, *column = NULL;
    int all[2], mine = c->rank, result;

    if (c->size != 4) return;
    SUITE_EXPECT(r, c->ops->split(c, c->rank / 2, &row) == AT_OK);
    SUITE_EXPECT(r, c->ops->split(c, c->rank % 2, &column) == AT_OK);
    if (!row || !column) return;
    SUITE_EXPECT(r, row->size == 2 && row->rank == c->rank % 2 && row->on_device == c->on_device);
    for (int i = 0; i < carrier->rounds; i++) {
        SUITE_EXPECT(r, row->ops->all_gather(row, &mine, all, sizeof mine) == AT_OK);
        SUITE_EXPECT(r, all[0] == c->rank / 2 * 2 && all[1] == c->rank / 2 * 2 + 1);
        SUITE_EXPECT(r, column->ops->all_gather(column, &mine, all, sizeof mine) == AT_OK);
        SUITE_EXPECT(r, all[0] == c->rank % 2 && all[1] == c->rank % 2 + 2);
    }
    SUITE_EXPECT(r, c->ops->vote(c, 0, &result) == AT_OK);
    // An abort by a part breaks the others' parts too, and the vote of all mends them.
    if (c->rank == 3) row->ops->abort(row, AT_ENOMEM);
    at_status st = AT_OK;
    for (int i = 0; i < carrier->rounds && st == AT_OK; i++)
        st = column->ops->all_gather(column, &mine, all, sizeof mine);
    SUITE_EXPECT(r, c->ops->vote(c, (int)st, &result) == AT_OK);
    SUITE_EXPECT(r, column->ops->all_gather(column, &mine, all, sizeof mine) == AT_OK);
    SUITE_EXPECT(r, all[0] == c->rank % 2 && all[1] == c->rank % 2 + 2);
    SUITE_EXPECT(r, c->ops->vote(c, 0, &result) == AT_OK); // nobody frees while another one reads
    at_comm_free(row);
    at_comm_free(column);
}

// Rank 1 fails at a point of its own in each round; the others are freed from their exchange, all meet
// in the vote, and the next round works.
static void fail_and_go_on(suite_rank *r)
{
    at_comm *c = r->comm;
    int one = c->rank, all[MOST], result;

    for (int round = 0; round < carrier->rounds; round++) {
        at_status st = AT_OK;

        for (int i = 0; i < 4 && st == AT_OK; i++) {
            if (c->rank == 1 && i == round % 4) {
                st = AT_EDEVICE;
                c->ops->abort(c, AT_EDEVICE);
            } else {
                st = c->ops->all_gather(c, &one, all, sizeof one);
            }
        }
        if (!carrier->queues || c->rank == 1) {
            SUITE_EXPECT(r, st == AT_EDEVICE);
            st = c->ops->all_gather(c, &one, all, sizeof one);
            SUITE_EXPECT(r, st == AT_EDEVICE); // stays broken
        }
        SUITE_EXPECT(r, c->ops->vote(c, (int)st, &result) == AT_OK && result == AT_EDEVICE);
        SUITE_EXPECT(r, c->ops->all_gather(c, &one, all, sizeof one) == AT_OK);
        for (int i = 0; i < c->size; i++)
            SUITE_EXPECT(r, all[i] == i);
        SUITE_EXPECT(r, c->ops->vote(c, 0, &result) == AT_OK && result == AT_OK);
    }
}

// A rank gives up while the others are in the midst of more than a socket holds.
static void fail_amid_much(suite_rank *r)
{
    enum { BIG = 4000000 };
    static unsigned char big[MOST][BIG];
    at_comm *c = r->comm;
    unsigned char *mine = big[c->rank];
    size_t part = BIG / 2 / MOST;
    int result;

    for (int round = 0; round < 4; round++) {
        at_status st = AT_EIO;

        memset(mine, c->rank + 1, BIG);
        if (c->rank == 1)
            c->ops->abort(c, AT_EIO);
        else
            st = c->ops->all_to_all(c, mine, mine + BIG / 2, part);
        SUITE_EXPECT(r, st == AT_EIO || carrier->queues);
        SUITE_EXPECT(r, c->ops->vote(c, (int)st, &result) == AT_OK && result == AT_EIO);
        memset(mine, c->rank + 1, BIG);
        SUITE_EXPECT(r, c->ops->all_to_all(c, mine, mine + BIG / 2, part) == AT_OK);
        for (int i = 0; i < c->size; i++)
            SUITE_EXPECT(r, mine[BIG / 2 + part * (size_t)i] == i + 1 &&
                                mine[BIG / 2 + part * (size_t)(i + 1) - 1] == i + 1);
        SUITE_EXPECT(r, c->ops->vote(c, 0, &result) == AT_OK && result == AT_OK);
    }
}

void suite_run(const suite_carrier *c)
{
    static const struct {
        const char *name;
        suite_fn *fn;
        int least;
    } promises[] = {
        {"gathers and swaps arrive in rank order", gather_and_swap, 1},
        {"parts have their own sizes", uneven, 1},
        {"sums have the same bits on all ranks", sum_up, 1},
        {"the largest vote wins", vote, 1},
        {"what is told is heard by all", tell, 1},
        {"rows and columns share a carrier", grid, 4},
        {"an abort frees the others and a vote mends", fail_and_go_on, 2},
        {"an abort amid much data frees the others", fail_amid_much, 2},
    };

    carrier = c;
    for (size_t i = 0; i < sizeof promises / sizeof *promises; i++)
        for (int size = promises[i].least; size <= c->most; size++) {
            int wrong = c->run(size, promises[i].fn);

            if (wrong)
                fail_msg("%s, %d ranks: %s: %d wrong", c->name, size, promises[i].name, wrong);
        }
}
