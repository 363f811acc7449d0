// SPDX-License-Identifier: Apache-2.0
// trace_table.h - a trace summed up: time and work by class of op, and by the kernel that served it.
// Idea: what one step costs, in the units of its ceiling: FLOP/s where the op multiplies, bytes/s where it
// only moves. Owns: nothing; rows are values.
#ifndef AT_ENGINE_TRACE_TABLE_H
#define AT_ENGINE_TRACE_TABLE_H

#include "engine/ceilings.h"

typedef enum at_op_class {
    AT_CLASS_LINEAR,
    AT_CLASS_ATTENTION,
    AT_CLASS_CONV,
    AT_CLASS_NORM,
    AT_CLASS_ROPE,
    AT_CLASS_GATE,
    AT_CLASS_COPY,
    AT_CLASS_OTHER,
    AT_CLASSES
} at_op_class;
const char *at_op_class_name(at_op_class c);
at_op_class at_op_class_of(const char *slot); // "geglu" is linear

typedef struct at_trace_sum {
    const char *slot;             // static; of a class its name
    char kernel[72], detail[160]; // of a kernel's row: its first slice
    at_op_class kind;
    double calls, seconds, flops, bytes; // seconds: the device's where known, else the host's
    double host_seconds, device_seconds;
    double floor;    // seconds at the machine's best rates; 0 without ceilings
    double products; // of it: what multiplies, and so cannot be fused away
} at_trace_sum;

// One row per class. Recording has stopped. `c` may be NULL. `host`: seconds are the host's.
void at_trace_by_class(const at_ceilings *c, bool host, at_trace_sum out[AT_CLASSES]);
// Rows by kernel and shapes, the dearest first; how many. Where there are more than `most` (1 and more) kinds, the
// last to appear share a row "and others".
size_t at_trace_by_kernel(const at_ceilings *c, bool host, at_trace_sum *out, size_t most);

#endif
