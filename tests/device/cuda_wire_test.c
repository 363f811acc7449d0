// SPDX-License-Identifier: Apache-2.0
// cuda_wire_test.c - the comm of several GPUs (comm_peer.c over cuda/wire.c) over a fake CUDA runtime: by
// stores and by copies, uneven and scattered parts, sums, parts of a comm, failures and their mending.
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/half.h"
#include "base/mem.h"
#include "cuda/cuda.h"
#include "fake_cudart.h"
#include "par/comm.h"

enum { MOST = 5, ROUNDS = 20 };
static at_cuda gpus[MOST];

static at_status idle(at_device *d)
{
    (void)d;
    return AT_OK;
}
static const at_device_ops ops = {.wire = &at_cuda_wire_ops, .synchronize = idle};

static int open_gpus(void **state)
{
    (void)state;
    for (int i = 0; i < MOST; i++) {
        snprintf(gpus[i].dev.name, sizeof gpus[i].dev.name, "cuda:%d", i);
        gpus[i].dev.ops = &ops;
        gpus[i].ordinal = i;
        assert_int_equal(at_cuda_pool_new(&gpus[i].pool), AT_OK);
    }
    return 0;
}

// cmocka's asserts belong to the main thread: ranks count what is wrong.
typedef struct rank_ctx {
    at_comm *comm;
    void (*fn)(struct rank_ctx *r);
    atomic_int *wrong;
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

static void run_ranks(int size, void (*fn)(rank_ctx *))
{
    at_comm *comm[MOST] = {0};
    at_device *devices[MOST] = {NULL};
    atomic_int wrong = 0;
    rank_ctx ctx[MOST];
    pthread_t id[MOST];

    for (int i = 0; i < size; i++)
        devices[i] = &gpus[i].dev;
    assert_int_equal(at_comm_peer(size, devices, comm), AT_OK);
    for (int i = 0; i < size; i++) {
        ctx[i] = (rank_ctx){.comm = comm[i], .fn = fn, .wrong = &wrong};
        assert_int_equal(pthread_create(&id[i], NULL, rank_main, &ctx[i]), 0);
    }
    for (int i = 0; i < size; i++)
        pthread_join(id[i], NULL);
    for (int i = 0; i < size; i++)
        at_comm_free(comm[i]);
    assert_int_equal(wrong, 0);
}

static void both_ways(int size, void (*fn)(rank_ctx *))
{
    run_ranks(size, fn);
    setenv("AT_OFF", "stores", 1);
    run_ranks(size, fn);
    unsetenv("AT_OFF");
}

static void gather_and_swap(rank_ctx *r)
{
    at_comm *c = r->comm;
    uint16_t mine[MOST * 3], all[MOST * 3];

    expect(r, c->on_device);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < 3; i++)
            mine[i] = (uint16_t)(round * 100 + c->rank * 10 + i);
        expect(r, c->ops->all_gather(c, mine, all, 3 * sizeof *mine) == AT_OK);
        for (int i = 0; i < c->size * 3; i++)
            expect(r, all[i] == (uint16_t)(round * 100 + i / 3 * 10 + i % 3));
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
        both_ways(size, gather_and_swap);
}

// Rank i sends i + j bytes to rank j; 0 to 0, so that one part is empty.
static void uneven(rank_ctx *r)
{
    at_comm *c = r->comm;
    unsigned char out[MOST][2 * MOST], in[MOST][2 * MOST];
    at_comm_part send[MOST], recv[MOST];

    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < c->size; i++) {
            size_t n = (size_t)(c->rank + i);

            memset(out[i], 16 * c->rank + i + round, sizeof out[i]);
            memset(in[i], 255, sizeof in[i]);
            send[i] = (at_comm_part){out[i], n};
            recv[i] = (at_comm_part){in[i], n};
        }
        expect(r, c->ops->exchange(c, send, recv) == AT_OK);
        for (int i = 0; i < c->size; i++)
            for (int k = 0; k < 2 * MOST; k++)
                expect(r, in[i][k] == (k < c->rank + i ? 16 * i + c->rank + round : 255));
    }
}

static void parts_have_their_own_sizes(void **state)
{
    (void)state;
    for (int size = 1; size <= 4; size++)
        both_ways(size, uneven);
}

// In two halves; every rank's number to all others in the columns of a square.
static void in_halves(rank_ctx *r)
{
    at_comm *c = r->comm;
    int32_t mine[3] = {0}, all[3][MOST] = {{0}};
    at_view send[MOST], recv[MOST];

    for (int round = 0; round < ROUNDS; round++) {
        for (int k = 0; k < 3; k++)
            mine[k] = 100 * round + 10 * k + c->rank;
        for (int i = 0; i < c->size; i++) {
            send[i] = (at_view){mine, AT_I32, 2, {3, 1}, {1, 1}};
            recv[i] = (at_view){&all[0][i], AT_I32, 2, {3, 1}, {MOST, 1}};
        }
        expect(r, c->ops->scatter_begin(c, send, recv) == AT_OK);
        expect(r, c->ops->scatter_end(c) == AT_OK);
        for (int i = 0; i < c->size; i++)
            for (int k = 0; k < 3; k++)
                expect(r, all[k][i] == 100 * round + 10 * k + i);
        expect(r, c->ops->scatter(c, send, recv) == AT_OK);
    }
}

static void a_push_may_have_two_halves(void **state)
{
    (void)state;
    for (int size = 1; size <= 4; size++)
        both_ways(size, in_halves);
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

// bf16 of whole numbers, over several lines of each rank's share.
static void sum_halves(rank_ctx *r)
{
    at_comm *c = r->comm;
    uint16_t x[300];

    for (size_t count = 1; count <= 300; count += 23) {
        for (size_t i = 0; i < count; i++)
            x[i] = at_f32_to_bf16((float)((int)(i % 7) + 10 * c->rank));
        expect(r, c->ops->sum(c, AT_BF16, x, count) == AT_OK);
        for (size_t i = 0; i < count; i++)
            expect(r, at_bf16_to_f32(x[i]) ==
                          (float)(c->size * (int)(i % 7) + 5 * c->size * (c->size - 1)));
    }
}

static void sums_run_in_rank_order_on_every_rank(void **state)
{
    (void)state;
    for (int size = 1; size <= 4; size++) {
        both_ways(size, sum_up);
        both_ways(size, sum_halves);
    }
}

// 2 x 2 ranks: rows and columns exchange in turns over the same wire.
static void grid(rank_ctx *r)
{
    at_comm *c = r->comm, *row = NULL, *column = NULL;
    int all[2], mine = c->rank;

    expect(r, c->ops->split(c, c->rank / 2, &row) == AT_OK);
    expect(r, c->ops->split(c, c->rank % 2, &column) == AT_OK);
    expect(r, row->size == 2 && row->rank == c->rank % 2 && row->on_device);
    for (int i = 0; i < ROUNDS; i++) {
        expect(r, row->ops->all_gather(row, &mine, all, sizeof mine) == AT_OK);
        expect(r, all[0] == c->rank / 2 * 2 && all[1] == c->rank / 2 * 2 + 1);
        expect(r, column->ops->all_gather(column, &mine, all, sizeof mine) == AT_OK);
        expect(r, all[0] == c->rank % 2 && all[1] == c->rank % 2 + 2);
    }
    at_comm_free(row);
    at_comm_free(column);
}

static void rows_and_columns_of_a_grid_share_a_wire(void **state)
{
    (void)state;
    both_ways(4, grid);
}

// Rank 1 fails at a point of its own in each round; the others are freed from their exchange, all meet
// in the vote, and the next round works.
static void fail_and_go_on(rank_ctx *r)
{
    at_comm *c = r->comm;
    int one = c->rank, all[MOST], result;

    for (int round = 0; round < ROUNDS; round++) {
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
        expect(r, c->ops->vote(c, 0, &result) == AT_OK && result == AT_OK);
    }
}

static void an_abort_frees_the_others_and_a_vote_mends(void **state)
{
    (void)state;
    both_ways(2, fail_and_go_on);
    both_ways(4, fail_and_go_on);
}

// [3][2][4] of 6 bytes each, out of a larger array into another one, to the next rank.
static void scattered(rank_ctx *r)
{
    enum { N = 3 * 40 };
    static uint16_t mine[MOST][N], theirs[MOST][N];
    at_wire *w = NULL;
    at_device *devices[2] = {&gpus[0].dev, &gpus[1].dev};

    expect(r, at_cuda_wire_ops.open(devices, 2, &w) == AT_OK);
    for (int i = 0; i < N; i++)
        mine[0][i] = (uint16_t)i;
    at_wire_part part = {
        .rank = 0,
        .from = {mine[0], AT_BF16, 4, {3, 2, 4, 3}, {40, 20, 4, 1}},
        .to = {theirs[0], AT_BF16, 4, {3, 2, 4, 3}, {24, 3, 6, 1}},
    };
    expect(r, at_cuda_wire_ops.push(w, 0, &part, 1) == AT_OK);
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < 2; b++)
            for (int k = 0; k < 4; k++)
                for (int e = 0; e < 3; e++)
                    expect(r, theirs[0][a * 24 + b * 3 + k * 6 + e] == a * 40 + b * 20 + k * 4 + e);
    at_cuda_wire_ops.free(w);
}

static void scattered_parts_go_straight_to_their_place(void **state)
{
    (void)state;
    both_ways(1, scattered);
}

static void wires_are_made_whole_or_not_at_all(void **state)
{
    at_device *devices[] = {&gpus[0].dev, &gpus[1].dev, &gpus[0].dev};
    at_device cpu = {.ops = &(at_device_ops){0}, .name = "cpu"};
    at_device *mixed[] = {&gpus[0].dev, &cpu};
    at_comm *comm[3];
    size_t taken = fake.taken, live = at_mem_get_stats().live_bytes;

    (void)state;
    assert_int_equal(at_comm_peer(3, devices, comm), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "cuda:0 is rank 0 and rank 2"));
    assert_int_equal(at_comm_peer(2, mixed, comm), AT_EUNSUPPORTED);
    fake.room = fake.taken + 100; // counters do not fit
    assert_int_equal(at_comm_peer(2, devices, comm), AT_ENOMEM);
    fake.room = (size_t)1 << 40;
    for (uint64_t n = 1; n <= 8; n++) {
        at_mem_fail_at(n, false);
        assert_int_equal(at_comm_peer(2, devices, comm), AT_ENOMEM);
        at_mem_fail_at(0, false);
        assert_null(comm[0]);
        assert_null(comm[1]);
    }
    assert_int_equal(fake.taken, taken);
    assert_int_equal(at_mem_get_stats().live_bytes, live);
}

// A child measures; this process finds what it has kept, until the file is of another machine.
static void links_are_measured_once(void **state)
{
    char folder[] = "/tmp/at_links_XXXXXX", command[64];
    at_wire_link link, again;
    int code = 0, mallocs = fake.mallocs;

    (void)state;
    assert_non_null(mkdtemp(folder));
    setenv("XDG_CACHE_HOME", folder, 1);
    fake_wire_waits = false;
    pid_t child = fork();
    if (child == 0) _exit(at_cuda_link(&gpus[1].dev, &gpus[0].dev, &link) != AT_OK);
    waitpid(child, &code, 0);
    assert_int_equal(code, 0);
    assert_int_equal(at_cuda_link(&gpus[0].dev, &gpus[1].dev, &link), AT_OK);
    assert_int_equal(fake.mallocs, mallocs);
    assert_true(link.bandwidth > 1e6 && link.seconds > 0);
    assert_int_equal(at_cuda_link(&gpus[0].dev, &gpus[2].dev, &again), AT_OK);
    assert_true(fake.mallocs > mallocs && fabs(again.bandwidth / link.bandwidth - 1) < 1e-5);
    assert_int_equal(at_cuda_link(&gpus[2].dev, &gpus[2].dev, &again), AT_EINVAL);
    fake_wire_waits = true;
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gathers_and_swaps_arrive_in_rank_order),
        cmocka_unit_test(parts_have_their_own_sizes),
        cmocka_unit_test(a_push_may_have_two_halves),
        cmocka_unit_test(sums_run_in_rank_order_on_every_rank),
        cmocka_unit_test(rows_and_columns_of_a_grid_share_a_wire),
        cmocka_unit_test(an_abort_frees_the_others_and_a_vote_mends),
        cmocka_unit_test(scattered_parts_go_straight_to_their_place),
        cmocka_unit_test(wires_are_made_whole_or_not_at_all),
        cmocka_unit_test(links_are_measured_once),
    };

    return cmocka_run_group_tests(tests, open_gpus, NULL);
}
