// SPDX-License-Identifier: Apache-2.0
// ops_elem_test.c - broadcasting, dtypes, refusals, and the composites of a backend without slots.
#include "ops/ops.h"

#include "ops/ops_testing.h"

// A device like the CPU whose backend can only copy, fill and combine two tensors.
static at_device *poor_device(void)
{
    static at_backend poor;
    static at_device dev = {.name = "poor", .host = true};

    poor = *at_cpu_backend();
    poor.unary = NULL;
    poor.gate_add = NULL;
    poor.lincomb = NULL;
    dev.ops = at_device_cpu()->ops;
    dev.backend = &poor;
    return &dev;
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static void broadcasting_is_numpys(void **state)
{
    bench b = bench_open();
    at_tensor *x = tensor_of(&b, (float[]){1, 2, 3, 4, 5, 6}, SHAPE(2, 3));
    at_tensor *row = tensor_of(&b, (float[]){10, 20, 30}, SHAPE(3));
    at_tensor *column = tensor_of(&b, (float[]){100, 200}, SHAPE(2, 1)), *wide;

    (void)state;
    assert_near(at_add(b.o, x, row), (double[]){11, 22, 33, 14, 25, 36}, 6, 0);
    assert_near(at_mul(b.o, x, column), (double[]){100, 200, 300, 800, 1000, 1200}, 6, 0);
    wide = at_binary(b.o, AT_SUB, row, column, AT_ACT_NONE); // both grow
    assert_shape(wide, SHAPE(2, 3));
    assert_near(wide, (double[]){-90, -80, -70, -190, -180, -170}, 6, 0);
    wide = at_binary(b.o, AT_DIV, at_reshape(b.o, x, SHAPE(2, 1, 3)), row, AT_ACT_NONE);
    assert_shape(wide, SHAPE(2, 1, 3));
    REFUSED(&b, at_add(b.o, x, column = tensor_of(&b, (float[]){1, 2}, SHAPE(2))), AT_EINVAL,
            "binary", "a f32 [2, 3]", "b f32 [2]");
    REFUSED(&b, at_add(b.o, column, x), AT_EINVAL, "a f32 [2]", "b f32 [2, 3]");
    bench_close(&b);
}

static void the_first_operand_gives_the_dtype(void **state)
{
    bench b = bench_open();
    at_tensor *x = tensor_of(&b, (float[]){1, 2}, SHAPE(2)), *h = at_cast(b.o, x, AT_BF16), *t;

    (void)state;
    t = at_binary(b.o, AT_MUL, h, x, AT_ACT_SILU);
    assert_int_equal(t->dtype, AT_BF16);
    assert_near(t, (double[]){silu(1), 2 * silu(2)}, 2, 8e-3); // one bf16 rounding
    t = at_binary(b.o, AT_MUL, x, h, AT_ACT_SILU);
    assert_int_equal(t->dtype, AT_F32);
    assert_near(t, (double[]){silu(1), 2 * silu(2)}, 2, 1e-6);
    bench_close(&b);
}

static void affine_multiplies_then_adds(void **state)
{
    bench b = bench_open();
    at_tensor *x = tensor_of(&b, (float[]){1, 2, 3, 4}, SHAPE(2, 2));

    (void)state;
    assert_near(at_affine(b.o, x, 2, -1), (double[]){1, 3, 5, 7}, 4, 0);
    assert_near(at_affine(b.o, x, 0.5f, 0), (double[]){0.5, 1, 1.5, 2}, 4, 0);
    assert_near(at_affine(b.o, at_permute(b.o, x, (int[]){1, 0}), 1, 1), (double[]){2, 4, 3, 5}, 4,
                0);
    assert_near(x, (double[]){1, 2, 3, 4}, 4, 0); // inputs stay
    bench_close(&b);
}

static void check_gate_add(at_device *dev)
{
    bench b = bench_on(dev, AT_F32);
    at_tensor *x = random_tensor(&b, SHAPE(2, 3, 4)), *y = random_tensor(&b, SHAPE(2, 3, 4));
    at_tensor *gates[2] = {random_tensor(&b, SHAPE(2, 4)), random_tensor(&b, SHAPE(1, 4))};
    float *vx = values_of(x), *vy = values_of(y);

    for (int g = 0; g < 2; g++) {
        float *vg = values_of(gates[g]);
        double want[24];

        for (int i = 0; i < 24; i++) {
            int batch = g == 0 ? i / 12 : 0;

            want[i] = vx[i] + (double)vg[batch * 4 + i % 4] * vy[i];
        }
        assert_near(at_gate_add(b.o, x, y, gates[g]), want, 24, 1e-6);
        at_free(vg);
    }
    at_free(vx);
    at_free(vy);
    REFUSED(&b, at_gate_add(b.o, x, y, NULL), AT_EINVAL, "gate is missing");
    REFUSED(&b, at_gate_add(b.o, x, y, random_tensor(&b, SHAPE(3, 4))), AT_EINVAL,
            "gate f32 [3, 4]", "[2 or 1, 4]");
    REFUSED(&b, at_gate_add(b.o, x, at_narrow(b.o, y, 1, 0, 2), gates[0]), AT_EINVAL, "[2, 2, 4]");
    bench_close(&b);
}

static void gate_add_works_with_and_without_its_slot(void **state)
{
    (void)state;
    check_gate_add(NULL);
    check_gate_add(poor_device());
}

static void check_lincomb(at_device *dev)
{
    bench b = bench_on(dev, AT_F32);
    const float coef[3] = {0.5f, -2, 3};
    const at_tensor *in[3];
    double want[6] = {0};

    for (int k = 0; k < 3; k++) {
        float *v;

        in[k] = random_tensor(&b, SHAPE(2, 3));
        v = values_of(in[k]);
        for (int i = 0; i < 6; i++)
            want[i] += (double)coef[k] * v[i];
        at_free(v);
    }
    assert_near(at_lincomb(b.o, 3, coef, in), want, 6, 1e-6);
    REFUSED(&b, at_lincomb(b.o, 0, coef, in), AT_EINVAL, "0 tensors");
    REFUSED(&b, at_lincomb(b.o, 9, coef, in), AT_EINVAL, "9 tensors");
    in[1] = at_reshape(b.o, in[1], SHAPE(3, 2));
    REFUSED(&b, at_lincomb(b.o, 3, coef, in), AT_EINVAL, "input 1", "[3, 2]", "[2, 3]");
    in[1] = at_cast(b.o, in[0], AT_BF16);
    REFUSED(&b, at_lincomb(b.o, 3, coef, in), AT_EINVAL, "bf16");
    bench_close(&b);
}

static void lincomb_works_with_and_without_its_slot(void **state)
{
    (void)state;
    check_lincomb(NULL);
    check_lincomb(poor_device());
}

static void lincomb_takes_strided_inputs(void **state)
{
    bench b = bench_open();
    at_tensor *x = tensor_of(&b, (float[]){1, 2, 3, 4}, SHAPE(2, 2));
    const at_tensor *in[2] = {x, at_permute(b.o, x, (int[]){1, 0})};

    (void)state;
    assert_near(at_lincomb(b.o, 2, (float[]){1, 10}, in), (double[]){11, 32, 23, 44}, 4, 0);
    bench_close(&b);
}

static void check_unary(at_device *dev)
{
    bench b = bench_on(dev, AT_F32);
    at_tensor *x = tensor_of(&b, (float[]){-1, 0, 2, 3}, SHAPE(2, 2));

    assert_near(at_unary(b.o, x, AT_ACT_SILU), (double[]){silu(-1), 0, silu(2), silu(3)}, 4, 1e-6);
    assert_near(at_unary(b.o, at_permute(b.o, x, (int[]){1, 0}), AT_ACT_RELU),
                (double[]){0, 2, 0, 3}, 4, 0);
    assert_shape(at_unary(b.o, at_empty(b.o, AT_F32, SHAPE(0, 4)), AT_ACT_TANH), SHAPE(0, 4));
    bench_close(&b);
}

static void unary_works_with_and_without_its_slot(void **state)
{
    (void)state;
    check_unary(NULL);
    check_unary(poor_device());
}

static void a_slot_without_composite_says_so(void **state)
{
    static at_backend none;
    static at_device dev = {.name = "none", .host = true};
    bench b;
    at_tensor *x;

    (void)state;
    none = (at_backend){.abi = AT_BACKEND_ABI, .name = "none"};
    dev.ops = at_device_cpu()->ops;
    dev.backend = &none;
    b = bench_on(&dev, AT_F32);
    x = tensor_of(&b, (float[]){1, 2}, SHAPE(1, 1, 1, 2));
    REFUSED(&b, at_add(b.o, x, x), AT_EUNSUPPORTED, "binary", "none backend has no kernel");
    REFUSED(&b, at_group_norm(b.o, x, NULL, NULL, 1, 1e-5f, AT_ACT_NONE), AT_EUNSUPPORTED,
            "group_norm");
    REFUSED(&b, at_cast(b.o, x, AT_BF16), AT_EUNSUPPORTED, "cast");
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broadcasting_is_numpys),
        cmocka_unit_test(the_first_operand_gives_the_dtype),
        cmocka_unit_test(affine_multiplies_then_adds),
        cmocka_unit_test(gate_add_works_with_and_without_its_slot),
        cmocka_unit_test(lincomb_works_with_and_without_its_slot),
        cmocka_unit_test(lincomb_takes_strided_inputs),
        cmocka_unit_test(unary_works_with_and_without_its_slot),
        cmocka_unit_test(a_slot_without_composite_says_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
