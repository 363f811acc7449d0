// SPDX-License-Identifier: Apache-2.0
// node_image_animated.c - SaveAnimatedWEBP and SaveAnimatedPNG: a batch as one moving picture.
// Easy to get wrong: a frame's time is cut to whole milliseconds; the workflow lies in EXIF tags that count
// down from 0x010f (WebP) and in "comf" chunks behind the pictures (PNG).
// Source: ComfyUI 0.3.64, behaviour of comfy_extras/nodes_images.py.
#include "nodes/nodes.h"
#include "nodes/pixels.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "nodes/saving.h"

#define MODULE     "comfy_extras.nodes_images"
#define EXIF_MODEL 0x0110 // "prompt:...", and below it "workflow:..." and the others

typedef struct save_in {
    at_object *images;
    const char *filename_prefix;
    double fps;
    bool lossless;
    int64_t quality;
    const char *method;
    int64_t compress_level;
    const char *prompt, *extra_pnginfo;
} save_in;

static at_status frames_of(const char *node, const save_in *i, const at_pixels *x, at_frames *f)
{
    double ms = 1000.0 / i->fps;
    if (!(ms >= 0 && ms < 1 << 24))
        return at_fail(AT_EINVAL, "%s: %g pictures a second: 0.01 to 1000 can be", node, i->fps);
    *f = (at_frames){x->p, x->b, x->w, x->h, (int)x->c, (int)ms};
    return AT_OK;
}

// --- SaveAnimatedWEBP --------------------------------------------------------------------------------
static const char *const methods[] = {"default", "fastest", "slowest", NULL};
static const at_in webp_rows[] = {
    AT_ROW_LINK_BARE(save_in, images, "IMAGE"),
    AT_ROW(save_in, filename_prefix, AT_IN_STRING, .sdef = "ComfyUI"),
    AT_ROW_FLOAT_STEP(save_in, fps, 6, 0.01, 1000, 0.01),
    AT_ROW(save_in, lossless, AT_IN_BOOL, .def = 1),
    AT_ROW_INT(save_in, quality, 80, 0, 100),
    AT_ROW_CHOICE(save_in, method, methods),
    AT_ROW_HIDDEN(save_in, prompt, "PROMPT"),
    AT_ROW_HIDDEN(save_in, extra_pnginfo, "EXTRA_PNGINFO"),
};

// The saver's texts as EXIF, lowest tag first: the last of extra_pnginfo ... its first, then the prompt.
static at_status exif_of(const at_saver *s, const save_in *i, uint8_t **exif, size_t *n)
{
    at_status st = AT_OK;
    at_exif_text texts[AT_SAVER_TEXTS] = {0};
    size_t count = s->text_count, prompt = i->prompt ? 1 : 0;

    *exif = NULL;
    for (size_t k = 0; k < count; k++) {
        const at_text_chunk *from = &s->text[count - 1 - k];
        size_t place = count - 1 - k; // 0: the prompt, if there is one
        char *text = at_strprintf("%s:%s", from->key, from->value);
        if (!text) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory", s->node));
        texts[k] = (at_exif_text){(uint16_t)(EXIF_MODEL - place - (prompt ? 0 : 1)), text};
    }
    if (count) AT_TRY(at_exif_encode(texts, count, exif, n));
out:
    for (size_t k = 0; k < count; k++)
        at_free((void *)(uintptr_t)texts[k].text);
    return st;
}

static at_status webp_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)out;
    at_status st = AT_OK;
    const save_in *i = in;
    at_saver s = {0};
    at_pixels x;
    at_frames f;
    at_webp_how how = {.lossless = i->lossless, .quality = at_int_of(i->quality), .method = 4};
    uint8_t *bytes = NULL, *exif = NULL;
    size_t n;

    AT_TRY(at_pixels_of("SaveAnimatedWEBP", i->images, &x));
    AT_TRY(frames_of("SaveAnimatedWEBP", i, &x, &f));
    AT_TRY(at_saver_open(&s, c, "SaveAnimatedWEBP", false, i->filename_prefix, x.w, x.h, i->prompt,
                         i->extra_pnginfo));
    if (strcmp(i->method, "fastest") == 0) how.method = 0;
    if (strcmp(i->method, "slowest") == 0) how.method = 6;
    AT_TRY(exif_of(&s, i, &exif, &how.exif_bytes));
    how.exif = exif;
    AT_TRY(at_webp_encode(&f, &how, &bytes, &n));
    AT_TRY(at_saver_file(&s, 0, ".webp", bytes, n));
    bool moves = x.b != 1;
    AT_TRY(at_saver_show(&s, c, &moves));
out:
    at_free(bytes);
    at_free(exif);
    at_saver_close(&s);
    return st;
}
static const at_node node_webp = {.class_type = "SaveAnimatedWEBP",
                                  .category = "image/animation",
                                  .python_module = MODULE,
                                  .flags = AT_NODE_OUTPUT,
                                  .in = webp_rows,
                                  .n_in = AT_COUNT(webp_rows),
                                  .in_size = sizeof(save_in),
                                  .run = webp_run};

// --- SaveAnimatedPNG ---------------------------------------------------------------------------------
static const at_in png_rows[] = {
    AT_ROW_LINK_BARE(save_in, images, "IMAGE"),
    AT_ROW(save_in, filename_prefix, AT_IN_STRING, .sdef = "ComfyUI"),
    AT_ROW_FLOAT_STEP(save_in, fps, 6, 0.01, 1000, 0.01),
    AT_ROW_INT(save_in, compress_level, 4, 0, 9),
    AT_ROW_HIDDEN(save_in, prompt, "PROMPT"),
    AT_ROW_HIDDEN(save_in, extra_pnginfo, "EXTRA_PNGINFO"),
};

static at_status png_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)out;
    at_status st = AT_OK;
    const save_in *i = in;
    at_saver s = {0};
    at_pixels x;
    at_frames f;
    uint8_t *bytes = NULL;
    size_t n;

    AT_TRY(at_pixels_of("SaveAnimatedPNG", i->images, &x));
    AT_TRY(frames_of("SaveAnimatedPNG", i, &x, &f));
    AT_TRY(at_saver_open(&s, c, "SaveAnimatedPNG", false, i->filename_prefix, x.w, x.h, i->prompt,
                         i->extra_pnginfo));
    AT_TRY(at_apng_encode(&f, at_int_of(i->compress_level), s.text, s.text_count, &bytes, &n));
    AT_TRY(at_saver_file(&s, 0, ".png", bytes, n));
    bool moves = true; // also if all pictures are one
    AT_TRY(at_saver_show(&s, c, &moves));
out:
    at_free(bytes);
    at_saver_close(&s);
    return st;
}
static const at_node node_png = {.class_type = "SaveAnimatedPNG",
                                 .category = "image/animation",
                                 .python_module = MODULE,
                                 .flags = AT_NODE_OUTPUT,
                                 .in = png_rows,
                                 .n_in = AT_COUNT(png_rows),
                                 .in_size = sizeof(save_in),
                                 .run = png_run};

const at_node *const at_nodes_image_animated[] = {&node_webp, &node_png, NULL};
