// SPDX-License-Identifier: Apache-2.0
// comm.h - what the ranks of one picture say to each other.
// Idea: one vtable, several carriers (threads in plain memory; GPU peer copies and NCCL behind the same
// slots). A rank is one thread with its own at_ops; all ranks call the same sequence.
// Two planes. Data: all_gather, all_to_all, exchange, scatter, all_reduce_sum. On a carrier with `on_device` they
// take device addresses and are queued on the stream of this rank's device: the call returns at once; behind
// it in the stream the sent buffers may be changed and the received ones hold their bytes; nothing of it
// waits for the host, so it can be recorded (every size is known on the host and the same in each replay).
// On other carriers they take host memory and are done when they return. Control: vote, tell, split, abort
// take host memory on every carrier and are done when they return; they are never recorded.
// Buffers of one call do not overlap, unless a part goes from its place in send to the same place in recv.
// Sums run in rank order: same bits everywhere.
// Owns: the creator frees each comm after its ranks have ended; parts of a comm go before the whole.
#ifndef AT_PAR_COMM_H
#define AT_PAR_COMM_H

#include <stdbool.h>
#include <stddef.h>

#include "atelier/types.h"
#include "base/status.h"
#include "tensor/wire.h"

typedef struct at_comm at_comm;

typedef struct at_comm_part {
    void *data;
    size_t bytes; // 0: nothing goes
} at_comm_part;

typedef struct at_comm_ops {
    // Every rank gives `bytes`; each gets all of them in rank order (recv holds size * bytes).
    at_status (*all_gather)(at_comm *c, const void *send, void *recv, size_t bytes);
    // Block i of send goes to rank i; block j of recv comes from rank j; every block has `bytes`.
    at_status (*all_to_all)(at_comm *c, const void *send, void *recv, size_t bytes);
    // The uneven one: send[i] goes to rank i, recv[j] comes from rank j (size of them each, its own
    // among them). What i sends to j has the bytes that j expects of i. Halos, rings, shares.
    at_status (*exchange)(at_comm *c, const at_comm_part *send, const at_comm_part *recv);
    // exchange of strided parts: send[i], which goes to rank i, has the shape and dtype of what that rank
    // expects; data NULL: nothing goes. The innermost dimension is contiguous. NULL: pack and exchange.
    at_status (*scatter)(at_comm *c, const at_view *send, const at_view *recv);
    // scatter in two halves: what is queued between them runs beside the copies; no other exchange with these
    // ranks there, and the parts stay as they are. NULL both: there is no beside.
    at_status (*scatter_begin)(at_comm *c, const at_view *send, const at_view *recv);
    at_status (*scatter_end)(at_comm *c);
    at_status (*all_reduce_sum)(at_comm *c, float *inout, size_t count);
    // The same of f32, f16 or bf16, summed in f32. NULL: who wants it exchanges and adds.
    at_status (*sum)(at_comm *c, at_dtype dtype, void *inout, size_t count);
    // What this rank's exchanges took on its device since this was asked last; NULL: not known.
    at_status (*spent)(
        at_comm *c,
        at_wire_spent *
            out); // The largest code any rank brings: errors and cancel are voted, no rank leaves a loop alone.
    // Never fails on a healthy carrier, also after an abort, which it ends (for the whole family: vote on
    // the comm that was not split off).
    at_status (*vote)(at_comm *c, int mine, int *result);

    // all_gather of a few host bytes (words of a failure, sizes before a loop).
    at_status (*tell)(at_comm *c, const void *send, void *recv, size_t bytes);
    // A comm of the ranks that bring the same colour, in their order here; all ranks call it. It shares the
    // fate of this one: an abort of either stops the exchanges of the whole family. Never voted on.
    at_status (*split)(at_comm *c, int colour, at_comm **out);
    // This rank takes part in no more exchanges before the next vote: exchanges that wait for it,
    // and all later ones, return `code` on every rank. A failing rank calls it, so that none waits
    // for ever. (On a device: the work already queued ends, with any bytes; the vote comes after that.)
    void (*abort)(at_comm *c, int code);
    // From now on (on) fn(ctx) is called, from any thread and more than once, when a rank of the family has given up
    // or is lost (and at once where one has): for what waits for others elsewhere than in an exchange of this carrier. Not after the call that
    // turns it off. fn must not call this comm. NULL: nobody but the ranks themselves can give up.
    void (*watch)(at_comm *c, void (*fn)(void *ctx), void *ctx, bool on);
    void (*free)(at_comm *c);
} at_comm_ops;

typedef struct at_comm_watcher { // what a carrier keeps of them; ctx NULL: a free place
    void (*fn)(void *ctx);
    void *ctx;
} at_comm_watcher;

struct at_comm {
    const at_comm_ops *ops;
    int rank, size;
    bool on_device;
};

// The comm of a single rank: copies and identities; needs no free. Always succeeds.
at_comm *at_comm_self(void);
// `size` comms over shared memory, one for each thread of this process; out[size].
at_status at_comm_threads(int size, at_comm **out);
// The same for ranks whose devices have a wire (on_device); devices[size], no device twice. out[i] is
// devices[i]'s; all are NULL after a failure. AT_EUNSUPPORTED: these devices have none.
at_status at_comm_peer(int size, at_device *const *devices, at_comm **out);
// all_gather and all_to_all of carriers that have exchange, of at most AT_COMM_RANKS ranks.
enum { AT_COMM_RANKS = 256 };
at_status at_comm_gather_parts(at_comm *c, const void *send, void *recv, size_t bytes);
at_status at_comm_swap_parts(at_comm *c, const void *send, void *recv, size_t bytes);
void at_comm_free(at_comm *c); // NULL and the self comm are fine

#endif
