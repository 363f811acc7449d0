// SPDX-License-Identifier: Apache-2.0
// save_path_test.c - counters, words and walls of output names.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "image/image.h"

static char root[] = "/tmp/atelier-out-XXXXXX";

static int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    char command[64];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", root);
    return system(command);
}

static void touch(const char *name)
{
    char *path = at_path_join(root, name);
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fclose(f);
    at_free(path);
}

static int counter_of(const char *prefix)
{
    at_save_path p;
    int n;

    assert_int_equal(at_save_path_next(root, prefix, 64, 32, &p), AT_OK);
    n = p.counter;
    at_save_path_free(&p);
    return n;
}

static void the_counter_is_one_above_the_highest(void **state)
{
    (void)state;
    assert_int_equal(counter_of("pic"), 1);
    touch("pic_00003_.png");
    touch("pic_00001_.png");
    assert_int_equal(counter_of("pic"), 4);
    touch("picture_00100_.png");
    touch("pi_00100_.png");
    touch("pic_abc_.png");
    touch("pic_00200.png"); // no '_' behind the number
    touch("pic_");
    touch("pic");
    assert_int_equal(counter_of("pic"), 4);
    touch("pic_00041_extra_.png");
    assert_int_equal(counter_of("pic"), 42);
    touch("pic_99999999999999999999_.png");
    touch("pic_-5_.png");
    assert_int_equal(counter_of("pic"), 42);
    assert_int_equal(counter_of("pic_abc"), 1);
}

static void folders_in_the_prefix_are_made(void **state)
{
    at_save_path p;
    char want[64];
    (void)state;

    assert_int_equal(at_save_path_next(root, "a//b/./c/../run", 64, 32, &p), AT_OK);
    snprintf(want, sizeof want, "%s/a/b", root);
    assert_string_equal(p.folder, want);
    assert_string_equal(p.subfolder, "a/b");
    assert_string_equal(p.filename, "run");
    assert_int_equal(p.counter, 1);
    assert_true(at_path_is_dir(want));
    at_save_path_free(&p);
    snprintf(want, sizeof want, "%s/a/run", root); // absolute, but inside
    assert_int_equal(at_save_path_next(root, want, 64, 32, &p), AT_OK);
    assert_string_equal(p.subfolder, "a");
    at_save_path_free(&p);
}

static void words_are_filled_in(void **state)
{
    time_t now = time(NULL);
    struct tm t;
    char want[32], later[32];
    at_save_path p;
    (void)state;

    assert_int_equal(at_save_path_next(root, "%width%x%height%_%what%_100%", 640, 48, &p), AT_OK);
    assert_string_equal(p.filename, "640x48_%what%_100%");
    at_save_path_free(&p);
    localtime_r(&now, &t);
    strftime(want, sizeof want, "%Y-%m-%d %H", &t);
    assert_int_equal(at_save_path_next(root, "%year%-%month%-%day% %hour%", 1, 1, &p), AT_OK);
    now = time(NULL);
    localtime_r(&now, &t);
    strftime(later, sizeof later, "%Y-%m-%d %H", &t);
    assert_true(!strcmp(p.filename, want) || !strcmp(p.filename, later));
    at_save_path_free(&p);
    assert_int_equal(at_save_path_next(root, "%minute%%second%", 1, 1, &p), AT_OK);
    assert_int_equal(strlen(p.filename), 4);
    assert_int_equal(strspn(p.filename, "0123456789"), 4);
    at_save_path_free(&p);
}

static void prefixes_that_leave_the_folder_are_refused(void **state)
{
    static const char *const bad[] = {"../x", "a/../../x", "/etc/x", "..", "a/b/../../../x", "/"};
    char beside[64];
    at_save_path p;
    (void)state;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(at_save_path_next(root, bad[i], 1, 1, &p), AT_EINVAL);
        assert_non_null(
            strstr(at_error_text(), "Saving image outside the output folder is not allowed."));
        assert_null(p.folder);
    }
    snprintf(beside, sizeof beside, "%s-other/x",
             root); // begins like the root, but is not below it
    assert_int_equal(at_save_path_next(root, beside, 1, 1, &p), AT_EINVAL);
    snprintf(beside, sizeof beside, "%s/../x", root);
    assert_int_equal(at_save_path_next(root, beside, 1, 1, &p), AT_EINVAL);
}

static void a_relative_root_becomes_absolute(void **state)
{
    char before[4096];
    at_save_path p;
    (void)state;

    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(root), 0);
    assert_int_equal(at_save_path_next("out/", "x", 1, 1, &p), AT_OK);
    assert_int_equal(p.folder[0], '/');
    assert_true(strlen(p.folder) > 4 && !strcmp(p.folder + strlen(p.folder) - 4, "/out"));
    at_save_path_free(&p);
    assert_int_equal(chdir(before), 0);
}

static void a_file_in_the_way_is_an_error(void **state)
{
    at_save_path p;
    (void)state;

    touch("wall");
    assert_int_not_equal(at_save_path_next(root, "wall/x", 1, 1, &p), AT_OK);
    assert_null(p.folder);
}

static void failed_allocations_leak_nothing(void **state)
{
    size_t live = at_mem_get_stats().live_bytes;
    bool hit = true;
    (void)state;

    for (uint64_t n = 1; hit; n++) {
        at_save_path p;
        at_mem_fail_at(n, false);
        at_status st = at_save_path_next(root, "deep/%width%/x", 1, 1, &p);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
        at_save_path_free(&p);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_counter_is_one_above_the_highest),
        cmocka_unit_test(folders_in_the_prefix_are_made),
        cmocka_unit_test(words_are_filled_in),
        cmocka_unit_test(prefixes_that_leave_the_folder_are_refused),
        cmocka_unit_test(a_relative_root_becomes_absolute),
        cmocka_unit_test(a_file_in_the_way_is_an_error),
        cmocka_unit_test(failed_allocations_leak_nothing),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
