// SPDX-License-Identifier: Apache-2.0
// mem_test.c - alignment, counters, overflow, and faults that hit the allocation they were armed for.
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static int aligned(const void *p)
{
    return (uintptr_t)p % AT_ALIGN == 0;
}

static void blocks_are_aligned_and_counted(void **state)
{
    at_mem_stats before = at_mem_get_stats();
    void *p[40];
    size_t sum = 0;

    (void)state;
    for (size_t i = 0; i < 40; i++) {
        size_t n = i * i * 37;

        p[i] = at_alloc(n);
        assert_non_null(p[i]);
        assert_true(aligned(p[i]));
        memset(p[i], 0xaa, n);
        sum += n;
    }
    assert_int_equal(at_mem_get_stats().live_bytes - before.live_bytes, sum);
    assert_int_equal(at_mem_get_stats().live_blocks - before.live_blocks, 40);
    assert_int_equal(at_mem_get_stats().allocations - before.allocations, 40);
    for (size_t i = 0; i < 40; i++)
        at_free(p[i]);
    at_free(NULL);
    assert_int_equal(at_mem_get_stats().live_bytes, before.live_bytes);
    assert_int_equal(at_mem_get_stats().live_blocks, before.live_blocks);
}

static void calloc_gives_zeros_and_refuses_overflow(void **state)
{
    unsigned char *p = at_calloc(1000, 7);

    (void)state;
    assert_true(aligned(p));
    for (int i = 0; i < 7000; i++)
        assert_int_equal(p[i], 0);
    at_free(p);
    assert_null(at_calloc(SIZE_MAX / 2, 3));
    assert_null(at_calloc(1, SIZE_MAX - 8));
    assert_null(at_alloc(SIZE_MAX));
}

static void realloc_keeps_bytes_alignment_and_count(void **state)
{
    at_mem_stats before = at_mem_get_stats();
    unsigned char *p = NULL;
    size_t have = 0;

    (void)state;
    for (size_t n = 1; n < 3000000; n = n * 3 + 5) {
        p = at_realloc(p, n);
        assert_true(aligned(p));
        for (size_t i = 0; i < have; i++)
            assert_int_equal(p[i], (unsigned char)(i * 31));
        for (size_t i = have; i < n; i++)
            p[i] = (unsigned char)(i * 31);
        have = n;
        assert_int_equal(at_mem_get_stats().live_bytes - before.live_bytes, n);
    }
    p = at_realloc(p, 10);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(p[i], (unsigned char)(i * 31));
    assert_int_equal(at_mem_get_stats().live_bytes - before.live_bytes, 10);
    at_free(p);
    assert_int_equal(at_mem_get_stats().live_blocks, before.live_blocks);
}

static void peak_is_the_highest_since_reset(void **state)
{
    size_t start;
    void *a, *b;

    (void)state;
    at_mem_reset_peak();
    start = at_mem_get_stats().peak_bytes;
    a = at_alloc(1000);
    b = at_alloc(500);
    at_free(a);
    assert_int_equal(at_mem_get_stats().peak_bytes - start, 1500);
    at_mem_reset_peak();
    assert_int_equal(at_mem_get_stats().peak_bytes - start, 500);
    at_free(b);
}

static void single_fault_hits_only_its_allocation(void **state)
{
    void *p[3];

    (void)state;
    at_mem_fail_at(2, false);
    for (int i = 0; i < 3; i++)
        p[i] = at_alloc(8);
    assert_true(at_mem_fault_hit());
    at_mem_fail_at(0, false);
    assert_non_null(p[0]);
    assert_null(p[1]);
    assert_non_null(p[2]);
    assert_false(at_mem_fault_hit());
    at_free(p[0]);
    at_free(p[2]);
}

static void sticky_fault_hits_all_later_ones(void **state)
{
    void *p[4];

    (void)state;
    uint64_t failures = at_mem_get_stats().failures;
    at_mem_fail_at(2, true);
    p[0] = at_calloc(1, 8);
    p[1] = at_calloc(1, 8);
    p[2] = at_realloc(p[0], 99);
    p[3] = at_strdup("x");
    at_mem_fail_at(0, false);
    assert_non_null(p[0]); // still valid: the failed growth left it alone
    assert_null(p[1]);
    assert_null(p[2]);
    assert_null(p[3]);
    assert_int_equal(at_mem_get_stats().failures - failures, 3);
    at_free(p[0]);
}

static void an_armed_fault_that_is_not_reached_is_not_hit(void **state)
{
    void *p;

    (void)state;
    at_mem_fail_at(2, false);
    p = at_alloc(1);
    assert_false(at_mem_fault_hit());
    at_mem_fail_at(0, false);
    at_free(p);
}

static void strings_are_copied_cut_and_formatted(void **state)
{
    char *a = at_strdup("tree"), *b = at_strndup("treehouse", 4), *c = at_strndup("ab", 9);
    char *d = at_strprintf("%s-%03d", a, 7);

    (void)state;
    assert_string_equal(a, "tree");
    assert_string_equal(b, "tree");
    assert_string_equal(c, "ab");
    assert_string_equal(d, "tree-007");
    at_free(a);
    at_free(b);
    at_free(c);
    at_free(d);
}

static void checked_sums_refuse_overflow(void **state)
{
    size_t r = 5;

    (void)state;
    assert_false(at_mul_size(SIZE_MAX, 2, &r));
    assert_false(at_add_size(SIZE_MAX, 1, &r));
    assert_int_equal(r, 5);
    assert_true(at_mul_size(6, 7, &r));
    assert_int_equal(r, 42);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_aligned_and_counted),
        cmocka_unit_test(calloc_gives_zeros_and_refuses_overflow),
        cmocka_unit_test(realloc_keeps_bytes_alignment_and_count),
        cmocka_unit_test(peak_is_the_highest_since_reset),
        cmocka_unit_test(single_fault_hits_only_its_allocation),
        cmocka_unit_test(sticky_fault_hits_all_later_ones),
        cmocka_unit_test(an_armed_fault_that_is_not_reached_is_not_hit),
        cmocka_unit_test(strings_are_copied_cut_and_formatted),
        cmocka_unit_test(checked_sums_refuse_overflow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
