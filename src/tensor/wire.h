// SPDX-License-Identifier: Apache-2.0
// wire.h - devices of one kind that hand bytes to each other, each in the order of its own stream.
// Idea: ends of a wire are ranks, each driven by a thread of its own. A push is queued like any op: behind it
// in the stream what was sent may be changed, and what comes is there. Both ends of a pair must queue the
// same pushes in the same order; nothing waits for the host, so a push may be recorded.
// Easy to get wrong: a queued push waits, on the device, until the other end's stream reaches the same push.
// Between two ends' queueing of it nobody may ask the driver for memory or anything else that can wait for
// a device (see par/comm_peer.c, which lets the hosts meet before and behind).
// Ownership: a wire is the caller's; no push may be under way when it is freed.
#ifndef AT_TENSOR_WIRE_H
#define AT_TENSOR_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "atelier/types.h"
#include "base/status.h"

typedef struct at_device at_device;
typedef struct at_wire at_wire;

enum { AT_WIRE_RANKS = 16 };

// What one call does with one rank, also with this one itself (a copy).
typedef struct at_wire_part {
    int rank;
    at_view from,
        to;     // of one shape and dtype; `to` is that rank's memory; from.data NULL: nothing goes
    bool comes; // that rank sends something in the same call
} at_wire_part;

// Between two devices, both ways at once.
typedef struct at_wire_link {
    double bandwidth; // bytes a second each way
    double seconds;   // of a push that carries next to nothing
} at_wire_link;

// What a rank's pushes took since this was asked last, in its stream: waiting for others, and sending (which a
// push in two halves does beside other work).
typedef struct at_wire_spent {
    double waited, moved; // seconds
    uint64_t pushes;
} at_wire_spent;

// One push of a rank, in seconds of at_now(): until `went` it waited for the others, until `sent` it sent, until `done`
// it waited for what comes. Of a push in two halves that stands beside the rank's other work up to `sent`; its own
// stream had nothing else to do from `held` (0: a push in one) to `done`.
typedef struct at_wire_time {
    double came, went, sent, done, held;
    double bytes; // sent
} at_wire_time;

typedef struct at_wire_ops {
    // devices[0 .. n): rank after rank, no device twice; all of this kind. AT_EUNSUPPORTED: too many.
    at_status (*open)(at_device *const *devices, int n, at_wire **out);
    at_status (*push)(at_wire *w, int rank, const at_wire_part *parts, int n);
    // A push in two halves: what is queued between them runs while the bytes travel. One at a time; no other push
    // to these ranks in between.
    at_status (*begin)(at_wire *w, int rank, const at_wire_part *parts, int n);
    at_status (*end)(at_wire *w, int rank);
    // Once before the hosts meet for a sum of so many: room that it needs.
    at_status (*ready_sum)(at_wire *w, int rank, at_dtype dtype, int n, size_t count);
    // inout[0 .. n): `count` of a float dtype each, of ranks[0 .. n), which all call this; every one becomes their sum,
    // added in that order in f32.
    at_status (*sum)(at_wire *w, int rank, at_dtype dtype, const int *ranks, void *const *inout,
                     int n, size_t count);
    // From any thread: what is queued and all that will be queued ends soon, with any bytes, until reset.
    void (*cut)(at_wire *w);
    // After a cut: this rank's end is as new. Its stream must be idle, and so must all others' be.
    at_status (*renew)(at_wire *w, int rank);
    void (*mend)(at_wire *w); // the last word of a renewal, by one rank
    void (*free)(at_wire *w);
    at_status (*spent)(at_wire *w, int rank, at_wire_spent *out); // waits for the stream
    // Measured when it is first asked for on this machine, and remembered on disk. While nothing else is under way.
    at_status (*link)(at_device *a, at_device *b, at_wire_link *out);
    // Pushes that are queued (or recorded) from now on have their times noted, `room` of them for each rank; called
    // again it forgets them. While nothing is under way. NULL both: times are not known.
    at_status (*note)(at_wire *w, size_t room);
    // What was noted of a rank, in order; at most `max`. error: what its clock may be off, in seconds.
    at_status (*noted)(at_wire *w, int rank, at_wire_time *out, size_t max, size_t *n, size_t *lost,
                       double *error);
} at_wire_ops;

#endif
