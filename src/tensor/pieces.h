// SPDX-License-Identifier: Apache-2.0
// pieces.h - reading bytes that lie apart (at_pieces of backend.h).
// Idea: a rank's share of a matrix's columns is a piece of each row; an uploader takes it in steps of its own.
// Inline, because plug-ins read too. Owns nothing.
#ifndef AT_TENSOR_PIECES_H
#define AT_TENSOR_PIECES_H

#include <string.h>

#include "atelier/backend.h"

// Bytes [first, first + n) of what lies apart behind `base`.
static inline void at_pieces_copy(const at_pieces *p, const void *base, size_t first, size_t n,
                                  void *to)
{
    size_t each = 0;
    char *out = to;

    for (int i = 0; i < p->n; i++)
        each += p->piece[i].bytes;
    for (size_t line = each ? first / each : 0, skip = each ? first % each : 0; n > 0 && each;
         line++, skip = 0) {
        const char *from = (const char *)base + line * p->line;
        for (int i = 0; i < p->n && n > 0; i++) {
            size_t bytes = p->piece[i].bytes, left = skip < bytes ? bytes - skip : 0;
            if (left > n) left = n;
            if (left) memcpy(out, from + p->piece[i].at + skip, left);
            skip -= skip < bytes ? skip : bytes;
            out += left;
            n -= left;
        }
    }
}

#endif
