// SPDX-License-Identifier: Apache-2.0
// gligen.h - GLIGEN: texts in boxes, through attention layers put between a UNet's own.
// Idea: a box and its text become an object token; a gated layer per transformer lets the picture's
// tokens look at the objects. The patch is a hook of patch.h (`between`).
// Ownership: a net is counted and immutable; a patch keeps it and the texts.
#ifndef AT_MODELS_GLIGEN_H
#define AT_MODELS_GLIGEN_H

#include "models/models.h"

enum { AT_GLIGEN_OBJECTS = 30 };
typedef struct at_gligen at_gligen;
at_status at_gligen_load(at_store *s, const char *label, at_gligen **out);
at_gligen *at_gligen_retain(at_gligen *g);
void at_gligen_release(at_gligen **g); // nulls it; NULL is fine

// A text [1, d] in a rectangle of latent cells.
typedef struct at_gligen_box {
    const at_tensor *text;
    int64_t h, w, y, x;
} at_gligen_box;
// `set` with the hook behind it, for latents of height x width cells. AT_EINVAL: more than 30
// boxes, a text of another width.
at_status at_gligen_patch(at_gligen *g, const at_gligen_box *boxes, size_t n, int64_t height,
                          int64_t width, const at_patches *set, at_patches **out);

#endif
