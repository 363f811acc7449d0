// SPDX-License-Identifier: Apache-2.0
// channel.h - a device's end of a line to devices that this process may not reach: NCCL's communicator.
// Idea: where a wire (wire.h) needs every device in one process, a channel is opened by each rank for itself, with a
// ticket that one of them has made. Exchanges are queued on the device's stream like any op, may be recorded, and
// wait there for the others.
// Easy to get wrong: all ranks open it and call it in the same order. What a queued exchange waits for may never
// come: `cut` ends it, from any thread; after that the channel is only good to be freed.
// Ownership: a channel is the caller's; the device stays.
#ifndef AT_TENSOR_CHANNEL_H
#define AT_TENSOR_CHANNEL_H

#include <stddef.h>

#include "base/status.h"

typedef struct at_device at_device;
typedef struct at_channel at_channel;

typedef struct at_channel_ticket {
    unsigned char bytes[128];
} at_channel_ticket;

typedef struct at_channel_part {
    const void *from;
    void *to;
    size_t send, recv; // bytes; 0: nothing goes, nothing comes
} at_channel_part;

typedef struct at_channel_ops {
    // AT_EUNSUPPORTED: there is no library that could, or it is too old.
    at_status (*ticket)(at_device *d, at_channel_ticket *out);
    // *out is there at once, so that it can be cut; `connect` waits for the others, at most so many seconds.
    at_status (*open)(at_device *d, at_channel **out);
    at_status (*connect)(at_channel *c, const at_channel_ticket *t, int rank, int size,
                         double seconds);
    // Channels of one process, rank by rank, all connected and none in use: from now on an exchange asks the driver for
    // nothing. By one thread for all of them; at most `seconds`.
    at_status (*introduce)(at_channel *const *all, int n, double seconds);
    // parts[i] is with rank i; the own one must be done by the caller. At most `seconds` until it is queued.
    at_status (*exchange)(at_channel *c, const at_channel_part *parts, int n, double seconds);
    // The own part of an exchange: a copy in stream order.
    at_status (*copy)(at_channel *c, const void *from, void *to, size_t bytes);
    // Every rank's numbers become their sum: in whatever order, but the same bits on all ranks.
    at_status (*sum)(at_channel *c, float *inout, size_t count, double seconds);
    void (*cut)(at_channel *c); // from any thread, more than once
    void (*free)(at_channel *c);
} at_channel_ops;

#endif
