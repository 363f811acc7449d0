// SPDX-License-Identifier: Apache-2.0
// vae_tile.c - pictures through a VAE in overlapping tiles.
// Idea: three cuts (as asked, tall, wide) are each blended with linear feathers and then averaged,
// as ComfyUI's VAEDecodeTiled does (behaviour of its tiled_scale, 0.3.64). A feather mask is a
// product of one ramp per side, and so is the sum of all masks: two short tables replace the mask
// and weight images, and one output buffer takes all three cuts.
// Easy to get wrong:
//   - ramps apply at the picture's border too; the division by the sum undoes them there
//   - a ramp as long as the window is left out
//   - the last window keeps its start and is shorter, it is not moved back
// Owns nothing: the result belongs to the op scope.
#include "models/vae_tile.h"

#include "base/mem.h"

enum { CUTS = 3 };

at_cut at_cut_make(int64_t size, int64_t tile, int64_t overlap)
{
    at_cut c = {.size = size, .tile = tile < 1 ? 1 : tile, .overlap = overlap, .count = 1};
    if (c.overlap >= c.tile) c.overlap = c.tile - 1;
    c.step = c.tile - c.overlap;
    if (size > c.tile) c.count = (size - c.overlap + c.step - 1) / c.step;
    return c;
}

void at_cut_window(const at_cut *c, int64_t i, int64_t *start, int64_t *length)
{
    *start = i * c->step;
    *length = c->size - *start < c->tile ? c->size - *start : c->tile;
}

// Ramp of a window of n places at place t.
static float feather(int64_t n, int64_t ramp, int64_t t)
{
    float a = 1.0f;
    if (ramp >= n) return a;
    if (t < ramp) a *= (float)(t + 1) / (float)ramp;
    if (n - 1 - t < ramp) a *= (float)(n - t) / (float)ramp;
    return a;
}

void at_cut_shares(const at_cut *c, int64_t scale, int64_t i, float *out)
{
    int64_t start, length, ramp = c->overlap * scale;
    at_cut_window(c, i, &start, &length);
    for (int64_t t = 0; t < length * scale; t++) {
        int64_t place = start * scale + t;
        double sum = 0;
        for (int64_t j = 0; j < c->count; j++) {
            int64_t s, n;
            at_cut_window(c, j, &s, &n);
            if (place < s * scale || place >= (s + n) * scale) continue;
            sum += feather(n * scale, ramp, place - s * scale);
        }
        out[t] = (float)(feather(length * scale, ramp, t) / sum);
    }
}

// --- the three cuts ----------------------------------------------------------------------------
// One picture's way through tiles: `scale` output places for one latent place, and where they go.
typedef struct tiler {
    at_ops *o;
    at_vae *v;
    const at_tensor *source; // latents (decode) or pixels (encode)
    int64_t picture, down, scale;
    at_crop crop; // of the pixels, encode only
    bool decode;
    int64_t height, width; // in latent places
    float *out;
    int64_t stride_c, stride_y, stride_x, channels;
} tiler;

static at_tensor *network(const tiler *t, int64_t y, int64_t x, int64_t h, int64_t w)
{
    at_ops *o = t->o;
    if (!t->decode) {
        int64_t d = t->down;
        return at_vae_encode_raw(o, t->v,
                                 at_load_pixels(o, t->source, t->picture, t->crop.y + y * d,
                                                t->crop.x + x * d, h * d, w * d));
    }
    at_tensor *z = at_narrow(o, t->source, 0, t->picture, 1);
    z = at_narrow(o, at_narrow(o, z, 2, y, h), 3, x, w);
    return at_vae_decode_raw(o, t->v, at_contiguous(o, z));
}

// out += tile * share of its row * share of its column / 3
static void blend(const tiler *t, const float *tile, int64_t y0, int64_t x0, int64_t h, int64_t w,
                  const float *sy, const float *sx)
{
    for (int64_t c = 0; c < t->channels; c++)
        for (int64_t y = 0; y < h; y++) {
            float *row = t->out + c * t->stride_c + (y0 + y) * t->stride_y + x0 * t->stride_x;
            const float *src = tile + (c * h + y) * w;
            for (int64_t x = 0; x < w; x++)
                row[x * t->stride_x] += src[x] * (sy[y] * sx[x] / (float)CUTS);
        }
}

static at_status one_tile(const tiler *t, const at_cut *cy, const at_cut *cx, int64_t i, int64_t j,
                          float *shares)
{
    at_status st = AT_OK;
    float *host = NULL, *sx = shares + cy->tile * t->scale;
    int64_t y, x, h, w;

    at_cut_window(cy, i, &y, &h);
    at_cut_window(cx, j, &x, &w);
    at_scope_begin(t->o);
    at_tensor *r = network(t, y, x, h, w);
    AT_TRY(at_ops_status(t->o));
    AT_TRY(at_copy_to_host(r, &host));
    at_cut_shares(cy, t->scale, i, shares);
    at_cut_shares(cx, t->scale, j, sx);
    blend(t, host, y * t->scale, x * t->scale, h * t->scale, w * t->scale, shares, sx);
out:
    at_scope_end(t->o, NULL);
    at_free(host);
    return st;
}

static at_status one_cut(const tiler *t, int64_t tile_h, int64_t tile_w, int64_t overlap)
{
    at_status st = AT_OK;
    at_cut cy = at_cut_make(t->height, tile_h, overlap),
           cx = at_cut_make(t->width, tile_w, overlap);
    float *shares = at_alloc((size_t)((cy.tile + cx.tile) * t->scale) * sizeof *shares);

    if (!shares) AT_TRY(at_fail(AT_ENOMEM, "no memory for the ramps of a tile"));
    for (int64_t i = 0; i < cy.count; i++)
        for (int64_t j = 0; j < cx.count; j++)
            AT_TRY(one_tile(t, &cy, &cx, i, j, shares));
out:
    at_free(shares);
    return st;
}

// tile and overlap in latent places. The result is in t->out; a failure is in the ops.
static void all_cuts(const tiler *t, int64_t tile, int64_t overlap)
{
    at_status st = AT_OK;
    AT_TRY(one_cut(t, tile * 2, tile / 2, overlap));
    AT_TRY(one_cut(t, tile / 2, tile * 2, overlap));
    AT_TRY(one_cut(t, tile, tile, overlap));
out:
    if (st != AT_OK) at_ops_poison(t->o, st, "%s", at_error_text());
}

static bool tile_is_usable(at_ops *o, int tile, int overlap, int64_t down)
{
    if (tile / down >= 2 && tile <= 1 << 20 && overlap >= 0) return true;
    at_ops_poison(o, AT_EINVAL,
                  "a tile of %d pixels with an overlap of %d: at least %d and 0 are needed", tile,
                  overlap, (int)(2 * down));
    return false;
}

at_tensor *at_vae_decode_tiled(at_ops *o, at_vae *v, const at_tensor *z, int tile, int overlap)
{
    int64_t down = at_vae_downscale(v);
    if (!z || !tile_is_usable(o, tile, overlap, down)) return NULL;
    if (z->rank != 4) return at_vae_decode_raw(o, v, z); // refuses it
    int64_t h = z->shape[2] * down, w = z->shape[3] * down, n = h * w * 3;
    at_tensor *out = at_host_image(o, z->shape[0], h, w);

    for (int64_t b = 0; out && b < z->shape[0] && at_ops_status(o) == AT_OK; b++) {
        float *p = (float *)at_tensor_data(out) + b * n;
        for (int64_t i = 0; i < n; i++)
            p[i] = 0;
        tiler t = {.o = o,
                   .v = v,
                   .source = z,
                   .picture = b,
                   .down = down,
                   .scale = down,
                   .decode = true,
                   .height = z->shape[2],
                   .width = z->shape[3],
                   .out = p,
                   .stride_c = 1,
                   .stride_y = w * 3,
                   .stride_x = 3,
                   .channels = 3};
        all_cuts(&t, tile / down, overlap / down);
        for (int64_t i = 0; i < n; i++)
            p[i] = at_pixel_from(p[i]);
    }
    return at_ops_status(o) == AT_OK ? out : NULL;
}

at_tensor *at_vae_encode_tiled(at_ops *o, at_vae *v, const at_tensor *pixels, int tile, int overlap)
{
    int64_t down = at_vae_downscale(v), c = at_vae_channels(v);
    at_crop crop;
    if (!tile_is_usable(o, tile, overlap, down) || !at_crop_pixels(o, v, pixels, &crop))
        return NULL;
    int64_t b = pixels->shape[0], h = crop.h / down, w = crop.w / down, n = c * h * w;
    at_tensor *out = NULL;
    float *all = at_calloc((size_t)(b * n), sizeof *all);
    if (!all) return at_ops_poison(o, AT_ENOMEM, "no memory for %lld latents", (long long)b);

    for (int64_t i = 0; i < b && at_ops_status(o) == AT_OK; i++) {
        tiler t = {.o = o,
                   .v = v,
                   .source = pixels,
                   .picture = i,
                   .down = down,
                   .scale = 1,
                   .crop = crop,
                   .height = h,
                   .width = w,
                   .out = all + i * n,
                   .stride_c = h * w,
                   .stride_y = w,
                   .stride_x = 1,
                   .channels = c};
        all_cuts(&t, tile / down, overlap / down);
    }
    if (at_ops_status(o) == AT_OK) out = at_from_host(o, AT_F32, 4, (int64_t[]){b, c, h, w}, all);
    at_free(all);
    return out;
}
