// SPDX-License-Identifier: Apache-2.0
// pieces.h - reading bytes that lie apart (at_pieces of backend.h).
// Idea: a rank's share of a matrix's columns is a piece of each row; an uploader takes it in steps of its own.
// Inline, because plug-ins read too. Owns nothing.
#ifndef AT_TENSOR_PIECES_H
#define AT_TENSOR_PIECES_H

#include <string.h>

#include "atelier/backend.h"

// Puts the `bytes` bytes at `at` of the whole to `to`; 0, or what ends the walk.
typedef int at_pieces_read(const void *ctx, size_t at, size_t bytes, char *to);

// Bytes [first, first + n) of what lies apart, piece by piece. 0, or what `read` said.
static inline int at_pieces_walk(const at_pieces *p, size_t first, size_t n, at_pieces_read *read,
                                 const void *ctx, void *to)
{
    size_t each = 0;
    char *out = to;

    for (int i = 0; i < p->n; i++)
        each += p->piece[i].bytes;
    for (size_t line = each ? first / each : 0, skip = each ? first % each : 0; n > 0 && each;
         line++, skip = 0) {
        for (int i = 0; i < p->n && n > 0; i++) {
            size_t bytes = p->piece[i].bytes, left = skip < bytes ? bytes - skip : 0;
            if (left > n) left = n;
            int st = left ? read(ctx, line * p->line + p->piece[i].at + skip, left, out) : 0;
            if (st) return st;
            skip -= skip < bytes ? skip : bytes;
            out += left;
            n -= left;
        }
    }
    return 0;
}

static inline int at_pieces_from_memory(const void *base, size_t at, size_t bytes, char *to)
{
    memcpy(to, (const char *)base + at, bytes);
    return 0;
}

// The same, behind `base`.
static inline void at_pieces_copy(const at_pieces *p, const void *base, size_t first, size_t n,
                                  void *to)
{
    (void)at_pieces_walk(p, first, n, at_pieces_from_memory, base, to);
}

// How far they reach.
static inline size_t at_pieces_span(const at_pieces *p)
{
    size_t end = 0;

    for (int i = 0; i < p->n; i++)
        if (p->piece[i].at + p->piece[i].bytes > end) end = p->piece[i].at + p->piece[i].bytes;
    return p->lines > 0 ? (size_t)(p->lines - 1) * p->line + end : 0;
}

#endif
