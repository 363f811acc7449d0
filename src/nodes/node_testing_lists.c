// SPDX-License-Identifier: Apache-2.0
// node_testing_lists.c - lists of ComfyUI's test suite: an accumulation is a list that travels as one value.
// Source: ComfyUI 0.3.64, behaviour of tests/execution/testing_nodes/testing-pack/util.py.
// Owns: an accumulation owns copies of its values and never changes.
#include <string.h>

#include "base/mem.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"
#include "nodes/testing.h"

typedef struct accumulation {
    at_object base;
    at_value *items;
    size_t count;
} accumulation;

static void accumulation_free(at_object *o)
{
    accumulation *a = (accumulation *)o;
    for (size_t i = 0; a->items && i < a->count; i++)
        at_value_clear(&a->items[i]);
    at_free(a->items);
    at_free(a);
}
static const at_object_type accumulation_type = {"ACCUMULATION", accumulation_free};

static at_status no_memory(void)
{
    return at_fail(AT_ENOMEM, "no memory for an accumulation");
}

// Copies of `count` values with room for one more behind them.
static at_status copy_of(const at_value *items, size_t count, accumulation **out)
{
    accumulation *a = at_object_new(sizeof *a, &accumulation_type);

    *out = NULL;
    if (!a) return no_memory();
    a->items = at_calloc(count + 1, sizeof *a->items);
    for (; a->items && a->count < count; a->count++) {
        a->items[a->count] = at_value_copy(&items[a->count]);
        if (a->items[a->count].kind != items[a->count].kind) break;
    }
    if (!a->items || a->count < count) {
        at_object_release(&a->base);
        return no_memory();
    }
    *out = a;
    return AT_OK;
}

typedef struct list_in {
    at_object *accumulation;
    at_value to_add, value, item[9];
    int64_t index;
} list_in;

static const accumulation *list_of(const list_in *in)
{
    return (const accumulation *)in->accumulation;
}
static at_status give_copy(const at_value *v, at_value *out)
{
    *out = at_value_copy(v);
    return out->kind == v->kind ? AT_OK : no_memory();
}
static void give(accumulation *a, at_value *out)
{
    *out = at_value_object(&a->base);
}

#define LIST_ROW(more)                                                                             \
    AT_ROW(list_in, accumulation, AT_IN_OBJECT, .type_name = "ACCUMULATION",                       \
           .flags = AT_INF_NO_OPTIONS | (more))
#define ANY_ROW(label, field, more)                                                                \
    {                                                                                              \
        .name = label, .type = AT_IN_ANY, .offset = offsetof(list_in, field), .type_name = "*",    \
        .flags = AT_INF_NO_OPTIONS | (more)                                                        \
    }
#define INDEX_ROW AT_ROW(list_in, index, AT_IN_INT, .step = 1, .flags = AT_INF_HAS_STEP)
static const at_in list_rows[] = {LIST_ROW(0)};
static const at_out list_out[] = {AT_OUT("ACCUMULATION")},
                    pair_out[] = {AT_OUT("ACCUMULATION"), AT_OUT("*")}, any_out[] = {AT_OUT("*")},
                    many_out[] = {{"*", "*", .is_list = true}}, int_out[] = {AT_OUT("INT")};

static at_status accumulate_run(at_node_ctx *c, const void *in, at_value *out)
{
    const list_in *i = in;
    const accumulation *old = list_of(i);
    accumulation *a;
    at_status st = copy_of(old ? old->items : NULL, old ? old->count : 0, &a);

    (void)c;
    if (st != AT_OK) return st;
    a->items[a->count] = at_value_copy(&i->to_add);
    if (a->items[a->count].kind != i->to_add.kind) {
        at_object_release(&a->base);
        return no_memory();
    }
    a->count++;
    give(a, out);
    return AT_OK;
}
static const at_in accumulate_rows[] = {ANY_ROW("to_add", to_add, 0), LIST_ROW(AT_INF_OPTIONAL)};
const at_node at_node_test_accumulate =
    AT_TEST_NODE("TestAccumulateNode", "Accumulate", "Testing/Lists", accumulate_rows, list_in,
                 list_out, accumulate_run);

// The rest and the first, or the rest and the last.
static at_status head_run(at_node_ctx *c, const void *in, at_value *out)
{
    const accumulation *old = list_of(in);
    accumulation *a;
    at_status st = copy_of(old->items + (old->count > 0), old->count - (old->count > 0), &a);

    (void)c;
    if (st != AT_OK) return st;
    give(a, out);
    return old->count ? give_copy(&old->items[0], out + 1) : AT_OK;
}
const at_node at_node_test_head =
    AT_TEST_NODE("TestAccumulationHeadNode", "Accumulation Head", "Testing/Lists", list_rows,
                 list_in, pair_out, head_run);
static at_status tail_run(at_node_ctx *c, const void *in, at_value *out)
{
    const accumulation *old = list_of(in);
    accumulation *a;
    at_status st;

    (void)c;
    if (!old->count) { // as there: nothing, and the accumulation in the value's place
        out[1] = at_value_object(at_object_retain((at_object *)(uintptr_t)&old->base));
        return AT_OK;
    }
    st = copy_of(old->items, old->count - 1, &a);
    if (st != AT_OK) return st;
    give(a, out);
    return give_copy(&old->items[old->count - 1], out + 1);
}
const at_node at_node_test_tail =
    AT_TEST_NODE("TestAccumulationTailNode", "Accumulation Tail", "Testing/Lists", list_rows,
                 list_in, pair_out, tail_run);

static at_status emit_copy(at_node_ctx *c, const at_value *v)
{
    at_value copy;
    at_status st = give_copy(v, &copy);
    return st == AT_OK ? at_node_emit(c, 0, copy) : st;
}
static at_status to_list_run(at_node_ctx *c, const void *in, at_value *out)
{
    const accumulation *a = list_of(in);
    at_status st = AT_OK;

    (void)out;
    for (size_t i = 0; i < a->count && st == AT_OK; i++)
        st = emit_copy(c, &a->items[i]);
    return st;
}
const at_node at_node_test_to_list =
    AT_TEST_NODE("TestAccumulationToListNode", "Accumulation to List", "Testing/Lists", list_rows,
                 list_in, many_out, to_list_run);

typedef struct whole_in {
    at_values list;
} whole_in;
static const at_in whole_rows[] = {
    AT_ROW(whole_in, list, AT_IN_ANY, .type_name = "*", .flags = AT_INF_NO_OPTIONS)};
static at_status of_list_run(at_node_ctx *c, const void *in, at_value *out)
{
    const whole_in *i = in;
    accumulation *a;
    at_status st = copy_of(i->list.items, i->list.count, &a);

    (void)c;
    if (st == AT_OK) give(a, out);
    return st;
}
const at_node at_node_test_of_list = {.class_type = "TestListToAccumulationNode",
                                      .display = "List to Accumulation",
                                      .category = "Testing/Lists",
                                      .flags = AT_NODE_TEST | AT_NODE_INPUT_IS_LIST,
                                      .python_module = "custom_nodes.testing-pack",
                                      .in = whole_rows,
                                      .n_in = 1,
                                      .in_size = sizeof(whole_in),
                                      .out = list_out,
                                      .n_out = 1,
                                      .run = of_list_run};

static at_status length_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    *out = at_value_int((int64_t)list_of(in)->count);
    return AT_OK;
}
const at_node at_node_test_length =
    AT_TEST_NODE("TestAccumulationGetLengthNode", "Accumulation Get Length", "Testing/Lists",
                 list_rows, list_in, int_out, length_run);

// Python's index: negative ones count from the end.
static at_status place_of(const list_in *in, size_t *at)
{
    int64_t n = (int64_t)list_of(in)->count, i = in->index < 0 ? in->index + n : in->index;
    if (i < 0 || i >= n) return at_fail(AT_EINVAL, "list index out of range");
    *at = (size_t)i;
    return AT_OK;
}
static at_status get_item_run(at_node_ctx *c, const void *in, at_value *out)
{
    size_t at = 0;
    at_status st = place_of(in, &at);
    (void)c;
    return st == AT_OK ? give_copy(&list_of(in)->items[at], out) : st;
}
static const at_in get_item_rows[] = {LIST_ROW(0), INDEX_ROW};
const at_node at_node_test_get_item =
    AT_TEST_NODE("TestAccumulationGetItemNode", "Accumulation Get Item", "Testing/Lists",
                 get_item_rows, list_in, any_out, get_item_run);

static at_status set_item_run(at_node_ctx *c, const void *in, at_value *out)
{
    const list_in *i = in;
    at_status st = AT_OK;
    accumulation *a = NULL;
    size_t at = 0;

    (void)c;
    AT_TRY(place_of(i, &at));
    AT_TRY(copy_of(list_of(i)->items, list_of(i)->count, &a));
    at_value_clear(&a->items[at]);
    AT_TRY(give_copy(&i->value, &a->items[at]));
    give(a, out);
    a = NULL;
out:
    if (a) at_object_release(&a->base);
    return st;
}
static const at_in set_item_rows[] = {LIST_ROW(0), INDEX_ROW, ANY_ROW("value", value, 0)};
const at_node at_node_test_set_item =
    AT_TEST_NODE("TestAccumulationSetItemNode", "Accumulation Set Item", "Testing/Lists",
                 set_item_rows, list_in, list_out, set_item_run);

// --- TestMakeListNode ----------------------------------------------------------------------------
#define ITEM_ROW(n, more) ANY_ROW("value" #n, item[n - 1], more)
static const at_in make_list_rows[] = {
    ITEM_ROW(1, 0),
    ITEM_ROW(2, AT_INF_OPTIONAL),
    ITEM_ROW(3, AT_INF_OPTIONAL),
    ITEM_ROW(4, AT_INF_OPTIONAL),
    ITEM_ROW(5, AT_INF_OPTIONAL),
    ITEM_ROW(6, AT_INF_OPTIONAL),
    ITEM_ROW(7, AT_INF_OPTIONAL),
    ITEM_ROW(8, AT_INF_OPTIONAL),
    ITEM_ROW(9, AT_INF_OPTIONAL),
};
static at_status make_list_run(at_node_ctx *c, const void *in, at_value *out)
{
    const list_in *i = in;
    at_status st = AT_OK;

    (void)out;
    for (size_t k = 0; k < AT_COUNT(i->item) && st == AT_OK; k++)
        if (i->item[k].kind != AT_VAL_NONE) st = emit_copy(c, &i->item[k]);
    return st;
}
const at_node at_node_test_make_list =
    AT_TEST_NODE("TestMakeListNode", "Make List", "Testing/Lists", make_list_rows, list_in,
                 many_out, make_list_run);
