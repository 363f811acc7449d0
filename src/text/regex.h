// SPDX-License-Identifier: Apache-2.0
// regex.h - the one door to PCRE2: Unicode patterns over valid UTF-8, with a bound on the work.
// Owns: a compiled pattern is the caller's (at_regex_free); immutable, any thread may match.
#ifndef AT_TEXT_REGEX_H
#define AT_TEXT_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef struct at_regex at_regex;

// `label` names the file the pattern came from. AT_EFORMAT: not a pattern PCRE2 understands.
at_status at_regex_compile(const char *label, const char *pattern, bool nocase, at_regex **out);
enum {
    AT_REGEX_NOCASE = 1 << 0,
    AT_REGEX_MULTILINE = 1 << 1, // ^ and $ at every line; ^ also behind a last newline
    AT_REGEX_DOTALL = 1 << 2
};
at_status at_regex_compile_as(const char *label, const char *pattern, unsigned flags,
                              at_regex **out);
void at_regex_free(at_regex *re); // NULL is fine
size_t at_regex_groups(const at_regex *re);
// Number of the group of this name; 0: none.
size_t at_regex_group_named(const at_regex *re, const char *name);
// What a run of matches works in; one thread each. NULL: a match makes its own.
typedef struct at_regex_space at_regex_space;
at_status at_regex_space_new(at_regex_space **out);
void at_regex_space_free(at_regex_space *space); // NULL is fine
// The first match at or behind byte `from` of `text` (valid UTF-8): true with its range. False: no
// match; or, with *st set, more backtracking than is reasonable, or no memory.
bool at_regex_next(const at_regex *re, at_regex_space *space, const char *text, size_t n,
                   size_t from, size_t *begin, size_t *end, at_status *st);
// As at_regex_next with the ranges of all groups, [2 i] and [2 i + 1] for i = 0 .. groups, SIZE_MAX where a
// group took no part. not_empty: no empty match at `from`.
bool at_regex_match(const at_regex *re, const char *text, size_t n, size_t from, bool not_empty,
                    size_t *ranges, at_status *st);

#endif
