// SPDX-License-Identifier: Apache-2.0
// vision.h - networks that look at pictures: CLIP's and SigLIP's picture encoders, and the style
// models that turn what they see into text tokens.
// Idea: an encoder gives hidden states and a projected vector; what it wants to be shown (size,
// mean, deviation) are facts of its row.
// Ownership: counted and immutable after loading; results belong to op scopes.
#ifndef AT_MODELS_VISION_H
#define AT_MODELS_VISION_H

#include "models/models.h"

// What an encoder saw: [b, tokens, width] f32, and the vector [b, d].
typedef struct at_seen {
    at_tensor *last, *penultimate; // after the last layer (no norm but SigLIP's), and before it
    at_tensor *embeds;             // projected; SigLIP: the same as last
    at_tensor *pooled;             // what is projected; SigLIP: NULL
} at_seen;

typedef struct at_vision_facts {
    int size; // pictures are size x size
    float mean[3], deviation[3];
} at_vision_facts;

// One of either part.
typedef struct at_vision at_vision;
// AT_EFORMAT if the file has no such part; AT_EUNSUPPORTED for kinds that are not built.
at_status at_vision_load(at_store *s, at_part part, const char *label, at_vision **out);
// One of a row that the caller knows, whatever its probes say.
at_status at_vision_of(const at_arch *a, at_store *s, const char *prefix, const char *label,
                       at_vision **out);
at_vision *at_vision_retain(at_vision *v);
void at_vision_release(at_vision **v); // nulls it; NULL is fine

void at_vision_get_facts(const at_vision *v, at_vision_facts *out); // AT_PART_VISION
const char *at_vision_label(const at_vision *v);

// pixels [b, 3, size, size] f32, normalised (nodes/look.h makes them of a picture).
at_seen at_vision_look(at_ops *o, const at_vision *v, const at_tensor *pixels);
// Text tokens [b, t, d] from an encoder's last hidden state.
at_tensor *at_style_tokens(at_ops *o, const at_vision *style, const at_tensor *seen);

#endif
