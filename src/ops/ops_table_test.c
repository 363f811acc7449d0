// SPDX-License-Identifier: Apache-2.0
// ops_table_test.c - rotary tables over several axes and sinusoidal embeddings.
#include "ops/ops.h"

#include "ops/ops_testing.h"

static void rope_tables_join_their_axes(void **state)
{
    bench b = bench_open();
    const float ids[6] = {0, 3, 7, 1, 2, 1000};
    at_rope_table t = at_rope_make(b.o, 2, 3, (int[]){2, 4, 6}, ids, 10000);
    double cosines[12], sines[12];
    int at = 0;

    (void)state;
    for (int i = 0; i < 2; i++) {
        for (int axis = 0; axis < 3; axis++) {
            for (int j = 0; j <= axis; j++, at++) {
                double angle = ids[i * 3 + axis] * pow(10000, -2.0 * j / (2 * axis + 2));

                cosines[at] = cos(angle);
                sines[at] = sin(angle);
            }
        }
    }
    assert_shape(t.cos, SHAPE(2, 6));
    assert_near(t.cos, cosines, 12, 1e-7); // only the last rounding to float
    assert_near(t.sin, sines, 12, 1e-7);
    t = at_rope_make(b.o, 2, 3, (int[]){2, 3, 6}, ids, 10000);
    assert_null(t.cos);
    REFUSED(&b, t.sin, AT_EINVAL, "rope_make", "axis 1 has 3");
    bench_close(&b);
}

static void sinusoids_take_either_order(void **state)
{
    bench b = bench_open();
    const float t[2] = {0, 437.5f};
    at_tensor *x = at_timestep_embedding(b.o, t, 2, 8, 10000, true);
    at_tensor *y = at_timestep_embedding(b.o, t, 2, 8, 10000, false);
    double want[16], swapped[16];

    (void)state;
    for (int i = 0; i < 8; i++) {
        double angle = t[i / 4] * exp(-log(10000) * (i % 4) / 4);

        want[i / 4 * 8 + i % 4] = swapped[i / 4 * 8 + 4 + i % 4] = cos(angle);
        want[i / 4 * 8 + 4 + i % 4] = swapped[i / 4 * 8 + i % 4] = sin(angle);
    }
    assert_int_equal(x->dtype, AT_F32);
    assert_near(x, want, 16, 5e-5); // the angle is a float near 437: its last bit is 3e-5
    assert_near(y, swapped, 16, 5e-5);
    REFUSED(&b, at_timestep_embedding(b.o, t, 2, 7, 10000, true), AT_EINVAL, "timestep_embedding",
            "7");
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rope_tables_join_their_axes),
        cmocka_unit_test(sinusoids_take_either_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
