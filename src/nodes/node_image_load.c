// SPDX-License-Identifier: Apache-2.0
// node_image_load.c - LoadImage, LoadImageMask, LoadImageOutput: files from the input, output and temporary
// folders.
// Easy to get wrong: every frame of an animated WebP becomes a picture of the batch; a MASK is what is
// transparent, and LoadImageMask's colours are taken as they are. An animated PNG gives its first picture.
// Source: ComfyUI 0.3.64, behaviour of nodes.py.
#include "nodes/annotated.h"
#include "nodes/nodes.h"
#include "nodes/pixels.h"

#include <string.h>

#include "base/mem.h"
#include "image/image.h"

typedef struct load_in {
    const char *image, *channel;
} load_in;

static at_status load_validate(at_node_ctx *c, const void *in)
{
    return at_annotated_check(at_env_of(c), ((const load_in *)in)->image, "image");
}

static at_status load_fingerprint(at_node_ctx *c, const void *in, char **out)
{
    return at_annotated_hash(at_env_of(c), ((const load_in *)in)->image, out);
}

static at_status load_picture(at_node_ctx *c, const load_in *in, at_picture *p)
{
    char *path = NULL;
    at_status st = at_annotated_path(at_env_of(c), in->image, &path);
    if (st == AT_OK) st = at_picture_load(path, p);
    at_free(path);
    return st;
}

// --- LoadImage, LoadImageOutput ----------------------------------------------------------------------
static const at_in load_rows[] = {
    AT_ROW(load_in, image, AT_IN_COMBO, .list = "input", .flags = AT_INF_IMAGE_UPLOAD)};
static const at_in output_rows[] = {
    AT_ROW(load_in, image, AT_IN_COMBO, .flags = AT_INF_IMAGE_UPLOAD | AT_INF_COMBO_OPTIONS,
           .extra = "{\"image_folder\": \"output\", \"remote\": {\"route\": "
                    "\"/internal/files/output\", \"refresh_button\": true, "
                    "\"control_after_refresh\": \"first\"}}")};

// A picture without alpha gives ComfyUI's 64 x 64 zeros.
static at_status picture_mask(const at_picture *p, at_tensor **out)
{
    float *m;
    at_status st = at_mask_new("LoadImage", p->frames, p->alpha ? p->height : 64,
                               p->alpha ? p->width : 64, out, &m);
    for (int64_t i = 0; st == AT_OK && i < at_tensor_count(*out); i++)
        m[i] = p->alpha ? 1.0f - p->alpha[i] : 0.0f;
    return st;
}

static at_status load_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    at_picture p = {0};
    at_tensor *pixels = NULL, *mask = NULL;
    float *x;

    AT_TRY(load_picture(c, in, &p));
    AT_TRY(at_pixels_new("LoadImage", p.frames, p.height, p.width, 3, &pixels, &x));
    memcpy(x, p.rgb, at_tensor_bytes(pixels));
    AT_TRY(picture_mask(&p, &mask));
    AT_TRY(at_give_image("LoadImage", at_tensor_retain(pixels), &out[0]));
    AT_TRY(at_give_mask("LoadImage", at_tensor_retain(mask), &out[1]));
out:
    at_tensor_release(&pixels);
    at_tensor_release(&mask);
    at_picture_free(&p);
    return st;
}
#define LOAD_NODE(cls, title, where, about, flag, rows, outs, fn)                                  \
    {                                                                                              \
        .class_type = cls, .display = title, .category = where, .description = about,              \
        .python_module = "nodes", .flags = flag, .in = rows, .n_in = AT_COUNT(rows), .out = outs,  \
        .n_out = AT_COUNT(outs), .in_size = sizeof(load_in), .run = fn, .validate = load_validate, \
        .fingerprint = load_fingerprint, .validates = "image",                                     \
    }
static const at_node node_load =
    LOAD_NODE("LoadImage", "Load Image", "image", NULL, 0, load_rows, at_image_mask_out, load_run);
static const at_node node_output =
    LOAD_NODE("LoadImageOutput", "Load Image (from Outputs)", "image",
              "Load an image from the output folder. When the refresh button is clicked, the node "
              "will update the image list and automatically select the first image, allowing for "
              "easy iteration.",
              AT_NODE_EXPERIMENTAL, output_rows, at_image_mask_out, load_run);

// --- LoadImageMask -----------------------------------------------------------------------------------
static const char *const channels[] = {"alpha", "red", "green", "blue", NULL};
static const at_in mask_rows[] = {
    AT_ROW(load_in, image, AT_IN_COMBO, .list = "input", .flags = AT_INF_IMAGE_UPLOAD),
    AT_ROW_CHOICE(load_in, channel, channels)};

static at_status mask_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const load_in *i = in;
    at_picture p = {0};
    at_tensor *t = NULL;
    float *m;
    int color = i->channel[0] == 'r' ? 0 : i->channel[0] == 'g' ? 1 : i->channel[0] == 'b' ? 2 : -1;

    AT_TRY(load_picture(c, i, &p)); // of an animation the first frame
    AT_TRY(at_mask_new("LoadImageMask", 1, p.height, p.width, &t, &m));
    for (int64_t n = 0; n < p.height * p.width; n++)
        m[n] = color >= 0 ? p.rgb[3 * n + color] : p.alpha ? 1.0f - p.alpha[n] : 0.0f;
    st = at_give_mask("LoadImageMask", t, out);
out:
    at_picture_free(&p);
    return st;
}
static const at_node node_mask = LOAD_NODE("LoadImageMask", "Load Image (as Mask)", "mask", NULL, 0,
                                           mask_rows, at_mask_out, mask_run);

const at_node *const at_nodes_image_load[] = {&node_load, &node_output, &node_mask, NULL};
