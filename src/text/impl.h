// SPDX-License-Identifier: Apache-2.0
// impl.h - what a tokenizer is inside, shared by its loaders.
// Owns: an at_tokenizer owns the one of `clip` and `t5` that its kind names.
#ifndef AT_TEXT_IMPL_H
#define AT_TEXT_IMPL_H

#include <jansson.h>
#include <stdatomic.h>

#include "text/added.h"
#include "text/bpe.h"
#include "text/clip_clean.h"
#include "text/t5.h"
#include "text/tokenizer.h"

#define AT_VOCAB_MAX_BYTES (64u << 20) // of any vocabulary file

struct at_tokenizer {
    atomic_int refs;
    at_tokenizer_kind kind;
    const char *label; // only while loading
    int32_t bos, eos, pad;
    int64_t vocab_size; // highest id + 1
    int fixed_length;
    at_added added;
    at_bpe bpe; // AT_TOK_CLIP_BPE
    at_case_rules cases;
    at_regex *words;
    at_t5 t5; // AT_TOK_T5_UNIGRAM
};

// CLIP's files (clip_load.c); each fills bpe, bos, eos and added.
at_status at_clip_load_json(at_tokenizer *t, const json_t *root);
at_status at_clip_load_vocab(at_tokenizer *t, const char *vocab, size_t vocab_n, const char *merges,
                             size_t merges_n);
at_status at_clip_load_simple(at_tokenizer *t, const char *text, size_t n);
at_status at_clip_finish(at_tokenizer *t); // after each of them
at_status at_clip_encode(const at_tokenizer *t, const char *text, size_t n, at_ids *out);

// T5's files (t5_json.c, t5_spiece.c).
at_status at_t5_load_json(at_tokenizer *t, const json_t *root);
at_status at_t5_load_spiece(at_tokenizer *t, const uint8_t *data, size_t n);
at_status at_t5_encode(const at_tokenizer *t, const char *text, size_t n, at_ids *out);

// "added_tokens" of a tokenizer.json (tokenizer.c).
at_status at_load_added(at_tokenizer *t, const json_t *root);
// A JSON text as a tree (the caller's). AT_EFORMAT with the line, or AT_ENOMEM (tokenizer.c).
at_status at_text_json(const char *label, const void *data, size_t n, json_t **out);
// A whole number within int32 of a JSON value: false if it is none.
bool at_json_id(const json_t *v, int32_t *out);

#endif
