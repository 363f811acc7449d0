// SPDX-License-Identifier: Apache-2.0
// node_mask.c - SolidMask, InvertMask, ThresholdMask, CropMask, FeatherMask, GrowMask, MaskComposite.
// Easy to get wrong: FeatherMask counts its right and bottom sides from Python's -0, so the first step falls
// on the first column or row, and the last ones stay one short; GrowMask reads mirrored pixels beyond the
// border, which changes nothing for a 3 x 3 neighbourhood.
// Source: ComfyUI 0.3.64, behaviour of comfy_extras/nodes_mask.py; scipy.ndimage's grey morphology.
#include "nodes/nodes.h"
#include "nodes/pixels.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

#define MODULE "comfy_extras.nodes_mask"

// --- SolidMask, InvertMask, ThresholdMask ------------------------------------------------------------
typedef struct solid_in {
    double value;
    int64_t width, height;
} solid_in;
static const at_in solid_rows[] = {AT_ROW_FLOAT_STEP(solid_in, value, 1, 0, 1, 0.01),
                                   AT_ROW_INT_STEP(solid_in, width, 512, 1, AT_MAX_RESOLUTION, 1),
                                   AT_ROW_INT_STEP(solid_in, height, 512, 1, AT_MAX_RESOLUTION, 1)};
static at_status solid_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const solid_in *i = in;
    at_tensor *t;
    float *p;
    at_status st = at_mask_new("SolidMask", 1, i->height, i->width, &t, &p);
    if (st != AT_OK) return st;
    for (int64_t k = 0; k < at_tensor_count(t); k++)
        p[k] = (float)i->value;
    return at_give_mask("SolidMask", t, out);
}
static const at_node node_solid = AT_PIXEL_NODE("SolidMask", NULL, "mask", MODULE, 0, solid_rows,
                                                solid_in, at_mask_out, solid_run);

typedef struct mask_in {
    at_object *mask;
    double value;
} mask_in;
static const at_in invert_rows[] = {AT_ROW_LINK_BARE(mask_in, mask, "MASK")};
static const at_in threshold_rows[] = {AT_ROW_LINK_BARE(mask_in, mask, "MASK"),
                                       AT_ROW_FLOAT_STEP(mask_in, value, 0.5, 0, 1, 0.01)};

static at_status mapped(const char *node, const mask_in *i, bool threshold, at_value *out)
{
    at_pixels x;
    at_tensor *t;
    float *p;
    at_status st = at_mask_of(node, i->mask, &x);
    if (st == AT_OK) st = at_mask_new(node, x.b, x.h, x.w, &t, &p);
    if (st != AT_OK) return st;
    for (int64_t k = 0; k < at_tensor_count(t); k++)
        p[k] = !threshold ? 1.0f - x.p[k] : x.p[k] > (float)i->value ? 1.0f : 0.0f;
    return at_give_mask(node, t, out);
}
static at_status invert_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return mapped("InvertMask", in, false, out);
}
static at_status threshold_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return mapped("ThresholdMask", in, true, out);
}
static const at_node node_invert = AT_PIXEL_NODE("InvertMask", NULL, "mask", MODULE, 0, invert_rows,
                                                 mask_in, at_mask_out, invert_run);
static const at_node node_threshold = AT_PIXEL_NODE(
    "ThresholdMask", NULL, "mask", MODULE, 0, threshold_rows, mask_in, at_mask_out, threshold_run);

// --- CropMask ----------------------------------------------------------------------------------------
typedef struct crop_in {
    at_object *mask;
    int64_t x, y, width, height;
} crop_in;
static const at_in crop_rows[] = {AT_ROW_LINK_BARE(crop_in, mask, "MASK"),
                                  AT_ROW_INT_STEP(crop_in, x, 0, 0, AT_MAX_RESOLUTION, 1),
                                  AT_ROW_INT_STEP(crop_in, y, 0, 0, AT_MAX_RESOLUTION, 1),
                                  AT_ROW_INT_STEP(crop_in, width, 512, 1, AT_MAX_RESOLUTION, 1),
                                  AT_ROW_INT_STEP(crop_in, height, 512, 1, AT_MAX_RESOLUTION, 1)};
static at_status crop_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const crop_in *i = in;
    at_pixels x;
    at_tensor *t;
    float *p;
    at_status st = at_mask_of("CropMask", i->mask, &x);
    if (st != AT_OK) return st;
    if (i->x < 0 || i->y < 0 || i->x >= x.w || i->y >= x.h || i->width < 1 || i->height < 1)
        return at_fail(AT_EINVAL,
                       "CropMask: %lld x %lld at (%lld, %lld) is no part of a mask of %lld x %lld",
                       (long long)i->width, (long long)i->height, (long long)i->x, (long long)i->y,
                       (long long)x.w, (long long)x.h);
    int64_t w = i->width < x.w - i->x ? i->width : x.w - i->x;
    int64_t h = i->height < x.h - i->y ? i->height : x.h - i->y;
    st = at_mask_new("CropMask", x.b, h, w, &t, &p);
    if (st != AT_OK) return st;
    for (int64_t b = 0; b < x.b; b++)
        for (int64_t y = 0; y < h; y++)
            memcpy(p + (b * h + y) * w, x.p + (b * x.h + i->y + y) * x.w + i->x,
                   (size_t)w * sizeof *p);
    return at_give_mask("CropMask", t, out);
}
static const at_node node_crop =
    AT_PIXEL_NODE("CropMask", NULL, "mask", MODULE, 0, crop_rows, crop_in, at_mask_out, crop_run);

// --- FeatherMask -------------------------------------------------------------------------------------
typedef struct feather_in {
    at_object *mask;
    int64_t left, top, right, bottom;
} feather_in;
static const at_in feather_rows[] = {
    AT_ROW_LINK_BARE(feather_in, mask, "MASK"),
    AT_ROW_INT_STEP(feather_in, left, 0, 0, AT_MAX_RESOLUTION, 1),
    AT_ROW_INT_STEP(feather_in, top, 0, 0, AT_MAX_RESOLUTION, 1),
    AT_ROW_INT_STEP(feather_in, right, 0, 0, AT_MAX_RESOLUTION, 1),
    AT_ROW_INT_STEP(feather_in, bottom, 0, 0, AT_MAX_RESOLUTION, 1)};

// One side of `steps` lines: line i of `lines` (from the end: -i, so that 0 is the first line) times its
// share. A line has `count` values, `step` apart; lines are `next` apart.
static void feather_side(float *p, int64_t lines, int64_t next, int64_t count, int64_t step,
                         int64_t steps, bool from_end)
{
    if (steps > lines) steps = lines;
    for (int64_t i = 0; i < steps; i++) {
        float rate = (float)((double)(i + 1) / (double)steps);
        float *line = p + (from_end && i > 0 ? lines - i : i) * next;
        for (int64_t k = 0; k < count; k++)
            line[k * step] *= rate;
    }
}

static at_status feather_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const feather_in *i = in;
    at_pixels x;
    at_tensor *t;
    float *p;
    at_status st = at_mask_of("FeatherMask", i->mask, &x);
    if (st == AT_OK) st = at_mask_new("FeatherMask", x.b, x.h, x.w, &t, &p);
    if (st != AT_OK) return st;
    memcpy(p, x.p, at_tensor_bytes(t));
    for (int64_t b = 0; b < x.b; b++, p += x.h * x.w) {
        feather_side(p, x.w, 1, x.h, x.w, i->left, false);
        feather_side(p, x.w, 1, x.h, x.w, i->right, true);
        feather_side(p, x.h, x.w, x.w, 1, i->top, false);
        feather_side(p, x.h, x.w, x.w, 1, i->bottom, true);
    }
    return at_give_mask("FeatherMask", t, out);
}
static const at_node node_feather = AT_PIXEL_NODE(
    "FeatherMask", NULL, "mask", MODULE, 0, feather_rows, feather_in, at_mask_out, feather_run);

// --- GrowMask ----------------------------------------------------------------------------------------
typedef struct grow_in {
    at_object *mask;
    int64_t expand;
    bool tapered_corners;
} grow_in;
static const at_in grow_rows[] = {
    AT_ROW_LINK_BARE(grow_in, mask, "MASK"),
    AT_ROW_INT_STEP(grow_in, expand, 0, -AT_MAX_RESOLUTION, AT_MAX_RESOLUTION, 1),
    AT_ROW(grow_in, tapered_corners, AT_IN_BOOL, .def = 1)};

// The greatest (sign 1) or least (-1) of a place and its neighbours, the diagonal ones if `corners`.
// Places outside are left out: mirrored ones repeat what is inside.
static float extreme(const float *p, int64_t h, int64_t w, int64_t y, int64_t x, bool corners,
                     float sign)
{
    float best = sign * p[y * w + x];
    for (int64_t dy = -1; dy <= 1; dy++)
        for (int64_t dx = -1; dx <= 1; dx++) {
            if ((dy && dx && !corners) || y + dy < 0 || y + dy >= h || x + dx < 0 || x + dx >= w)
                continue;
            float v = sign * p[(y + dy) * w + x + dx];
            if (v > best) best = v;
        }
    return sign * best;
}

static at_status grow_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const grow_in *i = in;
    at_pixels x;
    at_tensor *t = NULL, *other = NULL;
    float *p, *q;
    int64_t steps = i->expand < 0 ? -(i->expand + 1) + 1 : i->expand;

    AT_TRY(at_mask_of("GrowMask", i->mask, &x));
    // More steps than the mask has rows and columns change nothing any more.
    if (steps > x.h + x.w) steps = x.h + x.w;
    AT_TRY(at_mask_new("GrowMask", x.b, x.h, x.w, &t, &p));
    AT_TRY(at_mask_new("GrowMask", 1, x.h, x.w, &other, &q));
    memcpy(p, x.p, at_tensor_bytes(t));
    for (int64_t b = 0; b < x.b; b++, p += x.h * x.w)
        for (int64_t s = 0; s < steps; s++) {
            for (int64_t y = 0; y < x.h; y++)
                for (int64_t k = 0; k < x.w; k++)
                    q[y * x.w + k] = extreme(p, x.h, x.w, y, k, !i->tapered_corners,
                                             i->expand < 0 ? -1.0f : 1.0f);
            memcpy(p, q, at_tensor_bytes(other));
        }
    AT_TRY(at_give(&out[0], at_obj_mask_new(at_tensor_retain(t)), "GrowMask"));
out:
    at_tensor_release(&t);
    at_tensor_release(&other);
    return st;
}
static const at_node node_grow =
    AT_PIXEL_NODE("GrowMask", NULL, "mask", MODULE, 0, grow_rows, grow_in, at_mask_out, grow_run);

// --- MaskComposite -----------------------------------------------------------------------------------
typedef struct composite_in {
    at_object *destination, *source;
    int64_t x, y;
    const char *operation;
} composite_in;
static const char *const operations[] = {"multiply", "add", "subtract", "and", "or", "xor", NULL};
static const at_in composite_rows[] = {AT_ROW_LINK_BARE(composite_in, destination, "MASK"),
                                       AT_ROW_LINK_BARE(composite_in, source, "MASK"),
                                       AT_ROW_INT_STEP(composite_in, x, 0, 0, AT_MAX_RESOLUTION, 1),
                                       AT_ROW_INT_STEP(composite_in, y, 0, 0, AT_MAX_RESOLUTION, 1),
                                       AT_ROW_CHOICE(composite_in, operation, operations)};

static float combine(const char *operation, float a, float b)
{
    bool p = rintf(a) != 0.0f, q = rintf(b) != 0.0f;
    switch (operation[0]) {
    case 'm': return a * b;
    case 's': return a - b;
    case 'o': return p || q;
    case 'x': return p != q;
    default: return operation[1] == 'd' ? a + b : p && q; // add, and
    }
}

static at_status composite_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const composite_in *i = in;
    at_pixels d, s;
    at_tensor *t;
    float *p;

    AT_TRY(at_mask_of("MaskComposite", i->destination, &d));
    AT_TRY(at_mask_of("MaskComposite", i->source, &s));
    if (i->x < 0 || i->y < 0)
        AT_TRY(at_fail(AT_EINVAL, "MaskComposite: x %lld and y %lld must not be negative",
                       (long long)i->x, (long long)i->y));
    if (s.b != d.b && s.b != 1)
        AT_TRY(at_fail(AT_EINVAL, "MaskComposite: %lld source masks for %lld of the destination",
                       (long long)s.b, (long long)d.b));
    AT_TRY(at_mask_new("MaskComposite", d.b, d.h, d.w, &t, &p));
    for (int64_t b = 0; b < d.b; b++)
        for (int64_t y = 0; y < d.h; y++)
            for (int64_t x = 0; x < d.w; x++, p++) {
                int64_t sy = y - i->y, sx = x - i->x;
                float v = d.p[(b * d.h + y) * d.w + x];
                if (sy >= 0 && sy < s.h && sx >= 0 && sx < s.w)
                    v = combine(i->operation, v, at_picture_at(&s, b)[sy * s.w + sx]);
                *p = at_clamp01(v);
            }
    st = at_give_mask("MaskComposite", t, out);
out:
    return st;
}
static const at_node node_composite =
    AT_PIXEL_NODE("MaskComposite", NULL, "mask", MODULE, 0, composite_rows, composite_in,
                  at_mask_out, composite_run);

const at_node *const at_nodes_mask[] = {&node_solid,   &node_invert, &node_threshold, &node_crop,
                                        &node_feather, &node_grow,   &node_composite, NULL};
