// SPDX-License-Identifier: Apache-2.0
// arena_test.c - zeroed and aligned bytes, marks over block borders, the sticky failure.
#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"

static void bytes_are_zeroed_and_aligned(void **state)
{
    at_arena *a = at_arena_new(0);

    (void)state;
    for (size_t n = 0; n < 2000; n += 13) {
        unsigned char *p = at_arena_alloc(a, n);

        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xff, n);
    }
    at_arena_free(a);
    at_arena_free(NULL);
}

static void restore_goes_back_over_block_borders(void **state)
{
    at_arena *a = at_arena_new(300);
    size_t live, used;
    at_arena_mark m;
    unsigned char *p;
    char *kept = at_arena_strdup(a, "kept");

    (void)state;
    live = at_mem_get_stats().live_bytes;
    used = at_arena_bytes(a);
    m = at_arena_snapshot(a);
    for (int i = 0; i < 50; i++)
        memset(at_arena_alloc(a, 1000), 0xee, 1000);
    assert_true(at_arena_bytes(a) >= used + 50000);
    assert_true(at_mem_get_stats().live_bytes > live);
    at_arena_restore(a, m);
    assert_int_equal(at_arena_bytes(a), used);
    assert_int_equal(at_mem_get_stats().live_bytes, live);
    assert_string_equal(kept, "kept");
    p = at_arena_alloc(a, 64); // used before: zeroed again
    for (int i = 0; i < 64; i++)
        assert_int_equal(p[i], 0);
    at_arena_free(a);
}

static void printf_formats_into_the_arena(void **state)
{
    at_arena *a = at_arena_new(0);
    char *s = at_arena_printf(a, "%d/%s", 7, "seven");

    (void)state;
    assert_string_equal(s, "7/seven");
    at_arena_free(a);
}

static void out_of_memory_sticks_until_restore(void **state)
{
    size_t live = at_mem_get_stats().live_bytes;
    at_arena *a = at_arena_new(256);
    at_arena_mark m = at_arena_snapshot(a);

    (void)state;
    at_mem_fail_at(1, false);
    assert_null(at_arena_alloc(a, 10000));
    at_mem_fail_at(0, false);
    assert_null(at_arena_alloc(a, 1));
    assert_null(at_arena_strdup(a, "x"));
    at_arena_restore(a, m);
    assert_non_null(at_arena_alloc(a, 1));
    assert_null(at_arena_alloc(a, SIZE_MAX - 4));
    at_arena_free(a);
    assert_int_equal(at_mem_get_stats().live_bytes, live);
}

static void new_fails_cleanly(void **state)
{
    size_t live = at_mem_get_stats().live_bytes;

    (void)state;
    for (uint64_t n = 1; n <= 2; n++) {
        at_mem_fail_at(n, false);
        assert_null(at_arena_new(100));
        at_mem_fail_at(0, false);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_zeroed_and_aligned),
        cmocka_unit_test(restore_goes_back_over_block_borders),
        cmocka_unit_test(printf_formats_into_the_arena),
        cmocka_unit_test(out_of_memory_sticks_until_restore),
        cmocka_unit_test(new_fails_cleanly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
