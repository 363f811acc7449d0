// SPDX-License-Identifier: Apache-2.0
// node_primitive.c - String, Int, Float, Boolean: a widget's value on a link.
#include "nodes/nodes.h"

#define MODULE "comfy_extras.nodes_primitive"
#define PRIMITIVE(cls, title, rows, outs, st, fn)                                                  \
    {                                                                                              \
        .class_type = cls, .display = title, .category = "utils/primitive",                        \
        .python_module = MODULE, .flags = AT_NODE_V3, .in = rows, .n_in = AT_COUNT(rows),          \
        .out = outs, .n_out = AT_COUNT(outs), .in_size = sizeof(st), .run = fn,                    \
    }

typedef struct string_in {
    const char *value;
} string_in;
static const at_in string_rows[] = {{.name = "value",
                                     .type = AT_IN_STRING,
                                     .offset = offsetof(string_in, value),
                                     .flags = AT_INF_NO_DEFAULT | AT_INF_SINGLE_LINE}};
static const at_in multiline_rows[] = {{.name = "value",
                                        .type = AT_IN_STRING,
                                        .offset = offsetof(string_in, value),
                                        .flags = AT_INF_NO_DEFAULT | AT_INF_MULTILINE}};
static const at_out string_out[] = {{.type_name = "STRING", .name = "STRING"}};

static at_status string_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    out[0] = at_value_string(((const string_in *)in)->value);
    if (out[0].kind == AT_VAL_NONE) return at_fail(AT_ENOMEM, "String: no memory");
    return AT_OK;
}

typedef struct int_in {
    int64_t value;
} int_in;
#define INT_LIMIT 9223372036854775807.0
static const at_in int_rows[] = {
    {.name = "value",
     .type = AT_IN_INT,
     .offset = offsetof(int_in, value),
     .flags = AT_INF_NO_DEFAULT | AT_INF_CONTROL | AT_INF_HAS_MIN | AT_INF_HAS_MAX,
     .min = -INT_LIMIT,
     .max = INT_LIMIT}};
static const at_out int_out[] = {{.type_name = "INT", .name = "INT"}};

static at_status int_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    out[0] = at_value_int(((const int_in *)in)->value);
    return AT_OK;
}

typedef struct float_in {
    double value;
} float_in;
static const at_in float_rows[] = {
    {.name = "value",
     .type = AT_IN_FLOAT,
     .offset = offsetof(float_in, value),
     .flags = AT_INF_NO_DEFAULT | AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_INT_LIMITS,
     .min = -INT_LIMIT,
     .max = INT_LIMIT}};
static const at_out float_out[] = {{.type_name = "FLOAT", .name = "FLOAT"}};

static at_status float_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    out[0] = at_value_float(((const float_in *)in)->value);
    return AT_OK;
}

typedef struct bool_in {
    bool value;
} bool_in;
static const at_in bool_rows[] = {{.name = "value",
                                   .type = AT_IN_BOOL,
                                   .offset = offsetof(bool_in, value),
                                   .flags = AT_INF_NO_DEFAULT}};
static const at_out bool_out[] = {{.type_name = "BOOLEAN", .name = "BOOLEAN"}};

static at_status bool_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    out[0] = at_value_bool(((const bool_in *)in)->value);
    return AT_OK;
}

static const at_node node_string =
    PRIMITIVE("PrimitiveString", "String", string_rows, string_out, string_in, string_run);
static const at_node node_multiline = PRIMITIVE("PrimitiveStringMultiline", "String (Multiline)",
                                                multiline_rows, string_out, string_in, string_run);
static const at_node node_int =
    PRIMITIVE("PrimitiveInt", "Int", int_rows, int_out, int_in, int_run);
static const at_node node_float =
    PRIMITIVE("PrimitiveFloat", "Float", float_rows, float_out, float_in, float_run);
static const at_node node_bool =
    PRIMITIVE("PrimitiveBoolean", "Boolean", bool_rows, bool_out, bool_in, bool_run);

const at_node *const at_nodes_primitive[] = {&node_string, &node_multiline, &node_int,
                                             &node_float,  &node_bool,      NULL};
