// SPDX-License-Identifier: Apache-2.0
// tokenizer.h - text to token ids: CLIP's byte-pair encoding and T5's unigram model.
// Idea: a vocabulary is read from the usual files of the field; what kind it is comes from the
// file.
//   CLIP: vocab.json + merges.txt, or tokenizer.json with a BPE model, or clip's bpe_simple_vocab
//   T5:   spiece.model (sentencepiece protobuf) or tokenizer.json with a Unigram model
// Owns: a tokenizer owns its tables; immutable after loading, any thread may encode. Counted.
#ifndef AT_TEXT_TOKENIZER_H
#define AT_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct at_tokenizer at_tokenizer;
typedef enum at_tokenizer_kind { AT_TOK_CLIP_BPE, AT_TOK_T5_UNIGRAM } at_tokenizer_kind;

// A growing list of ids, owned by the caller (at_ids_free).
typedef struct at_ids {
    int32_t *data;
    size_t len, cap;
} at_ids;
at_status at_ids_push(at_ids *ids, int32_t id);
void at_ids_free(at_ids *ids);

// `path` is a file (tokenizer.json, spiece.model, vocab.json with merges.txt beside it) or a folder
// that holds one of them. AT_ENOTFOUND, AT_EFORMAT.
at_status at_tokenizer_open(at_tokenizer_kind kind, const char *path, at_tokenizer **out);
// The same from memory, for embedded vocabularies (spiece_model tensors) and fuzzing. `format` is
// "tokenizer.json", "spiece.model", "vocab.json" (then `second` is merges.txt) or
// "bpe_simple_vocab_16e6.txt".
at_status at_tokenizer_parse(at_tokenizer_kind kind, const char *label, const char *format,
                             const void *data, size_t size, const void *second, size_t second_size,
                             at_tokenizer **out);
at_tokenizer *at_tokenizer_retain(at_tokenizer *t);
void at_tokenizer_release(at_tokenizer **t);

// Append the ids of `text` (UTF-8; ill-formed bytes become U+FFFD), without BOS, EOS or padding.
at_status at_tokenizer_encode(const at_tokenizer *t, const char *text, size_t n, at_ids *out);

int32_t at_tokenizer_bos(const at_tokenizer *t); // -1 if none (T5)
int32_t at_tokenizer_eos(const at_tokenizer *t);
int32_t at_tokenizer_pad(const at_tokenizer *t); // CLIP-L: EOS; T5: 0
int64_t at_tokenizer_vocab_size(const at_tokenizer *t);
// Fixed length that the tokenizer's own file asks for ("padding": {"strategy": {"Fixed": n}}), 0 if
// none.
int at_tokenizer_fixed_length(const at_tokenizer *t);
at_tokenizer_kind at_tokenizer_get_kind(const at_tokenizer *t);

#endif
