// SPDX-License-Identifier: Apache-2.0
// speeds_test.c - shares that are asked for, that follow from rates, and that are measured once.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/speeds.h"

static void numbers_for_each_rank(void **state)
{
    static const char *const bad[] = {"", "3", "3,", "3,0", "3,101", "3,2,1", "3:2", "a,b", "3,2 "};
    uint8_t s[AT_SHARE_RANKS];

    (void)state;
    assert_int_equal(at_speeds_parse("3,2", 2, s), AT_OK);
    assert_true(s[0] == 3 && s[1] == 2 && s[2] == 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(at_speeds_parse(bad[i], 2, s), AT_EUSAGE);
        assert_int_equal(s[0], 0);
    }
}

static void rates_become_shares(void **state)
{
    uint8_t s[AT_SHARE_RANKS];

    (void)state;
    at_shares_of_rates((double[]){165e12, 71e12}, 2, s);
    assert_true(s[0] == 100 && s[1] == 43);
    at_shares_of_rates((double[]){1, 400, 200}, 3, s);
    assert_true(s[0] == 1 && s[1] == 100 && s[2] == 50);
    at_shares_of_rates((double[]){100, 104}, 2, s); // alike
    assert_int_equal(s[0], 0);
    at_shares_of_rates((double[]){100, 0}, 2, s); // one is not known
    assert_int_equal(s[0], 0);
}

static void runs_are_cut_where_the_sums_say(void **state)
{
    int share[AT_SHARE_RANKS] = {3, 1, 0};
    int64_t first, length;

    (void)state;
    for (int64_t total = 0; total < 50; total++) {
        int64_t at = 0;

        for (int r = 0; r < 2; r++) {
            at_share_of(share, total, r, 2, &first, &length);
            assert_true(first == at && length >= 0);
            at += length;
            assert_true(2 * length * 4 >= 2 * total * share[r] - 8 &&
                        2 * length * 4 <= 2 * total * share[r] + 8);
        }
        assert_int_equal(at, total);
    }
    share[0] = 0; // equal ones
    at_share_of(share, 7, 0, 3, &first, &length);
    assert_true(first == 0 && length == 3);
    at_share_of(share, 7, 2, 3, &first, &length);
    assert_true(first == 5 && length == 2);
}

// Devices that cannot be measured here: their rates stand in the cache, as an earlier process left them.
static void what_was_measured_is_kept(void **state)
{
    static at_device a = {.name = "x:0", .description = "quick"};
    static at_device b = {.name = "x:1", .description = "slow"};
    at_device *both[] = {&a, &b, &a}, *alike[] = {&a, &a};
    char folder[] = "/tmp/at_speeds_XXXXXX", path[256];
    uint8_t s[AT_SHARE_RANKS];

    (void)state;
    at_speeds_measure(alike, 2, s); // not even looked at
    assert_int_equal(s[0], 0);
    assert_non_null(mkdtemp(folder));
    setenv("XDG_CACHE_HOME", folder, 1);
    const char *const kinds[] = {"quick\n3e14\n", "slow\n1.5e14\n"};
    for (int i = 0; i < 2; i++) {
        unsigned h = 2166136261u;

        for (const char *p = i ? "slow" : "quick"; *p; p++)
            h = (h ^ (unsigned char)*p) * 16777619u;
        snprintf(path, sizeof path, "speed-%08x.txt", h);
        char *at = at_path_cache(path), *dir = at_path_dir(at);
        assert_int_equal(at_make_dirs(dir), AT_OK);
        FILE *f = fopen(at, "w");
        assert_non_null(f);
        fputs(kinds[i], f);
        fclose(f);
        at_free(dir);
        at_free(at);
    }
    at_speeds_measure(both, 3, s);
    assert_true(s[0] == 100 && s[1] == 50 && s[2] == 100);
    snprintf(path, sizeof path, "rm -r %s", folder);
    assert_int_equal(system(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_for_each_rank),
        cmocka_unit_test(rates_become_shares),
        cmocka_unit_test(runs_are_cut_where_the_sums_say),
        cmocka_unit_test(what_was_measured_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
