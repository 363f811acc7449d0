// SPDX-License-Identifier: Apache-2.0
// node_testing_logic.c - numbers, texts and truth of ComfyUI's test suite: stubs, comparisons, arithmetic.
// Source: ComfyUI 0.3.64, behaviour of tests/execution/testing_nodes/testing-pack (stubs, conditions, util).
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "nodes/nodes.h"
#include "nodes/pixels.h"
#include "nodes/testing.h"
#include "text/py_regex.h"

static const at_out int_out[] = {AT_OUT("INT")}, float_out[] = {AT_OUT("FLOAT")},
                    bool_out[] = {AT_OUT("BOOLEAN")};

// --- StubInt, StubFloat --------------------------------------------------------------------------
typedef struct stub_in {
    int64_t i;
    double f;
} stub_in;
static const at_in int_rows[] = {{.name = "value",
                                  .type = AT_IN_INT,
                                  .offset = offsetof(stub_in, i),
                                  .min = -4294967295.0,
                                  .max = 4294967295.0,
                                  .step = 1,
                                  .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP}};
static const at_in float_rows[] = {{.name = "value",
                                    .type = AT_IN_FLOAT,
                                    .offset = offsetof(stub_in, f),
                                    .min = -1.0e38,
                                    .max = 1.0e38,
                                    .step = 0.01,
                                    .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP}};
static at_status int_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    *out = at_value_int(((const stub_in *)in)->i);
    return AT_OK;
}
static at_status float_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    *out = at_value_float(((const stub_in *)in)->f);
    return AT_OK;
}
const at_node at_node_test_int =
    AT_TEST_NODE("StubInt", "Stub Int", "Testing/Stub Nodes", int_rows, stub_in, int_out, int_run);
const at_node at_node_test_float = AT_TEST_NODE("StubFloat", "Stub Float", "Testing/Stub Nodes",
                                                float_rows, stub_in, float_out, float_run);

// --- comparisons ---------------------------------------------------------------------------------
typedef struct pair_in {
    int64_t ia, ib;
    double fa, fb;
    const char *sa, *sb, *operation;
    bool ba, bb, case_sensitive, invert;
    at_value value;
} pair_in;
static const char *const comparisons[] = {"==", "!=", "<", ">", "<=", ">=", NULL};
#define WIDE AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP
#define INT_ROW(label, field)                                                                      \
    {                                                                                              \
        .name = label, .type = AT_IN_INT, .offset = offsetof(pair_in, field),                      \
        .min = -18446744073709551615.0, .max = 18446744073709551615.0, .step = 1, .flags = WIDE    \
    }
#define FLOAT_ROW(label, field)                                                                    \
    {                                                                                              \
        .name = label, .type = AT_IN_FLOAT, .offset = offsetof(pair_in, field),                    \
        .min = -999999999999.0, .max = 999999999999.0, .step = 1, .flags = WIDE                    \
    }
#define CHOICE_ROW(list)                                                                           \
    AT_ROW(pair_in, operation, AT_IN_COMBO, .choices = list, .flags = AT_INF_NO_OPTIONS)
static const at_in ints_rows[] = {INT_ROW("a", ia), INT_ROW("b", ib), CHOICE_ROW(comparisons)};
static const at_in floats_rows[] = {FLOAT_ROW("a", fa), FLOAT_ROW("b", fb),
                                    CHOICE_ROW(comparisons)};

// How two numbers stand: order is -1, 0 or 1.
static at_value compared(const char *operation, int order)
{
    bool yes = strcmp(operation, "==") == 0   ? order == 0
               : strcmp(operation, "!=") == 0 ? order != 0
               : strcmp(operation, "<") == 0  ? order < 0
               : strcmp(operation, ">") == 0  ? order > 0
               : strcmp(operation, "<=") == 0 ? order <= 0
                                              : order >= 0;
    return at_value_bool(yes);
}
static at_status ints_run(at_node_ctx *c, const void *in, at_value *out)
{
    const pair_in *i = in;
    (void)c;
    *out = compared(i->operation, (i->ia > i->ib) - (i->ia < i->ib));
    return AT_OK;
}
static at_status floats_run(at_node_ctx *c, const void *in, at_value *out)
{
    const pair_in *i = in;
    (void)c;
    *out = compared(i->operation, (i->fa > i->fb) - (i->fa < i->fb));
    return AT_OK;
}
const at_node at_node_test_ints = AT_TEST_NODE(
    "TestIntConditions", "Int Condition", "Testing/Logic", ints_rows, pair_in, bool_out, ints_run);
const at_node at_node_test_floats =
    AT_TEST_NODE("TestFloatConditions", "Float Condition", "Testing/Logic", floats_rows, pair_in,
                 bool_out, floats_run);

static const char *const relations[] = {
    "a == b", "a != b", "a IN b", "a MATCH REGEX(b)", "a BEGINSWITH b", "a ENDSWITH b", NULL};
#define TEXT_ROW(label, field)                                                                     \
    {                                                                                              \
        .name = label, .type = AT_IN_STRING, .offset = offsetof(pair_in, field),                   \
        .flags = AT_INF_SINGLE_LINE | AT_INF_NO_DEFAULT                                            \
    }
static const at_in texts_rows[] = {TEXT_ROW("a", sa), TEXT_ROW("b", sb), CHOICE_ROW(relations),
                                   AT_ROW(pair_in, case_sensitive, AT_IN_BOOL, .def = 1)};

// re.match: the first match stands at the beginning; a pattern that is none matches nothing.
static bool matches(const char *text, const char *pattern)
{
    at_regex *re = NULL;
    at_py_matches m = {0};
    at_str whole = {0};
    at_status st;
    bool found = false;

    at_str_printf(&whole, "\\A(?:%s)", pattern);
    st = whole.failed ? AT_ENOMEM : at_py_regex_compile(at_str_text(&whole), 0, &re);
    if (st == AT_OK && at_py_matches_open(re, text, &m) == AT_OK) {
        found = at_py_matches_next(&m, &st) && st == AT_OK;
        at_py_matches_close(&m);
    }
    at_regex_free(re);
    at_str_free(&whole);
    at_error_clear();
    return found;
}
static bool related(const char *operation, const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);

    if (strcmp(operation, "a == b") == 0) return strcmp(a, b) == 0;
    if (strcmp(operation, "a != b") == 0) return strcmp(a, b) != 0;
    if (strcmp(operation, "a IN b") == 0) return strstr(b, a) != NULL;
    if (strcmp(operation, "a BEGINSWITH b") == 0) return strncmp(a, b, m) == 0;
    if (strcmp(operation, "a ENDSWITH b") == 0) return n >= m && strcmp(a + n - m, b) == 0;
    return matches(a, b);
}
// The suite's texts are ASCII.
static void lower(at_str *s, const char *text)
{
    for (; *text; text++)
        at_str_printf(s, "%c", *text >= 'A' && *text <= 'Z' ? *text + 32 : *text);
}
static at_status texts_run(at_node_ctx *c, const void *in, at_value *out)
{
    const pair_in *i = in;
    at_status st = AT_OK;
    at_str a = {0}, b = {0};

    (void)c;
    if (i->case_sensitive) {
        *out = at_value_bool(related(i->operation, i->sa ? i->sa : "", i->sb ? i->sb : ""));
        return AT_OK;
    }
    lower(&a, i->sa ? i->sa : "");
    lower(&b, i->sb ? i->sb : "");
    if (a.failed || b.failed) AT_TRY(at_fail(AT_ENOMEM, "TestStringConditions: no memory"));
    *out = at_value_bool(related(i->operation, at_str_text(&a), at_str_text(&b)));
out:
    at_str_free(&a);
    at_str_free(&b);
    return st;
}
const at_node at_node_test_texts =
    AT_TEST_NODE("TestStringConditions", "String Condition", "Testing/Logic", texts_rows, pair_in,
                 bool_out, texts_run);

// --- truth ---------------------------------------------------------------------------------------
// Python's bool(); a tensor is false if it is all zeros.
static bool truth_of(const at_value *v)
{
    at_pixels p;

    switch (v->kind) {
    case AT_VAL_NONE: return false;
    case AT_VAL_INT: return v->i != 0;
    case AT_VAL_UINT: return v->u != 0;
    case AT_VAL_FLOAT: return v->f != 0;
    case AT_VAL_BOOL: return v->b;
    case AT_VAL_STRING: return v->s[0] != '\0';
    case AT_VAL_JSON: return strcmp(v->s, "[]") != 0 && strcmp(v->s, "{}") != 0;
    case AT_VAL_BLOCKER: return true;
    case AT_VAL_OBJECT: break;
    }
    if (at_pixels_of("TestToBoolNode", v->o, &p) != AT_OK &&
        at_mask_of("TestToBoolNode", v->o, &p) != AT_OK) {
        at_error_clear();
        return true;
    }
    for (int64_t i = 0; i < p.b * p.h * p.w * p.c; i++)
        if (p.p[i] != 0) return true;
    return false;
}
static at_status bool_run(at_node_ctx *c, const void *in, at_value *out)
{
    const pair_in *i = in;
    (void)c;
    *out = at_value_bool(truth_of(&i->value) != i->invert);
    return AT_OK;
}
static const at_in bool_rows[] = {
    AT_ROW(pair_in, value, AT_IN_ANY, .type_name = "*", .flags = AT_INF_NO_OPTIONS),
    AT_ROW(pair_in, invert, AT_IN_BOOL, .flags = AT_INF_OPTIONAL)};
const at_node at_node_test_bool = AT_TEST_NODE("TestToBoolNode", "To Bool", "Testing/Logic",
                                               bool_rows, pair_in, bool_out, bool_run);

static const char *const gates[] = {"a AND b", "a OR b", "a XOR b", "NOT a", NULL};
#define BOOL_ROW(label, field)                                                                     \
    {                                                                                              \
        .name = label, .type = AT_IN_BOOL, .offset = offsetof(pair_in, field),                     \
        .flags = AT_INF_NO_OPTIONS                                                                 \
    }
static const at_in gate_rows[] = {BOOL_ROW("a", ba),
                                  BOOL_ROW("b", bb),
                                  {.name = "op",
                                   .type = AT_IN_COMBO,
                                   .offset = offsetof(pair_in, operation),
                                   .choices = gates,
                                   .flags = AT_INF_NO_OPTIONS}};
static at_status gate_run(at_node_ctx *c, const void *in, at_value *out)
{
    const pair_in *i = in;
    (void)c;
    *out = at_value_bool(strcmp(i->operation, "a AND b") == 0   ? i->ba && i->bb
                         : strcmp(i->operation, "a OR b") == 0  ? i->ba || i->bb
                         : strcmp(i->operation, "a XOR b") == 0 ? i->ba != i->bb
                                                                : !i->ba);
    return AT_OK;
}
const at_node at_node_test_gate =
    AT_TEST_NODE("TestBoolOperationNode", "Bool Operation", "Testing/Logic", gate_rows, pair_in,
                 bool_out, gate_run);

// --- TestIntMathOperation ------------------------------------------------------------------------
static const char *const operations[] = {"add",    "subtract", "multiply", "divide",
                                         "modulo", "power",    NULL};
static const at_in math_rows[] = {INT_ROW("a", ia), INT_ROW("b", ib), CHOICE_ROW(operations)};

// Python's // and %: towards minus infinity.
static at_status divide(int64_t a, int64_t b, bool rest, int64_t *out)
{
    if (b == 0) return at_fail(AT_EINVAL, "integer division or modulo by zero");
    if (b == -1) return __builtin_sub_overflow(0, a, out) ? at_fail(AT_EINVAL, "too large") : AT_OK;
    int64_t q = a / b, r = a % b;
    if (r != 0 && (r < 0) != (b < 0)) {
        q--;
        r += b;
    }
    *out = rest ? r : q;
    return AT_OK;
}
static bool power(int64_t a, int64_t b, int64_t *out)
{
    int64_t p = 1;
    for (; b > 0; b--) {
        if (__builtin_mul_overflow(p, a, &p)) return true;
        if ((p == 0 || p == 1) && b > 2) b = 1 + b % 2; // it stays, or alternates
    }
    *out = p;
    return b < 0;
}
static at_status math_run(at_node_ctx *c, const void *in, at_value *out)
{
    const pair_in *i = in;
    at_status st = AT_OK;
    int64_t a = i->ia, b = i->ib, y = 0;
    bool over = false;

    (void)c;
    if (strcmp(i->operation, "add") == 0) {
        over = __builtin_add_overflow(a, b, &y);
    } else if (strcmp(i->operation, "subtract") == 0) {
        over = __builtin_sub_overflow(a, b, &y);
    } else if (strcmp(i->operation, "multiply") == 0) {
        over = __builtin_mul_overflow(a, b, &y);
    } else if (strcmp(i->operation, "power") == 0) {
        over = power(a, b, &y);
    } else {
        AT_TRY(divide(a, b, strcmp(i->operation, "modulo") == 0, &y));
    }
    if (over) AT_TRY(at_fail(AT_EINVAL, "TestIntMathOperation: more than 64 bits"));
    *out = at_value_int(y);
out:
    return st;
}
const at_node at_node_test_math =
    AT_TEST_NODE("TestIntMathOperation", "Int Math Operation", "Testing/Logic", math_rows, pair_in,
                 int_out, math_run);

// --- TestExecutionBlocker ------------------------------------------------------------------------
typedef struct block_in {
    at_value input;
    bool block, verbose;
} block_in;
static const at_in block_rows[] = {
    AT_ROW(block_in, input, AT_IN_ANY, .type_name = "*", .flags = AT_INF_NO_OPTIONS),
    AT_ROW(block_in, block, AT_IN_BOOL, .flags = AT_INF_NO_OPTIONS),
    AT_ROW(block_in, verbose, AT_IN_BOOL)};
static at_status block_run(at_node_ctx *c, const void *in, at_value *out)
{
    const block_in *i = in;
    (void)c;
    *out = i->block ? at_value_blocker(i->verbose ? "Blocked Execution" : NULL)
                    : at_value_copy(&i->input);
    return out->kind == (i->block ? AT_VAL_BLOCKER : i->input.kind)
               ? AT_OK
               : at_fail(AT_ENOMEM, "TestExecutionBlocker: no memory");
}
static const at_out block_out[] = {{"*", "output"}};
const at_node at_node_test_block =
    AT_TEST_NODE("TestExecutionBlocker", "Execution Blocker", "Testing/Flow", block_rows, block_in,
                 block_out, block_run);
