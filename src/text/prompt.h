// SPDX-License-Identifier: Apache-2.0
// prompt.h - ComfyUI's prompt language: weights in parentheses, escapes; and chunks of 77.
// Source: comfyui-contract sections 6.1-6.3 (ComfyUI 0.3.64 sd1_clip.py, behaviour only).
// "embedding:NAME" (textual inversion) stands for rows of a file where the caller has a source of them;
// without one it is text.
// Owns: results are the caller's.
#ifndef AT_TEXT_PROMPT_H
#define AT_TEXT_PROMPT_H

#include "text/tokenizer.h"

typedef struct at_segment {
    char *text; // escapes already removed
    float weight;
} at_segment;
typedef struct at_segments {
    at_segment *items;
    size_t count;
} at_segments;

// "a (red:1.3) fox" -> {"a ", 1} {"red", 1.3} {" fox", 1}. Never fails on odd input; AT_ENOMEM
// only. Nesting is bounded by the text's length and handled without recursion.
at_status at_prompt_parse(const char *text, at_segments *out);
void at_segments_free(at_segments *s);

// Rows that stand for a word; borrowed from the source until the chunks are freed. count 0: none.
typedef struct at_vectors {
    const float *rows;
    int64_t count, width;
} at_vectors;
typedef struct at_vector_source {
    at_status (*find)(void *ctx, const char *name,
                      at_vectors *out); // not found is count 0, no failure
    void *ctx;
} at_vector_source;

// How an encoder wants its tokens laid out.
typedef struct at_chunking {
    int max_length;  // CLIP 77; T5: 0 = one chunk of any length
    int min_length;  // T5: pad up to this (Flux 256); 0 none
    int min_padding; // T5: at least so many behind the end
    bool has_bos, has_eos;
    int32_t bos, eos, pad;
    int max_word_length;                // groups shorter than this are never split (8)
    bool weights;                       // false: parentheses are literal text
    const at_vector_source *embeddings; // NULL: "embedding:" is text
} at_chunking;

// One chunk: ids and weights of the same length (max_length for CLIP).
typedef struct at_chunk {
    int32_t *ids;
    float *weights;
    at_vectors *vectors; // rows NULL: an id; else one row that stands in its place (its id is 0)
    int32_t *groups;     // which group of tokens it came with, from 1 on; 0: begin, end and pads
    int64_t len;
} at_chunk;
typedef struct at_chunks {
    at_chunk *items;
    size_t count;
    bool weighted; // any weight != 1
} at_chunks;

at_status at_prompt_chunks(const at_tokenizer *t, const char *text, const at_chunking *how,
                           at_chunks *out);
void at_chunks_free(at_chunks *c);
// Takes the tokens of a group (> 0) out; each chunk stays as long, its last token repeated.
void at_chunks_drop(at_chunks *c, int32_t group);

#endif
