// SPDX-License-Identifier: Apache-2.0
// edit.h - MODEL and CLIP objects with changed weights.
// Idea: a node that changes weights says what as edits (weight/edits.h) of the records of the object's
// stores; the new object is the old one over edited stores, and everything else is shared.
// Ownership: results are the caller's; inputs are borrowed.
#ifndef AT_NODES_EDIT_H
#define AT_NODES_EDIT_H

#include "models/lora.h"
#include "nodes/objects.h"
#include "weight/edits.h"

// No edits at all gives a new reference to the same object.
at_status at_obj_model_edit(const at_obj_model *m, const at_edits *e, at_object **out);
// Edits of each encoder's store, at its place; NULL: none.
at_status at_obj_clip_edit(const at_obj_clip *c, at_edits *const edits[AT_TE_COUNT],
                           at_object **out);
at_lora_encoders at_clip_lora_encoders(const at_obj_clip *c);

// One adapter file on a model and a clip, either of which may be NULL. What the file has and nobody
// wants is warned about: how many tensors, and three names.
at_status at_edit_by_lora(at_store *file, const at_obj_model *m, const at_obj_clip *c,
                          double strength_model, double strength_clip, at_object **model_out,
                          at_object **clip_out);

#endif
