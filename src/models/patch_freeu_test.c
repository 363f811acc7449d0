// SPDX-License-Identifier: Apache-2.0
// patch_freeu_test.c - FreeU's hook on small maps: both widths, one row, two rows, widths it
// leaves alone. The expected numbers are those of ComfyUI 0.3.64's FreeU and FreeU_V2 on the same
// maps, for a network of base width 2, b 1.5 and 1.25, s 0.5 and 0.25.
#include "models/patch_unet.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "cpu/cpu.h"

typedef struct row {
    bool v2;
    int64_t b, h, w, c, skip;
    float first[15]; // channel 0 of each pixel
    float filtered[15];
} row;

static const row rows[] = {
    {false,
     1,
     3,
     5,
     8,
     1,
     {-2.25f, -.75f, .75f, 2.25f, -1.125f, .375f, 1.875f, -1.5f, 0, 1.5f, -1.875f, -.375f, 1.125f,
      -2.25f, -.75f},
     {-1.354167f, -.199536f, 1.02931f, -.888395f, .43362f, 1.383333f, -.688978f, .75563f,
      -1.051784f, .122633f, 1.195833f, -.698023f, .678421f, -1.349576f, -.243322f}},
    {false,
     2,
     2,
     2,
     4,
     1,
     {-1.875f, -1.25f, -.625f, 0, .625f, 1.25f, 1.875f, -1.5625f},
     {-.375f, -.0625f, .25f, -.25f, .0625f, .375f, -.125f, .1875f}},
    {false,
     1,
     1,
     3,
     8,
     2,
     {-2.25f, -.75f, .75f},
     {-1.104167f, -.208333f, .770833f, -.770833f, .208333f, 1.104167f}},
    {false, 1, 2, 2, 6, 1, {-1.5f, -.75f, 0, .75f}, {-1.5f, -.25f, 1, -1}},
    {true,
     1,
     3,
     5,
     8,
     1,
     {-1.625f, -.604167f, .666667f, 1.78125f, -.984375f, .291667f, 1.614583f, -1.416667f, 0,
      1.395833f, -1.5625f, -.276042f, 1.125f, -1.625f, -.604167f},
     {-1.354167f, -.199536f, 1.02931f, -.888395f, .43362f, 1.383333f, -.688978f, .75563f,
      -1.051784f, .122633f, 1.195833f, -.698023f, .678421f, -1.349576f, -.243322f}},
    {true,
     2,
     2,
     2,
     4,
     1,
     {-1.541667f, -1.138889f, -.625f, 0, .525f, 1.25f, 1.6875f, -1.25f},
     {-.375f, -.0625f, .25f, -.25f, .0625f, .375f, -.125f, .1875f}},
    {true,
     1,
     1,
     3,
     8,
     2,
     {-1.5f, -.625f, .75f},
     {-1.104167f, -.208333f, .770833f, -.770833f, .208333f, 1.104167f}},
};

// The values that the expected numbers were made from.
static float value(int64_t i, int64_t step)
{
    return (float)(i * step % 13 - 6) / 4.0f;
}

static at_tensor *map(at_ops *o, const row *r, int64_t c, int64_t step)
{
    float v[256];
    int64_t n = r->b * r->h * r->w * c;
    assert_true(n <= 256);
    for (int64_t i = 0; i < n; i++)
        v[i] = value(i, step);
    return at_from_host(o, AT_F32, 4, (int64_t[]){r->b, r->h, r->w, c}, v);
}

static void maps_change_as_comfyuis_do(void **state)
{
    (void)state;
    at_ops *o = NULL;
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &o), AT_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const row *r = &rows[i];
        at_freeu f = {.channels = 2, .b = {1.5, 1.25}, .s = {.5, .25}, .v2 = r->v2};
        at_tensor *x = map(o, r, r->c, 7), *skip = map(o, r, r->skip, 5);
        float got[256], kept[256];
        int64_t pixels = r->b * r->h * r->w;
        at_patch_freeu.join(&f, o, &(at_site){.part = AT_SITE_OUTPUT}, &x, &skip);
        assert_int_equal(at_ops_status(o), AT_OK);
        assert_int_equal(at_tensor_to_host(x, AT_F32, got, at_tensor_bytes(x)), AT_OK);
        assert_int_equal(at_tensor_to_host(skip, AT_F32, kept, at_tensor_bytes(skip)), AT_OK);
        for (int64_t p = 0; p < pixels; p++) {
            assert_float_equal(got[p * r->c], r->first[p], 2e-6f);
            // The upper half of the channels stays.
            for (int64_t c = r->c / 2; c < r->c; c++)
                assert_true(got[p * r->c + c] == value(p * r->c + c, 7));
        }
        for (int64_t k = 0; k < pixels * r->skip; k++)
            assert_float_equal(kept[k], r->filtered[k], 2e-6f);
    }
    at_ops_free(o);
}

// Without a middle block the last skip is the map itself: both are scaled, then the skip is
// filtered.
static void a_map_that_is_its_own_skip_is_scaled_twice_over(void **state)
{
    (void)state;
    at_ops *o = NULL;
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &o), AT_OK);
    const row *r = &rows[0];
    at_freeu f = {.channels = 2, .b = {1.5, 1.25}, .s = {1, 1}}; // s 1: no filter
    at_tensor *x = map(o, r, r->c, 7), *skip = x;
    float a[256], b[256];
    at_patch_freeu.join(&f, o, &(at_site){.part = AT_SITE_OUTPUT}, &x, &skip);
    assert_int_equal(at_ops_status(o), AT_OK);
    assert_int_equal(at_tensor_to_host(x, AT_F32, a, at_tensor_bytes(x)), AT_OK);
    assert_int_equal(at_tensor_to_host(skip, AT_F32, b, at_tensor_bytes(skip)), AT_OK);
    for (int64_t i = 0; i < at_tensor_count(x); i++)
        assert_float_equal(a[i], b[i], 2e-6f);
    at_ops_free(o);
}

static int set_up(void **state)
{
    (void)state;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_change_as_comfyuis_do),
        cmocka_unit_test(a_map_that_is_its_own_skip_is_scaled_twice_over),
    };
    return cmocka_run_group_tests_name("models.patch_freeu", tests, set_up, NULL);
}
