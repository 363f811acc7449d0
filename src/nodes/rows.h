// SPDX-License-Identifier: Apache-2.0
// rows.h - short forms for input rows that many nodes share, so that a table reads like ComfyUI's.
// Each takes the input struct, the field (named as the input) and more designated fields.
#ifndef AT_NODES_ROWS_H
#define AT_NODES_ROWS_H

#include <limits.h>

#include "atelier/node.h"

#define AT_ROW(st, field, kind, ...)                                                               \
    {                                                                                              \
        .name = #field, .type = kind, .offset = offsetof(st, field), __VA_ARGS__                   \
    }

// A link: ["MODEL", {}] or, with AT_ROW_LINK_BARE, ["MODEL"].
#define AT_ROW_LINK(st, field, TYPE)                                                               \
    {                                                                                              \
        .name = #field, .type = AT_IN_OBJECT, .offset = offsetof(st, field), .type_name = TYPE     \
    }
#define AT_ROW_LINK_BARE(st, field, TYPE)                                                          \
    {                                                                                              \
        .name = #field, .type = AT_IN_OBJECT, .offset = offsetof(st, field), .type_name = TYPE,    \
        .flags = AT_INF_NO_OPTIONS                                                                 \
    }

// INT and FLOAT with a range; the step is printed where the name says so.
#define AT_ROW_INT(st, field, d, lo, hi)                                                           \
    AT_ROW(st, field, AT_IN_INT, .def = d, .min = lo, .max = hi,                                   \
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX)
#define AT_ROW_INT_STEP(st, field, d, lo, hi, s)                                                   \
    AT_ROW(st, field, AT_IN_INT, .def = d, .min = lo, .max = hi, .step = s,                        \
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP)
#define AT_ROW_FLOAT_STEP(st, field, d, lo, hi, s)                                                 \
    AT_ROW(st, field, AT_IN_FLOAT, .def = d, .min = lo, .max = hi, .step = s,                      \
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP)
// cfg: the one widget with a rounding.
#define AT_ROW_CFG(st, field)                                                                      \
    AT_ROW(st, field, AT_IN_FLOAT, .def = 8.0, .min = 0, .max = 100, .step = 0.1, .round = 0.01,   \
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP | AT_INF_HAS_ROUND)
#define AT_ROW_SEED(st, field)                                                                     \
    AT_ROW(st, field, AT_IN_U64, .def = 0, .min = 0, .max = 18446744073709551615.0,                \
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_CONTROL)
#define AT_ROW_PROMPT(st, field)                                                                   \
    AT_ROW(st, field, AT_IN_STRING, .flags = AT_INF_MULTILINE | AT_INF_DYNAMIC | AT_INF_NO_DEFAULT)
#define AT_ROW_HIDDEN(st, field, KIND)                                                             \
    AT_ROW(st, field, AT_IN_STRING, .type_name = KIND, .flags = AT_INF_HIDDEN)

// A number that came over a link has passed no range check: what does not fit an int becomes its nearest,
// for the callee to refuse.
static inline int at_int_of(int64_t v)
{
    return v > INT_MAX ? INT_MAX : v < INT_MIN ? INT_MIN : (int)v;
}

#define AT_OUT(TYPE)                                                                               \
    {                                                                                              \
        .type_name = TYPE, .name = TYPE                                                            \
    }

#endif
