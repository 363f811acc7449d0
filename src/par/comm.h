// SPDX-License-Identifier: Apache-2.0
// comm.h - what the ranks of one picture say to each other.
// Idea: one vtable, several carriers (threads in plain memory now; GPU peer copies and NCCL behind
// the same slots). A rank is one thread with its own at_ops; all ranks call the same sequence.
// Buffers do not overlap, and stay readable until the call returns. Sums run in rank order: same
// bits everywhere. Owns: the creator frees the comm after its ranks have ended.
#ifndef AT_PAR_COMM_H
#define AT_PAR_COMM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef struct at_comm at_comm;

typedef struct at_comm_ops {
    // Every rank gives `bytes`; each gets all of them in rank order (recv holds size * bytes).
    at_status (*all_gather)(at_comm *c, const void *send, void *recv, size_t bytes);
    // Block i of send goes to rank i; block j of recv comes from rank j; every block has `bytes`.
    at_status (*all_to_all)(at_comm *c, const void *send, void *recv, size_t bytes);
    at_status (*all_reduce_sum)(at_comm *c, float *inout, size_t count);
    // The largest code any rank brings: errors and cancel are voted, no rank leaves a loop alone.
    // Never fails on a healthy carrier, also after an abort, which it ends.
    at_status (*vote)(at_comm *c, int mine, int *result);
    // This rank takes part in no more exchanges before the next vote: exchanges that wait for it,
    // and all later ones, return `code` on every rank. A failing rank calls it, so that none waits
    // for ever.
    void (*abort)(at_comm *c, int code);
    void (*free)(at_comm *c);
} at_comm_ops;

struct at_comm {
    const at_comm_ops *ops;
    int rank, size;
};

// The comm of a single rank: copies and identities; needs no free. Always succeeds.
at_comm *at_comm_self(void);
// `size` comms over shared memory, one for each thread of this process; out[size].
at_status at_comm_threads(int size, at_comm **out);
void at_comm_free(at_comm *c); // NULL and the self comm are fine

#endif
