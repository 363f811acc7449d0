// SPDX-License-Identifier: Apache-2.0
// node_testing_loops.c - loops of ComfyUI's test suite, as nodes that copy what stands between them.
// Idea: the end of a while loop, as long as its condition holds, answers with a copy of all nodes between the
// beginning and itself, fed with this round's values; a for loop is a while loop with a counter.
// Source: ComfyUI 0.3.64, behaviour of tests/execution/testing_nodes/testing-pack/flow_control.py and util.py.
// Easy to get wrong: the copy of the end is called Recurse, so that names do not grow with the rounds.
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "json/json.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"
#include "nodes/testing.h"

enum { SOCKETS = 5 };

typedef struct loop_in {
    at_value flow_control; // the link to the loop's beginning, as JSON
    bool condition;
    int64_t remaining;
    at_value value[SOCKETS];
    const char *dynprompt, *unique_id;
} loop_in;

#define VALUE_ROW(i, more)                                                                         \
    {                                                                                              \
        .name = "initial_value" #i, .type = AT_IN_ANY, .offset = offsetof(loop_in, value[i]),      \
        .type_name = "*", .flags = AT_INF_NO_OPTIONS | (more)                                      \
    }
#define FLOW_ROW                                                                                   \
    AT_ROW(loop_in, flow_control, AT_IN_ANY, .type_name = "FLOW_CONTROL",                          \
           .flags = AT_INF_RAW_LINK, .extra = "{\"rawLink\": true}")
#define VALUES(more)                                                                               \
    VALUE_ROW(1, AT_INF_OPTIONAL | (more)), VALUE_ROW(2, AT_INF_OPTIONAL | (more)),                \
        VALUE_ROW(3, AT_INF_OPTIONAL | (more)), VALUE_ROW(4, AT_INF_OPTIONAL | (more))

static const at_out open_out[] = {{"FLOW_CONTROL", "FLOW_CONTROL"},
                                  {"*", "value0"},
                                  {"*", "value1"},
                                  {"*", "value2"},
                                  {"*", "value3"},
                                  {"*", "value4"}};
static const at_out for_open_out[] = {{"FLOW_CONTROL", "flow_control"},
                                      {"INT", "remaining"},
                                      {"*", "value1"},
                                      {"*", "value2"},
                                      {"*", "value3"},
                                      {"*", "value4"}};

static at_status no_memory(void)
{
    return at_fail(AT_ENOMEM, "no memory for a loop");
}

static at_status copy_values(const loop_in *in, int first, at_value *out)
{
    for (int i = first; i < SOCKETS; i++) {
        out[i - first] = at_value_copy(&in->value[i]);
        if (out[i - first].kind != in->value[i].kind) return no_memory();
    }
    return AT_OK;
}

// --- while ---------------------------------------------------------------------------------------
static const at_in open_rows[] = {AT_ROW(loop_in, condition, AT_IN_BOOL, .def = 1),
                                  VALUE_ROW(0, AT_INF_OPTIONAL), VALUES(0)};

static at_status open_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    out[0] = at_value_string("stub");
    return out[0].kind ? copy_values(in, 0, out + 1) : no_memory();
}
const at_node at_node_test_while_open = {.class_type = "TestWhileLoopOpen",
                                         .display = "While Loop Open",
                                         .category = "Testing/Flow",
                                         .flags = AT_NODE_TEST,
                                         .python_module = "custom_nodes.testing-pack",
                                         .in = open_rows,
                                         .n_in = AT_COUNT(open_rows),
                                         .in_size = sizeof(loop_in),
                                         .out = open_out,
                                         .n_out = AT_COUNT(open_out),
                                         .run = open_run};

// The nodes of one round: {id: node} of all that the end depends on, and which of them lie inside.
typedef struct round {
    at_node_ctx *c;
    const char *end, *begin;
    json_t *above;  // {id: node JSON}
    json_t *inside; // {id: the copy's id}
} round;

static json_t *node_of(at_node_ctx *c, const char *id)
{
    char *text = at_node_of_workflow(c, id);
    json_t *node = NULL;

    if (text && at_json_load(id, text, strlen(text), &node) != AT_OK) node = NULL;
    at_free(text);
    return node;
}

static bool is_link(const json_t *v)
{
    return json_is_array(v) && json_array_size(v) == 2 && json_is_string(json_array_get(v, 0)) &&
           json_is_integer(json_array_get(v, 1));
}

// Everything above the end, breadth first.
static at_status look_up(round *r)
{
    at_status st = AT_OK;
    json_t *todo = json_pack("[s]", r->end), *value;
    const char *name;

    for (size_t i = 0; i < json_array_size(todo); i++) {
        const char *id = json_string_value(json_array_get(todo, i));
        if (json_object_get(r->above, id)) continue;
        json_t *node = node_of(r->c, id);
        if (!node || json_object_set_new(r->above, id, node)) AT_TRY(no_memory());
        json_object_foreach(json_object_get(node, "inputs"), name, value)
        {
            if (is_link(value) && json_array_append(todo, json_array_get(value, 0)))
                AT_TRY(no_memory());
        }
    }
out:
    json_decref(todo);
    return st;
}

static bool reads_inside(const round *r, json_t *node)
{
    const char *name;
    json_t *value;

    json_object_foreach(json_object_get(node, "inputs"), name,
                        value) if (is_link(value) &&
                                   json_object_get(r->inside, json_string_value(json_array_get(
                                                                  value, 0)))) return true;
    return false;
}

// What lies between: reads the beginning, or something that does.
static at_status find_inside(round *r)
{
    const char *id;
    json_t *node;
    bool grew = true;

    if (json_object_set_new(r->inside, r->begin, json_null())) return no_memory();
    while (grew) {
        grew = false;
        json_object_foreach(r->above, id, node)
        {
            if (json_object_get(r->inside, id) || !reads_inside(r, node)) continue;
            if (json_object_set_new(r->inside, id, json_null())) return no_memory();
            grew = true;
        }
    }
    return json_object_set_new(r->inside, r->end, json_null()) ? no_memory() : AT_OK;
}

static at_status copy_nodes(round *r)
{
    at_status st = AT_OK;
    const char *id, *full, *name;
    json_t *value, *inputs, *copy;

    json_object_foreach(r->inside, id, value)
    {
        const char *class_type =
            json_string_value(json_object_get(json_object_get(r->above, id), "class_type"));
        if (!class_type) AT_TRY(at_fail(AT_EWORKFLOW, "the loop does not contain node %s", id));
        AT_TRY(at_expand_node(r->c, class_type, strcmp(id, r->end) == 0 ? "Recurse" : id, &full));
        AT_TRY(at_expand_display(r->c, full, id));
        json_object_set_new(r->inside, id, json_string(full));
    }
    json_object_foreach(r->inside, id, value)
    {
        full = json_string_value(value);
        inputs = json_object_get(json_object_get(r->above, id), "inputs");
        json_object_foreach(inputs, name, copy)
        {
            const char *from = is_link(copy) ? json_string_value(json_array_get(copy, 0)) : "";
            const json_t *to = json_object_get(r->inside, from);
            if (to) {
                AT_TRY(at_expand_link(r->c, full, name, json_string_value(to),
                                      json_integer_value(json_array_get(copy, 1))));
            } else {
                char *text = at_json_dump(copy, AT_JSON_COMPACT);
                st = text ? at_expand_json(r->c, full, name, text) : no_memory();
                at_free(text);
                if (st != AT_OK) goto out;
            }
        }
    }
out:
    return st;
}

static at_status next_round(at_node_ctx *c, const loop_in *in, const char *begin)
{
    at_status st = AT_OK;
    round r = {.c = c, .end = at_node_id(c), .begin = begin};
    const char *open, *again;
    char name[32];

    r.above = json_object();
    r.inside = json_object();
    if (!r.above || !r.inside) AT_TRY(no_memory());
    AT_TRY(look_up(&r));
    AT_TRY(find_inside(&r));
    AT_TRY(copy_nodes(&r));
    open = json_string_value(json_object_get(r.inside, begin));
    again = json_string_value(json_object_get(r.inside, r.end));
    for (int i = 0; i < SOCKETS; i++) {
        snprintf(name, sizeof name, "initial_value%d", i);
        AT_TRY(at_expand_value(c, open, name, &in->value[i]));
        AT_TRY(at_expand_answer(c, (size_t)i, again, i));
    }
out:
    json_decref(r.above);
    json_decref(r.inside);
    return st;
}

static at_status close_run(at_node_ctx *c, const void *in, at_value *out)
{
    const loop_in *i = in;
    json_t *link = NULL;
    at_status st = AT_OK;

    if (!i->condition) return copy_values(i, 0, out);
    if (i->flow_control.kind != AT_VAL_JSON)
        return at_fail(AT_EINVAL, "flow_control must be linked to the beginning of the loop");
    AT_TRY(at_json_load("flow_control", i->flow_control.s, strlen(i->flow_control.s), &link));
    if (!is_link(link))
        AT_TRY(at_fail(AT_EINVAL, "flow_control must be linked to the beginning of the loop"));
    AT_TRY(next_round(c, i, json_string_value(json_array_get(link, 0))));
out:
    json_decref(link);
    return st;
}

static const at_in close_rows[] = {
    FLOW_ROW,
    AT_ROW(loop_in, condition, AT_IN_BOOL, .flags = AT_INF_FORCE_INPUT | AT_INF_NO_DEFAULT),
    VALUE_ROW(0, AT_INF_OPTIONAL),
    VALUES(0),
    AT_ROW_HIDDEN(loop_in, dynprompt, "DYNPROMPT"),
    AT_ROW_HIDDEN(loop_in, unique_id, "UNIQUE_ID")};
const at_node at_node_test_while_close = {.class_type = "TestWhileLoopClose",
                                          .display = "While Loop Close",
                                          .category = "Testing/Flow",
                                          .flags = AT_NODE_TEST,
                                          .python_module = "custom_nodes.testing-pack",
                                          .in = close_rows,
                                          .n_in = AT_COUNT(close_rows),
                                          .in_size = sizeof(loop_in),
                                          .out = open_out + 1,
                                          .n_out = SOCKETS,
                                          .run = close_run};

// --- for -----------------------------------------------------------------------------------------
static const at_in for_open_rows[] = {
    AT_ROW_INT_STEP(loop_in, remaining, 1, 0, 100000, 1), VALUES(0),
    VALUE_ROW(0, AT_INF_HIDDEN)}; // given by the copy that the loop's end makes

static at_status for_open_run(at_node_ctx *c, const void *in, at_value *out)
{
    const loop_in *i = in;
    at_status st = AT_OK;
    at_value remaining = i->value[0].kind == AT_VAL_INT ? i->value[0] : at_value_int(i->remaining);
    const char *full;
    char name[32];

    AT_TRY(at_expand_node(c, "TestWhileLoopOpen", NULL, &full));
    AT_TRY(at_expand_value(c, full, "condition", &remaining));
    AT_TRY(at_expand_value(c, full, "initial_value0", &remaining));
    for (int k = 1; k < SOCKETS; k++) {
        snprintf(name, sizeof name, "initial_value%d", k);
        AT_TRY(at_expand_value(c, full, name, &i->value[k]));
    }
    out[0] = at_value_string("stub");
    out[1] = remaining;
    if (!out[0].kind) AT_TRY(no_memory());
    AT_TRY(copy_values(i, 1, out + 2));
out:
    return st;
}
const at_node at_node_test_for_open = {.class_type = "TestForLoopOpen",
                                       .display = "For Loop Open",
                                       .category = "Testing/Flow",
                                       .flags = AT_NODE_TEST,
                                       .python_module = "custom_nodes.testing-pack",
                                       .in = for_open_rows,
                                       .n_in = AT_COUNT(for_open_rows),
                                       .in_size = sizeof(loop_in),
                                       .out = for_open_out,
                                       .n_out = AT_COUNT(for_open_out),
                                       .run = for_open_run};

// remaining - 1, whether that is more than nothing, and the while loop over both.
static at_status for_close_run(at_node_ctx *c, const void *in, at_value *out)
{
    const loop_in *i = in;
    at_status st = AT_OK;
    json_t *link = NULL;
    const char *less, *more, *close, *begin;
    char name[32];

    (void)out;
    if (i->flow_control.kind != AT_VAL_JSON)
        return at_fail(AT_EINVAL, "flow_control must be linked to the beginning of the loop");
    AT_TRY(at_json_load("flow_control", i->flow_control.s, strlen(i->flow_control.s), &link));
    begin = json_string_value(json_array_get(link, 0));
    if (!begin) AT_TRY(at_fail(AT_EINVAL, "flow_control must be a link"));
    AT_TRY(at_expand_node(c, "TestIntMathOperation", NULL, &less));
    AT_TRY(at_expand_json(c, less, "operation", "\"subtract\""));
    AT_TRY(at_expand_link(c, less, "a", begin, 1));
    AT_TRY(at_expand_json(c, less, "b", "1"));
    AT_TRY(at_expand_node(c, "TestToBoolNode", NULL, &more));
    AT_TRY(at_expand_link(c, more, "value", less, 0));
    AT_TRY(at_expand_node(c, "TestWhileLoopClose", NULL, &close));
    AT_TRY(at_expand_json(c, close, "flow_control", i->flow_control.s));
    AT_TRY(at_expand_link(c, close, "condition", more, 0));
    AT_TRY(at_expand_link(c, close, "initial_value0", less, 0));
    for (int k = 1; k < SOCKETS; k++) {
        snprintf(name, sizeof name, "initial_value%d", k);
        AT_TRY(at_expand_value(c, close, name, &i->value[k]));
        AT_TRY(at_expand_answer(c, (size_t)k - 1, close, k));
    }
out:
    json_decref(link);
    return st;
}

static const at_in for_close_rows[] = {FLOW_ROW, VALUES(AT_INF_RAW_LINK)};
const at_node at_node_test_for_close = {.class_type = "TestForLoopClose",
                                        .display = "For Loop Close",
                                        .category = "Testing/Flow",
                                        .flags = AT_NODE_TEST,
                                        .python_module = "custom_nodes.testing-pack",
                                        .in = for_close_rows,
                                        .n_in = AT_COUNT(for_close_rows),
                                        .in_size = sizeof(loop_in),
                                        .out = for_open_out + 2,
                                        .n_out = SOCKETS - 1,
                                        .run = for_close_run};
