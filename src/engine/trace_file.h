// SPDX-License-Identifier: Apache-2.0
// trace_file.h - a trace as a file that chrome://tracing and ui.perfetto.dev open.
// Idea: a process for each rank; in it one track per host thread and up to three per device: its work, the exchanges
// that its stream stood still for, and those beside work. An op stands on a thread's and a device's track, and its
// arguments carry kernel, shapes, work and the rate that it reached. Format: Google's Trace Event Format (2016).
// Owns nothing: the slices are base/trace.h's.
#ifndef AT_ENGINE_TRACE_FILE_H
#define AT_ENGINE_TRACE_FILE_H

#include <stdio.h>

#include "base/trace.h"

// Can it be written? Asked before the work begins; leaves an empty file. AT_EIO names the file.
at_status at_trace_check(const char *path);
// Write what was recorded; recording has stopped. AT_EIO names the file.
at_status at_trace_write(const char *path);

// The same in pieces, for what several processes put together (trace_merge.h): a file that has begun; this process's
// events, from `zero` on, the last without a comma; the end.
at_status at_trace_open(const char *path, FILE **out);
double at_trace_zero(void); // when the first slice began
void at_trace_put_events(FILE *f, double zero);
at_status at_trace_close(const char *path, FILE *f);

// The words of --trace-level: "ops" or "spans".
at_trace_level at_trace_level_of(const char *word);

#endif
