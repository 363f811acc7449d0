// SPDX-License-Identifier: Apache-2.0
// team.h - a piece of a node's work on all ranks.
// Idea: every rank runs the same function over its own op context; what it computes is the same on all of
// them, so that rank 0's result is the result. Rank 0 is the node's own thread: it alone reports progress.
// The function's contract: all ranks vote (at_ops_vote) at the same points, the first of them whatever has
// happened before it; after a vote that failed nobody votes or exchanges any more; behind the last vote the
// ranks are on their own.
// Owns: nothing outlives the call.
#ifndef AT_NODES_TEAM_H
#define AT_NODES_TEAM_H

#include "nodes/env.h"

typedef at_status at_team_fn(void *ctx, int rank, at_ops *o);

// fn on degrees' ranks, each on its device, configured as `like` (whose device and mesh are replaced). One
// rank: fn on like->device. The failure of the lowest rank that has one, with its words.
at_status at_team_run_in(at_env *e, const at_ops_config *like, const at_degrees *degrees,
                         at_team_fn *fn, void *ctx);
at_status at_team_run(const at_node_ctx *c, const at_ops_config *like, const at_degrees *degrees,
                      at_team_fn *fn, void *ctx);

// Comms that outlive a run: opening a wire between GPUs takes memory on each of them, and all of them wait for it. A run
// that went well leaves its comms here, and the next of as many ranks takes them; one that failed leaves none.
// Used by one run at a time. Owns the comms.
struct at_team_comms {
    at_comm *of[AT_ENV_RANKS + 1][AT_ENV_RANKS]; // by the number of ranks; NULL: none
};
void at_team_comms_free(at_team_comms *k); // NULL is fine

#endif
