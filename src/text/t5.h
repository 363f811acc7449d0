// SPDX-License-Identifier: Apache-2.0
// t5.h - what stands around the unigram model: normalisation and the split into words.
// Idea: a tokenizer.json lists its steps, so they are a small array of steps here; sentencepiece's own
// normaliser is one function with three switches. Which of them runs depends on the file.
// Owns: an at_t5 owns its steps, maps and pieces until at_t5_free; immutable after loading.
#ifndef AT_TEXT_T5_H
#define AT_TEXT_T5_H

#include "base/str.h"
#include "text/added.h"
#include "text/charsmap.h"
#include "text/regex.h"
#include "text/unigram.h"

typedef enum at_norm_kind {
    AT_NORM_CHARSMAP,
    AT_NORM_STRIP,
    AT_NORM_REPLACE,
    AT_NORM_PREPEND,
    AT_NORM_LOWER,
    AT_NORM_UNICODE
} at_norm_kind;

typedef struct at_norm_step {
    at_norm_kind kind;
    at_charsmap map;   // CHARSMAP
    bool left, right;  // STRIP
    at_regex *pattern; // REPLACE: this, or
    char *literal;     // REPLACE: these bytes
    char *content;     // REPLACE, PREPEND
    int form;          // UNICODE: utf8proc options
} at_norm_step;

#define AT_NORM_MAX 16

typedef enum at_prepend { AT_PREPEND_NEVER, AT_PREPEND_FIRST, AT_PREPEND_ALWAYS } at_prepend;

typedef struct at_t5 {
    at_unigram uni;
    // Hugging Face's pipeline (tokenizer.json)
    at_norm_step steps[AT_NORM_MAX];
    int step_count;
    bool split_white; // words at white space, before the blank becomes a mark
    bool mark_blanks; // Metaspace
    bool split_marks; // a word begins at each mark
    char mark[5];     // U+2581 unless the file says otherwise
    at_prepend prepend;
    // sentencepiece's (spiece.model)
    bool sentencepiece;
    bool add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces, whitespace_suffix;
    at_charsmap map;
} at_t5;

// All steps over one stretch of text.
at_status at_t5_normalize(const at_t5 *t, const char *text, size_t n, at_str *out);
// sentencepiece's normaliser; `fixed` are the user-defined pieces, which pass unchanged.
at_status at_t5_sp_normalize(const at_t5 *t, const at_added *fixed, const char *text, size_t n,
                             at_str *out);
// Words of a normalised stretch through the model. `first`: the stretch begins the text.
at_status at_t5_encode_words(const at_t5 *t, const char *text, size_t n, bool first, at_ids *out);
void at_t5_free(at_t5 *t);

#endif
