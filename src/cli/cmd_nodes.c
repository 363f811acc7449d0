// SPDX-License-Identifier: Apache-2.0
// cmd_nodes.c - atelier nodes: what can stand in a workflow, as a list, a description, or /object_info.
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/commands.h"
#include "engine/engine.h"

typedef struct nodes_options {
    at_common_options common;
    bool json;
} nodes_options;

static const at_arg nodes_args[] = {
    {"--json", NULL, AT_ARG_FLAG, offsetof(nodes_options, json),
     .help = "print ComfyUI's /object_info"},
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
    if (r->type == AT_IN_FLOAT)
        printf(" %s %g", label, v);
    else if (v >= 0x1p64)
        printf(" %s %llu", label, ULLONG_MAX);
    else if (v >= 0x1p63)
        printf(" %s %lld", label, LLONG_MAX);
    else if (v <= -0x1p63)
        printf(" %s %lld", label, -LLONG_MAX);
    else
        printf(" %s %.0f", label, v);
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

static at_status nodes(void *options, const at_arg_list *operands)
{
    at_status st = AT_OK;
    nodes_options *o = options;
    at_engine *e = NULL;
    char *json = NULL;
    const char *name = operands->count ? operands->items[0] : NULL;

    AT_TRY(at_common_open(&o->common, &e));
    const at_registry *r = at_engine_registry(e);
    if (o->json) {
        AT_TRY(at_engine_object_info(e, name, &json));
        puts(json);
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
