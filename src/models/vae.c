// SPDX-License-Identifier: Apache-2.0
// vae.c - VAEs as objects, and whole pictures through them.
// Idea: pictures are f32 [b, h, w, 3] in 0..1 on the host, latents f32 [b, c, h/8, w/8] on the
// device; images go through one at a time, and through tiles when memory runs out (as ComfyUI).
// Easy to get wrong: pixels = clamp((x + 1) / 2, 0, 1); encode crops centred, the smaller half in
// front.
// Owns: an at_vae owns its label and one reference to its at_bound.
#include <stdatomic.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"
#include "models/vae_tile.h"

struct at_vae {
    atomic_int refs;
    char *label;
    at_bound *bound;
};

static void vae_free(at_vae *v)
{
    if (!v) return;
    at_bound_release(&v->bound);
    at_free(v->label);
    at_free(v);
}

at_status at_vae_load(at_store *s, const char *label, at_vae **out)
{
    at_status st = AT_OK;
    at_found found[8];
    const at_found *f = NULL;
    at_vae *v = NULL;
    size_t n = at_detect(s, found, AT_LEN(found));

    for (size_t i = 0; i < n && !f; i++)
        if (found[i].part == AT_PART_VAE) f = &found[i];
    if (!f)
        AT_TRY(at_fail(AT_EFORMAT, "%s: no VAE of a known kind (KL) in this file of %zu tensors",
                       at_store_path(s), at_store_count(s)));
    v = at_calloc(1, sizeof *v);
    if (v) v->label = at_strdup(label);
    if (!v || !v->label) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a VAE", label));
    atomic_init(&v->refs, 1);
    AT_TRY(at_bound_new(f->arch, s, f->prefix, &v->bound));
    *out = v;
    v = NULL;
out:
    vae_free(v);
    return st;
}

at_vae *at_vae_retain(at_vae *v)
{
    if (v) atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
    return v;
}

void at_vae_release(at_vae **v)
{
    if (*v && atomic_fetch_sub_explicit(&(*v)->refs, 1, memory_order_acq_rel) == 1) vae_free(*v);
    *v = NULL;
}

at_store *at_vae_store(const at_vae *v)
{
    return v->bound->store;
}

const char *at_vae_prefix(const at_vae *v)
{
    return v->bound->prefix;
}

int at_vae_channels(const at_vae *v)
{
    return v->bound->arch->vae->channels(v->bound->config);
}

int at_vae_downscale(const at_vae *v)
{
    return v->bound->arch->vae->downscale(v->bound->config);
}

at_tensor *at_vae_decode_raw(at_ops *o, at_vae *v, const at_tensor *z)
{
    if (!z) return NULL;
    if (z->rank != 4 || z->shape[1] != at_vae_channels(v))
        return at_ops_poison(o, AT_EINVAL, "%s: takes latents [b, %d, h, w], not %lld channels",
                             v->label, at_vae_channels(v),
                             (long long)(z->rank > 1 ? z->shape[1] : 0));
    at_bound_prefetch(v->bound, at_ops_device(o), 0, 1);
    return v->bound->arch->vae->decode(o, v->bound, z);
}

at_tensor *at_vae_encode_raw(at_ops *o, at_vae *v, const at_tensor *x)
{
    int down = at_vae_downscale(v);
    if (!x) return NULL;
    if (x->rank != 4 || x->shape[1] != 3 || x->shape[2] % down || x->shape[3] % down)
        return at_ops_poison(o, AT_EINVAL,
                             "%s: takes pixels [b, 3, h, w] with h and w multiples of %d", v->label,
                             down);
    at_bound_prefetch(v->bound, at_ops_device(o), 0, 1);
    return v->bound->arch->vae->encode(o, v->bound, x);
}

// --- whole pictures ----------------------------------------------------------------------------
at_tensor *at_host_image(at_ops *o, int64_t b, int64_t h, int64_t w)
{
    at_tensor *t = NULL;
    at_status st = at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){b, h, w, 3}, &t);
    if (st != AT_OK)
        return at_ops_poison(o, st, "no memory for %lld pictures of %lld x %lld: %s", (long long)b,
                             (long long)w, (long long)h, at_error_text());
    return at_ops_adopt(o, t);
}

at_status at_copy_to_host(const at_tensor *t, float **out)
{
    size_t bytes = (size_t)at_tensor_count(t) * sizeof(float);
    float *p = at_alloc(bytes);
    if (!p) return at_fail(AT_ENOMEM, "no memory for %zu bytes of pixels", bytes);
    at_status st = at_tensor_to_host(t, AT_F32, p, bytes);
    if (st == AT_OK)
        *out = p;
    else
        at_free(p);
    return st;
}

float at_pixel_from(float x)
{
    float p = (x + 1.0f) * 0.5f;
    return p < 0.0f ? 0.0f : p > 1.0f ? 1.0f : p; // a NaN stays one
}

static void touch(void *ctx, int64_t begin, int64_t end)
{
    memset((float *)ctx + begin, 0, (size_t)(end - begin) * sizeof(float));
}

static void to_pixels(void *ctx, int64_t begin, int64_t end)
{
    float *p = ctx;
    for (int64_t i = begin; i < end; i++)
        p[i] = at_pixel_from(p[i]);
}

// One picture: x [1, 3, h, w] about -1..1 into out [h, w, 3]. The device turns it; while it still computes,
// the host's fresh pages are touched, which would take longer than the copy.
static void write_picture(at_ops *o, const at_tensor *x, float *out)
{
    enum { GRAIN = 1 << 16 };
    at_tensor *p = at_contiguous(o, at_permute(o, x, (int[]){0, 2, 3, 1}));
    if (!p) return;
    int64_t n = at_tensor_count(p);
    if (!at_ops_device(o)->host) at_parallel_for(n, GRAIN, touch, out);
    at_status st = at_tensor_to_host(p, AT_F32, out, (size_t)n * sizeof *out);
    if (st != AT_OK)
        at_ops_poison(o, st, "%s", at_error_text());
    else
        at_parallel_for(n, GRAIN, to_pixels, out);
}

// Ranks decide together whether it went well: what was too much for one is too much for all.
static at_status settle(at_ops *o)
{
    return at_ops_comm(o)->size > 1 ? at_ops_vote(o) : at_ops_status(o);
}

at_tensor *at_vae_decode(at_ops *o, at_vae *v, const at_tensor *z)
{
    if (!z) {
        settle(o);
        return NULL;
    }
    if (z->rank != 4) return at_vae_decode_raw(o, v, z);
    int64_t b = z->shape[0], down = at_vae_downscale(v);
    int64_t h = z->shape[2] * down, w = z->shape[3] * down;
    at_tensor *out = at_host_image(o, b, h, w);

    for (int64_t i = 0; out && i < b && at_ops_status(o) == AT_OK; i++) {
        at_scope_begin(o);
        at_tensor *x = at_vae_decode_raw(o, v, at_narrow(o, z, 0, i, 1));
        write_picture(o, x, (float *)at_tensor_data(out) + i * h * w * 3);
        at_scope_end(o, NULL);
    }
    if (settle(o) == AT_ENOMEM) {
        at_ops_clear(o);
        at_log(AT_WARN, "VAE-TILES", "%s: out of memory, decoding in tiles", v->label);
        return at_vae_decode_tiled(o, v, z, 64 * (int)down, 16 * (int)down);
    }
    return at_ops_status(o) == AT_OK ? out : NULL;
}

at_tensor *at_load_pixels(at_ops *o, const at_tensor *pixels, int64_t b, int64_t y, int64_t x,
                          int64_t h, int64_t w)
{
    int64_t shape[] = {1, 3, h, w};
    float *p = at_alloc((size_t)(3 * h * w) * sizeof *p);
    if (!p)
        return at_ops_poison(o, AT_ENOMEM, "no memory for %lld x %lld pixels", (long long)w,
                             (long long)h);
    const int64_t *stride = pixels->stride;
    const float *src = (const float *)at_tensor_data(pixels) + b * stride[0];
    for (int64_t c = 0; c < 3; c++)
        for (int64_t i = 0; i < h; i++)
            for (int64_t j = 0; j < w; j++)
                p[(c * h + i) * w + j] =
                    2.0f * src[(y + i) * stride[1] + (x + j) * stride[2] + c * stride[3]] - 1.0f;
    at_tensor *t = at_from_host(o, AT_F32, 4, shape, p);
    at_free(p);
    return t;
}

bool at_crop_pixels(at_ops *o, const at_vae *v, const at_tensor *pixels, at_crop *out)
{
    int64_t down = at_vae_downscale(v);
    if (!pixels) return false;
    if (pixels->rank != 4 || pixels->shape[3] < 3 || pixels->dtype != AT_F32 ||
        !at_tensor_device(pixels)->host || pixels->shape[1] < down || pixels->shape[2] < down) {
        at_ops_poison(o, AT_EINVAL,
                      "%s: encodes host pictures [b, h, w, 3] of at least %lld x %lld pixels",
                      v->label, (long long)down, (long long)down);
        return false;
    }
    int64_t h = pixels->shape[1], w = pixels->shape[2];
    *out = (at_crop){.y = h % down / 2, .x = w % down / 2, .h = h - h % down, .w = w - w % down};
    return true;
}

at_tensor *at_vae_encode(at_ops *o, at_vae *v, const at_tensor *pixels)
{
    at_crop c;
    at_tensor *out = NULL;
    if (!at_crop_pixels(o, v, pixels, &c)) {
        settle(o);
        return NULL;
    }
    for (int64_t i = 0; i < pixels->shape[0] && at_ops_status(o) == AT_OK; i++) {
        at_scope_begin(o);
        at_tensor *x = at_load_pixels(o, pixels, i, c.y, c.x, c.h, c.w);
        at_tensor *z = at_scope_end(o, at_vae_encode_raw(o, v, x));
        out = i ? at_concat(o, 0, 2, (const at_tensor *[]){out, z}) : z;
    }
    if (settle(o) == AT_ENOMEM) {
        at_ops_clear(o);
        at_log(AT_WARN, "VAE-TILES", "%s: out of memory, encoding in tiles", v->label);
        return at_vae_encode_tiled(o, v, pixels, 512, 64);
    }
    return out;
}
