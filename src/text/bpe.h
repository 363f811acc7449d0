// SPDX-License-Identifier: Apache-2.0
// bpe.h - byte-pair encoding of one word.
// Idea: symbols are numbers; merging the pair of lowest rank, all its occurrences from left to
// right, until none is left (Sennrich, Haddow & Birch 2016, arXiv:1508.07909), over a linked list
// with a heap of candidates: n log n, so a word of a megabyte is no attack. Owns: an at_bpe owns
// its tables until at_bpe_free; immutable after loading, any thread may encode.
#ifndef AT_TEXT_BPE_H
#define AT_TEXT_BPE_H

#include "text/symtab.h"
#include "text/tokenizer.h"

typedef struct at_merge {
    uint64_t pair; // left symbol << 32 | right symbol, plus 1; 0: empty slot
    uint32_t rank;
    int32_t merged;
} at_merge;

typedef struct at_bpe {
    at_symtab syms;
    at_merge *merges; // open addressing, a power of two of slots
    uint32_t merge_slots, merge_count;
    int32_t byte_sym[256], byte_last_sym[256]; // a byte inside a word, and at its end ("</w>")
    int32_t unk;                               // id for symbols that the vocabulary lacks
} at_bpe;

// CLIP's printable stand-in for a byte (a code point), as GPT-2 defined it.
uint32_t at_byte_letter(unsigned byte);
// Make the 512 byte symbols known; ids stay -1 where the vocabulary has none.
at_status at_bpe_init(at_bpe *b);
// Room for `count` merges; then add them in the order of rank. A pair that came before is ignored.
// *merged (may be NULL) is the symbol of left + right.
at_status at_bpe_reserve(at_bpe *b, size_t count);
at_status at_bpe_add_merge(at_bpe *b, const char *left, size_t left_n, const char *right,
                           size_t right_n, int32_t *merged);
at_status at_bpe_encode_word(const at_bpe *b, const char *word, size_t n, at_ids *out);
void at_bpe_free(at_bpe *b);

#endif
