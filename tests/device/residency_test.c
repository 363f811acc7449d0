// SPDX-License-Identifier: Apache-2.0
// residency_test.c - who stays and who goes, played on a device that holds so many weights.
#include "cuda/residency.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

enum { N = 100, U = AT_RESIDENT_SMALL }; // U: the least that counts
static at_resident all[N];
static bool here[N];
static at_residency r;

static void begin(void)
{
    memset(all, 0, sizeof all);
    memset(here, 0, sizeof here);
    r = (at_residency){0};
}

// Weight i is wanted while at most `room` fit; true if it had to be brought.
static bool want(int i, size_t room, unsigned long epoch)
{
    if (here[i]) {
        at_residency_touch(&r, &all[i], epoch);
        return false;
    }
    while (r.bytes + U > room * U) {
        at_resident *x = at_residency_victim(&r, epoch, AT_GO_IDLE, 0);
        if (!x) x = at_residency_victim(&r, epoch, AT_GO_USED, 0);
        if (!x) break;
        at_residency_remove(&r, x);
        here[x - all] = false;
    }
    if (!all[i].bytes) all[i].bytes = U;
    at_residency_add(&r, &all[i], epoch);
    here[i] = true;
    return true;
}

static int circle(size_t room, unsigned long epoch)
{
    int brought = 0;
    for (int i = 0; i < N; i++)
        brought += want(i, room, epoch);
    return brought;
}

static void what_fits_stays(void **state)
{
    (void)state;
    begin();
    assert_int_equal(circle(N, 1), N);
    for (int step = 0; step < 5; step++)
        assert_int_equal(circle(N, 1), 0);
    assert_int_equal(r.bytes, N * U);
}

static void a_part_of_a_circle_that_does_not_fit_stays(void **state)
{
    (void)state;
    begin();
    assert_int_equal(circle(60, 1), N);
    for (int step = 0; step < 5; step++) {
        int brought = circle(60, 1);
        // 40 do not fit, and the window of the call in preparation moves through the rest.
        assert_in_range(brought, N - 60, N - 60 + AT_RESIDENT_NOW + 4);
        assert_in_range(r.bytes, U, 60 * U);
    }
}

static void what_is_idle_goes_first_and_the_longest_idle_before(void **state)
{
    (void)state;
    begin();
    for (int i = 0; i < 10; i++)
        want(i, N, 1);
    for (int i = 10; i < 20; i++)
        want(i, N, 2);
    for (int i = 20; i < 50; i++)
        want(i, N, 3);
    want(5, N, 3); // wanted again: no longer idle
    at_resident *x = at_residency_victim(&r, 3, AT_GO_IDLE, 0);
    assert_ptr_equal(x, &all[0]);
    for (int i = 50; i < 69; i++)
        want(i, 50, 3);
    for (int i = 0; i < 20; i++)
        assert_int_equal(here[i], i == 5);
    assert_null(at_residency_victim(&r, 3, AT_GO_IDLE, 0));
}

static void the_call_in_preparation_and_what_is_busy_stay(void **state)
{
    (void)state;
    begin();
    for (int i = 0; i < AT_RESIDENT_NOW; i++)
        want(i, N, 1);
    assert_null(at_residency_victim(&r, 1, AT_GO_USED, 0));
    want(40, N, 1);
    assert_ptr_equal(at_residency_victim(&r, 1, AT_GO_USED, 0), &all[0]);
    all[0].busy = true;
    assert_null(at_residency_victim(&r, 1, AT_GO_USED, 0));
    assert_null(at_residency_victim(&r, 1, AT_GO_IDLE, 0));
    assert_ptr_equal(at_residency_victim(&r, 2, AT_GO_IDLE, 0), &all[1]);
}

static void however_much_comes_ahead_the_call_in_preparation_stays(void **state)
{
    (void)state;
    begin();
    want(0, N, 1);
    for (int i = 1; i < 90; i++) {
        all[i].wanted = true;
        want(i, N, 1);
    }
    assert_null(at_residency_victim(&r, 1, AT_GO_USED, 0));
    for (int i = 1; i < AT_RESIDENT_NOW; i++)
        want(i, N, 1);
    assert_null(at_residency_victim(&r, 1, AT_GO_USED, 0));
    want(50, N, 1);
    assert_ptr_equal(at_residency_victim(&r, 1, AT_GO_USED, 0), &all[0]);
}

static void vectors_stay_while_their_model_works(void **state)
{
    (void)state;
    begin();
    for (int i = 0; i < 40; i++) {
        all[i].bytes = i == 3 || i == 5 ? U : 100;
        want(i, N, 1);
    }
    assert_ptr_equal(at_residency_victim(&r, 1, AT_GO_USED, 0), &all[5]);
    assert_null(at_residency_victim(&r, 1, AT_GO_USED, 100));
    assert_int_equal(at_residency_idle(&r, 1), 0);
    assert_int_equal(at_residency_idle(&r, 2), 2 * U + 3800);
    // Idle ones go by age, whatever their size.
    for (int i = 0; i < 6; i++) {
        assert_ptr_equal(at_residency_victim(&r, 2, AT_GO_IDLE, 0), &all[i]);
        at_residency_remove(&r, &all[i]);
    }
    all[6].busy = true;
    assert_ptr_equal(at_residency_victim(&r, 2, AT_GO_IDLE, 100), &all[7]);
    at_residency_touch(&r, &all[8], 2);
    assert_null(at_residency_victim(&r, 2, AT_GO_IDLE, U));
}

static void removing_any_leaves_the_others(void **state)
{
    (void)state;
    begin();
    for (int i = 0; i < 5; i++)
        want(i, N, 1);
    at_residency_remove(&r, &all[2]);
    at_residency_remove(&r, &all[4]);
    at_residency_remove(&r, &all[0]);
    assert_int_equal(r.bytes, 2 * U);
    assert_ptr_equal(r.large.newest, &all[3]);
    assert_ptr_equal(r.large.oldest, &all[1]);
    at_residency_remove(&r, &all[1]);
    at_residency_remove(&r, &all[3]);
    assert_null(r.large.newest);
    assert_null(r.large.oldest);
    assert_int_equal(r.bytes, 0);
}

static void what_was_brought_ahead_goes_last(void **state)
{
    (void)state;
    begin();
    for (int i = 0; i < 40; i++) {
        want(i, N, 1);
        all[i].bytes = U + (size_t)(i % 2);
        all[i].wanted = i >= 10;
    }
    r.bytes = 40 * U + 20;
    assert_ptr_equal(at_residency_victim(&r, 1, AT_GO_USED, 0), &all[9]);
    assert_ptr_equal(at_residency_victim(&r, 1, AT_GO_USED, U), &all[8]);
    assert_null(at_residency_victim(&r, 1, AT_GO_USED, U + 2));
    for (int i = 0; i < 10; i++)
        all[i].busy = true;
    assert_null(at_residency_victim(&r, 1, AT_GO_USED, 0));
    assert_ptr_equal(at_residency_victim(&r, 1, AT_GO_WANTED, 0), &all[23]);
    assert_ptr_equal(at_residency_victim(&r, 1, AT_GO_WANTED, U), &all[22]);
    assert_ptr_equal(at_residency_victim(&r, 2, AT_GO_IDLE, 0), &all[10]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fits_stays),
        cmocka_unit_test(a_part_of_a_circle_that_does_not_fit_stays),
        cmocka_unit_test(what_is_idle_goes_first_and_the_longest_idle_before),
        cmocka_unit_test(the_call_in_preparation_and_what_is_busy_stay),
        cmocka_unit_test(what_was_brought_ahead_goes_last),
        cmocka_unit_test(however_much_comes_ahead_the_call_in_preparation_stays),
        cmocka_unit_test(vectors_stay_while_their_model_works),
        cmocka_unit_test(removing_any_leaves_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
