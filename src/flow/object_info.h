// SPDX-License-Identifier: Apache-2.0
// object_info.h - one input as ComfyUI describes it, for /object_info and for the errors of
// at_check.
// Owns nothing: results are new references, NULL if out of memory.
#ifndef AT_FLOW_OBJECT_INFO_H
#define AT_FLOW_OBJECT_INFO_H

#include "flow/flow.h"

// The socket type that ComfyUI compares: "INT", "MODEL", "COMBO"; NULL for a combo that is a list
// (V1).
const char *at_in_socket(const at_node *n, const at_in *row);
json_t *at_in_choices(const at_in *row, const at_file_lists *files); // array of text; [] if none
// [type] or [type, {options}]; `choices` (borrowed, may be NULL unless COMBO) avoids listing again.
// full: always with options, as the errors show it.
json_t *at_in_config(const at_node *n, const at_in *row, json_t *choices, bool full);
// A limit of a number row: integer, real or odd as object_info prints it.
json_t *at_in_number(const at_in *row, double value, unsigned alt);

#endif
