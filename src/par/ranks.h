// SPDX-License-Identifier: Apache-2.0
// ranks.h - one function on several ranks at once.
// Idea: rank 0 is the calling thread, the others are threads behind a gate that opens only when all are
// there: ranks wait for each other, so that some without the others would wait for ever.
#ifndef AT_PAR_RANKS_H
#define AT_PAR_RANKS_H

#include "base/status.h"

typedef at_status at_rank_fn(void *ctx, int rank);

// Runs fn(ctx, 0 .. n - 1), waits for all, and returns the failure of the lowest rank that has one, with its
// words. AT_ENOMEM: not every thread could be started, and nothing ran.
at_status at_ranks_run(int n, at_rank_fn *fn, void *ctx);

#endif
