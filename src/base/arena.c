// SPDX-License-Identifier: Apache-2.0
// arena.c - the request arena: a list of growing blocks with a bump pointer.
// Idea: the newest block is the head of the list; going back to a mark frees the blocks in front of
// it. Owns: all blocks.
#include "base/arena.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

typedef struct block {
    struct block *older;
    size_t cap, used;
    _Alignas(AT_ALIGN) unsigned char bytes[];
} block;

struct at_arena {
    block *head;
    size_t next_cap; // size of the next block
    bool failed;
};

enum { GRAIN = 16, SMALLEST = 256 };
static const size_t largest_step = (size_t)1 << 24; // blocks stop doubling here

static block *block_new(at_arena *a, size_t bytes)
{
    size_t cap = a->next_cap > bytes ? a->next_cap : bytes, total;
    block *b;

    if (!at_add_size(cap, sizeof(block), &total)) return NULL;
    b = at_alloc(total);
    if (!b) return NULL;
    b->older = a->head;
    b->cap = cap;
    b->used = 0;
    a->head = b;
    if (a->next_cap < largest_step) a->next_cap *= 2;
    return b;
}

at_arena *at_arena_new(size_t first_block_bytes)
{
    at_arena *a = at_calloc(1, sizeof *a);

    if (!a) return NULL;
    a->next_cap = first_block_bytes > SMALLEST ? first_block_bytes : SMALLEST;
    if (!block_new(a, 0)) {
        at_free(a);
        return NULL;
    }
    return a;
}

static void drop_until(at_arena *a, const block *stop)
{
    while (a->head && a->head != stop) {
        block *older = a->head->older;

        at_free(a->head);
        a->head = older;
    }
}

void at_arena_free(at_arena *a)
{
    if (!a) return;
    drop_until(a, NULL);
    at_free(a);
}

void *at_arena_alloc(at_arena *a, size_t bytes)
{
    block *b = a->head;
    size_t need;
    void *out;

    if (a->failed) return NULL;
    if (!at_add_size(bytes, GRAIN - 1, &need)) {
        a->failed = true;
        return NULL;
    }
    need &= ~(size_t)(GRAIN - 1);
    if (need == 0) need = GRAIN;
    if (!b || b->cap - b->used < need) b = block_new(a, need);
    if (!b) {
        a->failed = true;
        return NULL;
    }
    out = b->bytes + b->used;
    b->used += need;
    memset(out, 0, need);
    return out;
}

char *at_arena_strdup(at_arena *a, const char *s)
{
    size_t n = strlen(s) + 1;
    char *out = at_arena_alloc(a, n);

    if (out) memcpy(out, s, n);
    return out;
}

char *at_arena_printf(at_arena *a, const char *fmt, ...)
{
    va_list args;
    char *out;
    int n;

    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) return NULL;
    out = at_arena_alloc(a, (size_t)n + 1);
    if (!out) return NULL;
    va_start(args, fmt);
    vsnprintf(out, (size_t)n + 1, fmt, args);
    va_end(args);
    return out;
}

at_arena_mark at_arena_snapshot(const at_arena *a)
{
    return (at_arena_mark){a->head, a->head ? a->head->used : 0};
}

void at_arena_restore(at_arena *a, at_arena_mark m)
{
    drop_until(a, m.block);
    if (a->head) a->head->used = m.used;
    a->failed = false;
}

size_t at_arena_bytes(const at_arena *a)
{
    size_t sum = 0;

    for (const block *b = a->head; b; b = b->older)
        sum += b->used;
    return sum;
}
