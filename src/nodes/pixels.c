// SPDX-License-Identifier: Apache-2.0
// pixels.c - see pixels.h.
#include "nodes/pixels.h"

const at_out at_image_out[1] = {AT_OUT("IMAGE")};
const at_out at_mask_out[1] = {AT_OUT("MASK")};
const at_out at_image_mask_out[2] = {AT_OUT("IMAGE"), AT_OUT("MASK")};

at_status at_pixels_look(const char *node, const at_tensor *t, at_pixels *out)
{
    char text[128];
    bool ok = t->dtype == AT_F32 && at_tensor_device(t)->host && at_tensor_contiguous(t) &&
              (t->rank == 3 || t->rank == 4) && at_tensor_count(t) > 0;
    if (!ok)
        return at_fail(AT_EINVAL,
                       "%s: takes pictures [batch, height, width, channels] and masks [batch, "
                       "height, width] that are not empty, not %s",
                       node, at_shape_text(t->dtype, t->rank, t->shape, text));
    *out = (at_pixels){.t = t,
                       .p = at_tensor_data(t),
                       .b = t->shape[0],
                       .h = t->shape[1],
                       .w = t->shape[2],
                       .c = t->rank == 4 ? t->shape[3] : 1};
    return AT_OK;
}

static at_status look(const char *node, const at_object *o, int rank, at_pixels *out)
{
    const at_tensor *t = ((const at_obj_image *)o)->pixels;
    at_status st = at_pixels_look(node, t, out);
    if (st == AT_OK && t->rank != rank)
        return at_fail(AT_EINVAL, "%s: got a %s where it takes a %s", node,
                       rank == 3 ? "picture" : "mask", rank == 3 ? "mask" : "picture");
    return st;
}

at_status at_pixels_of(const char *node, const at_object *image, at_pixels *out)
{
    return look(node, image, 4, out);
}
at_status at_mask_of(const char *node, const at_object *mask, at_pixels *out)
{
    return look(node, mask, 3, out);
}

static at_status make(const char *node, int rank, const int64_t shape[4], at_tensor **out,
                      float **p)
{
    char text[128];
    *out = NULL;
    for (int i = 0; i < rank; i++)
        if (shape[i] < 1)
            return at_fail(AT_EINVAL, "%s: nothing would be left of the picture: %s", node,
                           at_shape_text(AT_F32, rank, shape, text));
    at_status st = at_tensor_new(at_device_cpu(), AT_F32, rank, shape, out);
    if (st != AT_OK) return at_fail_context(st, "%s: ", node);
    *p = at_tensor_data(*out);
    return AT_OK;
}

at_status at_pixels_new(const char *node, int64_t b, int64_t h, int64_t w, int64_t c,
                        at_tensor **out, float **p)
{
    return make(node, 4, (int64_t[4]){b, h, w, c}, out, p);
}
at_status at_mask_new(const char *node, int64_t b, int64_t h, int64_t w, at_tensor **out, float **p)
{
    return make(node, 3, (int64_t[4]){b, h, w, 1}, out, p);
}

at_status at_give_image(const char *node, at_tensor *pixels, at_value *out)
{
    return at_give(out, at_obj_image_new(pixels), node);
}
at_status at_give_mask(const char *node, at_tensor *mask, at_value *out)
{
    return at_give(out, at_obj_mask_new(mask), node);
}
at_status at_give_same(at_object *o, at_value *out)
{
    *out = at_value_object(at_object_retain(o));
    return AT_OK;
}

at_status at_pixels_resize(const char *node, const at_tensor *in, int64_t width, int64_t height,
                           at_resize_how how, bool centre, at_tensor **out)
{
    at_status st = at_resize(in, in->rank == 3 ? AT_ORDER_NHW : AT_ORDER_NHWC, width, height, how,
                             centre, out);
    return st == AT_OK ? st : at_fail_context(st, "%s: ", node);
}
