// SPDX-License-Identifier: Apache-2.0
// signature_test.c - keys are equal exactly when ComfyUI's full signatures (here as long texts)
// are.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "json/json.h"
#include "flow/signature.h"

#define MAX 24

static const at_node plain_a = {.class_type = "A"}, plain_b = {.class_type = "B"};
static const at_in id_row[] = {{.name = "id", .type_name = "UNIQUE_ID", .flags = AT_INF_HIDDEN}};
static const at_node with_id = {.class_type = "WithId", .in = id_row, .n_in = 1};
static const at_node never_same = {.class_type = "Never", .flags = AT_NODE_NOT_IDEMPOTENT};
static const at_node *const nodes[] = {&plain_a, &plain_b, &with_id, &never_same, NULL};
static at_registry *registry;

static int setup(void **state)
{
    (void)state;
    return at_registry_new(&registry) != AT_OK || at_registry_add(registry, nodes) != AT_OK;
}
static int teardown(void **state)
{
    (void)state;
    at_registry_free(registry);
    return 0;
}

static at_graph *parse(const char *text)
{
    at_graph *g = NULL;

    if (at_graph_parse("sig", text, strlen(text), registry, &g) != AT_OK)
        fail_msg("%s", at_error_text());
    return g;
}

static bool same(at_digest a, at_digest b)
{
    return a.a == b.a && a.b == b.b;
}

// Are the keys of node "1" of two workflows equal?
static bool keys_equal(const char *x, const char *y)
{
    at_graph *g = parse(x), *h = parse(y);
    at_digest a[MAX], b[MAX];
    bool equal;

    assert_int_equal(at_signatures(g, NULL, NULL, a), AT_OK);
    assert_int_equal(at_signatures(h, NULL, NULL, b), AT_OK);
    equal = same(a[at_graph_find(g, "1")], b[at_graph_find(h, "1")]);
    at_graph_free(g);
    at_graph_free(h);
    return equal;
}

#define ONE(inputs) "{\"1\": {\"class_type\": \"A\", \"inputs\": {" inputs "}}}"

static void constants_compare_as_python_values(void **state)
{
    (void)state;
    assert_true(keys_equal(ONE("\"a\": 1, \"b\": \"x\""), ONE("\"b\": \"x\", \"a\": 1.0")));
    assert_true(keys_equal(ONE("\"a\": 1"), ONE("\"a\": true")));
    assert_false(keys_equal(ONE("\"a\": 1"), ONE("\"a\": \"1\"")));
    assert_false(keys_equal(ONE("\"a\": 1"), ONE("\"a\": 1.5")));
    assert_false(keys_equal(ONE("\"a\": 1"), ONE("\"b\": 1")));
    assert_false(keys_equal(ONE("\"a\": null"), ONE("")));
    assert_true(keys_equal(ONE("\"a\": {\"x\": [1, 2.0], \"y\": 2}"),
                           ONE("\"a\": {\"y\": 2, \"x\": [1.0, 2]}")));
    assert_false(keys_equal(ONE("\"a\": [1, 2, 3]"), ONE("\"a\": [1, 3, 2]")));
    assert_true(keys_equal(ONE("\"a\": 18446744073709551615"), ONE("\"a\": 18446744073709551615")));
    assert_false(
        keys_equal(ONE("\"a\": 18446744073709551615"), ONE("\"a\": 18446744073709551614")));
    // A text that looks like two inputs is one.
    assert_false(
        keys_equal(ONE("\"a\": \"x\", \"b\": \"y\""), ONE("\"a\": \"x\\\", \\\"b\\\": \\\"y\"")));
}

static void ids_count_only_where_a_node_sees_them(void **state)
{
    at_graph *g = parse("{\"1\": {\"class_type\": \"A\", \"inputs\": {}}, \"2\": {\"class_type\": "
                        "\"A\", \"inputs\": {}, \"_meta\": {\"title\": \"t\"}},"
                        "\"3\": {\"class_type\": \"WithId\", \"inputs\": {}}, \"4\": "
                        "{\"class_type\": \"WithId\", \"inputs\": {}},"
                        "\"5\": {\"class_type\": \"Never\", \"inputs\": {}}, \"6\": "
                        "{\"class_type\": \"Never\", \"inputs\": {}}}");
    at_digest k[6], again[6];

    (void)state;
    assert_int_equal(at_signatures(g, NULL, NULL, k), AT_OK);
    assert_true(same(k[0], k[1]));
    assert_false(same(k[2], k[3]));
    assert_false(same(k[4], k[5]));
    assert_int_equal(at_signatures(g, NULL, NULL, again), AT_OK);
    for (int i = 0; i < 6; i++)
        assert_true(same(k[i], again[i]));
    at_graph_free(g);
}

static void failed_fingerprints_and_dangling_links_equal_nothing(void **state)
{
    at_graph *g = parse("{\"1\": {\"class_type\": \"A\", \"inputs\": {}}, \"2\": {\"class_type\": "
                        "\"A\", \"inputs\": {\"x\": [\"1\", 0]}},"
                        "\"3\": {\"class_type\": \"A\", \"inputs\": {\"x\": [\"nowhere\", 0]}}, "
                        "\"4\": {\"class_type\": \"B\", \"inputs\": {\"x\": [\"5\", 0]}},"
                        "\"5\": {\"class_type\": \"B\", \"inputs\": {\"x\": [\"4\", 0]}}, \"6\": "
                        "{\"class_type\": \"B\", \"inputs\": {}}}");
    bool never[6] = {true};
    char *changed[6] = {NULL, NULL, NULL, NULL, NULL, (char *)"[\"h\"]"};
    at_digest k[6], again[6], other[6];

    (void)state;
    assert_int_equal(at_signatures(g, changed, never, k), AT_OK);
    assert_int_equal(at_signatures(g, changed, never, again), AT_OK);
    for (int i = 0; i < 5; i++)
        assert_false(same(k[i], again[i])); // 4 and 5: a cycle
    assert_true(same(k[5], again[5]));
    changed[5] = NULL;
    assert_int_equal(at_signatures(g, changed, never, other), AT_OK);
    assert_false(same(k[5], other[5]));
    at_graph_free(g);
}

// --- against the definition ---------------------------------------------------------------------
typedef struct dag {
    int count, from[MAX][3], slot[MAX][3], links[MAX], value[MAX];
} dag;

static uint32_t draw(uint32_t *seed, uint32_t n)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % n;
}

static void random_dag(dag *d, uint32_t *seed)
{
    d->count = 2 + (int)draw(seed, MAX - 2);
    for (int i = 0; i < d->count; i++) {
        d->value[i] = (int)draw(seed, 2);
        d->links[i] = i + 1 < d->count ? (int)draw(seed, 4) : 0;
        for (int k = 0; k < d->links[i]; k++) {
            uint32_t reach = (uint32_t)(d->count - i - 1);
            d->from[i][k] = i + 1 + (int)draw(seed, reach < 4 ? reach : 4);
            d->slot[i][k] = (int)draw(seed, 2);
        }
    }
}

static char *dag_text(const dag *d)
{
    at_str s = {0};

    at_str_append(&s, "{");
    for (int i = 0; i < d->count; i++) {
        at_str_printf(&s, "%s\"n%d\": {\"class_type\": \"A\", \"inputs\": {\"v\": %d",
                      i ? ", " : "", i, d->value[i]);
        for (int k = 0; k < d->links[i]; k++)
            at_str_printf(&s, ", \"i%d\": [\"n%d\", %d]", k, d->from[i][k], d->slot[i][k]);
        at_str_append(&s, "}}");
    }
    at_str_append(&s, "}");
    return at_str_take(&s);
}

static void order_of(const dag *d, int node, int *place, int *order, int *found)
{
    for (int k = 0; k < d->links[node]; k++) {
        int from = d->from[node][k];
        if (place[from] >= 0) continue;
        place[from] = *found;
        order[(*found)++] = from;
        order_of(d, from, place, order, found);
    }
}

// The whole signature, written out.
static char *definition(const dag *d, int node)
{
    int place[MAX], order[MAX + 1], found = 0;
    at_str s = {0};

    memset(place, -1, sizeof place);
    order_of(d, node, place, order, &found);
    for (int i = -1; i < found; i++) {
        int n = i < 0 ? node : order[i];
        at_str_printf(&s, "(%d", d->value[n]);
        for (int k = 0; k < d->links[n]; k++)
            at_str_printf(&s, " %d:%d.%d", k, place[d->from[n][k]], d->slot[n][k]);
        at_str_append(&s, ")");
    }
    return at_str_take(&s);
}

static void keys_are_equal_exactly_when_signatures_are(void **state)
{
    uint32_t seed = 3;
    int equal = 0;

    (void)state;
    for (int round = 0; round < 300; round++) {
        dag d[2];
        char *text[2], *full[2][MAX];
        at_digest keys[2][MAX];
        int count[2];
        for (int g = 0; g < 2; g++) {
            random_dag(&d[g], &seed);
            count[g] = d[g].count;
            text[g] = dag_text(&d[g]);
            at_graph *graph = parse(text[g]);
            assert_int_equal(at_signatures(graph, NULL, NULL, keys[g]), AT_OK);
            for (int i = 0; i < count[g]; i++)
                full[g][i] = definition(&d[g], i);
            at_graph_free(graph);
        }
        for (int i = 0; i < count[0]; i++) {
            for (int j = 0; j < count[1]; j++) {
                bool want = strcmp(full[0][i], full[1][j]) == 0;
                equal += want;
                assert_int_equal(same(keys[0][i], keys[1][j]), want);
            }
        }
        for (int g = 0; g < 2; g++) {
            for (int i = 0; i < count[g]; i++)
                at_free(full[g][i]);
            at_free(text[g]);
        }
    }
    assert_true(equal > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constants_compare_as_python_values),
        cmocka_unit_test(ids_count_only_where_a_node_sees_them),
        cmocka_unit_test(failed_fingerprints_and_dangling_links_equal_nothing),
        cmocka_unit_test(keys_are_equal_exactly_when_signatures_are),
    };
    return cmocka_run_group_tests_name("flow.signature", tests, setup, teardown);
}
