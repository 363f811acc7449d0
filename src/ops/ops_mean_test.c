// SPDX-License-Identifier: Apache-2.0
// ops_mean_test.c - the mean of tokens against double, for counts that halve evenly and that do
// not.
#include "ops/ops_testing.h"

#include <math.h>

static void every_count_of_tokens_has_its_mean(void **state)
{
    static const int64_t counts[] = {1, 2, 3, 5, 8, 31, 64, 77};
    bench b = bench_open();
    at_ops *o = b.o;
    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        int64_t t = counts[i], shape[] = {2, t, 3};
        float values[2 * 77 * 3];
        for (int64_t k = 0; k < 2 * t * 3; k++)
            values[k] = (float)((k * 37) % 101) / 17.0f - 2.0f;
        at_tensor *m = at_mean_tokens(o, at_from_host(o, AT_F32, 3, shape, values));
        assert_int_equal(at_ops_status(o), AT_OK);
        assert_int_equal(m->shape[0] * 10 + m->shape[1], 21);
        m = at_contiguous(o, m);
        for (int64_t row = 0; row < 2; row++)
            for (int64_t c = 0; c < 3; c++) {
                double sum = 0;
                for (int64_t k = 0; k < t; k++)
                    sum += values[(row * t + k) * 3 + c];
                double got = ((const float *)at_tensor_data(m))[row * 3 + c];
                assert_true(fabs(got - sum / (double)t) < 1e-6);
            }
    }
    at_tensor *flat = at_zeros(o, AT_F32, 2, (int64_t[]){2, 3});
    assert_null(at_mean_tokens(o, flat));
    assert_int_equal(at_ops_clear(o), AT_EINVAL);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_count_of_tokens_has_its_mean)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
