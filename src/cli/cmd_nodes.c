// SPDX-License-Identifier: Apache-2.0
// cmd_nodes.c - atelier nodes: what can stand in a workflow, as a list, a description, or /object_info.
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/commands.h"
#include "engine/engine.h"
#include "nodes/known.h"

typedef struct nodes_options {
    at_common_options common;
    bool json, missing, markdown;
} nodes_options;

static const at_arg nodes_args[] = {
    {"--json", NULL, AT_ARG_FLAG, offsetof(nodes_options, json),
     .help = "print ComfyUI's /object_info"},
    {"--missing", NULL, AT_ARG_FLAG, offsetof(nodes_options, missing),
     .help = "list ComfyUI's nodes that are not here yet, with the count"},
    {"--markdown", NULL, AT_ARG_FLAG, offsetof(nodes_options, markdown),
     .help = "print docs/nodes.md"},
    AT_COMMON_ARGS(nodes_options, common),
};

static const char *const wire_types[] = {
    [AT_IN_INT] = "INT",      [AT_IN_U64] = "INT",       [AT_IN_FLOAT] = "FLOAT",
    [AT_IN_BOOL] = "BOOLEAN", [AT_IN_STRING] = "STRING", [AT_IN_COMBO] = "COMBO",
    [AT_IN_OBJECT] = "",      [AT_IN_ANY] = "*",
};

// Whole numbers in full; the limits of a seed and of a 64-bit integer are no doubles.
static void print_number(const char *label, const at_in *r, double v)
{
    if (label) printf(" %s", label);
    if (r->type == AT_IN_FLOAT)
        printf(" %g", v);
    else if (v >= 0x1p64)
        printf(" %llu", ULLONG_MAX);
    else if (v >= 0x1p63)
        printf(" %lld", LLONG_MAX);
    else if (v <= -0x1p63)
        printf(" %lld", -LLONG_MAX);
    else
        printf(" %.0f", v);
}

static void describe_input(const at_in *r)
{
    const char *type = r->type == AT_IN_OBJECT ? r->type_name : wire_types[r->type];
    printf("  %-28s %-14s", r->name, type);
    bool number = r->type == AT_IN_INT || r->type == AT_IN_U64 || r->type == AT_IN_FLOAT;
    if (number && !(r->flags & AT_INF_NO_DEFAULT)) print_number("default", r, r->def);
    if (number && (r->flags & AT_INF_HAS_MIN)) print_number("from", r, r->min);
    if (number && (r->flags & AT_INF_HAS_MAX)) print_number("to", r, r->max);
    if (r->type == AT_IN_STRING && r->sdef) printf(" default \"%s\"", r->sdef);
    if (r->type == AT_IN_COMBO && r->list) printf(" a file of %s", r->list);
    for (size_t i = 0; r->type == AT_IN_COMBO && r->choices && r->choices[i]; i++)
        printf("%s%s", i ? ", " : " ", r->choices[i]);
    if (r->flags & AT_INF_OPTIONAL) printf(" (optional)");
    putchar('\n');
}

static void describe(const at_node *n)
{
    printf("%s%s%s%s\ncategory %s%s\n", n->class_type, n->display ? " (" : "",
           n->display ? n->display : "", n->display ? ")" : "", n->category,
           n->flags & AT_NODE_OUTPUT ? ", an output node" : "");
    if (n->description) printf("%s\n", n->description);
    if (n->n_in) printf("inputs\n");
    for (size_t i = 0; i < n->n_in; i++)
        if (!(n->in[i].flags & AT_INF_HIDDEN)) describe_input(&n->in[i]);
    if (n->n_out) printf("outputs\n");
    for (size_t i = 0; i < n->n_out; i++)
        printf("  %-28s %s\n", n->out[i].name, n->out[i].type_name);
}

// --- what is missing ---------------------------------------------------------------------------
static void print_missing_family(const at_registry *r, at_known_family f, size_t *missing)
{
    size_t n = 0;
    for (size_t i = 0; i < at_known_count; i++) {
        const at_known_node *k = &at_known_nodes[i];
        if (k->family != f || at_registry_find(r, k->class_type)) continue;
        if (!n++) printf("%s\n", at_known_family_title(f));
        printf("  %s\n", k->class_type);
    }
    *missing += n;
}

static void print_missing(const at_registry *r)
{
    size_t missing = 0, own = 0;
    for (int f = 0; f < AT_KNOWN_FAMILIES; f++)
        print_missing_family(r, (at_known_family)f, &missing);
    for (size_t i = 0; i < at_registry_count(r); i++)
        own += !at_known_find(at_registry_at(r, i)->class_type);
    printf("%zu of the %zu nodes of ComfyUI 0.3.64 are here, %zu are missing",
           at_known_count - missing, at_known_count, missing);
    if (own) printf("; %zu are our own", own);
    putchar('\n');
}

// --- docs/nodes.md -----------------------------------------------------------------------------
static int by_category(const void *a, const void *b)
{
    const at_node *x = *(const at_node *const *)a, *y = *(const at_node *const *)b;
    int c = strcmp(x->category, y->category);
    return c ? c : strcmp(x->class_type, y->class_type);
}

// The rows of one node as a table; a bar inside a cell would end it.
static void markdown_inputs(const at_node *n)
{
    bool head = false;
    for (size_t i = 0; i < n->n_in; i++) {
        const at_in *r = &n->in[i];
        if (r->flags & AT_INF_HIDDEN) continue;
        if (!head) printf("\n| input | type | default | range |\n|---|---|---|---|\n");
        head = true;
        const char *type = r->type == AT_IN_OBJECT ? r->type_name : wire_types[r->type];
        printf("| `%s`%s | %s |", r->name, r->flags & AT_INF_OPTIONAL ? " (optional)" : "", type);
        bool number = r->type == AT_IN_INT || r->type == AT_IN_U64 || r->type == AT_IN_FLOAT;
        if (number && !(r->flags & AT_INF_NO_DEFAULT)) print_number(NULL, r, r->def);
        if (r->type == AT_IN_BOOL) printf(" %s", r->def != 0.0 ? "true" : "false");
        if (r->sdef && *r->sdef && !strchr(r->sdef, '\n')) printf(" %s", r->sdef);
        printf(" |");
        if (number && (r->flags & AT_INF_HAS_MIN)) print_number(NULL, r, r->min);
        if (number && (r->flags & AT_INF_HAS_MAX)) print_number("to", r, r->max);
        if (r->type == AT_IN_COMBO && r->list) printf(" a file of %s", r->list);
        for (size_t k = 0; r->type == AT_IN_COMBO && r->choices && r->choices[k]; k++)
            printf("%s %s", k ? "," : "", r->choices[k]);
        printf(" |\n");
    }
}

static void markdown_node(const at_node *n)
{
    bool titled = n->display && strcmp(n->display, n->class_type) != 0;
    printf("\n### %s\n\n", n->class_type);
    if (titled) printf("%s. ", n->display);
    if (n->description) printf("%s ", n->description);
    if (n->flags & AT_NODE_DEPRECATED) printf("Deprecated. ");
    if (n->flags & AT_NODE_EXPERIMENTAL) printf("Experimental. ");
    printf("Of ComfyUI's `%s`.\n", n->python_module);
    markdown_inputs(n);
    if (n->n_out) printf("\nGives");
    for (size_t i = 0; i < n->n_out; i++) {
        bool named = strcmp(n->out[i].name, n->out[i].type_name) != 0;
        printf("%s %s%s%s%s", i ? "," : "", n->out[i].type_name, named ? " `" : "",
               named ? n->out[i].name : "", named ? "`" : "");
    }
    if (n->n_out) printf(".\n");
}

static at_status print_markdown(const at_registry *r)
{
    size_t n = at_registry_count(r), known = 0;
    const at_node **all = at_calloc(n, sizeof *all);
    const char *category = NULL;

    if (!all) return at_fail(AT_ENOMEM, "nodes: no memory");
    for (size_t i = 0; i < n; i++) {
        all[i] = at_registry_at(r, i);
        known += at_known_find(all[i]->class_type) != NULL;
    }
    qsort(all, n, sizeof *all, by_category);
    printf("# Nodes\n\n%zu of the %zu nodes of ComfyUI 0.3.64. Written by `make docs` from the "
           "tables; "
           "`atelier nodes NAME` tells the same,\n`atelier nodes --missing` lists what waits.\n",
           known, at_known_count);
    for (size_t i = 0; i < n; i++) {
        if (!category || strcmp(category, all[i]->category) != 0)
            printf("\n## %s\n", (category = all[i]->category));
        markdown_node(all[i]);
    }
    at_free(all);
    return AT_OK;
}

static at_status nodes(void *options, const at_arg_list *operands)
{
    at_status st = AT_OK;
    nodes_options *o = options;
    at_engine *e = NULL;
    char *json = NULL;
    const char *name = operands->count ? operands->items[0] : NULL;

    if (!o->common.device.device) o->common.device.cpu = true; // tables need no GPU
    AT_TRY(at_common_open(&o->common, &e));
    const at_registry *r = at_engine_registry(e);
    if (o->json) {
        AT_TRY(at_engine_object_info(e, name, &json));
        puts(json);
    } else if (o->missing) {
        print_missing(r);
    } else if (o->markdown) {
        AT_TRY(print_markdown(r));
    } else if (name) {
        const at_node *n = at_registry_find(r, name);
        if (!n)
            AT_TRY(at_fail(AT_ENOTFOUND, "no node is called \"%s\"; `atelier nodes` lists them",
                           name));
        describe(n);
    } else {
        for (size_t i = 0; i < at_registry_count(r); i++) {
            const at_node *n = at_registry_at(r, i);
            printf("%-26s %-34s %s\n", n->class_type, n->category, n->display ? n->display : "");
        }
    }
out:
    at_free(json);
    at_engine_close(e);
    return st;
}

const at_command at_command_nodes = {
    .name = "nodes",
    .operands = "[NODE]",
    .summary = "list the nodes, or describe one",
    .args = nodes_args,
    .n_args = sizeof nodes_args / sizeof *nodes_args,
    .options_size = sizeof(nodes_options),
    .max_operands = 1,
    .run = nodes,
};
