// SPDX-License-Identifier: Apache-2.0
// noise_test.c - unit.sample.noise: torch's randn to the last bit, and ComfyUI's rules around it.
#include "sample/golden_test.h"

#include <math.h>

#include "sample/noise.h"
#include "sample/normal.h"

static void randn_matches_torch_to_the_last_bit(void **state)
{
    json_t *rows = golden_load("noise.json"), *row;
    size_t i, d;
    (void)state;

    json_array_foreach(rows, i, row)
    {
        int64_t shape[6], n = 1;
        json_t *v;
        char hex[65];
        json_array_foreach(json_object_get(row, "shape"), d, v)
        {
            shape[d] = (int64_t)json_number_value(v);
            n *= shape[d];
        }
        float *x = malloc((size_t)n * sizeof *x);
        int rank = (int)json_array_size(json_object_get(row, "shape"));
        assert_int_equal(at_prepare_noise(golden_seed(row), rank, shape, NULL, x), AT_OK);
        golden_sha256(x, (size_t)n * sizeof *x, hex);
        assert_string_equal(hex, json_string_value(json_object_get(row, "sha256")));
        free(x);
    }
    assert_int_equal(i, 42);
    json_decref(rows);
}

static void portable_and_avx2_blocks_agree(void **state)
{
    enum { N = 16 * 4096 };
    float *a = malloc(N * sizeof *a), *b = malloc(N * sizeof *b);
    at_mt19937 mt;
    (void)state;

    if (!at_normal_avx2_usable()) skip();
    at_mt_seed(&mt, 7);
    for (int i = 0; i < N; i++)
        a[i] = at_mt_f32(&mt);
    const float edges[16] = {0,     0x1p-24f, 0.5f,   1 - 0x1p-24f, 0.29289f, 0.29290f,
                             0.75f, 0.25f,    0.125f, 0.25f,        0.5f,     0.75f,
                             0,     0.375f,   0.625f, 0.875f};
    memcpy(a, edges, sizeof edges);
    memcpy(b, a, N * sizeof *a);
    at_normal_blocks_portable(a, N / 16);
    at_normal_blocks_avx2(b, N / 16);
    assert_memory_equal(a, b, N * sizeof *a);
    free(a);
    free(b);
}

static void small_draws_keep_the_second_half_of_a_pair(void **state)
{
    float whole[6], parts[6];
    at_generator g;
    (void)state;

    at_randn(11, whole, 6);
    at_generator_seed(&g, 11);
    at_generator_randn(&g, parts, 1);
    at_generator_randn(&g, parts + 1, 0);
    at_generator_randn(&g, parts + 1, 4);
    at_generator_randn(&g, parts + 5, 1);
    assert_memory_equal(whole, parts, sizeof whole);
    at_generator_seed(&g, 11); // seeding forgets the carried value
    at_generator_randn(&g, parts, 1);
    assert_memory_equal(whole, parts, sizeof *whole);
}

static void batch_index_picks_draws_by_number(void **state)
{
    const int64_t shape[4] = {3, 4, 3, 5}, four[4] = {1, 4, 3, 5}, index[3] = {2, 0, 2};
    enum { ITEM = 60 };
    float out[3 * ITEM], draws[3 * ITEM];
    at_generator g;
    (void)state;

    at_generator_seed(&g, 5);
    for (int i = 0; i < 3; i++)
        at_generator_randn(&g, draws + i * ITEM, ITEM);
    assert_int_equal(at_prepare_noise(5, 4, shape, index, out), AT_OK);
    assert_memory_equal(out, draws + 2 * ITEM, ITEM * sizeof *out);
    assert_memory_equal(out + ITEM, draws, ITEM * sizeof *out);
    assert_memory_equal(out + 2 * ITEM, draws + 2 * ITEM, ITEM * sizeof *out);
    const int64_t one = 1;
    assert_int_equal(at_prepare_noise(5, 4, four, &one, out), AT_OK);
    assert_memory_equal(out, draws + ITEM, ITEM * sizeof *out);
}

static void bad_shapes_and_indices_are_refused(void **state)
{
    const int64_t zero[2] = {1, 0}, huge[3] = {1LL << 40, 1LL << 40, 4}, ok[2] = {1, 4};
    const int64_t minus = -1, far = 1LL << 40, first = 0;
    float out[4];
    (void)state;

    assert_int_equal(at_prepare_noise(0, 0, ok, NULL, out), AT_EINVAL);
    assert_int_equal(at_prepare_noise(0, 7, ok, NULL, out), AT_EINVAL);
    assert_int_equal(at_prepare_noise(0, 2, zero, NULL, out), AT_EINVAL);
    assert_int_equal(at_prepare_noise(0, 3, huge, NULL, out), AT_EINVAL);
    assert_int_equal(at_prepare_noise(0, 2, ok, &minus, out), AT_EINVAL);
    assert_int_equal(at_prepare_noise(0, 2, ok, &far, out), AT_EINVAL);
    at_mem_fail_at(1, false);
    assert_int_equal(at_prepare_noise(0, 2, ok, &first, out), AT_ENOMEM);
    at_mem_fail_at(0, false);
}

// Known answers of Philox4x32-10 (Random123's kat_vectors) are words; here the normals that follow
// from counter 0, key 0: words 6627e8d5 e169c58d bc57ac4c 9b00dbd8.
static void philox_orders_values_like_cuda(void **state)
{
    const uint32_t w[4] = {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u};
    float x[2048], y[2048];
    uint64_t offset = 0;
    (void)state;

    at_philox_randn(0, &offset, 256, x, 1024);
    assert_int_equal(offset, 4);
    for (int pair = 0; pair < 2; pair++) {
        double u = w[2 * pair] * 0x1p-32 + 0x1p-33,
               v = (w[2 * pair + 1] * 0x1p-32 + 0x1p-33) * 2 * M_PI;
        double r = sqrt(-2 * log(u));
        assert_true(fabs(x[256 * 2 * pair] - r * sin(v)) < 3e-6);
        assert_true(fabs(x[256 * (2 * pair + 1)] - r * cos(v)) < 3e-6);
    }
    // More values than 4 * threads: a second pass continues the counter; a later call the offset.
    offset = 0;
    at_philox_randn(0, &offset, 256, y, 2048);
    assert_int_equal(offset, 8);
    assert_memory_equal(x, y, sizeof *x * 1024);
    offset = 4;
    at_philox_randn(0, &offset, 256, x, 1024);
    assert_memory_equal(x, y + 1024, sizeof *x * 1024);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(randn_matches_torch_to_the_last_bit),
        cmocka_unit_test(portable_and_avx2_blocks_agree),
        cmocka_unit_test(small_draws_keep_the_second_half_of_a_pair),
        cmocka_unit_test(batch_index_picks_draws_by_number),
        cmocka_unit_test(bad_shapes_and_indices_are_refused),
        cmocka_unit_test(philox_orders_values_like_cuda),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
