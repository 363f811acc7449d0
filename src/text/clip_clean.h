// SPDX-License-Identifier: Apache-2.0
// clip_clean.h - what happens to text before CLIP's pattern splits it.
// Source: ComfyUI runs Hugging Face's slow CLIPTokenizer without ftfy; that cleans with BasicTokenizer
// (no accent stripping, no punctuation splitting): control characters and U+FFFD go, white space becomes
// one blank, CJK ideographs stand alone, NFC, lower case as Python's str.lower.
// Owns nothing.
#ifndef AT_TEXT_CLIP_CLEAN_H
#define AT_TEXT_CLIP_CLEAN_H

#include "base/status.h"
#include "base/str.h"
#include "text/regex.h"

// Patterns for the two Unicode properties that the Greek final sigma depends on.
typedef struct at_case_rules {
    at_regex *cased, *ignorable;
} at_case_rules;
at_status at_case_rules_init(at_case_rules *r);
void at_case_rules_free(at_case_rules *r);
bool at_case_is_cased(const at_case_rules *r, uint32_t c, at_status *st);
// Letter `at` of `word` in lower case, as Python's str.lower: the Greek final sigma looks around.
at_status at_case_lower(const at_case_rules *r, const uint32_t *word, size_t n, size_t at,
                        at_str *out);

at_status at_clip_clean(const at_case_rules *r, const char *text, size_t n, at_str *out);

#endif
