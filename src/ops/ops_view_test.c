// SPDX-License-Identifier: Apache-2.0
// ops_view_test.c - reshapes that copy only when they must, casts, concat, weights as tensors.
#include "ops/ops.h"

#include "base/half.h"
#include "ops/ops_testing.h"

static void reshape_solves_one_open_dimension(void **state)
{
    bench b = bench_open();
    at_tensor *x = random_tensor(&b, SHAPE(2, 3, 4));

    (void)state;
    assert_shape(at_reshape(b.o, x, SHAPE(2, -1)), SHAPE(2, 12));
    assert_shape(at_reshape(b.o, x, SHAPE(-1)), SHAPE(24));
    assert_ptr_equal(at_tensor_data(at_reshape(b.o, x, SHAPE(6, 2, -1))), at_tensor_data(x));
    REFUSED(&b, at_reshape(b.o, x, SHAPE(5, -1)), AT_EINVAL, "reshape", "f32 [2, 3, 4]", "[5, -1]");
    REFUSED(&b, at_reshape(b.o, x, SHAPE(-1, -1)), AT_EINVAL, "[-1, -1]");
    REFUSED(&b, at_reshape(b.o, x, SHAPE(0, -1)), AT_EINVAL, "[0, -1]");
    REFUSED(&b, at_reshape(b.o, x, SHAPE(INT64_MAX, 4)), AT_EINVAL, "reshape");
    REFUSED(&b, at_reshape(b.o, x, 9, (int64_t[9]){0}), AT_EINVAL, "rank 9");
    bench_close(&b);
}

// What a fused qkv needs: a part of the last dimension split into heads, without a copy.
static void a_strided_part_is_split_without_a_copy(void **state)
{
    bench b = bench_open();
    at_tensor *qkv = random_tensor(&b, SHAPE(2, 3, 24)), *k, *heads, *flat;
    float *all = values_of(qkv), *got;

    (void)state;
    k = at_narrow(b.o, qkv, 2, 8, 8);
    heads = at_reshape(b.o, k, SHAPE(2, 3, 2, 4));
    assert_ptr_equal(at_tensor_data(heads), at_tensor_data(k));
    got = values_of(heads);
    for (int i = 0; i < 6; i++)
        assert_memory_equal(got + i * 8, all + i * 24 + 8, 8 * sizeof *got);
    at_free(got);
    flat = at_reshape(b.o, heads, SHAPE(6, 8)); // and back: batch and tokens still merge
    assert_ptr_equal(at_tensor_data(flat), at_tensor_data(k));
    flat = at_reshape(b.o, k, SHAPE(48)); // this has no strides
    assert_ptr_not_equal(at_tensor_data(flat), at_tensor_data(k));
    got = values_of(flat);
    for (int i = 0; i < 6; i++)
        assert_memory_equal(got + i * 8, all + i * 24 + 8, 8 * sizeof *got);
    at_free(got);
    at_free(all);
    bench_close(&b);
}

// Every reshape of every permutation, against the elements in order.
static void reshape_keeps_the_order_of_elements(void **state)
{
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                     {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    static const int64_t shapes[][4] = {{24, 1, 1, 1}, {2, 12, 1, 1}, {4, 6, 1, 1}, {3, 8, 1, 1},
                                        {2, 2, 2, 3},  {1, 4, 1, 6},  {3, 2, 2, 2}, {6, 1, 4, 1}};
    bench b = bench_open();
    at_tensor *x = random_tensor(&b, SHAPE(2, 3, 4));

    (void)state;
    for (int i = 0; i < 6; i++) {
        for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
            at_tensor *turned = at_permute(b.o, x, orders[i]);
            float *want = values_of(turned),
                  *got = values_of(at_reshape(b.o, turned, 4, shapes[k]));

            assert_memory_equal(got, want, 24 * sizeof *got);
            at_free(want);
            at_free(got);
        }
    }
    bench_close(&b);
}

static void casts_convert_and_keep_what_fits(void **state)
{
    bench b = bench_open();
    at_tensor *x = tensor_of(&b, (float[]){1, -2.5f, 1e-3f, 65000}, SHAPE(2, 2)), *h;
    float *v;

    (void)state;
    assert_ptr_equal(at_cast(b.o, x, AT_F32), x);
    assert_ptr_equal(at_contiguous(b.o, x), x);
    h = at_cast(b.o, x, AT_BF16);
    assert_int_equal(h->dtype, AT_BF16);
    v = values_of(h);
    assert_true(v[3] == at_bf16_to_f32(at_f32_to_bf16(65000)));
    at_free(v);
    x = at_contiguous(b.o, at_permute(b.o, x, (int[]){1, 0}));
    assert_true(at_tensor_contiguous(x));
    assert_near(x, (double[]){1, 1e-3f, -2.5, 65000}, 4, 0);
    bench_close(&b);
}

static void zeros_are_zero_and_empty_is_only_a_shape(void **state)
{
    bench b = bench_open();

    (void)state;
    assert_near(at_zeros(b.o, AT_BF16, SHAPE(2, 2)), (double[]){0, 0, 0, 0}, 4, 0);
    assert_shape(at_empty(b.o, AT_F32, SHAPE(3, 0)), SHAPE(3, 0));
    REFUSED(&b, at_empty(b.o, AT_F32, SHAPE(-3)), AT_EINVAL, "empty", "[-3]");
    bench_close(&b);
}

static void concat_joins_views_along_any_dimension(void **state)
{
    bench b = bench_open();
    at_tensor *x = tensor_of(&b, (float[]){1, 2, 3, 4, 5, 6}, SHAPE(2, 3));
    const at_tensor *parts[3] = {x, at_narrow(b.o, x, 1, 2, 1), at_cast(b.o, x, AT_BF16)};
    const at_tensor *rows[2] = {x, at_narrow(b.o, x, 0, 1, 1)};

    (void)state;
    x = at_concat(b.o, 1, 3, parts);
    assert_shape(x, SHAPE(2, 7));
    assert_near(x, (double[]){1, 2, 3, 3, 1, 2, 3, 4, 5, 6, 6, 4, 5, 6}, 14, 0);
    assert_near(at_concat(b.o, 0, 2, rows), (double[]){1, 2, 3, 4, 5, 6, 4, 5, 6}, 9, 0);
    REFUSED(&b, at_concat(b.o, 0, 2, parts), AT_EINVAL, "concat", "part 1 f32 [2, 1]", "[2, 3]");
    REFUSED(&b, at_concat(b.o, 2, 2, rows), AT_EINVAL, "along 2");
    REFUSED(&b, at_concat(b.o, 0, 0, rows), AT_EINVAL, "0 tensors");
    parts[1] = NULL;
    REFUSED(&b, at_concat(b.o, 1, 3, parts), AT_EINVAL, "missing");
    bench_close(&b);
}

static void a_weight_is_lent_or_expanded(void **state)
{
    bench b = bench_open();
    at_weight *w = weight_of(&b, (float[]){1, 2, 3, 4}, SHAPE(2, 2)), scaled = *w, shape_only = *w;
    at_tensor *t = at_weight_tensor(b.o, w, AT_F32);
    size_t live;

    (void)state;
    assert_ptr_equal(at_tensor_data(t), w->data); // lent
    scaled.scale = 0.5f;
    assert_near(at_weight_tensor(b.o, &scaled, AT_F32), (double[]){0.5, 1, 1.5, 2}, 4, 0);
    t = at_weight_tensor(b.o, &scaled, AT_BF16);
    assert_int_equal(t->dtype, AT_BF16);
    assert_near(t, (double[]){0.5, 1, 1.5, 2}, 4, 0);
    shape_only.data = NULL;
    REFUSED(&b, at_weight_tensor(b.o, &shape_only, AT_F32), AT_EUNSUPPORTED, w->name, "shape");
    REFUSED(&b, at_weight_tensor(b.o, NULL, AT_F32), AT_EINVAL, "missing");
    t = at_ops_keep(b.o, at_weight_tensor(b.o, w, AT_F32));
    live = at_mem_get_stats().live_bytes;
    bench_close(&b); // the lent tensor keeps the store alive
    assert_true(at_mem_get_stats().live_bytes < live);
    assert_near(t, (double[]){1, 2, 3, 4}, 4, 0);
    at_tensor_release(&t);
    assert_int_equal(at_mem_get_stats().live_bytes, b.live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reshape_solves_one_open_dimension),
        cmocka_unit_test(a_strided_part_is_split_without_a_copy),
        cmocka_unit_test(reshape_keeps_the_order_of_elements),
        cmocka_unit_test(casts_convert_and_keep_what_fits),
        cmocka_unit_test(zeros_are_zero_and_empty_is_only_a_shape),
        cmocka_unit_test(concat_joins_views_along_any_dimension),
        cmocka_unit_test(a_weight_is_lent_or_expanded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
