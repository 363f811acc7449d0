// SPDX-License-Identifier: Apache-2.0
// tensor_test.c - windows on storages: shapes, views, bounds, lifetimes, conversion to the host.
#include "tensor/tensor.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"

static at_tensor *counting(int64_t a, int64_t b, int64_t c)
{
    at_tensor *t = NULL;

    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 3, (int64_t[]){a, b, c}, &t), AT_OK);
    for (int64_t i = 0; i < a * b * c; i++)
        ((float *)at_tensor_data(t))[i] = (float)i;
    return t;
}

static void assert_values(const at_tensor *t, const float *want, size_t n)
{
    float got[64];

    assert_int_equal(at_tensor_to_host(t, AT_F32, got, n * sizeof *got), AT_OK);
    for (size_t i = 0; i < n; i++)
        assert_true(got[i] == want[i]);
}

static void new_tensors_are_contiguous_and_counted(void **state)
{
    size_t live = at_mem_get_stats().live_bytes, dev = at_device_cpu()->live_bytes;
    at_tensor *t = counting(2, 3, 4);

    (void)state;
    assert_int_equal(at_tensor_count(t), 24);
    assert_int_equal(at_tensor_bytes(t), 96);
    assert_true(at_tensor_contiguous(t));
    assert_int_equal(t->stride[0], 12);
    assert_int_equal(t->stride[2], 1);
    assert_ptr_equal(at_tensor_device(t), at_device_cpu());
    assert_int_equal(at_device_cpu()->live_bytes - dev, 96);
    at_tensor_release(&t);
    assert_null(t);
    at_tensor_release(&t);
    assert_int_equal(at_device_cpu()->live_bytes, dev);
    assert_int_equal(at_mem_get_stats().live_bytes, live);
}

static void impossible_shapes_are_refused(void **state)
{
    const int64_t negative[] = {2, -1}, huge[] = {INT64_MAX / 2, 3}, bytes[] = {INT64_MAX / 2, 1};
    const int64_t hidden[] = {INT64_MAX, 0, INT64_MAX}, one[7] = {1, 1, 1, 1, 1, 1, 1};
    at_tensor *t = NULL;

    (void)state;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 2, negative, &t), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "[2, -1]"));
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 2, huge, &t), AT_EINVAL);
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 2, bytes, &t), AT_EINVAL);
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 3, hidden, &t), AT_EINVAL);
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 7, one, &t), AT_EINVAL);
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, -1, one, &t), AT_EINVAL);
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_DTYPE_COUNT, 1, one, &t), AT_EINVAL);
    assert_null(t);
}

static void empty_and_scalar_tensors_exist(void **state)
{
    at_tensor *t = NULL, *v = NULL;
    float x = 0;

    (void)state;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 3, (int64_t[]){2, 0, 4}, &t), AT_OK);
    assert_int_equal(at_tensor_count(t), 0);
    assert_true(at_tensor_contiguous(t));
    assert_int_equal(at_tensor_to_host(t, AT_F32, NULL, 0), AT_OK);
    assert_int_equal(at_tensor_narrow(t, 0, 1, 1, &v), AT_OK);
    at_tensor_release(&v);
    at_tensor_release(&t);
    x = 7;
    assert_int_equal(at_tensor_from_host(at_device_cpu(), AT_F32, 0, NULL, &x, &t), AT_OK);
    assert_int_equal(at_tensor_count(t), 1);
    assert_values(t, (float[]){7}, 1);
    at_tensor_release(&t);
}

static void views_share_bytes_and_outlive_their_source(void **state)
{
    size_t live = at_mem_get_stats().live_bytes;
    at_tensor *t = counting(2, 3, 4), *part = NULL, *turned = NULL, *flat = NULL;

    (void)state;
    assert_int_equal(at_tensor_narrow(t, 2, 1, 2, &part), AT_OK);
    assert_int_equal(at_tensor_permute(part, (int[]){2, 0, 1}, &turned), AT_OK);
    assert_int_equal(at_tensor_reshape(t, 2, (int64_t[]){6, 4}, &flat), AT_OK);
    assert_ptr_equal(at_tensor_data(flat), at_tensor_data(t));
    assert_false(at_tensor_contiguous(part));
    at_tensor_release(&t);
    at_tensor_release(&part);
    assert_int_equal(turned->shape[0], 2);
    assert_values(turned, (float[]){1, 5, 9, 13, 17, 21, 2, 6, 10, 14, 18, 22}, 12);
    at_tensor_release(&turned);
    at_tensor_release(&flat);
    assert_int_equal(at_mem_get_stats().live_bytes, live);
}

static void views_cannot_leave_their_storage(void **state)
{
    at_tensor *t = counting(2, 3, 4), *v = NULL, *w = NULL;

    (void)state;
    assert_int_equal(at_tensor_view(t, 2, (int64_t[]){2, 4}, (int64_t[]){4, 1}, 16, &v), AT_OK);
    assert_values(v, (float[]){16, 17, 18, 19, 20, 21, 22, 23}, 8);
    assert_int_equal(at_tensor_view(v, 1, (int64_t[]){3}, (int64_t[]){-8}, 0, &w), AT_OK);
    assert_values(w, (float[]){16, 8, 0}, 3);
    at_tensor_release(&w);
    assert_int_equal(at_tensor_view(v, 1, (int64_t[]){4}, (int64_t[]){-8}, 0, &w), AT_EINVAL);
    assert_int_equal(at_tensor_view(t, 2, (int64_t[]){2, 4}, (int64_t[]){4, 1}, 17, &w), AT_EINVAL);
    assert_int_equal(at_tensor_view(t, 1, (int64_t[]){1}, (int64_t[]){1}, -1, &w), AT_EINVAL);
    assert_int_equal(at_tensor_view(t, 1, (int64_t[]){3}, (int64_t[]){INT64_MAX / 2}, 0, &w),
                     AT_EINVAL);
    assert_int_equal(at_tensor_view(t, 1, (int64_t[]){1}, (int64_t[]){1}, INT64_MAX, &w),
                     AT_EINVAL);
    assert_null(w);
    at_tensor_release(&v);
    at_tensor_release(&t);
}

static void bad_views_are_refused_with_words(void **state)
{
    at_tensor *t = counting(2, 3, 4), *part = NULL, *v = NULL;

    (void)state;
    assert_int_equal(at_tensor_narrow(t, 3, 0, 1, &v), AT_EINVAL);
    assert_int_equal(at_tensor_narrow(t, -1, 0, 1, &v), AT_EINVAL);
    assert_int_equal(at_tensor_narrow(t, 1, 2, 2, &v), AT_EINVAL);
    assert_int_equal(at_tensor_narrow(t, 1, INT64_MAX, 2, &v), AT_EINVAL);
    assert_int_equal(at_tensor_narrow(t, 1, 0, -1, &v), AT_EINVAL);
    assert_int_equal(at_tensor_permute(t, (int[]){0, 1, 1}, &v), AT_EINVAL);
    assert_int_equal(at_tensor_permute(t, (int[]){0, 1, 3}, &v), AT_EINVAL);
    assert_int_equal(at_tensor_reshape(t, 2, (int64_t[]){5, 5}, &v), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "[5, 5]"));
    assert_int_equal(at_tensor_narrow(t, 2, 0, 2, &part), AT_OK);
    assert_int_equal(at_tensor_reshape(part, 1, (int64_t[]){12}, &v), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "contiguous"));
    assert_null(v);
    at_tensor_release(&part);
    at_tensor_release(&t);
}

static void mark_released(void *ctx)
{
    ++*(int *)ctx;
}

static void foreign_memory_is_released_with_its_last_view(void **state)
{
    float data[6] = {1, 2, 3, 4, 5, 6};
    at_tensor *t = NULL, *v = NULL;
    int released = 0;

    (void)state;
    assert_int_equal(
        at_tensor_wrap(data, AT_F32, 2, (int64_t[]){2, 3}, mark_released, &released, &t), AT_OK);
    assert_int_equal(at_tensor_narrow(t, 1, 1, 1, &v), AT_OK);
    at_tensor_release(&t);
    assert_int_equal(released, 0);
    assert_values(v, (float[]){2, 5}, 2);
    at_tensor_release(&v);
    assert_int_equal(released, 1);
    at_mem_fail_at(2, false); // the header of the window
    assert_int_equal(at_tensor_wrap(data, AT_F32, 1, (int64_t[]){6}, mark_released, &released, &t),
                     AT_ENOMEM);
    at_mem_fail_at(0, false);
    assert_int_equal(released, 1); // on failure the memory stays the caller's
}

static void references_are_counted(void **state)
{
    at_tensor *t = counting(1, 1, 2), *same = at_tensor_retain(t);

    (void)state;
    assert_ptr_equal(same, t);
    at_tensor_release(&t);
    assert_values(same, (float[]){0, 1}, 2);
    at_tensor_release(&same);
    assert_null(at_tensor_retain(NULL));
}

static void every_dtype_converts_to_the_host(void **state)
{
    const float values[] = {0, 1, -2, 100, 0.5f};
    at_tensor *t = NULL, *u = NULL;

    (void)state;
    assert_int_equal(at_tensor_from_host(at_device_cpu(), AT_F32, 1, (int64_t[]){5}, values, &t),
                     AT_OK);
    for (int d = 0; d < AT_DTYPE_COUNT; d++) {
        unsigned char bytes[40];
        size_t n = 5 * at_dtype_size((at_dtype)d);
        float back[5];

        assert_int_equal(at_tensor_to_host(t, (at_dtype)d, bytes, n), AT_OK);
        assert_int_equal(
            at_tensor_from_host(at_device_cpu(), (at_dtype)d, 1, (int64_t[]){5}, bytes, &u), AT_OK);
        assert_int_equal(at_tensor_to_host(u, AT_F32, back, sizeof back), AT_OK);
        at_tensor_release(&u);
        for (int i = 0; i < 5; i++) {
            float want = values[i];

            if (d == AT_U8 && want < 0) want = 0;
            if (d == AT_BOOL) want = want != 0;
            if (!at_dtype_is_float((at_dtype)d)) want = truncf(want);
            if (d == AT_F8E4M3 || d == AT_F8E5M2) want = want == 100 ? 96 : want;
            assert_true(back[i] == want);
        }
    }
    assert_int_equal(at_tensor_to_host(t, AT_F16, (char[12]){0}, 12), AT_EINVAL);
    at_tensor_release(&t);
}

static void shapes_have_words(void **state)
{
    const int64_t big[] = {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX};
    char text[128];

    (void)state;
    assert_string_equal(at_shape_text(AT_BF16, 4, (int64_t[]){2, 16, 32, 32}, text),
                        "bf16 [2, 16, 32, 32]");
    assert_string_equal(at_shape_text(AT_F32, 0, NULL, text), "f32 []");
    assert_true(strlen(at_shape_text(AT_F32, 6, big, text)) < 128);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_tensors_are_contiguous_and_counted),
        cmocka_unit_test(impossible_shapes_are_refused),
        cmocka_unit_test(empty_and_scalar_tensors_exist),
        cmocka_unit_test(views_share_bytes_and_outlive_their_source),
        cmocka_unit_test(views_cannot_leave_their_storage),
        cmocka_unit_test(bad_views_are_refused_with_words),
        cmocka_unit_test(foreign_memory_is_released_with_its_last_view),
        cmocka_unit_test(references_are_counted),
        cmocka_unit_test(every_dtype_converts_to_the_host),
        cmocka_unit_test(shapes_have_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
