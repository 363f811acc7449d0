// SPDX-License-Identifier: Apache-2.0
// upscaler.c - upscalers as objects, and whole pictures through them in tiles.
// Idea: pixels are stacked into channels, and results taken apart, on the host, where tiles are cut and
// blended anyway; the network sees [1, h, w, c].
// Easy to get wrong:
//   - a tile whose side is no multiple of `stack` is mirrored at its right and lower edge, and its result cut
//   - each tile's result is clamped to 0..1 before it is blended (spandrel does), not only at the end
//   - stacked channels are ordered colour, row, column (torch's pixel_unshuffle)
// Source: ComfyUI 0.3.64 (tiled_scale, ImageUpscaleWithModel) and spandrel's ESRGAN and Compact, as behaviour.
// Owns: an at_upscaler owns its label and one reference to its at_bound.
#include "models/upscaler.h"

#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "models/arch.h"
#include "models/vae_tile.h"

struct at_upscaler {
    atomic_int refs;
    char *label;
    at_bound *bound;
};

static void upscaler_free(at_upscaler *u)
{
    if (!u) return;
    at_bound_release(&u->bound);
    at_free(u->label);
    at_free(u);
}

// Kinds that people have and this program cannot run yet, by a tensor that only they have.
static const char *other_kind(at_store *s)
{
    static const char *const rows[][2] = {
        {"layers.0.residual_group.blocks.0.conv_block.cab.0.weight", "HAT"},
        {"layers.0.residual_group.blocks.0.norm1.weight", "SwinIR"},
        {"layers.0.residual_group.blocks.0.attn.relative_position_bias_table", "SwinIR"},
        {"layers.0.blocks.0.norm1.weight", "DAT"},
        {"block_1.c1_r.sk.weight", "SPAN"},
        {"conv_1.sk.weight", "SPAN"},
        {"feats.0.eval_conv.weight", "SPAN"},
        {"model.1.sub.0.RDB1.conv1x1.weight", "ESRGAN+"},
        {"to_feat.weight", "OmniSR or RealPLKSR"},
    };
    for (size_t i = 0; i < AT_LEN(rows); i++)
        for (int k = 0; k < 3; k++)
            if (at_store_findf(s, "%s%s", (const char *[]){"", "params.", "params_ema."}[k],
                               rows[i][0]))
                return rows[i][1];
    return NULL;
}

at_status at_upscaler_load(at_store *s, const char *label, at_upscaler **out)
{
    at_status st = AT_OK;
    at_upscaler *u = NULL;
    at_found found;
    const char *other = other_kind(s);

    if (other)
        AT_TRY(at_fail(AT_EUNSUPPORTED,
                       "%s: upscalers of the kind %s are not built yet; ESRGAN, Real-ESRGAN and "
                       "its compact networks are",
                       label, other));
    if (!at_detect_part(s, AT_PART_UPSCALER, NULL, &found))
        AT_TRY(at_fail(AT_EFORMAT,
                       "%s: no upscaler of a known kind (ESRGAN, Real-ESRGAN, compact) in this "
                       "file of %zu tensors",
                       label, at_store_count(s)));
    u = at_calloc(1, sizeof *u);
    if (!u || !(u->label = at_strdup(label)))
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for an upscaler", label));
    atomic_init(&u->refs, 1);
    AT_TRY(at_bound_new(found.arch, s, found.prefix, &u->bound));
    *out = u;
    u = NULL;
out:
    upscaler_free(u);
    return st;
}

at_upscaler *at_upscaler_retain(at_upscaler *u)
{
    if (u) atomic_fetch_add_explicit(&u->refs, 1, memory_order_relaxed);
    return u;
}

void at_upscaler_release(at_upscaler **u)
{
    if (*u && atomic_fetch_sub_explicit(&(*u)->refs, 1, memory_order_acq_rel) == 1)
        upscaler_free(*u);
    *u = NULL;
}

void at_upscaler_get_facts(const at_upscaler *u, at_upscaler_facts *out)
{
    u->bound->arch->upscaler->facts(u->bound->config, out);
}

// --- one tile ----------------------------------------------------------------------------------
typedef struct scaler {
    at_ops *o;
    const at_upscaler *u;
    const at_upscale_how *how;
    at_upscaler_facts f;
    const at_tensor *pixels;
    int64_t b, h, w; // the picture
    float *out;      // [h * scale, w * scale, c]
    int64_t done, all;
} scaler;

typedef struct window {
    int64_t y, x, h, w;
} window;

static int64_t mirrored(int64_t i, int64_t n)
{
    return i < n ? i : 2 * n - 2 - i;
}

// The window of the picture as the network wants it, on the device.
static at_tensor *load(const scaler *s, const window *t)
{
    int64_t k = s->f.stack, c = s->f.channels, h = (t->h + k - 1) / k, w = (t->w + k - 1) / k;
    const int64_t *stride = s->pixels->stride;
    const float *src = (const float *)at_tensor_data(s->pixels) + s->b * stride[0];
    if (h * k - t->h >= t->h || w * k - t->w >= t->w)
        return at_ops_poison(s->o, AT_EINVAL,
                             "%s: a picture of %lld x %lld is too small: it works on squares of "
                             "%lld pixels",
                             s->u->label, (long long)t->w, (long long)t->h, (long long)k);
    float *p = at_alloc((size_t)(h * k * w * k * c) * sizeof *p), *q = p;
    if (!p) return at_ops_poison(s->o, AT_ENOMEM, "%s: no memory for a tile", s->u->label);
    for (int64_t y = 0; y < h; y++)
        for (int64_t x = 0; x < w; x++)
            for (int64_t i = 0; i < c * k * k; i++) {
                int64_t sy = mirrored(y * k + i / k % k, t->h);
                int64_t sx = mirrored(x * k + i % k, t->w);
                *q++ = src[(t->y + sy) * stride[1] + (t->x + sx) * stride[2] +
                           i / (k * k) * stride[3]];
            }
    at_tensor *in = at_from_host(s->o, AT_F32, 4, (int64_t[]){1, h, w, c * k * k}, p);
    at_free(p);
    return at_cast(s->o, in, at_ops_compute(s->o));
}

static float clamp01(float v)
{
    return v < 0.0f ? 0.0f : v > 1.0f ? 1.0f : v; // a NaN stays one
}

// What the network gave, blended into the picture with the tile's shares.
static void blend(const scaler *s, const window *t, const at_tensor *from, const float *p,
                  const float *sy, const float *sx)
{
    int64_t k = s->f.unstack, c = s->f.channels, scale = s->f.scale, deep = c * k * k;
    const int64_t *stride = s->pixels->stride;
    const float *src = (const float *)at_tensor_data(s->pixels) + s->b * stride[0];
    for (int64_t y = 0; y < t->h * scale; y++)
        for (int64_t x = 0; x < t->w * scale; x++) {
            const float *own = p + (y / k * from->shape[2] + x / k) * deep;
            float *to = s->out + ((t->y * scale + y) * s->w * scale + t->x * scale + x) * c;
            for (int64_t i = 0; i < c; i++) {
                float v = own[(i * k + y % k) * k + x % k];
                if (s->f.add)
                    v += src[(t->y + y / scale) * stride[1] + (t->x + x / scale) * stride[2] +
                             i * stride[3]];
                to[i] += clamp01(v) * (sy[y] * sx[x]);
            }
        }
}

static bool fits(const scaler *s, const window *t, const at_tensor *x)
{
    int64_t k = s->f.unstack, scale = s->f.scale;
    return x->rank == 4 && x->shape[1] * k >= t->h * scale && x->shape[2] * k >= t->w * scale &&
           x->shape[3] == s->f.channels * k * k;
}

static at_status one_tile(scaler *s, const window *t, const float *sy, const float *sx)
{
    at_status st = AT_OK;
    float *host = NULL;
    const at_bound *bound = s->u->bound;

    at_scope_begin(s->o);
    at_tensor *x = bound->arch->upscaler->forward(s->o, bound, load(s, t));
    x = at_cast(s->o, at_contiguous(s->o, x), AT_F32);
    AT_TRY(at_ops_status(s->o));
    if (!fits(s, t, x))
        AT_TRY(
            at_fail(AT_EINTERNAL, "%s: the network gave another size than it said", s->u->label));
    AT_TRY(at_copy_to_host(x, &host));
    blend(s, t, x, host, sy, sx);
    if (s->how->step) s->how->step(s->how->ctx, ++s->done, s->all);
out:
    at_scope_end(s->o, NULL);
    at_free(host);
    return st;
}

// --- pictures ----------------------------------------------------------------------------------
static at_status one_picture(scaler *s, const at_cut *cy, const at_cut *cx, float *shares)
{
    at_status st = AT_OK;
    float *sx = shares + cy->tile * s->f.scale;
    for (int64_t i = 0; i < cy->count; i++) {
        window t;
        at_cut_window(cy, i, &t.y, &t.h);
        at_cut_shares(cy, s->f.scale, i, shares);
        for (int64_t j = 0; j < cx->count; j++) {
            at_cut_window(cx, j, &t.x, &t.w);
            at_cut_shares(cx, s->f.scale, j, sx);
            AT_TRY(one_tile(s, &t, shares, sx));
        }
    }
out:
    return st;
}

static at_status check(const at_upscaler *u, const at_upscaler_facts *f, const at_tensor *p,
                       const at_upscale_how *how)
{
    if (p->rank != 4 || p->dtype != AT_F32 || !at_tensor_device(p)->host ||
        at_tensor_count(p) == 0 || p->shape[3] != f->channels)
        return at_fail(AT_EINVAL, "%s: enlarges pictures of %d channels, not of %lld", u->label,
                       f->channels, (long long)(p->rank == 4 ? p->shape[3] : 0));
    if (how->tile < 8 || how->tile > 1 << 16 || how->overlap < 0 || how->overlap >= how->tile)
        return at_fail(AT_EINVAL, "%s: tiles of %d pixels, %d into the next", u->label, how->tile,
                       how->overlap);
    if (p->shape[1] > (1 << 20) / f->scale || p->shape[2] > (1 << 20) / f->scale)
        return at_fail(AT_EINVAL, "%s: %lld x %lld pixels times %d are too many", u->label,
                       (long long)p->shape[2], (long long)p->shape[1], f->scale);
    return AT_OK;
}

at_tensor *at_upscale(at_ops *o, const at_upscaler *u, const at_tensor *pixels,
                      const at_upscale_how *how)
{
    at_status st = AT_OK;
    scaler s = {.o = o, .u = u, .how = how, .pixels = pixels};
    at_tensor *out = NULL;
    float *shares = NULL;

    if (!pixels || at_ops_status(o) != AT_OK) return NULL;
    at_upscaler_get_facts(u, &s.f);
    AT_TRY(check(u, &s.f, pixels, how));
    s.h = pixels->shape[1], s.w = pixels->shape[2];
    at_cut cy = at_cut_make(s.h, how->tile, how->overlap);
    at_cut cx = at_cut_make(s.w, how->tile, how->overlap);
    s.all = pixels->shape[0] * cy.count * cx.count;
    int64_t shape[4] = {pixels->shape[0], s.h * s.f.scale, s.w * s.f.scale, s.f.channels};
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, 4, shape, &out));
    memset(at_tensor_data(out), 0, at_tensor_bytes(out));
    shares = at_alloc((size_t)((cy.tile + cx.tile) * s.f.scale) * sizeof *shares);
    if (!shares) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for the ramps of a tile", u->label));
    for (s.b = 0; s.b < pixels->shape[0]; s.b++) {
        s.out = (float *)at_tensor_data(out) + s.b * shape[1] * shape[2] * shape[3];
        AT_TRY(one_picture(&s, &cy, &cx, shares));
    }
out:
    at_free(shares);
    if (st == AT_OK) return at_ops_adopt(o, out);
    at_tensor_release(&out);
    return at_ops_status(o) == AT_OK ? at_ops_poison(o, st, "%s", at_error_text()) : NULL;
}
