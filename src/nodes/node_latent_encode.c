// SPDX-License-Identifier: Apache-2.0
// node_latent_encode.c - VAEEncodeTiled, VAEEncodeForInpaint.
// Easy to get wrong: the masked pixels become the middle grey by the mask as it is, the latent's noise mask is
// the grown one at the pixels' size; an even growth reaches one pixel further up and left.
// Source: ComfyUI 0.3.64, behaviour of nodes.py.
#include "nodes/latent.h"
#include "nodes/nodes.h"
#include "nodes/vae_encode.h"

#include <math.h>

typedef struct tiled_in {
    at_object *pixels, *vae;
    int64_t tile_size, overlap, temporal_size, temporal_overlap;
} tiled_in;
static const at_in tiled_rows[] = {
    AT_ROW_LINK_BARE(tiled_in, pixels, "IMAGE"),
    AT_ROW_LINK_BARE(tiled_in, vae, "VAE"),
    AT_ROW_INT_STEP(tiled_in, tile_size, 512, 64, 4096, 64),
    AT_ROW_INT_STEP(tiled_in, overlap, 64, 0, 4096, 32),
    AT_ROW_INT_STEP(tiled_in, temporal_size, 64, 8, 4096, 4),
    AT_ROW_INT_STEP(tiled_in, temporal_overlap, 8, 4, 4096, 4),
};
static at_status tiled_run(at_node_ctx *c, const void *in, at_value *out)
{
    const tiled_in *i = in;
    at_tensor *z = NULL;
    if (i->tile_size < 1)
        return at_fail(AT_EINVAL, "tile_size %lld: tiles have at least one pixel",
                       (long long)i->tile_size);
    at_status st = at_vae_to_latent(c, i->vae, ((const at_obj_image *)i->pixels)->pixels,
                                    at_int_of(i->tile_size), at_int_of(i->overlap), &z);
    return st == AT_OK ? at_give(&out[0], at_obj_latent_new(z), "VAEEncodeTiled") : st;
}
static const at_node node_tiled =
    AT_LATENT_NODE("VAEEncodeTiled", "VAE Encode (Tiled)", "_for_testing", "nodes", 0, tiled_rows,
                   tiled_in, tiled_run);

// --- VAEEncodeForInpaint -----------------------------------------------------------------------------
typedef struct inpaint_in {
    at_object *pixels, *vae, *mask;
    int64_t grow_mask_by;
} inpaint_in;
static const at_in inpaint_rows[] = {AT_ROW_LINK_BARE(inpaint_in, pixels, "IMAGE"),
                                     AT_ROW_LINK_BARE(inpaint_in, vae, "VAE"),
                                     AT_ROW_LINK_BARE(inpaint_in, mask, "MASK"),
                                     AT_ROW_INT_STEP(inpaint_in, grow_mask_by, 6, 0, 64, 1)};

// Rows and columns that a VAE can use, and where they begin: the middle.
typedef struct frame {
    int64_t y, x, h, w;
} frame;

// The mask at the picture's size, cut to the frame and rounded: [b, h, w] of 0 and 1.
static at_status fit_mask(const at_tensor *mask, const at_tensor *pixels, const frame *f,
                          at_tensor **out)
{
    at_status st = AT_OK;
    at_tensor *flat = NULL, *sized = NULL;
    int64_t mh = mask->shape[mask->rank - 2], mw = mask->shape[mask->rank - 1];
    int64_t n = mh * mw > 0 ? at_tensor_count(mask) / (mh * mw) : 0, w = pixels->shape[2];

    AT_TRY(at_tensor_reshape(mask, 3, (int64_t[]){n, mh, mw}, &flat));
    AT_TRY(at_resize(flat, AT_ORDER_NHW, w, pixels->shape[1], AT_RESIZE_BILINEAR, false, &sized));
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, 3, (int64_t[]){n, f->h, f->w}, out));
    const float *p = at_tensor_data(sized);
    float *to = at_tensor_data(*out);
    for (int64_t i = 0; i < n; i++)
        for (int64_t y = 0; y < f->h; y++)
            for (int64_t x = 0; x < f->w; x++)
                *to++ = rintf(p[(i * pixels->shape[1] + f->y + y) * w + f->x + x]);
out:
    at_tensor_release(&flat);
    at_tensor_release(&sized);
    return st;
}

// The frame of the picture with the masked places in grey: colours only, alpha stays.
static at_status grey(const at_tensor *pixels, const at_tensor *mask, const frame *f,
                      at_tensor **out)
{
    int64_t b = pixels->shape[0], c = pixels->shape[3], w = pixels->shape[2];
    at_status st = at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){b, f->h, f->w, c}, out);
    if (st != AT_OK) return st;
    const float *p = at_tensor_data(pixels), *m = at_tensor_data(mask);
    float *to = at_tensor_data(*out);
    for (int64_t i = 0; i < b; i++)
        for (int64_t y = 0; y < f->h; y++)
            for (int64_t x = 0; x < f->w; x++) {
                float keep = 1.0f - m[(i % mask->shape[0] * f->h + y) * f->w + x];
                const float *from = &p[((i * pixels->shape[1] + f->y + y) * w + f->x + x) * c];
                for (int64_t k = 0; k < c; k++)
                    *to++ = k < 3 ? (from[k] - 0.5f) * keep + 0.5f : from[k];
            }
    return AT_OK;
}

// Grown by `by` places, as [b, 1, h, w].
static at_status grow(const at_tensor *mask, int64_t by, at_tensor **out)
{
    int64_t n = mask->shape[0], h = mask->shape[1], w = mask->shape[2], up = by / 2;
    at_status st = at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){n, 1, h, w}, out);
    if (st != AT_OK) return st;
    const float *m = at_tensor_data(mask);
    float *to = at_tensor_data(*out);
    if (by < 1) by = 1, up = 0;
    for (int64_t i = 0; i < n * h * w; i++) {
        int64_t y = i / w % h, x = i % w;
        float sum = 0;
        for (int64_t dy = y - up; dy < y - up + by; dy++)
            for (int64_t dx = x - up; dx < x - up + by; dx++)
                if (dy >= 0 && dy < h && dx >= 0 && dx < w)
                    sum += m[(i / (h * w) * h + dy) * w + dx];
        to[i] = rintf(fminf(fmaxf(sum, 0), 1));
    }
    return AT_OK;
}

static at_status inpaint_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const inpaint_in *i = in;
    const at_tensor *pixels = ((const at_obj_image *)i->pixels)->pixels;
    at_tensor *mask = NULL, *cut = NULL, *grown = NULL, *z = NULL;

    if (!i->vae) AT_TRY(at_fail(AT_EINVAL, "vae input is invalid: None: load one with VAELoader"));
    if (i->grow_mask_by < 0 || i->grow_mask_by > 4096)
        AT_TRY(
            at_fail(AT_EINVAL, "grow_mask_by %lld, expected 0..4096", (long long)i->grow_mask_by));
    int64_t down = at_vae_downscale(((const at_obj_vae *)i->vae)->vae);
    int64_t h = pixels->shape[1], w = pixels->shape[2];
    frame f = {h % down / 2, w % down / 2, h / down * down, w / down * down};
    if (f.h < 1 || f.w < 1)
        AT_TRY(at_fail(AT_EINVAL, "a picture of %lld x %lld is smaller than this VAE's %lld",
                       (long long)w, (long long)h, (long long)down));
    AT_TRY(fit_mask(((const at_obj_image *)i->mask)->pixels, pixels, &f, &mask));
    if (mask->shape[0] != 1 && mask->shape[0] != pixels->shape[0])
        AT_TRY(at_fail(AT_EINVAL, "%lld masks for %lld pictures", (long long)mask->shape[0],
                       (long long)pixels->shape[0]));
    AT_TRY(grey(pixels, mask, &f, &cut));
    AT_TRY(at_vae_to_latent(c, i->vae, cut, 0, 0, &z));
    AT_TRY(grow(mask, i->grow_mask_by, &grown));
    st = at_latent_parts("VAEEncodeForInpaint", z, grown, NULL, &out[0]);
    z = NULL;
out:
    at_tensor_release(&mask);
    at_tensor_release(&cut);
    at_tensor_release(&grown);
    at_tensor_release(&z);
    return st;
}
static const at_node node_inpaint =
    AT_LATENT_NODE("VAEEncodeForInpaint", "VAE Encode (for Inpainting)", "latent/inpaint", "nodes",
                   0, inpaint_rows, inpaint_in, inpaint_run);

const at_node *const at_nodes_latent_encode[] = {&node_tiled, &node_inpaint, NULL};
