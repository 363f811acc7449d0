// SPDX-License-Identifier: Apache-2.0
// patch_hypertile.c - HyperTile: self attention within tiles.
// Idea: tiles become a part of the batch before the projections and are put back after the last
// one.
// Easy to get wrong (all as ComfyUI does it):
//   - rows and columns are computed with the proportions turned round
//   - only queries are cut into tiles; keys and values keep their order and are cut into runs of
//     the same length
//   - the number of tiles along a side is drawn among its largest divisors but the last
// Source: behaviour of ComfyUI 0.3.64 comfy_extras/nodes_hypertile.py.
// Owns nothing.
#include <math.h>

#include "models/models.h"
#include "models/patch_host.h"
#include "models/patch_unet.h"

// How many tiles of at least `least` cells a side of `size` cells is cut into.
static int64_t tiles_of(at_hypertile *t, int64_t size, int64_t least)
{
    int64_t found[128] = {1}, n = 0, most = t->swap < 128 ? t->swap : 128;

    if (least > size) least = size;
    for (int64_t d = least; d <= size && n < most; d++)
        if (size % d == 0) found[n++] = size / d;
    return found[n > 1 ? at_mt_u32(&t->random) % (uint64_t)(n - 1) : 0];
}

// The level whose map has so many tokens, -1 if none is to be cut.
static int64_t level_of(const at_hypertile *t, const at_tensor *latent, int64_t tokens)
{
    double h = (double)latent->shape[2], w = (double)latent->shape[3];
    for (int64_t i = 0; i <= t->depth; i++, h /= 2, w /= 2)
        if (h * w == (double)tokens) return i;
    return -1;
}

static at_tensor *runs(at_ops *o, const at_tensor *x, int64_t batch)
{
    return x ? at_reshape(o, x, 3, (int64_t[]){batch, -1, x->shape[2]}) : NULL;
}

static void attn_in(void *self, at_ops *o, const at_site *s, const at_tensor **q,
                    const at_tensor **k, const at_tensor **v)
{
    at_hypertile *t = self;
    const at_tensor *latent = s->in->x;

    t->tiles_h = 0;
    if (s->cross || !*q || !*k || !*v) return;
    int64_t b = (*q)->shape[0], tokens = (*q)->shape[1], c = (*q)->shape[2];
    int64_t level = level_of(t, latent, tokens);
    if (level < 0) return;
    double aspect = (double)latent->shape[3] / (double)latent->shape[2];
    int64_t h = (int64_t)rint(sqrt((double)tokens * aspect));
    int64_t w = (int64_t)rint(sqrt((double)tokens / aspect));
    int64_t least = t->tile * (t->scale_depth ? (int64_t)1 << level : 1);
    int64_t nh = tiles_of(t, h, least), nw = tiles_of(t, w, least), n = nh * nw;
    if (n < 2) return;
    if (h * w != tokens || (*k)->shape[1] % n) {
        at_ops_poison(o, AT_EINVAL, "HyperTile: %lld tokens are not %lld x %lld in %lld tiles",
                      (long long)tokens, (long long)h, (long long)w, (long long)n);
        return;
    }
    const at_tensor *x = at_reshape(o, *q, 6, (int64_t[]){b, nh, h / nh, nw, w / nw, c});
    x = at_contiguous(o, at_permute(o, x, (int[]){0, 1, 3, 2, 4, 5}));
    *q = at_reshape(o, x, 3, (int64_t[]){b * n, tokens / n, c});
    *k = runs(o, *k, b * n);
    *v = runs(o, *v, b * n);
    t->tiles_h = nh;
    t->tiles_w = nw;
    t->h = h;
    t->w = w;
}

static at_tensor *attn_out(void *self, at_ops *o, const at_site *s, at_tensor *x)
{
    at_hypertile *t = self;
    if (s->cross || !t->tiles_h || !x) return x;
    int64_t nh = t->tiles_h, nw = t->tiles_w, b = x->shape[0] / (nh * nw), c = x->shape[2];
    t->tiles_h = 0;
    x = at_reshape(o, x, 6, (int64_t[]){b, nh, nw, t->h / nh, t->w / nw, c});
    x = at_contiguous(o, at_permute(o, x, (int[]){0, 1, 3, 2, 4, 5}));
    return at_reshape(o, x, 3, (int64_t[]){b, t->h * t->w, c});
}

const at_patch_ops at_patch_hypertile = {
    .name = "HyperTile", .free = at_patch_not_owned, .attn_in = attn_in, .attn_out = attn_out};
