// SPDX-License-Identifier: Apache-2.0
// log_test.c - levels are kept, lines arrive whole at the writer, also from several threads.
#include "base/log.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

typedef struct seen {
    int lines, broken;
    at_log_level level;
    char id[32], text[4096];
} seen;

static void remember(void *ctx, at_log_level level, const char *id, const char *text)
{
    seen *s = ctx;

    s->lines++;
    s->level = level;
    snprintf(s->id, sizeof s->id, "%s", id);
    snprintf(s->text, sizeof s->text, "%s", text);
    if (text[0] == 't' && strlen(text) != strlen("thread 0 0000")) s->broken++;
}

static void lines_below_the_level_are_dropped(void **state)
{
    seen s = {0};

    (void)state;
    at_log_set_writer(remember, &s);
    at_log(AT_INFO, "A-B", "quiet");
    assert_int_equal(s.lines, 0);
    at_log(AT_WARN, "PLACE-EVICT", "%d MiB moved", 812);
    assert_int_equal(s.lines, 1);
    assert_int_equal(s.level, AT_WARN);
    assert_string_equal(s.id, "PLACE-EVICT");
    assert_string_equal(s.text, "812 MiB moved");
    at_log_set_level(AT_DEBUG);
    at_log(AT_DEBUG, "A-B", "loud");
    assert_int_equal(s.lines, 2);
    at_log_set_level(AT_WARN);
    at_log_set_writer(NULL, NULL);
}

static void *talk(void *arg)
{
    for (int i = 0; i < 500; i++)
        at_log(AT_ERROR, "T", "thread %d %04d", *(int *)arg, i);
    return NULL;
}

static void threads_do_not_mix_their_lines(void **state)
{
    static int names[4] = {0, 1, 2, 3};
    pthread_t t[4];
    seen s = {0};

    (void)state;
    at_log_set_writer(remember, &s);
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, talk, &names[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    at_log_set_writer(NULL, NULL);
    assert_int_equal(s.lines, 2000);
    assert_int_equal(s.broken, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_below_the_level_are_dropped),
        cmocka_unit_test(threads_do_not_mix_their_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
