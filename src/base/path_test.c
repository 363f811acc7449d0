// SPDX-License-Identifier: Apache-2.0
// path_test.c - names stay in their folder; listings are whole, sorted and end at rings of links.
#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/mem.h"

static void safe_join_refuses_every_way_out(void **state)
{
    static const char *const bad[] = {"",           "/etc/passwd", "..",        "../x",
                                      "a/../../x",  "a/..",        "\\windows", "a\\..\\b",
                                      "sub/../../", "./../x",      "a/b/c/../d"};
    char *out = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(at_path_join_safe("/models", bad[i], &out), AT_EINVAL);
        assert_null(out);
        assert_non_null(strstr(at_error_text(), bad[i]));
    }
}

static void safe_join_takes_ordinary_names(void **state)
{
    static const char *const good[] = {"flux.safetensors", "sub/a b.png", "..a",    "a..",
                                       "a/..b/c",          "...",         ".hidden"};
    char *out = NULL, want[64];

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(at_path_join_safe("/models", good[i], &out), AT_OK);
        snprintf(want, sizeof want, "/models/%s", good[i]);
        assert_string_equal(out, want);
        at_free(out);
        out = NULL;
    }
    assert_int_equal(at_path_join_safe("/models/", "x", &out), AT_OK);
    assert_string_equal(out, "/models/x");
    at_free(out);
}

static void paths_come_apart(void **state)
{
    char *d;

    (void)state;
    assert_string_equal(at_path_base("a/b.png"), "b.png");
    assert_string_equal(at_path_base("b.png"), "b.png");
    assert_string_equal(at_path_base("a/"), "");
    assert_string_equal(at_path_ext("a.dir/b.tar.gz"), ".gz");
    assert_string_equal(at_path_ext("a.dir/b"), "");
    assert_string_equal(at_path_ext(".hidden"), "");
    d = at_path_dir("a/b/c");
    assert_string_equal(d, "a/b");
    at_free(d);
    d = at_path_dir("c");
    assert_string_equal(d, ".");
    at_free(d);
    d = at_path_dir("/c");
    assert_string_equal(d, "/");
    at_free(d);
}

static void put_file(const char *dir, const char *name)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
}

static void run(const char *fmt, const char *dir)
{
    char command[512];

    // cppcheck-suppress wrongPrintfScanfArgNum // the callers take one to three
    snprintf(command, sizeof command, fmt, dir, dir, dir);
    assert_int_equal(system(command), 0);
}

static void count_lines(void *ctx, at_log_level level, const char *id, const char *text)
{
    (void)level;
    (void)text;
    *(int *)ctx += strcmp(id, "FILE-LIST-FULL") == 0;
}

static void listings_are_sorted_and_survive_rings_of_links(void **state)
{
    static const char *const want[] = {"B", "a", "link/b/y", "link/x", "sub/b/y", "sub/x", "z"};
    char dir[] = "/tmp/at_path_XXXXXX", deep[64];
    at_list l = {0};
    int warned = 0;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(deep, sizeof deep, "%s/sub/b", dir);
    assert_int_equal(at_make_dirs(deep), AT_OK);
    assert_int_equal(at_make_dirs(deep), AT_OK); // there already
    assert_true(at_path_is_dir(deep));
    put_file(dir, "z");
    put_file(dir, "B");
    put_file(dir, "a");
    put_file(dir, "sub/x");
    put_file(dir, "sub/b/y");
    run("ln -s '%s/sub' '%s/link' && ln -s .. '%s/sub/ring'", dir);
    run("ln -s nowhere '%s/dangling'", dir);
    assert_int_equal(at_list_files(dir, true, 100, &l), AT_OK);
    assert_int_equal(l.count, 7);
    for (size_t i = 0; i < l.count; i++)
        assert_string_equal(l.items[i], want[i]);
    at_list_free(&l);
    assert_int_equal(at_list_files(dir, false, 100, &l), AT_OK);
    assert_int_equal(l.count, 3);
    at_list_free(&l);
    at_log_set_writer(count_lines, &warned);
    assert_int_equal(at_list_files(dir, true, 2, &l), AT_OK);
    at_log_set_writer(NULL, NULL);
    assert_int_equal(l.count, 2);
    assert_int_equal(warned, 1);
    at_list_free(&l);
    for (uint64_t n = 1; n < 200; n++) {
        size_t live = at_mem_get_stats().live_bytes;
        at_status st;
        bool hit;

        at_mem_fail_at(n, false);
        st = at_list_files(dir, true, 100, &l);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
        at_list_free(&l);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
        if (!hit) break;
    }
    run("rm -r '%s'", dir);
    assert_int_equal(at_list_files(dir, true, 100, &l), AT_ENOTFOUND);
}

static void a_file_in_the_way_of_a_folder_is_an_error(void **state)
{
    char dir[] = "/tmp/at_path_XXXXXX", below[64];

    (void)state;
    assert_non_null(mkdtemp(dir));
    put_file(dir, "f");
    snprintf(below, sizeof below, "%s/f/g", dir);
    assert_int_equal(at_make_dirs(below), AT_EIO);
    assert_non_null(strstr(at_error_text(), "/f"));
    run("rm -r '%s'", dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safe_join_refuses_every_way_out),
        cmocka_unit_test(safe_join_takes_ordinary_names),
        cmocka_unit_test(paths_come_apart),
        cmocka_unit_test(listings_are_sorted_and_survive_rings_of_links),
        cmocka_unit_test(a_file_in_the_way_of_a_folder_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
