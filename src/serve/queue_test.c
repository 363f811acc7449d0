// SPDX-License-Identifier: Apache-2.0
// queue_test.c - who runs next, what is kept, what is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/mem.h"
#include "json/json.h"
#include "serve/queue.h"

static size_t told, calls;

static void changed(void *ctx, size_t remaining)
{
    (void)ctx;
    told = remaining;
    calls++;
}

static at_queue *open_queue(size_t pending, size_t history)
{
    at_queue *q = NULL;
    at_queue_config c = {.max_pending = pending, .max_history = history, .changed = changed};
    assert_int_equal(at_queue_open(&c, &q), AT_OK);
    return q;
}

static at_status put(at_queue *q, const char *id, const char *number, double order)
{
    return at_queue_put(q, &(at_queue_entry){.id = id,
                                             .number = number,
                                             .order = order,
                                             .prompt = "{}",
                                             .extra_data = "{}",
                                             .targets = "[\"9\"]"});
}

static void take_and_finish(at_queue *q, const char *id)
{
    at_ticket t;
    assert_true(at_queue_take(q, &t, 0));
    assert_string_equal(t.id, id);
    assert_true(at_queue_is_running(q, id));
    assert_int_equal(
        at_queue_finish(q, &t, &(at_queue_result){"success", "{}", "{\"a\": 1}", "{}", NULL}),
        AT_OK);
    assert_false(at_queue_is_running(q, id));
    at_ticket_free(&t);
}

static void assert_history(at_queue *q, int64_t max, int64_t from, const char *ids)
{
    at_str text = {0}, got = {0};
    json_t *all = NULL;
    const char *id;
    json_t *entry;
    assert_int_equal(at_history_list(q, NULL, max, from, &text), AT_OK);
    assert_int_equal(at_json_load("history", text.data, text.len, &all), AT_OK);
    json_object_foreach(all, id, entry)
    {
        at_str_printf(&got, "%s ", id);
        assert_string_equal(json_string_value(json_array_get(json_object_get(entry, "prompt"), 1)),
                            id);
    }
    assert_string_equal(at_str_text(&got), ids);
    json_decref(all);
    at_str_free(&text);
    at_str_free(&got);
}

static void lower_numbers_run_first(void **state)
{
    (void)state;
    at_queue *q = open_queue(0, 0);
    at_ticket t;
    calls = 0;
    assert_int_equal(put(q, "b", "1", 1), AT_OK);
    assert_int_equal(put(q, "a", "1", 1), AT_OK);
    assert_int_equal(put(q, "z", "-2.5", -2.5), AT_OK);
    assert_int_equal(put(q, "c", "0", 0), AT_OK);
    assert_int_equal(told, 4);
    assert_int_equal(calls, 4);
    take_and_finish(q, "z");
    assert_int_equal(told, 3);
    take_and_finish(q, "c");
    take_and_finish(q, "a");
    take_and_finish(q, "b");
    assert_int_equal(at_queue_remaining(q), 0);
    assert_false(at_queue_take(q, &t, 0.01));
    assert_history(q, -1, -1, "z c a b ");
    at_queue_close(q);
}

static void a_returned_job_is_taken_again(void **state)
{
    (void)state;
    at_queue *q = open_queue(0, 0);
    at_ticket t;
    assert_int_equal(put(q, "a", "1", 1), AT_OK);
    for (int i = 0; i < 5; i++) {
        assert_true(at_queue_take(q, &t, 0));
        assert_int_equal(t.attempts, 1);
        assert_null(t.client_id);
        assert_int_equal(at_queue_return(q, &t), AT_OK);
        at_ticket_free(&t);
    }
    take_and_finish(q, "a");
    at_queue_close(q);
}

static void a_full_queue_refuses(void **state)
{
    (void)state;
    at_queue *q = open_queue(2, 0);
    at_str list = {0};
    assert_int_equal(put(q, "a", "1", 1), AT_OK);
    assert_int_equal(put(q, "b", "2", 2), AT_OK);
    assert_int_equal(put(q, "c", "3", 3), AT_EUNSUPPORTED);
    assert_int_equal(at_queue_delete(q, NULL, "nobody"), AT_OK);
    assert_int_equal(at_queue_delete(q, NULL, "a"), AT_OK);
    assert_int_equal(put(q, "c\"", "3", 3), AT_OK);
    assert_int_equal(at_queue_list(q, NULL, -1, &list), AT_OK);
    assert_string_equal(list.data, "{\"queue_running\": [], \"queue_pending\": [[2, \"b\", {}, {}, "
                                   "[\"9\"]], [3, \"c\\\"\", {}, {}, [\"9\"]]]}");
    assert_int_equal(at_queue_clear(q, NULL), AT_OK);
    assert_int_equal(at_queue_remaining(q), 0);
    at_str_free(&list);
    at_queue_close(q);
}

static void keep_one(void *ctx, size_t i, at_status st)
{
    at_status *each = ctx;
    assert_int_equal(each[i], AT_STATUS_COUNT); // told once
    each[i] = st;
}

static void several_are_put_at_once(void **state)
{
    (void)state;
    at_queue *q = open_queue(4, 0);
    static const char *const ids[] = {"a", "b", "c", "d"};
    static const char *const users[] = {"ann", "ann", "ann", "bob"};
    at_queue_entry e[8];
    at_status each[8];
    at_str list = {0};

    for (int i = 0; i < 8; i++) {
        e[i] = (at_queue_entry){.id = ids[i % 4],
                                .user = users[i % 4],
                                .number = "1",
                                .order = 1,
                                .prompt = "{}",
                                .extra_data = "{}",
                                .targets = "[]",
                                .most_of_user = 2};
        each[i] = AT_STATUS_COUNT;
    }
    calls = 0;
    at_queue_put_all(q, e, 4, keep_one, each);
    assert_int_equal(each[0], AT_OK);
    assert_int_equal(each[1], AT_OK);
    assert_int_equal(each[2], AT_EUNSUPPORTED); // two of ann's wait, though not committed yet
    assert_int_equal(each[3], AT_OK);
    assert_int_equal(calls, 1);
    assert_int_equal(told, 3);
    for (int i = 0; i < 8; i++) {
        e[i].most_of_user = 0;
        each[i] = AT_STATUS_COUNT;
    }
    at_queue_put_all(q, e + 4, 4, keep_one, each + 4);
    assert_int_equal(each[4], AT_OK);
    for (int i = 5; i < 8; i++)
        assert_int_equal(each[i], AT_EUNSUPPORTED); // four wait
    assert_int_equal(at_queue_remaining(q), 4);
    assert_int_equal(at_queue_list(q, NULL, 0, &list), AT_OK);
    assert_non_null(strstr(list.data, "\"pending_total\": 4"));
    at_str_free(&list);
    at_queue_close(q);
}

static void assert_waiting(at_queue *q, const char *ids)
{
    at_str text = {0}, got = {0};
    json_t *all = NULL, *job;
    size_t i;
    assert_int_equal(at_queue_list(q, NULL, -1, &text), AT_OK);
    assert_int_equal(at_json_load("queue", text.data, text.len, &all), AT_OK);
    json_array_foreach(json_object_get(all, "queue_pending"), i, job)
        at_str_printf(&got, "%s ", json_string_value(json_array_get(job, 1)));
    assert_string_equal(at_str_text(&got), ids);
    json_decref(all);
    at_str_free(&text);
    at_str_free(&got);
}

static void a_waiting_job_moves(void **state)
{
    (void)state;
    at_queue *q = open_queue(0, 0);
    static const char *const ids[] = {"a", "b", "c", "d"};
    for (int i = 0; i < 4; i++)
        assert_int_equal(put(q, ids[i], "5", 5), AT_OK); // equal numbers: no room between them
    assert_int_equal(at_queue_move(q, NULL, "d", "b"), AT_OK);
    assert_waiting(q, "a d b c ");
    assert_int_equal(at_queue_move(q, NULL, "c", "a"), AT_OK);
    assert_waiting(q, "c a d b ");
    assert_int_equal(at_queue_move(q, NULL, "c", NULL), AT_OK);
    assert_waiting(q, "a d b c ");
    assert_int_equal(at_queue_move(q, NULL, "b", "b"), AT_OK);
    assert_int_equal(at_queue_move(q, NULL, "d", "b"), AT_OK);
    assert_waiting(q, "a d b c ");
    assert_int_equal(put(q, "e", "6", 6), AT_OK); // who comes later stays behind
    assert_waiting(q, "a d b c e ");
    for (int i = 0; i < 200; i++) { // halved far beyond a double's digits
        assert_int_equal(at_queue_move(q, NULL, i % 2 ? "a" : "d", i % 2 ? "d" : "a"), AT_OK);
        assert_waiting(q, i % 2 ? "a d b c e " : "d a b c e ");
        assert_int_equal(at_queue_move(q, NULL, "c", "b"), AT_OK);
        assert_int_equal(at_queue_move(q, NULL, "b", "c"), AT_OK);
    }
    assert_int_equal(put(q, "f", "6", 6), AT_OK);
    assert_waiting(q, "a d b c e f ");
    assert_int_equal(at_queue_move(q, NULL, "nobody", "a"), AT_ENOTFOUND);
    assert_int_equal(at_queue_move(q, NULL, "a", "nobody"), AT_ENOTFOUND);
    take_and_finish(q, "a");
    assert_int_equal(at_queue_move(q, NULL, "a", NULL), AT_ENOTFOUND);
    at_queue_close(q);
}

static void a_user_moves_only_own_jobs(void **state)
{
    (void)state;
    at_queue *q = open_queue(0, 0);
    static const char *const jobs[][2] = {{"a", "ann"}, {"x", "bob"}, {"b", "ann"}, {"c", "ann"}};
    for (int i = 0; i < 4; i++)
        assert_int_equal(at_queue_put(q, &(at_queue_entry){.id = jobs[i][0],
                                                           .user = jobs[i][1],
                                                           .number = "7",
                                                           .order = 7 + i / 2,
                                                           .prompt = "{}",
                                                           .extra_data = "{}",
                                                           .targets = "[]"}),
                         AT_OK);
    assert_waiting(q, "a x b c ");
    assert_int_equal(at_queue_move(q, "ann", "c", "a"), AT_OK);
    assert_waiting(q, "c x a b "); // x waits no longer than before
    assert_int_equal(at_queue_move(q, "ann", "c", NULL), AT_OK);
    assert_waiting(q, "a x b c ");
    assert_int_equal(at_queue_move(q, "ann", "a", "b"), AT_OK);
    assert_waiting(q, "a x b c ");
    assert_int_equal(at_queue_move(q, "ann", "x", "a"), AT_ENOTFOUND);
    assert_int_equal(at_queue_move(q, "ann", "a", "x"), AT_ENOTFOUND);
    assert_int_equal(at_queue_move(q, NULL, "x", "a"), AT_OK);
    assert_waiting(q, "x a b c ");
    at_queue_close(q);
}

static void the_history_is_bounded_and_paged(void **state)
{
    (void)state;
    static const char *const ids[] = {"a", "b", "c", "d", "e"};
    at_queue *q = open_queue(0, 4);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(put(q, ids[i], "1", 1), AT_OK);
        take_and_finish(q, ids[i]);
    }
    assert_history(q, -1, -1, "b c d e ");
    assert_history(q, 2, -1, "d e ");
    assert_history(q, 2, 0, "b c ");
    assert_history(q, 9, 3, "e ");
    assert_history(q, 0, -1, "");
    assert_int_equal(at_history_delete(q, NULL, "c"), AT_OK);
    assert_history(q, 2, 1, "d e ");
    assert_int_equal(put(q, "d", "1", 1), AT_OK); // the newer entry of an id counts
    take_and_finish(q, "d");
    assert_history(q, -1, -1, "b e d ");
    assert_int_equal(at_history_clear(q, NULL), AT_OK);
    assert_history(q, -1, -1, "");
    at_queue_close(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lower_numbers_run_first),
        cmocka_unit_test(a_returned_job_is_taken_again),
        cmocka_unit_test(a_full_queue_refuses),
        cmocka_unit_test(several_are_put_at_once),
        cmocka_unit_test(a_waiting_job_moves),
        cmocka_unit_test(a_user_moves_only_own_jobs),
        cmocka_unit_test(the_history_is_bounded_and_paged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
