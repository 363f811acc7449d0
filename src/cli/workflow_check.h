// SPDX-License-Identifier: Apache-2.0
// workflow_check.h - parse, set and check a workflow for a command, with the faults printed for a person.
#ifndef AT_CLI_WORKFLOW_CHECK_H
#define AT_CLI_WORKFLOW_CHECK_H

#include "cli/args.h"
#include "engine/engine.h"

// The checked graph (at_graph_free), or the failure: AT_EWORKFLOW after its faults went to standard error.
at_status at_workflow_check(at_engine *e, const char *label, const char *text, size_t bytes,
                            const at_arg_list *sets, at_graph **out);
// ComfyUI's node errors, one line a fault; `json` is {"id": {"errors": [...], "class_type": ...}}.
void at_print_node_errors(const json_t *json);

#endif
