// SPDX-License-Identifier: Apache-2.0
// mailbox_test.c - order, bounds, waiting and closing.
#include "base/thread.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

static void messages_come_out_in_order_and_bounded(void **state)
{
    at_mailbox *m = NULL;
    int got;

    (void)state;
    assert_int_equal(at_mailbox_new(sizeof(int), 3, &m), AT_OK);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 3; i++)
            assert_true(at_mailbox_put(m, &i));
        assert_false(at_mailbox_put(m, &(int){9}));
        for (int i = 0; i < 3; i++) {
            assert_true(at_mailbox_get(m, &got, 0));
            assert_int_equal(got, i);
        }
        assert_false(at_mailbox_get(m, &got, 0));
    }
    at_mailbox_free(m);
    at_mailbox_free(NULL);
}

static void get_times_out(void **state)
{
    at_mailbox *m = NULL;
    double began;
    int got;

    (void)state;
    assert_int_equal(at_mailbox_new(sizeof(int), 1, &m), AT_OK);
    began = at_now();
    assert_false(at_mailbox_get(m, &got, 0.03));
    assert_true(at_now() - began >= 0.029);
    at_mailbox_free(m);
}

static void a_closed_mailbox_is_drained_then_empty(void **state)
{
    at_mailbox *m = NULL;
    int got = 0;

    (void)state;
    assert_int_equal(at_mailbox_new(sizeof(int), 4, &m), AT_OK);
    assert_true(at_mailbox_put(m, &(int){5}));
    at_mailbox_close(m);
    assert_false(at_mailbox_put(m, &(int){6}));
    assert_true(at_mailbox_get(m, &got, -1));
    assert_int_equal(got, 5);
    assert_false(at_mailbox_get(m, &got, -1)); // does not wait for ever
    at_mailbox_free(m);
}

typedef struct sums {
    at_mailbox *m;
    long sum;
} sums;

static void *drain(void *arg)
{
    sums *s = arg;
    int got;

    while (at_mailbox_get(s->m, &got, -1))
        s->sum += got;
    return NULL;
}

static void threads_share_the_messages(void **state)
{
    at_mailbox *m = NULL;
    sums s[3];
    pthread_t id[3];

    (void)state;
    assert_int_equal(at_mailbox_new(sizeof(int), 8, &m), AT_OK);
    for (int i = 0; i < 3; i++) {
        s[i] = (sums){m, 0};
        assert_int_equal(pthread_create(&id[i], NULL, drain, &s[i]), 0);
    }
    for (int i = 1; i <= 5000; i++) {
        while (!at_mailbox_put(m, &i))
            sched_yield();
    }
    at_mailbox_close(m);
    for (int i = 0; i < 3; i++)
        pthread_join(id[i], NULL);
    assert_int_equal(s[0].sum + s[1].sum + s[2].sum, 5000L * 5001 / 2);
    at_mailbox_free(m);
}

static void new_fails_cleanly(void **state)
{
    size_t live = at_mem_get_stats().live_bytes;
    at_mailbox *m = NULL;

    (void)state;
    assert_int_equal(at_mailbox_new(0, 4, &m), AT_EINVAL);
    for (uint64_t n = 1; n <= 2; n++) {
        at_mem_fail_at(n, false);
        assert_int_equal(at_mailbox_new(8, 4, &m), AT_ENOMEM);
        at_mem_fail_at(0, false);
    }
    assert_int_equal(at_mem_get_stats().live_bytes, live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_come_out_in_order_and_bounded),
        cmocka_unit_test(get_times_out),
        cmocka_unit_test(a_closed_mailbox_is_drained_then_empty),
        cmocka_unit_test(threads_share_the_messages),
        cmocka_unit_test(new_fails_cleanly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
