// SPDX-License-Identifier: Apache-2.0
// str_test.c - growth, the sticky failure, and the helpers' edges.
#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"

static void appends_add_up(void **state)
{
    at_str s = {0};
    char *taken;

    (void)state;
    assert_string_equal(at_str_text(&s), "");
    for (int i = 0; i < 500; i++) {
        at_str_append(&s, "ab");
        at_str_append_n(&s, "c\0d", 3);
        at_str_printf(&s, "%04d", i);
    }
    assert_int_equal(s.len, 500 * 9);
    assert_memory_equal(s.data + 499 * 9, "abc\0d0499", 10);
    at_str_clear(&s);
    assert_string_equal(at_str_text(&s), "");
    at_str_append(&s, "again");
    taken = at_str_take(&s);
    assert_string_equal(taken, "again");
    assert_null(s.data);
    at_free(taken);
}

static void empty_string_can_be_taken(void **state)
{
    at_str s = {0};
    char *t = at_str_take(&s);

    (void)state;
    assert_string_equal(t, "");
    at_free(t);
    at_str_append(&s, "");
    assert_non_null(s.data); // terminated once something was appended
    at_str_free(&s);
}

static void failed_growth_sticks(void **state)
{
    at_str s = {0};
    size_t live = at_mem_get_stats().live_bytes;

    (void)state;
    at_str_append(&s, "kept");
    at_mem_fail_at(1, false);
    for (int i = 0; i < 100; i++)
        at_str_append(&s, "0123456789");
    at_mem_fail_at(0, false);
    assert_true(s.failed);
    at_str_append(&s, "more");
    assert_true(strlen(at_str_text(&s)) < 80);
    assert_null(at_str_take(&s));
    assert_int_equal(at_mem_get_stats().live_bytes, live);
}

static void prefixes_suffixes_and_case(void **state)
{
    (void)state;
    assert_true(at_has_word("tune", "tune"));
    assert_true(at_has_word("flash,tune,,x", "tune"));
    assert_false(at_has_word("flash,tuned", "tune"));
    assert_false(at_has_word("", "tune"));
    assert_false(at_has_word(NULL, "tune"));
    assert_true(at_starts_with("model.vae", "model."));
    assert_true(at_starts_with("x", ""));
    assert_false(at_starts_with("mod", "model"));
    assert_true(at_ends_with("a.safetensors", ".safetensors"));
    assert_false(at_ends_with("ors", ".safetensors"));
    assert_true(at_equal_nocase("FP8_e4m3FN", "fp8_E4M3fn"));
    assert_false(at_equal_nocase("abc", "ab"));
    assert_false(at_equal_nocase("ab", "abc"));
    assert_false(at_equal_nocase("[", "{")); // 0x20 apart, but no letters
}

static int valid(const char *s)
{
    return at_utf8_valid(s, strlen(s));
}

static void utf8_is_checked_strictly(void **state)
{
    (void)state;
    assert_true(valid(""));
    assert_true(valid("plain \x7f"));
    assert_true(valid("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8e\xa8 \xed\x9f\xbf \xee\x80\x80"));
    assert_true(valid("\xf4\x8f\xbf\xbf"));
    assert_true(at_utf8_valid("a\0b", 3));
    assert_false(valid("\x80"));     // a tail without a head
    assert_false(valid("\xc0\xaf")); // overlong
    assert_false(valid("\xc1\xbf"));
    assert_false(valid("\xe0\x9f\xbf"));
    assert_false(valid("\xf0\x8f\xbf\xbf"));
    assert_false(valid("\xed\xa0\x80"));     // surrogate
    assert_false(valid("\xf4\x90\x80\x80")); // above U+10FFFF
    assert_false(valid("\xf5\x80\x80\x80"));
    assert_false(valid("\xff"));
    assert_false(valid("\xe2\x82")); // cut short
    assert_false(valid("\xe2\x28\xa1"));
    assert_false(at_utf8_valid("\xe2\x82\xac", 2));
}

static void human_bytes_pick_their_unit(void **state)
{
    char out[16];

    (void)state;
    at_human_bytes(4, out);
    assert_string_equal(out, "4.0 B");
    at_human_bytes(12.3 * 1024 * 1024, out);
    assert_string_equal(out, "12.3 MiB");
    at_human_bytes(1023.99, out);
    assert_string_equal(out, "1.0 KiB");
    at_human_bytes(1e18, out);
    assert_string_equal(out, "888.2 PiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_add_up),           cmocka_unit_test(empty_string_can_be_taken),
        cmocka_unit_test(failed_growth_sticks),     cmocka_unit_test(prefixes_suffixes_and_case),
        cmocka_unit_test(utf8_is_checked_strictly), cmocka_unit_test(human_bytes_pick_their_unit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
