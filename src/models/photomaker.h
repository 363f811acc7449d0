// SPDX-License-Identifier: Apache-2.0
// photomaker.h - PhotoMaker: a person's picture put into one token of a prompt.
// Idea: a picture encoder with two projections gives a vector as wide as SDXL's text; a fuse
// module joins it with the state of the token that stands for the person.
// Ownership: a PhotoMaker is its loader's, immutable; results belong to op scopes.
#ifndef AT_MODELS_PHOTOMAKER_H
#define AT_MODELS_PHOTOMAKER_H

#include "models/vision.h"

typedef struct at_photomaker at_photomaker;
// AT_EFORMAT if the file has no such model; AT_EUNSUPPORTED for the second version.
at_status at_photomaker_load(at_store *s, const char *label, at_photomaker **out);
void at_photomaker_free(at_photomaker *p); // NULL is fine

// Borrowed: what at_look_pixels makes pixels for.
const at_vision *at_photomaker_eyes(const at_photomaker *p);
// text [1, t, d], whose token `place` gets who is seen in pixels [1, 3, size, size]: [1, t, d] f32.
// AT_EINVAL: another width than the model's.
at_tensor *at_photomaker_fuse(at_ops *o, const at_photomaker *p, const at_tensor *text,
                              int64_t place, const at_tensor *pixels);

#endif
