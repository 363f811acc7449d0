// SPDX-License-Identifier: Apache-2.0
// node_post.c - ImageBlend, ImageBlur, ImageSharpen, ImageRGBToYUV, ImageYUVToRGB: arithmetic on pixels.
// Idea: ComfyUI's Gaussian is a product of one along x and one along y, so it is done in two passes; sharpening
// is the picture plus ten times alpha of what the blur took away.
// Easy to get wrong: sigma is in units of half the kernel, not of pixels; borders mirror without repeating the
// edge, so a radius must be smaller than the picture.
// Source: ComfyUI 0.3.64, behaviour of nodes_post_processing.py and nodes_morphology.py; kornia 0.8 for YCbCr.
#include "nodes/nodes.h"
#include "nodes/pixels.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"

#define MODULE "comfy_extras.nodes_post_processing"

// --- ImageBlend --------------------------------------------------------------------------------------
typedef struct blend_in {
    at_object *image1, *image2;
    double blend_factor;
    const char *blend_mode;
} blend_in;
static const char *const blend_modes[] = {"normal",     "multiply",   "screen", "overlay",
                                          "soft_light", "difference", NULL};
static const at_in blend_rows[] = {
    AT_ROW_LINK(blend_in, image1, "IMAGE"), AT_ROW_LINK(blend_in, image2, "IMAGE"),
    AT_ROW_FLOAT_STEP(blend_in, blend_factor, 0.5, 0, 1, 0.01),
    AT_ROW(blend_in, blend_mode, AT_IN_COMBO, .choices = blend_modes)};

static float soft_light(float a, float b)
{
    if (b <= 0.5f) return a - (1 - 2 * b) * a * (1 - a);
    float g = a <= 0.25f ? ((16 * a - 12) * a + 4) * a : sqrtf(a);
    return a + (2 * b - 1) * (g - a);
}

static float blended(char mode, float a, float b)
{
    switch (mode) {
    case 'm': return a * b;
    case 's': return 1 - (1 - a) * (1 - b);
    case 'o': return a <= 0.5f ? 2 * a * b : 1 - 2 * (1 - a) * (1 - b);
    case 'l': return soft_light(a, b);
    case 'd': return a - b;
    default: return b;
    }
}

static at_status blend_check(const at_pixels *a, const at_pixels *b)
{
    if (b->c < a->c)
        return at_fail(AT_EINVAL,
                       "ImageBlend: image1 has %lld channels and image2 %lld: take image1's alpha "
                       "away (SplitImageWithAlpha)",
                       (long long)a->c, (long long)b->c);
    if (a->b != b->b && a->b != 1 && b->b != 1)
        return at_fail(AT_EINVAL, "ImageBlend: batches of %lld and %lld pictures do not match",
                       (long long)a->b, (long long)b->b);
    return AT_OK;
}

static at_status blend_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const blend_in *i = in;
    at_pixels a, b;
    at_tensor *fit = NULL, *t = NULL;
    float *p, f = (float)i->blend_factor, rest = (float)(1 - i->blend_factor);
    char mode = strcmp(i->blend_mode, "soft_light") == 0 ? 'l' : i->blend_mode[0];

    AT_TRY(at_pixels_of("ImageBlend", i->image1, &a));
    AT_TRY(at_pixels_of("ImageBlend", i->image2, &b));
    AT_TRY(blend_check(&a, &b));
    if (a.h != b.h || a.w != b.w) {
        AT_TRY(at_pixels_resize("ImageBlend", b.t, a.w, a.h, AT_RESIZE_BICUBIC, true, &fit));
        AT_TRY(at_pixels_look("ImageBlend", fit, &b));
    }
    int64_t count = a.b > b.b ? a.b : b.b, n = a.h * a.w;
    AT_TRY(at_pixels_new("ImageBlend", count, a.h, a.w, a.c, &t, &p));
    for (int64_t k = 0; k < count; k++) {
        const float *pa = at_picture_at(&a, k), *pb = at_picture_at(&b, k);
        for (int64_t y = 0; y < n; y++, pa += a.c, pb += b.c)
            for (int64_t x = 0; x < a.c; x++)
                *p++ = at_clamp01(pa[x] * rest + blended(mode, pa[x], pb[x]) * f);
    }
    st = at_give_image("ImageBlend", t, out);
out:
    at_tensor_release(&fit);
    return st;
}
static const at_node node_blend =
    AT_PIXEL_NODE("ImageBlend", NULL, "image/postprocessing", MODULE, AT_NODE_V3, blend_rows,
                  blend_in, at_image_out, blend_run);

// --- the Gaussian ------------------------------------------------------------------------------------
typedef struct gauss {
    const float *from;
    float *to;
    const float *weight; // 2 r + 1
    int64_t r, h, w, c;
    bool x;
} gauss;

static int64_t mirrored(int64_t i, int64_t n)
{
    return i < 0 ? -i : i >= n ? 2 * n - 2 - i : i;
}

static void gauss_rows(void *ctx, int64_t begin, int64_t end)
{
    const gauss *g = ctx;
    int64_t row = g->w * g->c;
    for (int64_t line = begin; line < end; line++) {
        int64_t y = line % g->h;
        const float *picture = g->from + (line - y) * row, *own = g->from + line * row;
        float *to = g->to + line * row;
        memset(to, 0, (size_t)row * sizeof *to);
        for (int64_t k = -g->r; k <= g->r; k++) {
            float w = g->weight[k + g->r];
            const float *other = picture + mirrored(y + k, g->h) * row;
            for (int64_t x = 0; x < g->w; x++) {
                const float *p = g->x ? own + mirrored(x + k, g->w) * g->c : other + x * g->c;
                for (int64_t c = 0; c < g->c; c++)
                    to[x * g->c + c] += p[c] * w;
            }
        }
    }
}

// Blur x into out (another place) through a scratch of the same size.
static at_status blur(const char *node, const at_pixels *x, int64_t r, double sigma, float *out)
{
    at_status st = AT_OK;
    float *weight = NULL, *scratch = NULL;
    double sum = 0;

    if (r < 1 || r >= x->h || r >= x->w)
        AT_TRY(at_fail(AT_EINVAL,
                       "%s: radius %lld does not fit a picture of %lld x %lld: it must be smaller "
                       "than both sides",
                       node, (long long)r, (long long)x->w, (long long)x->h));
    weight = at_alloc((size_t)(2 * r + 1) * sizeof *weight);
    scratch = at_alloc(at_tensor_bytes(x->t));
    if (!weight || !scratch) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory to blur", node));
    for (int64_t k = -r; k <= r; k++) {
        double d = (double)k / (double)r;
        weight[k + r] = (float)exp(-d * d / (2 * sigma * sigma));
        sum += (double)weight[k + r];
    }
    for (int64_t k = 0; k <= 2 * r; k++)
        weight[k] = (float)((double)weight[k] / sum);
    gauss g = {x->p, scratch, weight, r, x->h, x->w, x->c, true};
    at_parallel_for(x->b * x->h, 8, gauss_rows, &g);
    g.from = scratch, g.to = out, g.x = false;
    at_parallel_for(x->b * x->h, 8, gauss_rows, &g);
out:
    at_free(weight);
    at_free(scratch);
    return st;
}

// --- ImageBlur, ImageSharpen -------------------------------------------------------------------------
typedef struct blur_in {
    at_object *image;
    int64_t blur_radius, sharpen_radius;
    double sigma, alpha;
} blur_in;
static const at_in blur_rows[] = {AT_ROW_LINK(blur_in, image, "IMAGE"),
                                  AT_ROW_INT_STEP(blur_in, blur_radius, 1, 1, 31, 1),
                                  AT_ROW_FLOAT_STEP(blur_in, sigma, 1, 0.1, 10, 0.1)};
static const at_in sharpen_rows[] = {AT_ROW_LINK(blur_in, image, "IMAGE"),
                                     AT_ROW_INT_STEP(blur_in, sharpen_radius, 1, 1, 31, 1),
                                     AT_ROW_FLOAT_STEP(blur_in, sigma, 1, 0.1, 10, 0.01),
                                     AT_ROW_FLOAT_STEP(blur_in, alpha, 1, 0, 5, 0.01)};

static at_status blur_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const blur_in *i = in;
    at_pixels x;
    at_tensor *t = NULL;
    float *p;

    if (i->blur_radius == 0) return at_give_same(i->image, out);
    AT_TRY(at_pixels_of("ImageBlur", i->image, &x));
    AT_TRY(at_pixels_new("ImageBlur", x.b, x.h, x.w, x.c, &t, &p));
    AT_TRY(blur("ImageBlur", &x, i->blur_radius, i->sigma, p));
    AT_TRY(at_give_image("ImageBlur", at_tensor_retain(t), out));
out:
    at_tensor_release(&t);
    return st;
}
static const at_node node_blur =
    AT_PIXEL_NODE("ImageBlur", NULL, "image/postprocessing", MODULE, AT_NODE_V3, blur_rows, blur_in,
                  at_image_out, blur_run);

static at_status sharpen_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const blur_in *i = in;
    at_pixels x;
    at_tensor *t = NULL;
    float *p, by = (float)(i->alpha * 10);

    if (i->sharpen_radius == 0) return at_give_same(i->image, out);
    AT_TRY(at_pixels_of("ImageSharpen", i->image, &x));
    AT_TRY(at_pixels_new("ImageSharpen", x.b, x.h, x.w, x.c, &t, &p));
    AT_TRY(blur("ImageSharpen", &x, i->sharpen_radius, i->sigma, p));
    for (int64_t k = 0; k < at_tensor_count(t); k++)
        p[k] = at_clamp01(x.p[k] + by * (x.p[k] - p[k]));
    AT_TRY(at_give_image("ImageSharpen", at_tensor_retain(t), out));
out:
    at_tensor_release(&t);
    return st;
}
static const at_node node_sharpen =
    AT_PIXEL_NODE("ImageSharpen", NULL, "image/postprocessing", MODULE, AT_NODE_V3, sharpen_rows,
                  blur_in, at_image_out, sharpen_run);

// --- ImageRGBToYUV, ImageYUVToRGB --------------------------------------------------------------------
#define YUV_MODULE "comfy_extras.nodes_morphology"
typedef struct yuv_in {
    at_object *image, *Y, *U, *V;
} yuv_in;
static const at_in to_yuv_rows[] = {AT_ROW_LINK(yuv_in, image, "IMAGE")};
static const at_out yuv_out[] = {{.type_name = "IMAGE", .name = "Y"},
                                 {.type_name = "IMAGE", .name = "U"},
                                 {.type_name = "IMAGE", .name = "V"}};

// Grey pictures of Y, Cb and Cr, each with its value in all three channels.
static at_status to_yuv_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_pixels x;
    at_tensor *t[3];
    float *p[3];
    at_status st = at_pixels_of("ImageRGBToYUV", ((const yuv_in *)in)->image, &x);
    if (st == AT_OK && x.c != 3)
        st = at_fail(AT_EINVAL, "ImageRGBToYUV: the picture has %lld channels, not 3",
                     (long long)x.c);
    for (int k = 0; k < 3 && st == AT_OK; k++) {
        st = at_pixels_new("ImageRGBToYUV", x.b, x.h, x.w, 3, &t[k], &p[k]);
        if (st == AT_OK) st = at_give_image("ImageRGBToYUV", t[k], &out[k]);
    }
    for (int64_t n = 0; st == AT_OK && n < x.b * x.h * x.w; n++) {
        float r = x.p[3 * n], g = x.p[3 * n + 1], b = x.p[3 * n + 2];
        float y = 0.299f * r + 0.587f * g + 0.114f * b;
        float v[3] = {y, (b - y) * 0.564f + 0.5f, (r - y) * 0.713f + 0.5f};
        for (int k = 0; k < 9; k++)
            p[k / 3][3 * n + k % 3] = v[k / 3];
    }
    return st;
}
static const at_node node_to_yuv =
    AT_PIXEL_NODE("ImageRGBToYUV", NULL, "image/batch", YUV_MODULE, AT_NODE_V3, to_yuv_rows, yuv_in,
                  yuv_out, to_yuv_run);

static const at_in to_rgb_rows[] = {AT_ROW_LINK(yuv_in, Y, "IMAGE"),
                                    AT_ROW_LINK(yuv_in, U, "IMAGE"),
                                    AT_ROW_LINK(yuv_in, V, "IMAGE")};
static float mean_of(const float *p, int64_t c)
{
    float sum = 0;
    for (int64_t i = 0; i < c; i++)
        sum += p[i];
    return sum / (float)c;
}
static at_status to_rgb_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const yuv_in *i = in;
    const at_object *from[3] = {i->Y, i->U, i->V};
    at_pixels x[3];
    at_tensor *t;
    float *p;

    for (int k = 0; k < 3; k++) {
        AT_TRY(at_pixels_of("ImageYUVToRGB", from[k], &x[k]));
        if (x[k].b != x[0].b || x[k].h != x[0].h || x[k].w != x[0].w)
            AT_TRY(at_fail(AT_EINVAL, "ImageYUVToRGB: Y, U and V must be of one size"));
    }
    AT_TRY(at_pixels_new("ImageYUVToRGB", x[0].b, x[0].h, x[0].w, 3, &t, &p));
    for (int64_t n = 0; n < x[0].b * x[0].h * x[0].w; n++, p += 3) {
        float y = mean_of(x[0].p + n * x[0].c, x[0].c);
        float cb = mean_of(x[1].p + n * x[1].c, x[1].c) - 0.5f;
        float cr = mean_of(x[2].p + n * x[2].c, x[2].c) - 0.5f;
        p[0] = at_clamp01(y + 1.403f * cr);
        p[1] = at_clamp01(y - 0.714f * cr - 0.344f * cb);
        p[2] = at_clamp01(y + 1.773f * cb);
    }
    st = at_give_image("ImageYUVToRGB", t, out);
out:
    return st;
}
static const at_node node_to_rgb =
    AT_PIXEL_NODE("ImageYUVToRGB", NULL, "image/batch", YUV_MODULE, AT_NODE_V3, to_rgb_rows, yuv_in,
                  at_image_out, to_rgb_run);

const at_node *const at_nodes_post[] = {&node_blend,  &node_blur,   &node_sharpen,
                                        &node_to_yuv, &node_to_rgb, NULL};
