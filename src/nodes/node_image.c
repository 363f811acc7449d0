// SPDX-License-Identifier: Apache-2.0
// node_image.c - SaveImage, PreviewImage, MaskPreview: pictures as PNG files with the workflow inside.
// Source: comfyui-contract section 3.7 for names, counters and metadata.
#include "nodes/nodes.h"
#include "nodes/pixels.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "nodes/saving.h"

typedef struct save_in {
    at_object *images, *mask;
    const char *filename_prefix;
    const char *prompt, *extra_pnginfo;
} save_in;
static const at_in save_rows[] = {
    AT_ROW_LINK(save_in, images, "IMAGE"),
    AT_ROW(save_in, filename_prefix, AT_IN_STRING, .sdef = "ComfyUI"),
    AT_ROW_HIDDEN(save_in, prompt, "PROMPT"),
    AT_ROW_HIDDEN(save_in, extra_pnginfo, "EXTRA_PNGINFO"),
};
static const at_in preview_rows[] = {
    AT_ROW_LINK_BARE(save_in, images, "IMAGE"),
    AT_ROW_HIDDEN(save_in, prompt, "PROMPT"),
    AT_ROW_HIDDEN(save_in, extra_pnginfo, "EXTRA_PNGINFO"),
};

static const at_in mask_rows[] = {
    AT_ROW_LINK_BARE(save_in, mask, "MASK"),
    AT_ROW_HIDDEN(save_in, prompt, "PROMPT"),
    AT_ROW_HIDDEN(save_in, extra_pnginfo, "EXTRA_PNGINFO"),
};

// Picture `index` of the batch, and its row for the UI.
static at_status save_one(at_saver *s, const at_pixels *x, int64_t index, int level)
{
    at_status st = AT_OK;
    uint8_t *bytes = NULL;
    size_t n = 0;

    AT_TRY(at_png_encode(at_picture_at(x, index), x->w, x->h, (int)x->c, level, s->text,
                         s->text_count, &bytes, &n));
    AT_TRY(at_saver_file(s, index, ".png", bytes, n));
out:
    at_free(bytes);
    return st;
}

static at_status save_batch(at_node_ctx *c, const char *node, const save_in *in, const at_pixels *x,
                            bool temp, const char *prefix, int level)
{
    at_status st = AT_OK;
    at_saver s = {0};

    AT_TRY(at_saver_open(&s, c, node, temp, prefix, x->w, x->h, in->prompt, in->extra_pnginfo));
    for (int64_t i = 0; i < x->b; i++)
        AT_TRY(save_one(&s, x, i, level));
    AT_TRY(at_saver_show(&s, c, NULL));
out:
    at_saver_close(&s);
    return st;
}

static at_status save_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)out;
    const save_in *i = in;
    at_pixels x;
    at_status st = at_pixels_of("SaveImage", i->images, &x);
    return st == AT_OK ? save_batch(c, "SaveImage", i, &x, false, i->filename_prefix, 4) : st;
}
static const at_node node_save = {.class_type = "SaveImage",
                                  .display = "Save Image",
                                  .category = "image",
                                  .description =
                                      "Saves the input images to your ComfyUI output directory.",
                                  .python_module = "nodes",
                                  .flags = AT_NODE_OUTPUT,
                                  .in = save_rows,
                                  .n_in = AT_COUNT(save_rows),
                                  .in_size = sizeof(save_in),
                                  .run = save_run};

// A preview's prefix carries five random letters, so that two sessions do not overwrite each other.
static void preview_prefix(char prefix[32])
{
    unsigned char random[5];
    FILE *f = fopen("/dev/urandom", "rb");
    if (!f || fread(random, 1, sizeof random, f) != sizeof random) memset(random, 7, sizeof random);
    if (f) fclose(f);
    snprintf(prefix, 32, "ComfyUI_temp_xxxxx");
    for (size_t i = 0; i < sizeof random; i++)
        prefix[13 + i] = (char)('a' + random[i] % 26);
}

static at_status preview_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)out;
    const save_in *i = in;
    char prefix[32];
    at_pixels x;
    at_status st = at_pixels_of("PreviewImage", i->images, &x);
    preview_prefix(prefix);
    return st == AT_OK ? save_batch(c, "PreviewImage", i, &x, true, prefix, 1) : st;
}
static const at_node node_preview = {.class_type = "PreviewImage",
                                     .display = "Preview Image",
                                     .category = "image",
                                     .description =
                                         "Saves the input images to your ComfyUI output directory.",
                                     .python_module = "nodes",
                                     .flags = AT_NODE_OUTPUT,
                                     .in = preview_rows,
                                     .n_in = AT_COUNT(preview_rows),
                                     .in_size = sizeof(save_in),
                                     .run = preview_run};

// A mask is shown as a grey picture.
static at_status mask_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)out;
    at_status st = AT_OK;
    const save_in *i = in;
    char prefix[32];
    at_pixels m, x;
    at_tensor *t = NULL;
    float *p;

    AT_TRY(at_mask_of("MaskPreview", i->mask, &m));
    AT_TRY(at_pixels_new("MaskPreview", m.b, m.h, m.w, 3, &t, &p));
    for (int64_t n = 0; n < at_tensor_count(t); n++)
        p[n] = m.p[n / 3];
    AT_TRY(at_pixels_look("MaskPreview", t, &x));
    preview_prefix(prefix);
    AT_TRY(save_batch(c, "MaskPreview", i, &x, true, prefix, 4));
out:
    at_tensor_release(&t);
    return st;
}
static const at_node node_mask = {.class_type = "MaskPreview",
                                  .category = "mask",
                                  .description =
                                      "Saves the input images to your ComfyUI output directory.",
                                  .python_module = "comfy_extras.nodes_mask",
                                  .flags = AT_NODE_OUTPUT,
                                  .in = mask_rows,
                                  .n_in = AT_COUNT(mask_rows),
                                  .in_size = sizeof(save_in),
                                  .run = mask_run};

const at_node *const at_nodes_image[] = {&node_save, &node_preview, &node_mask, NULL};
