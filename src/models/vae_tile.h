// SPDX-License-Identifier: Apache-2.0
// vae_tile.h - what vae.c and vae_tile.c share; nobody else includes it but their tests.
// Owns nothing but what a prototype says.
#ifndef AT_MODELS_VAE_TILE_H
#define AT_MODELS_VAE_TILE_H

#include "models/arch.h"

// f32 [b, h, w, 3] on the host, uninitialised, in the current scope.
at_tensor *at_host_image(at_ops *o, int64_t b, int64_t h, int64_t w);
// f32 elements of t in fresh host memory (at_free).
at_status at_copy_to_host(const at_tensor *t, float **out);
// clamp((x + 1) / 2, 0, 1)
float at_pixel_from(float x);

// The part of a picture that a VAE can encode: multiples of its downscale, centred.
typedef struct at_crop {
    int64_t y, x, h, w;
} at_crop;
bool at_crop_pixels(at_ops *o, const at_vae *v, const at_tensor *pixels, at_crop *out);
// A window of picture b as [1, 3, h, w] in -1..1 on the op device.
at_tensor *at_load_pixels(at_ops *o, const at_tensor *pixels, int64_t b, int64_t y, int64_t x,
                          int64_t h, int64_t w);

// How one side of a picture is cut: `count` windows of at most `tile`, each `overlap` into the
// next.
typedef struct at_cut {
    int64_t size, tile, overlap, step, count;
} at_cut;
at_cut at_cut_make(int64_t size, int64_t tile, int64_t overlap);
void at_cut_window(const at_cut *c, int64_t i, int64_t *start, int64_t *length);
// Share of window i in the output at each of its length * scale places: the feather of that window
// over the sum of all feathers there. Shares at one place sum to 1.
void at_cut_shares(const at_cut *c, int64_t scale, int64_t i, float *out);

#endif
