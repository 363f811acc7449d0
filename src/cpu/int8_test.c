// SPDX-License-Identifier: Apache-2.0
// int8_test.c - rounding rows to int8, the tile over pairs of words, and what a kept weight leaves behind.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "cpu/cpu.h"
#include "cpu/cpu_impl.h"
#include "cpu/gemm.h"
#include "cpu/int8.h"

// The table with an int8 tile, if this CPU can run it.
static const at_cpu_kernels *table(void)
{
    if (!at_cpu_table()) skip();
    return &at_cpu_avx2_table;
}

static void rows_are_rounded_to_the_nearest_step(void **state)
{
    const at_cpu_kernels *t = table();
    static const float x[3][5] = {{1, -2, 0.5f, 127, 63.5f}, // a step is 1; ties go to even
                                  {0, 0, 0, 0, 0},           // a scale of 0, no division
                                  {-0.254f, 0.1f, 0, 1e-9f, 0.0031f}};
    static const int8_t want[3][5] = {{1, -2, 0, 127, 64}, {0}, {-127, 50, 0, 0, 2}};
    int8_t bytes[3][5];
    int16_t words[3][5];
    float scales[3];

    (void)state;
    assert_true(at_cpu_q8_rows(t, AT_Q8_BYTES, bytes, scales, x, AT_F32, 0, 5, 3, 5));
    assert_memory_equal(bytes, want, sizeof want);
    assert_true(scales[0] == 1 && scales[1] == 0 && fabsf(scales[2] - 0.002f) < 1e-9f);
    assert_true(at_cpu_q8_rows(t, AT_Q8_WORDS, words, scales, x, AT_F32, 0, 5, 3, 5));
    for (int i = 0; i < 15; i++)
        assert_int_equal(words[i / 5][i % 5], want[i / 5][i % 5]);
}

static void a_row_with_nan_gives_nan(void **state)
{
    const at_cpu_kernels *t = table();
    float x[9] = {1, 2, 3, NAN, 5, 6, 7, 8, 9}, scale, y;
    int8_t q[9];
    int32_t sum = 5;

    (void)state;
    assert_true(at_cpu_q8_rows(t, AT_Q8_BYTES, q, &scale, x, AT_F32, 0, 9, 1, 9));
    t->from_s32(&y, &sum, scale, &(float){1}, 1);
    assert_true(isnan(y));
}

// Whole numbers up to 127 with a 127 in every row have scale 1: the result is exact, whatever the size.
static void whole_numbers_are_multiplied_exactly(void **state)
{
    enum { M = 31, K = 1090, N = 37 };
    static float x[M * K], w[N * K], got[M * N];
    const at_cpu_kernels *t = table();
    at_packed packed = {0};
    size_t live = at_mem_get_stats().live_bytes;
    at_linear_args a = {.x = {x, AT_F32, 3, {1, M, K}, {M * K, K, 1}},
                        .out = {got, AT_F32, 3, {1, M, N}, {M * N, N, 1}},
                        .w = {.v = {w, AT_F32, 2, {N, K}, {K, 1}}, .scale = 1, .packed = &packed},
                        .int8 = true};

    (void)state;
    for (int i = 0; i < M * K; i++)
        x[i] = i % K == 3 ? 127 : (float)(i * 37 % 255 - 127);
    for (int i = 0; i < N * K; i++)
        w[i] = i % K == 7 ? -127 : (float)(i * 91 % 255 - 127);
    assert_true(at_cpu_int8_pays(t, &a));
    for (int pass = 0; pass < 2; pass++) { // packs, then finds what it packed
        memset(got, 0, sizeof got);
        assert_int_equal(at_cpu_gemm_linear(t, &a), AT_OK);
        for (int i = 0; i < M * N; i++) {
            double sum = 0; // below 2^24: f32 holds it
            for (int k = 0; k < K; k++)
                sum += (double)x[i / N * K + k] * (double)w[i % N * K + k];
            assert_true((double)got[i] == sum);
        }
        assert_non_null(atomic_load(&packed.data));
    }
    packed.free(atomic_load(&packed.data));
    assert_int_equal(at_mem_get_stats().live_bytes, live);
}

static void few_rows_and_odd_ones_stay_floats(void **state)
{
    const at_cpu_kernels *t = table();
    at_packed packed = {0};
    at_linear_args a = {.x = {NULL, AT_F32, 3, {1, 100, 64}, {6400, 64, 1}},
                        .out = {NULL, AT_F32, 3, {1, 100, 64}, {6400, 64, 1}},
                        .w = {.v = {NULL, AT_F32, 2, {64, 64}, {64, 1}}, .packed = &packed},
                        .int8 = true};

    (void)state;
    assert_true(at_cpu_int8_pays(t, &a));
    a.out.shape[1] = 8;
    assert_false(at_cpu_int8_pays(t, &a));
    a.out.shape[1] = 100;
    a.w.v.shape[1] = 63;
    assert_false(at_cpu_int8_pays(t, &a));
    a.w.v.shape[1] = 1 << 18; // sums would leave 32 bits
    assert_false(at_cpu_int8_pays(t, &a));
    a.w.v.shape[1] = 64;
    a.int8 = false;
    assert_false(at_cpu_int8_pays(t, &a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_rounded_to_the_nearest_step),
        cmocka_unit_test(a_row_with_nan_gives_nan),
        cmocka_unit_test(whole_numbers_are_multiplied_exactly),
        cmocka_unit_test(few_rows_and_odd_ones_stay_floats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
