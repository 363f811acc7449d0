// SPDX-License-Identifier: Apache-2.0
// thread.h - one pool for parallel-for, and the mailbox through which threads speak.
// Owns: the pool owns its threads for the life of the process; a mailbox owns the messages in it.
#ifndef AT_BASE_THREAD_H
#define AT_BASE_THREAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

// Number of threads that at_parallel_for uses, the caller included. Default: the cores this process
// may run on; at_threads_set(n >= 1) or ATELIER_THREADS changes it before the first use.
int at_threads(void);
void at_threads_set(int n);

// Call fn(ctx, begin, end) on disjoint ranges that cover [0, n), each at least `grain` long (but the
// last), on the pool and the calling thread; returns when all are done. Nested calls run serially.
// fn must not fail: report through ctx. Without threads (none could start) everything runs here.
typedef void at_range_fn(void *ctx, int64_t begin, int64_t end);
void at_parallel_for(int64_t n, int64_t grain, at_range_fn *fn, void *ctx);

// The calling thread's work may be given up when *flag rises; NULL: it may not. The flag must live until it is taken
// back. Loops that the thread starts carry it to the pool. Returns the flag before.
const atomic_bool *at_threads_watch(const atomic_bool *flag);
// Asked between the tiles of a long loop: nobody wants the result any more, what is missing of it may stay missing.
// Who keeps a result for later (packed weights) does not ask.
bool at_cancelled(void);

// A bounded queue of fixed-size messages between threads: copies in, copies out.
typedef struct at_mailbox at_mailbox;
at_status at_mailbox_new(size_t message_bytes, size_t capacity, at_mailbox **out);
void at_mailbox_free(at_mailbox *m);
bool at_mailbox_put(at_mailbox *m, const void *message); // false: full or closed
// Waits up to `seconds` (< 0: for ever); false: timed out, or closed and empty.
bool at_mailbox_get(at_mailbox *m, void *message, double seconds);
void at_mailbox_close(at_mailbox *m);

#endif
