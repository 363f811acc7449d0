// SPDX-License-Identifier: Apache-2.0
// brownian_test.c - unit.sample.brownian: torchsde's tree to the last bit, in any order of
// questions. The golden increments are torchsde 0.2.6 on torch 2.13, divided by the IEEE square
// root: torch's own sqrt of a scalar is one ulp off on some builds.
#include "sample/golden_test.h"

#include <math.h>

#include "sample/noise.h"

static at_brownian *tree_of(const json_t *row)
{
    at_brownian *t = NULL;
    assert_int_equal(at_brownian_new(golden_seed(row), golden_number(row, "t0"),
                                     golden_number(row, "t1"), (int64_t)golden_number(row, "n"),
                                     &t),
                     AT_OK);
    return t;
}

static void steps_match_torchsde_to_the_last_bit(void **state)
{
    json_t *rows = golden_load("brownian.json"), *row;
    size_t i;
    (void)state;

    json_array_foreach(rows, i, row)
    {
        size_t n = (size_t)golden_number(row, "n");
        float *x = malloc(n * sizeof *x), *again = malloc(n * sizeof *x);
        at_brownian *t = tree_of(row);
        double s0 = golden_number(row, "s0"), s1 = golden_number(row, "s1");
        char hex[65];
        assert_int_equal(at_brownian_step(t, s0, s1, x), AT_OK);
        golden_sha256(x, n * sizeof *x, hex);
        assert_string_equal(hex, json_string_value(json_object_get(row, "sha256")));
        // What was asked in between does not matter; the sign follows the direction.
        assert_int_equal(at_brownian_step(t, golden_number(row, "t1"), 0.1, again), AT_OK);
        assert_int_equal(at_brownian_step(t, s0, s1, again), AT_OK);
        assert_memory_equal(x, again, n * sizeof *x);
        assert_int_equal(at_brownian_step(t, s1, s0, again), AT_OK);
        for (size_t k = 0; k < n; k++)
            assert_true(again[k] == -x[k]);
        at_brownian_free(t);
        free(x);
        free(again);
    }
    assert_true(i >= 12);
    json_decref(rows);
}

static void empty_steps_give_zeros(void **state)
{
    at_brownian *t = NULL;
    float x[3] = {1, 1, 1};
    (void)state;

    assert_int_equal(at_brownian_new(1, 0.5, 0.5, 3, &t),
                     AT_OK); // one step: the interval is a point
    assert_int_equal(at_brownian_step(t, 0.5, 0.5, x), AT_OK);
    for (int i = 0; i < 3; i++)
        assert_true(x[i] == 0);
    at_brownian_free(t);
    at_brownian_free(NULL);
}

static void bad_intervals_are_refused(void **state)
{
    at_brownian *t = NULL;
    (void)state;

    assert_int_equal(at_brownian_new(1, 0, 1, 3, &t), AT_EINVAL);
    assert_int_equal(at_brownian_new(1, 2, 1, 3, &t), AT_EINVAL);
    assert_int_equal(at_brownian_new(1, NAN, 1, 3, &t), AT_EINVAL);
    assert_int_equal(at_brownian_new(1, 0.1, INFINITY, 3, &t), AT_EINVAL);
    assert_int_equal(at_brownian_new(1, 0.1, 1, 0, &t), AT_EINVAL);
    assert_null(t);
}

static void lost_memory_is_reported_and_nothing_leaks(void **state)
{
    size_t live = at_mem_get_stats().live_bytes;
    float x[20];
    bool hit = true;
    (void)state;

    for (uint64_t n = 1; hit; n++) {
        at_brownian *t = NULL;
        at_mem_fail_at(n, false);
        at_status st = at_brownian_new(3, 0.1, 10, 20, &t);
        if (st == AT_OK) st = at_brownian_step(t, 9, 0.3, x);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
        at_brownian_free(t);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_match_torchsde_to_the_last_bit),
        cmocka_unit_test(empty_steps_give_zeros),
        cmocka_unit_test(bad_intervals_are_refused),
        cmocka_unit_test(lost_memory_is_reported_and_nothing_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
