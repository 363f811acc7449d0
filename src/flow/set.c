// SPDX-License-Identifier: Apache-2.0
// set.c - NODE.INPUT=VALUE of the command line, put into a workflow.
// Idea: NODE is an id, or a class or title that occurs once; both NODE and INPUT may hold dots, so
// every dot is tried. VALUE is text where the input wants text, otherwise JSON, otherwise text.
// Owns nothing.
#include "flow/graph.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "json/json.h"

static const char *title_of(const at_graph_node *n)
{
    const json_t *title = json_object_get(json_object_get(n->json, "_meta"), "title");
    return at_json_is_text(title) ? json_string_value(title) : NULL;
}

// The node that `name` means; *matches: how many nodes it could be.
static size_t find_node(const at_graph *g, const char *name, size_t *matches)
{
    size_t found = at_graph_find(g, name);

    *matches = found != AT_NO_INDEX;
    if (*matches) return found;
    for (size_t i = 0; i < g->count; i++) {
        const at_graph_node *n = &g->nodes[i];
        const char *title = title_of(n);
        if ((n->spec && strcmp(n->spec->class_type, name) == 0) ||
            (title && strcmp(title, name) == 0)) {
            found = i;
            ++*matches;
        }
    }
    return found;
}

static bool takes(const at_graph_node *n, const char *input)
{
    return json_object_get(n->inputs, input) || at_find_row(n->spec, input, false);
}

static at_status unknown_input(const at_graph_node *n, const char *input)
{
    at_str names = {0};
    at_status st;

    for (size_t i = 0; n->spec && i < n->spec->n_in; i++) {
        if (n->spec->in[i].flags & AT_INF_HIDDEN) continue;
        at_str_printf(&names, "%s%s", names.len ? ", " : "", n->spec->in[i].name);
    }
    st = at_fail(AT_EUSAGE, "--set: node %s (%s) has no input %s; it has: %s", n->id,
                 n->spec ? n->spec->class_type : "unknown class", input, at_str_text(&names));
    at_str_free(&names);
    return st;
}

// Split "NODE.INPUT": the first dot that gives a known node and input.
static at_status split(const at_graph *g, char *target, size_t *node, const char **input)
{
    size_t matches, seen = AT_NO_INDEX;

    for (char *dot = strchr(target, '.'); dot; dot = strchr(dot + 1, '.')) {
        *dot = '\0';
        *node = find_node(g, target, &matches);
        if (matches == 1 && takes(&g->nodes[*node], dot + 1)) {
            *input = dot + 1;
            return AT_OK;
        }
        if (matches == 1) {
            seen = *node;
            *input = dot + 1;
        }
        if (matches > 1) {
            return at_fail(AT_EUSAGE, "--set: %zu nodes are called %s; use the id of one", matches,
                           target);
        }
        *dot = '.';
    }
    if (seen != AT_NO_INDEX) return unknown_input(&g->nodes[seen], *input);
    return at_fail(AT_EUSAGE,
                   "--set %s: no such node; write NODE.INPUT=VALUE with an id, a class or "
                   "a title",
                   target);
}

static at_status parse_value(const at_in *row, const char *text, json_t **out)
{
    bool plain = row && (row->type == AT_IN_STRING || row->type == AT_IN_COMBO);

    *out = NULL;
    if (row && row->type == AT_IN_BOOL) {
        static const char *const yes[] = {"true", "yes", "on", "1"};
        static const char *const no[] = {"false", "no", "off", "0"};
        for (size_t i = 0; i < AT_COUNT(yes) && !*out; i++) {
            if (at_equal_nocase(text, yes[i])) *out = json_true();
            if (at_equal_nocase(text, no[i])) *out = json_false();
        }
        if (!*out && text[0] != '[') {
            return at_fail(AT_EUSAGE, "--set: %s is a boolean, not '%s'; use true or false",
                           row->name, text);
        }
    }
    if (!plain && !*out && at_json_load("--set", text, strlen(text), out) == AT_ENOMEM) {
        return AT_ENOMEM;
    }
    if (!*out && at_utf8_valid(text, strlen(text))) *out = json_string_nocheck(text);
    return *out ? AT_OK : at_fail(AT_EUSAGE, "--set: the value is not UTF-8 text");
}

at_status at_graph_set(at_graph *g, const char *assignment)
{
    at_status st = AT_OK;
    const char *equals = strchr(assignment, '='), *input = NULL;
    char *target = NULL;
    json_t *value = NULL;
    at_graph_node *n;
    size_t node = 0;

    if (!equals) AT_TRY(at_fail(AT_EUSAGE, "--set %s: write NODE.INPUT=VALUE", assignment));
    target = at_strndup(assignment, (size_t)(equals - assignment));
    if (!target) AT_TRY(at_fail(AT_ENOMEM, "--set: no memory"));
    AT_TRY(split(g, target, &node, &input));
    n = &g->nodes[node];
    AT_TRY(parse_value(at_find_row(n->spec, input, false), equals + 1, &value));
    if (!n->inputs) {
        n->inputs = json_object();
        if (json_object_set_new_nocheck(n->json, "inputs", n->inputs)) {
            n->inputs = NULL;
            AT_TRY(at_fail(AT_ENOMEM, "--set: no memory"));
        }
    }
    if (json_object_set_nocheck(n->inputs, input, value)) {
        AT_TRY(at_fail(AT_ENOMEM, "--set: no memory"));
    }
out:
    at_free(target);
    json_decref(value);
    return st;
}
