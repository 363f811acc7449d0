// SPDX-License-Identifier: Apache-2.0
// mem.h - the allocator of the house: counted, and able to fail on purpose.
// Idea: every allocation of the project passes here, so a test can make the n-th one fail and compare
// the live bytes before and after (tests/fault).
// Owns nothing: the caller frees with at_free. Any thread.
#ifndef AT_BASE_MEM_H
#define AT_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AT_ALIGN 64 // bytes; enough for a cache line and an AVX-512 register

// Zero-initialised `count * size` bytes, AT_ALIGN aligned; NULL if that overflows or memory is out.
// No message is recorded: the caller knows what it wanted the memory for.
void *at_calloc(size_t count, size_t size);
// Uninitialised bytes, AT_ALIGN aligned; NULL if out of memory. `bytes` 0 gives a unique pointer.
void *at_alloc(size_t bytes);
// Grow or shrink; the old block stays valid on NULL. Alignment is kept.
void *at_realloc(void *p, size_t bytes);
void at_free(void *p); // NULL is fine
char *at_strdup(const char *s);
char *at_strndup(const char *s, size_t n);
// printf into fresh memory; NULL if out of memory.
char *at_strprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

// Bytes and blocks alive now, and the highest number of bytes alive since at_mem_reset_peak().
typedef struct at_mem_stats {
    size_t live_bytes, live_blocks, peak_bytes;
    uint64_t allocations; // since process start; what fail-at-N counts
    uint64_t
        failures; // of them, those that gave NULL: for libraries that do not say why they failed
} at_mem_stats;
at_mem_stats at_mem_get_stats(void);
void at_mem_reset_peak(void);

// Fault injection: the n-th allocation from now on (1 = the next) fails, and, if `sticky`, all later
// ones too. 0 switches it off. For tests; costs one relaxed atomic load otherwise.
void at_mem_fail_at(uint64_t n, bool sticky);
// True if the armed fault has been hit: a loop over n ends when a run passes without a hit.
bool at_mem_fault_hit(void);

// a * b and a + b with an overflow check: false on overflow, *out untouched.
static inline bool at_mul_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}
static inline bool at_add_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

#endif
