// SPDX-License-Identifier: Apache-2.0
// symtab.h - strings to small numbers, in the order of first sight.
// Idea: a vocabulary works on numbers; the strings are needed only while it is read and to look up
// words. Owns: the table owns copies of all strings until at_symtab_free.
#ifndef AT_TEXT_SYMTAB_H
#define AT_TEXT_SYMTAB_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"

typedef struct at_sym {
    const char *text;
    uint32_t len;
    int32_t id; // the vocabulary's id of this string, -1 if it has none
} at_sym;

typedef struct at_symtab {
    at_sym *syms;
    uint32_t count, cap;
    uint32_t *slots; // index + 1; 0 is empty; a power of two of them
    uint32_t slot_count;
    at_arena *arena;
} at_symtab;

// Index of the string, added with id -1 if new. Negative only when out of memory (then *st says
// so).
int32_t at_symtab_intern(at_symtab *t, const char *text, size_t n, at_status *st);
int32_t at_symtab_find(const at_symtab *t, const char *text, size_t n); // -1 if absent
void at_symtab_free(at_symtab *t);

#endif
