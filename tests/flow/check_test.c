// SPDX-License-Identifier: Apache-2.0
// check_test.c - validation against ComfyUI's recorded answers, and the corners that the traces
// leave out.
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "kit.h"

#define IMAGE "\"1\": {\"class_type\": \"EmptyImage\", \"inputs\": {%s}}"
#define SAVE                                                                                       \
    "\"2\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\": [\"1\", 0], "                 \
    "\"filename_prefix\": \"x\"}}"

static kit k;

static int setup(void **state)
{
    (void)state;
    kit_make(&k, AT_CACHE_CLASSIC, 0);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    kit_free(&k);
    return 0;
}

static void drop_tracebacks(json_t *v)
{
    const char *key;
    json_t *item;
    size_t i;

    json_object_del(v, "traceback");
    json_object_foreach(v, key, item) drop_tracebacks(item);
    json_array_foreach(v, i, item) drop_tracebacks(item);
}

static json_t *answer(void)
{
    json_t *body = json_object();

    json_object_set(body, "error", k.check.error);
    json_object_set(body, "node_errors", k.check.node_errors);
    drop_tracebacks(body);
    return body;
}

// The recorded answer: [status, body].
static void assert_answers_like(const char *trace, const char *workflow)
{
    json_t *all = kit_golden("traces.json");
    json_t *want = json_array_get(json_object_get(all, trace), 1), *got;

    assert_non_null(want);
    assert_int_equal(kit_check(&k, workflow), AT_EWORKFLOW);
    assert_int_equal(k.check.output_count, 0);
    got = answer();
    assert_true(kit_same(got, want));
    json_decref(got);
    json_decref(all);
}

static void traces_of_validation_are_matched(void **state)
{
    static const struct {
        const char *trace, *workflow;
    } rows[] = {
        {"val_no_class_type", "{\"1\": {\"inputs\": {}}}"},
        {"val_unknown_class", "{\"1\": {\"class_type\": \"Nope\", \"inputs\": {}}}"},
        {"val_no_outputs", "{\"1\": {\"class_type\": \"EmptyImage\", \"inputs\": {\"width\": 1}}}"},
        {"val_missing_required",
         "{\"1\": {\"class_type\": \"EmptyImage\", \"inputs\": {\"width\": 64}}," SAVE "}"},
        {"val_min",
         "{\"1\": {\"class_type\": \"EmptyImage\", \"inputs\": {\"width\": 0, \"height\": 64, "
         "\"batch_size\": 1, \"color\": 0}}," SAVE "}"},
        {"val_badint", "{\"1\": {\"class_type\": \"EmptyImage\", \"inputs\": {\"width\": \"abc\", "
                       "\"height\": 64, "
                       "\"batch_size\": 1, \"color\": 0}}," SAVE "}"},
        {"val_badlink3", "{\"1\": {\"class_type\": \"EmptyImage\", \"inputs\": {\"width\": [\"1\", "
                         "0, 0], \"height\": 64, "
                         "\"batch_size\": 1, \"color\": 0}}," SAVE "}"},
        {"val_type_mismatch", "{\"3\": {\"class_type\": \"EmptyLatentImage\", \"inputs\": "
                              "{\"width\": 64, \"height\": 64, \"batch_size\": 1}},"
                              "\"2\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\": "
                              "[\"3\", 0], \"filename_prefix\": \"x\"}}}"},
        {"val_cycle", "{\"5\": {\"class_type\": \"ImageScale\", \"inputs\": {\"image\": [\"6\", "
                      "0], \"upscale_method\": \"area\", "
                      "\"width\": 1, \"height\": 1, \"crop\": \"disabled\"}},"
                      "\"6\": {\"class_type\": \"ImageScale\", \"inputs\": {\"image\": [\"5\", 0], "
                      "\"upscale_method\": \"area\", "
                      "\"width\": 1, \"height\": 1, \"crop\": \"disabled\"}},"
                      "\"2\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\": [\"5\", 0], "
                      "\"filename_prefix\": \"x\"}}}"},
        {"val_combo", "{\"1\": {\"class_type\": \"EmptyImage\", \"inputs\": {\"width\": 64, "
                      "\"height\": 64, \"batch_size\": 1, \"color\": 0}},"
                      "\"5\": {\"class_type\": \"ImageScale\", \"inputs\": {\"image\": [\"1\", 0], "
                      "\"upscale_method\": \"zzz\", "
                      "\"width\": 1, \"height\": 1, \"crop\": \"disabled\"}},"
                      "\"2\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\": [\"5\", 0], "
                      "\"filename_prefix\": \"x\"}}}"},
    };
    (void)state;
    for (size_t i = 0; i < AT_COUNT(rows); i++) {
        print_message("  %s\n", rows[i].trace);
        assert_answers_like(rows[i].trace, rows[i].workflow);
    }
}

static void a_request_without_a_workflow_is_answered(void **state)
{
    json_t *all = kit_golden("traces.json"), *got;

    (void)state;
    assert_int_equal(at_check_no_prompt(&k.check), AT_OK);
    got = answer();
    assert_true(kit_same(got, json_array_get(json_object_get(all, "val_no_prompt"), 1)));
    json_decref(got);
    json_decref(all);
}

static void a_good_output_runs_although_another_is_bad(void **state)
{
    json_t *all = kit_golden("traces.json"), *want;

    (void)state;
    want = json_object_get(json_array_get(json_object_get(all, "val_partial_ok_two_outputs"), 1),
                           "node_errors");
    assert_int_equal(
        kit_check(
            &k,
            "{\"1\": {\"class_type\": \"EmptyImage\", \"inputs\": {\"width\": 64, \"height\": 64, "
            "\"batch_size\": 1, \"color\": 0}}," SAVE ","
            "\"3\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\": [\"99\", 0], "
            "\"filename_prefix\": \"x\"}}}"),
        AT_OK);
    assert_int_equal(k.check.output_count, 1);
    assert_string_equal(k.check.outputs[0], "2");
    assert_null(k.check.error);
    drop_tracebacks(k.check.node_errors);
    assert_true(kit_same(k.check.node_errors, want));
    json_decref(all);
}

// One input of EmptyImage or SeedNode given as JSON; the first error of node 1 as "type: details".
static void assert_complains(const char *node, const char *want)
{
    char workflow[1024];
    const json_t *e;
    at_str got = {0};

    snprintf(workflow, sizeof workflow, "{\"1\": %s," SAVE "}", node);
    kit_check(&k, workflow);
    e = json_array_get(json_object_get(json_object_get(k.check.node_errors, "1"), "errors"), 0);
    if (e) {
        at_str_printf(&got, "%s: %s: %s", json_string_value(json_object_get(e, "type")),
                      json_string_value(json_object_get(e, "message")),
                      json_string_value(json_object_get(e, "details")));
    }
    assert_string_equal(at_str_text(&got), want);
    at_str_free(&got);
}

#define WIDTH(v)                                                                                   \
    "{\"class_type\": \"EmptyImage\", \"inputs\": {\"width\": " v                                  \
    ", \"height\": 1, \"batch_size\": 1, \"color\": 0}}"
#define SEED(v)                                                                                    \
    "{\"class_type\": \"SeedNode\", \"inputs\": {\"seed\": " v                                     \
    ", \"model\": \"model3.safetensors\", \"flag\": 1, \"image\": \"a\"}}"

static void conversions_complain_as_python_does(void **state)
{
    (void)state;
    assert_complains(WIDTH("64.7"), "");
    assert_complains(WIDTH("\" 6_4 \""), "");
    assert_complains(WIDTH("true"), "");
    assert_complains(WIDTH("\"6.4\""),
                     "invalid_input_type: Failed to convert an input value to a INT value: "
                     "width, 6.4, invalid literal for int() with base 10: '6.4'");
    assert_complains(WIDTH("\"it's\""),
                     "invalid_input_type: Failed to convert an input value to a INT value: "
                     "width, it's, invalid literal for int() with base 10: \"it's\"");
    assert_complains(
        WIDTH("null"),
        "invalid_input_type: Failed to convert an input value to a INT value: width, None, "
        "int() argument must be a string, a bytes-like object or a real number, not 'NoneType'");
    assert_complains(
        WIDTH("{\"a\": [1.0, null, \"x\"]}"),
        "invalid_input_type: Failed to convert an input value to a INT value: width, {'a': [1.0, "
        "None, 'x']}, "
        "int() argument must be a string, a bytes-like object or a real number, not 'dict'");
    assert_complains(
        WIDTH("NaN"),
        "invalid_input_type: Failed to convert an input value to a INT value: width, nan, "
        "cannot convert float NaN to integer");
    assert_complains(
        WIDTH("Infinity"),
        "invalid_input_type: Failed to convert an input value to a INT value: width, inf, "
        "cannot convert float infinity to integer");
    assert_complains(WIDTH("1e30"), "value_bigger_than_max: Value 1000000000000000019884624838656 "
                                    "bigger than max of 16384: width");
    assert_complains(WIDTH("-1"), "value_smaller_than_min: Value -1 smaller than min of 1: width");
    assert_complains(WIDTH("\"99999\""),
                     "value_bigger_than_max: Value 99999 bigger than max of 16384: width");
    assert_complains(
        WIDTH("{\"__value__\": [1, 2]}"),
        "invalid_input_type: Failed to convert an input value to a INT value: width, [1, 2], "
        "int() argument must be a string, a bytes-like object or a real number, not 'list'");
    assert_complains(SEED("18446744073709551615"), "");
    assert_complains(SEED("18446744073709551616"),
                     "value_bigger_than_max: Value 18446744073709551616 bigger than max of "
                     "18446744073709551615: seed");
    assert_complains("{\"class_type\": \"StubMask\", \"inputs\": {\"value\": \"x\", \"width\": 1, "
                     "\"height\": 1, \"batch_size\": 1}}",
                     "");
}

static void floats_complain_as_python_does(void **state)
{
    const json_t *e;
    char workflow[512];
    static const char *const rows[][2] = {
        {"\"x\"", "value, x, could not convert string to float: 'x'"},
        {"null", "value, None, float() argument must be a string or a real number, not 'NoneType'"},
        {"1.5", "value"},
        {"\"-.5e-1\"", "value"},
    };

    (void)state;
    for (size_t i = 0; i < AT_COUNT(rows); i++) {
        snprintf(
            workflow, sizeof workflow,
            "{\"m\": {\"class_type\": \"StubMask\", \"inputs\": {\"value\": %s, \"width\": 1, "
            "\"height\": 1, \"batch_size\": 1}},"
            "\"3\": {\"class_type\": \"TestLazyMixImages\", \"inputs\": {\"mask\": [\"m\", 0]}},"
            "\"2\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\": [\"3\", 0]}}}",
            rows[i][0]);
        kit_check(&k, workflow);
        e = json_array_get(json_object_get(json_object_get(k.check.node_errors, "m"), "errors"), 0);
        assert_string_equal(json_string_value(json_object_get(e, "details")), rows[i][1]);
        if (i == 2)
            assert_string_equal(json_string_value(json_object_get(e, "message")),
                                "Value 1.5 bigger than max of 1.0");
        if (i == 3)
            assert_string_equal(json_string_value(json_object_get(e, "message")),
                                "Value -0.05 smaller than min of 0.0");
    }
}

static void links_that_lead_nowhere_are_exceptions(void **state)
{
    (void)state;
    // On the output itself.
    kit_check(&k, "{\"1\": {\"class_type\": \"EmptyImage\", \"inputs\": {}},"
                  "\"2\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\": [\"1\", 3], "
                  "\"filename_prefix\": \"x\"}}}");
    char *text = at_json_dump(k.check.error, 0);
    assert_string_equal(text, "{\"type\": \"prompt_outputs_failed_validation\", \"message\": "
                              "\"Prompt outputs failed validation\", "
                              "\"details\": \"Exception when validating node: tuple index out of "
                              "range\", \"extra_info\": {}}");
    at_free(text);
    // One level up it is an inner error, filed under the node that raised it.
    assert_complains(
        "{\"class_type\": \"ImageScale\", \"inputs\": {\"image\": [\"77\", 0], \"upscale_method\": "
        "\"area\", \"width\": 1, "
        "\"height\": 1, \"crop\": \"center\"}}",
        "exception_during_inner_validation: Exception when validating inner node: '77'");
    assert_complains(
        "{\"class_type\": \"EmptyImage\"}",
        "exception_during_inner_validation: Exception when validating inner node: 'inputs'");
    assert_complains("{\"class_type\": \"ImageScale\", \"inputs\": {\"image\": [\"2\", \"x\"]}}",
                     "exception_during_inner_validation: Exception when validating inner node: "
                     "tuple indices must be integers or slices, not str");
    assert_complains("{\"class_type\": \"ImageScale\", \"inputs\": {\"image\": [7, 0]}}",
                     "exception_during_inner_validation: Exception when validating inner node: 7");
    // A negative slot counts from the end, as in Python.
    assert_complains("{\"class_type\": \"ImageScale\", \"inputs\": {\"image\": [\"1\", -1], "
                     "\"upscale_method\": \"area\", \"width\": 1, "
                     "\"height\": 1, \"crop\": \"center\"}}",
                     "");
}

static void long_lists_are_not_sent_back(void **state)
{
    json_t *errors, *extra;

    (void)state;
    kit_check(&k, "{\"1\": {\"class_type\": \"SeedNode\", \"inputs\": {\"seed\": 1, \"model\": "
                  "\"no.ckpt\", \"flag\": \"false\", \"image\": 7}}}");
    errors = json_object_get(json_object_get(k.check.node_errors, "1"), "errors");
    assert_int_equal(json_array_size(errors), 1);
    assert_string_equal(json_string_value(json_object_get(json_array_get(errors, 0), "details")),
                        "model: 'no.ckpt' not in (list of length 25)");
    extra = json_object_get(json_array_get(errors, 0), "extra_info");
    assert_true(json_is_null(json_object_get(extra, "input_config")));
    // What was converted stays converted: truthiness of a text, text of a number.
    char *text =
        at_json_dump(json_object_get(json_object_get(at_graph_json(k.graph), "1"), "inputs"), 0);
    assert_string_equal(text,
                        "{\"seed\": 1, \"model\": \"no.ckpt\", \"flag\": true, \"image\": \"7\"}");
    at_free(text);
}

static void the_nodes_own_validator_speaks(void **state)
{
    const char *w =
        "{\"1\": {\"class_type\": \"FileNode\", \"inputs\": {\"image\": \"missing.png\"}}," SAVE
        "}";
    json_t *want = kit_json("[{\"type\": \"custom_validation_failed\", \"message\": \"Custom "
                            "validation failed for node\", "
                            "\"details\": \"image - Invalid image file: missing.png\", "
                            "\"extra_info\": {\"input_name\": \"image\"}}]");
    (void)state;
    assert_int_equal(kit_check(&k, w), AT_EWORKFLOW);
    assert_true(
        kit_same(json_object_get(json_object_get(k.check.node_errors, "1"), "errors"), want));
    json_decref(want);
    // A file that the list does not name, but that the validator accepts.
    assert_int_equal(kit_check(&k, "{\"1\": {\"class_type\": \"FileNode\", \"inputs\": {\"image\": "
                                   "\"sub/new.png [output]\"}}," SAVE "}"),
                     AT_OK);
}

static void partial_targets_choose_the_outputs(void **state)
{
    const char *w =
        "{\"1\": {\"class_type\": \"EmptyImage\", \"inputs\": {\"width\": 64, \"height\": 64, "
        "\"batch_size\": 1, \"color\": 0}}," SAVE
        ", \"3\": {\"class_type\": \"PreviewImage\", \"inputs\": {\"images\": [\"1\", 0]}}}";
    const char *three[] = {"3"}, *one[] = {"1"};
    at_check_result r;

    (void)state;
    assert_int_equal(kit_check(&k, w), AT_OK);
    assert_int_equal(k.check.output_count, 2);
    assert_int_equal(at_check(k.graph, k.registry, &k.files, three, 1, NULL, &r), AT_OK);
    assert_int_equal(r.output_count, 1);
    assert_string_equal(r.outputs[0], "3");
    at_check_result_free(&r);
    assert_int_equal(at_check(k.graph, k.registry, &k.files, one, 1, NULL, &r), AT_OK);
    assert_string_equal(json_string_value(json_object_get(r.error, "type")), "prompt_no_outputs");
    at_check_result_free(&r);
    assert_int_equal(at_check(k.graph, k.registry, &k.files, one, 0, NULL, &r), AT_OK);
    assert_string_equal(json_string_value(json_object_get(r.error, "type")), "prompt_no_outputs");
    at_check_result_free(&r);
}

static void a_chain_of_a_hundred_thousand_nodes_is_checked(void **state)
{
    at_str s = {0};

    (void)state;
    k.sink.emit = NULL; // progress_state names all nodes each time: too much for this test
    at_str_append(&s, "{\"0\": {\"class_type\": \"IntAdd\", \"inputs\": {\"a\": 1, \"b\": 1}}");
    for (int i = 1; i < 100000; i++) {
        at_str_printf(
            &s,
            ", \"%d\": {\"class_type\": \"IntAdd\", \"inputs\": {\"a\": [\"%d\", 0], \"b\": 1}}", i,
            i - 1);
    }
    at_str_append(&s,
                  ", \"end\": {\"class_type\": \"ShowInt\", \"inputs\": {\"a\": [\"99999\", 0]}}}");
    assert_int_equal(kit_run(&k, at_str_text(&s)), AT_OK);
    char *text = at_json_dump(k.outputs, 0);
    assert_string_equal(text, "{\"end\": {\"numbers\": [100001]}}");
    at_free(text);
    at_str_free(&s);
}

static void strange_prompts_are_refused_with_words(void **state)
{
    static const struct {
        const char *text, *message;
        at_status st;
    } rows[] = {
        {"{\"1\": ", "test: not valid JSON: expecting value: line 1 column 7 (byte 6 of 6)",
         AT_EWORKFLOW},
        {"{\"a\": 1,\n \"b\" 2}",
         "test: not valid JSON: expecting ':': line 2 column 6 (byte 14 of 16)", AT_EWORKFLOW},
        {"[1, 2]", "test: a workflow is a JSON object of nodes by id, not a list", AT_EWORKFLOW},
        {"7", "test: a workflow is a JSON object of nodes by id, not a plain value", AT_EWORKFLOW},
        {"", "test: not valid JSON: expecting value: line 1 column 1 (byte 0 of 0)", AT_EWORKFLOW},
    };

    (void)state;
    for (size_t i = 0; i < AT_COUNT(rows); i++) {
        assert_int_equal(kit_check(&k, rows[i].text), rows[i].st);
        assert_string_equal(at_error_text(), rows[i].message);
    }
    // Nodes that are no objects have no class.
    assert_int_equal(kit_check(&k, "{\"a\": \"b\"}"), AT_EWORKFLOW);
    assert_string_equal(json_string_value(json_object_get(k.check.error, "details")),
                        "Node ID '#a'");
    assert_int_equal(kit_check(&k, "{\"a\": {\"class_type\": [1], \"inputs\": {}}}"), AT_EWORKFLOW);
    assert_string_equal(json_string_value(json_object_get(k.check.error, "message")),
                        "Cannot execute because node [1] does not exist.");
    // The body of POST /prompt is unwrapped.
    assert_int_equal(kit_check(&k, "{\"client_id\": \"x\", \"prompt\": {\"1\": {\"class_type\": "
                                   "\"V3Node\", \"inputs\": {\"image\": \"one\"}}}}"),
                     AT_OK);
    assert_int_equal(at_graph_count(k.graph), 1);
}

static void errors_join_and_dependants_gather(void **state)
{
    json_t *deps, *want = kit_json("[\"4\", \"5\"]");

    (void)state;
    assert_int_equal(
        kit_check(
            &k, "{\"1\": {\"class_type\": \"EmptyImage\", \"inputs\": {\"width\": 0, \"height\": "
                "1, \"batch_size\": 1, \"color\": 0}},"
                "\"4\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\": [\"1\", 0]}},"
                "\"5\": {\"class_type\": \"PreviewImage\", \"inputs\": {\"images\": [\"1\", 0]}}}"),
        AT_EWORKFLOW);
    assert_string_equal(json_string_value(json_object_get(k.check.error, "details")),
                        "Required input is missing: filename_prefix");
    deps = json_object_get(json_object_get(k.check.node_errors, "1"), "dependent_outputs");
    assert_true(kit_same(deps, want));
    json_decref(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(traces_of_validation_are_matched, setup, teardown),
        cmocka_unit_test_setup_teardown(a_request_without_a_workflow_is_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(a_good_output_runs_although_another_is_bad, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(conversions_complain_as_python_does, setup, teardown),
        cmocka_unit_test_setup_teardown(floats_complain_as_python_does, setup, teardown),
        cmocka_unit_test_setup_teardown(links_that_lead_nowhere_are_exceptions, setup, teardown),
        cmocka_unit_test_setup_teardown(long_lists_are_not_sent_back, setup, teardown),
        cmocka_unit_test_setup_teardown(the_nodes_own_validator_speaks, setup, teardown),
        cmocka_unit_test_setup_teardown(partial_targets_choose_the_outputs, setup, teardown),
        cmocka_unit_test_setup_teardown(a_chain_of_a_hundred_thousand_nodes_is_checked, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(strange_prompts_are_refused_with_words, setup, teardown),
        cmocka_unit_test_setup_teardown(errors_join_and_dependants_gather, setup, teardown),
    };
    return cmocka_run_group_tests_name("flow.check", tests, NULL, NULL);
}
