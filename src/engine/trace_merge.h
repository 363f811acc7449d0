// SPDX-License-Identifier: Apache-2.0
// trace_merge.h - the trace of several processes as one file, and one table.
// Idea: when all have done, each tells its events to rank 0, which writes them one behind the other. Hosts' clocks are
// brought together by words that all of them hear at about the same moment.
// Easy to get wrong: a process that failed does not come; then each keeps what it has, in a file of its own.
// Owns nothing.
#ifndef AT_ENGINE_TRACE_MERGE_H
#define AT_ENGINE_TRACE_MERGE_H

#include "engine/trace_ranks.h"
#include "par/comm.h"

// Collective over world (NULL: this process is all there is): rank 0 writes the file and gets all rows; *n is 0
// elsewhere. Where the others cannot be heard any more: PATH on rank 0, PATH.rankR on rank R, and that failure.
at_status at_trace_write_world(at_comm *world, const char *path,
                               at_trace_rank_row rows[AT_TRACE_RANKS], int *n);
// Of a process whose job failed: no word to anybody. PATH or PATH.rankR.
at_status at_trace_write_alone(int rank, const char *path);

#endif
