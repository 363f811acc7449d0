// SPDX-License-Identifier: Apache-2.0
// conv_slabs_test.c - a convolution made of slabs is the convolution: the same bits, from the CPU's plain loops.
#include "cuda/conv_slabs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cpu/cpu_impl.h"

typedef struct row {
    int64_t batch, h, w, cin, cout, k;
    int stride, top, left, bottom, right;
    bool doubled, residual, gaps; // gaps: x is a part of a wider map
} row;

static const row rows[] = {
    {1, 9, 5, 3, 4, 3, 1, 1, 1, 1, 1, false, false, false},
    {1, 9, 5, 3, 4, 3, 1, 1, 1, 1, 1, false, true, false},
    {2, 8, 5, 3, 4, 3, 2, 1, 1, 1, 1, false, false, true},
    {1, 9, 6, 2, 3, 3, 2, 0, 0, 1, 1, false, false, false}, // a VAE's encoder: one zero behind
    {1, 7, 4, 2, 3, 1, 1, 0, 0, 0, 0, false, true, true},
    {2, 7, 4, 2, 3, 3, 1, 1, 1, 1, 1, true, false, false},
    {1, 8, 4, 2, 3, 3, 1, 1, 1, 1, 1, true, false, true},
    {1, 6, 4, 2, 3, 5, 1, 2, 2, 2, 2, true, false, false},
    {1, 6, 4, 2, 3, 3, 1, 0, 1, 2, 1, true, false,
     false}, // a rank's rows: a neighbour above, an end below
    {1, 1, 4, 2, 3, 3, 1, 1, 1, 1, 1, false, false, false},
};

static int calls, held;

static at_status conv(void *stream, const at_conv2d_args *a)
{
    calls++;
    return at_cpu_ref_conv2d(stream, a);
}

static at_status scratch(void *stream, size_t bytes, void **out)
{
    (void)stream;
    held++;
    *out = malloc(bytes);
    return *out ? AT_OK : AT_ENOMEM;
}

static void drop(void *stream, void *data)
{
    (void)stream;
    held -= data != NULL;
    free(data);
}

static at_status copy(void *stream, const at_view *from, const at_view *to)
{
    (void)stream;
    for (int d = 0; d < 4; d++)
        assert_int_equal(from->shape[d], to->shape[d]);
    for (int64_t y = 0; y < from->shape[1]; y++)
        memcpy((float *)to->data + y * to->stride[1],
               (const float *)from->data + y * from->stride[1],
               (size_t)(from->shape[2] * from->shape[3]) * sizeof(float));
    return AT_OK;
}

static at_view view(float *data, int64_t b, int64_t h, int64_t w, int64_t c, int64_t pitch)
{
    return (at_view){.data = data,
                     .dtype = AT_F32,
                     .rank = 4,
                     .shape = {b, h, w, c},
                     .stride = {h * pitch, pitch, c, 1}};
}

static float *noise(int64_t n, unsigned seed)
{
    float *x = malloc((size_t)(n > 0 ? n : 1) * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((seed = seed * 1664525u + 1013904223u) >> 8) / (1 << 23) - 1.0f;
    return x;
}

static void compare(const row *r, int64_t limit)
{
    static const at_conv_hands hands = {conv, scratch, drop, copy};
    int64_t times = r->doubled ? 2 : 1, pitch = (r->w + (r->gaps ? 3 : 0)) * r->cin;
    int64_t oh = (r->h * times + r->top + r->bottom - r->k) / r->stride + 1,
            ow = (r->w * times + r->left + r->right - r->k) / r->stride + 1,
            n = r->batch * oh * ow * r->cout;
    float *x = noise(r->batch * r->h * pitch, 1), *w = noise(r->cout * r->cin * r->k * r->k, 2),
          *bias = noise(r->cout, 3), *residual = noise(n, 4), *one = noise(n, 5),
          *many = noise(n, 6);
    at_conv2d_args a = {
        .x = view(x, r->batch, r->h, r->w, r->cin, pitch),
        .out = view(one, r->batch, oh, ow, r->cout, ow * r->cout),
        .w = {.v = view(w, r->cout, r->cin, r->k, r->k, r->k * r->k), .scale = 1},
        .bias = {.v = {.data = bias, .dtype = AT_F32, .rank = 1, .shape = {r->cout}, .stride = {1}},
                 .scale = 1},
        .stride = r->stride,
        .pad_top = r->top,
        .pad_left = r->left,
        .pad_bottom = r->bottom,
        .pad_right = r->right,
        .upsample2x = r->doubled,
        .act = AT_ACT_SILU};
    a.w.v.stride[0] = r->cin * r->k * r->k;
    a.w.v.stride[1] = r->k * r->k;
    a.w.v.stride[2] = r->k;
    if (r->residual) a.residual = view(residual, r->batch, oh, ow, r->cout, ow * r->cout);
    assert_int_equal(at_cpu_ref_conv2d(NULL, &a), AT_OK);
    a.out.data = many;
    calls = 0;
    assert_true(at_conv_is_large(&a, 1));
    assert_int_equal(at_conv_in_slabs(NULL, &a, limit, &hands), AT_OK);
    assert_int_equal(held, 0);
    assert_true(limit > 1 ? calls >= r->batch : calls == (int)(r->batch * oh));
    assert_memory_equal(one, many, (size_t)n * sizeof(float));
    free(x);
    free(w);
    free(bias);
    free(residual);
    free(one);
    free(many);
}

static void test_slabs_are_the_convolution(void **state)
{
    static const int64_t limits[] = {1, 60, 100, 150, 1 << 20};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t k = 0; k < sizeof limits / sizeof *limits; k++)
            compare(&rows[i], limits[k]);
}

static void test_what_is_large(void **state)
{
    at_conv2d_args a = {.x = {.shape = {1, 4096, 4096, 128}},
                        .out = {.shape = {1, 4096, 4096, 64}},
                        .w = {.v = {.shape = {64, 128, 3, 3}}},
                        .stride = 1,
                        .pad_top = 1,
                        .pad_bottom = 1};
    (void)state;
    assert_true(at_conv_is_large(&a, INT32_MAX));
    a.x.shape[1] = 4095;
    assert_false(at_conv_is_large(&a, INT32_MAX));
    a.upsample2x = true; // counts as it is read
    assert_true(at_conv_is_large(&a, INT32_MAX));
    a.residual.data = &a;
    assert_false(at_conv_is_large(&a, INT32_MAX)); // no slabs can be made of it
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slabs_are_the_convolution),
        cmocka_unit_test(test_what_is_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
