// SPDX-License-Identifier: Apache-2.0
// known_test.c - measured steps come back, from the same process and from the file of another one.
#include "par/known.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

static const at_degrees one = {{1, 1, 1, 1, 1}}, cfg2 = {{2, 1, 1, 1, 1}};

static void steps_come_back_and_the_newest_stands(void **state)
{
    at_par_memory *m = NULL;
    at_par_known k[AT_PAR_KNOWN];

    (void)state;
    assert_int_equal(at_par_memory_new(NULL, "here", &m), AT_OK);
    at_par_learn(m, "a", &one, 0.2);
    at_par_learn(m, "a", &cfg2, 0.11);
    at_par_learn(m, "b", &one, 5);
    at_par_learn(m, "a", &one, 0.1);
    at_par_learn(m, "a", &cfg2, 0); // nothing was measured
    assert_int_equal(at_par_recall(m, "a", k), 2);
    assert_true(k[0].step == 0.1 && at_degrees_same(&k[0].degrees, &one));
    assert_true(k[1].step == 0.11 && at_degrees_same(&k[1].degrees, &cfg2));
    assert_int_equal(at_par_recall(m, "c", k), 0);
    assert_int_equal(at_par_recall(NULL, "a", k), 0);
    at_par_memory_free(m);
}

static void a_full_table_forgets_the_oldest(void **state)
{
    at_par_memory *m = NULL;
    at_par_known k[AT_PAR_KNOWN];
    char key[16];

    (void)state;
    assert_int_equal(at_par_memory_new(NULL, "here", &m), AT_OK);
    for (int i = 0; i < 513; i++) {
        snprintf(key, sizeof key, "%d", i);
        at_par_learn(m, key, &one, 1 + i);
    }
    assert_int_equal(at_par_recall(m, "0", k), 0);
    assert_int_equal(at_par_recall(m, "1", k), 1);
    assert_int_equal(at_par_recall(m, "512", k), 1);
    assert_true(k[0].step == 513);
    at_par_memory_free(m);
}

static int recalled(const char *path, const char *title)
{
    at_par_memory *m = NULL;
    at_par_known k[AT_PAR_KNOWN];

    assert_int_equal(at_par_memory_new(path, title, &m), AT_OK);
    int n = at_par_recall(m, "a", k);
    at_par_memory_free(m);
    return n;
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void a_file_is_believed_only_whole_and_of_these_devices(void **state)
{
    static const char *const others[] = {"",
                                         "here",
                                         "here\nx",
                                         "here\nzz 1 none\n",
                                         "here\n0 1\n",
                                         "here\n0 nan none\n",
                                         "here\n0 1 tp=x\n"};
    char dir[] = "/tmp/at_known_XXXXXX", path[64];
    at_par_memory *m = NULL;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/below/steps.txt", dir);
    assert_int_equal(at_par_memory_new(path, "here", &m), AT_OK);
    at_par_learn(m, "a", &cfg2, 0.5);
    at_par_learn(m, "a", &one, 0.9);
    at_par_memory_free(m);
    assert_int_equal(recalled(path, "here"), 2);
    assert_int_equal(recalled(path, "there"), 0);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        write_text(path, others[i]);
        assert_int_equal(recalled(path, "here"), 0);
    }
    unlink(path);
    snprintf(path, sizeof path, "%s/below", dir);
    rmdir(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_come_back_and_the_newest_stands),
        cmocka_unit_test(a_full_table_forgets_the_oldest),
        cmocka_unit_test(a_file_is_believed_only_whole_and_of_these_devices),
    };
    return cmocka_run_group_tests_name("unit.par.known", tests, NULL, NULL);
}
