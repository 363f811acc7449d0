// SPDX-License-Identifier: Apache-2.0
// thread_test.c - every index once, ranges as long as asked for, nesting, several callers at once.
#include "base/thread.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MOST = 5000 };

typedef struct touched {
    atomic_uchar count[MOST];
    int64_t n, grain;
    atomic_int calls, short_ranges, bad;
} touched;

static void touch(void *ctx, int64_t begin, int64_t end)
{
    touched *t = ctx;

    atomic_fetch_add(&t->calls, 1);
    if (begin >= end || begin < 0 || end > t->n) atomic_fetch_add(&t->bad, 1);
    if (end - begin < t->grain && end != t->n) atomic_fetch_add(&t->short_ranges, 1);
    for (int64_t i = begin; i < end; i++)
        atomic_fetch_add(&t->count[i], 1);
}

static void cover(int64_t n, int64_t grain)
{
    touched *t = calloc(1, sizeof *t);

    t->n = n;
    t->grain = grain;
    at_parallel_for(n, grain, touch, t);
    for (int64_t i = 0; i < n; i++)
        assert_int_equal(t->count[i], 1);
    assert_int_equal(t->bad, 0);
    assert_int_equal(t->short_ranges, 0);
    free(t);
}

static void every_index_is_covered_once(void **state)
{
    static const int64_t sizes[] = {0, 1, 2, 3, 7, 64, 100, 1023, MOST};
    static const int64_t grains[] = {-3, 0, 1, 2, 10, 64, 999, 100000};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t k = 0; k < sizeof grains / sizeof *grains; k++)
            cover(sizes[i], grains[k]);
    }
}

typedef struct slow_loop {
    atomic_bool cancel;
    atomic_int done;
} slow_loop;

static void slow(void *ctx, int64_t begin, int64_t end)
{
    slow_loop *s = ctx;
    for (int64_t i = begin; i < end && !at_cancelled(); i++)
        if (atomic_fetch_add(&s->done, 1) == 100) atomic_store(&s->cancel, true);
}

static void a_loop_that_is_not_wanted_ends(void **state)
{
    slow_loop s = {0};
    (void)state;
    assert_false(at_cancelled());
    at_parallel_for(1 << 20, 1, slow, &s); // nobody watches the flag
    assert_int_equal(s.done, 1 << 20);
    assert_true(s.cancel);
    s.cancel = false;
    s.done = 0;
    at_threads_watch(&s.cancel);
    at_parallel_for(1 << 20, 1, slow, &s);
    assert_true(at_cancelled());
    assert_true(s.done > 100 && s.done < 1 << 19);
    at_threads_watch(NULL);
    s.done = 0;
    at_parallel_for(1 << 20, 1, slow, &s); // nor does a worker remember it
    assert_int_equal(s.done, 1 << 20);
}

static void many_small_loops_do_not_hang(void **state)
{
    touched *t = calloc(1, sizeof *t);

    (void)state;
    t->n = 16;
    for (int i = 0; i < 20000; i++)
        at_parallel_for(16, 1, touch, t);
    for (int i = 0; i < 16; i++)
        assert_int_equal(t->count[i], (unsigned char)20000);
    assert_int_equal(t->bad, 0);
    free(t);
}

typedef struct nest {
    atomic_long sum;
    atomic_int pieces;
} nest;

static void inner(void *ctx, int64_t begin, int64_t end)
{
    nest *n = ctx;

    atomic_fetch_add(&n->pieces, 1);
    atomic_fetch_add(&n->sum, (long)(end - begin));
}

static void outer(void *ctx, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++)
        at_parallel_for(100, 1, inner, ctx);
}

static void nested_loops_run_serially(void **state)
{
    nest n = {0};

    (void)state;
    at_parallel_for(64, 1, outer, &n);
    assert_int_equal(n.sum, 6400);
    assert_int_equal(n.pieces, 64); // one range each
}

static void *rank_main(void *arg)
{
    touched *t = arg;

    for (int i = 0; i < 2000; i++)
        at_parallel_for(t->n, 3, touch, t);
    return NULL;
}

static void several_callers_never_wait_for_each_other(void **state)
{
    touched *t[4];
    pthread_t id[4];

    (void)state;
    for (int i = 0; i < 4; i++) {
        t[i] = calloc(1, sizeof *t[i]);
        t[i]->n = 40;
        t[i]->grain = 3;
        assert_int_equal(pthread_create(&id[i], NULL, rank_main, t[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(id[i], NULL);
        for (int k = 0; k < 40; k++)
            assert_int_equal(t[i]->count[k], (unsigned char)2000);
        assert_int_equal(t[i]->bad, 0);
        free(t[i]);
    }
}

static atomic_int g_here;

// Each range waits until `want` ranges run at the same time.
static void wait_for_company(void *ctx, int64_t begin, int64_t end)
{
    int want = *(int *)ctx;

    (void)begin;
    (void)end;
    atomic_fetch_add(&g_here, 1);
    while (atomic_load(&g_here) < want)
        sched_yield();
}

static void ranges_run_at_the_same_time(void **state)
{
    int want = at_threads() < 2 ? 1 : 2;

    (void)state;
    at_parallel_for(want, 1, wait_for_company, &want);
    assert_int_equal(g_here, want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_is_covered_once),
        cmocka_unit_test(many_small_loops_do_not_hang),
        cmocka_unit_test(a_loop_that_is_not_wanted_ends),
        cmocka_unit_test(nested_loops_run_serially),
        cmocka_unit_test(several_callers_never_wait_for_each_other),
        cmocka_unit_test(ranges_run_at_the_same_time),
    };

    at_threads_set(4); // also on a machine with fewer cores
    return cmocka_run_group_tests(tests, NULL, NULL);
}
