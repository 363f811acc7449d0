// SPDX-License-Identifier: Apache-2.0
// node_post_quantize.c - ImageQuantize: a picture in few colours, plain or dithered.
// Easy to get wrong: the Bayer pattern's strength follows from the colours that were found, not from those that
// were asked for; its values are cut to bytes, and a half is added before.
// Source: ComfyUI 0.3.64, behaviour of nodes_post_processing.py; Bayer 1973.
#include "nodes/nodes.h"
#include "nodes/pixels.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "image/image.h"
#include "image/quantize.h"

typedef struct quantize_in {
    at_object *image;
    int64_t colors;
    const char *dither;
} quantize_in;
static const char *const dithers[] = {"none",    "floyd-steinberg", "bayer-2", "bayer-4",
                                      "bayer-8", "bayer-16",        NULL};
static const at_in quantize_rows[] = {AT_ROW_LINK(quantize_in, image, "IMAGE"),
                                      AT_ROW_INT_STEP(quantize_in, colors, 256, 1, 256, 1),
                                      AT_ROW(quantize_in, dither, AT_IN_COMBO, .choices = dithers)};

// The threshold at (y, x) of the pattern of 2^n x 2^n: four of the next smaller one, shifted.
static float bayer_at(int n, int64_t y, int64_t x)
{
    static const float shift[2][2] = {{-1.5f, 0.5f}, {1.5f, -0.5f}};
    if (n == 0) return 0.0f;
    int64_t half = (int64_t)1 << (n - 1);
    float q = (float)((int64_t)1 << (2 * n));
    return (q * bayer_at(n - 1, y % half, x % half) + shift[y / half][x / half]) / q;
}

static void add_bayer(uint8_t *rgb, int64_t h, int64_t w, int order, int colors)
{
    int n = 0;
    while (1 << n < order)
        n++;
    float table[16][16], spread = (float)(2.0 * 256 / colors);
    for (int y = 0; y < order; y++)
        for (int x = 0; x < order; x++)
            table[y][x] = spread * bayer_at(n, y, x) + 0.5f;
    for (int64_t i = 0; i < 3 * h * w; i++) {
        float v = (float)rgb[i] + table[i / 3 / w % order][i / 3 % w % order];
        rgb[i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
}

static at_status one_picture(const quantize_in *i, const at_pixels *x, int64_t b, uint8_t *bytes,
                             float *out)
{
    at_status st = AT_OK;
    int64_t n = 3 * x->h * x->w;
    at_palette palette;
    const float *p = at_picture_at(x, b);

    for (int64_t k = 0; k < n; k++)
        bytes[k] = at_pixel_byte(p[k]);
    AT_TRY(at_palette_make(bytes, n / 3, at_int_of(i->colors), &palette));
    if (strncmp(i->dither, "bayer-", 6) == 0)
        add_bayer(bytes, x->h, x->w, atoi(i->dither + 6), palette.count);
    AT_TRY(at_palette_apply(&palette, bytes, x->w, x->h, i->dither[0] == 'f'));
    for (int64_t k = 0; k < n; k++)
        out[k] = (float)bytes[k] / 255.0f;
out:
    return st == AT_OK ? st : at_fail_context(st, "ImageQuantize: ");
}

static at_status quantize_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const quantize_in *i = in;
    at_pixels x;
    at_tensor *t = NULL;
    uint8_t *bytes = NULL;
    float *p;

    AT_TRY(at_pixels_of("ImageQuantize", i->image, &x));
    if (x.c != 3)
        AT_TRY(at_fail(AT_EINVAL, "ImageQuantize: the picture has %lld channels, not 3",
                       (long long)x.c));
    AT_TRY(at_pixels_new("ImageQuantize", x.b, x.h, x.w, 3, &t, &p));
    bytes = at_alloc((size_t)(3 * x.h * x.w));
    if (!bytes) AT_TRY(at_fail(AT_ENOMEM, "ImageQuantize: no memory"));
    for (int64_t b = 0; b < x.b; b++)
        AT_TRY(one_picture(i, &x, b, bytes, p + b * 3 * x.h * x.w));
    AT_TRY(at_give_image("ImageQuantize", at_tensor_retain(t), out));
out:
    at_free(bytes);
    at_tensor_release(&t);
    return st;
}
static const at_node node_quantize = AT_PIXEL_NODE(
    "ImageQuantize", NULL, "image/postprocessing", "comfy_extras.nodes_post_processing", AT_NODE_V3,
    quantize_rows, quantize_in, at_image_out, quantize_run);

const at_node *const at_nodes_post_quantize[] = {&node_quantize, NULL};
