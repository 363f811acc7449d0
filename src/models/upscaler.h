// SPDX-License-Identifier: Apache-2.0
// upscaler.h - networks that make pictures larger: ESRGAN and its kin.
// Idea: a network maps pixels to pixels; how many times larger, and whether it wants small squares of pixels
// stacked as channels (and gives such stacks back), are facts of its file.
// Ownership: counted and immutable after loading; results belong to op scopes.
#ifndef AT_MODELS_UPSCALER_H
#define AT_MODELS_UPSCALER_H

#include "models/models.h"

typedef struct at_upscaler_facts {
    int channels; // of pictures in and out
    int scale;    // of the whole
    int stack;    // the network sees squares of stack x stack pixels as channels; 1: pixels
    int unstack;  // what it gives is such squares; 1: pixels
    bool add;     // and the input, enlarged to nearest pixels, is added to them
} at_upscaler_facts;

typedef struct at_upscaler at_upscaler;
// AT_EFORMAT if the file has no upscaler; AT_EUNSUPPORTED for kinds that are not built (named).
at_status at_upscaler_load(at_store *s, const char *label, at_upscaler **out);
at_upscaler *at_upscaler_retain(at_upscaler *u);
void at_upscaler_release(at_upscaler **u); // nulls it; NULL is fine
void at_upscaler_get_facts(const at_upscaler *u, at_upscaler_facts *out);

// Tiles of `tile` pixels a side, each `overlap` into the next, blended with ramps (ComfyUI's
// tiled_scale). `step` (may be NULL) is told after each.
typedef struct at_upscale_how {
    int tile, overlap;
    void (*step)(void *ctx, int64_t done, int64_t all);
    void *ctx;
} at_upscale_how;
// pixels f32 [b, h, w, c] on the host -> [b, h * scale, w * scale, c] on the host, in 0..1.
at_tensor *at_upscale(at_ops *o, const at_upscaler *u, const at_tensor *pixels,
                      const at_upscale_how *how);

#endif
