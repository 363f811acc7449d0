// SPDX-License-Identifier: Apache-2.0
// execute_test.c - runs against ComfyUI's recorded WebSocket traces, and caching, lists, laziness,
// blockers, cancellation and failure.
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "flow/cache.h"
#include "kit.h"

#define EMPTY(id, w, color)                                                                        \
    "\"" id "\": {\"class_type\": \"EmptyImage\", \"inputs\": {\"width\": " w                      \
    ", \"height\": 64, \"batch_size\": 1, \"color\": " color "}}"
#define SAVE(id, from)                                                                             \
    "\"" id "\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\": [\"" from                \
    "\", 0], \"filename_prefix\": \"x\"}}"
#define INT2(id, class, a, b)                                                                      \
    "\"" id "\": {\"class_type\": \"" class "\", \"inputs\": {\"a\": " a ", \"b\": " b "}}"
#define SHOW(id, a) "\"" id "\": {\"class_type\": \"ShowInt\", \"inputs\": {\"a\": " a "}}"

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

static void assert_outputs(const char *want)
{
    json_t *v = kit_json(want);

    assert_true(kit_same(k.outputs, v));
    json_decref(v);
}

// The data of the first message of this type.
static const json_t *data_of(const char *type)
{
    json_t *m;
    size_t i;

    json_array_foreach(k.messages, i, m)
    {
        if (strcmp(json_string_value(json_object_get(m, "type")), type) == 0)
            return json_object_get(m, "data");
    }
    fail_msg("no %s", type);
    return NULL;
}

// --- traces -------------------------------------------------------------------------------------
// Messages of one prompt as a server sent them to its client, without what only a server knows.
static json_t *messages_of(const json_t *trace, const char *prompt_id)
{
    json_t *out = json_array(), *m, *data, *copy;
    size_t i;

    json_array_foreach(json_object_get(trace, "ws"), i, m)
    {
        const char *type = json_string_value(json_object_get(m, "type"));
        data = json_object_get(m, "data");
        if (!type || strcmp(type, "status") == 0 || strcmp(type, "feature_flags") == 0) continue;
        if (strcmp(json_string_value(json_object_get(data, "prompt_id")), prompt_id) != 0) continue;
        if (strcmp(type, "executing") == 0 && json_is_null(json_object_get(data, "node"))) continue;
        copy = json_deep_copy(m);
        json_object_del(json_object_get(copy, "data"), "timestamp");
        json_array_append_new(out, copy);
    }
    return out;
}

static void sort_texts(json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        for (size_t j = i + 1; j < json_array_size(list); j++) {
            json_t *a = json_incref(json_array_get(list, i)),
                   *b = json_incref(json_array_get(list, j));
            if (strcmp(json_string_value(a), json_string_value(b)) > 0) {
                json_array_set(list, i, b);
                json_array_set(list, j, a);
            }
            json_decref(a);
            json_decref(b);
        }
    }
}

// Python's sets have no order, its stack traces and pictures have no place here.
static void normalise(json_t *messages)
{
    json_t *m, *data;
    size_t i;

    json_array_foreach(messages, i, m)
    {
        data = json_object_get(m, "data");
        if (strcmp(json_string_value(json_object_get(m, "type")), "execution_error") != 0) continue;
        sort_texts(json_object_get(data, "executed"));
        sort_texts(json_object_get(data, "current_outputs"));
        json_object_del(data, "traceback");
        json_object_del(data, "timestamp");
        const char *key;
        json_t *list;
        json_object_foreach(json_object_get(data, "current_inputs"), key, list)
        {
            assert_int_equal(json_array_size(list), 1);
            json_array_set_new(list, 0, json_string("picture"));
        }
    }
}

static void assert_replays(const char *name, const char *workflow, at_status st)
{
    json_t *all = kit_golden("traces.json"), *trace = json_object_get(all, name);
    json_t *entry, *want;

    assert_non_null(trace);
    k.job = json_string_value(json_object_get(json_object_get(trace, "body"), "prompt_id"));
    assert_int_equal(kit_run(&k, workflow), st);
    want = messages_of(trace, k.job);
    normalise(want);
    normalise(k.messages);
    assert_true(json_array_size(want) > 3);
    assert_true(kit_same(k.messages, want));
    entry = json_object_get(json_object_get(trace, "history"), k.job);
    assert_true(kit_same(k.outputs, json_object_get(entry, "outputs")));
    // history keeps the prompt after conversion
    assert_true(
        kit_same(at_graph_json(k.graph), json_array_get(json_object_get(entry, "prompt"), 2)));
    json_decref(want);
    json_decref(all);
}

static const char basic[] = "{" EMPTY(
    "1", "64",
    "255") ","
           "\"2\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\": [\"1\", 0], "
           "\"filename_prefix\": \"t/a%width%_%batch_num%\"}},"
           "\"3\": {\"class_type\": \"PreviewImage\", \"inputs\": {\"images\": [\"1\", 0]}}}";

static void trace_basic_is_replayed_and_the_second_run_is_cached(void **state)
{
    (void)state;
    assert_replays("basic", basic, AT_OK);
    assert_int_equal(k.env.runs, 3);
    assert_replays("basic_again", basic, AT_OK);
    assert_int_equal(k.env.runs, 0);
}

static void trace_of_progress_is_replayed(void **state)
{
    (void)state;
    assert_replays(
        "flags",
        "{\"1\": {\"class_type\": \"EmptyImage\", \"inputs\": {\"width\": 64, \"height\": 64, "
        "\"batch_size\": 2, \"color\": 3}},"
        "\"9\": {\"class_type\": \"SaveImageWebsocket\", \"inputs\": {\"images\": [\"1\", 0]}}}",
        AT_OK);
}

static const char mixing[] = "{" EMPTY("1", "64", "255") "," EMPTY(
    "2", "32", "255") ","
                      "\"m\": {\"class_type\": \"StubMask\", \"inputs\": {\"value\": 0.5, "
                      "\"height\": 64, \"width\": 64, \"batch_size\": 1}},"
                      "\"3\": {\"class_type\": \"TestLazyMixImages\", \"inputs\": {\"image1\": "
                      "[\"1\", 0], \"image2\": [\"2\", 0], \"mask\": [\"m\", 0]}}," SAVE("4",
                                                                                         "3") "}";

static void trace_of_a_failing_lazy_node_is_replayed(void **state)
{
    (void)state;
    assert_int_equal(kit_run(&k, basic), AT_OK); // node 1 is known from before, as in the trace
    assert_replays("exec_error", mixing, AT_EINTERNAL);
    assert_string_equal(at_error_text(), "node 3 (TestLazyMixImages): The size of tensor a (32) "
                                         "must match the size of tensor b (64) "
                                         "at non-singleton dimension 2");
}

static void an_interrupted_run_says_where_it_stopped(void **state)
{
    json_t *want = kit_json("{\"prompt_id\": \"job-1\", \"node_id\": \"3\", \"node_type\": "
                            "\"TestSleep\", \"executed\": [\"1\"]}");

    (void)state;
    k.env.cancel_at_run = 2;
    assert_int_equal(
        kit_run(&k, "{" EMPTY("1", "64", "41") ","
                                               "\"3\": {\"class_type\": \"TestSleep\", \"inputs\": "
                                               "{\"value\": [\"1\", 0], \"seconds\": 3.0}},"
                                               "\"5\": {\"class_type\": \"TestSleep\", \"inputs\": "
                                               "{\"value\": [\"3\", 0], \"seconds\": 3.0}},"
                                               "\"4\": {\"class_type\": \"PreviewImage\", "
                                               "\"inputs\": {\"images\": [\"5\", 0]}}}"),
        AT_ECANCELLED);
    kit_assert_story(&k, "start|cached []|executing 1|executing 3|interrupted 3");
    assert_true(kit_same(data_of("execution_interrupted"), want));
    assert_outputs("{}");
    json_decref(want);
}

static void a_cancel_between_nodes_stops_before_the_next_call(void **state)
{
    (void)state;
    k.env.cancel_at_run = 1;
    assert_int_equal(kit_run(&k, basic), AT_ECANCELLED);
    assert_int_equal(k.env.runs, 1);
    kit_assert_story(&k, "start|cached []|executing 1|executing 2|interrupted 2");
}

// --- order and lazy links -----------------------------------------------------------------------
static void only_the_lazy_input_that_is_needed_runs(void **state)
{
    char workflow[2048];
    static const struct {
        const char *mask, *log;
    } rows[] = {{"0.0", "m 1 3 4 "}, {"1.0", "m 2 3 4 "}};

    (void)state;
    for (size_t i = 0; i < AT_COUNT(rows); i++) {
        at_cache_clear(k.cache);
        snprintf(workflow, sizeof workflow, "%s", mixing);
        memcpy(strstr(workflow, "0.5"), rows[i].mask, 3);
        assert_int_equal(kit_run(&k, workflow), AT_OK);
        assert_string_equal(k.env.log, rows[i].log);
    }
    kit_assert_story(&k, "start|cached []|executing m|executing 3|executing 2|executing "
                         "3|executing 4|executed 4|success");
}

static void outputs_run_as_soon_as_they_can(void **state)
{
    (void)state;
    assert_int_equal(
        kit_run(&k, "{" SHOW("a", "[\"x\", 0]") "," SHOW("b", "[\"y\", 0]") "," INT2(
                        "x", "IntAdd", "1",
                        "[\"p\", 0]") "," INT2("y", "IntAdd", "2",
                                               "[\"q\", 0]") "," INT2("p", "IntAdd", "3",
                                                                      "3") "," INT2("q", "IntAdd",
                                                                                    "4", "4") "}"),
        AT_OK);
    assert_string_equal(k.env.log, "p x a q y b ");
}

static void a_cycle_through_an_undeclared_input_is_found_while_running(void **state)
{
    (void)state;
    assert_int_equal(
        kit_run(
            &k,
            "{\"1\": {\"class_type\": \"IntAdd\", \"inputs\": {\"a\": 1, \"b\": 2, \"extra\": "
            "[\"2\", 0]}},"
            "\"2\": {\"class_type\": \"IntAdd\", \"inputs\": {\"a\": [\"1\", 0], \"b\": 2}}," SHOW(
                "3", "[\"2\", 0]") "}"),
        AT_EWORKFLOW);
    kit_assert_story(&k, "start|cached []|error 3");
    const json_t *data = data_of("execution_error");
    assert_string_equal(json_string_value(json_object_get(data, "exception_type")),
                        "graph.DependencyCycleError");
    assert_string_equal(json_string_value(json_object_get(data, "exception_message")),
                        "Dependency cycle detected");
    assert_string_equal(at_error_text(), "node 3 (ShowInt): Dependency cycle detected");
}

// --- lists and blockers -------------------------------------------------------------------------
static void nodes_map_over_lists_and_repeat_the_last_value(void **state)
{
    (void)state;
    assert_int_equal(
        kit_run(
            &k,
            "{" INT2("l", "IntRange", "0", "4") "," INT2("s", "IntRange", "10", "12") "," INT2(
                "add", "IntAdd", "[\"l\", 0]", "[\"s\", 0]") "," SHOW("out", "[\"add\", 0]") "}"),
        AT_OK);
    assert_outputs("{\"out\": {\"numbers\": [10, 12, 13, 14]}}");
    assert_string_equal(k.env.log, "s l add add add add out out out out ");
}

static void a_list_node_gets_everything_at_once(void **state)
{
    (void)state;
    assert_int_equal(
        kit_run(
            &k,
            "{" INT2(
                "l", "IntRange", "0",
                "5") ","
                     "\"sum\": {\"class_type\": \"IntSum\", \"inputs\": {\"a\": [\"l\", 0]}}," SHOW(
                         "out", "[\"sum\", 0]") "," INT2("two", "IntSum", "7",
                                                         "8") "," SHOW("out2", "[\"two\", 0]") "}"),
        AT_OK);
    assert_outputs("{\"out\": {\"numbers\": [10000]}, \"out2\": {\"numbers\": [7001]}}");
}

static void an_empty_list_is_an_error_of_its_reader(void **state)
{
    (void)state;
    assert_int_equal(
        kit_run(&k, "{" INT2("l", "IntRange", "0", "0") "," SHOW("out", "[\"l\", 0]") "}"),
        AT_EINVAL);
    assert_string_equal(at_error_text(), "node out (ShowInt): input a: an empty list");
    assert_int_equal(
        kit_run(&k, "{" INT2("l", "IntRange", "0", "0") "," INT2(
                        "add", "IntAdd", "1", "[\"l\", 0]") "," SHOW("out", "[\"add\", 0]") "}"),
        AT_EINVAL);
    kit_assert_story(&k, "start|cached [\"l\"]|executing add|error add");
}

static void blockers_travel_silently_and_tell_their_message_once(void **state)
{
    const json_t *data;

    (void)state;
    // 0 and 1 are blocked, 2 goes through.
    assert_int_equal(kit_run(&k, "{" INT2("l", "IntRange", "0", "3") "," INT2(
                                     "block", "BlockBelow", "[\"l\", 0]",
                                     "2") "," INT2("add", "IntAdd", "[\"block\", 0]",
                                                   "100") "," SHOW("out", "[\"add\", 0]") "}"),
                     AT_OK);
    assert_outputs("{\"out\": {\"numbers\": [102]}}");
    assert_string_equal(k.env.log, "l block block block add out ");
    kit_assert_story(&k, "start|cached []|executing l|executing block|executing add|executing "
                         "out|executed out|success");
    // With a message the first reader reports; the run goes on and succeeds.
    assert_int_equal(
        kit_run(&k, "{\"block\": {\"class_type\": \"BlockBelow\", \"inputs\": {\"a\": 1, \"b\": 2, "
                    "\"text\": \"not today\"}}," INT2(
                        "add", "IntAdd", "[\"block\", 0]",
                        "100") "," SHOW("out", "[\"add\", 0]") "," SHOW("other", "5") "}"),
        AT_OK);
    kit_assert_story(&k, "start|cached []|executing other|executed other|executing block|executing "
                         "add|error add|executing out|success");
    data = data_of("execution_error");
    assert_string_equal(json_string_value(json_object_get(data, "exception_type")),
                        "ExecutionBlocked");
    assert_string_equal(json_string_value(json_object_get(data, "exception_message")),
                        "Execution Blocked: not today");
    assert_outputs("{\"other\": {\"numbers\": [5]}}");
}

// --- failure ------------------------------------------------------------------------------------
static void a_failing_node_ends_the_run_and_what_was_shown_stays(void **state)
{
    const json_t *data;
    json_t *want = kit_json("{\"a\": [4], \"b\": [4]}");

    (void)state;
    assert_int_equal(
        kit_run(&k, "{" SHOW("first", "1") "," INT2("bad", "FailIfEqual", "4",
                                                    "4") "," SHOW("out", "[\"bad\", 0]") "}"),
        AT_ENOTFOUND);
    kit_assert_story(&k, "start|cached []|executing first|executed first|executing bad|error bad");
    assert_outputs("{\"first\": {\"numbers\": [1]}}");
    data = data_of("execution_error");
    assert_string_equal(json_string_value(json_object_get(data, "exception_message")),
                        "no number 4\n");
    assert_string_equal(json_string_value(json_object_get(data, "exception_type")),
                        "FileNotFoundError");
    assert_string_equal(json_string_value(json_object_get(data, "node_type")), "FailIfEqual");
    assert_true(kit_same(json_object_get(data, "current_inputs"), want));
    assert_int_equal(json_array_size(json_object_get(data, "current_outputs")), 3);
    json_decref(want);
    // The second try finds the first output in the cache and fails in the same place.
    assert_int_equal(
        kit_run(&k, "{" SHOW("first", "1") "," INT2("bad", "FailIfEqual", "4",
                                                    "4") "," SHOW("out", "[\"bad\", 0]") "}"),
        AT_ENOTFOUND);
    kit_assert_story(&k, "start|cached [\"first\"]|executed first|executing bad|error bad");
    assert_int_equal(
        kit_run(&k, "{" INT2("bad", "FailIfEqual", "-1", "4") "," SHOW("out", "[\"bad\", 0]") "}"),
        AT_ENOMEM);
    data = data_of("execution_error");
    assert_string_equal(json_string_value(json_object_get(data, "exception_type")),
                        "torch.OutOfMemoryError");
    assert_true(at_starts_with(
        json_string_value(json_object_get(data, "exception_message")),
        "Allocation on device\nThis error means you ran out of memory on your GPU."));
}

static void values_of_the_wrong_kind_are_refused_while_running(void **state)
{
    (void)state;
    // A constant where a socket wants an object passes ComfyUI's check.
    assert_int_equal(kit_run(&k, "{\"2\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\": "
                                 "\"me\", \"filename_prefix\": \"x\"}}}"),
                     AT_EINVAL);
    assert_string_equal(at_error_text(),
                        "node 2 (SaveImage): input images: expected IMAGE, got text");
    // A wildcard carries a mask to where an image is wanted.
    assert_int_equal(kit_run(&k, "{\"m\": {\"class_type\": \"StubMask\", \"inputs\": {\"value\": "
                                 "0.5, \"height\": 64, \"width\": 64, \"batch_size\": 1}},"
                                 "\"s\": {\"class_type\": \"TestSleep\", \"inputs\": {\"value\": "
                                 "[\"m\", 0], \"seconds\": 0}}," SAVE("2", "s") "}"),
                     AT_EINVAL);
    assert_string_equal(at_error_text(),
                        "node 2 (SaveImage): input images: expected IMAGE, got MASK");
    // Combos of V3 schemas are not checked before, as in ComfyUI 0.3.64.
    assert_int_equal(
        kit_run(&k, "{\"2\": {\"class_type\": \"V3Node\", \"inputs\": {\"image\": \"three\"}}}"),
        AT_EINVAL);
    assert_string_equal(at_error_text(),
                        "node 2 (V3Node): input image: 'three' not in ['one', 'two']");
}

static void seeds_keep_all_their_bits(void **state)
{
    (void)state;
    assert_int_equal(kit_run(&k, "{\"1\": {\"class_type\": \"SeedNode\", \"inputs\": {\"seed\": "
                                 "18446744073709551615, \"model\": \"model0.safetensors\", "
                                 "\"flag\": \"\", \"image\": 1.0}}}"),
                     AT_OK);
    assert_outputs(
        "{\"1\": {\"seed\": [\"18446744073709551615\"], \"flag\": [false], \"text\": [\"1.0\"]}}");
}

// --- cache --------------------------------------------------------------------------------------
static void ids_and_titles_do_not_matter_but_sharing_does(void **state)
{
    (void)state;
    assert_int_equal(
        kit_run(&k, "{" INT2("1", "IntAdd", "1", "2") "," INT2(
                        "2", "IntAdd", "[\"1\", 0]", "[\"1\", 0]") "," SHOW("3", "[\"2\", 0]") "}"),
        AT_OK);
    assert_int_equal(
        kit_run(&k, "{" SHOW("x", "[\"y\", 0]") ",\"y\": {\"class_type\": \"IntAdd\", \"_meta\": "
                                                "{\"title\": \"T\"}, \"inputs\": "
                                                "{\"b\": [\"z\", 0], \"a\": [\"z\", 0]}}," INT2(
                                                    "z", "IntAdd", "1", "2") "}"),
        AT_OK);
    assert_int_equal(k.env.runs, 0);
    kit_assert_story(&k, "start|cached [\"x\",\"y\",\"z\"]|executed x|success");
    // Two equal sources are not one shared source.
    assert_int_equal(
        kit_run(&k,
                "{" INT2("1", "IntAdd", "1", "2") "," INT2("1b", "IntAdd", "1", "2") "," INT2(
                    "2", "IntAdd", "[\"1\", 0]", "[\"1b\", 0]") "," SHOW("3", "[\"2\", 0]") "}"),
        AT_OK);
    kit_assert_story(&k, "start|cached [\"1\",\"1b\"]|executing 2|executing 3|executed 3|success");
}

static void a_changed_input_runs_what_depends_on_it(void **state)
{
    (void)state;
    assert_int_equal(
        kit_run(&k, "{" INT2("1", "IntAdd", "1", "2") "," INT2(
                        "2", "IntAdd", "[\"1\", 0]", "5") "," SHOW("3", "[\"2\", 0]") "}"),
        AT_OK);
    assert_int_equal(
        kit_run(&k, "{" INT2("1", "IntAdd", "1", "2") "," INT2(
                        "2", "IntAdd", "[\"1\", 0]", "6") "," SHOW("3", "[\"2\", 0]") "}"),
        AT_OK);
    assert_string_equal(k.env.log, "2 3 ");
    // Classic: what the last prompt did not name is gone.
    assert_int_equal(
        kit_run(&k, "{" INT2("1", "IntAdd", "1", "2") "," INT2(
                        "2", "IntAdd", "[\"1\", 0]", "5") "," SHOW("3", "[\"2\", 0]") "}"),
        AT_OK);
    assert_string_equal(k.env.log, "2 3 ");
}

static void lru_remembers_older_prompts_within_its_size(void **state)
{
    static const char one[] = "{" SHOW("1", "1") "}", two[] = "{" SHOW("1", "2") "}",
                      three[] = "{" SHOW("1", "3") "}";

    (void)state;
    kit_free(&k);
    kit_make(&k, AT_CACHE_LRU, 2);
    assert_int_equal(kit_run(&k, one), AT_OK);
    assert_int_equal(kit_run(&k, two), AT_OK);
    assert_int_equal(kit_run(&k, one), AT_OK);
    assert_int_equal(k.env.runs, 0);
    assert_int_equal(kit_run(&k, three), AT_OK); // three results now
    assert_int_equal(kit_run(&k, one), AT_OK);   // the oldest, two, goes here
    assert_int_equal(k.env.runs, 0);
    assert_int_equal(kit_run(&k, two), AT_OK);
    assert_int_equal(k.env.runs, 1);
}

static void without_a_cache_results_go_when_nobody_needs_them(void **state)
{
    static const char chain[] =
        "{" EMPTY("1", "64", "1") ","
                                  "\"2\": {\"class_type\": \"ImageScale\", \"inputs\": {\"image\": "
                                  "[\"1\", 0], \"upscale_method\": \"area\", \"width\": 9, "
                                  "\"height\": 9, \"crop\": \"center\"}}," SAVE("3", "2") "}";

    (void)state;
    kit_free(&k);
    kit_make(&k, AT_CACHE_NONE, 0);
    assert_int_equal(kit_run(&k, chain), AT_OK);
    assert_outputs("{\"3\": {\"images\": [{\"filename\": \"x_00001_.png\", \"subfolder\": \"\", "
                   "\"type\": \"output\"}]}}");
    assert_int_equal(kit_run(&k, chain), AT_OK);
    assert_int_equal(k.env.runs, 3);
    at_cache_free(k.cache);
    k.cache = NULL; // the same without any cache of the caller
    assert_int_equal(kit_run(&k, chain), AT_OK);
    assert_int_equal(k.env.runs, 3);
}

static void fingerprints_decide_about_files(void **state)
{
    static const char w[] =
        "{\"1\": {\"class_type\": \"FileNode\", \"inputs\": {\"image\": \"a.png\"}}," SAVE("2",
                                                                                           "1") "}";

    (void)state;
    assert_int_equal(kit_run(&k, w), AT_OK);
    assert_int_equal(kit_run(&k, w), AT_OK);
    assert_int_equal(k.env.runs, 0);
    k.env.fingerprint = "another";
    assert_int_equal(kit_run(&k, w), AT_OK);
    assert_int_equal(k.env.runs, 2);
    k.env.fingerprint = NULL; // NaN: never the same
    assert_int_equal(kit_run(&k, w), AT_OK);
    assert_int_equal(kit_run(&k, w), AT_OK);
    assert_int_equal(k.env.runs, 2);
    // A fingerprint in the workflow is believed.
    static const char given[] = "{\"1\": {\"class_type\": \"FileNode\", \"is_changed\": [\"x\"], "
                                "\"inputs\": {\"image\": \"a.png\"}}," SAVE("2", "1") "}";
    assert_int_equal(kit_run(&k, given), AT_OK);
    assert_int_equal(kit_run(&k, given), AT_OK);
    assert_int_equal(k.env.runs, 0);
}

static void a_node_that_asks_for_its_id_is_cached_per_id(void **state)
{
    (void)state;
    assert_int_equal(
        kit_run(&k, "{\"7\": {\"class_type\": \"IdNode\", \"inputs\": {}}, \"t\": {\"class_type\": "
                    "\"ShowText\", \"inputs\": {\"image\": [\"7\", 0]}}}"),
        AT_OK);
    assert_outputs("{\"t\": {\"text\": [\"7\"]}}");
    assert_int_equal(
        kit_run(&k, "{\"8\": {\"class_type\": \"IdNode\", \"inputs\": {}}, \"t\": {\"class_type\": "
                    "\"ShowText\", \"inputs\": {\"image\": [\"8\", 0]}}}"),
        AT_OK);
    assert_outputs("{\"t\": {\"text\": [\"8\"]}}");
}

static void equal_nodes_of_one_prompt_run_once(void **state)
{
    (void)state;
    assert_int_equal(kit_run(&k, "{" SHOW("1", "5") "," SHOW("2", "5") "}"), AT_OK);
    assert_int_equal(k.env.runs, 1);
    kit_assert_story(&k, "start|cached []|executing 1|executed 1|executed 2|success");
    assert_outputs("{\"1\": {\"numbers\": [5]}, \"2\": {\"numbers\": [5]}}");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(trace_basic_is_replayed_and_the_second_run_is_cached),
        T(trace_of_progress_is_replayed),
        T(trace_of_a_failing_lazy_node_is_replayed),
        T(an_interrupted_run_says_where_it_stopped),
        T(a_cancel_between_nodes_stops_before_the_next_call),
        T(only_the_lazy_input_that_is_needed_runs),
        T(outputs_run_as_soon_as_they_can),
        T(a_cycle_through_an_undeclared_input_is_found_while_running),
        T(nodes_map_over_lists_and_repeat_the_last_value),
        T(a_list_node_gets_everything_at_once),
        T(an_empty_list_is_an_error_of_its_reader),
        T(blockers_travel_silently_and_tell_their_message_once),
        T(a_failing_node_ends_the_run_and_what_was_shown_stays),
        T(values_of_the_wrong_kind_are_refused_while_running),
        T(seeds_keep_all_their_bits),
        T(ids_and_titles_do_not_matter_but_sharing_does),
        T(a_changed_input_runs_what_depends_on_it),
        T(lru_remembers_older_prompts_within_its_size),
        T(without_a_cache_results_go_when_nobody_needs_them),
        T(fingerprints_decide_about_files),
        T(a_node_that_asks_for_its_id_is_cached_per_id),
        T(equal_nodes_of_one_prompt_run_once),
    };
    return cmocka_run_group_tests_name("flow.execute", tests, NULL, NULL);
}
