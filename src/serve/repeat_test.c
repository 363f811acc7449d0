// SPDX-License-Identifier: Apache-2.0
// repeat_test.c - a member is found only where it is certain, and a known prompt by its bytes alone.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "serve/repeat.h"

static const char *member(const char *text)
{
    static char found[256];
    size_t n = strlen(text), from = 0, to = 0;
    char *exact = at_alloc(n); // no byte behind the end is there to be read
    memcpy(exact, text, n);
    bool good = at_repeats_member(exact, n, "prompt", &from, &to);
    snprintf(found, sizeof found, "%.*s", (int)(to - from), exact + from);
    at_free(exact);
    return good ? found : NULL;
}

static void a_member_is_found_at_the_top(void **state)
{
    (void)state;
    assert_string_equal(member("{\"prompt\": {\"1\": [1, {\"a\": \"}]\\\"\"}]}, \"x\": 1}"),
                        "{\"1\": [1, {\"a\": \"}]\\\"\"}]}");
    assert_string_equal(member(" {\"x\":{\"prompt\":1},\"prompt\":null }"), "null");
    assert_string_equal(member("{\"a\": \"prompt\", \"prompt\" : -1.5e3\n}"), "-1.5e3");
    assert_string_equal(member("{\"prompt\": \"a\\\\\"}"), "\"a\\\\\"");
}

static void what_is_not_certain_is_left_alone(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "{}",
        "{\"x\": 1}",
        "{\"prompt\": 1, \"prompt\": 2}",       // the last one counts
        "{\"prompt\": 1, \"\\u0070rompt\": 2}", // the same key, written otherwise
        "{\"prompt\": {\"a\": 1]}",             // brackets that do not match
        "{\"prompt\": {\"a\": 1}",              // no end
        "{\"prompt\": \"a",                     // no end
        "{\"prompt\": \"a\\",                   // no end
        "{\"prompt\" 1}",                       // no colon
        "{\"prompt\": }",                       // no value
        "{\"x\": 1, \"prompt\": 2",             // no end
        "{\"x\" {\"prompt\": 2}}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_null(member(texts[i]));
    char deep[400] = "{\"prompt\": ";
    memset(deep + strlen(deep), '[', 200);
    assert_null(member(deep));
}

static void equal_bytes_are_known(void **state)
{
    (void)state;
    at_repeats *k = at_repeats_new();
    char text[32];
    assert_non_null(k);
    for (int i = 0; i < 40; i++) {
        snprintf(text, sizeof text, "{\"color\": %d}", i);
        assert_null(at_repeats_find(k, text, strlen(text)));
        at_repeats_keep(k, text, strlen(text), &(at_repeat_of){text, "[\"9\"]", "{}"});
        const at_repeat_of *got = at_repeats_find(k, text, strlen(text));
        assert_non_null(got);
        assert_string_equal(got->prompt, text);
        assert_string_equal(got->targets, "[\"9\"]");
        assert_string_equal(got->node_errors, "{}");
        assert_null(at_repeats_find(k, text, strlen(text) - 1));
        text[2] = 'C';
        assert_null(at_repeats_find(k, text, strlen(text)));
    }
    assert_null(at_repeats_find(k, "{\"color\": 0}", 12)); // the oldest went
    assert_null(at_repeats_find(NULL, "{\"color\": 39}", 13));
    size_t n = 1 << 20;
    char *large = at_calloc(1, n + 1);
    memset(large, 'a', n);
    at_repeats_keep(k, large, n, &(at_repeat_of){large, "[]", "{}"});
    assert_null(at_repeats_find(k, large, n)); // not worth its memory
    at_free(large);
    at_repeats_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_member_is_found_at_the_top),
        cmocka_unit_test(what_is_not_certain_is_left_alone),
        cmocka_unit_test(equal_bytes_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
