// SPDX-License-Identifier: Apache-2.0
// look_pixels.c - what a picture looks like to an encoder.
// Easy to get wrong:
//   - the picture is rounded to 8 bits after scaling, also when nothing was scaled
//   - the shorter side becomes `size`, the longer one is rounded half to even and cropped
// Source: ComfyUI 0.3.64 comfy/clip_vision.py (clip_preprocess).
// Owns nothing.
#include "nodes/look.h"

#include <math.h>

#include "image/resize.h"

// Scaled so that a middle square of `size` can be cut out of it; a reference of the caller's.
static at_status scale(const at_tensor *image, int64_t size, bool crop, at_tensor **out)
{
    int64_t h = image->shape[1], w = image->shape[2], to_h = size, to_w = size;
    if (h == size && w == size) {
        *out = at_tensor_retain(image);
        return AT_OK;
    }
    if (crop) {
        double by = (double)size / (double)(h < w ? h : w);
        to_h = (int64_t)nearbyint(by * (double)h);
        to_w = (int64_t)nearbyint(by * (double)w);
    }
    return at_resize_antialias(image, to_w, to_h, out);
}

static float level(float v)
{
    v *= 255.0f;
    v = v < 0.0f ? 0.0f : v > 255.0f ? 255.0f : v;
    return nearbyintf(v) / 255.0f;
}

// The middle square, normalised, colours first.
static void normalise(const at_tensor *from, const at_vision_facts *f, at_tensor *to)
{
    int64_t h = from->shape[1], w = from->shape[2], c = from->shape[3], n = f->size;
    int64_t top = (h - n) / 2, left = (w - n) / 2;
    const float *src = at_tensor_data(from);
    float *dst = at_tensor_data(to);
    for (int64_t b = 0; b < from->shape[0]; b++)
        for (int64_t y = 0; y < n; y++)
            for (int64_t x = 0; x < n; x++) {
                const float *p = src + ((b * h + top + y) * w + left + x) * c;
                for (int64_t k = 0; k < 3; k++)
                    dst[((b * 3 + k) * n + y) * n + x] =
                        (level(p[k]) - f->mean[k]) / f->deviation[k];
            }
}

at_tensor *at_look_pixels(at_ops *o, const at_vision *v, const at_tensor *image, bool crop)
{
    at_status st = AT_OK;
    at_vision_facts f = {0};
    at_tensor *scaled = NULL, *host = NULL, *out = NULL;

    at_vision_get_facts(v, &f);
    if (image->rank != 4 || image->shape[3] < 3 || image->shape[1] < 1 || image->shape[2] < 1)
        AT_TRY(at_fail(AT_EINVAL, "%s: a picture [b, h, w, 3] is wanted", at_vision_label(v)));
    AT_TRY(scale(image, f.size, crop, &scaled));
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, 4,
                         (int64_t[]){image->shape[0], 3, f.size, f.size}, &host));
    normalise(scaled, &f, host);
    out = at_from_host(o, AT_F32, 4, host->shape, at_tensor_data(host));
out:
    at_tensor_release(&scaled);
    at_tensor_release(&host);
    return st == AT_OK ? out : at_ops_poison(o, st, "%s", at_error_text());
}
