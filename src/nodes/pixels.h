// SPDX-License-Identifier: Apache-2.0
// pixels.h - what the picture and mask nodes share: looking at an IMAGE or MASK, making and giving one.
// Idea: every such node reads a flat f32 array and writes another; these helpers check what came along a
// link once, so that the loops need not.
// Easy to get wrong: pictures are immutable; a node that changes one writes a new one.
// Owns: results are the caller's, borrowed looks live as long as the object.
#ifndef AT_NODES_PIXELS_H
#define AT_NODES_PIXELS_H

#include "image/resize.h"
#include "nodes/env.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

#define AT_MAX_RESOLUTION 16384

// A borrowed look: contiguous f32 [b, h, w, c]; a mask has c = 1.
typedef struct at_pixels {
    const at_tensor *t;
    const float *p;
    int64_t b, h, w, c;
} at_pixels;

// AT_EINVAL "NODE: ..." unless it is a picture [b, h, w, c] or a mask [b, h, w] that is not empty.
at_status at_pixels_of(const char *node, const at_object *image, at_pixels *out);
at_status at_mask_of(const char *node, const at_object *mask, at_pixels *out);
at_status at_pixels_look(const char *node, const at_tensor *t, at_pixels *out); // rank 3 or 4

// New, values unset: *p is its data. AT_EINVAL if a side is below 1, AT_ENOMEM.
at_status at_pixels_new(const char *node, int64_t b, int64_t h, int64_t w, int64_t c,
                        at_tensor **out, float **p);
at_status at_mask_new(const char *node, int64_t b, int64_t h, int64_t w, at_tensor **out,
                      float **p);

// Into an output slot: take the tensor (also when that fails).
at_status at_give_image(const char *node, at_tensor *pixels, at_value *out);
at_status at_give_mask(const char *node, at_tensor *mask, at_value *out);
// The input itself, unchanged.
at_status at_give_same(at_object *o, at_value *out);

// at_resize with the node's name before its message.
at_status at_pixels_resize(const char *node, const at_tensor *in, int64_t width, int64_t height,
                           at_resize_how how, bool centre, at_tensor **out);

// Picture i of a batch that is repeated from its start.
static inline const float *at_picture_at(const at_pixels *x, int64_t i)
{
    return x->p + i % x->b * x->h * x->w * x->c;
}
// A torch clamp: NaN stays.
static inline float at_clamp01(float v)
{
    return v < 0.0f ? 0.0f : v > 1.0f ? 1.0f : v;
}

extern const at_out at_image_out[1], at_mask_out[1], at_image_mask_out[2];
// A node table of inputs `rows` of struct `st` and outputs `outs`.
#define AT_PIXEL_NODE(cls, title, where, module, flag, rows, st, outs, fn)                         \
    {                                                                                              \
        .class_type = cls, .display = title, .category = where, .python_module = module,           \
        .flags = flag, .in = rows, .n_in = AT_COUNT(rows), .out = outs, .n_out = AT_COUNT(outs),   \
        .in_size = sizeof(st), .run = fn,                                                          \
    }

#define AT_ROW_CHOICE(st, field, list)                                                             \
    AT_ROW(st, field, AT_IN_COMBO, .choices = list, .flags = AT_INF_NO_OPTIONS)

#endif
