// SPDX-License-Identifier: Apache-2.0
// comm_suite.h - what every carrier of at_comm must do, once for all of them.
// Idea: a carrier brings ranks to life (threads or processes) and runs a function on each; the functions here are
// the promises of par/comm.h. cmocka's asserts belong to the main thread: ranks count what is wrong.
#ifndef AT_TESTS_COMM_SUITE_H
#define AT_TESTS_COMM_SUITE_H

#include <stdatomic.h>

#include "par/comm.h"

enum { AT_SUITE_RANKS = 8 };

typedef struct suite_rank {
    at_comm *comm;
    atomic_int *wrong;
} suite_rank;
typedef void suite_fn(suite_rank *r);

typedef struct suite_carrier {
    const char *name;
    int most;   // ranks to try
    int rounds; // of each exchange
    bool
        queues; // exchanges return before they have happened: a failure may be heard of by the vote alone
    bool
        any_order; // sums may run in another order than the ranks', with the same bits on all of them
    // Runs fn on `size` ranks; how many expectations failed, or -1: the ranks could not come together.
    int (*run)(int size, suite_fn *fn);
} suite_carrier;

#define SUITE_EXPECT(r, condition)                                                                 \
    do {                                                                                           \
        if (!(condition)) suite_wrong((r), __FILE__, __LINE__, #condition);                        \
    } while (0)
void suite_wrong(suite_rank *r, const char *file, int line, const char *what);

// Threads over `size` comms that are there; frees them.
int suite_threads(int size, at_comm **comm, suite_fn *fn);
// All promises; cmocka's asserts name the carrier and the promise.
void suite_run(const suite_carrier *c);

#endif
