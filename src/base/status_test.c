// SPDX-License-Identifier: Apache-2.0
// status_test.c - facts for every status, one message per thread, context in front.
#include "base/status.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void every_status_has_facts(void **state)
{
    (void)state;
    for (int st = 0; st < AT_STATUS_COUNT; st++) {
        const at_status_info *f = at_status_facts((at_status)st);

        assert_non_null(f->name);
        assert_true(f->http >= 200 && f->http < 600);
        assert_true(st == AT_OK ? f->exit_code == 0 : f->exit_code > 0);
        for (int k = 0; k < st; k++) {
            assert_string_not_equal(f->name, at_status_facts((at_status)k)->name);
        }
    }
    assert_int_equal(at_status_facts(AT_EUSAGE)->exit_code, 2);
    assert_int_equal(at_status_facts(AT_EWORKFLOW)->exit_code, 3);
    assert_int_equal(at_status_facts(AT_ENOTFOUND)->exit_code, 4);
    assert_int_equal(at_status_facts(AT_EFORMAT)->exit_code, 4);
    assert_int_equal(at_status_facts(AT_ENOMEM)->exit_code, 5);
    assert_int_equal(at_status_facts(AT_EDEVICE)->exit_code, 6);
    assert_int_equal(at_status_facts(AT_ECANCELLED)->exit_code, 130);
    assert_string_equal(at_status_facts((at_status)999)->name, "internal");
}

static void context_goes_in_front(void **state)
{
    at_status st = at_fail(AT_EIO, "%s: disk full", "a.png");

    (void)state;
    assert_int_equal(at_fail_context(st, "node %d: ", 7), AT_EIO);
    assert_string_equal(at_error_text(), "node 7: a.png: disk full");
    assert_int_equal(at_fail_context(AT_OK, "nothing "), AT_OK);
    assert_string_equal(at_error_text(), "node 7: a.png: disk full");
    at_fail(AT_EIO, "again: %s", at_error_text()); // the old text may be an argument
    assert_string_equal(at_error_text(), "again: node 7: a.png: disk full");
    at_error_clear();
    assert_string_equal(at_error_text(), "");
}

static void long_messages_are_cut_with_a_mark(void **state)
{
    static char big[9000];
    size_t n;

    (void)state;
    memset(big, 'x', sizeof big - 1);
    at_fail(AT_EFORMAT, "%s", big);
    n = strlen(at_error_text());
    assert_true(n > 1000 && n < sizeof big - 1);
    assert_string_equal(at_error_text() + n - 3, "...");
    at_fail_context(AT_EFORMAT, "front: ");
    assert_int_equal(strncmp(at_error_text(), "front: xxx", 10), 0);
}

static void *fail_elsewhere(void *arg)
{
    (void)arg;
    at_fail(AT_EIO, "the other thread");
    return NULL;
}

static void messages_belong_to_their_thread(void **state)
{
    pthread_t t;

    (void)state;
    at_fail(AT_EINVAL, "mine");
    assert_int_equal(pthread_create(&t, NULL, fail_elsewhere, NULL), 0);
    pthread_join(t, NULL);
    assert_string_equal(at_error_text(), "mine");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_facts),
        cmocka_unit_test(context_goes_in_front),
        cmocka_unit_test(long_messages_are_cut_with_a_mark),
        cmocka_unit_test(messages_belong_to_their_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
