// SPDX-License-Identifier: Apache-2.0
// trace_ranks.h - where each rank's steps went: computing, sending that nothing hid, waiting for others, the rest.
// Idea: a step of a rank is a piece of one clock, the device's where it has one; what ranks exchanged in it stands in
// the trace, what computed too, and the four parts add up to the step. On a device a step goes from its first op or
// replay to the next step's; on the host it is the slice "step".
// Easy to get wrong: sending beside other work costs no time of its own and has a column of its own. A trace of spans
// knows no ops on the host: all that is no exchange counts as computing there. Owns nothing.
#ifndef AT_ENGINE_TRACE_RANKS_H
#define AT_ENGINE_TRACE_RANKS_H

#include <stdio.h>

#include "base/trace.h"

enum { AT_TRACE_RANKS = 16 };

typedef struct at_trace_rank_row {
    int rank, steps; // steps that were counted; 0: none
    char device[32];
    double step;                      // seconds, the mean; the sum of the next four
    double compute, send, wait, rest; // of a step
    double beside;                    // sending that other work hid, of a step
    double exchanges, bytes;          // of a step; bytes that this rank sent
} at_trace_rank_row;

// One row for each rank of the trace that has steps; how many. Recording has stopped.
int at_trace_by_rank(at_trace_rank_row out[AT_TRACE_RANKS]);
void at_trace_print_ranks(FILE *f, const at_trace_rank_row *rows, int n);

#endif
