// SPDX-License-Identifier: Apache-2.0
// trace_file.h - a trace as a file that chrome://tracing and ui.perfetto.dev open.
// Idea: one track per host thread and one per device; an op stands on both, and its arguments carry
// kernel, shapes, work and the rate that it reached. Format: Google's Trace Event Format (2016).
// Owns nothing: the slices are base/trace.h's.
#ifndef AT_ENGINE_TRACE_FILE_H
#define AT_ENGINE_TRACE_FILE_H

#include "base/trace.h"

// Can it be written? Asked before the work begins; leaves an empty file. AT_EIO names the file.
at_status at_trace_check(const char *path);
// Write what was recorded; recording has stopped. AT_EIO names the file.
at_status at_trace_write(const char *path);

// The words of --trace-level: "ops" or "spans".
at_trace_level at_trace_level_of(const char *word);

#endif
