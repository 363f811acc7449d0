// SPDX-License-Identifier: Apache-2.0
// charsmap.h - sentencepiece's compiled normalisation rules.
// Format (sentencepiece normalizer.cc): u32 little-endian byte count of a double-array trie (darts-clone
// units of 32 bits), the trie, then NUL-terminated replacement strings; a leaf's value is an offset there.
// Owns: an at_charsmap owns its arrays until at_charsmap_free. An empty map replaces nothing.
#ifndef AT_TEXT_CHARSMAP_H
#define AT_TEXT_CHARSMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct at_charsmap {
    uint32_t *units;
    size_t unit_count;
    char *texts;
    size_t text_bytes;
} at_charsmap;

at_status at_charsmap_load(const char *label, const uint8_t *data, size_t n, at_charsmap *out);
at_status at_charsmap_load_base64(const char *label, const char *text, size_t n, at_charsmap *out);
// What replaces a prefix of `text`: the longest one, or the shortest; NULL if none. *len is its length.
const char *at_charsmap_match(const at_charsmap *m, const char *text, size_t n, bool longest,
                              size_t *len);
void at_charsmap_free(at_charsmap *m);

#endif
