// SPDX-License-Identifier: Apache-2.0
// json.h - JSON as Python's json module reads and writes it, in jansson's tree.
// Idea: ComfyUI's contract is Python's: integers of any size, NaN and Infinity, the last of two
// equal keys wins, floats print as repr() does. What jansson cannot hold (an integer beyond 64 bits
// signed, NaN, Infinity) is an "odd number": a string node whose first byte is 0xFF, which no UTF-8
// text contains, followed by the literal. json_dumps() refuses such a tree; at_json_dump() prints
// it. Lone surrogates in escapes become U+FFFD; a NUL character is refused (C strings hold our
// text).
// Owns nothing: results are the caller's.
#ifndef AT_JSON_JSON_H
#define AT_JSON_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

#define AT_JSON_MAX_DEPTH  500
#define AT_JSON_MAX_DIGITS 4300 // sys.int_info.default_max_str_digits

// A program that links this floor has jansson's memory come from at_alloc from its first instruction on, so
// that counters and fault injection see it: what json_dumps gives is freed with at_free.

// Parse one JSON text. AT_EWORKFLOW with label, line and column; AT_ENOMEM.
at_status at_json_load(const char *label, const char *text, size_t n, json_t **out);

enum {
    AT_JSON_COMPACT = 1 << 0, // "," and ":" and not Python's ", " and ": "
    AT_JSON_UTF8 = 1 << 1,    // text as it is, not \uXXXX
    AT_JSON_SORTED = 1 << 2   // keys in bytewise order
};
void at_json_append(at_str *s, const json_t *v, unsigned flags);
char *at_json_dump(const json_t *v, unsigned flags); // at_free; NULL if out of memory

// The literal of an odd number ("18446744073709551615", "NaN", "-Infinity"); NULL for all else.
const char *at_json_odd(const json_t *v);
json_t *at_json_new_odd(const char *literal);
json_t *at_json_new_u64(uint64_t v);   // integer or odd
json_t *at_json_new_float(double v);   // real or odd
bool at_json_is_text(const json_t *v); // a string that is no odd number

// repr() of a Python float: "1.0", "1e-05", "nan".
void at_float_repr(double v, char out[32]);

#endif
