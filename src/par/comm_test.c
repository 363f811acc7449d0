// SPDX-License-Identifier: Apache-2.0
// comm_test.c - the exchanges of one rank and of several threads, and how a group survives a failure.
#include "par/comm.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"

enum { MOST = 8 };

// cmocka's asserts belong to the main thread: ranks count what is wrong.
typedef struct rank_ctx {
    at_comm *comm;
    void (*fn)(struct rank_ctx *r);
    atomic_int *wrong;
    at_status seen;
} rank_ctx;

static void expect(rank_ctx *r, int condition)
{
    if (!condition) atomic_fetch_add(r->wrong, 1);
}

static void *rank_main(void *arg)
{
    rank_ctx *r = arg;

    r->fn(r);
    return NULL;
}

static void run_ranks(int size, void (*fn)(rank_ctx *), rank_ctx *out)
{
    at_comm *comm[MOST] = {0};
    atomic_int wrong = 0;
    rank_ctx ctx[MOST];
    pthread_t id[MOST];

    assert_int_equal(at_comm_threads(size, comm), AT_OK);
    for (int i = 0; i < size; i++) {
        ctx[i] = (rank_ctx){.comm = comm[i], .fn = fn, .wrong = &wrong};
        assert_int_equal(pthread_create(&id[i], NULL, rank_main, &ctx[i]), 0);
    }
    for (int i = 0; i < size; i++)
        pthread_join(id[i], NULL);
    for (int i = 0; i < size; i++) {
        at_comm_free(comm[i]);
        if (out) out[i] = ctx[i];
    }
    assert_int_equal(wrong, 0);
}

static void gather_and_swap(rank_ctx *r)
{
    at_comm *c = r->comm;
    uint16_t mine[MOST * 3], all[MOST * 3];

    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 3; i++)
            mine[i] = (uint16_t)(round * 100 + c->rank * 10 + i);
        expect(r, c->ops->all_gather(c, mine, all, 3 * sizeof *mine) == AT_OK);
        for (int i = 0; i < c->size * 3; i++) {
            expect(r, all[i] == (uint16_t)(round * 100 + i / 3 * 10 + i % 3));
        }
        for (int i = 0; i < c->size; i++)
            mine[i] = (uint16_t)(round + c->rank * 16 + i);
        expect(r, c->ops->all_to_all(c, mine, all, sizeof *mine) == AT_OK);
        for (int i = 0; i < c->size; i++)
            expect(r, all[i] == (uint16_t)(round + i * 16 + c->rank));
    }
    expect(r, c->ops->all_gather(c, NULL, NULL, 0) == AT_OK);
}

static void gathers_and_swaps_arrive_in_rank_order(void **state)
{
    (void)state;
    for (int size = 1; size <= MOST; size++)
        run_ranks(size, gather_and_swap, NULL);
}

static void sum_up(rank_ctx *r)
{
    at_comm *c = r->comm;
    float x[13];

    for (size_t count = 0; count <= 13; count++) {
        for (size_t i = 0; i < count; i++)
            x[i] = 0.1f * (float)(c->rank + 1) + (float)i;
        expect(r, c->ops->all_reduce_sum(c, x, count) == AT_OK);
        for (size_t i = 0; i < count; i++) {
            float want = 0;

            for (int k = 0; k < c->size; k++)
                want += 0.1f * (float)(k + 1) + (float)i;
            expect(r, x[i] == want); // in rank order: the same bits
        }
    }
}

static void sums_run_in_rank_order_on_every_rank(void **state)
{
    (void)state;
    for (int size = 1; size <= 5; size++)
        run_ranks(size, sum_up, NULL);
}

static void vote(rank_ctx *r)
{
    at_comm *c = r->comm;
    int result;

    for (int round = 0; round < 200; round++) {
        int loud = round % c->size;

        expect(r, c->ops->vote(c, c->rank == loud ? round : 0, &result) == AT_OK);
        expect(r, result == round);
    }
    expect(r, c->ops->vote(c, -c->rank - 1, &result) == AT_OK && result == -1);
}

static void the_largest_vote_wins(void **state)
{
    (void)state;
    for (int size = 1; size <= 5; size++)
        run_ranks(size, vote, NULL);
}

// Rank 1 fails at a point of its own in each round; the others are freed from their exchange, all meet
// in the vote, and the next round works.
static void fail_and_go_on(rank_ctx *r)
{
    at_comm *c = r->comm;
    int one = c->rank, all[MOST], result;

    for (int round = 0; round < 100; round++) {
        at_status st = AT_OK;

        for (int i = 0; i < 4 && st == AT_OK; i++) {
            if (c->rank == 1 && i == round % 4) {
                st = AT_EDEVICE;
                c->ops->abort(c, AT_EDEVICE);
            } else {
                st = c->ops->all_gather(c, &one, all, sizeof one);
            }
        }
        expect(r, st == AT_EDEVICE);
        expect(r, c->ops->all_gather(c, &one, all, sizeof one) == AT_EDEVICE); // stays broken
        expect(r, c->ops->vote(c, (int)st, &result) == AT_OK && result == AT_EDEVICE);
        expect(r, c->ops->all_gather(c, &one, all, sizeof one) == AT_OK);
        for (int i = 0; i < c->size; i++)
            expect(r, all[i] == i);
    }
}

static void an_abort_frees_the_others_and_a_vote_mends(void **state)
{
    (void)state;
    run_ranks(2, fail_and_go_on, NULL);
    run_ranks(4, fail_and_go_on, NULL);
}

static void the_single_rank_copies(void **state)
{
    at_comm *c = at_comm_self();
    float x = 3;
    int in = 5, out = 0, result = 0;

    (void)state;
    assert_int_equal(c->size, 1);
    assert_int_equal(c->rank, 0);
    assert_int_equal(c->ops->all_gather(c, &in, &out, sizeof in), AT_OK);
    assert_int_equal(out, 5);
    assert_int_equal(c->ops->all_to_all(c, &in, &in, sizeof in), AT_OK);
    assert_int_equal(c->ops->all_reduce_sum(c, &x, 1), AT_OK);
    assert_true(x == 3);
    assert_int_equal(c->ops->vote(c, 8, &result), AT_OK);
    assert_int_equal(result, 8);
    c->ops->abort(c, 8);
    at_comm_free(c);
    at_comm_free(NULL);
}

static void groups_are_made_whole_or_not_at_all(void **state)
{
    size_t live = at_mem_get_stats().live_bytes;
    at_comm *comm[4];

    (void)state;
    assert_int_equal(at_comm_threads(0, comm), AT_EINVAL);
    assert_int_equal(at_comm_threads(100000, comm), AT_EINVAL);
    for (uint64_t n = 1; n <= 5; n++) {
        at_mem_fail_at(n, false);
        assert_int_equal(at_comm_threads(4, comm), AT_ENOMEM);
        at_mem_fail_at(0, false);
        for (int i = 0; i < 4; i++)
            assert_null(comm[i]);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gathers_and_swaps_arrive_in_rank_order),
        cmocka_unit_test(sums_run_in_rank_order_on_every_rank),
        cmocka_unit_test(the_largest_vote_wins),
        cmocka_unit_test(an_abort_frees_the_others_and_a_vote_mends),
        cmocka_unit_test(the_single_rank_copies),
        cmocka_unit_test(groups_are_made_whole_or_not_at_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
