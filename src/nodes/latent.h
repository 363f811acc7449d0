// SPDX-License-Identifier: Apache-2.0
// latent.h - what the latent nodes share: rows, making, fitting and cutting of [b, c, h, w] on the host.
// Idea: a LATENT is immutable; each node makes new samples and gives them with the mask and the batch
// indices of the latent that they came from.
// Easy to get wrong: Python's slices forgive everything (negative starts, ends beyond the end); nodes that
// cut go through at_slice so that they forgive the same.
// Owns: results are the caller's.
#ifndef AT_NODES_LATENT_H
#define AT_NODES_LATENT_H

#include "image/resize.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

// The samples of a LATENT that came along a link.
static inline const at_tensor *at_samples(const at_object *latent)
{
    return ((const at_obj_latent *)latent)->samples;
}

// A node table of this shape: inputs `rows` of struct `st`, one LATENT out.
#define AT_LATENT_NODE(cls, title, where, module, flag, rows, st, fn)                              \
    {                                                                                              \
        .class_type = cls, .display = title, .category = where, .python_module = module,           \
        .flags = flag, .in = rows, .n_in = AT_COUNT(rows), .out = at_latent_out, .n_out = 1,       \
        .in_size = sizeof(st), .run = fn,                                                          \
    }
extern const at_out at_latent_out[1];

// [start : stop] of `length` elements, as Python cuts: *first in 0..length, the count returned.
int64_t at_slice(int64_t start, int64_t stop, int64_t length, int64_t *first);

// New contiguous f32 on the host, values unset. AT_EINVAL if nothing would be left of it.
at_status at_latent_alloc(const char *node, const int64_t shape[4], at_tensor **out);
// AT_EINVAL unless t is a picture's latent of rank 4.
at_status at_latent_flat(const char *node, const at_tensor *t);

// Result `samples` (taken) with what else `like` carries; their batches must agree.
at_status at_latent_give(const char *node, const at_obj_latent *like, at_tensor *samples,
                         at_value *out);

// The same of parts: takes samples and index (batch indices or NULL), shares mask (or NULL).
at_status at_latent_parts(const char *node, at_tensor *samples, const at_tensor *mask,
                          int64_t *index, at_value *out);
// n zeroed batch indices (at_free).
at_status at_latent_index(const char *node, int64_t n, int64_t **out);
// The draw of noise that item i gets; without indices items take them in order from `first`.
int64_t at_latent_draw(const at_obj_latent *l, int64_t i, int64_t first);

// Along the batch: cut, or repeated from the start, to n.
at_status at_latent_repeat(const at_tensor *t, int64_t n, at_tensor **out);
// t at the width and height of `like` (bilinear, cut around the middle) if anything but the batch
// differs, and repeated to its batch if asked: what the nodes of two latents do with the second.
at_status at_latent_fit(const char *node, const at_tensor *like, const at_tensor *t, bool repeat,
                        at_tensor **out);

// value = f(a, b) over two latents of one size; one channel or one item meets all of the other's.
at_status at_latent_zip(const char *node, const at_tensor *a, const at_tensor *b,
                        float (*f)(const void *ctx, float a, float b), const void *ctx,
                        at_tensor **out);

#endif
