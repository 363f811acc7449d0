// SPDX-License-Identifier: Apache-2.0
// net_memory.c - libwebsockets' memory: blocks as large as a request's headers are kept for the next request.
// Idea: a request takes 16 KiB for its headers and gives them back with its answer. To malloc that is a large block each time: it is joined
// with its neighbours, and the heap is tidied up for it, a tenth of what accepting a prompt costs. Blocks of some KiB wait in
// lists by size instead, so many as requests were under way at once, within KEPT.
// Easy to get wrong: lists are a thread's own; the thread that ran the loop drops its lists at the end. Under the address
// sanitizer nothing is kept, so that it sees every use behind a free.
// Owns: the blocks in the lists.
#include <stdlib.h>
#include <string.h>

#include "serve/net.h"

enum { STEP = 1 << 10, CLASSES = 33, KEPT = 64 }; // lists of 1, 2, .. 32 KiB

typedef union block {
    struct {
        size_t bytes; // what may be used behind this
        union block *next;
    };
    max_align_t align;
} block;

static _Thread_local block *lists[CLASSES];
static _Thread_local unsigned kept[CLASSES];

#if defined(__SANITIZE_ADDRESS__)
enum { KEEPS = 0 };
#else
enum { KEEPS = 1 };
#endif

// The list of blocks of so many bytes; 0: none.
static size_t class_of(size_t bytes)
{
    size_t c = (bytes + STEP - 1) / STEP;
    return KEEPS && bytes >= STEP && c < CLASSES ? c : 0;
}

static void *take(size_t bytes)
{
    size_t c = class_of(bytes), size = c ? c * STEP : bytes;
    block *b = c ? lists[c] : NULL;

    if (b) {
        lists[c] = b->next;
        kept[c]--;
        return b + 1;
    }
    b = size <= SIZE_MAX - sizeof *b ? malloc(sizeof *b + size) : NULL;
    if (!b) return NULL;
    b->bytes = size;
    return b + 1;
}

static void give(void *p)
{
    block *b = (block *)p - 1;
    size_t c = class_of(b->bytes);

    if (!c || b->bytes != c * STEP || kept[c] >= KEPT) {
        free(b);
        return;
    }
    b->next = lists[c];
    lists[c] = b;
    kept[c]++;
}

// As realloc, and bytes 0 frees.
static void *change(void *p, size_t bytes, const char *reason)
{
    size_t had = p ? ((block *)p - 1)->bytes : 0;
    void *now = NULL;

    (void)reason;
    if (bytes) {
        if (p && bytes <= had && bytes > had / 2) return p;
        now = take(bytes);
        if (!now) return NULL; // what was there stays
        if (p) memcpy(now, p, had < bytes ? had : bytes);
    }
    if (p) give(p);
    return now;
}

void at_net_memory_set(void)
{
    lws_set_allocator(change);
}

void at_net_memory_drop(void)
{
    for (size_t c = 0; c < CLASSES; c++)
        while (lists[c]) {
            block *b = lists[c];
            lists[c] = b->next;
            kept[c]--;
            free(b);
        }
}
