// SPDX-License-Identifier: Apache-2.0
// fake_nccl.h - what tests look at and break in the played library.
#ifndef AT_TESTS_FAKE_NCCL_H
#define AT_TESTS_FAKE_NCCL_H

#include <stdatomic.h>

typedef struct fake_nccl_state {
    atomic_int live;    // communicators that are not aborted
    atomic_int made;    // ever
    atomic_int crimes;  // two callers at once, a call on what was aborted, multicast not turned off
    atomic_int version; // what it says it is
    atomic_int fail_at; // the n-th send from now fails; 0: none
} fake_nccl_state;
extern fake_nccl_state fake_nccl;

#endif
