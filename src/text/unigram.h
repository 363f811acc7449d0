// SPDX-License-Identifier: Apache-2.0
// unigram.h - the unigram language model: the most probable split of a text into pieces.
// Idea: Viterbi over bytes (Kudo 2018, arXiv:1804.10959). Pieces stand sorted, and a binary search that
// narrows by one byte at a time finds all pieces that begin at a place.
// Owns: an at_unigram owns its pieces until at_unigram_free; immutable after at_unigram_finish.
#ifndef AT_TEXT_UNIGRAM_H
#define AT_TEXT_UNIGRAM_H

#include <stdbool.h>

#include "base/arena.h"
#include "text/tokenizer.h"

typedef struct at_piece {
    const char *text;
    uint32_t len;
    int32_t id;
    double score;
    bool user_defined; // scores len * highest score - 0.1, so that it wins
} at_piece;

typedef struct at_unigram {
    at_piece *pieces; // sorted after at_unigram_finish
    size_t count, cap;
    double min_score, max_score; // of ordinary pieces
    int32_t unk;                 // -1: unknown text is an error
    bool float_scores;           // sums in f32 as sentencepiece; f64 as Hugging Face
    bool byte_fallback;          // unknown characters become <0xNN> pieces
    int32_t byte_id[256];
    at_arena *arena;
} at_unigram;

// Add a piece; the text is copied. Then finish: sorts, and refuses a piece that stands twice.
at_status at_unigram_add(at_unigram *u, const char *text, size_t n, int32_t id, double score,
                         bool user_defined);
at_status at_unigram_finish(at_unigram *u, const char *label);
const at_piece *at_unigram_find(const at_unigram *u, const char *text, size_t n); // after finish
// Append the ids of `text`; neighbours that are both unknown become one.
at_status at_unigram_encode(const at_unigram *u, const char *text, size_t n, at_ids *out);
void at_unigram_free(at_unigram *u);

#endif
