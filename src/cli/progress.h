// SPDX-License-Identifier: Apache-2.0
// progress.h - what a person or a program sees while a job runs.
//   plain: one line a node and a step count; json: one event a line on standard output;
//   auto: a bar with it/s and time left on a terminal, plain elsewhere; none: silence.
// Owns: the at_progress is the caller's; the sink points into it.
#ifndef AT_CLI_PROGRESS_H
#define AT_CLI_PROGRESS_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/sink.h"

typedef enum at_progress_mode {
    AT_PROGRESS_BAR,
    AT_PROGRESS_PLAIN,
    AT_PROGRESS_JSON,
    AT_PROGRESS_NONE
} at_progress_mode;

typedef struct at_progress {
    at_progress_mode mode;
    atomic_bool cancel; // set by SIGINT and SIGTERM
    double step_start;  // when the current node's first step was reported
    double first_value;
    double last_drawn;
    bool bar_open;
    char node[64], class_type[64];
} at_progress;

// mode: "auto", "plain", "json" or "none". Also installs the handlers for SIGINT and SIGTERM.
at_sink at_progress_sink(at_progress *p, const char *mode);
void at_progress_end(at_progress *p); // closes an open bar

#endif
