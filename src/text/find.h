// SPDX-License-Identifier: Apache-2.0
// find.h - where a vocabulary may lie, in the order we look.
//   1. a folder named like the model file without its extension, then the model's own folder
//   2. <models>/tokenizers
//   3. a ComfyUI checkout around the models folder: ../comfy/sd1_tokenizer,
//      ../comfy/text_encoders/t5_tokenizer
//   4. where set-up put CLIP's: $ATELIER_SHARE/tokenizers/clip, <prefix>/share/atelier/tokenizers/clip
// In 1 and 2 also the folders clip, clip_l, tokenizer (CLIP) or t5, t5xxl, tokenizer_2 (T5) in them.
#ifndef AT_TEXT_FIND_H
#define AT_TEXT_FIND_H

#include "text/tokenizer.h"

// model_path may be NULL. models_dirs: folders in ComfyUI's layout. The error lists every place it
// looked in and how to get the file.
at_status at_tokenizer_find(at_tokenizer_kind kind, const char *model_path,
                            const char *const *models_dirs, size_t dir_count, at_tokenizer **out);

#endif
