// SPDX-License-Identifier: Apache-2.0
// trace_table.c - summing slices. Rows are found by looking through all: some hundreds at most.
#include "engine/trace_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const class_names[AT_CLASSES] = {"linear", "attention", "conv", "norm",
                                                    "rope",   "gate",      "copy", "other"};

const char *at_op_class_name(at_op_class c)
{
    return class_names[c];
}

at_op_class at_op_class_of(const char *slot)
{
    static const struct {
        const char *slot;
        at_op_class kind;
    } rows[] = {
        {"linear", AT_CLASS_LINEAR}, {"geglu", AT_CLASS_LINEAR}, {"attention", AT_CLASS_ATTENTION},
        {"conv2d", AT_CLASS_CONV},   {"norm", AT_CLASS_NORM},    {"group_norm", AT_CLASS_NORM},
        {"rope", AT_CLASS_ROPE},     {"ropes", AT_CLASS_ROPE},   {"gate_add", AT_CLASS_GATE},
        {"copy", AT_CLASS_COPY},     {"fill", AT_CLASS_COPY},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].slot, slot) == 0) return rows[i].kind;
    return AT_CLASS_OTHER;
}

static void take(at_trace_sum *row, const at_ceilings *c, bool host, const at_trace_slice *s)
{
    double least = c ? at_ceilings_floor(c, s) : 0;

    row->calls += 1;
    row->seconds += s->device_seconds >= 0 && !host ? s->device_seconds : s->seconds;
    row->host_seconds += s->seconds;
    row->device_seconds += s->device_seconds > 0 ? s->device_seconds : 0;
    row->flops += s->flops;
    row->bytes += s->bytes;
    row->floor += least;
    if (s->flops > 0) row->products += least;
}

void at_trace_by_class(const at_ceilings *c, bool host, at_trace_sum out[AT_CLASSES])
{
    for (int k = 0; k < AT_CLASSES; k++)
        out[k] = (at_trace_sum){.slot = class_names[k], .kind = (at_op_class)k};
    for (size_t i = 0; i < at_trace_count(); i++) {
        const at_trace_slice *s = at_trace_at(i);
        if (s->slot) take(&out[at_op_class_of(s->slot)], c, host, s);
    }
}

static int dearer(const void *a, const void *b)
{
    double x = ((const at_trace_sum *)a)->seconds, y = ((const at_trace_sum *)b)->seconds;
    return (x < y) - (x > y);
}

static bool same(const at_trace_sum *row, const at_trace_slice *s)
{
    return strcmp(row->kernel, s->kernel) == 0 && strcmp(row->slot, s->slot) == 0 &&
           strcmp(row->detail, s->detail) == 0;
}

static void name(at_trace_sum *row, const char *kernel, const char *detail)
{
    snprintf(row->kernel, sizeof row->kernel, "%s", kernel);
    snprintf(row->detail, sizeof row->detail, "%s", detail);
}

size_t at_trace_by_kernel(const at_ceilings *c, bool host, at_trace_sum *out, size_t most)
{
    size_t n = 0;

    for (size_t i = 0; i < at_trace_count(); i++) {
        const at_trace_slice *s = at_trace_at(i);
        size_t k = 0;
        if (!s->slot) continue;
        while (k < n && !same(&out[k], s))
            k++;
        if (k == most) { // no room: the last row becomes everything else
            name(&out[--k], "and others", "and others");
        } else if (k == n) {
            out[n++] = (at_trace_sum){.slot = s->slot, .kind = at_op_class_of(s->slot)};
            name(&out[k], s->kernel, s->detail);
        }
        take(&out[k], c, host, s);
    }
    qsort(out, n, sizeof *out, dearer);
    return n;
}
