// SPDX-License-Identifier: Apache-2.0
// editor_test.c - drawings of the editor become the API workflows that ComfyUI's frontend would
// post.
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "kit.h"

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

static void assert_becomes(const char *drawing, const char *api)
{
    at_graph *g = NULL;
    char *text;

    if (at_graph_parse("drawing", drawing, strlen(drawing), k.registry, &g) != AT_OK) {
        fail_msg("%s", at_error_text());
    }
    text = at_json_dump(at_graph_json(g), AT_JSON_COMPACT);
    assert_string_equal(text, api);
    at_free(text);
    at_graph_free(g);
}

#define EMPTY_NODE(id, out)                                                                        \
    "{\"id\": " id ", \"type\": \"EmptyImage\", \"mode\": 0, \"inputs\": [], \"outputs\": "        \
    "[{\"name\": \"IMAGE\", "                                                                      \
    "\"type\": \"IMAGE\", \"links\": [" out "]}], \"widgets_values\": [64, 32, 1, 255]}"
#define SAVE_NODE(id, link)                                                                        \
    "{\"id\": " id ", \"type\": \"SaveImage\", \"mode\": 0, \"title\": \"Out\", \"inputs\": "      \
    "[{\"name\": \"images\", "                                                                     \
    "\"type\": \"IMAGE\", \"link\": " link "}], \"widgets_values\": [\"pic\"]}"
#define EMPTY_API(id)                                                                              \
    "\"" id "\":{\"inputs\":{\"width\":64,\"height\":32,\"batch_size\":1,\"color\":255},\"class_"  \
    "type\":\"EmptyImage\"}"
#define SAVE_API(id, from)                                                                         \
    "\"" id "\":{\"inputs\":{\"filename_prefix\":\"pic\",\"images\":[\"" from                      \
    "\",0]},\"class_type\":\"SaveImage\",\"_meta\":{\"title\":\"Out\"}}"

static void widgets_get_their_names_and_links_their_sources(void **state)
{
    (void)state;
    assert_becomes("{\"nodes\": [" EMPTY_NODE("1", "5") "," SAVE_NODE(
                       "2", "5") "], \"links\": [[5, 1, 0, 2, 0, \"IMAGE\"]], \"version\": 0.4}",
                   "{" EMPTY_API("1") "," SAVE_API("2", "1") "}");
    // Schema 1.0: links are objects.
    assert_becomes(
        "{\"nodes\": [" EMPTY_NODE("1", "5") "," SAVE_NODE(
            "2",
            "5") "], \"links\": [{\"id\": 5, \"origin_id\": 1, \"origin_slot\": 0, "
                 "\"target_id\": 2, \"target_slot\": 0, \"type\": \"IMAGE\"}], \"version\": 1}",
        "{" EMPTY_API("1") "," SAVE_API("2", "1") "}");
}

static void seed_controls_and_upload_buttons_are_skipped(void **state)
{
    (void)state;
    assert_becomes("{\"nodes\": [{\"id\": 1, \"type\": \"SeedNode\", \"widgets_values\": "
                   "[18446744073709551615, \"randomize\", \"m\", true, \"text\"]},"
                   "{\"id\": 3, \"type\": \"FileNode\", \"widgets_values\": [\"a.png\", "
                   "\"image\"]}], \"links\": []}",
                   "{\"1\":{\"inputs\":{\"seed\":18446744073709551615,\"model\":\"m\",\"flag\":"
                   "true,\"image\":\"text\"},\"class_type\":\"SeedNode\"},"
                   "\"3\":{\"inputs\":{\"image\":\"a.png\"},\"class_type\":\"FileNode\"}}");
    // An old file without the control value, and values by name.
    assert_becomes(
        "{\"nodes\": [{\"id\": 1, \"type\": \"SeedNode\", \"widgets_values\": [7, \"m\", false, "
        "\"text\"]},"
        "{\"id\": 3, \"type\": \"FileNode\", \"widgets_values\": {\"image\": [1, 2]}}], \"links\": "
        "[]}",
        "{\"1\":{\"inputs\":{\"seed\":7,\"model\":\"m\",\"flag\":false,\"image\":\"text\"},\"class_"
        "type\":\"SeedNode\"},"
        "\"3\":{\"inputs\":{\"image\":{\"__value__\":[1,2]}},\"class_type\":\"FileNode\"}}");
}

static void what_is_only_drawn_is_followed_through(void **state)
{
    (void)state;
    // 1 -> reroute 3 -> reroute 4 -> save 2; a note; a primitive that feeds the prefix.
    assert_becomes(
        "{\"nodes\": [" EMPTY_NODE(
            "1",
            "5") ","
                 "{\"id\": 3, \"type\": \"Reroute\", \"inputs\": [{\"name\": \"\", \"type\": "
                 "\"*\", \"link\": 5}], \"outputs\": [{\"type\": \"IMAGE\"}]},"
                 "{\"id\": 4, \"type\": \"Reroute\", \"inputs\": [{\"name\": \"\", \"type\": "
                 "\"*\", \"link\": 6}], \"outputs\": [{\"type\": \"IMAGE\"}]},"
                 "{\"id\": 8, \"type\": \"Note\", \"widgets_values\": [\"hello\"]},"
                 "{\"id\": 9, \"type\": \"PrimitiveNode\", \"outputs\": [{\"type\": \"STRING\"}], "
                 "\"widgets_values\": [\"prim\"]},"
                 "{\"id\": 2, \"type\": \"SaveImage\", \"inputs\": [{\"name\": \"images\", "
                 "\"type\": \"IMAGE\", \"link\": 7},"
                 "{\"name\": \"filename_prefix\", \"type\": \"STRING\", \"link\": 10, \"widget\": "
                 "{\"name\": \"filename_prefix\"}}], \"widgets_values\": [\"old\"]}],"
                 "\"links\": [[5, 1, 0, 3, 0, \"IMAGE\"], [6, 3, 0, 4, 0, \"IMAGE\"], [7, 4, 0, 2, "
                 "0, \"IMAGE\"], [10, 9, 0, 2, 1, \"STRING\"]]}",
        "{" EMPTY_API("1") ",\"2\":{\"inputs\":{\"filename_prefix\":\"prim\",\"images\":[\"1\",0]},"
                           "\"class_type\":\"SaveImage\"}}");
}

static void bypassed_nodes_pass_their_type_and_muted_ones_cut(void **state)
{
#define SCALE(mode)                                                                                \
    "{\"id\": 3, \"type\": \"ImageScale\", \"mode\": " mode                                        \
    ", \"inputs\": [{\"name\": \"mask\", \"type\": \"MASK\", \"link\": null},"                     \
    "{\"name\": \"image\", \"type\": \"IMAGE\", \"link\": 5}], \"outputs\": [{\"type\": "          \
    "\"IMAGE\"}], \"widgets_values\": [\"area\", 1, 1, \"center\"]}"
#define DRAWN(mode)                                                                                \
    "{\"nodes\": [" EMPTY_NODE("1", "5") "," SCALE(mode) "," SAVE_NODE(                            \
        "2", "6") "],"                                                                             \
                  "\"links\": [[5, 1, 0, 3, 1, \"IMAGE\"], [6, 3, 0, 2, 0, \"IMAGE\"]]}"
    (void)state;
    assert_becomes(DRAWN("4"), "{" EMPTY_API("1") "," SAVE_API("2", "1") "}");
    assert_becomes(DRAWN("2"),
                   "{" EMPTY_API("1") ",\"2\":{\"inputs\":{\"filename_prefix\":\"pic\"},\"class_"
                                      "type\":\"SaveImage\",\"_meta\":{\"title\":\"Out\"}}}");
}

#define BOX "11111111-2222-3333-4444-555555555555"
static void subgraphs_are_flattened_with_their_ids_in_front(void **state)
{
    (void)state;
    // The box scales its input; inside, link 1 comes from the box's input (-10), link 2 goes to its
    // output (-20).
    assert_becomes(
        "{\"nodes\": [" EMPTY_NODE(
            "1",
            "5") ",{\"id\": 7, \"type\": \"" BOX
                 "\", \"inputs\": [{\"name\": \"in\", \"type\": \"IMAGE\", \"link\": 5}],"
                 "\"outputs\": [{\"name\": \"out\", \"type\": \"IMAGE\"}]}," SAVE_NODE(
                     "2",
                     "6") "],"
                          "\"links\": [[5, 1, 0, 7, 0, \"IMAGE\"], [6, 7, 0, 2, 0, \"IMAGE\"]],"
                          "\"definitions\": {\"subgraphs\": [{\"id\": \"" BOX
                          "\", \"nodes\": [{\"id\": 3, \"type\": \"ImageScale\", \"inputs\": "
                          "[{\"name\": \"image\", "
                          "\"type\": \"IMAGE\", \"link\": 1}], \"outputs\": [{\"type\": "
                          "\"IMAGE\"}], \"widgets_values\": [\"area\", 2, 2, \"center\"]}],"
                          "\"links\": [{\"id\": 1, \"origin_id\": -10, \"origin_slot\": 0, "
                          "\"target_id\": 3, \"target_slot\": 0},"
                          "{\"id\": 2, \"origin_id\": 3, \"origin_slot\": 0, \"target_id\": -20, "
                          "\"target_slot\": 0}]}]}}",
        "{" EMPTY_API("1") ",\"7:3\":{\"inputs\":{\"upscale_method\":\"area\",\"width\":2,"
                           "\"height\":2,\"crop\":\"center\",\"image\":[\"1\",0]},"
                           "\"class_type\":\"ImageScale\"}," SAVE_API("2", "7:3") "}");
}

static void hostile_drawings_are_refused(void **state)
{
    static const char *const rows[][2] = {
        // Two reroutes feed each other.
        {"{\"nodes\": [{\"id\": 3, \"type\": \"Reroute\", \"inputs\": [{\"link\": 6}]}, {\"id\": "
         "4, \"type\": \"Reroute\", \"inputs\": [{\"link\": 5}]}," SAVE_NODE(
             "2", "5") "], \"links\": [[5, 3, 0, 4, 0, \"*\"], [6, 4, 0, 3, 0, \"*\"]]}",
         "drawing: its links go round in a circle"},
        // A box inside itself.
        {"{\"nodes\": [{\"id\": 1, \"type\": \"B\"}], \"links\": [], \"definitions\": "
         "{\"subgraphs\": [{\"id\": \"B\", \"nodes\": [{\"id\": 1, \"type\": \"B\"}], \"links\": "
         "[]}]}}",
         "drawing: subgraphs nested deeper than 32 levels"},
        // A box whose output is its own input, fed by itself.
        {"{\"nodes\": [{\"id\": 1, \"type\": \"B\", \"inputs\": [{\"link\": 5}]}," SAVE_NODE(
             "2", "5") "], \"links\": [[5, 1, 0, 2, 0, \"*\"]], \"definitions\": "
                       "{\"subgraphs\": [{\"id\": \"B\", \"nodes\": [], \"links\": [[1, -10, 0, "
                       "-20, 0, \"*\"]]}]}}",
         "drawing: its links go round in a circle"},
        {"{\"nodes\": [{\"id\": 1}], \"links\": []}", "drawing: entry 0 of \"nodes\" has no type"},
        {"{\"nodes\": [{\"type\": \"EmptyImage\"}]}", "drawing: a node without an id"},
        {"{\"nodes\": [7]}", "drawing: entry 0 of \"nodes\" has no type"},
    };
    at_graph *g;

    (void)state;
    for (size_t i = 0; i < AT_COUNT(rows); i++) {
        assert_int_equal(at_graph_parse("drawing", rows[i][0], strlen(rows[i][0]), k.registry, &g),
                         AT_EWORKFLOW);
        assert_string_equal(at_error_text(), rows[i][1]);
        assert_null(g);
    }
}

static void a_drawing_runs(void **state)
{
    (void)state;
    assert_int_equal(kit_run(&k, "{\"nodes\": [" EMPTY_NODE("1", "5") "," SAVE_NODE(
                                     "2", "5") "], \"links\": [[5, 1, 0, 2, 0, \"IMAGE\"]]}"),
                     AT_OK);
    kit_assert_story(&k, "start|cached []|executing 1|executing 2|executed 2|success");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(widgets_get_their_names_and_links_their_sources),
        T(seed_controls_and_upload_buttons_are_skipped),
        T(what_is_only_drawn_is_followed_through),
        T(bypassed_nodes_pass_their_type_and_muted_ones_cut),
        T(subgraphs_are_flattened_with_their_ids_in_front),
        T(hostile_drawings_are_refused),
        T(a_drawing_runs),
    };
    return cmocka_run_group_tests_name("flow.editor", tests, NULL, NULL);
}
