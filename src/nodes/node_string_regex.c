// SPDX-License-Identifier: Apache-2.0
// node_string_regex.c - RegexMatch, RegexExtract, RegexReplace.
// Easy to get wrong: a pattern that Python refuses matches nothing (RegexMatch, RegexExtract) but fails
// RegexReplace; "All Matches" gives the first group where there is one, as re.findall; a group that took no
// part fails "All Groups", and is no text ("" here, None in Python) in "First Group".
// Source: ComfyUI 0.3.64, behaviour of comfy_extras/nodes_string.py; text/py_regex.h for what differs.
#include <string.h>

#include "nodes/nodes.h"
#include "nodes/rows.h"
#include "nodes/string_rows.h"
#include "text/py_regex.h"

typedef struct regex_in {
    const char *string, *regex_pattern, *replace, *mode;
    bool case_insensitive, multiline, dotall;
    int64_t group_index, count;
} regex_in;

static const at_out matches_out[] = {{.type_name = "BOOLEAN", .name = "matches"}};
static const at_out string_out[] = {AT_OUT("STRING")};

// *re stays NULL where the pattern is no pattern and `forgive`.
static at_status compile(const regex_in *i, bool forgive, at_regex **re)
{
    unsigned flags = (i->case_insensitive ? AT_REGEX_NOCASE : 0) |
                     (i->multiline ? AT_REGEX_MULTILINE : 0) | (i->dotall ? AT_REGEX_DOTALL : 0);
    at_status st = at_py_regex_compile(i->regex_pattern, flags, re);
    return st == AT_EFORMAT && forgive ? AT_OK : st;
}

#define FLAG_ROWS(optional)                                                                        \
    AT_ROW(regex_in, case_insensitive, AT_IN_BOOL, .def = 1, .flags = optional),                   \
        AT_ROW(regex_in, multiline, AT_IN_BOOL, .def = 0, .flags = optional),                      \
        AT_ROW(regex_in, dotall, AT_IN_BOOL, .def = 0, .flags = optional)

// --- RegexMatch --------------------------------------------------------------------------------------
static const at_in match_rows[] = {AT_ROW_TEXT(regex_in, "string", string),
                                   AT_ROW_TEXT(regex_in, "regex_pattern", regex_pattern),
                                   FLAG_ROWS(0)};
static at_status match_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const regex_in *i = in;
    at_regex *re = NULL;
    at_py_matches m = {0};
    bool found = false;

    AT_TRY(compile(i, true, &re));
    if (re) {
        AT_TRY(at_py_matches_open(re, i->string, &m));
        found = at_py_matches_next(&m, &st);
        AT_TRY(st);
    }
    out[0] = at_value_bool(found);
out:
    at_py_matches_close(&m);
    at_regex_free(re);
    return st;
}
static const at_node node_match =
    AT_STRING_NODE("RegexMatch", "Regex Match", match_rows, matches_out, regex_in, match_run);

// --- RegexExtract ------------------------------------------------------------------------------------
static const char *const modes[] = {"First Match", "All Matches", "First Group", "All Groups",
                                    NULL};
static const at_in extract_rows[] = {AT_ROW_TEXT(regex_in, "string", string),
                                     AT_ROW_TEXT(regex_in, "regex_pattern", regex_pattern),
                                     AT_ROW(regex_in, mode, AT_IN_COMBO, .choices = modes),
                                     FLAG_ROWS(0), AT_ROW_INT(regex_in, group_index, 1, 0, 100)};

static bool took_part(const at_py_matches *m, size_t group)
{
    return m->ranges[2 * group] != SIZE_MAX;
}

static void append(const at_py_matches *m, size_t group, at_str *out)
{
    if (took_part(m, group))
        at_str_append_n(out, m->text + m->ranges[2 * group],
                        m->ranges[2 * group + 1] - m->ranges[2 * group]);
}

static at_status extract(const regex_in *i, at_py_matches *m, at_str *out)
{
    at_status st = AT_OK;
    size_t groups = at_regex_groups(m->re), group = 0;
    bool all = i->mode[0] == 'A', by_index = strstr(i->mode, "Group") != NULL;

    if (by_index && (i->group_index > (int64_t)groups || (all && groups == 0))) return AT_OK;
    if (by_index && i->group_index < 0)
        return at_fail(AT_EINVAL, "RegexExtract: no such group: %lld", (long long)i->group_index);
    if (by_index) group = (size_t)i->group_index;
    if (all && !by_index && groups) group = 1;
    for (size_t k = 0; (all || k == 0) && at_py_matches_next(m, &st); k++) {
        if (k) at_str_append(out, "\n");
        if (all && by_index && !took_part(m, group))
            return at_fail(AT_EINVAL, "RegexExtract: group %zu took no part in match %zu", group,
                           k + 1);
        append(m, group, out);
    }
    return st;
}

static at_status extract_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const regex_in *i = in;
    at_regex *re = NULL;
    at_py_matches m = {0};
    at_str s = {0};

    AT_TRY(compile(i, true, &re));
    if (re) {
        AT_TRY(at_py_matches_open(re, i->string, &m));
        AT_TRY(extract(i, &m, &s));
    }
    st = at_give_string("RegexExtract", &s, &out[0]);
out:
    at_str_free(&s);
    at_py_matches_close(&m);
    at_regex_free(re);
    return st;
}
static const at_node node_extract = AT_STRING_NODE("RegexExtract", "Regex Extract", extract_rows,
                                                   string_out, regex_in, extract_run);

// --- RegexReplace ------------------------------------------------------------------------------------
static const at_in replace_rows[] = {
    AT_ROW_TEXT(regex_in, "string", string), AT_ROW_TEXT(regex_in, "regex_pattern", regex_pattern),
    AT_ROW_TEXT(regex_in, "replace", replace), FLAG_ROWS(AT_INF_OPTIONAL),
    AT_ROW(regex_in, count, AT_IN_INT, .def = 0, .min = 0, .max = 100,
           .flags = AT_INF_OPTIONAL | AT_INF_HAS_MIN | AT_INF_HAS_MAX)};
static at_status replace_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const regex_in *i = in;
    at_regex *re = NULL;
    at_str s = {0};

    AT_TRY(compile(i, false, &re));
    AT_TRY(at_py_regex_sub(re, i->replace, i->string, i->count, &s));
    st = at_give_string("RegexReplace", &s, &out[0]);
out:
    at_str_free(&s);
    at_regex_free(re);
    return st;
}
static const at_node node_replace = AT_STRING_NODE("RegexReplace", "Regex Replace", replace_rows,
                                                   string_out, regex_in, replace_run);

const at_node *const at_nodes_string_regex[] = {&node_match, &node_extract, &node_replace, NULL};
