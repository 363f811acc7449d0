// SPDX-License-Identifier: Apache-2.0
// arena.h - memory whose lifetime is the lifetime of one request.
// Idea: allocate freely, free everything at once; or go back to a mark.
// Owns: all blocks, until at_arena_free. Not thread-safe: one arena, one thread.
#ifndef AT_BASE_ARENA_H
#define AT_BASE_ARENA_H

#include <stddef.h>

typedef struct at_arena at_arena;
typedef struct at_arena_mark {
    void *block;
    size_t used;
} at_arena_mark;

at_arena *at_arena_new(size_t first_block_bytes); // NULL if out of memory
void at_arena_free(at_arena *a);                  // NULL is fine
// Zeroed bytes aligned to 16; NULL if out of memory (sticky until the arena is reset).
void *at_arena_alloc(at_arena *a, size_t bytes);
char *at_arena_strdup(at_arena *a, const char *s);
char *at_arena_printf(at_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
at_arena_mark at_arena_snapshot(const at_arena *a);
void at_arena_restore(at_arena *a, at_arena_mark m); // everything newer is gone
size_t at_arena_bytes(const at_arena *a);            // handed out now

#endif
