// SPDX-License-Identifier: Apache-2.0
// device_trace.h - every slot call of every device as a slice: shapes, work, host time and device time.
// Idea: tracing puts wrappers before the slots of a device's two tables (backend, memory) and takes them
// away again; while it is off nothing of it is on the way. Device times come from marks in the device's
// own queue (at_device_ops.mark), read when the device has caught up.
// Easy to get wrong: an at_ops keeps the table that it was opened with, so tracing begins before a job
// opens its ops; the wrappers stay valid for the life of the process and then only pass calls on.
#ifndef AT_TENSOR_DEVICE_TRACE_H
#define AT_TENSOR_DEVICE_TRACE_H

#include "base/trace.h"
#include "tensor/device.h"

// Start recording (base/trace.h) and wrap the tables of every registered device. No job is running.
void at_device_trace_start(at_trace_level level);
// Wait for the devices, complete the slices with their times, unwrap, stop.
at_status at_device_trace_stop(void);

// One span of device work that is no slot call, such as a recorded graph's replay:
//   at_device_span s = at_device_span_begin(d);  launch;  at_device_span_end(&s, "replay", "step graph");
// Costs one load where nothing is traced.
typedef struct at_device_span {
    at_device *device; // NULL: not traced
    double began;
    int mark;
} at_device_span;
at_device_span at_device_span_begin(at_device *d);
void at_device_span_end(at_device_span *s, const char *category, const char *name);

#endif
