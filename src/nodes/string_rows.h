// SPDX-License-Identifier: Apache-2.0
// string_rows.h - what the string nodes' tables share.
#ifndef AT_NODES_STRING_ROWS_H
#define AT_NODES_STRING_ROWS_H

#include "atelier/node.h"
#include "base/str.h"

// A text of several lines without a default; the input is called `label`.
#define AT_ROW_TEXT(st, label, field)                                                              \
    {                                                                                              \
        .name = label, .type = AT_IN_STRING, .offset = offsetof(st, field),                        \
        .flags = AT_INF_NO_DEFAULT | AT_INF_MULTILINE                                              \
    }
#define AT_STRING_NODE(cls, title, rows, outs, st, fn)                                             \
    {                                                                                              \
        .class_type = cls, .display = title, .category = "utils/string",                           \
        .python_module = "comfy_extras.nodes_string", .flags = AT_NODE_V3, .in = rows,             \
        .n_in = AT_COUNT(rows), .out = outs, .n_out = 1, .in_size = sizeof(st), .run = fn,         \
    }

// The bytes of s, which is emptied, as a STRING: AT_ENOMEM if s failed.
at_status at_give_string(const char *node, at_str *s, at_value *out);

#endif
