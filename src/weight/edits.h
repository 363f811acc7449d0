// SPDX-License-Identifier: Apache-2.0
// edits.h - changes of weights: what LoRAs and merges do to a model, as data.
// Idea: a set of edits names records of a store and, for each, a list of changes in the order in which
// nodes asked for them. at_store_edit lays a store over the model's file in which those records are
// base + changes, computed in f32 and rounded once. Editing an edited store gives a store over the
// same file with both lists, so a chain of LoRAs rounds once, as in ComfyUI (ModelPatcher.add_patches).
// Source of the arithmetic: ComfyUI 0.3.64 comfy/lora.py and comfy/weight_adapter (behaviour), and the
// papers named in edit_delta.c and edit_turn.c.
// Easy to get wrong: fp8 weights become bf16, because one rounding to fp8 would eat a LoRA.
// Owns: a set holds the stores its tensors lie in (at_edits_hold); counted, frozen once it is used.
#ifndef AT_WEIGHT_EDITS_H
#define AT_WEIGHT_EDITS_H

#include "weight/overlay.h"

typedef enum at_edit_kind {
    AT_EDIT_LORA,  // up, down, mid
    AT_EDIT_LOHA,  // w1_a, w1_b, w2_a, w2_b, t1, t2
    AT_EDIT_LOKR,  // w1, w2, w1_a, w1_b, w2_a, w2_b, t2
    AT_EDIT_GLORA, // a1, a2, b1, b2
    AT_EDIT_OFT,   // blocks [n, b, b]
    AT_EDIT_BOFT,  // blocks [m, n, b, b], rescale
    AT_EDIT_DIFF,  // what is added
    AT_EDIT_SET,   // what stands in its place
    AT_EDIT_MERGE, // another model's weight, with that model's own edits, added
    AT_EDIT_TOWARD // another model's weight less this record as its file has it, added
} at_edit_kind;

enum { AT_EDIT_TENSORS = 7 };

// One change: W = keep * W, then the change with `strength`. Tensors are borrowed from stores that the
// set holds; absent ones are NULL.
typedef struct at_edit {
    at_edit_kind kind;
    double strength, keep;
    int64_t first, rows; // of dimension 0, that are changed; rows 0: all
    bool swap_halves; // the upper and the lower half of the change trade places (diffusers' adaLN)
    bool has_alpha;
    double alpha;
    const at_weight *t[AT_EDIT_TENSORS];
    const at_weight *dora;
    int grow_rank; // 0: none; else the weight is first grown to this shape with zeros
    int64_t grow[AT_MAX_RANK];
} at_edit;

typedef struct at_edits at_edits;
at_status at_edits_new(at_edits **out);
at_edits *at_edits_retain(at_edits *e);
void at_edits_release(at_edits **e); // nulls it; NULL is fine
// One more change of the record `name` (the whole name, copied). AT_ENOMEM.
at_status at_edits_add(at_edits *e, const char *name, const at_edit *one);
at_status at_edits_hold(at_edits *e, at_store *s); // retains s; AT_ENOMEM
size_t at_edits_count(const at_edits *e);

// A store over s (or over s's base, if s is edited itself) with these changes after those that s has.
// AT_EINVAL names a record that s lacks or whose elements are no floats.
at_status at_store_edit(at_store *s, const at_edits *e, at_store **out);

// A record's numbers as f32, [rows, cols]: an edited one is computed and not kept, and is not rounded.
struct at_matrix;
at_status at_edits_read(const at_weight *w, struct at_matrix *out);

#endif
