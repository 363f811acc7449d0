// SPDX-License-Identifier: Apache-2.0
// vision.c - picture encoders and style models as objects, and what pictures look like to them.
// Source: ComfyUI 0.3.64 comfy/clip_vision.py (clip_preprocess, load_clipvision_from_sd).
// Easy to get wrong:
//   - the picture is rounded to 8 bits after scaling, also when nothing was scaled
//   - the shorter side becomes `size`, the longer one is rounded half to even and cropped
// Owns: an at_vision owns its label and one reference to its at_bound.
#include "models/vision.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "image/resize.h"
#include "models/arch.h"

struct at_vision {
    atomic_int refs;
    char *label;
    at_bound *bound;
};

static void vision_free(at_vision *v)
{
    if (!v) return;
    at_bound_release(&v->bound);
    at_free(v->label);
    at_free(v);
}

at_status at_vision_load(at_store *s, at_part part, const char *label, at_vision **out)
{
    at_status st = AT_OK;
    at_vision *v = NULL;
    at_found found;

    if (at_store_find(s, "encoder.layer.23.layer_scale2.lambda1"))
        AT_TRY(at_fail(AT_EUNSUPPORTED, "%s: DINOv2 picture encoders are not built yet", label));
    if (!at_detect_part(s, part, NULL, &found))
        AT_TRY(at_fail(AT_EFORMAT,
                       "%s: no %s of a known kind in this file of %zu tensors; `atelier inspect` "
                       "shows what it holds",
                       label, part == AT_PART_STYLE ? "style model" : "picture encoder",
                       at_store_count(s)));
    v = at_calloc(1, sizeof *v);
    if (!v || !(v->label = at_strdup(label)))
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a picture encoder", label));
    atomic_init(&v->refs, 1);
    AT_TRY(at_bound_new(found.arch, s, found.prefix, &v->bound));
    *out = v;
    v = NULL;
out:
    vision_free(v);
    return st;
}

at_vision *at_vision_retain(at_vision *v)
{
    if (v) atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
    return v;
}

void at_vision_release(at_vision **v)
{
    if (*v && atomic_fetch_sub_explicit(&(*v)->refs, 1, memory_order_acq_rel) == 1) vision_free(*v);
    *v = NULL;
}

// --- pixels ------------------------------------------------------------------------------------
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

at_tensor *at_vision_pixels(at_ops *o, const at_vision *v, const at_tensor *image, bool crop)
{
    at_status st = AT_OK;
    at_vision_facts f = {0};
    at_tensor *scaled = NULL, *host = NULL, *out = NULL;

    v->bound->arch->vision->facts(v->bound, &f);
    if (image->rank != 4 || image->shape[3] < 3 || image->shape[1] < 1 || image->shape[2] < 1)
        AT_TRY(at_fail(AT_EINVAL, "%s: a picture [b, h, w, 3] is wanted", v->label));
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

// --- forwards ----------------------------------------------------------------------------------
at_seen at_vision_look(at_ops *o, const at_vision *v, const at_tensor *pixels)
{
    at_seen seen = {0};
    if (!pixels) return seen;
    at_scope_begin(o);
    at_seen r = v->bound->arch->vision->look(o, v->bound, pixels);
    at_tensor *last = at_ops_keep(o, r.last), *before = at_ops_keep(o, r.penultimate);
    at_tensor *embeds = at_ops_keep(o, r.embeds);
    at_scope_end(o, NULL);
    seen.last = last ? at_ops_adopt(o, last) : NULL;
    seen.penultimate = before ? at_ops_adopt(o, before) : NULL;
    seen.embeds = embeds ? at_ops_adopt(o, embeds) : NULL;
    return seen;
}

at_tensor *at_style_tokens(at_ops *o, const at_vision *style, const at_tensor *seen)
{
    if (!seen) return NULL;
    at_scope_begin(o);
    at_tensor *t = style->bound->arch->vision->style(o, style->bound, seen);
    return at_scope_end(o, at_cast(o, t, AT_F32));
}
