// SPDX-License-Identifier: Apache-2.0
// dtype_test.c - the facts of every element type and all its spellings.
#include "tensor/dtype.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void both_names_parse_back(void **state)
{
    at_dtype got;

    (void)state;
    for (int t = 0; t < AT_DTYPE_COUNT; t++) {
        assert_true(at_dtype_size((at_dtype)t) > 0);
        assert_true(at_dtype_parse(at_dtype_name((at_dtype)t), &got));
        assert_int_equal(got, t);
        assert_true(at_dtype_parse(at_dtype_st_name((at_dtype)t), &got));
        assert_int_equal(got, t);
    }
}

static void spellings_of_torch_and_comfyui_parse(void **state)
{
    static const struct {
        const char *s;
        at_dtype t;
    } rows[] = {{"float32", AT_F32},       {"fp16", AT_F16},           {"bfloat16", AT_BF16},
                {"fp8_e4m3fn", AT_F8E4M3}, {"float8_e5m2", AT_F8E5M2}, {"F8_E4M3", AT_F8E4M3},
                {"BOOL", AT_BOOL},         {"int64", AT_I64}};
    at_dtype got;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_true(at_dtype_parse(rows[i].s, &got));
        assert_int_equal(got, rows[i].t);
    }
    assert_false(at_dtype_parse("", &got));
    assert_false(at_dtype_parse("f33", &got));
    assert_false(at_dtype_parse("F8_E8M0", &got));
}

static void floats_are_told_from_integers(void **state)
{
    (void)state;
    assert_true(at_dtype_is_float(AT_F8E5M2));
    assert_true(at_dtype_is_float(AT_F64));
    assert_false(at_dtype_is_float(AT_BOOL));
    assert_false(at_dtype_is_float(AT_I8));
    assert_int_equal(at_dtype_size(AT_DTYPE_COUNT), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_names_parse_back),
        cmocka_unit_test(spellings_of_torch_and_comfyui_parse),
        cmocka_unit_test(floats_are_told_from_integers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
