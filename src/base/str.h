// SPDX-License-Identifier: Apache-2.0
// str.h - a growing byte string with a sticky out-of-memory mark, and small string helpers.
// Idea: append as often as you like and ask once at the end whether it all fitted.
// Owns: the at_str owns its bytes until at_str_take or at_str_free.
#ifndef AT_BASE_STR_H
#define AT_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct at_str {
    char *data; // always terminated once something was appended; NULL when empty
    size_t len, cap;
    bool failed; // sticky: memory ran out, appends do nothing
} at_str;

void at_str_append(at_str *s, const char *text);
void at_str_append_n(at_str *s, const void *bytes, size_t n);
void at_str_printf(at_str *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void at_str_vprintf(at_str *s, const char *fmt, va_list args);
void at_str_clear(at_str *s);
void at_str_free(at_str *s);
// The bytes so far, "" if none. Borrowed until the next append.
const char *at_str_text(const at_str *s);
// Move the bytes to the caller (at_free); NULL if the string failed. Empty gives "".
char *at_str_take(at_str *s);

// word is one of the comma-separated words of list; NULL has none. (AT_OFF is such a list.)
bool at_has_word(const char *list, const char *word);
bool at_starts_with(const char *s, const char *prefix);
bool at_ends_with(const char *s, const char *suffix);
bool at_equal_nocase(const char *a, const char *b); // ASCII
// True if `n` bytes are well-formed UTF-8 (no surrogates, no overlong forms).
bool at_utf8_valid(const char *s, size_t n);
// The code point c (at most 0x10ffff) in UTF-8's form, also a lone surrogate, as
// Python's json keeps it; returns how many bytes.
size_t at_utf8_put(char out[4], uint32_t c);
// "12.3 MiB", "4.0 B": binary units for people. `out` of at least 16 bytes.
void at_human_bytes(double bytes, char out[16]);

#endif
