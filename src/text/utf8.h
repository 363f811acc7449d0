// SPDX-License-Identifier: Apache-2.0
// utf8.h - walking over UTF-8, and text as a list of code points.
// Owns: an at_cps owns its array until at_cps_free.
#ifndef AT_TEXT_UTF8_H
#define AT_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

#define AT_REPLACEMENT 0xfffd

// Decode one code point of the `n` > 0 bytes at `s`: returns its length, 1..4. An ill-formed byte
// gives AT_REPLACEMENT and length 1.
size_t at_utf8_next(const char *s, size_t n, uint32_t *cp);
void at_utf8_append(at_str *s, uint32_t cp);
// A copy in which every ill-formed byte is U+FFFD.
void at_utf8_repair(at_str *out, const char *s, size_t n);

// White_Space of Unicode.
bool at_is_space(uint32_t cp);

typedef struct at_cps {
    uint32_t *data;
    size_t len, cap;
} at_cps;
at_status at_cps_push(at_cps *c, uint32_t cp);
void at_cps_free(at_cps *c);

#endif
