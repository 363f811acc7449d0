// SPDX-License-Identifier: Apache-2.0
// cache_test.c - what each mode keeps, and that results live as long as somebody holds them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "flow/cache.h"

static at_digest key(uint64_t n)
{
    return (at_digest){n * 32, n}; // all in one place of the table: the hard case
}

static void put(at_cache *c, uint64_t n)
{
    at_result *r = at_result_new(1);

    assert_non_null(r);
    assert_int_equal(at_value_list_push(&r->slots[0], at_value_int((int64_t)n)), AT_OK);
    assert_int_equal(at_cache_put(c, key(n), r), AT_OK);
    at_result_release(r);
}

static void assert_holds(at_cache *c, uint64_t n, bool want)
{
    at_result *r = at_cache_get(c, key(n));

    assert_int_equal(r != NULL, want);
    if (r) assert_int_equal(r->slots[0].items[0].i, n);
}

static void begin(at_cache *c, uint64_t first, uint64_t last)
{
    at_digest keys[64];
    size_t n = 0;

    for (uint64_t i = first; i <= last; i++)
        keys[n++] = key(i);
    at_cache_begin(c, keys, n);
}

static void classic_keeps_what_the_new_prompt_names(void **state)
{
    at_cache *c;

    (void)state;
    assert_int_equal(at_cache_new(AT_CACHE_CLASSIC, 0, &c), AT_OK);
    begin(c, 1, 40);
    for (uint64_t i = 1; i <= 40; i++)
        put(c, i);
    begin(c, 11, 50);
    for (uint64_t i = 1; i <= 50; i++)
        assert_holds(c, i, i >= 11 && i <= 40);
    at_cache_drop(c, key(20));
    for (uint64_t i = 1; i <= 50; i++)
        assert_holds(c, i, i >= 11 && i <= 40 && i != 20);
    at_cache_free(c);
}

static void lru_drops_the_oldest_generation_first(void **state)
{
    at_cache *c;

    (void)state;
    assert_int_equal(at_cache_new(AT_CACHE_LRU, 4, &c), AT_OK);
    for (uint64_t prompt = 0; prompt < 3; prompt++) { // two results each
        begin(c, 2 * prompt, 2 * prompt + 1);
        put(c, 2 * prompt);
        put(c, 2 * prompt + 1);
    }
    begin(c, 0, 1); // six are there, four fit; 0 and 1 are in use again
    assert_holds(c, 0, true);
    assert_holds(c, 1, true);
    assert_holds(c, 2, false);
    assert_holds(c, 3, false);
    assert_holds(c, 4, true);
    at_cache_free(c);
}

static void none_starts_empty_each_time(void **state)
{
    at_cache *c;

    (void)state;
    assert_int_equal(at_cache_new(AT_CACHE_NONE, 0, &c), AT_OK);
    begin(c, 1, 2);
    put(c, 1);
    assert_holds(c, 1, true);
    begin(c, 1, 2);
    assert_holds(c, 1, false);
    at_cache_free(c);
}

static void a_held_result_outlives_its_cache(void **state)
{
    size_t before = at_mem_get_stats().live_blocks;
    at_cache *c;
    at_result *r;

    (void)state;
    assert_int_equal(at_cache_new(AT_CACHE_CLASSIC, 0, &c), AT_OK);
    begin(c, 1, 1);
    put(c, 1);
    put(c, 1); // a second result under the same key replaces the first
    r = at_cache_get(c, key(1));
    r->refs++;
    at_cache_free(c);
    assert_int_equal(r->slots[0].items[0].i, 1);
    at_result_release(r);
    assert_int_equal(at_mem_get_stats().live_blocks, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classic_keeps_what_the_new_prompt_names),
        cmocka_unit_test(lru_drops_the_oldest_generation_first),
        cmocka_unit_test(none_starts_empty_each_time),
        cmocka_unit_test(a_held_result_outlives_its_cache),
    };
    return cmocka_run_group_tests_name("flow.cache", tests, NULL, NULL);
}
