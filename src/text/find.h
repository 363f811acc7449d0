// SPDX-License-Identifier: Apache-2.0
// find.h - where a vocabulary may lie, in the order we look.
// Beside the model: FILE's folder (tokenizer.json, vocab.json + merges.txt, spiece.model), a folder named
// like the model file without extension; then <models>/tokenizers/{clip,clip_l,t5,...}; then the copies in
// a ComfyUI checkout (comfy/sd1_tokenizer, comfy/text_encoders/t5_tokenizer, found relative to the models
// folder); then where set-up put CLIP's (share/atelier/tokenizers).
#ifndef AT_TEXT_FIND_H
#define AT_TEXT_FIND_H

#include "text/tokenizer.h"

// model_path may be NULL. models_dirs: folders in ComfyUI's layout. The error lists every place it looked
// in and how to get the file.
at_status at_tokenizer_find(at_tokenizer_kind kind, const char *model_path,
                            const char *const *models_dirs, size_t dir_count, at_tokenizer **out);

#endif
