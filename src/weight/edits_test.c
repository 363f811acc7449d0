// SPDX-License-Identifier: Apache-2.0
// edits_test.c - overlays and edits: what is shared, when bytes are made, and what is said when
// not. The numbers of each kind of adapter are golden (tests/golden/lora_*).
#include "weight/edits.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"
#include "weight/lora.h"
#include "weight/matrix.h"

static void count_up(void *ctx, void *bytes, size_t n)
{
    float *v = bytes;

    for (size_t i = 0; i < n / sizeof *v; i++)
        v[i] = (float)i * *(const float *)ctx;
}

// a [4, 3], b [3] of 0, 1, 2 ... and an integer tensor.
static at_store *make_store(void)
{
    static float one = 1;
    at_store *s = NULL;

    assert_int_equal(at_store_new("base", &s), AT_OK);
    assert_int_equal(at_store_add(s, "a", AT_F32, 2, (int64_t[]){4, 3}, count_up, &one), AT_OK);
    assert_int_equal(at_store_add(s, "b", AT_F32, 1, (int64_t[]){3}, count_up, &one), AT_OK);
    assert_int_equal(at_store_add(s, "i", AT_I64, 1, (int64_t[]){1}, NULL, NULL), AT_OK);
    return s;
}

static at_store *edit_one(at_store *base, const char *name, const at_edit *e)
{
    at_edits *edits = NULL;
    at_store *out = NULL;

    assert_int_equal(at_edits_new(&edits), AT_OK);
    assert_int_equal(at_edits_add(edits, name, e), AT_OK);
    assert_int_equal(at_store_edit(base, edits, &out), AT_OK);
    at_edits_release(&edits);
    return out;
}

static at_edit diff(at_store *from, const char *name, double strength)
{
    return (at_edit){
        .kind = AT_EDIT_DIFF, .strength = strength, .keep = 1, .t = {at_store_find(from, name)}};
}

static void only_changed_records_are_new_and_wait(void **state)
{
    at_store *base = make_store();
    at_edit e = diff(base, "a", 2);
    at_store *s = edit_one(base, "a", &e);
    at_weight *w = at_store_find(s, "a");
    (void)state;

    assert_int_equal(at_store_count(s), 3);
    assert_ptr_equal(at_store_find(s, "b"), at_store_find(base, "b"));
    assert_ptr_equal(at_store_at(s, 0), w);
    assert_null(w->data);
    assert_int_equal(at_weight_ready(w), AT_OK);
    for (int i = 0; i < 12; i++)
        assert_true(((const float *)w->data)[i] == 3.0f * (float)i);
    at_store_release(&base); // the overlay keeps it
    float v;
    at_weight_read_f32(at_store_find(s, "b"), 2, 1, &v);
    assert_true(v == 2);
    at_store_release(&s);
}

static void editing_twice_is_one_store_over_the_file(void **state)
{
    at_store *base = make_store();
    at_edit first = diff(base, "a", 1), part = diff(base, "b", 1), scale = {.kind = AT_EDIT_DIFF};
    (void)state;

    part.first = 1;
    part.rows = 2; // b has 3 elements, the window 2: it does not fit and is left out
    scale.keep = 0.5;
    at_store *s = edit_one(base, "a", &first), *t = edit_one(s, "a", &scale);
    at_store *u = edit_one(t, "b", &part);
    assert_ptr_equal(at_store_base(t), base);
    assert_int_equal(at_weight_ready(at_store_find(t, "a")), AT_OK);
    assert_true(((const float *)at_store_find(t, "a")->data)[5] == 5); // (5 + 5) / 2
    at_log_set_level(AT_ERROR);
    assert_int_equal(at_weight_ready(at_store_find(u, "b")), AT_OK);
    at_log_set_level(AT_WARN);
    assert_true(((const float *)at_store_find(u, "b")->data)[2] == 2);
    at_store_release(&s);
    at_store_release(&t);
    at_store_release(&u);
    at_store_release(&base);
}

static void a_merge_takes_the_other_models_changes_along(void **state)
{
    at_store *base = make_store(), *other = make_store();
    at_edit twice = diff(other, "a", 1);
    at_store *edited = edit_one(other, "a", &twice);
    at_edit merge = {
        .kind = AT_EDIT_MERGE, .strength = 0.25, .keep = 0.75, .t = {at_store_find(edited, "a")}};
    at_store *s = edit_one(base, "a", &merge);
    (void)state;

    assert_int_equal(at_weight_ready(at_store_find(s, "a")), AT_OK);
    assert_null(at_store_find(edited, "a")->data); // it was computed, and not kept
    assert_true(((const float *)at_store_find(s, "a")->data)[4] == 0.75f * 4 + 0.25f * 8);
    at_store_release(&s);
    at_store_release(&edited);
    at_store_release(&other);
    at_store_release(&base);
}

// Another model's weight less the file's own, whatever was changed before.
// 2 a + 0.5 (b - a) with b = 3 a
static void a_move_starts_from_the_file(void **state)
{
    at_store *base = make_store(), *other = make_store();
    at_edit again = diff(base, "a", 1), twice = diff(other, "a", 2);
    at_store *target = edit_one(other, "a", &twice), *s = edit_one(base, "a", &again);
    at_edit move = {
        .kind = AT_EDIT_TOWARD, .strength = 0.5, .keep = 1, .t = {at_store_find(target, "a")}};
    at_store *moved = edit_one(s, "a", &move);
    (void)state;

    assert_int_equal(at_weight_ready(at_store_find(moved, "a")), AT_OK);
    for (int i = 0; i < 12; i++)
        assert_true(((const float *)at_store_find(moved, "a")->data)[i] == 3.0f * (float)i);
    at_store_release(&moved);
    at_store_release(&s);
    at_store_release(&target);
    at_store_release(&other);
    at_store_release(&base);
}

static void impossible_edits_are_refused(void **state)
{
    static const char *const names[] = {"nothing", "i"};
    at_store *base = make_store(), *out = NULL;
    at_edit e = diff(base, "b", 1),
            grow = {.kind = AT_EDIT_DIFF, .keep = 1, .grow_rank = 1, .grow = {2}};
    (void)state;

    for (size_t i = 0; i < 2; i++) {
        at_edits *edits = NULL;
        assert_int_equal(at_edits_new(&edits), AT_OK);
        assert_int_equal(at_edits_add(edits, names[i], &e), AT_OK);
        assert_int_equal(at_store_edit(base, edits, &out), AT_EINVAL);
        assert_non_null(strstr(at_error_text(), names[i]));
        at_edits_release(&edits);
    }
    at_edits *edits = NULL;
    assert_int_equal(at_edits_new(&edits), AT_OK);
    assert_int_equal(at_edits_add(edits, "b", &grow), AT_OK);
    assert_int_equal(at_store_edit(base, edits, &out), AT_EINVAL); // smaller than it is
    at_edits_release(&edits);
    at_store_release(&base);
}

// Eight threads ask at once: one buffer, the same for all.
static void ask(void *ctx, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++)
        assert_int_equal(at_weight_ready(ctx), AT_OK);
}

static void many_threads_make_a_record_once(void **state)
{
    at_store *base = make_store();
    at_edit e = diff(base, "a", 1);
    at_store *s = edit_one(base, "a", &e);
    at_weight *w = at_store_find(s, "a");
    size_t before = at_mem_get_stats().live_blocks;
    (void)state;

    at_parallel_for(64, 1, ask, w);
    assert_int_equal(at_mem_get_stats().live_blocks, before + 1);
    at_store_release(&s);
    at_store_release(&base);
}

static at_status whole_story(at_store *base, at_store *file)
{
    at_lora *l = NULL;
    at_lora_names *names = NULL;
    at_edits *edits = NULL;
    at_store *s = NULL;
    at_lora_target to = {.record = "a"};
    at_status st = AT_OK;

    AT_TRY(at_lora_open(file, &l));
    AT_TRY(at_lora_names_new(&names));
    at_lora_names_add(names, &to, "x");
    at_lora_names_addf(names, &to, "%s", "y");
    AT_TRY(at_edits_new(&edits));
    AT_TRY(at_lora_match(l, names, base, 1, edits, NULL));
    AT_TRY(at_store_edit(base, edits, &s));
    AT_TRY(at_weight_ready(at_store_find(s, "a")));
out:
    at_lora_free(l);
    at_lora_names_free(names);
    at_edits_release(&edits);
    at_store_release(&s);
    return st;
}

static void no_memory_is_a_status_that_names_the_tensor(void **state)
{
    static float half = 0.5f;
    at_store *base = make_store(), *file = NULL;
    bool hit = true;
    (void)state;

    assert_int_equal(at_store_new("lora", &file), AT_OK);
    assert_int_equal(
        at_store_add(file, "x.lora_up.weight", AT_F32, 2, (int64_t[]){4, 2}, count_up, &half),
        AT_OK);
    assert_int_equal(
        at_store_add(file, "x.lora_down.weight", AT_F32, 2, (int64_t[]){2, 3}, count_up, &half),
        AT_OK);
    for (uint64_t n = 1; hit; n++) {
        size_t before = at_mem_get_stats().live_blocks;
        at_mem_fail_at(n, true);
        at_status st = whole_story(base, file);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
        if (hit) assert_true(strlen(at_error_text()) > 0);
        assert_int_equal(at_mem_get_stats().live_blocks, before);
    }
    at_store_release(&file);
    at_store_release(&base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_changed_records_are_new_and_wait),
        cmocka_unit_test(editing_twice_is_one_store_over_the_file),
        cmocka_unit_test(a_merge_takes_the_other_models_changes_along),
        cmocka_unit_test(a_move_starts_from_the_file),
        cmocka_unit_test(impossible_edits_are_refused),
        cmocka_unit_test(many_threads_make_a_record_once),
        cmocka_unit_test(no_memory_is_a_status_that_names_the_tensor),
    };
    return cmocka_run_group_tests_name("weight.edits", tests, NULL, NULL);
}
