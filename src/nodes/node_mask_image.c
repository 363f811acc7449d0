// SPDX-License-Identifier: Apache-2.0
// node_mask_image.c - MaskToImage, ImageToMask, ImageColorToMask, SplitImageWithAlpha, JoinImageWithAlpha:
// from pictures to masks and back.
// Easy to get wrong: a MASK is what is transparent, an alpha channel what is not: Split and Join turn one
// into the other, ImageToMask's "alpha" does not.
// Source: ComfyUI 0.3.64, behaviour of comfy_extras/nodes_mask.py and nodes_compositing.py.
#include "nodes/nodes.h"
#include "nodes/pixels.h"

#include <math.h>
#include <string.h>

#define MODULE "comfy_extras.nodes_mask"

// --- MaskToImage -------------------------------------------------------------------------------------
typedef struct mask_in {
    at_object *mask;
} mask_in;
static const at_in mask_rows[] = {AT_ROW_LINK_BARE(mask_in, mask, "MASK")};
static at_status to_image_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_pixels x;
    at_tensor *t;
    float *p;
    at_status st = at_mask_of("MaskToImage", ((const mask_in *)in)->mask, &x);
    if (st == AT_OK) st = at_pixels_new("MaskToImage", x.b, x.h, x.w, 3, &t, &p);
    if (st != AT_OK) return st;
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        p[i] = x.p[i / 3];
    return at_give_image("MaskToImage", t, out);
}
static const at_node node_to_image =
    AT_PIXEL_NODE("MaskToImage", "Convert Mask to Image", "mask", MODULE, 0, mask_rows, mask_in,
                  at_image_out, to_image_run);

// --- ImageToMask, ImageColorToMask -------------------------------------------------------------------
typedef struct image_in {
    at_object *image;
    const char *channel;
    int64_t color;
} image_in;
static const char *const channels[] = {"red", "green", "blue", "alpha", NULL};
static const at_in channel_rows[] = {AT_ROW_LINK_BARE(image_in, image, "IMAGE"),
                                     AT_ROW_CHOICE(image_in, channel, channels)};
static at_status to_mask_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const image_in *i = in;
    at_pixels x;
    at_tensor *t;
    float *p;
    int64_t k = 0;
    at_status st = at_pixels_of("ImageToMask", i->image, &x);
    if (st != AT_OK) return st;
    while (k < 3 && strcmp(channels[k], i->channel) != 0)
        k++;
    if (k >= x.c)
        return at_fail(AT_EINVAL, "ImageToMask: the picture has %lld channels and no %s",
                       (long long)x.c, i->channel);
    st = at_mask_new("ImageToMask", x.b, x.h, x.w, &t, &p);
    if (st != AT_OK) return st;
    for (int64_t n = 0; n < at_tensor_count(t); n++)
        p[n] = x.p[n * x.c + k];
    return at_give_mask("ImageToMask", t, out);
}
static const at_node node_to_mask =
    AT_PIXEL_NODE("ImageToMask", "Convert Image to Mask", "mask", MODULE, 0, channel_rows, image_in,
                  at_mask_out, to_mask_run);

static const at_in color_rows[] = {
    AT_ROW_LINK_BARE(image_in, image, "IMAGE"),
    AT_ROW(image_in, color, AT_IN_INT, .max = 0xFFFFFF, .step = 1, .display = "color",
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP)};
static at_status color_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const image_in *i = in;
    at_pixels x;
    at_tensor *t;
    float *p;
    at_status st = at_pixels_of("ImageColorToMask", i->image, &x);
    if (st != AT_OK) return st;
    if (x.c < 3)
        return at_fail(AT_EINVAL, "ImageColorToMask: the picture has %lld channels, not 3",
                       (long long)x.c);
    st = at_mask_new("ImageColorToMask", x.b, x.h, x.w, &t, &p);
    if (st != AT_OK) return st;
    for (int64_t n = 0; n < at_tensor_count(t); n++) {
        int64_t rgb = 0;
        for (int k = 0; k < 3; k++)
            rgb = rgb << 8 | (int64_t)lrintf(fmaxf(0, fminf(1, x.p[n * x.c + k])) * 255.0f);
        p[n] = rgb == i->color ? 1.0f : 0.0f;
    }
    return at_give_mask("ImageColorToMask", t, out);
}
static const at_node node_color = AT_PIXEL_NODE("ImageColorToMask", NULL, "mask", MODULE, 0,
                                                color_rows, image_in, at_mask_out, color_run);

// --- SplitImageWithAlpha, JoinImageWithAlpha ---------------------------------------------------------
#define ALPHA_MODULE "comfy_extras.nodes_compositing"

static const at_in split_rows[] = {AT_ROW_LINK(image_in, image, "IMAGE")};
static at_status split_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    at_pixels x;
    at_tensor *t = NULL, *mask = NULL;
    float *p, *m;

    AT_TRY(at_pixels_of("SplitImageWithAlpha", ((const image_in *)in)->image, &x));
    int64_t n = x.b * x.h * x.w, colors = x.c < 3 ? x.c : 3;
    AT_TRY(at_pixels_new("SplitImageWithAlpha", x.b, x.h, x.w, colors, &t, &p));
    AT_TRY(at_mask_new("SplitImageWithAlpha", x.b, x.h, x.w, &mask, &m));
    for (int64_t i = 0; i < n; i++) {
        memcpy(p + i * colors, x.p + i * x.c, (size_t)colors * sizeof *p);
        m[i] = x.c > 3 ? 1.0f - x.p[i * x.c + 3] : 0.0f;
    }
    AT_TRY(at_give(&out[0], at_obj_image_new(at_tensor_retain(t)), "SplitImageWithAlpha"));
    AT_TRY(at_give(&out[1], at_obj_mask_new(at_tensor_retain(mask)), "SplitImageWithAlpha"));
out:
    at_tensor_release(&t);
    at_tensor_release(&mask);
    return st;
}
static const at_node node_split =
    AT_PIXEL_NODE("SplitImageWithAlpha", "Split Image with Alpha", "mask/compositing", ALPHA_MODULE,
                  AT_NODE_V3, split_rows, image_in, at_image_mask_out, split_run);

typedef struct join_in {
    at_object *image, *alpha;
} join_in;
static const at_in join_rows[] = {AT_ROW_LINK(join_in, image, "IMAGE"),
                                  AT_ROW_LINK(join_in, alpha, "MASK")};
static at_status join_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const join_in *i = in;
    at_pixels x, a;
    at_tensor *fit = NULL, *t = NULL;
    float *p;

    AT_TRY(at_pixels_of("JoinImageWithAlpha", i->image, &x));
    AT_TRY(at_mask_of("JoinImageWithAlpha", i->alpha, &a));
    AT_TRY(at_pixels_resize("JoinImageWithAlpha", a.t, x.w, x.h, AT_RESIZE_BILINEAR, false, &fit));
    int64_t b = x.b < a.b ? x.b : a.b, colors = x.c < 3 ? x.c : 3;
    AT_TRY(at_pixels_new("JoinImageWithAlpha", b, x.h, x.w, colors + 1, &t, &p));
    const float *m = at_tensor_data(fit);
    for (int64_t n = 0; n < b * x.h * x.w; n++, p += colors + 1) {
        memcpy(p, x.p + n * x.c, (size_t)colors * sizeof *p);
        p[colors] = 1.0f - m[n];
    }
    st = at_give_image("JoinImageWithAlpha", t, out);
out:
    at_tensor_release(&fit);
    return st;
}
static const at_node node_join =
    AT_PIXEL_NODE("JoinImageWithAlpha", "Join Image with Alpha", "mask/compositing", ALPHA_MODULE,
                  AT_NODE_V3, join_rows, join_in, at_image_out, join_run);

const at_node *const at_nodes_mask_image[] = {&node_to_image, &node_to_mask, &node_color,
                                              &node_split,    &node_join,    NULL};
