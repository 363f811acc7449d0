// SPDX-License-Identifier: Apache-2.0
// resize_antialias_test.c - antialiased bicubic against the numbers of torch 2.13.
#include "image/resize.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/mem.h"

typedef struct row {
    int64_t h, w, c, to_h, to_w;
    float want[40]; // torch.nn.functional.interpolate(mode="bicubic", antialias=True), as [h, w, c]
} row;

static const row rows[] = {
    {5,
     7,
     1,
     3,
     4,
     {0.193004f, 0.6332283f, 0.3990138f, 0.7789915f, 0.4353948f, 0.5116437f, 0.4620844f, 0.5727162f,
      0.6345091f, 0.2862183f, 0.5894816f, 0.3588384f}},
    {2, 3, 2, 4, 5, {-0.1311926f, 0.2861972f,  0.1976714f,    0.5757443f, 0.6524064f,  0.9705881f,
                     0.4194268f,  0.7334782f,  0.2124407f,    0.5306225f, 0.1472127f,  0.2324921f,
                     0.3444588f,  0.5220392f,  0.5987013f,    0.9168831f, 0.3518947f,  0.6797732f,
                     0.1587356f,  0.4769174f,  0.699271f,     0.1259986f, 0.6355278f,  0.4155457f,
                     0.4922078f,  0.8103896f,  0.2179831f,    0.5732796f, 0.05224211f, 0.3704239f,
                     0.9776763f,  0.07229344f, 0.7823151f,    0.3618405f, 0.4385027f,  0.7566844f,
                     0.1504509f,  0.5195745f,  -0.001463011f, 0.3167188f}},
    {9,
     4,
     1,
     2,
     4,
     {0.402877f, 0.5992976f, 0.4765691f, 0.4884727f, 0.5096605f, 0.5115274f, 0.5234309f,
      0.4007025f}},
};

static at_tensor *picture(int64_t h, int64_t w, int64_t c)
{
    at_tensor *t = NULL;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){1, h, w, c}, &t), AT_OK);
    float *p = at_tensor_data(t);
    for (int64_t i = 0; i < h * w * c; i++)
        p[i] = (float)((7 * i) % 23) / 22.0f;
    return t;
}

static void larger_and_smaller_pictures_have_torchs_numbers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const row *r = &rows[i];
        at_tensor *in = picture(r->h, r->w, r->c), *out = NULL;
        assert_int_equal(at_resize_antialias(in, r->to_w, r->to_h, &out), AT_OK);
        const float *got = at_tensor_data(out);
        for (int64_t k = 0; k < r->to_h * r->to_w * r->c; k++)
            assert_true(fabsf(got[k] - r->want[k]) < 1e-6f);
        at_tensor_release(&in);
        at_tensor_release(&out);
    }
}

static void sizes_that_cannot_be_are_refused(void **state)
{
    (void)state;
    at_tensor *in = picture(2, 2, 3), *flat = NULL, *out = NULL;
    assert_int_equal(at_resize_antialias(in, 0, 4, &out), AT_EINVAL);
    assert_int_equal(at_resize_antialias(in, 4, 1 << 20, &out), AT_EINVAL);
    assert_int_equal(at_tensor_reshape(in, 1, (int64_t[]){12}, &flat), AT_OK);
    assert_int_equal(at_resize_antialias(flat, 4, 4, &out), AT_EINVAL);
    assert_null(out);
    at_tensor_release(&flat);
    at_tensor_release(&in);
}

static void failed_allocations_leak_nothing(void **state)
{
    (void)state;
    at_tensor *in = picture(5, 7, 3);
    size_t live = at_mem_get_stats().live_bytes;
    bool hit = true;
    for (uint64_t n = 1; hit && n < 50; n++) {
        at_tensor *out = NULL;
        at_mem_fail_at(n, false);
        at_status st = at_resize_antialias(in, 3, 4, &out);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
        at_tensor_release(&out);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
    assert_false(hit);
    at_tensor_release(&in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(larger_and_smaller_pictures_have_torchs_numbers),
        cmocka_unit_test(sizes_that_cannot_be_are_refused),
        cmocka_unit_test(failed_allocations_leak_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
