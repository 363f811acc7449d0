// SPDX-License-Identifier: Apache-2.0
// value_test.c - values own one reference; Python's conversions and comparisons.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/mem.h"
#include "flow/fill.h"
#include "flow/python.h"

static int freed;

static void count_free(at_object *o)
{
    freed++;
    at_free(o);
}
static const at_object_type thing = {"THING", count_free};

static void objects_are_freed_with_the_last_value(void **state)
{
    at_object *o = at_calloc(1, sizeof *o);
    at_value a, b;

    (void)state;
    assert_non_null(o);
    o->refs = 1;
    o->type = &thing;
    freed = 0;
    a = at_value_object(o);
    b = at_value_copy(&a);
    at_value_clear(&a);
    assert_int_equal(freed, 0);
    assert_int_equal(a.kind, AT_VAL_NONE);
    at_value_clear(&b);
    at_value_clear(&b);
    assert_int_equal(freed, 1);
    at_object_release(NULL);
    assert_null(at_object_retain(NULL));
    assert_int_equal(at_value_object(NULL).kind, AT_VAL_NONE);
}

static void text_that_could_not_be_copied_is_nothing(void **state)
{
    at_value a = at_value_string("text"), b, silent = at_value_blocker(NULL);

    (void)state;
    at_mem_fail_at(1, false);
    b = at_value_copy(&a);
    assert_int_equal(b.kind, AT_VAL_NONE);
    at_mem_fail_at(1, false);
    assert_int_equal(at_value_blocker("why").kind, AT_VAL_NONE);
    at_mem_fail_at(0, false);
    b = at_value_copy(&silent);
    assert_int_equal(b.kind, AT_VAL_BLOCKER);
    assert_null(b.s);
    at_value_clear(&a);
}

static json_t *load(const char *text)
{
    json_t *v = NULL;

    assert_int_equal(at_json_load("t", text, strlen(text), &v), AT_OK);
    return v;
}

// int(text) or float(text) as text, or "Type: message".
static void assert_converts(bool to_int, const char *text, const char *want)
{
    json_t *v = load(text), *out = NULL;
    at_pyerr e = {0};
    at_status st = to_int ? at_py_int(v, &out, &e) : at_py_float(v, &out, &e);
    at_str s = {0};

    if (st == AT_OK) {
        at_py_repr(&s, out);
    } else {
        assert_int_equal(st, AT_EINVAL);
        at_str_printf(&s, "%s: %s", e.type, e.text);
    }
    assert_string_equal(at_str_text(&s), want);
    at_str_free(&s);
    at_pyerr_clear(&e);
    json_decref(out);
    json_decref(v);
}

static void int_reads_what_pythons_int_reads(void **state)
{
    static const char *const rows[][2] = {
        {"64.7", "64"},
        {"-64.7", "-64"},
        {"false", "0"},
        {"\"  +0012 \"", "12"},
        {"\"1_000\"", "1000"},
        {"\"1__0\"", "ValueError: invalid literal for int() with base 10: '1__0'"},
        {"\"_1\"", "ValueError: invalid literal for int() with base 10: '_1'"},
        {"\"\"", "ValueError: invalid literal for int() with base 10: ''"},
        {"\"0x10\"", "ValueError: invalid literal for int() with base 10: '0x10'"},
        {"\"- 1\"", "ValueError: invalid literal for int() with base 10: '- 1'"},
        {"\"9223372036854775807\"", "9223372036854775807"},
        {"\"9223372036854775808\"", "9223372036854775808"},
        {"\"-9223372036854775808\"", "-9223372036854775808"},
        {"\"-9223372036854775809\"", "-9223372036854775809"},
        {"\"00018446744073709551616\"", "18446744073709551616"},
        {"1e20", "100000000000000000000"},
        {"9.3e18", "9300000000000000000"},
        {"9.15e18", "9150000000000000000"},
    };

    (void)state;
    for (size_t i = 0; i < AT_COUNT(rows); i++)
        assert_converts(true, rows[i][0], rows[i][1]);
}

static void float_reads_what_pythons_float_reads(void **state)
{
    static const char *const rows[][2] = {
        {"1", "1.0"},
        {"true", "1.0"},
        {"\" 1_0.5e0_1 \"", "105.0"},
        {"\".5\"", "0.5"},
        {"\"5.\"", "5.0"},
        {"\"+iNf\"", "inf"},
        {"\"-Infinity\"", "-inf"},
        {"\"nan\"", "nan"},
        {"\"1e999\"", "inf"},
        {"\"0x1p3\"", "ValueError: could not convert string to float: '0x1p3'"},
        {"\"1e\"", "ValueError: could not convert string to float: '1e'"},
        {"\".\"", "ValueError: could not convert string to float: '.'"},
        {"\"1\\t2\"", "ValueError: could not convert string to float: '1\\t2'"},
        {"18446744073709551615", "1.8446744073709552e+19"},
    };

    (void)state;
    for (size_t i = 0; i < AT_COUNT(rows); i++)
        assert_converts(false, rows[i][0], rows[i][1]);
}

static void repr_quotes_and_escapes_as_python_does(void **state)
{
    json_t *v = load("[\"it's\", \"\\\"\", \"'\\\"\", \"a\\\\b\\n\\u0001\\u007f\\u00a0\\u00e9\", "
                     "{\"k\": null}, -0.0, true]");
    at_str s = {0};

    (void)state;
    at_py_repr(&s, v);
    assert_string_equal(
        at_str_text(&s),
        "[\"it's\", '\"', '\\'\"', 'a\\\\b\\n\\x01\\x7f\\xa0\xc3\xa9', {'k': None}, -0.0, True]");
    at_str_free(&s);
    json_decref(v);
}

static void truth_and_equality_are_pythons(void **state)
{
    static const struct {
        const char *text;
        bool truth;
    } rows[] = {{"\"false\"", true}, {"\"\"", false}, {"0.0", false}, {"NaN", true},
                {"[]", false},       {"[0]", true},   {"{}", false},  {"null", false}};
    json_t *one = load("1"), *yes = load("true"), *text = load("\"1\""),
           *big = load("18446744073709551615");

    (void)state;
    for (size_t i = 0; i < AT_COUNT(rows); i++) {
        json_t *v = load(rows[i].text);
        assert_int_equal(at_py_truth(v), rows[i].truth);
        json_decref(v);
    }
    assert_true(at_py_equal(one, yes));
    assert_false(at_py_equal(one, text));
    assert_true(at_py_equal(big, big));
    assert_false(at_py_equal(big, one));
    json_decref(one);
    json_decref(yes);
    json_decref(text);
    json_decref(big);
}

typedef struct fields {
    int64_t i;
    uint64_t u;
    double f;
    bool b;
} fields;
static void fields_take_what_fits_and_refuse_the_rest(void **state)
{
    static const at_in i = {
        .name = "i", .type = AT_IN_INT, .offset = offsetof(fields, i), .def = 5};
    static const at_in u = {
        .name = "u", .type = AT_IN_U64, .offset = offsetof(fields, u), .def = 0x1p64};
    static const at_in f = {.name = "f", .type = AT_IN_FLOAT, .offset = offsetof(fields, f)};
    at_value big = {.kind = AT_VAL_UINT, .u = UINT64_MAX}, minus = at_value_int(-1),
             half = at_value_float(2.5), none = {0};
    at_value huge = at_value_float(1e300), nan = at_value_float(0.0 / 0.0);
    at_node n = {.class_type = "N"};
    fields s;

    (void)state;
    assert_int_equal(at_fill_row(&n, &i, &none, &s), AT_OK);
    assert_int_equal(s.i, 5);
    assert_int_equal(at_fill_row(&n, &u, NULL, &s), AT_OK);
    assert_true(s.u == UINT64_MAX);
    assert_int_equal(at_fill_row(&n, &u, &big, &s), AT_OK);
    assert_int_equal(at_fill_row(&n, &i, &big, &s), AT_EINVAL);
    assert_string_equal(at_error_text(), "input i: the number does not fit 64 bits");
    assert_int_equal(at_fill_row(&n, &u, &minus, &s), AT_EINVAL);
    assert_int_equal(at_fill_row(&n, &i, &half, &s), AT_OK);
    assert_int_equal(s.i, 2);
    assert_int_equal(at_fill_row(&n, &i, &huge, &s), AT_EINVAL);
    assert_int_equal(at_fill_row(&n, &i, &nan, &s), AT_EINVAL);
    assert_int_equal(at_fill_row(&n, &f, &minus, &s), AT_OK);
    assert_true(s.f == -1.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_are_freed_with_the_last_value),
        cmocka_unit_test(text_that_could_not_be_copied_is_nothing),
        cmocka_unit_test(int_reads_what_pythons_int_reads),
        cmocka_unit_test(float_reads_what_pythons_float_reads),
        cmocka_unit_test(repr_quotes_and_escapes_as_python_does),
        cmocka_unit_test(truth_and_equality_are_pythons),
        cmocka_unit_test(fields_take_what_fits_and_refuse_the_rest),
    };
    return cmocka_run_group_tests_name("flow.value", tests, NULL, NULL);
}
