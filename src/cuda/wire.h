// SPDX-License-Identifier: Apache-2.0
// wire.h - pushes between GPUs as one kernel: what it is given.
// Idea: a pair of ranks has two flags at each end, counted up from push to push: "my stream is here, you may
// write to me" and "all of mine is with you". The count lives on the device, so a replayed graph goes on where
// the last one ended. Everybody waits for the first flag of those it writes to and for the second of those
// that write to it. Flags are read by their owner and written by the peer.
// Owns nothing.
#ifndef AT_CUDA_WIRE_H
#define AT_CUDA_WIRE_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "tensor/wire.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { AT_K_WIRE_PARTS = AT_WIRE_RANKS, AT_K_WIRE_DIMS = 4 };

// Written by one peer, read by the owner; a line of memory each.
typedef struct at_k_wire_flags {
    uint32_t ready, done, pad[30];
} at_k_wire_flags;

// Of one rank, in its own memory: how many pushes it has had with each peer, blocks of the running kernel
// that are done.
typedef struct at_k_wire_own {
    uint32_t round[AT_WIRE_RANKS], blocks;
    uint32_t noted;      // records so far, also those for which there was no room
    uint64_t came, went; // of the push under way, while times are noted
    uint64_t apart_came, apart_went, apart_sent, held; // of the one in two halves
    // Nanoseconds since they were asked for last: before peers were ready and behind what this rank had to send;
    // of the sending between.
    uint64_t waited, moved, pushes, since;
} at_k_wire_own;

// Times of one push in nanoseconds of the device; at_wire_time says which.
typedef struct at_k_wire_record {
    uint64_t came, went, sent, done, held, bytes;
} at_k_wire_record;

typedef struct at_k_wire_peer {
    int rank;
    at_k_wire_flags *here;  // that the peer writes
    at_k_wire_flags *there; // that this rank writes
} at_k_wire_peer;

// Words of `unit` bytes; dimension 0 is the innermost.
typedef struct at_k_wire_copy {
    const char *from;
    char *to;
    uint32_t n[AT_K_WIRE_DIMS];
    int64_t step_from[AT_K_WIRE_DIMS], step_to[AT_K_WIRE_DIMS]; // in words
} at_k_wire_copy;

typedef struct at_k_wire {
    int peers, copies, unit;
    at_k_wire_own *own;
    const volatile uint32_t *cut; // of the host: not 0: give up
    at_k_wire_record *notes;      // where times go; NULL: nowhere
    uint32_t room;                // of notes
    uint64_t bytes;               // that this push sends
    at_k_wire_peer peer[AT_WIRE_RANKS];
    at_k_wire_copy copy[AT_K_WIRE_PARTS];
} at_k_wire;

// begin, end: wait for the peers before, behind; both: one push. Neither: a copy.
cudaError_t at_k_wire_push(cudaStream_t s, const at_k_wire *w, bool begin, bool end);
// Steps of a push whose copies are somebody else's, in this order, on one stream or several: tell the peers that they
// may write here; wait until they may be written to; tell them that all has been sent; wait for what they send.
// HELD notes that the stream has come to where it can go on only with all of it.
enum {
    AT_K_WIRE_TELL_READY = 1,
    AT_K_WIRE_READY = 2,
    AT_K_WIRE_TELL_SENT = 4,
    AT_K_WIRE_SENT = 8,
    AT_K_WIRE_HELD = 16
};
cudaError_t at_k_wire_flags_only(cudaStream_t s, const at_k_wire *w, int steps);

// The device's clock in nanoseconds, to memory that the host reads.
cudaError_t at_k_wire_clock(cudaStream_t s, uint64_t *out);

// inout[k][i] for all k becomes the sum over k, in that order, for i in this rank's share [first, first + count).
typedef struct at_k_wire_sum_in {
    void *inout[AT_WIRE_RANKS];
    int n;
    at_dtype dtype; // f32, f16, bf16; sums are f32 and rounded once
    size_t first, count;
} at_k_wire_sum_in;
cudaError_t at_k_wire_sum(cudaStream_t s, const at_k_wire *w, const at_k_wire_sum_in *a);
// into[i] = sum over k of from[k][i], in that order: nobody else takes part.
cudaError_t at_k_wire_add(cudaStream_t s, const at_k_wire_sum_in *from, void *into);

#ifdef __cplusplus
}
#endif

#endif
