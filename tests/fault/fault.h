// SPDX-License-Identifier: Apache-2.0
// fault.h - the loop behind every failure test: fail the n-th allocation (or read or write), for all n.
// Idea: a function that works must, with any single allocation refused, either still work or fail with
// an honest code and words, and always leave as many live bytes as it found. The loop ends when a run
// passes without meeting its fault. Include in one .c of a cmocka program.
// Owns nothing.
#ifndef AT_TESTS_FAULT_H
#define AT_TESTS_FAULT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/status.h"

// The function under test: does something and undoes it. AT_OK or the failure it met.
typedef at_status at_fault_fn(void *ctx);

enum { AT_FAULT_MOST = 100000 }; // runs before the loop is taken for endless

static inline void at_fault_check(uint64_t n, at_status st, bool allowed, at_mem_stats before)
{
    at_mem_stats after = at_mem_get_stats();

    if (!allowed) {
        fail_msg("fault %llu: status %s: %s", (unsigned long long)n, at_status_facts(st)->name,
                 at_error_text());
    }
    if (st != AT_OK && at_error_text()[0] == '\0') {
        fail_msg("fault %llu: %s without words", (unsigned long long)n, at_status_facts(st)->name);
    }
    if (after.live_bytes != before.live_bytes || after.live_blocks != before.live_blocks) {
        fail_msg("fault %llu: %zu bytes in %zu blocks before, %zu in %zu after",
                 (unsigned long long)n, before.live_bytes, before.live_blocks, after.live_bytes,
                 after.live_blocks);
    }
}

// Fail allocation n = 1, 2, ... (only that one, or with `sticky` all later ones too). A run may end with
// AT_ENOMEM, or AT_OK where it could do without. Returns how many faults were met.
static inline uint64_t at_fault_memory(at_fault_fn *fn, void *ctx, bool sticky)
{
    assert_int_equal(fn(ctx), AT_OK); // warms what stays for good: pools, tables
    for (uint64_t n = 1; n <= AT_FAULT_MOST; n++) {
        at_mem_stats before = at_mem_get_stats();
        at_status st;
        bool hit;

        at_error_clear();
        at_mem_fail_at(n, sticky);
        st = fn(ctx);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        at_fault_check(n, st, st == AT_OK || (hit && st == AT_ENOMEM), before);
        if (!hit) return n - 1;
    }
    fail_msg("no end after %d faults", AT_FAULT_MOST);
    return 0;
}

// The same for the n-th read, write, sync or rename: AT_EIO, or AT_OK where it could do without.
static inline uint64_t at_fault_io(at_fault_fn *fn, void *ctx)
{
    assert_int_equal(fn(ctx), AT_OK);
    for (uint64_t n = 1; n <= AT_FAULT_MOST; n++) {
        at_mem_stats before = at_mem_get_stats();
        at_status st;
        bool hit;

        at_error_clear();
        at_io_fail_at(n);
        st = fn(ctx);
        hit = at_io_fault_hit();
        at_io_fail_at(0);
        at_fault_check(n, st, st == AT_OK || (hit && st == AT_EIO), before);
        if (!hit) return n - 1;
    }
    fail_msg("no end after %d faults", AT_FAULT_MOST);
    return 0;
}

#endif
