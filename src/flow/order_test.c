// SPDX-License-Identifier: Apache-2.0
// order_test.c - the execution list by tables, and against a plain scan of everything as ComfyUI
// does it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/mem.h"
#include "flow/order.h"

#define MAX 40

typedef struct table {
    at_order_node nodes[MAX];
    at_order_link links[MAX][MAX];
    bool cached[MAX];
    size_t count;
} table;

static bool is_cached(void *ctx, size_t node)
{
    return ((table *)ctx)->cached[node];
}

static void link_up(table *t, size_t to, size_t from, bool lazy)
{
    at_order_node *n = &t->nodes[to];

    t->links[to][n->link_count++] = (at_order_link){from, lazy};
    n->links = t->links[to];
}

// "a<bc" lines: node a has inputs b and c; a capital letter is an output; "~" before an input:
// lazy.
static void read_table(table *t, const char *text)
{
    memset(t, 0, sizeof *t);
    for (const char *p = text; *p; p++) {
        size_t id = (size_t)((*p | 0x20) - 'a');
        if (*p == ' ') continue;
        t->nodes[id].output = *p < 'a';
        if (id >= t->count) t->count = id + 1;
        if (p[1] != '<') continue;
        for (p += 2; *p && *p != ' '; p++) {
            bool lazy = *p == '~';
            if (lazy) p++;
            link_up(t, id, (size_t)((*p | 0x20) - 'a'), lazy);
        }
        if (!*p) break;
    }
}

static void run_all(at_order *o, table *t, char *log)
{
    size_t node, n = 0;

    while (at_order_next(o, &node)) {
        log[n++] = (char)('a' + node);
        t->cached[node] = true;
        assert_int_equal(at_order_done(o, node), AT_OK);
    }
    log[n] = '\0';
}

static void tables_give_comfyuis_order(void **state)
{
    static const struct {
        const char *graph, *cached, *outputs, *order;
    } rows[] = {
        {"A<b b<c c", "", "a", "cba"},
        {"A<bc b c", "", "a", "cba"},      // insertion a, c, b: the last input is looked at first
        {"A<b C b<d d", "", "ac", "cdba"}, // a ready output goes first
        {"A<b b<cd c<e d e", "", "a", "decba"}, // d blocks a blocker of an output, e does not
        {"A<b b<c c", "c", "a", "ba"},          // what is cached is not waited for
        {"A<b b<~cd c d", "", "a", "dba"},      // a lazy input does not run by itself
        {"A<bb b", "", "a", "ba"},
    };
    table t;
    at_order *o;
    char log[MAX + 1];

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        read_table(&t, rows[i].graph);
        for (const char *p = rows[i].cached; *p; p++)
            t.cached[*p - 'a'] = true;
        assert_int_equal(at_order_new(t.nodes, t.count, is_cached, &t, &o), AT_OK);
        for (const char *p = rows[i].outputs; *p; p++) {
            assert_int_equal(at_order_add(o, (size_t)(*p - 'a')), AT_OK);
        }
        run_all(o, &t, log);
        assert_string_equal(log, rows[i].order);
        assert_true(at_order_empty(o));
        at_order_free(o);
    }
}

static void a_lazy_link_that_is_required_blocks(void **state)
{
    table t;
    at_order *o;
    size_t node;
    char log[MAX + 1];

    (void)state;
    read_table(&t, "A<b b<~c c<d d");
    assert_int_equal(at_order_new(t.nodes, t.count, is_cached, &t, &o), AT_OK);
    assert_int_equal(at_order_add(o, 0), AT_OK);
    assert_true(at_order_next(o, &node));
    assert_int_equal(node, 1);
    assert_int_equal(at_order_require(o, 2, 1), AT_OK);
    assert_true(at_order_blocked(o, 1));
    assert_int_equal(at_order_again(o, 1), AT_OK);
    run_all(o, &t, log);
    assert_string_equal(log, "dcba");
    at_order_free(o);
}

static void a_cycle_is_stuck_and_the_first_inserted_is_blamed(void **state)
{
    table t;
    at_order *o;
    size_t node;

    (void)state;
    read_table(&t, "A<b b<c c<b");
    assert_int_equal(at_order_new(t.nodes, t.count, is_cached, &t, &o), AT_OK);
    assert_int_equal(at_order_add(o, 0), AT_OK);
    assert_false(at_order_next(o, &node));
    assert_false(at_order_empty(o));
    assert_int_equal(at_order_in_cycle(o), 0);
    at_order_free(o);
}

// --- the plain scan -----------------------------------------------------------------------------
typedef struct plain {
    table *t;
    size_t pending[4 * MAX], count; // in order of insertion
    bool is_pending[MAX], blocking[MAX][MAX];
} plain;

static int blocks(const plain *p, size_t node)
{
    int n = 0;

    for (size_t i = 0; i < p->t->count; i++)
        n += p->is_pending[i] && p->blocking[i][node];
    return n;
}

static void plain_add(plain *p, size_t node)
{
    size_t stack[4 * MAX * MAX], n = 0, from[MAX * MAX], to[MAX * MAX], m = 0;

    stack[n++] = node;
    while (n) {
        size_t id = stack[--n];
        if (p->is_pending[id]) continue;
        p->is_pending[id] = true;
        p->pending[p->count++] = id;
        for (size_t i = 0; i < p->t->nodes[id].link_count; i++) {
            at_order_link l = p->t->links[id][i];
            if (l.lazy || p->t->cached[l.from]) continue;
            stack[n++] = l.from;
            from[m] = l.from;
            to[m++] = id;
        }
    }
    for (size_t i = 0; i < m; i++)
        p->blocking[from[i]][to[i]] = true;
}

static bool reaches_output(const plain *p, size_t node, int steps)
{
    if (steps == 0) return p->t->nodes[node].output;
    for (size_t i = 0; i < p->t->count; i++) {
        if (p->blocking[node][i] && reaches_output(p, i, steps - 1)) return true;
    }
    return false;
}

static size_t plain_next(const plain *p)
{
    for (int steps = 0; steps <= 3; steps++) {
        for (size_t i = 0; i < p->count; i++) {
            size_t id = p->pending[i];
            if (!p->is_pending[id] || blocks(p, id)) continue;
            if (steps == 3 || reaches_output(p, id, steps)) return id;
        }
    }
    return MAX;
}

static uint32_t draw(uint32_t *seed, uint32_t n)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % n;
}

static void random_table(table *t, uint32_t *seed)
{
    memset(t, 0, sizeof *t);
    t->count = 2 + draw(seed, MAX - 2);
    for (size_t i = 0; i < t->count; i++) {
        t->nodes[i].output = draw(seed, 5) == 0 || i == 0;
        t->cached[i] = draw(seed, 10) == 0;
        for (uint32_t k = draw(seed, 4); k && i + 1 < t->count; k--) {
            link_up(t, i, i + 1 + draw(seed, (uint32_t)(t->count - i - 1)), draw(seed, 4) == 0);
        }
    }
}

// Runs both side by side; now and then a node asks for its lazy links before it is done.
static void compare(table *t, uint32_t *seed)
{
    plain *p = at_calloc(1, sizeof *p);
    bool asked[MAX] = {0};
    at_order *o;
    size_t node;

    assert_non_null(p);
    p->t = t;
    assert_int_equal(at_order_new(t->nodes, t->count, is_cached, t, &o), AT_OK);
    for (size_t i = 0; i < t->count; i++) {
        if (!t->nodes[i].output) continue;
        assert_int_equal(at_order_add(o, i), AT_OK);
        plain_add(p, i);
    }
    while (at_order_next(o, &node)) {
        assert_int_equal(node, plain_next(p));
        if (!asked[node] && draw(seed, 2)) {
            for (size_t i = 0; i < t->nodes[node].link_count; i++) {
                at_order_link l = t->links[node][i];
                if (!l.lazy || t->cached[l.from]) continue;
                assert_int_equal(at_order_require(o, l.from, node), AT_OK);
                plain_add(p, l.from);
                p->blocking[l.from][node] = true;
            }
            asked[node] = true;
            assert_int_equal(at_order_again(o, node), AT_OK);
            continue;
        }
        t->cached[node] = true;
        p->is_pending[node] = false;
        for (size_t i = 0; i < t->count; i++)
            p->blocking[node][i] = false;
        assert_int_equal(at_order_done(o, node), AT_OK);
    }
    assert_true(at_order_empty(o));
    assert_int_equal(plain_next(p), MAX);
    at_order_free(o);
    at_free(p);
}

static void random_graphs_run_as_a_plain_scan_would(void **state)
{
    uint32_t seed = 7;
    table t;

    (void)state;
    for (int i = 0; i < 500; i++) {
        random_table(&t, &seed);
        compare(&t, &seed);
    }
}

static void a_long_chain_costs_little(void **state)
{
    size_t n = 200000, node, seen = 0;
    at_order_node *nodes = at_calloc(n, sizeof *nodes);
    at_order_link *links = at_calloc(n, sizeof *links);
    at_order *o;

    (void)state;
    for (size_t i = 0; i + 1 < n; i++) {
        links[i].from = i + 1;
        nodes[i] = (at_order_node){&links[i], 1, i == 0};
    }
    assert_int_equal(at_order_new(nodes, n, NULL, NULL, &o), AT_OK);
    assert_int_equal(at_order_add(o, 0), AT_OK);
    while (at_order_next(o, &node)) {
        assert_int_equal(node, n - 1 - seen++);
        assert_int_equal(at_order_done(o, node), AT_OK);
    }
    assert_int_equal(seen, n);
    at_order_free(o);
    at_free(nodes);
    at_free(links);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_give_comfyuis_order),
        cmocka_unit_test(a_lazy_link_that_is_required_blocks),
        cmocka_unit_test(a_cycle_is_stuck_and_the_first_inserted_is_blamed),
        cmocka_unit_test(random_graphs_run_as_a_plain_scan_would),
        cmocka_unit_test(a_long_chain_costs_little),
    };
    return cmocka_run_group_tests_name("flow.order", tests, NULL, NULL);
}
