// SPDX-License-Identifier: Apache-2.0
// node_image_scale.c - ImageScale, ImageScaleBy, ImageScaleToTotalPixels, ImageScaleToMaxDimension,
// ResizeAndPadImage, FluxKontextImageScale: which size a picture gets.
// Idea: every node works out a width and a height and leaves the pixels to at_resize.
// Easy to get wrong: Python's round() goes to the even neighbour at halves, int() cuts; both as doubles.
// Source: ComfyUI 0.3.64, behaviour of nodes.py, nodes_images.py, nodes_post_processing.py, nodes_flux.py.
#include "nodes/nodes.h"
#include "nodes/pixels.h"

#include <math.h>
#include <string.h>

static const char *const methods[] = {"nearest-exact", "bilinear", "area",
                                      "bicubic",       "lanczos",  NULL};
static const char *const crops[] = {"disabled", "center", NULL};

// A side as a double, where no int64 may hold it: at_resize names its limits.
static int64_t side_of(double v)
{
    return v > 1e15 ? (int64_t)1e15 : v > -1 ? (int64_t)v : -1;
}

static at_status scaled(const char *node, const at_pixels *x, double width, double height,
                        const char *method, bool centre, at_value *out)
{
    at_resize_how how;
    at_tensor *t = NULL;
    at_status st = at_resize_how_of(method, &how);
    if (st == AT_OK)
        st = at_pixels_resize(node, x->t, side_of(width), side_of(height), how, centre, &t);
    return st == AT_OK ? at_give_image(node, t, out) : st;
}

// --- ImageScale --------------------------------------------------------------------------------------
typedef struct scale_in {
    at_object *image;
    const char *upscale_method;
    int64_t width, height;
    const char *crop;
} scale_in;
static const at_in scale_rows[] = {AT_ROW_LINK_BARE(scale_in, image, "IMAGE"),
                                   AT_ROW_CHOICE(scale_in, upscale_method, methods),
                                   AT_ROW_INT_STEP(scale_in, width, 512, 0, AT_MAX_RESOLUTION, 1),
                                   AT_ROW_INT_STEP(scale_in, height, 512, 0, AT_MAX_RESOLUTION, 1),
                                   AT_ROW_CHOICE(scale_in, crop, crops)};
static at_status scale_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const scale_in *i = in;
    at_pixels x;
    double w = (double)i->width, h = (double)i->height;
    if (w == 0 && h == 0) return at_give_same(i->image, out);
    at_status st = at_pixels_of("ImageScale", i->image, &x);
    if (st != AT_OK) return st;
    if (w == 0)
        w = fmax(1, rint((double)x.w * h / (double)x.h));
    else if (h == 0)
        h = fmax(1, rint((double)x.h * w / (double)x.w));
    return scaled("ImageScale", &x, w, h, i->upscale_method, strcmp(i->crop, "center") == 0, out);
}
static const at_node node_scale =
    AT_PIXEL_NODE("ImageScale", "Upscale Image", "image/upscaling", "nodes", 0, scale_rows,
                  scale_in, at_image_out, scale_run);

// --- ImageScaleBy, ImageScaleToTotalPixels, ImageScaleToMaxDimension ---------------------------------
typedef struct by_in {
    at_object *image;
    const char *upscale_method;
    double scale_by, megapixels;
    int64_t largest_size;
} by_in;
static const at_in by_rows[] = {AT_ROW_LINK_BARE(by_in, image, "IMAGE"),
                                AT_ROW_CHOICE(by_in, upscale_method, methods),
                                AT_ROW_FLOAT_STEP(by_in, scale_by, 1, 0.01, 8, 0.01)};
static at_status by_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const by_in *i = in;
    at_pixels x;
    at_status st = at_pixels_of("ImageScaleBy", i->image, &x);
    if (st != AT_OK) return st;
    return scaled("ImageScaleBy", &x, rint((double)x.w * i->scale_by),
                  rint((double)x.h * i->scale_by), i->upscale_method, false, out);
}
static const at_node node_by = AT_PIXEL_NODE("ImageScaleBy", "Upscale Image By", "image/upscaling",
                                             "nodes", 0, by_rows, by_in, at_image_out, by_run);

static const at_in total_rows[] = {AT_ROW_LINK(by_in, image, "IMAGE"),
                                   AT_ROW(by_in, upscale_method, AT_IN_COMBO, .choices = methods),
                                   AT_ROW_FLOAT_STEP(by_in, megapixels, 1, 0.01, 16, 0.01)};
static at_status total_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const by_in *i = in;
    at_pixels x;
    at_status st = at_pixels_of("ImageScaleToTotalPixels", i->image, &x);
    if (st != AT_OK) return st;
    double total = trunc(i->megapixels * 1024 * 1024);
    double by = sqrt(total / ((double)x.w * (double)x.h)); // NaN below 0: no size
    return scaled("ImageScaleToTotalPixels", &x, rint((double)x.w * by), rint((double)x.h * by),
                  i->upscale_method, false, out);
}
static const at_node node_total = AT_PIXEL_NODE("ImageScaleToTotalPixels", NULL, "image/upscaling",
                                                "comfy_extras.nodes_post_processing", AT_NODE_V3,
                                                total_rows, by_in, at_image_out, total_run);

static const char *const max_methods[] = {"area",     "lanczos", "bilinear", "nearest-exact",
                                          "bilinear", "bicubic", NULL};
static const at_in max_rows[] = {
    AT_ROW_LINK_BARE(by_in, image, "IMAGE"), AT_ROW_CHOICE(by_in, upscale_method, max_methods),
    AT_ROW_INT_STEP(by_in, largest_size, 512, 0, AT_MAX_RESOLUTION, 1)};
static at_status max_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const by_in *i = in;
    at_pixels x;
    at_status st = at_pixels_of("ImageScaleToMaxDimension", i->image, &x);
    if (st != AT_OK) return st;
    double size = (double)i->largest_size, w = size, h = size;
    if (x.h > x.w) w = rint((double)x.w / (double)x.h * size);
    if (x.w > x.h) h = rint((double)x.h / (double)x.w * size);
    return scaled("ImageScaleToMaxDimension", &x, w, h, i->upscale_method, false, out);
}
static const at_node node_max =
    AT_PIXEL_NODE("ImageScaleToMaxDimension", NULL, "image/upscaling", "comfy_extras.nodes_images",
                  0, max_rows, by_in, at_image_out, max_run);

// --- ResizeAndPadImage -------------------------------------------------------------------------------
typedef struct pad_in {
    at_object *image;
    int64_t target_width, target_height;
    const char *padding_color, *interpolation;
} pad_in;
static const char *const paddings[] = {"white", "black", NULL};
static const char *const interpolations[] = {"area",     "bicubic", "nearest-exact",
                                             "bilinear", "lanczos", NULL};
static const at_in pad_rows[] = {
    AT_ROW_LINK_BARE(pad_in, image, "IMAGE"),
    AT_ROW_INT_STEP(pad_in, target_width, 512, 1, AT_MAX_RESOLUTION, 1),
    AT_ROW_INT_STEP(pad_in, target_height, 512, 1, AT_MAX_RESOLUTION, 1),
    AT_ROW_CHOICE(pad_in, padding_color, paddings),
    AT_ROW_CHOICE(pad_in, interpolation, interpolations)};
static at_status pad_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const pad_in *i = in;
    at_pixels x;
    at_resize_how how;
    at_tensor *fit = NULL, *t = NULL;
    float *p;
    int64_t W = i->target_width, H = i->target_height;

    AT_TRY(at_pixels_of("ResizeAndPadImage", i->image, &x));
    AT_TRY(at_resize_how_of(i->interpolation, &how));
    double by = fmin((double)W / (double)x.w, (double)H / (double)x.h);
    AT_TRY(at_pixels_resize("ResizeAndPadImage", x.t, side_of((double)x.w * by),
                            side_of((double)x.h * by), how, false, &fit));
    AT_TRY(at_pixels_look("ResizeAndPadImage", fit, &x));
    AT_TRY(at_pixels_new("ResizeAndPadImage", x.b, H, W, x.c, &t, &p));
    float pad = strcmp(i->padding_color, "black") == 0 ? 0.0f : 1.0f;
    for (int64_t k = 0; k < at_tensor_count(t); k++)
        p[k] = pad;
    int64_t top = (H - x.h) / 2, left = (W - x.w) / 2;
    for (int64_t b = 0; b < x.b; b++)
        for (int64_t y = 0; y < x.h; y++)
            memcpy(p + ((b * H + top + y) * W + left) * x.c, at_picture_at(&x, b) + y * x.w * x.c,
                   (size_t)(x.w * x.c) * sizeof *p);
    st = at_give_image("ResizeAndPadImage", t, out);
out:
    at_tensor_release(&fit);
    return st;
}
static const at_node node_pad =
    AT_PIXEL_NODE("ResizeAndPadImage", NULL, "image/transform", "comfy_extras.nodes_images", 0,
                  pad_rows, pad_in, at_image_out, pad_run);

// --- FluxKontextImageScale ---------------------------------------------------------------------------
// The sizes that Flux Kontext was trained on (width, height).
static const int kontext[][2] = {{672, 1568}, {688, 1504}, {720, 1456}, {752, 1392},  {800, 1328},
                                 {832, 1248}, {880, 1184}, {944, 1104}, {1024, 1024}, {1104, 944},
                                 {1184, 880}, {1248, 832}, {1328, 800}, {1392, 752},  {1456, 720},
                                 {1504, 688}, {1568, 672}};
typedef struct kontext_in {
    at_object *image;
} kontext_in;
static const at_in kontext_rows[] = {AT_ROW_LINK(kontext_in, image, "IMAGE")};
static at_status kontext_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_pixels x;
    at_status st = at_pixels_of("FluxKontextImageScale", ((const kontext_in *)in)->image, &x);
    if (st != AT_OK) return st;
    double aspect = (double)x.w / (double)x.h, best = INFINITY;
    size_t at = 0;
    for (size_t i = 0; i < AT_COUNT(kontext); i++) { // the first of equals has the smaller width
        double d = fabs(aspect - (double)kontext[i][0] / (double)kontext[i][1]);
        if (d >= best) continue;
        best = d;
        at = i;
    }
    return scaled("FluxKontextImageScale", &x, kontext[at][0], kontext[at][1], "lanczos", true,
                  out);
}
static const at_node node_kontext = {
    .class_type = "FluxKontextImageScale",
    .category = "advanced/conditioning/flux",
    .description = "This node resizes the image to one that is more optimal for flux kontext.",
    .python_module = "comfy_extras.nodes_flux",
    .flags = AT_NODE_V3,
    .in = kontext_rows,
    .n_in = AT_COUNT(kontext_rows),
    .out = at_image_out,
    .n_out = 1,
    .in_size = sizeof(kontext_in),
    .run = kontext_run};

const at_node *const at_nodes_image_scale[] = {&node_scale, &node_by,      &node_total, &node_max,
                                               &node_pad,   &node_kontext, NULL};
