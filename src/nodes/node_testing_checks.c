// SPDX-License-Identifier: Apache-2.0
// node_testing_checks.c - nodes of ComfyUI's test suite that check their inputs themselves, say that they
// changed, or take inputs that their table does not know.
// Source: ComfyUI 0.3.64, behaviour of tests/execution/testing_nodes/testing-pack (specific_tests, async).
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "nodes/nodes.h"
#include "nodes/pixels.h"
#include "nodes/testing.h"

enum { SIDE = 512 }; // of pictures that come from numbers

// A white picture times `value`.
static at_status grey(const char *node, double value, at_value *out)
{
    at_tensor *t = NULL;
    float *p;
    at_status st = at_pixels_new(node, 1, SIDE, SIDE, 3, &t, &p);

    for (int64_t i = 0; st == AT_OK && i < at_tensor_count(t); i++)
        p[i] = (float)value;
    return st == AT_OK ? at_give_image(node, t, out) : st;
}
// A picture times `value`.
static at_status scaled(const char *node, const at_object *image, double value, at_value *out)
{
    at_tensor *t = NULL;
    at_pixels x;
    float *p;
    at_status st = AT_OK;

    AT_TRY(at_pixels_of(node, image, &x));
    AT_TRY(at_pixels_new(node, x.b, x.h, x.w, x.c, &t, &p));
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        p[i] = x.p[i] * (float)value;
    st = at_give_image(node, t, out);
out:
    return st;
}

// --- TestVariadicAverage -------------------------------------------------------------------------
typedef struct average_in {
    at_object *input1;
} average_in;
static const at_in average_rows[] = {AT_ROW_LINK_BARE(average_in, input1, "IMAGE")};

static at_status average_run(at_node_ctx *c, const void *in, at_value *out)
{
    static const char node[] = "TestVariadicAverage";
    at_status st = AT_OK;
    at_tensor *t = NULL;
    at_pixels first, x;
    const at_value *more;
    char name[32];
    float *p;
    int n = 1;

    AT_TRY(at_pixels_of(node, ((const average_in *)in)->input1, &first));
    AT_TRY(at_pixels_new(node, first.b, first.h, first.w, first.c, &t, &p));
    memcpy(p, first.p, at_tensor_bytes(t));
    for (;; n++) {
        snprintf(name, sizeof name, "input%d", n + 1);
        more = at_node_more(c, name);
        if (!more) break;
        if (more->kind != AT_VAL_OBJECT) AT_TRY(at_fail(AT_EINVAL, "%s: no picture", name));
        AT_TRY(at_pixels_of(node, more->o, &x));
        if (x.b != first.b || x.h != first.h || x.w != first.w || x.c != first.c)
            AT_TRY(at_fail(AT_EDEVICE, "stack expects each tensor to be equal size"));
        for (int64_t i = 0; i < at_tensor_count(t); i++)
            p[i] += x.p[i];
    }
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        p[i] /= (float)n;
    st = at_give_image(node, t, out);
    t = NULL;
out:
    at_tensor_release(&t);
    return st;
}
const at_node at_node_test_average = {.class_type = "TestVariadicAverage",
                                      .display = "Variadic Average",
                                      .category = "Testing/Nodes",
                                      .flags = AT_NODE_TEST | AT_NODE_VARIADIC,
                                      .python_module = "custom_nodes.testing-pack",
                                      .in = average_rows,
                                      .n_in = AT_COUNT(average_rows),
                                      .in_size = sizeof(average_in),
                                      .out = at_image_out,
                                      .n_out = 1,
                                      .run = average_run};

// --- changed? ------------------------------------------------------------------------------------
typedef struct changed_in {
    at_object *image;
    at_value should_change;
    double value;
} changed_in;
static const at_in changed_rows[] = {AT_ROW_LINK_BARE(changed_in, image, "IMAGE"),
                                     AT_ROW(changed_in, should_change, AT_IN_ANY,
                                            .type_name = "BOOL", .flags = AT_INF_OPTIONAL,
                                            .extra = "{\"default\": false}")};
static at_status changed_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return at_give_same(((const changed_in *)in)->image, out);
}
static at_status changed_print(at_node_ctx *c, const void *in, char **out)
{
    const at_value *v = &((const changed_in *)in)->should_change;
    (void)c;
    if ((v->kind == AT_VAL_BOOL && v->b) || (v->kind == AT_VAL_INT && v->i))
        return at_fail(AT_EINVAL, "NaN: it is new each time");
    *out = at_strdup("False");
    return *out ? AT_OK : at_fail(AT_ENOMEM, "TestCustomIsChanged: no memory");
}
const at_node at_node_test_changed =
    AT_TEST_NODE("TestCustomIsChanged", "Custom IsChanged", "Testing/Nodes", changed_rows,
                 changed_in, at_image_out, changed_run, .fingerprint = changed_print);

#define SCALE_ROWS                                                                                 \
    AT_ROW_LINK_BARE(changed_in, image, "IMAGE"),                                                  \
        AT_ROW(changed_in, value, AT_IN_FLOAT, .def = 1, .min = 0, .max = 10,                      \
               .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX)
static const at_in scale_rows[] = {SCALE_ROWS};
static at_status scale_run(at_node_ctx *c, const void *in, at_value *out)
{
    const changed_in *i = in;
    (void)c;
    return scaled("TestIsChangedWithConstants", i->image, i->value, out);
}
static at_status scale_print(at_node_ctx *c, const void *in, char **out)
{
    (void)c; // the picture is never there: fingerprints see constants alone
    *out = at_strprintf("%.17g", ((const changed_in *)in)->value);
    return *out ? AT_OK : at_fail(AT_ENOMEM, "TestIsChangedWithConstants: no memory");
}
const at_node at_node_test_changed_constants =
    AT_TEST_NODE("TestIsChangedWithConstants", "IsChanged With Constants", "Testing/Nodes",
                 scale_rows, changed_in, at_image_out, scale_run, .fingerprint = scale_print);
const at_node at_node_test_scaled = {.class_type = "TestOutputNodeWithSocketOutput",
                                     .display = "Test Output Node With Socket Output",
                                     .category = "_for_testing",
                                     .flags = AT_NODE_TEST | AT_NODE_OUTPUT,
                                     .python_module = "custom_nodes.testing-pack",
                                     .in = scale_rows,
                                     .n_in = AT_COUNT(scale_rows),
                                     .in_size = sizeof(changed_in),
                                     .out = at_image_out,
                                     .n_out = 1,
                                     .run = scale_run};

// --- checks of pictures or numbers ---------------------------------------------------------------
typedef struct either_in {
    at_value input1, input2;
} either_in;
static const at_in either_rows[] = {
    AT_ROW(either_in, input1, AT_IN_ANY, .type_name = "IMAGE,FLOAT", .flags = AT_INF_NO_OPTIONS),
    AT_ROW(either_in, input2, AT_IN_ANY, .type_name = "IMAGE,FLOAT", .flags = AT_INF_NO_OPTIONS)};

static at_status either_check(at_node_ctx *c, const void *in)
{
    const either_in *i = in;
    const at_value *v[] = {&i->input1, &i->input2};
    const char *names[] = {"input1", "input2"};

    for (int k = 0; k < 2; k++) {
        if (at_node_linked(c, names[k]) || v[k]->kind == AT_VAL_NONE || v[k]->kind == AT_VAL_FLOAT)
            continue;
        return at_fail(AT_EINVAL, "Invalid type of %s: <class '%s'>", names[k],
                       v[k]->kind == AT_VAL_INT      ? "int"
                       : v[k]->kind == AT_VAL_STRING ? "str"
                       : v[k]->kind == AT_VAL_BOOL   ? "bool"
                                                     : "list");
    }
    return AT_OK;
}
static at_status either_run(at_node_ctx *c, const void *in, at_value *out)
{
    static const char node[] = "TestCustomValidation1";
    const at_value *a = &((const either_in *)in)->input1, *b = &((const either_in *)in)->input2;

    (void)c;
    if (a->kind == AT_VAL_FLOAT && b->kind == AT_VAL_FLOAT) return grey(node, a->f * b->f, out);
    if (a->kind == AT_VAL_OBJECT && b->kind == AT_VAL_FLOAT) return scaled(node, a->o, b->f, out);
    if (a->kind == AT_VAL_FLOAT && b->kind == AT_VAL_OBJECT) return scaled(node, b->o, a->f, out);
    return at_fail(AT_EUNSUPPORTED, "%s: a picture and a number, or two numbers", node);
}
const at_node at_node_test_check1 = AT_TEST_NODE(
    "TestCustomValidation1", "Custom Validation 1", "Testing/Nodes", either_rows, either_in,
    at_image_out, either_run, .validate = either_check, .validates = "input1,input2");
const at_node at_node_test_check2 = AT_TEST_NODE(
    "TestCustomValidation2", "Custom Validation 2", "Testing/Nodes", either_rows, either_in,
    at_image_out, either_run, .validate = either_check, .validates = "input1,input2");
const at_node at_node_test_check3 =
    AT_TEST_NODE("TestCustomValidation3", "Custom Validation 3", "Testing/Nodes", either_rows,
                 either_in, at_image_out, either_run);

typedef struct numbers_in {
    double input1, input2;
} numbers_in;
static const at_in numbers_rows[] = {
    AT_ROW(numbers_in, input1, AT_IN_FLOAT, .flags = AT_INF_NO_OPTIONS),
    AT_ROW(numbers_in, input2, AT_IN_FLOAT, .flags = AT_INF_NO_OPTIONS)};
static const at_in ranged_rows[] = {
    AT_ROW(numbers_in, input1, AT_IN_FLOAT, .min = 0, .max = 1,
           .flags = AT_INF_NO_DEFAULT | AT_INF_HAS_MIN | AT_INF_HAS_MAX),
    AT_ROW(numbers_in, input2, AT_IN_FLOAT, .min = 0, .max = 1,
           .flags = AT_INF_NO_DEFAULT | AT_INF_HAS_MIN | AT_INF_HAS_MAX)};
static at_status numbers_run(at_node_ctx *c, const void *in, at_value *out)
{
    const numbers_in *i = in;
    (void)c;
    return grey("TestCustomValidation4", i->input1 * i->input2, out);
}
static at_status no_sevens(at_node_ctx *c, const void *in)
{
    (void)c;
    return ((const numbers_in *)in)->input2 == 7
               ? at_fail(AT_EINVAL, "7s are not allowed. I've never liked 7s.")
               : AT_OK;
}
const at_node at_node_test_check4 =
    AT_TEST_NODE("TestCustomValidation4", "Custom Validation 4", "Testing/Nodes", numbers_rows,
                 numbers_in, at_image_out, numbers_run);
const at_node at_node_test_check5 =
    AT_TEST_NODE("TestCustomValidation5", "Custom Validation 5", "Testing/Nodes", ranged_rows,
                 numbers_in, at_image_out, numbers_run, .validate = no_sevens, .validates = "*");

// --- checks that wait in ComfyUI -----------------------------------------------------------------
typedef struct limit_in {
    double value, limit;
} limit_in;
#define LIMIT_ROWS(label)                                                                          \
    AT_ROW(limit_in, value, AT_IN_FLOAT, .def = 5),                                                \
    {                                                                                              \
        .name = label, .type = AT_IN_FLOAT, .offset = offsetof(limit_in, limit), .def = 10         \
    }
static const at_in threshold_rows[] = {LIMIT_ROWS("threshold")},
                   max_rows[] = {LIMIT_ROWS("max_value")};

static at_status threshold_check(at_node_ctx *c, const void *in)
{
    const limit_in *i = in;
    (void)c;
    return i->value > i->limit
               ? at_fail(AT_EINVAL, "Value %.17g exceeds threshold %.17g", i->value, i->limit)
               : AT_OK;
}
static at_status threshold_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return grey("TestAsyncValidation", ((const limit_in *)in)->value / 10, out);
}
static at_status max_check(at_node_ctx *c, const void *in)
{
    const limit_in *i = in;
    (void)c;
    return i->value > i->limit
               ? at_fail(AT_EINVAL, "Async validation failed: %.17g > %.17g", i->value, i->limit)
               : AT_OK;
}
static at_status max_run(at_node_ctx *c, const void *in, at_value *out)
{
    const limit_in *i = in;
    (void)c;
    return grey("TestAsyncValidationError", i->value / i->limit, out);
}
const at_node at_node_test_check_value = AT_TEST_NODE(
    "TestAsyncValidation", "Test Async Validation", "_for_testing/async", threshold_rows, limit_in,
    at_image_out, threshold_run, .validate = threshold_check, .validates = "value,threshold");
const at_node at_node_test_check_max = AT_TEST_NODE(
    "TestAsyncValidationError", "Test Async Validation Error", "_for_testing/async", max_rows,
    limit_in, at_image_out, max_run, .validate = max_check, .validates = "value,max_value");
