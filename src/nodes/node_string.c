// SPDX-License-Identifier: Apache-2.0
// node_string.c - StringConcatenate, StringSubstring, StringLength, CaseConverter, StringTrim, StringReplace,
// StringContains, StringCompare: Python's str as nodes.
// Source: ComfyUI 0.3.64, behaviour of comfy_extras/nodes_string.py; text/py_str.h for what Python does.
#include <string.h>

#include "base/mem.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"
#include "nodes/string_rows.h"
#include "text/py_str.h"

static const at_out string_out[] = {AT_OUT("STRING")};
static const at_out length_out[] = {{.type_name = "INT", .name = "length"}};
static const at_out contains_out[] = {{.type_name = "BOOLEAN", .name = "contains"}};
static const at_out bool_out[] = {AT_OUT("BOOLEAN")};

at_status at_give_string(const char *node, at_str *s, at_value *out)
{
    char *text = at_str_take(s);
    if (!text) return at_fail(AT_ENOMEM, "%s: no memory for the text", node);
    *out = (at_value){.kind = AT_VAL_STRING, .s = text};
    return AT_OK;
}

typedef struct string_in {
    const char *string, *other, *third, *mode;
    int64_t start, end;
    bool case_sensitive;
} string_in;
#define INPUT(label, field) AT_ROW_TEXT(string_in, label, field)
static const at_in one_rows[] = {INPUT("string", string)};

// --- joining and cutting -----------------------------------------------------------------------------
static const at_in concat_rows[] = {INPUT("string_a", string),
                                    INPUT("string_b", other),
                                    {.name = "delimiter",
                                     .type = AT_IN_STRING,
                                     .offset = offsetof(string_in, third),
                                     .sdef = "",
                                     .flags = AT_INF_SINGLE_LINE}};
static at_status concat_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const string_in *i = in;
    at_str s = {0};
    at_str_append(&s, i->string);
    at_str_append(&s, i->third);
    at_str_append(&s, i->other);
    return at_give_string("StringConcatenate", &s, &out[0]);
}

static const at_in substring_rows[] = {
    INPUT("string", string), AT_ROW(string_in, start, AT_IN_INT, .flags = AT_INF_NO_DEFAULT),
    AT_ROW(string_in, end, AT_IN_INT, .flags = AT_INF_NO_DEFAULT)};
static at_status substring_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const string_in *i = in;
    at_str s = {0};
    at_py_slice(i->string, i->start, i->end, &s);
    return at_give_string("StringSubstring", &s, &out[0]);
}

static at_status length_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    out[0] = at_value_int(at_py_len(((const string_in *)in)->string));
    return AT_OK;
}

static const at_in replace_rows[] = {INPUT("string", string), INPUT("find", other),
                                     INPUT("replace", third)};
static at_status replace_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const string_in *i = in;
    at_str s = {0};
    at_py_replace(i->string, i->other, i->third, &s);
    return at_give_string("StringReplace", &s, &out[0]);
}

// --- case and edges ----------------------------------------------------------------------------------
static const char *const cases[] = {"UPPERCASE", "lowercase", "Capitalize", "Title Case", NULL};
static const char *const sides[] = {"Both", "Left", "Right", NULL};
static const at_in case_rows[] = {INPUT("string", string),
                                  AT_ROW(string_in, mode, AT_IN_COMBO, .choices = cases)};
static const at_in trim_rows[] = {INPUT("string", string),
                                  AT_ROW(string_in, mode, AT_IN_COMBO, .choices = sides)};

static at_status case_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const string_in *i = in;
    at_str s = {0};
    at_py_case how = AT_PY_UPPER;
    while (how < AT_PY_TITLE && strcmp(i->mode, cases[how]) != 0)
        how++;
    AT_TRY(at_py_case_of(i->string, how, &s));
    st = at_give_string("CaseConverter", &s, &out[0]);
out:
    at_str_free(&s);
    return st;
}

static at_status trim_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const string_in *i = in;
    at_str s = {0};
    at_py_strip(i->string, i->mode[0] != 'R', i->mode[0] != 'L', &s);
    return at_give_string("StringTrim", &s, &out[0]);
}

// --- comparing ---------------------------------------------------------------------------------------
static const char *const places[] = {"Starts With", "Ends With", "Equal", NULL};
static const at_in contains_rows[] = {INPUT("string", string), INPUT("substring", other),
                                      AT_ROW(string_in, case_sensitive, AT_IN_BOOL, .def = 1)};
static const at_in compare_rows[] = {INPUT("string_a", string), INPUT("string_b", other),
                                     AT_ROW(string_in, mode, AT_IN_COMBO, .choices = places),
                                     AT_ROW(string_in, case_sensitive, AT_IN_BOOL, .def = 1)};

// mode NULL: anywhere
static bool holds(const char *a, const char *b, const char *mode)
{
    if (!mode) return strstr(a, b) != NULL;
    if (mode[0] == 'S') return at_starts_with(a, b);
    return mode[1] == 'n' ? at_ends_with(a, b) : strcmp(a, b) == 0;
}

static at_status compared(const string_in *i, const char *mode, at_value *out)
{
    at_status st = AT_OK;
    at_str a = {0}, b = {0};
    if (i->case_sensitive) {
        *out = at_value_bool(holds(i->string, i->other, mode));
        goto out;
    }
    AT_TRY(at_py_case_of(i->string, AT_PY_LOWER, &a));
    AT_TRY(at_py_case_of(i->other, AT_PY_LOWER, &b));
    if (a.failed || b.failed) AT_TRY(at_fail(AT_ENOMEM, "no memory to compare texts"));
    *out = at_value_bool(holds(at_str_text(&a), at_str_text(&b), mode));
out:
    at_str_free(&a);
    at_str_free(&b);
    return st;
}
static at_status contains_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return compared(in, NULL, &out[0]);
}
static at_status compare_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return compared(in, ((const string_in *)in)->mode, &out[0]);
}

#define STRING(var, cls, title, rows, outs, fn)                                                    \
    static const at_node var = AT_STRING_NODE(cls, title, rows, outs, string_in, fn)
STRING(node_concat, "StringConcatenate", "Concatenate", concat_rows, string_out, concat_run);
STRING(node_substring, "StringSubstring", "Substring", substring_rows, string_out, substring_run);
STRING(node_length, "StringLength", "Length", one_rows, length_out, length_run);
STRING(node_case, "CaseConverter", "Case Converter", case_rows, string_out, case_run);
STRING(node_trim, "StringTrim", "Trim", trim_rows, string_out, trim_run);
STRING(node_replace, "StringReplace", "Replace", replace_rows, string_out, replace_run);
STRING(node_contains, "StringContains", "Contains", contains_rows, contains_out, contains_run);
STRING(node_compare, "StringCompare", "Compare", compare_rows, bool_out, compare_run);

const at_node *const at_nodes_string[] = {&node_concat,   &node_substring, &node_length,
                                          &node_case,     &node_trim,      &node_replace,
                                          &node_contains, &node_compare,   NULL};
