// SPDX-License-Identifier: Apache-2.0
// encode.h - from prompts to a conditioning: tokens, chunks, encoders, weights, and how the encoders
// of a CLIP object are joined.
// Source: comfyui-contract section 6 (ComfyUI 0.3.64's sd1_clip.py, sdxl_clip.py, sd3_clip.py and
// flux.py, behaviour only).
#ifndef AT_NODES_ENCODE_H
#define AT_NODES_ENCODE_H

#include "nodes/env.h"
#include "nodes/objects.h"

// What each encoder reads.
typedef struct at_prompt_texts {
    at_env *env; // whose embeddings folders "embedding:NAME" means; NULL: it is text
    const char *text[AT_TE_COUNT]; // NULL: ""
    // No tokens at all, not even those of an empty prompt (SD3's empty_padding "none").
    bool none[AT_TE_COUNT];
    // CLIP-L and CLIP-G get equally many chunks: empty ones are put behind the shorter prompt.
    bool same_chunks;
    bool raw_pooled; // pooled without its projection (GLIGEN)
    int drop_group;  // at_chunks_drop (PhotoMaker); 0: none
} at_prompt_texts;

// An op context where this CLIP's encoders run and in what they compute. at_ops_free.
at_status at_encode_open(const at_node_ctx *c, const at_obj_clip *clip, at_ops **out);

// Encode with every encoder of the CLIP object. The result is a CONDITIONING of one entry, on the env's device
// wherever it was made (env NULL: on that of `o`).
at_status at_encode_texts(at_ops *o, const at_obj_clip *clip, const at_prompt_texts *texts,
                          at_object **out);
// The same text for all CLIP encoders, another one for T5.
at_status at_encode_prompt(at_env *env, at_ops *o, const at_obj_clip *clip, const char *clip_text,
                           const char *t5_text, at_object **out);

#endif
