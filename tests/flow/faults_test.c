// SPDX-License-Identifier: Apache-2.0
// faults_test.c - every allocation of a workflow's life fails once: a clear status each time, and
// the same memory alive after as before.
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "kit.h"

static const char drawing[] =
    "{\"nodes\": [{\"id\": 1, \"type\": \"EmptyImage\", \"outputs\": [{\"type\": \"IMAGE\"}], "
    "\"widgets_values\": [64, 32, 1, 255]},"
    "{\"id\": 7, \"type\": \"B\", \"inputs\": [{\"name\": \"in\", \"type\": \"IMAGE\", \"link\": "
    "5}]},"
    "{\"id\": 2, \"type\": \"SaveImage\", \"title\": \"Out\", \"inputs\": [{\"name\": \"images\", "
    "\"link\": 6}], \"widgets_values\": [\"pic\"]}],"
    "\"links\": [[5, 1, 0, 7, 0, \"IMAGE\"], [6, 7, 0, 2, 0, \"IMAGE\"]], \"definitions\": "
    "{\"subgraphs\": [{\"id\": \"B\", \"nodes\": [],"
    "\"links\": [{\"id\": 1, \"origin_id\": -10, \"origin_slot\": 0, \"target_id\": -20, "
    "\"target_slot\": 0}]}]}}";

// Lists, a blocker with a message, lazy inputs, hidden inputs, fingerprints, an undeclared input.
static const char rich[] =
    "{\"l\": {\"class_type\": \"IntRange\", \"inputs\": {\"a\": 0, \"b\": \"3\", \"junk\": {\"x\": "
    "[1.5, null, NaN]}}},"
    "\"b\": {\"class_type\": \"BlockBelow\", \"inputs\": {\"a\": [\"l\", 0], \"b\": 1, \"text\": "
    "\"no\"}},"
    "\"s\": {\"class_type\": \"IntSum\", \"inputs\": {\"a\": [\"l\", 0], \"b\": 7}},"
    "\"o\": {\"class_type\": \"ShowInt\", \"inputs\": {\"a\": [\"b\", 0]}}, \"p\": "
    "{\"class_type\": \"ShowInt\", \"inputs\": {\"a\": [\"s\", 0]}},"
    "\"f\": {\"class_type\": \"FileNode\", \"inputs\": {\"image\": \"example.png\"}},"
    "\"m\": {\"class_type\": \"StubMask\", \"inputs\": {\"value\": 0.5, \"height\": 64, \"width\": "
    "64, \"batch_size\": 1}},"
    "\"x\": {\"class_type\": \"TestLazyMixImages\", \"inputs\": {\"image1\": [\"f\", 0], "
    "\"image2\": [\"f\", 0], \"mask\": [\"m\", 0]}},"
    "\"v\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\": [\"x\", 0], "
    "\"filename_prefix\": \"x\"}}}";

static const char broken[] =
    "{\"1\": {\"class_type\": \"EmptyImage\", \"inputs\": {\"width\": 0, \"height\": \"abc\", "
    "\"batch_size\": [1], \"color\": [\"77\", 0]}},"
    "\"5\": {\"class_type\": \"ImageScale\", \"inputs\": {\"image\": [\"1\", 0], "
    "\"upscale_method\": \"zzz\", \"width\": [\"1\", 0]}},"
    "\"f\": {\"class_type\": \"FileNode\", \"inputs\": {\"image\": \"missing.png\"}},"
    "\"2\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\": [\"5\", 0]}}, \"3\": "
    "{\"class_type\": \"SaveImage\", \"inputs\": {\"images\": [\"f\", 0]}},"
    "\"4\": {\"class_type\": \"SeedNode\", \"inputs\": {\"seed\": -1, \"model\": \"no\", \"flag\": "
    "1, \"image\": 1}}}";

static const char failing[] =
    "{\"1\": {\"class_type\": \"FailIfEqual\", \"inputs\": {\"a\": 4, \"b\": 4}}, \"2\": "
    "{\"class_type\": \"ShowInt\", \"inputs\": {\"a\": [\"1\", 0]}}}";

static at_status live(const char *workflow)
{
    kit k;
    at_status st;

    memset(&k, 0, sizeof k);
    k.job = "job";
    k.env.fingerprint = "hash";
    st = at_registry_new(&k.registry);
    if (st == AT_OK) st = at_registry_add(k.registry, kit_nodes);
    if (st == AT_OK) st = at_cache_new(AT_CACHE_CLASSIC, 0, &k.cache);
    if (st == AT_OK) st = at_graph_parse("fault", workflow, strlen(workflow), k.registry, &k.graph);
    if (st == AT_OK) st = at_check(k.graph, k.registry, NULL, NULL, 0, &k.env, &k.check);
    for (int round = 0; round < 2 && st == AT_OK && k.check.ok; round++) {
        json_decref(k.outputs);
        st = at_execute(&(at_execute_args){.registry = k.registry,
                                           .graph = k.graph,
                                           .check = &k.check,
                                           .cache = k.cache,
                                           .job = "job",
                                           .engine = &k.env},
                        &k.outputs);
    }
    json_decref(k.outputs);
    at_check_result_free(&k.check);
    at_graph_free(k.graph);
    at_cache_free(k.cache);
    at_registry_free(k.registry);
    return st;
}

// Fails the 1st, 2nd, ... allocation, once or for good, until a run passes untouched.
static void fail_each(const char *workflow, bool sticky, at_status good)
{
    uint64_t n = 1;
    bool hit = true;

    assert_int_equal(live(workflow), good); // what lives for ever is there now
    for (; hit; n++) {
        size_t before = at_mem_get_stats().live_blocks;
        at_mem_fail_at(n, sticky);
        at_status st = live(workflow);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        if (at_mem_get_stats().live_blocks != before) {
            fail_msg("allocation %d: %d blocks before, %d after", (int)n, (int)before,
                     (int)at_mem_get_stats().live_blocks);
        }
        if (hit && st != AT_ENOMEM && st != good) {
            fail_msg("allocation %d: status %d (%s)", (int)n, st, at_error_text());
        }
        if (!hit) assert_int_equal(st, good);
        assert_true(n < 100000);
    }
    print_message("  %d allocations\n", (int)n - 2);
}

static void reading_checking_and_running_survive_every_failed_allocation(void **state)
{
    (void)state;
    fail_each(rich, false, AT_OK);
    fail_each(rich, true, AT_OK);
}
static void bad_workflows_survive_every_failed_allocation(void **state)
{
    (void)state;
    fail_each(broken, false, AT_OK); // the check was made: the answer is no
    fail_each(broken, true, AT_OK);
}
static void failing_nodes_survive_every_failed_allocation(void **state)
{
    (void)state;
    fail_each(failing, false, AT_ENOTFOUND);
    fail_each(failing, true, AT_ENOTFOUND);
}
static void drawings_survive_every_failed_allocation(void **state)
{
    (void)state;
    fail_each(drawing, false, AT_OK);
    fail_each(drawing, true, AT_OK);
}

static void object_info_survives_every_failed_allocation(void **state)
{
    at_registry *r;
    bool hit = true;

    (void)state;
    assert_int_equal(at_registry_new(&r), AT_OK);
    assert_int_equal(at_registry_add(r, kit_nodes), AT_OK);
    for (uint64_t n = 1; hit; n++) {
        size_t before = at_mem_get_stats().live_blocks;
        at_mem_fail_at(n, false);
        json_t *info = at_object_info_all(r, NULL);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        if (hit == !!info) fail_msg("allocation %d", (int)n);
        json_decref(info);
        assert_int_equal(at_mem_get_stats().live_blocks, before);
    }
    at_registry_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading_checking_and_running_survive_every_failed_allocation),
        cmocka_unit_test(bad_workflows_survive_every_failed_allocation),
        cmocka_unit_test(failing_nodes_survive_every_failed_allocation),
        cmocka_unit_test(drawings_survive_every_failed_allocation),
        cmocka_unit_test(object_info_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("flow.faults", tests, NULL, NULL);
}
