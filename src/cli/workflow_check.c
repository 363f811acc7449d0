// SPDX-License-Identifier: Apache-2.0
// workflow_check.c - a checked graph, or its faults in words.
#include "cli/workflow_check.h"

#include <stdio.h>

// "  node 4 VAELoader: Value not in list: vae_name: 'x' not in [...]"
void at_print_node_errors(const json_t *json)
{
    json_t *node, *fault;
    const char *id;
    size_t i;
    json_object_foreach((json_t *)json, id, node)
    {
        const char *class_type = json_string_value(json_object_get(node, "class_type"));
        json_array_foreach(json_object_get(node, "errors"), i, fault)
        {
            const char *message = json_string_value(json_object_get(fault, "message"));
            const char *details = json_string_value(json_object_get(fault, "details"));
            fprintf(stderr, "  node %s %s: %s%s%s\n", id, class_type ? class_type : "",
                    message ? message : "", details && *details ? ": " : "",
                    details ? details : "");
        }
    }
}

at_status at_workflow_check(at_engine *e, const char *label, const char *text, size_t bytes,
                            const at_arg_list *sets, at_graph **out)
{
    at_status st = AT_OK;
    at_graph *g = NULL;
    at_check_result check = {0};

    AT_TRY(at_graph_parse(label, text, bytes, at_engine_registry(e), &g));
    for (size_t i = 0; i < sets->count; i++)
        AT_TRY(at_graph_set(g, sets->items[i]));
    AT_TRY(
        at_check(g, at_engine_registry(e), at_engine_files(e), NULL, 0, at_engine_env(e), &check));
    if (!check.ok) {
        at_print_node_errors(check.node_errors);
        const char *message = json_string_value(json_object_get(check.error, "message"));
        const char *details = json_string_value(json_object_get(check.error, "details"));
        AT_TRY(at_fail(AT_EWORKFLOW, "%s: %s%s%s", label,
                       message ? message : "the workflow is not valid",
                       details && *details ? ": " : "", details ? details : ""));
    }
    *out = g;
    g = NULL;
out:
    at_check_result_free(&check);
    at_graph_free(g);
    return st;
}
