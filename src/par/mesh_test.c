// SPDX-License-Identifier: Apache-2.0
// mesh_test.c - degrees as text, the comms of a mesh's axes, and a failure in one of them that all hear of.
#include "par/mesh.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"

enum { MOST = 12 };

// cmocka's asserts belong to the main thread: ranks count what is wrong.
typedef struct rank_ctx {
    at_comm *comm;
    const at_degrees *degrees;
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

static void run_ranks(const at_degrees *d, void (*fn)(rank_ctx *))
{
    int size = at_degrees_ranks(d);
    size_t live = at_mem_get_stats().live_bytes;
    at_comm *comm[MOST] = {0};
    atomic_int wrong = 0;
    rank_ctx ctx[MOST];
    pthread_t id[MOST];

    assert_int_equal(at_comm_threads(size, comm), AT_OK);
    for (int i = 0; i < size; i++) {
        ctx[i] = (rank_ctx){.comm = comm[i], .degrees = d, .fn = fn, .wrong = &wrong};
        assert_int_equal(pthread_create(&id[i], NULL, rank_main, &ctx[i]), 0);
    }
    for (int i = 0; i < size; i++)
        pthread_join(id[i], NULL);
    for (int i = 0; i < size; i++)
        at_comm_free(comm[i]);
    assert_int_equal(wrong, 0);
    assert_int_equal(at_mem_get_stats().live_bytes, live);
}

static void degrees_are_read_and_written(void **state)
{
    static const char *const good[] = {"none", "cfg=2", "cfg=2,ulysses=4", "tp=2,patch=3,ring=2"};
    static const char *const bad[] = {
        "",        "cfg",        "cfg=",        "cfg=0",   "cfg=2,",       "two=2",
        "cfg=2,x", "cfg=2cfg=2", "cfg=2,cfg=3", "cfg=300", "cfg=20,tp=20", "=2"};
    at_degrees d;
    char text[96];

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(at_degrees_parse(good[i], &d), AT_OK);
        assert_string_equal(at_degrees_text(&d, text), good[i]);
    }
    assert_int_equal(at_degrees_parse("tp=2,patch=3,ring=2", &d), AT_OK);
    assert_int_equal(at_degrees_ranks(&d), 12);
    assert_int_equal(at_degrees_parse("ulysses=1", &d), AT_OK);
    assert_int_equal(at_degrees_ranks(&d), 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (at_degrees_parse(bad[i], &d) != AT_EINVAL) fail_msg("\"%s\" is taken", bad[i]);
}

// Parts of unequal size, some of them empty: i sends (i + j) % 3 words to j.
static void uneven(rank_ctx *r)
{
    at_comm *c = r->comm;
    uint16_t out[MOST][2], in[MOST][2];
    at_comm_part send[MOST], recv[MOST];

    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < c->size; i++) {
            size_t bytes = (size_t)((c->rank + i) % 3) * sizeof **out;
            for (int k = 0; k < 2; k++)
                out[i][k] = (uint16_t)(round * 400 + c->rank * 20 + i + 200 * k);
            send[i] = (at_comm_part){out[i], bytes};
            recv[i] = (at_comm_part){in[i], bytes};
        }
        memset(in, 0xee, sizeof in);
        expect(r, c->ops->exchange(c, send, recv) == AT_OK);
        for (int i = 0; i < c->size; i++)
            for (int k = 0; k < 2; k++)
                expect(r, in[i][k] == (k < (c->rank + i) % 3
                                           ? (uint16_t)(round * 400 + i * 20 + c->rank + 200 * k)
                                           : 0xeeee));
    }
}

static void uneven_parts_arrive(void **state)
{
    (void)state;
    for (int size = 1; size <= 5; size++)
        run_ranks(&(at_degrees){{[AT_AXIS_CFG] = size}}, uneven);
}

static void disagree(rank_ctx *r)
{
    char out[8] = {0}, in[8];
    at_comm_part send[2] = {{out, 4}, {out, 4}}, recv[2] = {{in, 4}, {in, 4}};
    int result;

    if (r->comm->rank) send[0].bytes = 2;
    at_status st = r->comm->ops->exchange(r->comm, send, recv);
    if (r->comm->rank == 0) expect(r, st == AT_EINTERNAL);
    expect(r, r->comm->ops->vote(r->comm, (int)st, &result) == AT_OK && result == AT_EINTERNAL);
}

static void sizes_that_disagree_are_refused(void **state)
{
    (void)state;
    run_ranks(&(at_degrees){{[AT_AXIS_CFG] = 2}}, disagree);
}

// Everybody on an axis brings its world rank; those who come together differ there alone.
static void look_along(rank_ctx *r, const at_mesh *m, at_comm *c, int first, int last)
{
    int n = 1, stride = 1, all[MOST], mine = m->world->rank;

    for (int i = first; i <= last; i++)
        n *= m->degrees.of[i] > 1 ? m->degrees.of[i] : 1;
    for (int i = last + 1; i < AT_AXES; i++)
        stride *= m->degrees.of[i] > 1 ? m->degrees.of[i] : 1;
    expect(r, c->size == n && c->rank == mine / stride % n);
    expect(r, c->ops->tell(c, &mine, all, sizeof mine) == AT_OK);
    for (int i = 0; i < n; i++)
        expect(r, all[i] == mine + (i - c->rank) * stride);
}

static void look_around(rank_ctx *r)
{
    at_mesh m;

    expect(r, at_mesh_open(r->comm, r->degrees, &m) == AT_OK);
    for (int i = 0; i < AT_AXES; i++)
        look_along(r, &m, m.axis[i], i, i);
    look_along(r, &m, m.tokens, AT_AXIS_RING, AT_AXIS_ULYSSES);
    at_mesh_close(&m);
}

static void each_axis_joins_those_who_differ_there_alone(void **state)
{
    static const at_degrees meshes[] = {{{1, 1, 1, 1, 1}}, {{2, 0, 0, 0, 2}}, {{0, 0, 0, 3, 2}},
                                        {{2, 2, 1, 1, 3}}, {{1, 2, 2, 1, 2}}, {{0, 0, 0, 0, 5}}};
    (void)state;
    for (size_t i = 0; i < sizeof meshes / sizeof *meshes; i++)
        run_ranks(&meshes[i], look_around);
}

// Who shares one cut adds up; groups along cfg are cut by their own ranks.
static void look_at_shares(rank_ctx *r)
{
    at_mesh m;
    int me = r->comm->rank;

    expect(r, at_mesh_open(r->comm, r->degrees, &m) == AT_OK);
    expect(r, m.share[AT_AXIS_CFG][0] == 10 && m.share[AT_AXIS_CFG][1] == 26);
    for (int i = 0; i < 4; i++)
        expect(r, m.token_share[i] == r->degrees->shares[me / 4 * 4 + i]);
    expect(r, m.share[AT_AXIS_RING][0] == (me < 4 ? 3 : 11));
    expect(r, m.share[AT_AXIS_RING][1] == (me < 4 ? 7 : 15));
    expect(r, m.share[AT_AXIS_ULYSSES][1] == (me < 4 ? 6 : 14));
    expect(r, m.share[AT_AXIS_PATCH][0] == (me < 4 ? 10 : 26));
    at_mesh_close(&m);
}

static void ranks_of_unlike_speed_have_shares(void **state)
{
    at_degrees d, again;
    char text[96];
    static const uint8_t fast[AT_SHARE_RANKS] = {50, 100, 100, 50};

    (void)state;
    assert_int_equal(at_degrees_parse("cfg=2,ring=2,ulysses=2,shares=1:2:3:4:5:6:7:8", &d), AT_OK);
    run_ranks(&d, look_at_shares);
    assert_int_equal(at_degrees_parse(at_degrees_text(&d, text), &again), AT_OK);
    assert_memory_equal(&d, &again, sizeof d);
    assert_int_equal(at_degrees_parse("ring=2", &d), AT_OK);
    at_degrees_take_speeds(&d, fast);
    assert_string_equal(at_degrees_text(&d, text), "ring=2,shares=50:100");
    // One alone; both in proportion; layers cut in two go by the slower one; forwards are whole.
    assert_true(at_degrees_pace(&(at_degrees){0}, fast, 1) == 1);
    assert_true(at_degrees_pace(&d, fast, 1) == 2.0 / 3);
    assert_true(at_degrees_pace(&(at_degrees){{[AT_AXIS_TP] = 2}}, fast, 1) == 1);
    assert_true(at_degrees_pace(&(at_degrees){{[AT_AXIS_CFG] = 2}}, fast, 2) == 1);
    assert_true(at_degrees_pace(&(at_degrees){{[AT_AXIS_CFG] = 2}}, fast, 3) == 0.5);
    assert_true(at_degrees_pace(&d, (uint8_t[AT_SHARE_RANKS]){0}, 7) == 1);
    // More ranks than speeds.
    assert_true(at_degrees_pace(&(at_degrees){{[AT_AXIS_CFG] = 5}}, fast, 5) == 1);
    d = (at_degrees){{[AT_AXIS_CFG] = 5}};
    at_degrees_take_speeds(&d, fast);
    assert_int_equal(d.shares[0], 0);
}

// Rank 1 gives up in an exchange of one axis; whoever waits on any other hears it, and a vote of all mends all.
static void fail_on_an_axis(rank_ctx *r)
{
    at_mesh m;
    int one = r->comm->rank, all[MOST], result;

    expect(r, at_mesh_open(r->comm, r->degrees, &m) == AT_OK);
    for (int round = 0; round < 60; round++) {
        at_status st = AT_OK;
        for (int i = 0; i < 6 && st == AT_OK; i++) {
            at_comm *c = m.axis[i % 2 ? AT_AXIS_CFG : AT_AXIS_ULYSSES];
            if (r->comm->rank == 1 && i == round % 6) {
                st = AT_EDEVICE;
                c->ops->abort(c, AT_EDEVICE);
            } else {
                st = c->ops->all_gather(c, &one, all, sizeof one);
            }
        }
        expect(r, r->comm->rank != 1 || st == AT_EDEVICE);
        expect(r, r->comm->ops->vote(r->comm, (int)st, &result) == AT_OK && result == AT_EDEVICE);
        expect(r, m.tokens->ops->all_gather(m.tokens, &one, all, sizeof one) == AT_OK);
        expect(r, m.axis[AT_AXIS_CFG]->ops->vote(m.axis[AT_AXIS_CFG], 0, &result) == AT_EINTERNAL);
        // Nobody fails anew before all have seen that it works again.
        expect(r, r->comm->ops->vote(r->comm, 0, &result) == AT_OK && result == AT_OK);
    }
    at_mesh_close(&m);
}

static void a_failure_on_one_axis_ends_all(void **state)
{
    (void)state;
    run_ranks(&(at_degrees){{[AT_AXIS_CFG] = 2, [AT_AXIS_ULYSSES] = 2}}, fail_on_an_axis);
    run_ranks(&(at_degrees){{[AT_AXIS_CFG] = 2, [AT_AXIS_ULYSSES] = 3}}, fail_on_an_axis);
}

static void one_rank_is_a_mesh_too(void **state)
{
    at_mesh m = at_mesh_self();

    (void)state;
    for (int i = 0; i < AT_AXES; i++)
        assert_int_equal(m.axis[i]->size, 1);
    assert_int_equal(at_mesh_open(at_comm_self(), &(at_degrees){{[AT_AXIS_TP] = 2}}, &m),
                     AT_EINVAL);
    at_mesh_close(&m);
    at_mesh_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(degrees_are_read_and_written),
        cmocka_unit_test(uneven_parts_arrive),
        cmocka_unit_test(sizes_that_disagree_are_refused),
        cmocka_unit_test(each_axis_joins_those_who_differ_there_alone),
        cmocka_unit_test(ranks_of_unlike_speed_have_shares),
        cmocka_unit_test(a_failure_on_one_axis_ends_all),
        cmocka_unit_test(one_rank_is_a_mesh_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
