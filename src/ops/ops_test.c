// SPDX-License-Identifier: Apache-2.0
// ops_test.c - the context: sticky errors, scopes, cancel, counters.
#include "ops/ops.h"

#include "base/thread.h"

#include "ops/ops_testing.h"

static void the_first_failure_stays(void **state)
{
    bench b = bench_open();
    at_tensor *x = random_tensor(&b, SHAPE(2, 3));

    (void)state;
    assert_int_equal(at_ops_status(b.o), AT_OK);
    assert_null(at_narrow(b.o, x, 5, 0, 1));
    assert_int_equal(at_ops_status(b.o), AT_EINVAL);
    assert_null(at_ops_poison(b.o, AT_EIO, "later"));
    assert_null(at_add(b.o, x, x)); // does nothing
    at_fail(AT_EIO, "something else on this thread");
    assert_int_equal(at_ops_clear(b.o), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "narrow: f32 [2, 3] has no dimension 5"));
    assert_int_equal(at_ops_status(b.o), AT_OK);
    assert_non_null(at_add(b.o, x, x));
    bench_close(&b);
}

static void a_missing_input_is_a_failure_and_not_silence(void **state)
{
    bench b = bench_open();

    (void)state;
    REFUSED(&b, at_add(b.o, NULL, NULL), AT_EINVAL, "binary", "a is missing");
    REFUSED(&b, at_norm(b.o, NULL, &(at_norm_spec){0}), AT_EINVAL, "norm", "x is missing");
    REFUSED(&b, at_split_tokens(b.o, NULL), AT_EINVAL, "split_tokens");
    REFUSED(&b, at_gather_tokens(b.o, NULL, 4), AT_EINVAL, "gather_tokens");
    bench_close(&b);
}

static void scopes_release_all_but_what_is_kept(void **state)
{
    bench b = bench_open();
    size_t before, inside;
    at_tensor *x, *kept;

    (void)state;
    x = random_tensor(&b, SHAPE(8, 8));
    before = at_device_cpu()->live_bytes;
    at_scope_begin(b.o);
    for (int i = 0; i < 600; i++)
        x = at_affine(b.o, x, 0.5f, 1); // also grows the list
    at_scope_begin(b.o);
    kept = at_affine(b.o, x, 0, 3);
    at_add(b.o, kept, kept);
    inside = at_device_cpu()->live_bytes;
    kept = at_scope_end(b.o, kept);
    assert_true(at_device_cpu()->live_bytes < inside);
    kept = at_scope_end(b.o, kept);
    assert_int_equal(at_device_cpu()->live_bytes, before + 256);
    assert_near(at_narrow(b.o, kept, 0, 0, 1), (double[]){3, 3, 3, 3, 3, 3, 3, 3}, 8, 0);
    bench_close(&b);
    assert_int_equal(at_device_cpu()->live_bytes, 0);
}

static void keeping_what_is_already_outside_changes_nothing(void **state)
{
    bench b = bench_open();
    at_tensor *x = random_tensor(&b, SHAPE(4)), *same;

    (void)state;
    at_scope_begin(b.o);
    same = at_cast(b.o, x, AT_F32); // x itself
    assert_ptr_equal(same, x);
    assert_ptr_equal(at_scope_end(b.o, same), x);
    assert_non_null(at_add(b.o, x, x));
    at_scope_begin(b.o);
    assert_null(at_scope_end(b.o, NULL));
    assert_null(at_scope_end(b.o, NULL)); // never began
    assert_int_equal(at_ops_clear(b.o), AT_EINTERNAL);
    bench_close(&b);
}

static void a_view_outlives_the_scope_of_its_source(void **state)
{
    bench b = bench_open();
    at_tensor *v;

    (void)state;
    at_scope_begin(b.o);
    v = at_narrow(b.o, tensor_of(&b, (float[]){1, 2, 3, 4}, SHAPE(4)), 0, 1, 2);
    v = at_scope_end(b.o, v);
    assert_near(v, (double[]){2, 3}, 2, 0);
    bench_close(&b);
}

static void too_many_scopes_fail_but_still_pair_up(void **state)
{
    bench b = bench_open();

    (void)state;
    for (int i = 0; i < 70; i++) {
        at_scope_begin(b.o);
        random_tensor(&b, SHAPE(16));
    }
    assert_int_equal(at_ops_clear(b.o), AT_EINTERNAL);
    for (int i = 0; i < 70; i++)
        at_scope_end(b.o, NULL);
    assert_int_equal(at_ops_status(b.o), AT_OK);
    assert_int_equal(at_device_cpu()->live_bytes, 0);
    bench_close(&b);
}

static void kept_and_adopted_references_change_hands(void **state)
{
    bench b = bench_open();
    at_tensor *mine, *t = NULL;

    (void)state;
    at_scope_begin(b.o);
    mine = at_ops_keep(b.o, tensor_of(&b, (float[]){5}, SHAPE(1)));
    at_scope_end(b.o, NULL);
    assert_near(mine, (double[]){5}, 1, 0);
    at_scope_begin(b.o);
    assert_ptr_equal(at_ops_adopt(b.o, mine), mine);
    at_scope_end(b.o, NULL);
    assert_int_equal(at_device_cpu()->live_bytes, 0);
    assert_null(at_ops_keep(b.o, NULL));
    assert_null(at_ops_adopt(b.o, NULL));
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, SHAPE(9), &t), AT_OK);
    for (int i = 0; i < 255; i++)
        at_ops_adopt(b.o, at_tensor_retain(t));
    at_ops_adopt(b.o, t);
    t = at_tensor_retain(t);
    at_mem_fail_at(1, false); // the list must grow now
    assert_null(at_ops_adopt(b.o, t));
    at_mem_fail_at(0, false);
    assert_int_equal(at_ops_status(b.o), AT_ENOMEM);
    bench_close(&b);
    assert_int_equal(at_device_cpu()->live_bytes, 0);
}

static void cancel_is_read_at_every_door(void **state)
{
    atomic_bool cancel = false;
    at_sink sink = {.cancel = &cancel};
    at_ops_config config = {.compute = AT_F32, .sink = &sink};
    at_ops *o = NULL;
    at_tensor *x;

    (void)state;
    at_device_set_cpu_backend(at_cpu_backend(), "");
    assert_int_equal(at_ops_new(&config, &o), AT_OK);
    assert_ptr_equal(at_ops_sink(o), &sink);
    x = at_zeros(o, AT_F32, SHAPE(3));
    assert_non_null(x);
    cancel = true;
    assert_null(at_affine(o, x, 1, 1));
    assert_int_equal(at_ops_status(o), AT_ECANCELLED);
    assert_int_equal(at_ops_vote(o), AT_ECANCELLED);
    at_ops_clear(o);
    assert_int_equal(at_ops_vote(o), AT_ECANCELLED); // nobody entered a door, but the flag is up
    cancel = false;
    at_ops_clear(o);
    assert_int_equal(at_ops_vote(o), AT_OK);
    at_ops_free(o);
}

static void bad_configs_are_refused(void **state)
{
    at_ops *o = NULL;
    static at_device bare = {.name = "bare", .host = true};

    (void)state;
    at_device_set_cpu_backend(at_cpu_backend(), "");
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_I32}, &o), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "i32"));
    assert_int_equal(at_ops_new(&(at_ops_config){.device = &bare}, &o), AT_EUNSUPPORTED);
    assert_non_null(strstr(at_error_text(), "bare"));
    at_mem_fail_at(1, false);
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &o), AT_ENOMEM);
    at_mem_fail_at(0, false);
    assert_null(o);
    at_ops_free(NULL);
}

static void tensors_of_another_device_are_refused(void **state)
{
    bench b = bench_open();
    static at_device other = {.name = "other", .host = true};
    at_tensor *t = NULL;

    (void)state;
    other.ops = at_device_cpu()->ops;
    assert_int_equal(at_tensor_new(&other, AT_F32, SHAPE(2, 2), &t), AT_OK);
    REFUSED(&b, at_unary(b.o, t, AT_ACT_SILU), AT_EINVAL, "f32 [2, 2]", "other", "cpu");
    at_tensor_release(&t);
    bench_close(&b);
}

static void work_is_counted(void **state)
{
    bench b = bench_open();
    at_tensor *x = random_tensor(&b, SHAPE(1, 5, 8)), *q = random_tensor(&b, SHAPE(1, 5, 2, 4));
    at_tensor *image = random_tensor(&b, SHAPE(1, 4, 4, 3));
    at_ops_stats s;

    (void)state;
    at_ops_stats_reset(b.o);
    at_linear(b.o, x, random_weight(&b, SHAPE(6, 8)), NULL, NULL);
    at_attention(b.o, q, q, q, NULL, 0, false);
    at_conv2d(b.o, image, random_weight(&b, SHAPE(2, 3, 3, 3)), NULL, NULL);
    at_ops_stats_get(b.o, &s);
    assert_true(s.flops_linear == 2.0 * 5 * 6 * 8);
    assert_true(s.flops_attention == 4.0 * 5 * 5 * 2 * 4);
    assert_true(s.flops_conv == 2.0 * 2 * 2 * 2 * 27);
    assert_int_equal(s.calls, 3);
    assert_true(s.seconds_linear > 0 && s.seconds_attention > 0 && s.seconds_conv > 0);
    at_ops_stats_reset(b.o);
    at_attention(b.o, q, q, q, NULL, 0, true);
    at_ops_stats_get(b.o, &s);
    assert_true(s.flops_attention == 4.0 * 15 * 2 * 4); // 15 pairs are seen
    bench_close(&b);
}

// What is recorded for one leave must not be replayed for another.
static void every_leave_has_a_bit_of_its_own(void **state)
{
    (void)state;
    bench b = bench_open();
    const at_ops_config leaves[] = {{.compute = AT_F32},
                                    {.compute = AT_F32, .int8 = true},
                                    {.compute = AT_F32, .fp8 = true},
                                    {.compute = AT_F32, .weights8 = true},
                                    {.compute = AT_F32, .fp8 = true, .weights8 = true}};
    int seen[5];
    for (int i = 0; i < 5; i++) {
        at_ops *o = NULL;
        assert_int_equal(at_ops_new(&leaves[i], &o), AT_OK);
        seen[i] = at_ops_leave(o);
        at_ops_free(o);
        for (int k = 0; k < i; k++)
            assert_int_not_equal(seen[i], seen[k]);
    }
    bench_close(&b);
}

// A sink whose job is cancelled while the slot of a door runs.
static atomic_bool g_cancel;
static at_status (*g_linear)(void *stream, const at_linear_args *a);

static at_status linear_then_cancel(void *s, const at_linear_args *a)
{
    atomic_store(&g_cancel, true);
    at_status st = g_linear(s, a);
    assert_true(at_cancelled());
    return st;
}

static void a_cancel_inside_a_door_ends_it(void **state)
{
    at_backend changed = *at_cpu_backend();
    at_sink sink = {.cancel = &g_cancel};
    at_ops_config config = {.compute = AT_F32, .sink = &sink};
    at_ops *o = NULL;
    static float ones[64 * 64];
    const at_weight w = {
        .name = "w", .dtype = AT_F32, .rank = 2, .shape = {64, 64}, .data = ones, .scale = 1};

    (void)state;
    g_linear = changed.linear;
    changed.linear = linear_then_cancel;
    at_device_set_cpu_backend(&changed, "");
    assert_int_equal(at_ops_new(&config, &o), AT_OK);
    at_tensor *x = at_zeros(o, AT_F32, SHAPE(1, 8, 64));
    assert_non_null(x);
    assert_null(at_linear(o, x, &w, NULL, NULL));
    assert_int_equal(at_ops_status(o), AT_ECANCELLED);
    assert_false(at_cancelled()); // the flag is not watched outside
    g_cancel = false;
    at_ops_free(o);
    at_device_set_cpu_backend(at_cpu_backend(), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_leave_has_a_bit_of_its_own),
        cmocka_unit_test(the_first_failure_stays),
        cmocka_unit_test(a_missing_input_is_a_failure_and_not_silence),
        cmocka_unit_test(scopes_release_all_but_what_is_kept),
        cmocka_unit_test(keeping_what_is_already_outside_changes_nothing),
        cmocka_unit_test(a_view_outlives_the_scope_of_its_source),
        cmocka_unit_test(too_many_scopes_fail_but_still_pair_up),
        cmocka_unit_test(kept_and_adopted_references_change_hands),
        cmocka_unit_test(cancel_is_read_at_every_door),
        cmocka_unit_test(a_cancel_inside_a_door_ends_it),
        cmocka_unit_test(bad_configs_are_refused),
        cmocka_unit_test(tensors_of_another_device_are_refused),
        cmocka_unit_test(work_is_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
