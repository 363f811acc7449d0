// SPDX-License-Identifier: Apache-2.0
// header_scan.h - a pull parser for the JSON header of a safetensors file.
// Idea: the header has one fixed shape, so the caller asks for what must come next ("a string", "a
// number") and nothing is ever built in memory but the strings that are kept. A header of any size
// costs its own length once, and every refusal names the byte. Source: RFC 8259; the header is
// checked as a whole for UTF-8 before scanning. Owns nothing: input, label and the string buffer
// are borrowed from the caller.
#ifndef AT_WEIGHT_HEADER_SCAN_H
#define AT_WEIGHT_HEADER_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define AT_SCAN_MAX_DEPTH 8

typedef struct at_scan {
    const char *label; // the file, for messages
    const uint8_t *begin, *p, *end;
    char *strings; // room for at least end - begin bytes; decoded strings go here
    size_t used;
} at_scan;

// The next byte that is not white space; -1 at the end. Does not consume.
int at_scan_peek(at_scan *s);
at_status at_scan_expect(at_scan *s, char c);
// True and consumed if `c` comes next.
bool at_scan_take(at_scan *s, char c);
// A string, decoded and terminated, kept in s->strings. Escaped NULs and lone surrogates are
// refused.
at_status at_scan_string(at_scan *s, const char **out);
// A non-negative integer without sign, point, exponent or leading zeros.
at_status at_scan_u64(at_scan *s, uint64_t *out);
// Any value, thrown away; `depth` is the depth it stands at.
at_status at_scan_skip(at_scan *s, int depth);
at_status at_scan_fail(const at_scan *s, const char *what);

#endif
