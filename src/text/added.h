// SPDX-License-Identifier: Apache-2.0
// added.h - tokens that are found in the text before anything else looks at it.
// Idea: "<|endoftext|>" and "<extra_id_0>" are one token wherever they stand; the text between them goes
// the usual way. Leftmost first, the longest of those, as Hugging Face's tokenizers do.
// Owns: copies of all strings until at_added_free.
#ifndef AT_TEXT_ADDED_H
#define AT_TEXT_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct at_added_token {
    char *text;
    size_t len;
    int32_t id;
    bool single_word;    // only where no letter, digit or '_' touches it
    bool lstrip, rstrip; // swallows white space beside it
    bool normalized;     // looked for in the normalised text instead of the raw one
} at_added_token;

typedef struct at_added {
    at_added_token *items;
    size_t count, cap;
} at_added;

at_status at_added_push(at_added *a, const char *text, size_t n, at_added_token how);
void at_added_sort(at_added *a); // longest first; call once when all are there
// The next of them (with this `normalized`) in text[from, n): its index and range, white space that it
// swallows included; -1 if none.
int64_t at_added_next(const at_added *a, bool normalized, const char *text, size_t n, size_t from,
                      size_t *begin, size_t *end);
// Length of the longest raw one that `text` begins with; 0 if none. Flags are not looked at.
size_t at_added_prefix(const at_added *a, const char *text, size_t n);
void at_added_free(at_added *a);

#endif
