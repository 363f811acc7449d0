// SPDX-License-Identifier: Apache-2.0
// node_image_batch.c - EmptyImage, GetImageSize, ImageInvert, ImageBatch, RepeatImageBatch, ImageFromBatch,
// RebatchImages, ImageAddNoise: what goes through whole batches.
// Easy to get wrong: ImageBatch brings the second batch to the first's size when anything but the number of
// pictures differs, cut around the middle.
// Source: ComfyUI 0.3.64, behaviour of nodes.py, comfy_extras/nodes_images.py and nodes_rebatch.py.
#include "nodes/nodes.h"
#include "nodes/pixels.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "sample/noise.h"

#define MODULE "comfy_extras.nodes_images"

typedef struct image_in {
    at_object *image;
    const char *unique_id;
} image_in;
static const at_in image_rows[] = {AT_ROW_LINK_BARE(image_in, image, "IMAGE")};

// --- EmptyImage --------------------------------------------------------------------------------------
typedef struct empty_in {
    int64_t width, height, batch_size, color;
} empty_in;
static const at_in empty_rows[] = {
    AT_ROW_INT_STEP(empty_in, width, 512, 1, AT_MAX_RESOLUTION, 1),
    AT_ROW_INT_STEP(empty_in, height, 512, 1, AT_MAX_RESOLUTION, 1),
    AT_ROW_INT(empty_in, batch_size, 1, 1, 4096),
    AT_ROW(empty_in, color, AT_IN_INT, .max = 0xFFFFFF, .step = 1, .display = "color",
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP),
};
static at_status empty_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const empty_in *i = in;
    at_tensor *t;
    float *p, rgb[3];
    at_status st = at_pixels_new("EmptyImage", i->batch_size, i->height, i->width, 3, &t, &p);
    if (st != AT_OK) return st;
    for (int k = 0; k < 3; k++)
        rgb[k] = (float)((double)(i->color >> (16 - 8 * k) & 0xFF) / 255.0);
    for (int64_t k = 0; k < at_tensor_count(t); k++)
        p[k] = rgb[k % 3];
    return at_give_image("EmptyImage", t, out);
}
static const at_node node_empty = AT_PIXEL_NODE("EmptyImage", NULL, "image", "nodes", 0, empty_rows,
                                                empty_in, at_image_out, empty_run);

// --- GetImageSize ------------------------------------------------------------------------------------
static const at_in size_rows[] = {AT_ROW_LINK_BARE(image_in, image, "IMAGE"),
                                  AT_ROW_HIDDEN(image_in, unique_id, "UNIQUE_ID")};
static const at_out size_out[] = {{.type_name = "INT", .name = "width"},
                                  {.type_name = "INT", .name = "height"},
                                  {.type_name = "INT", .name = "batch_size"}};
static at_status size_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_pixels x;
    at_status st = at_pixels_of("GetImageSize", ((const image_in *)in)->image, &x);
    if (st != AT_OK) return st;
    out[0] = at_value_int(x.w);
    out[1] = at_value_int(x.h);
    out[2] = at_value_int(x.b);
    return AT_OK;
}
static const at_node node_size = AT_PIXEL_NODE("GetImageSize", "Get Image Size", "image", MODULE, 0,
                                               size_rows, image_in, size_out, size_run);

// --- ImageInvert -------------------------------------------------------------------------------------
static at_status invert_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_pixels x;
    at_tensor *t;
    float *p;
    at_status st = at_pixels_of("ImageInvert", ((const image_in *)in)->image, &x);
    if (st == AT_OK) st = at_pixels_new("ImageInvert", x.b, x.h, x.w, x.c, &t, &p);
    if (st != AT_OK) return st;
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        p[i] = 1.0f - x.p[i];
    return at_give_image("ImageInvert", t, out);
}
static const at_node node_invert = AT_PIXEL_NODE("ImageInvert", "Invert Image", "image", "nodes", 0,
                                                 image_rows, image_in, at_image_out, invert_run);

// --- ImageBatch --------------------------------------------------------------------------------------
typedef struct batch_in {
    at_object *image1, *image2;
} batch_in;
static const at_in batch_rows[] = {AT_ROW_LINK_BARE(batch_in, image1, "IMAGE"),
                                   AT_ROW_LINK_BARE(batch_in, image2, "IMAGE")};
static at_status batch_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const batch_in *i = in;
    at_pixels a, b;
    at_tensor *fit = NULL, *t = NULL;
    float *p;

    AT_TRY(at_pixels_of("ImageBatch", i->image1, &a));
    AT_TRY(at_pixels_of("ImageBatch", i->image2, &b));
    if (a.h != b.h || a.w != b.w || a.c != b.c) {
        AT_TRY(at_pixels_resize("ImageBatch", b.t, a.w, a.h, AT_RESIZE_BILINEAR, true, &fit));
        AT_TRY(at_pixels_look("ImageBatch", fit, &b));
    }
    if (a.c != b.c)
        AT_TRY(at_fail(AT_EINVAL,
                       "ImageBatch: image1 has %lld channels and image2 %lld: only equal ones go "
                       "into one batch",
                       (long long)a.c, (long long)b.c));
    AT_TRY(at_pixels_new("ImageBatch", a.b + b.b, a.h, a.w, a.c, &t, &p));
    memcpy(p, a.p, at_tensor_bytes(a.t));
    memcpy(p + at_tensor_count(a.t), b.p, at_tensor_bytes(b.t));
    st = at_give_image("ImageBatch", t, out);
out:
    at_tensor_release(&fit);
    return st;
}
static const at_node node_batch = AT_PIXEL_NODE("ImageBatch", "Batch Images", "image", "nodes", 0,
                                                batch_rows, batch_in, at_image_out, batch_run);

// --- RepeatImageBatch, ImageFromBatch ----------------------------------------------------------------
// `count` pictures from `first` on, going round.
static at_status pictures(const char *node, const at_pixels *x, int64_t first, int64_t count,
                          at_tensor **t)
{
    float *p;
    int64_t one = x->h * x->w * x->c;
    at_status st = at_pixels_new(node, count, x->h, x->w, x->c, t, &p);
    for (int64_t i = 0; st == AT_OK && i < count; i++)
        memcpy(p + i * one, at_picture_at(x, first + i), (size_t)one * sizeof *p);
    return st;
}

typedef struct repeat_in {
    at_object *image;
    int64_t amount;
} repeat_in;
static const at_in repeat_rows[] = {AT_ROW_LINK_BARE(repeat_in, image, "IMAGE"),
                                    AT_ROW_INT(repeat_in, amount, 1, 1, 4096)};
static at_status repeat_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const repeat_in *i = in;
    at_pixels x;
    at_tensor *t;
    at_status st = at_pixels_of("RepeatImageBatch", i->image, &x);
    if (st == AT_OK && (i->amount < 1 || i->amount > INT_MAX / x.b))
        st = at_fail(AT_EINVAL, "RepeatImageBatch: cannot repeat %lld pictures %lld times",
                     (long long)x.b, (long long)i->amount);
    if (st == AT_OK) st = pictures("RepeatImageBatch", &x, 0, x.b * i->amount, &t);
    return st == AT_OK ? at_give_image("RepeatImageBatch", t, out) : st;
}
static const at_node node_repeat = AT_PIXEL_NODE("RepeatImageBatch", NULL, "image/batch", MODULE, 0,
                                                 repeat_rows, repeat_in, at_image_out, repeat_run);

typedef struct from_in {
    at_object *image;
    int64_t batch_index, length;
} from_in;
static const at_in from_rows[] = {AT_ROW_LINK_BARE(from_in, image, "IMAGE"),
                                  AT_ROW_INT(from_in, batch_index, 0, 0, 4095),
                                  AT_ROW_INT(from_in, length, 1, 1, 4096)};
static at_status from_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const from_in *i = in;
    at_pixels x;
    at_tensor *t;
    at_status st = at_pixels_of("ImageFromBatch", i->image, &x);
    if (st != AT_OK) return st;
    int64_t first = i->batch_index < x.b - 1 ? i->batch_index : x.b - 1;
    if (first < 0)
        return at_fail(AT_EINVAL, "ImageFromBatch: batch_index is %lld: it counts from 0",
                       (long long)first);
    int64_t length = i->length < x.b - first ? i->length : x.b - first;
    st = pictures("ImageFromBatch", &x, first, length, &t);
    return st == AT_OK ? at_give_image("ImageFromBatch", t, out) : st;
}
static const at_node node_from = AT_PIXEL_NODE("ImageFromBatch", NULL, "image/batch", MODULE, 0,
                                               from_rows, from_in, at_image_out, from_run);

// --- RebatchImages -----------------------------------------------------------------------------------
typedef struct rebatch_in {
    at_values images, batch_size;
} rebatch_in;
static const at_in rebatch_rows[] = {AT_ROW_LINK(rebatch_in, images, "IMAGE"),
                                     AT_ROW_INT(rebatch_in, batch_size, 1, 1, 4096)};
static const at_out rebatch_out[] = {{.type_name = "IMAGE", .name = "IMAGE", .is_list = true}};

// Where a batch that is being filled stands in the list of batches that came.
typedef struct cursor {
    const at_values *from;
    size_t item;
    int64_t picture;
} cursor;

static at_status next_picture(cursor *at, at_pixels *x)
{
    at_status st = AT_OK;
    for (; at->item < at->from->count; at->item++, at->picture = 0) {
        const at_value *v = &at->from->items[at->item];
        if (v->kind != AT_VAL_OBJECT)
            return at_fail(AT_EINVAL, "RebatchImages: item %zu is no picture", at->item);
        st = at_pixels_of("RebatchImages", v->o, x);
        if (st != AT_OK || at->picture < x->b) break;
    }
    return st;
}

// The next `count` pictures as one batch; they must agree in size.
static at_status rebatch_one(cursor *at, int64_t count, at_tensor **out)
{
    at_status st = AT_OK;
    at_pixels first = {0}, x = {0};
    float *p = NULL;
    *out = NULL;
    for (int64_t i = 0; i < count; i++, at->picture++) {
        AT_TRY(next_picture(at, &x));
        if (i == 0) {
            first = x;
            AT_TRY(at_pixels_new("RebatchImages", count, x.h, x.w, x.c, out, &p));
        }
        if (x.h != first.h || x.w != first.w || x.c != first.c)
            AT_TRY(at_fail(AT_EINVAL,
                           "RebatchImages: pictures of %lld x %lld x %lld and %lld x %lld x %lld "
                           "do not go into one batch",
                           (long long)first.w, (long long)first.h, (long long)first.c,
                           (long long)x.w, (long long)x.h, (long long)x.c));
        int64_t one = x.h * x.w * x.c;
        memcpy(p + i * one, x.p + at->picture * one, (size_t)one * sizeof *p);
    }
out:
    if (st != AT_OK) at_tensor_release(out);
    return st;
}

static at_status rebatch_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)out;
    const rebatch_in *i = in;
    cursor at = {.from = &i->images};
    int64_t total = 0, size = i->batch_size.count && i->batch_size.items[0].kind == AT_VAL_INT
                                  ? i->batch_size.items[0].i
                                  : 0;
    if (size < 1)
        return at_fail(AT_EINVAL, "RebatchImages: batch_size is %lld, it must be at least 1",
                       (long long)size);
    for (size_t k = 0; k < i->images.count; k++) {
        at_pixels x;
        if (i->images.items[k].kind != AT_VAL_OBJECT)
            return at_fail(AT_EINVAL, "RebatchImages: item %zu is no picture", k);
        at_status st = at_pixels_of("RebatchImages", i->images.items[k].o, &x);
        if (st != AT_OK) return st;
        total += x.b;
    }
    for (; total > 0; total -= size) {
        at_tensor *t;
        at_value v = {0};
        at_status st = rebatch_one(&at, total < size ? total : size, &t);
        if (st == AT_OK) st = at_give_image("RebatchImages", t, &v);
        if (st == AT_OK) st = at_node_emit(c, 0, v);
        if (st != AT_OK) return st;
    }
    return AT_OK;
}
static const at_node node_rebatch = AT_PIXEL_NODE(
    "RebatchImages", "Rebatch Images", "image/batch", "comfy_extras.nodes_rebatch",
    AT_NODE_V3 | AT_NODE_INPUT_IS_LIST, rebatch_rows, rebatch_in, rebatch_out, rebatch_run);

// --- ImageAddNoise -----------------------------------------------------------------------------------
typedef struct noise_in {
    at_object *image;
    uint64_t seed;
    double strength;
} noise_in;
static const at_in noise_rows[] = {AT_ROW_LINK_BARE(noise_in, image, "IMAGE"),
                                   AT_ROW(noise_in, seed, AT_IN_U64, .max = 18446744073709551615.0,
                                          .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_CONTROL,
                                          .tip = "The random seed used for creating the noise."),
                                   AT_ROW_FLOAT_STEP(noise_in, strength, 0.5, 0, 1, 0.01)};
static at_status noise_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const noise_in *i = in;
    at_pixels x;
    at_tensor *t;
    float *p;
    at_status st = at_pixels_of("ImageAddNoise", i->image, &x);
    if (st == AT_OK) st = at_pixels_new("ImageAddNoise", x.b, x.h, x.w, x.c, &t, &p);
    if (st != AT_OK) return st;
    at_randn(i->seed, p, at_tensor_count(t));
    for (int64_t k = 0; k < at_tensor_count(t); k++)
        p[k] = at_clamp01(x.p[k] + (float)i->strength * p[k]);
    return at_give_image("ImageAddNoise", t, out);
}
static const at_node node_noise = AT_PIXEL_NODE("ImageAddNoise", NULL, "image", MODULE, 0,
                                                noise_rows, noise_in, at_image_out, noise_run);

const at_node *const at_nodes_image_batch[] = {&node_empty,   &node_size,   &node_invert,
                                               &node_batch,   &node_repeat, &node_from,
                                               &node_rebatch, &node_noise,  NULL};
