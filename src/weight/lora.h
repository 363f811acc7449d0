// SPDX-License-Identifier: Apache-2.0
// lora.h - adapter files: which of their tensors change which weight, and how.
// Idea: trainers name the same layer in a dozen ways. A model lists all names its layers go by
// (at_lora_names: "lora_unet_down_blocks_0_..." -> a record, perhaps some of its rows); a file is
// asked for every name with every suffix the field knows, and what was found becomes edits.
// Source: comfyui-contract section 7.7, ComfyUI 0.3.64 comfy/lora.py, lora_convert.py and
// weight_adapter/*.py (behaviour).
// Easy to get wrong: where several names of a file mean one target, the last listed name wins; a
// target with rows and the whole record are two targets.
// Owns: an at_lora keeps its store alive; names are copied.
#ifndef AT_WEIGHT_LORA_H
#define AT_WEIGHT_LORA_H

#include "weight/edits.h"

// --- the names of a model's layers -----------------------------------------------------------------
typedef struct at_lora_target {
    const char *record;  // whole name in the model's store
    int64_t first, rows; // rows 0: all of it
    bool swap_halves;
} at_lora_target;

typedef struct at_lora_names at_lora_names;
at_status at_lora_names_new(at_lora_names **out);
void at_lora_names_free(at_lora_names *n); // NULL is fine
// `name` without a file's suffix; listed again, it means the new target. Memory that ran out is said
// by at_lora_match.
void at_lora_names_add(at_lora_names *n, const at_lora_target *to, const char *name);
void at_lora_names_addf(at_lora_names *n, const at_lora_target *to, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
size_t at_lora_names_count(const at_lora_names *n);
const char *at_lora_names_at(const at_lora_names *n, size_t i, at_lora_target *to); // for tests

// --- a file ----------------------------------------------------------------------------------------
typedef struct at_lora at_lora;
at_status at_lora_open(at_store *s, at_lora **out); // retains s
void at_lora_free(at_lora *l);
// All that the file says about these names, as edits of `model`'s records. *changed (may be NULL)
// counts them. Records that the model lacks are left out.
at_status at_lora_match(at_lora *l, at_lora_names *names, at_store *model, double strength,
                        at_edits *out, size_t *changed);
// Tensors that no at_lora_match used: how many, and the first `max` names.
size_t at_lora_unused(const at_lora *l, const char **first, size_t max);

#endif
