// SPDX-License-Identifier: Apache-2.0
// node_latent_shape.c - LatentUpscale, LatentUpscaleBy, LatentCrop, LatentFlip, LatentRotate, LatentConcat,
// LatentCut: other sizes and other places of the same values.
// Idea: flip, rotate and crop say for every place of the result where its value lies; sizes in pixels are
// divided by 8 whatever the model's own factor is, as ComfyUI does.
// Source: ComfyUI 0.3.64, behaviour of nodes.py and comfy_extras/nodes_latent.py.
#include "nodes/latent.h"
#include "nodes/nodes.h"

#include <math.h>
#include <string.h>

#define PIXELS 8 // per latent place, in these nodes' widgets

// Result of size h x w whose place (y, x) is the source's `from + y * row + x * column`.
static at_status moved(const char *node, const at_obj_latent *l, int64_t h, int64_t w, int64_t from,
                       int64_t row, int64_t column, at_value *out)
{
    const at_tensor *s = l->samples;
    at_tensor *r = NULL;
    int64_t shape[4] = {s->shape[0], s->shape[1], h, w}, plane = s->shape[2] * s->shape[3];
    at_status st = at_latent_alloc(node, shape, &r);
    if (st != AT_OK) return st;
    const float *p = at_tensor_data(s);
    float *to = at_tensor_data(r);
    for (int64_t i = 0; i < shape[0] * shape[1]; i++, p += plane)
        for (int64_t y = 0; y < h; y++)
            for (int64_t x = 0; x < w; x++)
                *to++ = p[from + y * row + x * column];
    return at_latent_give(node, l, r, out);
}

// --- LatentUpscale, LatentUpscaleBy ------------------------------------------------------------------
static const char *const methods[] = {"nearest-exact", "bilinear", "area",
                                      "bicubic",       "bislerp",  NULL};
static const char *const crops[] = {"disabled", "center", NULL};

static at_status upscale(const char *node, const at_obj_latent *l, double w, double h,
                         const char *method, bool centre, at_value *out)
{
    at_resize_how how;
    at_tensor *r = NULL;
    // at_resize names its limits; what no int64 can hold is beyond them.
    int64_t width = (int64_t)fmin(fmax(w, -1), 1e15), height = (int64_t)fmin(fmax(h, -1), 1e15);
    at_status st = at_resize_how_of(method, &how);
    if (st == AT_OK) st = at_resize(l->samples, AT_ORDER_NCHW, width, height, how, centre, &r);
    return st == AT_OK ? at_latent_give(node, l, r, out) : st;
}

typedef struct upscale_in {
    at_object *samples;
    const char *upscale_method;
    int64_t width, height;
    const char *crop;
} upscale_in;
static const at_in upscale_rows[] = {
    AT_ROW_LINK_BARE(upscale_in, samples, "LATENT"),
    AT_ROW(upscale_in, upscale_method, AT_IN_COMBO, .choices = methods, .flags = AT_INF_NO_OPTIONS),
    AT_ROW_INT_STEP(upscale_in, width, 512, 0, 16384, 8),
    AT_ROW_INT_STEP(upscale_in, height, 512, 0, 16384, 8),
    AT_ROW(upscale_in, crop, AT_IN_COMBO, .choices = crops, .flags = AT_INF_NO_OPTIONS)};

// The side that is 0 follows from the other in proportion, rounded as Python rounds (halves to even).
static at_status upscale_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const upscale_in *i = in;
    const at_obj_latent *l = (const at_obj_latent *)i->samples;
    double w = (double)i->width, h = (double)i->height;
    if (w == 0 && h == 0) {
        out[0] = at_value_object(at_object_retain(i->samples));
        return AT_OK;
    }
    at_status st = at_latent_flat("LatentUpscale", l->samples);
    if (st != AT_OK) return st;
    double ow = (double)l->samples->shape[3], oh = (double)l->samples->shape[2];
    if (h != 0) h = fmax(h, 64);
    if (w != 0) w = fmax(w, 64);
    if (w == 0) w = fmax(64, rint(ow * h / oh));
    if (h == 0) h = fmax(64, rint(oh * w / ow));
    return upscale("LatentUpscale", l, floor(w / PIXELS), floor(h / PIXELS), i->upscale_method,
                   strcmp(i->crop, "center") == 0, out);
}
static const at_node node_upscale = AT_LATENT_NODE(
    "LatentUpscale", "Upscale Latent", "latent", "nodes", 0, upscale_rows, upscale_in, upscale_run);

typedef struct by_in {
    at_object *samples;
    const char *upscale_method;
    double scale_by;
} by_in;
static const at_in by_rows[] = {
    AT_ROW_LINK_BARE(by_in, samples, "LATENT"),
    AT_ROW(by_in, upscale_method, AT_IN_COMBO, .choices = methods, .flags = AT_INF_NO_OPTIONS),
    AT_ROW_FLOAT_STEP(by_in, scale_by, 1.5, 0.01, 8, 0.01)};
static at_status by_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const by_in *i = in;
    const at_obj_latent *l = (const at_obj_latent *)i->samples;
    at_status st = at_latent_flat("LatentUpscaleBy", l->samples);
    if (st != AT_OK) return st;
    return upscale("LatentUpscaleBy", l, rint((double)l->samples->shape[3] * i->scale_by),
                   rint((double)l->samples->shape[2] * i->scale_by), i->upscale_method, false, out);
}
static const at_node node_by = AT_LATENT_NODE("LatentUpscaleBy", "Upscale Latent By", "latent",
                                              "nodes", 0, by_rows, by_in, by_run);

// --- LatentCrop --------------------------------------------------------------------------------------
typedef struct crop_in {
    at_object *samples;
    int64_t width, height, x, y;
} crop_in;
static const at_in crop_rows[] = {AT_ROW_LINK_BARE(crop_in, samples, "LATENT"),
                                  AT_ROW_INT_STEP(crop_in, width, 512, 64, 16384, 8),
                                  AT_ROW_INT_STEP(crop_in, height, 512, 64, 16384, 8),
                                  AT_ROW_INT_STEP(crop_in, x, 0, 0, 16384, 8),
                                  AT_ROW_INT_STEP(crop_in, y, 0, 0, 16384, 8)};

static int64_t floor8(int64_t v)
{
    return (v - (v % PIXELS + PIXELS) % PIXELS) / PIXELS;
}

// Eight places are left at least, where there are so many.
static int64_t cut(int64_t at, int64_t extent, int64_t length, int64_t *first)
{
    int64_t start = floor8(at_int_of(at));
    if (start > length - 8) start = length - 8;
    return at_slice(start, start + floor8(at_int_of(extent)), length, first);
}

static at_status crop_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const crop_in *i = in;
    const at_obj_latent *l = (const at_obj_latent *)i->samples;
    int64_t x, y;
    at_status st = at_latent_flat("LatentCrop", l->samples);
    if (st != AT_OK) return st;
    int64_t row = l->samples->shape[3];
    int64_t w = cut(i->x, i->width, row, &x);
    int64_t h = cut(i->y, i->height, l->samples->shape[2], &y);
    return moved("LatentCrop", l, h, w, y * row + x, row, 1, out);
}
static const at_node node_crop = AT_LATENT_NODE("LatentCrop", "Crop Latent", "latent/transform",
                                                "nodes", 0, crop_rows, crop_in, crop_run);

// --- LatentFlip, LatentRotate ------------------------------------------------------------------------
typedef struct turn_in {
    at_object *samples;
    const char *how;
} turn_in;
static const char *const flips[] = {"x-axis: vertically", "y-axis: horizontally", NULL};
static const char *const rotations[] = {"none", "90 degrees", "180 degrees", "270 degrees", NULL};
#define TURN_ROWS(input, list)                                                                     \
    {                                                                                              \
        AT_ROW_LINK_BARE(turn_in, samples, "LATENT"),                                              \
        {                                                                                          \
            .name = input, .type = AT_IN_COMBO, .offset = offsetof(turn_in, how), .choices = list, \
            .flags = AT_INF_NO_OPTIONS                                                             \
        }                                                                                          \
    }
static const at_in flip_rows[] = TURN_ROWS("flip_method", flips);
static const at_in rotate_rows[] = TURN_ROWS("rotation", rotations);

static at_status flip_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const turn_in *i = in;
    const at_obj_latent *l = (const at_obj_latent *)i->samples;
    at_status st = at_latent_flat("LatentFlip", l->samples);
    if (st != AT_OK) return st;
    int64_t h = l->samples->shape[2], w = l->samples->shape[3];
    if (i->how[0] == 'x') return moved("LatentFlip", l, h, w, (h - 1) * w, -w, 1, out);
    return moved("LatentFlip", l, h, w, w - 1, w, -1, out);
}
static const at_node node_flip = AT_LATENT_NODE("LatentFlip", "Flip Latent", "latent/transform",
                                                "nodes", 0, flip_rows, turn_in, flip_run);

// Clockwise.
static at_status rotate_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const turn_in *i = in;
    const at_obj_latent *l = (const at_obj_latent *)i->samples;
    at_status st = at_latent_flat("LatentRotate", l->samples);
    if (st != AT_OK) return st;
    int64_t h = l->samples->shape[2], w = l->samples->shape[3], last = h * w - 1;
    switch (i->how[0]) {
    case '9': return moved("LatentRotate", l, w, h, (h - 1) * w, 1, -w, out);
    case '1': return moved("LatentRotate", l, h, w, last, -w, -1, out);
    case '2': return moved("LatentRotate", l, w, h, w - 1, -1, w, out);
    default: return moved("LatentRotate", l, h, w, 0, w, 1, out);
    }
}
static const at_node node_rotate =
    AT_LATENT_NODE("LatentRotate", "Rotate Latent", "latent/transform", "nodes", 0, rotate_rows,
                   turn_in, rotate_run);

// --- LatentConcat, LatentCut -------------------------------------------------------------------------
#define EXTRAS "comfy_extras.nodes_latent"

// The dimension of "x", "y", "t" (with or without a minus) in a latent of `rank`.
static int dimension(const char *name, int rank)
{
    return rank - (strchr(name, 'x') ? 1 : strchr(name, 'y') ? 2 : 3);
}

// Elements before and after dimension `dim`, as one number each.
static void around(const at_tensor *t, int dim, int64_t *before, int64_t *after)
{
    *before = *after = 1;
    for (int i = 0; i < t->rank; i++)
        if (i != dim) *(i < dim ? before : after) *= t->shape[i];
}

typedef struct concat_in {
    at_object *samples1, *samples2;
    const char *dim;
} concat_in;
static const char *const signed_dims[] = {"x", "-x", "y", "-y", "t", "-t", NULL};
static const char *const dims[] = {"x", "y", "t", NULL};
static const at_in concat_rows[] = {AT_ROW_LINK(concat_in, samples1, "LATENT"),
                                    AT_ROW_LINK(concat_in, samples2, "LATENT"),
                                    AT_ROW(concat_in, dim, AT_IN_COMBO, .choices = signed_dims)};

static at_status joined(const at_tensor *a, const at_tensor *b, int dim, at_tensor **out)
{
    int64_t shape[AT_MAX_RANK], before, after;
    if (a->rank != b->rank)
        return at_fail(AT_EINVAL, "LatentConcat: latents of %d and %d dimensions", a->rank,
                       b->rank);
    for (int i = 0; i < a->rank; i++) {
        if (i != dim && a->shape[i] != b->shape[i]) {
            char at[128], bt[128];
            return at_fail(AT_EINVAL,
                           "LatentConcat: %s and %s differ elsewhere than where they join",
                           at_shape_text(a->dtype, a->rank, a->shape, at),
                           at_shape_text(b->dtype, b->rank, b->shape, bt));
        }
        shape[i] = a->shape[i] + (i == dim ? b->shape[i] : 0);
    }
    at_status st = at_tensor_new(at_device_cpu(), AT_F32, a->rank, shape, out);
    if (st != AT_OK) return st;
    around(a, dim, &before, &after);
    size_t na = (size_t)(a->shape[dim] * after), nb = (size_t)(b->shape[dim] * after);
    const float *p = at_tensor_data(a), *q = at_tensor_data(b);
    float *to = at_tensor_data(*out);
    for (int64_t i = 0; i < before; i++, p += na, q += nb, to += na + nb) {
        memcpy(to, p, na * sizeof *to);
        memcpy(to + na, q, nb * sizeof *to);
    }
    return AT_OK;
}

static at_status concat_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const concat_in *i = in;
    const at_tensor *a = at_samples(i->samples1);
    at_tensor *b = NULL, *r = NULL;
    int dim = dimension(i->dim, a->rank);

    AT_TRY(at_latent_repeat(at_samples(i->samples2), a->shape[0], &b));
    if (i->dim[0] == '-')
        AT_TRY(joined(b, a, dim, &r));
    else
        AT_TRY(joined(a, b, dim, &r));
    st = at_latent_give("LatentConcat", (const at_obj_latent *)i->samples1, r, out);
out:
    at_tensor_release(&b);
    return st;
}
static const at_node node_concat = AT_LATENT_NODE("LatentConcat", NULL, "latent/advanced", EXTRAS,
                                                  AT_NODE_V3, concat_rows, concat_in, concat_run);

typedef struct cut_in {
    at_object *samples;
    const char *dim;
    int64_t index, amount;
} cut_in;
static const at_in cut_rows[] = {AT_ROW_LINK(cut_in, samples, "LATENT"),
                                 AT_ROW(cut_in, dim, AT_IN_COMBO, .choices = dims),
                                 AT_ROW_INT_STEP(cut_in, index, 0, -16384, 16384, 1),
                                 AT_ROW_INT_STEP(cut_in, amount, 1, 1, 16384, 1)};

// A negative index counts from the end.
static at_status cut_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const cut_in *i = in;
    const at_tensor *s = at_samples(i->samples);
    int dim = dimension(i->dim, s->rank);
    int64_t shape[AT_MAX_RANK], before, after, length = s->shape[dim], index = i->index;
    if (index >= length) index = length - 1;
    if (index < -length) index = -length;
    int64_t most = index >= 0 ? length - index : -index, n = i->amount < most ? i->amount : most;
    if (index < 0) index += length;
    if (n < 1)
        return at_fail(AT_EINVAL, "LatentCut: %lld places are nothing to keep", (long long)n);
    memcpy(shape, s->shape, sizeof shape);
    shape[dim] = n;
    at_tensor *r = NULL;
    at_status st = at_tensor_new(at_device_cpu(), AT_F32, s->rank, shape, &r);
    if (st != AT_OK) return st;
    around(s, dim, &before, &after);
    const float *p = at_tensor_data(s);
    float *to = at_tensor_data(r);
    for (int64_t k = 0; k < before; k++)
        memcpy(to + k * n * after, p + (k * length + index) * after,
               (size_t)(n * after) * sizeof *to);
    return at_latent_give("LatentCut", (const at_obj_latent *)i->samples, r, out);
}
static const at_node node_cut = AT_LATENT_NODE("LatentCut", NULL, "latent/advanced", EXTRAS,
                                               AT_NODE_V3, cut_rows, cut_in, cut_run);

const at_node *const at_nodes_latent_shape[] = {&node_upscale, &node_by,     &node_crop, &node_flip,
                                                &node_rotate,  &node_concat, &node_cut,  NULL};
