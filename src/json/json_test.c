// SPDX-License-Identifier: Apache-2.0
// json_test.c - JSON as Python's json module reads and writes it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "json/json.h"

static void assert_dumps(const char *text, unsigned flags, const char *want)
{
    json_t *v;
    char *got;

    if (at_json_load("t", text, strlen(text), &v) != AT_OK)
        fail_msg("%s: %s", text, at_error_text());
    got = at_json_dump(v, flags);
    assert_string_equal(got, want);
    at_free(got);
    json_decref(v);
}

static void numbers_print_as_python_prints_them(void **state)
{
    static const char *const rows[][2] = {
        {"0", "0"},
        {"-0", "0"},
        {"-0.0", "-0.0"},
        {"1.0", "1.0"},
        {"0.1", "0.1"},
        {"1e5", "100000.0"},
        {"1e15", "1000000000000000.0"},
        {"1e16", "1e+16"},
        {"123456789012345678", "123456789012345678"},
        {"1.5e300", "1.5e+300"},
        {"0.0001", "0.0001"},
        {"0.00001", "1e-05"},
        {"0.00012345", "0.00012345"},
        {"5e-324", "5e-324"},
        {"1.7976931348623157e308", "1.7976931348623157e+308"},
        {"0.30000000000000004", "0.30000000000000004"},
        {"1e400", "Infinity"},
        {"-1E400", "-Infinity"},
        {"NaN", "NaN"},
        {"-Infinity", "-Infinity"},
        {"9223372036854775807", "9223372036854775807"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"9223372036854775808", "9223372036854775808"},
        {"18446744073709551615", "18446744073709551615"},
        {"-100000000000000000000000", "-100000000000000000000000"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_dumps(rows[i][0], 0, rows[i][1]);
}

static void float_repr_reads_back_the_same(void **state)
{
    uint64_t bits = 88172645463325252u;
    char text[32];
    double v;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        memcpy(&v, &bits, sizeof v);
        if (v != v) continue;
        at_float_repr(v, text);
        assert_true(strlen(text) < 26);
        assert_true(strtod(text, NULL) == v);
    }
}

static void text_and_order_survive(void **state)
{
    (void)state;
    assert_dumps("{\"b\": 1, \"a\": [true, false, null], \"b\": 2}", 0,
                 "{\"b\": 2, \"a\": [true, false, null]}");
    assert_dumps("{\"b\": 1, \"a\": {}}", AT_JSON_SORTED | AT_JSON_COMPACT, "{\"a\":{},\"b\":1}");
    assert_dumps("\"\\u00e9\\ud83d\\ude00\\n\\/\\u007f\"", 0,
                 "\"\\u00e9\\ud83d\\ude00\\n/\\u007f\"");
    assert_dumps("\"\\u00e9\\ud83d\\ude00\\n\"", AT_JSON_UTF8, "\"\xc3\xa9\xf0\x9f\x98\x80\\n\"");
    assert_dumps("\"\\ud800x\"", AT_JSON_UTF8, "\"\xef\xbf\xbdx\""); // a lone surrogate
    assert_dumps("\xef\xbb\xbf [ ] ", 0, "[]");
}

static void bad_text_is_refused_with_its_place(void **state)
{
    static const char *const rows[][2] = {
        {"", "expecting value: line 1 column 1 (byte 0 of 0)"},
        {"{\"a\":\n\n  01}", "expecting ',' or '}': line 3 column 4 (byte 10 of 12)"},
        {"[1,]", "expecting value: line 1 column 4 (byte 3 of 4)"},
        {"{\"a\": 1,}", "expecting property name in double quotes: line 1 column 9 (byte 8 of 9)"},
        {"{a: 1}", "expecting property name in double quotes: line 1 column 2 (byte 1 of 6)"},
        {"[1 2]", "expecting ',' or ']': line 1 column 4 (byte 3 of 5)"},
        {"\"abc", "unterminated string: line 1 column 1 (byte 0 of 4)"},
        {"\"a\nb\"", "control character in a string: line 1 column 3 (byte 2 of 5)"},
        {"\"\\x\"", "invalid \\escape: line 1 column 2 (byte 1 of 4)"},
        {"\"\\u12g4\"", "invalid \\uXXXX escape: line 1 column 2 (byte 1 of 8)"},
        {"\"\\u0000\"",
         "a NUL character in a string is not supported: line 1 column 2 (byte 1 of 8)"},
        {"\"\xff\"", "text is not UTF-8: line 1 column 2 (byte 1 of 3)"},
        {"\"\xc3\xa9\" x", "extra data: line 1 column 5 (byte 5 of 6)"},
        {"nul", "expecting value: line 1 column 1 (byte 0 of 3)"},
        {"-", "expecting value: line 1 column 1 (byte 0 of 1)"},
        {"1.", "extra data: line 1 column 2 (byte 1 of 2)"},
    };
    char want[160];
    json_t *v;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(at_json_load("t", rows[i][0], strlen(rows[i][0]), &v), AT_EWORKFLOW);
        assert_null(v);
        snprintf(want, sizeof want, "t: not valid JSON: %s", rows[i][1]);
        assert_string_equal(at_error_text(), want);
    }
}

static void every_prefix_of_a_text_is_refused_or_read(void **state)
{
    static const char text[] =
        "{\"a\": [1.5e3, \"\\ud83d\\ude00\xc3\xa9\", {\"b\": NaN}], \"c\": -12345678901234567890}";
    json_t *v;

    (void)state;
    for (size_t n = 0; n < sizeof text - 1; n++) {
        char *copy = at_alloc(n); // exact length: a sanitizer sees any read beyond
        memcpy(copy, text, n);
        assert_int_equal(at_json_load("t", copy, n, &v), AT_EWORKFLOW);
        at_free(copy);
    }
    assert_int_equal(at_json_load("t", text, sizeof text - 1, &v), AT_OK);
    json_decref(v);
}

static void depth_and_digits_are_bounded(void **state)
{
    char text[2 * AT_JSON_MAX_DEPTH + 3], digits[AT_JSON_MAX_DIGITS + 2];
    json_t *v;

    (void)state;
    memset(text, '[', AT_JSON_MAX_DEPTH + 1);
    memset(text + AT_JSON_MAX_DEPTH + 1, ']', AT_JSON_MAX_DEPTH + 1);
    assert_int_equal(at_json_load("t", text, 2 * AT_JSON_MAX_DEPTH + 2, &v), AT_EWORKFLOW);
    assert_int_equal(at_json_load("t", text + 1, 2 * AT_JSON_MAX_DEPTH, &v), AT_OK);
    json_decref(v);
    memset(digits, '7', sizeof digits);
    assert_int_equal(at_json_load("t", digits, AT_JSON_MAX_DIGITS + 1, &v), AT_EWORKFLOW);
    assert_int_equal(at_json_load("t", digits, AT_JSON_MAX_DIGITS, &v), AT_OK);
    json_decref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_print_as_python_prints_them),
        cmocka_unit_test(float_repr_reads_back_the_same),
        cmocka_unit_test(text_and_order_survive),
        cmocka_unit_test(bad_text_is_refused_with_its_place),
        cmocka_unit_test(every_prefix_of_a_text_is_refused_or_read),
        cmocka_unit_test(depth_and_digits_are_bounded),
    };
    return cmocka_run_group_tests_name("flow.json", tests, NULL, NULL);
}
