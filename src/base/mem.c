// SPDX-License-Identifier: Apache-2.0
// mem.c - counted, aligned allocation with a fault that can be armed.
// Idea: a block is [pad][header: size, base][bytes ...]; the bytes start on AT_ALIGN and the header
// stands right before them. malloc and calloc stay underneath, so that large zeroed blocks are lazy
// pages and growing a large block moves no bytes.
// Owns: the counters. Any thread.
#include "base/mem.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct header {
    size_t bytes;
    void *base; // what malloc gave
} header;

// Header plus the worst shift to the next boundary.
enum { OVERHEAD = sizeof(header) + AT_ALIGN };

static atomic_size_t g_live_bytes, g_live_blocks, g_peak_bytes;
static _Atomic uint64_t g_allocations, g_failures;

static atomic_bool g_armed, g_sticky, g_hit;
static _Atomic int64_t g_countdown;

static bool fault_now(void)
{
    int64_t before;

    atomic_fetch_add_explicit(&g_allocations, 1, memory_order_relaxed);
    if (!atomic_load_explicit(&g_armed, memory_order_relaxed)) return false;
    before = atomic_fetch_sub(&g_countdown, 1);
    if (before > 1) return false;
    if (before < 1 && !atomic_load(&g_sticky)) return false;
    atomic_store(&g_hit, true);
    return true;
}

static void *refused(void)
{
    atomic_fetch_add_explicit(&g_failures, 1, memory_order_relaxed);
    return NULL;
}

static header *header_of(void *p)
{
    return (header *)p - 1;
}

static void *place(void *base)
{
    uintptr_t at = (uintptr_t)base + sizeof(header);

    return (void *)((at + AT_ALIGN - 1) & ~(uintptr_t)(AT_ALIGN - 1));
}

static void count_in(size_t bytes)
{
    size_t live = atomic_fetch_add_explicit(&g_live_bytes, bytes, memory_order_relaxed) + bytes;
    size_t peak = atomic_load_explicit(&g_peak_bytes, memory_order_relaxed);

    while (live > peak &&
           !atomic_compare_exchange_weak_explicit(&g_peak_bytes, &peak, live, memory_order_relaxed,
                                                  memory_order_relaxed)) {
    }
}

static void count_out(size_t bytes)
{
    atomic_fetch_sub_explicit(&g_live_bytes, bytes, memory_order_relaxed);
}

static void *publish(void *base, size_t bytes)
{
    void *p = place(base);

    header_of(p)->bytes = bytes;
    header_of(p)->base = base;
    count_in(bytes);
    atomic_fetch_add_explicit(&g_live_blocks, 1, memory_order_relaxed);
    return p;
}

void *at_alloc(size_t bytes)
{
    size_t total;
    void *base;

    if (fault_now() || !at_add_size(bytes, OVERHEAD, &total)) return refused();
    base = malloc(total);
    return base ? publish(base, bytes) : refused();
}

void *at_calloc(size_t count, size_t size)
{
    size_t bytes, total;
    void *base;

    if (fault_now() || !at_mul_size(count, size, &bytes) || !at_add_size(bytes, OVERHEAD, &total)) {
        return refused();
    }
    base = calloc(1, total);
    return base ? publish(base, bytes) : refused();
}

void *at_realloc(void *p, size_t bytes)
{
    header old;
    size_t shift, total;
    char *base, *moved;

    if (!p) return at_alloc(bytes);
    if (fault_now() || !at_add_size(bytes, OVERHEAD, &total)) return refused();
    old = *header_of(p);
    shift = (size_t)((char *)p - (char *)old.base);
    base = realloc(old.base, total);
    if (!base) return refused();
    moved = place(base);
    // The new base may stand differently to the boundary.
    if (moved != base + shift) {
        memmove(moved, base + shift, old.bytes < bytes ? old.bytes : bytes);
    }
    header_of(moved)->bytes = bytes;
    header_of(moved)->base = base;
    count_out(old.bytes);
    count_in(bytes);
    return moved;
}

void at_free(void *p)
{
    if (!p) return;
    count_out(header_of(p)->bytes);
    atomic_fetch_sub_explicit(&g_live_blocks, 1, memory_order_relaxed);
    free(header_of(p)->base);
}

char *at_strdup(const char *s)
{
    return at_strndup(s, strlen(s));
}

char *at_strndup(const char *s, size_t n)
{
    size_t len = strnlen(s, n);
    char *out = at_alloc(len + 1);

    if (!out) return NULL;
    memcpy(out, s, len);
    out[len] = '\0';
    return out;
}

char *at_strprintf(const char *fmt, ...)
{
    va_list args;
    char *out;
    int n;

    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) return NULL;
    out = at_alloc((size_t)n + 1);
    if (!out) return NULL;
    va_start(args, fmt);
    vsnprintf(out, (size_t)n + 1, fmt, args);
    va_end(args);
    return out;
}

at_mem_stats at_mem_get_stats(void)
{
    return (at_mem_stats){
        .live_bytes = atomic_load_explicit(&g_live_bytes, memory_order_relaxed),
        .live_blocks = atomic_load_explicit(&g_live_blocks, memory_order_relaxed),
        .peak_bytes = atomic_load_explicit(&g_peak_bytes, memory_order_relaxed),
        .allocations = atomic_load_explicit(&g_allocations, memory_order_relaxed),
        .failures = atomic_load_explicit(&g_failures, memory_order_relaxed),
    };
}

void at_mem_reset_peak(void)
{
    atomic_store(&g_peak_bytes, atomic_load(&g_live_bytes));
}

void at_mem_fail_at(uint64_t n, bool sticky)
{
    atomic_store(&g_armed, false);
    atomic_store(&g_countdown, (int64_t)n);
    atomic_store(&g_sticky, sticky);
    atomic_store(&g_hit, false);
    atomic_store(&g_armed, n > 0);
}

bool at_mem_fault_hit(void)
{
    return atomic_load(&g_hit);
}
