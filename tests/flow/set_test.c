// SPDX-License-Identifier: Apache-2.0
// set_test.c - NODE.INPUT=VALUE of the command line.
#include <string.h>

#include "base/mem.h"
#include "kit.h"

static kit k;
static const char workflow[] =
    "{\"1\": {\"class_type\": \"EmptyImage\", \"inputs\": {\"width\": 64}},"
    "\"2\": {\"class_type\": \"SeedNode\", \"inputs\": {}, \"_meta\": {\"title\": \"My. Seed\"}},"
    "\"3\": {\"class_type\": \"IntAdd\"}, \"4\": {\"class_type\": \"IntAdd\", \"inputs\": "
    "{\"dotted.name.\": 1}}}";

static int setup(void **state)
{
    (void)state;
    kit_make(&k, AT_CACHE_CLASSIC, 0);
    return at_graph_parse("set", workflow, strlen(workflow), k.registry, &k.graph);
}
static int teardown(void **state)
{
    (void)state;
    kit_free(&k);
    return 0;
}

static void assert_set(const char *assignment, const char *node, const char *inputs)
{
    char *text;

    if (at_graph_set(k.graph, assignment) != AT_OK) fail_msg("%s: %s", assignment, at_error_text());
    text = at_json_dump(json_object_get(json_object_get(at_graph_json(k.graph), node), "inputs"),
                        AT_JSON_COMPACT);
    assert_string_equal(text, inputs);
    at_free(text);
}

static void ids_classes_and_titles_name_a_node(void **state)
{
    (void)state;
    assert_set("1.width=128", "1", "{\"width\":128}");
    assert_set("EmptyImage.height=7", "1", "{\"width\":128,\"height\":7}");
    assert_set("My. Seed.seed=18446744073709551615", "2", "{\"seed\":18446744073709551615}");
    assert_set("3.a=[\"4\", 0]", "3", "{\"a\":[\"4\",0]}");
    assert_set("4.dotted.name.=2", "4", "{\"dotted.name.\":2}");
}

static void values_follow_the_type_of_the_input(void **state)
{
    (void)state;
    assert_set("2.image=42", "2", "{\"image\":\"42\"}");
    assert_set("2.image=a = b", "2", "{\"image\":\"a = b\"}");
    assert_set("2.flag=Off", "2", "{\"image\":\"a = b\",\"flag\":false}");
    assert_set("2.model=true", "2", "{\"image\":\"a = b\",\"flag\":false,\"model\":\"true\"}");
    assert_set("1.width=wide", "1", "{\"width\":\"wide\"}"); // at_check says what is wrong with it
}

static void mistakes_are_explained(void **state)
{
    static const char *const rows[][2] = {
        {"1.width", "--set 1.width: write NODE.INPUT=VALUE"},
        {"width=1",
         "--set width: no such node; write NODE.INPUT=VALUE with an id, a class or a title"},
        {"9.width=1",
         "--set 9.width: no such node; write NODE.INPUT=VALUE with an id, a class or a title"},
        {"IntAdd.a=1", "--set: 2 nodes are called IntAdd; use the id of one"},
        {"1.depth=1",
         "--set: node 1 (EmptyImage) has no input depth; it has: width, height, batch_size, color"},
        {"2.flag=maybe", "--set: flag is a boolean, not 'maybe'; use true or false"},
        {"2.image=\xff", "--set: the value is not UTF-8 text"},
    };

    (void)state;
    for (size_t i = 0; i < AT_COUNT(rows); i++) {
        assert_int_equal(at_graph_set(k.graph, rows[i][0]), AT_EUSAGE);
        assert_string_equal(at_error_text(), rows[i][1]);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(ids_classes_and_titles_name_a_node),
        T(values_follow_the_type_of_the_input),
        T(mistakes_are_explained),
    };
    return cmocka_run_group_tests_name("flow.set", tests, NULL, NULL);
}
