// SPDX-License-Identifier: Apache-2.0
// node_image_move.c - ImageCrop, ImageFlip, ImageRotate, ImagePadForOutpaint, ImageStitch: the same values at
// other places.
// Easy to get wrong: Python's slices end at the picture's end, so a crop that is too large is cut; 90 degrees
// turn clockwise; Stitch repeats the last picture of the shorter batch and pads evenly with less in front.
// Source: ComfyUI 0.3.64, behaviour of nodes.py and comfy_extras/nodes_images.py.
#include "nodes/nodes.h"
#include "nodes/pixels.h"

#include <math.h>
#include <string.h>

#define MODULE "comfy_extras.nodes_images"

// Result [b, h, w, c] whose place (y, x) is the source's from + y * row + x * column, counted in pixels.
static at_status moved(const char *node, const at_pixels *x, int64_t h, int64_t w, int64_t from,
                       int64_t row, int64_t column, at_value *out)
{
    at_tensor *t;
    float *p;
    at_status st = at_pixels_new(node, x->b, h, w, x->c, &t, &p);
    if (st != AT_OK) return st;
    for (int64_t b = 0; b < x->b; b++) {
        const float *src = at_picture_at(x, b);
        for (int64_t y = 0; y < h; y++)
            for (int64_t k = 0; k < w; k++, p += x->c)
                memcpy(p, src + (from + y * row + k * column) * x->c, (size_t)x->c * sizeof *p);
    }
    return at_give_image(node, t, out);
}

// --- ImageCrop ---------------------------------------------------------------------------------------
typedef struct crop_in {
    at_object *image;
    int64_t width, height, x, y;
} crop_in;
static const at_in crop_rows[] = {AT_ROW_LINK_BARE(crop_in, image, "IMAGE"),
                                  AT_ROW_INT_STEP(crop_in, width, 512, 1, AT_MAX_RESOLUTION, 1),
                                  AT_ROW_INT_STEP(crop_in, height, 512, 1, AT_MAX_RESOLUTION, 1),
                                  AT_ROW_INT_STEP(crop_in, x, 0, 0, AT_MAX_RESOLUTION, 1),
                                  AT_ROW_INT_STEP(crop_in, y, 0, 0, AT_MAX_RESOLUTION, 1)};
static at_status crop_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const crop_in *i = in;
    at_pixels p;
    at_status st = at_pixels_of("ImageCrop", i->image, &p);
    if (st != AT_OK) return st;
    if (i->x < 0 || i->y < 0 || i->width < 1 || i->height < 1)
        return at_fail(AT_EINVAL, "ImageCrop: %lld x %lld at (%lld, %lld) is no part of a picture",
                       (long long)i->width, (long long)i->height, (long long)i->x, (long long)i->y);
    int64_t x = i->x < p.w - 1 ? i->x : p.w - 1, y = i->y < p.h - 1 ? i->y : p.h - 1;
    int64_t w = i->width < p.w - x ? i->width : p.w - x;
    int64_t h = i->height < p.h - y ? i->height : p.h - y;
    return moved("ImageCrop", &p, h, w, y * p.w + x, p.w, 1, out);
}
static const at_node node_crop = AT_PIXEL_NODE("ImageCrop", "Image Crop", "image/transform", MODULE,
                                               0, crop_rows, crop_in, at_image_out, crop_run);

// --- ImageFlip, ImageRotate --------------------------------------------------------------------------
typedef struct turn_in {
    at_object *image;
    const char *flip_method, *rotation;
} turn_in;
static const char *const flips[] = {"x-axis: vertically", "y-axis: horizontally", NULL};
static const at_in flip_rows[] = {AT_ROW_LINK_BARE(turn_in, image, "IMAGE"),
                                  AT_ROW_CHOICE(turn_in, flip_method, flips)};
static at_status flip_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const turn_in *i = in;
    at_pixels p;
    at_status st = at_pixels_of("ImageFlip", i->image, &p);
    if (st != AT_OK) return st;
    if (i->flip_method[0] == 'x')
        return moved("ImageFlip", &p, p.h, p.w, (p.h - 1) * p.w, -p.w, 1, out);
    if (i->flip_method[0] == 'y') return moved("ImageFlip", &p, p.h, p.w, p.w - 1, p.w, -1, out);
    return at_give_same(i->image, out);
}
static const at_node node_flip = AT_PIXEL_NODE("ImageFlip", NULL, "image/transform", MODULE, 0,
                                               flip_rows, turn_in, at_image_out, flip_run);

static const char *const rotations[] = {"none", "90 degrees", "180 degrees", "270 degrees", NULL};
static const at_in rotate_rows[] = {AT_ROW_LINK_BARE(turn_in, image, "IMAGE"),
                                    AT_ROW_CHOICE(turn_in, rotation, rotations)};
static at_status rotate_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const turn_in *i = in;
    at_pixels p;
    at_status st = at_pixels_of("ImageRotate", i->image, &p);
    if (st != AT_OK) return st;
    switch (i->rotation[0]) {
    case '9': return moved("ImageRotate", &p, p.w, p.h, (p.h - 1) * p.w, 1, -p.w, out);
    case '1': return moved("ImageRotate", &p, p.h, p.w, p.h * p.w - 1, -p.w, -1, out);
    case '2': return moved("ImageRotate", &p, p.w, p.h, p.w - 1, -1, p.w, out);
    default: return at_give_same(i->image, out);
    }
}
static const at_node node_rotate = AT_PIXEL_NODE("ImageRotate", NULL, "image/transform", MODULE, 0,
                                                 rotate_rows, turn_in, at_image_out, rotate_run);

// --- ImagePadForOutpaint -----------------------------------------------------------------------------
typedef struct pad_in {
    at_object *image;
    int64_t left, top, right, bottom, feathering;
} pad_in;
static const at_in pad_rows[] = {AT_ROW_LINK_BARE(pad_in, image, "IMAGE"),
                                 AT_ROW_INT_STEP(pad_in, left, 0, 0, AT_MAX_RESOLUTION, 8),
                                 AT_ROW_INT_STEP(pad_in, top, 0, 0, AT_MAX_RESOLUTION, 8),
                                 AT_ROW_INT_STEP(pad_in, right, 0, 0, AT_MAX_RESOLUTION, 8),
                                 AT_ROW_INT_STEP(pad_in, bottom, 0, 0, AT_MAX_RESOLUTION, 8),
                                 AT_ROW_INT_STEP(pad_in, feathering, 40, 0, AT_MAX_RESOLUTION, 1)};

// How much of the picture's place (y, x) is to be painted again: falls off from the padded sides.
static float feather_at(const pad_in *i, const at_pixels *x, int64_t y, int64_t column)
{
    int64_t d[4] = {i->top != 0 ? y : x->h, i->bottom != 0 ? x->h - y : x->h,
                    i->left != 0 ? column : x->w, i->right != 0 ? x->w - column : x->w};
    int64_t least = d[0];
    for (int k = 1; k < 4; k++)
        if (d[k] < least) least = d[k];
    if (least >= i->feathering) return 0.0f;
    double v = (double)(i->feathering - least) / (double)i->feathering;
    return (float)(v * v);
}

static at_status pad_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const pad_in *i = in;
    at_pixels x;
    at_tensor *t = NULL, *mask = NULL;
    float *p, *m;

    AT_TRY(at_pixels_of("ImagePadForOutpaint", i->image, &x));
    for (int k = 0; k < 4; k++) {
        int64_t side = (&i->left)[k];
        if (side < 0 || side > 8 * AT_MAX_RESOLUTION)
            AT_TRY(at_fail(AT_EINVAL, "ImagePadForOutpaint: cannot pad by %lld pixels",
                           (long long)side));
    }
    int64_t h = x.h + i->top + i->bottom, w = x.w + i->left + i->right;
    bool feather = i->feathering > 0 && i->feathering < (x.h + 1) / 2 &&
                   i->feathering < (x.w + 1) / 2; // twice it is less than the side
    AT_TRY(at_pixels_new("ImagePadForOutpaint", x.b, h, w, x.c, &t, &p));
    AT_TRY(at_mask_new("ImagePadForOutpaint", 1, h, w, &mask, &m));
    for (int64_t k = 0; k < at_tensor_count(t); k++)
        p[k] = 0.5f;
    for (int64_t k = 0; k < h * w; k++)
        m[k] = 1.0f;
    for (int64_t b = 0; b < x.b; b++)
        for (int64_t y = 0; y < x.h; y++)
            memcpy(p + ((b * h + i->top + y) * w + i->left) * x.c,
                   at_picture_at(&x, b) + y * x.w * x.c, (size_t)(x.w * x.c) * sizeof *p);
    for (int64_t y = 0; y < x.h; y++)
        for (int64_t k = 0; k < x.w; k++)
            m[(i->top + y) * w + i->left + k] = feather ? feather_at(i, &x, y, k) : 0.0f;
    AT_TRY(at_give(&out[0], at_obj_image_new(at_tensor_retain(t)), "ImagePadForOutpaint"));
    AT_TRY(at_give(&out[1], at_obj_mask_new(at_tensor_retain(mask)), "ImagePadForOutpaint"));
out:
    at_tensor_release(&t);
    at_tensor_release(&mask);
    return st;
}
static const at_node node_pad =
    AT_PIXEL_NODE("ImagePadForOutpaint", "Pad Image for Outpainting", "image", "nodes", 0, pad_rows,
                  pad_in, at_image_mask_out, pad_run);

// --- ImageStitch -------------------------------------------------------------------------------------
typedef struct stitch_in {
    at_object *image1;
    const char *direction;
    bool match_image_size;
    int64_t spacing_width;
    const char *spacing_color;
    at_object *image2;
} stitch_in;
static const char *const directions[] = {"right", "down", "left", "up", NULL};
static const char *const colors[] = {"white", "black", "red", "green", "blue", NULL};
static const at_in stitch_rows[] = {
    AT_ROW_LINK_BARE(stitch_in, image1, "IMAGE"),
    AT_ROW(stitch_in, direction, AT_IN_COMBO, .choices = directions, .sdef = "right"),
    AT_ROW(stitch_in, match_image_size, AT_IN_BOOL, .def = 1),
    AT_ROW_INT_STEP(stitch_in, spacing_width, 0, 0, 1024, 2),
    AT_ROW(stitch_in, spacing_color, AT_IN_COMBO, .choices = colors, .sdef = "white"),
    AT_ROW(stitch_in, image2, AT_IN_OBJECT, .type_name = "IMAGE",
           .flags = AT_INF_OPTIONAL | AT_INF_NO_OPTIONS)};

typedef struct stitch {
    bool across; // left or right
    float pad;   // around the smaller picture: white alone is not 0
    float space[3];
    int64_t b, h, w, c; // of the result
    float *p;
} stitch;

// image2 at the size that makes the touching sides equal.
static at_status stitch_match(const at_pixels *a, at_pixels *b, bool across, at_tensor **fit)
{
    double aspect = (double)b->w / (double)b->h;
    int64_t w = across ? (int64_t)fmin((double)a->h * aspect, 1e9) : a->w;
    int64_t h = across ? a->h : (int64_t)fmin((double)a->w / aspect, 1e9);
    at_status st = at_pixels_resize("ImageStitch", b->t, w, h, AT_RESIZE_LANCZOS, false, fit);
    return st == AT_OK ? at_pixels_look("ImageStitch", *fit, b) : st;
}

// Put one picture's batch at `at` along the direction, in the middle of the other one. Missing channels
// are 1; padding has all channels of its own picture at `pad`.
static void stitch_put(const stitch *s, const at_pixels *x, int64_t at)
{
    int64_t w = s->across ? x->w : s->w, h = s->across ? s->h : x->h;
    int64_t left = (w - x->w) / 2, top = (h - x->h) / 2;
    for (int64_t b = 0; b < s->b; b++)
        for (int64_t y = 0; y < h; y++)
            for (int64_t k = 0; k < w; k++) {
                int64_t oy = s->across ? y : at + y, ox = s->across ? at + k : k;
                float *to = s->p + ((b * s->h + oy) * s->w + ox) * s->c;
                int64_t sy = y - top, sx = k - left;
                bool inside = sy >= 0 && sy < x->h && sx >= 0 && sx < x->w;
                const float *from = x->p;
                if (inside) from += (((b < x->b ? b : x->b - 1) * x->h + sy) * x->w + sx) * x->c;
                for (int64_t c = 0; c < s->c; c++)
                    to[c] = c >= x->c ? 1.0f : inside ? from[c] : s->pad;
            }
}

static void stitch_space(const stitch *s, int64_t at, int64_t width)
{
    int64_t w = s->across ? width : s->w, h = s->across ? s->h : width;
    for (int64_t b = 0; b < s->b; b++)
        for (int64_t y = 0; y < h; y++)
            for (int64_t k = 0; k < w; k++) {
                int64_t oy = s->across ? y : at + y, ox = s->across ? at + k : k;
                float *to = s->p + ((b * s->h + oy) * s->w + ox) * s->c;
                for (int64_t c = 0; c < s->c; c++)
                    to[c] = c < 3 ? s->space[c] : c == 3 && s->c == 4 ? 1.0f : 0.0f;
            }
}

static void stitch_colors(stitch *s, const char *name)
{
    bool white = strcmp(name, "white") == 0;
    s->pad = white ? 1.0f : 0.0f;
    s->space[0] = white || strcmp(name, "red") == 0;
    s->space[1] = white || strcmp(name, "green") == 0;
    s->space[2] = white || strcmp(name, "blue") == 0;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static at_status stitch_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const stitch_in *i = in;
    stitch s = {.across = i->direction[0] == 'r' || i->direction[0] == 'l'};
    bool turned = i->direction[0] == 'l' || i->direction[0] == 'u';
    at_pixels a, b;
    at_tensor *fit = NULL, *t = NULL;

    if (!i->image2) return at_give_same(i->image1, out);
    AT_TRY(at_pixels_of("ImageStitch", i->image1, &a));
    AT_TRY(at_pixels_of("ImageStitch", i->image2, &b));
    if (i->match_image_size) AT_TRY(stitch_match(&a, &b, s.across, &fit));
    if (i->spacing_width < 0 || i->spacing_width > AT_MAX_RESOLUTION)
        AT_TRY(at_fail(AT_EINVAL, "ImageStitch: spacing_width %lld is not 0 to %d",
                       (long long)i->spacing_width, AT_MAX_RESOLUTION));
    stitch_colors(&s, i->spacing_color);
    int64_t gap = i->spacing_width + i->spacing_width % 2;
    s.b = larger(a.b, b.b), s.c = larger(a.c, b.c);
    s.w = s.across ? a.w + gap + b.w : larger(a.w, b.w);
    s.h = s.across ? larger(a.h, b.h) : a.h + gap + b.h;
    AT_TRY(at_pixels_new("ImageStitch", s.b, s.h, s.w, s.c, &t, &s.p));
    const at_pixels *first = turned ? &b : &a, *second = turned ? &a : &b;
    int64_t length = s.across ? first->w : first->h;
    stitch_put(&s, first, 0);
    stitch_space(&s, length, gap);
    stitch_put(&s, second, length + gap);
    st = at_give_image("ImageStitch", t, out);
out:
    at_tensor_release(&fit);
    return st;
}
static const at_node node_stitch = {
    .class_type = "ImageStitch",
    .display = "Image Stitch",
    .category = "image/transform",
    .description = "\nStitches image2 to image1 in the specified direction.\nIf image2 is not "
                   "provided, returns image1 unchanged.\nOptional spacing can be added between "
                   "images.\n",
    .python_module = MODULE,
    .in = stitch_rows,
    .n_in = AT_COUNT(stitch_rows),
    .out = at_image_out,
    .n_out = 1,
    .in_size = sizeof(stitch_in),
    .run = stitch_run};

const at_node *const at_nodes_image_move[] = {&node_crop, &node_flip,   &node_rotate,
                                              &node_pad,  &node_stitch, NULL};
