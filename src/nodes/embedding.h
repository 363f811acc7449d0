// SPDX-License-Identifier: Apache-2.0
// embedding.h - textual inversions: files of the embeddings folders that stand for words of a prompt.
// Source: comfyui-contract section 6; ComfyUI 0.3.64 comfy/sd1_clip.py load_embed (behaviour).
// Ownership: a set owns the rows it has read until at_embeddings_free.
#ifndef AT_NODES_EMBEDDING_H
#define AT_NODES_EMBEDDING_H

#include "nodes/env.h"
#include "nodes/objects.h"
#include "text/prompt.h"

typedef struct at_embeddings {
    at_vector_source source; // for at_chunking.embeddings
    at_env *env;
    const char *key; // of this encoder's rows in files for several: "clip_g"
    int64_t width;
    struct at_embedding *read; // so far
    size_t count;
} at_embeddings;
// Names are looked up for the encoder at `place`, whose embeddings have `width` numbers.
void at_embeddings_init(at_embeddings *e, at_env *env, at_te place, int64_t width);
void at_embeddings_free(at_embeddings *e);

#endif
